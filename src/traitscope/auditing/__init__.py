"""The audit of training data: rows in, an answer with its evidence out."""
