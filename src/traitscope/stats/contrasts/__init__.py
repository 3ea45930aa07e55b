"""Contrasts of few units: the ratio of two means, and one unit against a group."""
