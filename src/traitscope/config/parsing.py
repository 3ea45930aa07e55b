"""The parser that makes a config from the plain values of a JSON or YAML file."""

import dataclasses
import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from traitscope.errors import ConfigError
from traitscope.plain_values import (
    MOST_SHOWN,
    NotPlainError,
    constant_meant,
    from_json,
    from_yaml,
    shown,
)

WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    Path: "a path",
}
"what messages call a type"
LISTS: dict[Any, str] = {
    int: "a list of whole numbers, such as [1, 2]",
    float: "a list of numbers, such as [0.1, 0.2]",
    str: "a list of texts, such as [one, two]",
}
"what messages call a list of a type"
VARIABLES = "template"
"the key of variables of a chat template, which may be names with their values"


def from_dict(cls: type, data: dict[str, Any], where: str = "config") -> Any:
    """A config from plain JSON or YAML values. Raises ConfigError for an unknown key or a value of
    the wrong type."""
    if not isinstance(data, dict):
        raise ConfigError(
            f"{where}: expected keys and values, found {type(data).__name__}; write key: value"
        )
    hints = get_type_hints(cls)
    for key in data:
        if key not in hints:
            near = get_close_matches(str(key), hints, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"{where}: unknown key {shown(key)}; {hint}expected some of {', '.join(hints)}"
            )
    values = {}
    for key, value in data.items():
        if key == VARIABLES:
            value = _settings(value, f"{where}: {key}")
        values[key] = _value(hints[key], value, f"{where}: {key}")
    return cls(**values)


def _settings(value: Any, where: str) -> Any:
    """Names with their values as the texts NAME=VALUE; a list of such texts as it is."""
    if isinstance(value, dict):
        return [f"{name}={_as_text(each)}" for name, each in value.items()]
    are_texts = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if value is not None and not are_texts:
        raise ConfigError(
            f"{where} is {shown(value)}; expected names with values, such as"
            " {enable_thinking: false}, or a list, such as [enable_thinking=false]; correct it"
        )
    return value


def _as_text(value: Any) -> str:
    """A value as NAME=VALUE holds it: a text as it is, unless it would be read as a constant or
    other JSON."""
    if isinstance(value, str) and constant_meant(value) is None:
        try:
            from_json(value)
        except NotPlainError:
            return value
    return json.dumps(value, ensure_ascii=False)


def changed(config: Any, changes: Sequence[str], where: str) -> Any:
    """A dataclass with some fields replaced: FIELD=VALUE, the value in YAML, FIELD.INNER for a
    dataclass in it.

    Raises ConfigError for a change without =, an unknown field, broken YAML, or a value of the
    wrong type.
    """
    for change in changes:
        path, mark, text = change.partition("=")
        if not mark:
            raise ConfigError(
                f"{where}: {change!r} changes nothing; expected FIELD=VALUE; add =VALUE"
            )
        config = _replaced(config, path.split("."), text, where)
    return config


def _replaced(config: Any, path: Sequence[str], text: str, where: str) -> Any:
    hints = get_type_hints(type(config))
    if path[0] not in hints:
        raise ConfigError(
            f"{where}: no field {path[0]!r}; expected one of {', '.join(hints)}; name one"
        )
    if len(path) > 1:
        inner = vars(config)[path[0]]
        if not dataclasses.is_dataclass(inner):
            raise ConfigError(f"{where}: {path[0]} has no field {path[1]!r}; set it as a whole")
        return dataclasses.replace(config, **{path[0]: _replaced(inner, path[1:], text, where)})
    try:
        plain = from_yaml(text)
    except NotPlainError as error:
        raise ConfigError(
            f"{where}: {path[0]}={text!r} is no YAML ({error}); quote it or correct it"
        ) from None
    value = _value(hints[path[0]], plain, f"{where}: {path[0]}")
    try:
        return dataclasses.replace(config, **{path[0]: value})
    except ConfigError as error:
        raise ConfigError(f"{where}: {path[0]}={text}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    """The value as the type that the hint asks for. Raises ConfigError where it does not fit."""
    options, may_be_none = _options(hint)
    if value is None and may_be_none:
        return None
    if len(options) > 1:
        return _first_that_fits(options, value, where)
    wanted = options[0]
    kind, inner_hints = get_origin(wanted), get_args(wanted)
    if dataclasses.is_dataclass(wanted):
        return from_dict(wanted, value, where)
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_value(inner, v, where) for inner, v in _items(inner_hints, value, where))
    if kind is dict and isinstance(value, dict):
        return _mapping(*inner_hints, value, where)
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if wanted is float and isinstance(value, int | str) and not isinstance(value, bool):
        return _number(value, where)  # YAML reads 1e-3, without a point, as a text
    fits = value in inner_hints if kind is Literal else type(value) is wanted
    if not fits:
        expected = _expected(wanted, kind, inner_hints, value)
        raise ConfigError(f"{where} is {shown(value)}; expected {expected}; correct it")
    return value


def _expected(wanted: Any, kind: Any, inner_hints: tuple, value: Any) -> str:
    """What a value should have been, in words; of one item that should be a list, the list."""
    if kind is Literal:
        return ", ".join(map(str, inner_hints))
    if kind is tuple and value is not None and _fits(inner_hints[0], value):
        return f"a list, such as [{str(value)[:MOST_SHOWN]}]"
    if kind is tuple:
        return LISTS.get(inner_hints[0], "a list")
    if kind is dict:
        return "keys and values"
    return WORDS.get(wanted, wanted.__name__)


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of a type."""
    try:
        _value(hint, value, "")
    except ConfigError:
        return False
    return True


def _options(hint: Any) -> tuple[list[Any], bool]:
    """The types that a hint asks for, and whether None will do, too."""
    if get_origin(hint) not in (Union, UnionType):
        return [hint], False
    options = [option for option in get_args(hint) if option is not type(None)]
    return options, len(options) < len(get_args(hint))


def _first_that_fits(options: Sequence[Any], value: Any, where: str) -> Any:
    """The value as the first of some types that it fits. Raises ConfigError where it fits none."""
    expected = []
    for option in options:
        try:
            return _value(option, value, where)
        except ConfigError:
            expected.append(_expected(option, get_origin(option), get_args(option), value))
    raise ConfigError(f"{where} is {shown(value)}; expected {' or '.join(expected)}; correct it")


def _mapping(key_hint: Any, value_hint: Any, values: dict, where: str) -> dict:
    """A dictionary with the types of its keys and values."""
    typed = {}
    for key, value in values.items():
        typed_key = _value(key_hint, key, f"{where}: a key")
        typed[typed_key] = _value(value_hint, value, f"{where}.{key}")
    return typed


def _items(hints: tuple, values: Sequence, where: str) -> list[tuple]:
    """The type of every item of a tuple, and the item."""
    if hints[-1] is Ellipsis:
        return [(hints[0], v) for v in values]
    if len(hints) != len(values):
        raise ConfigError(
            f"{where} is {shown(list(values))}; expected {len(hints)} values; correct it"
        )
    return list(zip(hints, values, strict=True))


def _number(value: int | str, where: str) -> float:
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{where} is {shown(value)}; expected {WORDS[float]}; correct it"
        ) from None
