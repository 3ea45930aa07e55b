"""Students and how they are trained."""
