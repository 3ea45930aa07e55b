"""A bank of students: one for every teacher of many traits, trained and asked alike."""
