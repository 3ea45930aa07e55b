"""Fields of settings, with marks for the address of a run and for plain help.

    batch_size: int = setting(64, speed_only=True)     changes how fast a result comes, not which
    margin: float | None = setting(None, since=2)      was added with schema 2 of runs
    clip: float = setting(1.0, advanced=True)          is shown by --help-all only

Every field of a config enters the address of its run, except two kinds. A field that changes speed
only enters with its default, whatever its value is. A field that was added after schema 1 is left
out while it has its default. So neither a faster setting nor a new release moves runs that exist.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


def setting(
    default: Any, *, speed_only: bool = False, since: int = 1, advanced: bool = False
) -> Any:
    """A dataclass field with this default and these marks.

    speed_only: The value changes no result, or nothing but the rounding of its last digits.
    since: The schema of runs with which the field was added.
    advanced: Plain --help leaves the flag out.
    """
    marks = {"speed_only": speed_only, "since": since, "advanced": advanced}
    return dataclasses.field(default=default, metadata=marks)


def is_advanced(field: dataclasses.Field) -> bool:
    """Whether plain help leaves the field out."""
    return bool(field.metadata.get("advanced"))


def addressed(
    config: Any, plain: Mapping[str, Any], *, speed_enters: bool = False
) -> dict[str, Any]:
    """The part of a config that enters the address of its run.

    plain: The fields of the dataclass `config` as JSON values.
    speed_enters: Whether settings that change speed only enter with their values, as they once did.
    """
    entering = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.metadata.get("since", 1) > 1 and value == field.default:
            continue
        if field.metadata.get("speed_only") and not speed_enters:
            entering[field.name] = field.default
        elif dataclasses.is_dataclass(value):
            entering[field.name] = addressed(value, plain[field.name], speed_enters=speed_enters)
        else:
            entering[field.name] = plain[field.name]
    return entering
