"""Passes over a model: hidden states, decoding, losses, gradients, token scores."""
