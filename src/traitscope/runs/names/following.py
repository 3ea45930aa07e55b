"""What a command that follows a run needs to be given: the model behind the run, and its folder.

What a command says of the next one has to run as it stands. So it keeps what was given for the
model, and the folder of runs, wherever these are not the usual ones.
"""

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from traitscope.config.common import Output
from traitscope.config.fields import changed_flags
from traitscope.data.traits import TRAIT_FILES, trait_name
from traitscope.runs import drawn_rows, store


def place_words(run: Path) -> list[str]:
    """The words that name the folder of runs that a run lies in, where it is not the usual one."""
    return changed_flags(Output(root=run.parents[1], study=run.parent.name))


def typed(name: str, config: Any, out: Output) -> str:
    """A command with these settings as one would type it, with its folder of runs."""
    places = changed_flags(replace(out, json=None))
    return shlex.join(["traitscope", name, *changed_flags(config), *places])


def traits_of(run: store.Run) -> dict[str, str]:
    """The traits of a run of `extract` or `steer_scan`: names, with how a command names each.

    That of a file is its path; a file that is gone is left out.
    """
    settings = drawn_rows.settings_of(run)
    named = settings.get("traits") or [settings.get("trait", ""), *settings.get("company", ())]
    traits = {}
    for number, trait in enumerate(filter(None, named)):
        if not trait.endswith(TRAIT_FILES):
            traits[trait] = trait
            continue
        file = drawn_rows.input_of(run, f"trait{number}")
        if file.is_file():
            traits[trait_name(str(file))] = os.path.relpath(file)
    return traits


def trait_of(vector: Path) -> str:
    """The trait, as a command names it, that a vector file was taken of; empty where none is
    known."""
    folder = store.run_folder(vector)
    return "" if folder is None else traits_of(store.load_run(folder)).get(vector.stem, "")


def vector_of(run: store.Run) -> Path:
    """The vector file of the first trait of a run, else its first one; the run's folder where it
    has none."""
    files = sorted(run.path.glob("*.safetensors"))
    first = next(iter(traits_of(run)), "")
    of_trait = [file for file in files if file.stem == first]
    return next(iter([*of_trait, *files]), run.path)


def settings_for(run: store.Run) -> dict[str, Any]:
    """The settings of a run that hold its model: its own, or those of the run behind its rows.

    Empty where neither names one.
    """
    settings = drawn_rows.settings_of(run)
    while "model" not in settings:
        if "data" not in run.manifest()["inputs"]:
            return {}
        folder = store.run_folder(drawn_rows.input_of(run, "data"))
        if folder is None:
            return {}
        run = store.load_run(folder)
        settings = drawn_rows.settings_of(run)
    return settings
