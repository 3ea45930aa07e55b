"""Which settings enter the address of a run.

Every field of a config does, except two kinds, which say so in their metadata:

    field(default=10, metadata=SPEED_ONLY)     changes how fast the result comes, not the result
    field(default=None, metadata=since(2))     was added after schema 1

A field of the first kind enters with its default, whatever its value is. A field of the second kind
is left out while it has its default. So neither a faster setting nor a new release moves the runs
that exist.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

SPEED_ONLY: Mapping[str, Any] = {"speed_only": True}
"""Metadata of a field that changes no result, or nothing but the rounding of its last digits."""


def since(schema: int) -> Mapping[str, Any]:
    """Metadata of a field that was added with this schema of runs, 2 or more."""
    return {"since": schema}


def addressed(config: Any, plain: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that enters the address of its run.

    `plain` holds the fields of the dataclass `config` as JSON values.
    """
    entering = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if "since" in field.metadata and value == _default(field):
            continue
        if field.metadata.get("speed_only"):
            entering[field.name] = _default(field)
        elif dataclasses.is_dataclass(value):
            entering[field.name] = addressed(value, plain[field.name])
        else:
            entering[field.name] = plain[field.name]
    return entering


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
