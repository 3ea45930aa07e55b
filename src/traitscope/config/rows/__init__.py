"""Settings about rows: how a file of them is read, and how they are changed."""
