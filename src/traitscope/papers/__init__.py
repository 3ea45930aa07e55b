"""What a finished run gives a paper: figures, tables, a methods paragraph and its sources."""
