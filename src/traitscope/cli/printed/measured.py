"""What one would type after a run of `measure`: a comparison with what was asked the same."""

import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from traitscope.cli.printed import rows
from traitscope.comparison.roles import TEACHER, role_of_settings
from traitscope.errors import TraitscopeError
from traitscope.runs import drawn_rows, manifests, store

SHOW = "traitscope show {run}"
"""What follows a run that nothing can be compared with."""


def after(run: store.Run) -> str:
    """Return what one would type after a run of `measure`; {run} and {out} stand in it.

    It compares the run with the newest one in its folder that asked the same of another model.
    Teachers and students are compared with the unmodified model. Where that was not asked, it is
    the command that asks it.
    """
    is_changed = bool(_model_of(run))
    other = max(_asked_the_same(run), key=_sealed_at, default=None)
    if other is None:
        return _asks_the_base(run) if is_changed else SHOW
    if is_changed:
        return _compared(run, _name(other), "{run}")
    return _compared(other, "{run}", _name(other))


def _compared(changed: store.Run, base: str, name: str) -> str:
    """Return the comparison of a changed model with the unmodified one.

    base, name: How the command names the runs of the two.
    """
    if role_of_settings(drawn_rows.settings_of(changed)) == TEACHER:
        return f"traitscope compare --base {base} --teacher {name}{{out}}"
    return f"traitscope compare --treated {name} --control {base}{{out}}"


def _asked_the_same(run: store.Run) -> Iterator[store.Run]:
    """Yield the sealed runs beside a run that differ from it by their interventions alone.

    Beside the unmodified model these are changed ones; beside a changed one, only that model.
    """
    settings, is_changed = _others(run), bool(_model_of(run))
    for folder in run.path.parent.glob("measure-*"):
        if folder == run.path or not manifests.is_sealed(folder):
            continue
        try:
            other = store.load_run(folder)
            is_same = _others(other) == settings and bool(_model_of(other)) != is_changed
        except (TraitscopeError, OSError, ValueError, KeyError):
            continue
        if is_same:
            yield other


def _sealed_at(run: store.Run) -> float:
    """Return when a run was sealed, in seconds."""
    return run.file("manifest.json").stat().st_mtime


def _model_of(run: store.Run) -> Any:
    """Return the interventions of a run; empty for the unmodified model."""
    return drawn_rows.settings_of(run).get("interventions", [])


def _others(run: store.Run) -> dict[str, Any]:
    """Return the settings of a run but for its interventions."""
    settings = drawn_rows.settings_of(run)
    settings.pop("interventions", None)
    return settings


def _name(run: store.Run) -> str:
    """Return how a command names a run, in a text that is formatted."""
    return shlex.quote(str(run.path)).replace("{", "{{").replace("}", "}}")


def _asks_the_base(run: store.Run) -> str:
    """Return the command that asks the unmodified model the same."""
    from traitscope.workflow.replay import replayed_config

    return rows.typed("measure", replace(replayed_config(run), interventions=()))
