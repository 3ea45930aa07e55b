"""Checks before a command begins."""
