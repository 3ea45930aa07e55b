"""Data sets of the Hugging Face hub: which files a split has, and their local copies."""
