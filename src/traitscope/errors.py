"""Every error a user can cause, one tree.

    TraitscopeError    message only; the command line prints it without a traceback, exit 2
    ├── ConfigError    (ValueError)   a flag, a config file or a combination that cannot work
    ├── DataError      (ValueError)   rows: a broken line, a missing field, an empty file
    ├── TraitError     (ValueError)   a trait file that is incomplete or unknown
    ├── ModelError     (ValueError)   a model that cannot be found, loaded, rendered or fitted
    ├── VectorError    (ValueError)   a vector or an adapter that was not made for this model
    ├── StoreError     (OSError)      a run directory: damaged, locked, newer, read-only, no space
    └── AuditRefused   (ValueError)   an audit's answer that the caller does not accept

A message says what was found, what was expected, and what to do. Each class also is the standard
library type in brackets, so `except ValueError` works for callers that do not know this package.
"""

LONGEST = 2000
"""Characters of a message; of a longer one the middle is left out."""


class TraitscopeError(Exception):
    """Base of all errors that a user can act on.

    A message may show what was given, however long it is: str() then leaves out the middle.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if len(text) <= LONGEST:
            return text
        return f"{text[: LONGEST * 3 // 4]} ... {text[-LONGEST // 4 :]}"


class ConfigError(TraitscopeError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(TraitscopeError, ValueError):
    """Rows that cannot be read or used; names the line."""


class TraitError(TraitscopeError, ValueError):
    """A trait file that is incomplete, misspelt or not found."""


class ModelError(TraitscopeError, ValueError):
    """A model that cannot be found, loaded, rendered or fitted into memory."""


class VectorError(TraitscopeError, ValueError):
    """A vector or adapter that does not belong to this model."""


class StoreError(TraitscopeError, OSError):
    """A run directory that is damaged, in use, from a newer version, or cannot be written."""


class AuditRefused(TraitscopeError, ValueError):
    """An audit whose answer the caller does not accept."""
