"""A graph of stages: what is missing, in what order, and where it runs."""
