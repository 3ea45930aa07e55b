"""Rows, prompts and traits; no torch."""
