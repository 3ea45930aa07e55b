"""Fields of settings, with marks for the address of a run and for plain help.

    batch_size: int = setting(64, speed_only=True)     changes how fast a result comes, not which
    margin: float | None = setting(None, since=2)      was added with schema 2 of runs
    clip: float = setting(1.0, advanced=True)          is shown by --help-all only
    data: Path | None = setting(None, path="rows", needed="a run")     must be given, and holds rows
    layers: tuple[int, ...] = setting((), layers=True)                 a set of blocks of the model

Every field of a config enters the address of its run, except two kinds. A field that changes speed
only enters with its default, whatever its value is. A field that was added after schema 1 is left
out while it has its default, and always if it changes speed only. So neither a faster setting nor a
new release moves runs that exist.
"""

import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

HEADING = "Fields:"
"begins the texts under fields in a docstring"
HELP_WIDTH = 92
"characters of a line of them"
PathUse = Literal["read", "rows", "prompts", "vector", "design", "written", "folder"]


def setting(
    default: Any,
    *,
    speed_only: bool = False,
    since: int = 1,
    advanced: bool = False,
    path: PathUse = "read",
    needed: str = "",
    layers: bool = False,
    alias: str = "",
) -> Any:
    """A dataclass field with this default and these marks.

    speed_only: The value changes no result, or nothing but the rounding of its last digits.
    since: The schema of runs with which the field was added.
    advanced: Plain --help leaves the flag out.
    path: What a path is for: a file or a folder that is written. Or it is read, and holds rows,
    prompts, a vector, the design of an experiment or anything else.
    needed: What to name, for a setting that must be given.
    layers: The value names blocks of the model.
    alias: Another name of its flag, without dashes.
    """
    marks = {
        "speed_only": speed_only,
        "since": since,
        "advanced": advanced,
        "path": path,
        "needed": needed,
        "layers": layers,
        "alias": alias,
    }
    return dataclasses.field(default=default, metadata=marks)


def written_paths(config: Any) -> list[str]:
    """The names of the settings that hold a place to write to, beside a run."""
    names = []
    for field in dataclasses.fields(config):
        is_written = field.metadata.get("path") in ("written", "folder")
        if is_written and getattr(config, field.name) is not None:
            names.append(field.name)
    return names


def flag_of(name: str) -> str:
    """The flag of a field; a word of Python, such as from, has `_` behind it as a field."""
    return f"--{name.rstrip('_').replace('_', '-')}"


def changed_flags(config: Any, usual: Any = None) -> list[str]:
    """The words of the settings that do not stand at their defaults; those of a block among
    them.

    usual: Settings of the same type whose values are the defaults; left out, those of the type.
    """
    words: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = _default_of(field) if usual is None else getattr(usual, field.name)
        if dataclasses.is_dataclass(value):
            words += changed_flags(value, default if type(default) is type(value) else None)
        elif value == default:
            continue
        elif isinstance(value, bool):
            words.append(flag_of(field.name if value else f"no_{field.name}"))
        else:
            several = value if isinstance(value, tuple) else (value,)
            words += [flag_of(field.name), *map(str, several)]
    return words


def _default_of(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def use_of(field: dataclasses.Field) -> PathUse:
    """What the path in a field is for."""
    return field.metadata.get("path", "read")


def is_advanced(field: dataclasses.Field) -> bool:
    """Whether plain help leaves the field out."""
    return bool(field.metadata.get("advanced"))


def names_layers(field: dataclasses.Field) -> bool:
    """Whether the value names blocks of the model."""
    return bool(field.metadata.get("layers"))


def settle_layers(config: Any) -> None:
    """Sort the settings that are sets of blocks, and leave each block there once.

    A frozen dataclass calls this in `__post_init__`, so that one set has one address.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if names_layers(field) and isinstance(value, tuple) and all(map(_is_whole, value)):
            object.__setattr__(config, field.name, tuple(sorted(set(value))))


def _is_whole(value: Any) -> bool:
    return type(value) is int


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
        is_later = field.metadata.get("since", 1) > 1
        if is_later and (value == field.default or field.metadata.get("speed_only")):
            continue
        if field.metadata.get("speed_only") and not speed_enters:
            entering[field.name] = field.default
        elif dataclasses.is_dataclass(value):
            entering[field.name] = addressed(value, plain[field.name], speed_enters=speed_enters)
        else:
            entering[field.name] = plain[field.name]
    return entering


def names_of(names: Sequence[str] | str) -> tuple[str, ...]:
    """Names as a tuple; a text is one name, not a sequence of letters."""
    return (names,) if isinstance(names, str) else tuple(names)


def texts_under_fields(cls: type) -> dict[str, str]:
    """The text under each field of a dataclass, its parents' included, on one line.

    Empty where the source is not there.
    """
    texts: dict[str, str] = {}
    for part in reversed(cls.__mro__[:-1]):
        try:
            source = textwrap.dedent(inspect.getsource(part))
        except (OSError, TypeError):
            continue
        (definition,) = ast.parse(source).body
        if not isinstance(definition, ast.ClassDef):
            continue
        for field, text in itertools.pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                texts[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return texts


def show_in_help(cls: type) -> None:
    """Add the texts under the fields of a dataclass to its docstring, so that `help` shows them."""
    if not dataclasses.is_dataclass(cls) or HEADING in (cls.__doc__ or ""):
        return
    texts = texts_under_fields(cls)
    lines = [inspect.cleandoc(cls.__doc__ or ""), "", HEADING]
    for field in dataclasses.fields(cls):
        if field.name in texts:
            text = f"{field.name}: {texts[field.name]}"
            lines += textwrap.wrap(
                text, HELP_WIDTH, initial_indent="    ", subsequent_indent=" " * 8
            )
    cls.__doc__ = "\n".join(lines)
