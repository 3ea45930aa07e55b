"""Whether what somebody names fits the model, and can act at all."""
