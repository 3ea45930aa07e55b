"""Plain values from YAML and JSON that somebody else wrote, with one error for what is wrong."""

import datetime
import json
from typing import Any

SURROGATE = "\\ud"
"how half of a surrogate pair begins in JSON, in lower case"


class NotPlainError(ValueError):
    """A text that holds no plain values; the message says why, on one line."""


def from_yaml(text: str) -> Any:
    """Texts, numbers, booleans, None, and lists and dictionaries of them, from YAML.

    Raises NotPlainError for everything else: broken YAML, dates, and tags that do not fit.
    """
    import yaml

    try:
        from yaml import CSafeLoader as SafeLoader  # ten times as fast; needs libyaml
    except ImportError:
        from yaml import SafeLoader  # type: ignore[assignment]
    try:
        value = yaml.load(text, Loader=SafeLoader)
        _check_yaml(value)
    except NotPlainError:
        raise
    except RecursionError:
        raise NotPlainError("it is nested too deep") from None
    except (LookupError, AttributeError, TypeError) as error:
        raise NotPlainError(f"a tag, such as !!bool, does not fit its value ({error})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise NotPlainError(" ".join(str(error).split())) from None
    return value


def from_json(text: str | bytes) -> Any:
    """A JSON value. Raises NotPlainError for broken JSON, and for text that UTF-8 cannot hold."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise NotPlainError("it is nested too deep") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise NotPlainError(" ".join(str(error).split())) from None
    lowered = text.lower()
    if isinstance(lowered, bytes) and SURROGATE.encode() in lowered:
        _check_encodable(value)
    elif isinstance(lowered, str) and SURROGATE in lowered:
        _check_encodable(value)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _check_yaml(value: Any) -> None:
    """Raise NotPlainError for a date, a set or bytes, which YAML has and JSON has not."""
    if isinstance(value, datetime.date):
        raise NotPlainError(f"{value} is a date; put it in quotes")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_yaml(key)
            _check_yaml(item)
    elif isinstance(value, list):
        for item in value:
            _check_yaml(item)
    elif not isinstance(value, str | int | float | None):
        raise NotPlainError(f"{value!r} is a {type(value).__name__}, no text and no number")


def _check_encodable(value: Any) -> None:
    """Raise NotPlainError for text with half of a surrogate pair, which UTF-8 cannot hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise NotPlainError(
            f"the text {half!r} is half of a character, which UTF-8 cannot hold"
        ) from None
