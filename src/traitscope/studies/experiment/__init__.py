"""A user's own treated-and-control design, from one file to a verdict."""
