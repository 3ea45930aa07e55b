"""The run of `generate` that rows come from, which says how their tokens were drawn."""

import json
from pathlib import Path
from typing import Any, Protocol

from traitscope.config.recipe import Recipe
from traitscope.runs import store

SETTINGS = "config.json"
"file of a run that holds its settings"


class LearnsRows(Protocol):
    """Settings of a training."""

    data: Path | None
    recipe: Recipe


def generating_run(data: Path) -> store.Run | None:
    """The run of `generate` behind a run, or a file of one, through runs of `filter`.

    None where there is no such run, or where something else has changed the rows in between.
    """
    folder = store.run_folder(data)
    while folder is not None:
        run = store.load_run(folder)
        if run.stage == "generate":
            return run
        if run.stage != "filter":
            return None
        folder = store.run_folder(input_of(run, "data"))
    return None


def input_of(run: store.Run, name: str) -> Path:
    """Where the input of a run lies."""
    return (run.path / run.manifest()["inputs"][name]["path"]).resolve()


def settings_of(run: store.Run) -> dict[str, Any]:
    """The settings that a run was made with, as JSON values."""
    return json.loads(run.file(SETTINGS).read_text(encoding="utf-8"))["config"]


def inputs_of_config(config: LearnsRows) -> dict[str, Path]:
    """The settings of the run of `generate` behind the data, where the targets depend on them."""
    if config.recipe.soft_over == "vocabulary" or config.data is None:
        return {}
    run = generating_run(config.data)
    return {} if run is None else {"drawn_from": run.file(SETTINGS)}
