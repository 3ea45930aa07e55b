"""Sentences of a methods paragraph: on changed models, rows, students and measurements."""
