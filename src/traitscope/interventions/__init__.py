"""What makes a teacher or a student act on a base model."""
