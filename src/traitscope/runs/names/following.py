"""What a command that follows a run needs to be given: the model behind the run, and its folder.

What a command says of the next one has to run as it stands. So it keeps what was given for the
model, and the folder of runs, wherever these are not the usual ones.
"""

from pathlib import Path
from typing import Any

from traitscope.config.common import Output
from traitscope.config.fields import changed_flags
from traitscope.runs import drawn_rows, store


def place_words(run: Path) -> list[str]:
    """The words that name the folder of runs that a run lies in, where it is not the usual one."""
    return changed_flags(Output(root=run.parents[1], study=run.parent.name))


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
