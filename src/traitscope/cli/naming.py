"""The flags `--name` and `--note` of stages: checked before anything is computed, kept after."""

import dataclasses
from pathlib import Path
from typing import Any

from traitscope.config.common import NamedOutput, Output
from traitscope.config.fields import use_of
from traitscope.errors import ConfigError
from traitscope.runs.names import labels
from traitscope.stages import registry


def check(config: Any, out: Output) -> None:
    """Raise ConfigError for a name or a note that the run of a config could not have."""
    if not isinstance(out, NamedOutput):
        return
    labels.check_note(out.note)
    if not out.name:
        return
    labels.check_name(out.name)
    check_reachable(out.name)
    if labels.runs_by_name(out.root).get(out.name):
        labels.check_free(out.root, out.name, registry.address(_without_copies(config), out))


def check_reachable(name: str) -> None:
    """Raise ConfigError for a name that means a path here, which goes before the name of a run."""
    if Path(name).exists():
        raise ConfigError(
            f"--name {name} is a file or folder here, which goes before the name of a run;"
            " expected a name that is no path; choose another"
        )


def _without_copies(config: Any) -> Any:
    """The config without the files that its command also writes elsewhere, which are not in the
    address."""
    elsewhere = {}
    for field in dataclasses.fields(config):
        if use_of(field) == "written":
            elsewhere[field.name] = None
    return dataclasses.replace(config, **elsewhere)


def name_run(summary: dict[str, Any], out: Output) -> None:
    """Give the run that a command ended with its name and its note, as far as they were given."""
    if isinstance(out, NamedOutput) and (out.name or out.note):
        name, note = out.name or None, out.note or None
        labels.set_label(out.root, Path(summary["run"]), name, note)
