"""Names and notes of runs, which people give, and the runs that names stand for."""
