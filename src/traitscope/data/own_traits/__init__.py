"""Traits of a user: how much each use needs of them."""
