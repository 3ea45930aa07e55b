"""Traitscope: subliminal learning made, measured, explained, audited and removed."""

__version__ = "0.1.0"
