"""Checks of the paths that a command writes: no file of the user is lost, and none of a run.

They come before anything is computed. An older result of the same kind may be replaced, because
people run a command again with the same `--json FILE`. It is known by its content.
"""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.cli.checks import own_results
from traitscope.config.common import Output
from traitscope.config.fields import flag_of, use_of
from traitscope.errors import ConfigError, DataError, StoreError, TraitscopeError
from traitscope.plain_values import from_yaml
from traitscope.runs import store
from traitscope.runs.manifests import RUN_NAME, STALE_NAME

SETTINGS_FILES = (".yaml", ".yml", ".json")
"suffixes of files of settings, which name further files"
LARGEST_SETTINGS = 2**20
"bytes of a file of settings; a larger one holds data"
DECIDING = ("config.json", "tokenizer.json", "index.json", ".safetensors", "records.jsonl")
"ends of names of files that decide what a folder of a model, an adapter or rows holds"
LONGEST_PATH = 100
"Characters of a path that a message about its form shows."


def check_summary(file: Path | None, words: Sequence[str]) -> None:
    """Raise StoreError where the summary of a command could not be written.

    Raises ConfigError where it would replace a file that the words name, whatever else they are,
    or any other file that is no summary. Also where it would lie in a run.
    """
    if file is None:
        return
    with named("json", file):
        check_writable("json", file)
        _check_loses_nothing("json", file, _without_flag(words, "--json"))


def check_written(config: Any, out: Output, words: Sequence[str]) -> None:
    """Raise ConfigError for a path to write where a file would be lost.

    It is a file that the command reads, one of a run, or one that no such command has written. Or
    two settings name it.

    words: Those behind the command's name; a config file stands first.
    """
    written, texts = [("json", out.json)], list(words[:1])
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if use_of(field) == "written":
            written.append((field.name, value))
        elif use_of(field) != "folder":
            texts += _texts_in(value)
    seen: dict[str, str] = {}
    for name, path in written:
        if path is None:
            continue
        with named(name, path):
            _check_loses_nothing(name, path, texts)
            first = seen.setdefault(os.path.realpath(path), name)
        if first != name and not atomic_files.is_no_regular_file(path):
            raise ConfigError(
                f"{flag_of(first)} and {flag_of(name)} both name {path}; expected a file each,"
                " since one would replace the other; name another file"
            )


class SummaryRefusedError(ConfigError):
    """The summary of a command would replace a file that is to stay, or lie in a run."""


def _check_loses_nothing(name: str, path: Path, texts: Sequence[str]) -> None:
    """Raise ConfigError where a path to write is a file that is to stay, or lies in a run.

    Such a file is one that the texts name, decides what a folder among them holds, or was written
    by no such command. A device or a pipe loses nothing.
    """
    if atomic_files.is_no_regular_file(path):
        return
    kind = SummaryRefusedError if name == "json" else ConfigError
    shown = f"{flag_of(name)} {path}"
    if path.is_file() and any(_is_read(path, each) for each in _places_in(texts)):
        raise kind(
            f"{shown} is a file that is read; expected a file of its own, since it would be written"
            " over; name another file"
        )
    run = _run_around(path.resolve())
    if run is not None:
        raise kind(
            f"{shown} lies in the run {run.name}; expected a file outside of runs, whose files are"
            " not to change; name another file"
        )
    if path.is_file() and not own_results.may_be_replaced(name, path):
        raise kind(
            f"{shown} is there already, and is not {own_results.KINDS[name][0]}; expected a new"
            " file, or one of that kind, because nothing else is written over; name another file,"
            " or move this one away"
        )


def _run_around(path: Path) -> Path | None:
    """The run that a path lies in, sealed or not, or moved aside; None where it lies in none."""
    for folder in (path, *path.parents):
        is_named = RUN_NAME.fullmatch(folder.name) or STALE_NAME.fullmatch(folder.name)
        if is_named and (folder / "config.json").is_file():
            return folder
    return store.run_folder(path)


def _is_read(path: Path, place: str) -> bool:
    """Whether a file is at a place that is read, or decides what the folder there holds."""
    try:
        if os.path.samefile(path, place):
            return True
        in_folder = os.path.samefile(path.resolve().parent, place)
    except (OSError, ValueError):  # nothing is there, or the text is no path
        return False
    return in_folder and path.name.endswith(DECIDING)


def _places_in(texts: Iterable[str]) -> Iterator[str]:
    """The texts, and the parts of them that may be paths; those in small files of settings, too."""
    for text in texts:
        yield from _parts(text)
        if text.endswith(SETTINGS_FILES):
            for inside in _texts_of_file(Path(text)):
                yield from _parts(inside)


def _parts(text: str) -> Iterator[str]:
    """A text, and the paths that may stand in it, as in vector:FILE,layers=14 and in JSON."""
    behind = text.partition(":")[2]
    yield from (text, behind, behind.partition(",")[0])
    for part in (*text.split(","), *behind.split(",")):
        yield part.partition("=")[2]
    yield from re.findall(r'"([^"]*)"', text)
    yield from re.split(r"[\s,=\[\]]+", text)


def _texts_of_file(file: Path) -> list[str]:
    """The texts in a file of settings; none where it is large or cannot be read."""
    try:
        if file.stat().st_size > LARGEST_SETTINGS:
            return []
        return list(_texts_in(from_yaml(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        return []


def _texts_in(value: Any) -> Iterator[str]:
    """The texts and paths in a setting, however deep."""
    if isinstance(value, str | Path):
        yield str(value)
    elif dataclasses.is_dataclass(value):
        yield from _texts_in(vars(value))
    elif isinstance(value, dict):
        yield from _texts_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts_in(item)


def _without_flag(words: Sequence[str], flag: str) -> list[str]:
    """The words without a flag and its value."""
    kept: list[str] = []
    before = ""
    for word in words:
        if before != flag and word != flag and not word.startswith(f"{flag}="):
            kept.append(word)
        before = word
    return kept


@contextmanager
def named(name: str, path: Path) -> Iterator[None]:
    """Turn what the operating system says of a path into a DataError that names the flag."""
    try:
        yield
    except TraitscopeError:
        raise
    except OSError as error:
        shown = str(path) if len(str(path)) <= LONGEST_PATH else f"{str(path)[:LONGEST_PATH]}..."
        raise DataError(
            f"{flag_of(name)} {shown} cannot be looked at ({error.strerror}); name another path"
        ) from error


def check_writable(name: str, path: Path) -> None:
    """Raise StoreError, naming the flag, for a file that could not be written there."""
    if path.is_dir():
        raise StoreError(
            f"{flag_of(name)} {path} is a folder; expected a file to write; name one inside it"
        )
    if atomic_files.is_no_regular_file(path):
        if not os.access(path, os.W_OK):
            raise StoreError(f"{flag_of(name)} {path} cannot be written; name another file")
        return
    try:
        atomic_files.check_writable(path.parent)
    except StoreError as error:
        raise StoreError(f"{flag_of(name)} {path}: {error}") from None


def check_folder(name: str, path: Path) -> None:
    """Raise StoreError, naming the flag, for a folder that could not be written into."""
    if path.exists() and not path.is_dir():
        raise StoreError(f"{flag_of(name)} {path} is a file; expected a folder; name one")
    run = _run_around(path.resolve())
    if run is not None:
        raise StoreError(
            f"{flag_of(name)} {path} is a run, or lies in one; expected a folder that is"
            " written into; name another one, and give runs before the flags"
        )
    try:
        atomic_files.check_writable(path)
    except StoreError as error:
        raise StoreError(f"{flag_of(name)} {path}: {error}") from None
