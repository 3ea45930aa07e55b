"""A causal language model by name: found, checked, loaded, described by a digest."""
