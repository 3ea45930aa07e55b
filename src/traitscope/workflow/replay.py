"""The settings of a sealed run as one would give them again: its recorded config, with paths."""

import json
from pathlib import Path
from typing import Any

from traitscope import __version__
from traitscope.config import parsing
from traitscope.config.common import TAUGHT, is_taught
from traitscope.data.traits import TRAIT_FILES
from traitscope.errors import ConfigError
from traitscope.runs import store
from traitscope.runs.manifests import input_of_value, kept_copies
from traitscope.stages import registry


def replayed_config(run: store.Run) -> Any:
    """The settings that a run was made with. Raises ConfigError where this version has not got its
    stage or one of its settings."""
    stage = registry.stage_named(run.stage)
    made_by = run.manifest().get("versions", {}).get("traitscope", "another version")
    hint = f"it was made by traitscope {made_by}, this is {__version__}: install that to replay it"
    if stage is None:
        raise ConfigError(
            f"{run.path} is a run of {run.stage!r}, which no command of this version makes; {hint}"
        )
    try:
        return parsing.from_dict(stage.config, replayed(run), str(run.file("config.json")))
    except ConfigError as error:
        raise ConfigError(f"{error}; {hint}") from error


def replayed(run: store.Run) -> dict[str, Any]:
    """The config that a run recorded, with the names of inputs turned back into paths."""
    places = _recorded_places(run)
    settings = {}
    for key, value in _recorded(run)["config"].items():
        settings[key] = _with_paths(value, places)
    for key in TAUGHT:
        if is_taught(key, settings.get(key)):
            settings[key] = [json.dumps(item) for item in settings[key]]
    if "trait" in settings:
        settings["trait"] = _trait_named(settings["trait"], places["trait0"])
    if "traits" in settings:
        named = []
        for number, name in enumerate(settings["traits"]):
            named.append(_trait_named(name, places[f"trait{number}"]))
        settings["traits"] = named
    if "company" in settings:
        named = []
        for number, name in enumerate(settings["company"], start=1):
            named.append(_trait_named(name, places[f"trait{number}"]))
        settings["company"] = named
    return settings


def input_places(run: store.Run) -> dict[str, Path]:
    """Where the inputs that a run recorded lie, by name: files and run directories.

    A file of which the run holds a copy, as it was read, is that copy.
    """
    copies = {}
    for name, copy in kept_copies(run.manifest()).items():
        copies[name] = run.file(copy)
    return _recorded_places(run) | copies


def _recorded_places(run: store.Run) -> dict[str, Path]:
    """Where the inputs of a run lay, by name."""
    places = {}
    for name, item in _recorded(run)["inputs"].items():
        places[name] = (run.path / item["path"]).resolve()
    return places


def _recorded(run: store.Run) -> dict[str, Any]:
    return json.loads(run.file("config.json").read_text(encoding="utf-8"))


def _with_paths(value: Any, places: dict[str, Path]) -> Any:
    """A JSON value of a recorded config in which every `input:NAME/INSIDE` is a path again."""
    if isinstance(value, dict):
        return {key: _with_paths(inner, places) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_paths(inner, places) for inner in value]
    named = input_of_value(value) if isinstance(value, str) else None
    return str(places[named[0]] / named[1]) if named else value


def _trait_named(name: str, place: Path) -> str:
    """A bundled trait by its name, a trait file by where it lies now."""
    return str(place) if name.endswith(TRAIT_FILES) else name
