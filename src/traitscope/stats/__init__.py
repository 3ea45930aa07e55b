"""Statistics: numbers in, estimates with intervals out."""
