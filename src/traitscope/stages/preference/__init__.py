"""Pairs of answers: how a teacher scores them, and which it chooses."""
