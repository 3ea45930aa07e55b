"""Parts of the study `defences`: its arms, its stages, its estimates, its tables."""
