"""What the terminal says last: where the result is, and what one would type next."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from traitscope.cli.printed import asked, measured, rows
from traitscope.config.command_types import Command
from traitscope.config.common import TRAIT_UNKNOWN, OnModel
from traitscope.config.stages import MeasureConfig
from traitscope.interventions.intervention import Adapter, Steer
from traitscope.interventions.short_form import to_short
from traitscope.models.identity.finding import block_count
from traitscope.models.identity.words import joined, model_words
from traitscope.runs import store
from traitscope.runs.names import following

USUAL_STRENGTH = 0.6
"""Length of a vector that is tried next, in mean residual norms."""
USUAL_DEPTH = 14 / 29
"""Depth at which it is tried: that of block 14 of the embedded model's 30."""
LEARN = "traitscope train{model} --data {run}"
"""What follows rows of answers."""
LEARN_PAIRS = "traitscope train{model} --targets preference --data {run}"
"""What follows rows of pairs."""


def print_next(command: Command, summary: Mapping[str, Any]) -> None:
    """Say where the result of a command is, and what one would type next, or why not."""
    run = summary.get("run")
    typed = summary.get("next", "")
    if not typed and run is not None:
        typed = after(command, Path(run))
    if not typed:
        return
    sys.stdout.flush()
    if run is not None:
        print(f"result: {Path(run)}", file=sys.stderr)
    if summary["status"] == "failed":
        print(f"traitscope: {summary['message']}", file=sys.stderr, flush=True)
    else:
        print(f"next:   {typed}", file=sys.stderr, flush=True)


def after(command: Command, run: Path) -> str:
    """Return what one would type after a run, with what its model needs and the folder of runs."""
    if "{" not in command.next:
        return command.next
    sealed = store.load_run(run)
    settings = following.settings_for(sealed)
    template = _template(command, sealed)
    if command.name == "export":
        settings = settings | {"model": str(run / "model"), "same_as": None}
    place = following.place_words(run)
    return template.format(
        run=shlex.quote(str(run)),
        model=joined([*model_words(settings), *place]),
        out=joined(place),
        student=shlex.quote(to_short(Adapter(str(run)))),
        steering=_steering(sealed, settings) if "{steering}" in template else "",
        trait=_trait(sealed) if "{trait}" in template else "",
    )


def _template(command: Command, run: store.Run) -> str:
    """Return the command that follows, with names in braces for what depends on the run."""
    if command.name == "measure":
        return measured.after(run)
    if command.next == LEARN and rows.are_pairs(run):
        return LEARN_PAIRS
    return rows.after(run) if command.name == "generate" else command.next


def _steering(run: store.Run, settings: Mapping[str, Any]) -> str:
    """Return the intervention that adds the first vector of a run at the usual block."""
    blocks = block_count(str(settings.get("model", OnModel.model))) or 30
    layers = (round(USUAL_DEPTH * (blocks - 1)),)
    steer = Steer(following.vector_of(run), layers=layers, alpha=USUAL_STRENGTH)
    return shlex.quote(to_short(steer))


def _trait(run: store.Run) -> str:
    """Return the trait that is asked about next; a usual one, which is said, where none is
    known."""
    known = asked.trait_of(run)
    if not known:
        print(f"traitscope: {TRAIT_UNKNOWN.format(usual=MeasureConfig.trait)}", file=sys.stderr)
    return shlex.quote(known or MeasureConfig.trait)
