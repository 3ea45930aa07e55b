"""Settings about finished students, and about the small networks of a study."""
