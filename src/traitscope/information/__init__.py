"""What rows carry of a trait, before anything is trained, and how much of it one vector carries."""
