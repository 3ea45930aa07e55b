"""Who writes the rows of studies with several kinds of teacher, or of models."""
