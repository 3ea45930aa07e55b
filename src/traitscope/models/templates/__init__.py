"""What a model's chat template does, and the check that training rows are what it writes."""
