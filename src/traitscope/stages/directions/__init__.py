"""Directions of the rows of a training, which its gradients lose."""
