"""A config from the plain values of a JSON or YAML file, checked against its dataclass."""

import dataclasses
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from traitscope.errors import ConfigError


def from_dict(cls: type, data: dict[str, Any], where: str = "config") -> Any:
    """A config from plain JSON or YAML values.  Raises ConfigError for an unknown key or a value of the wrong type."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: expected keys and values, found {type(data).__name__}")
    hints = get_type_hints(cls)
    for key in data:
        if key not in hints:
            near = get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}expected some of {', '.join(hints)}")
    return cls(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in data.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` wants it."""
    options = get_args(hint) if get_origin(hint) not in (None, tuple, Literal) else (hint,)
    if value is None and type(None) in options:
        return None
    wanted = next(o for o in options if o is not type(None))
    if dataclasses.is_dataclass(wanted):
        return from_dict(wanted, value, where)
    if get_origin(wanted) is tuple and isinstance(value, list | tuple):
        return tuple(_value(get_args(wanted)[0], v, where) for v in value)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if wanted is float and isinstance(value, int | str) and not isinstance(value, bool):
        return _number(value, where)  # YAML reads 1e-3, without a point, as a text
    fits = value in get_args(wanted) if get_origin(wanted) is Literal else type(value) is wanted
    if not fits:
        expected = ", ".join(map(str, get_args(wanted))) if get_origin(wanted) is Literal else wanted.__name__
        raise ConfigError(f"{where} is {value!r}; expected {expected}")
    return value


def _number(value: int | str, where: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ConfigError(f"{where} is {value!r}; expected float") from None
