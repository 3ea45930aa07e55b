"""What number rows can carry of a trait, before anything is trained."""
