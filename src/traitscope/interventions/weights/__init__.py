"""Weights that are changed on purpose: a direction taken out, a student scaled down."""
