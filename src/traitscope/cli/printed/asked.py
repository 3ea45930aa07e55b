"""The trait that the command after a run asks about."""

from pathlib import Path

from traitscope.cli.printed.runs import teacher_of
from traitscope.interventions import short_form
from traitscope.runs import drawn_rows, store
from traitscope.runs.names import following
from traitscope.workflow.replay import replayed


def trait_of(run: store.Run) -> str:
    """The trait, as a command names it, of the vector behind a run of `train` or `export`.

    Of `train` it is the one that it compares with, else its teacher's. Empty where none is known.
    """
    settings = drawn_rows.settings_of(run)
    if settings.get("vector"):
        return following.trait_of(drawn_rows.input_of(run, "vector"))
    teacher = teacher_of(run)[0] if run.stage == "train" else run
    return of_teacher(teacher)


def of_teacher(run: store.Run) -> str:
    """The trait of the first vector that the teacher of a run is steered with; empty without."""
    settings = replayed(run)
    for key in ("interventions", "teacher"):
        for item in short_form.parse_each(settings.get(key, ())):
            vector = getattr(item, "vector", None)
            if isinstance(vector, str | Path) and (trait := following.trait_of(Path(vector))):
                return trait
    return ""
