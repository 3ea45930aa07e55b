"""What makes a model the one that it is: the files that decide its function, and their digest."""
