"""Treated models compared with control models, from runs that are there."""
