"""Lineages: students that teach the next student, from different first teachers."""
