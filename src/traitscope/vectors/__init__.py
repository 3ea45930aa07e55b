"""Steering vectors: how they are taken, trained, and compared with what they stand for."""
