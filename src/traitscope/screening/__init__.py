"""What a teacher carries that a model does not, before any data exist."""
