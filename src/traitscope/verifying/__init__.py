"""Finished students, asked for traits beside their base and beside control students."""
