"""The command `audit`: of a whole file, or also of each source in it."""
