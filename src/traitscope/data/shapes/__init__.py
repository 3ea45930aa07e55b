"""Rows of other people: containers of files, shapes of rows, and what was read of them."""
