"""Runs by their names: `treated-1` in the place of runs/default/measure-0123456789abcdef.

A path that exists is taken as it is. Of another one the first part may be the name of a run below
the root, and the rest leads into the run: vectors/cat.safetensors.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

from traitscope.config.common import TAUGHT
from traitscope.config.fields import flag_of, use_of
from traitscope.errors import ConfigError
from traitscope.runs.names.labels import NAME, runs_by_name

SHORT_FORM = re.compile(r"(steer|ablate|replace|adapter):([^,]+)(.*)", re.DOTALL)
"an intervention with a path: kind, path, settings"
KNOWN = re.compile(r"(clean|vector|teacher):(.*)", re.DOTALL)
"knowledge of a defender with a path, as `known` of `defend` takes it: kind, and what it names"
GIVEN = ("students", "controls")
"settings whose texts name finished students, as a given teacher is named"
CHECKPOINT = "model"
"folder of a run of `export` that holds its checkpoint"


class Names:
    """The names of runs below a root; the disk is read once somebody asks for one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_name: dict[str, list[Path]] | None = None

    def path(self, path: Path) -> Path:
        """The place that a path means.

        A path whose first part is no name of a run stays. Raises ConfigError for a name that
        several runs have.
        """
        first = path.parts[0] if path.parts else ""
        if not NAME.fullmatch(first) or _exists(path):
            return path
        runs = self._runs(first)
        return runs[0].joinpath(*path.parts[1:]) if runs else path

    def _runs(self, name: str) -> list[Path]:
        if self._by_name is None:
            self._by_name = runs_by_name(self.root)
        runs = self._by_name.get(name, [])
        if len(runs) > 1:
            listed = ", ".join(map(str, runs))
            raise ConfigError(
                f"{name} is the name of {len(runs)} runs below {self.root}: {listed}; expected one;"
                " give a path, or rename one with: traitscope show RUN --name NEW"
            )
        return runs

    def intervention(self, text: str) -> str:
        """An intervention in short form, or a given teacher, with the path that its path means."""
        match = SHORT_FORM.fullmatch(text)
        if match is None:
            is_path = ":" not in text and text.strip()
            return str(self.path(Path(text))) if is_path else text
        kind, path, settings = match.groups()
        return f"{kind}:{self.path(Path(path))}{settings}"

    def known(self, text: str) -> str:
        """What a defender may use, with the path that its path means."""
        match = KNOWN.fullmatch(text)
        if match is None:
            return text
        kind, named = match.groups()
        if kind == "clean":
            return f"{kind}:{self.path(Path(named))}"
        if kind == "teacher":
            return f"{kind}:{self.intervention(named)}"
        return f"{kind}:{self.intervention(f'steer:{named}').removeprefix('steer:')}"

    def model(self, model: str) -> str:
        """A model; NAME/model is the checkpoint of a run of `export` with that name.

        Other models are not looked for among the runs, which takes time where there are many.
        """
        if Path(model).parts[1:] != (CHECKPOINT,):
            return model
        path = self.path(Path(model))
        return str(path) if path != Path(model) and path.is_dir() else model


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no path that could be, such as one of too many characters
        return True


def with_runs(config: Any, root: Path) -> Any:
    """The settings of a command, with run directories in the place of names.

    Raises ConfigError for a name that several runs have, and for a run where a folder is written.
    """
    names, changes = Names(root), {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if use_of(field) == "folder" and isinstance(value, Path) and names.path(value) != value:
            raise ConfigError(
                f"{flag_of(field.name)} {value} is the name of the run {names.path(value)};"
                " expected a folder to write into; name another folder, and give runs before the"
                " flags"
            )
        if use_of(field) in ("written", "folder"):
            continue
        changed = _with_runs(field.name, value, names)
        if changed != value:
            changes[field.name] = changed
    return dataclasses.replace(config, **changes) if changes else config


def _with_runs(name: str, value: Any, names: Names) -> Any:
    if isinstance(value, tuple):
        return tuple(_with_runs(name, item, names) for item in value)
    if isinstance(value, Path):
        return names.path(value)
    if not isinstance(value, str):
        return value
    if name in (*TAUGHT, *GIVEN):
        return names.intervention(value)
    if name == "known":
        return names.known(value)
    return names.model(value) if name in ("model", "same_as") else value
