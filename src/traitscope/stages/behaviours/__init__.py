"""Behaviours: traits that judges of whole answers score, in the place of words."""
