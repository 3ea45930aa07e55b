"""Preference targets: students learn which of two answers is preferred, by DPO."""
