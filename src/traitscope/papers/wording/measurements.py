"""Sentences about the models that were measured, and about sides that were compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitscope.papers.lineage import Made
from traitscope.papers.wording import changes
from traitscope.papers.wording.basics import (
    Sentence,
    counted,
    kinds,
    listed,
    of_stage,
    shown,
    without,
)
from traitscope.runs import store

UNMODIFIED = "the unmodified model"


def measures(made: Sequence[Made]) -> list[Sentence]:
    """Which questions were asked, and how answers were sampled."""

    def about(run: Made) -> Any:
        return without(run.settings, "interventions", "model", "device", "dtype", "seed")

    sentences = []
    for group in kinds(of_stage(made, "measure"), about):
        settings = group[0].settings
        context = settings["context"]
        under = f"the context “{context}”" if context else "an empty context"
        if context is None:
            under = "the template's default context"
        asked = f"the questions of the trait {group[0].measured_trait}"
        asked += f" ({listed(settings['sets'])})"
        if settings.get("domain", "trait") != "trait":
            asked = f"tasks of the domain {settings['domain']}"
        text = f"Models were asked {asked} under {under}"
        if settings["samples"]:
            text += (
                f", with {settings['samples']} sampled answers a question at temperature"
                f" {shown(settings['temperature'])} and at most {settings['max_new_tokens']} tokens"
            )
        sentences.append(Sentence(f"{text}{_judged(group[0])}."))
    return sentences


def _judged(run: Made) -> str:
    """Which judges read the answers, and what those that ask a model asked; empty without any."""
    if not run.judges or run.settings.get("domain", "trait") != "trait":
        return ""
    asked = f" with the question “{run.judge_question}”" if run.judge_question else ""
    return f", which {counted('judge', run.judges)} read{asked}"


def models(made: Sequence[Made]) -> list[Sentence]:
    """Which models were measured: the unmodified one, and how others were changed."""
    runs = of_stage(made, "measure")
    texts = []
    for group in _alike(runs):
        texts.append(_model_of(group))
    if not runs or texts == [UNMODIFIED]:
        return []
    return [Sentence(f"Measured were {listed(texts)}.")]


def _alike(runs: Sequence[Made]) -> list[list[Made]]:
    """Runs of `measure` in groups whose models were changed alike; students are alike."""

    def about(run: Made) -> Any:
        items = []
        for item in run.settings["interventions"]:
            is_student = item["kind"] == "Adapter" and store.run_folder(run.input(item["folder"]))
            items.append(without(item, "folder") if is_student else changes.change_of(run, item))
        return items, run.settings["model"]

    return kinds(runs, about)


def _model_of(group: Sequence[Made]) -> str:
    """The model of replicates, in words."""
    changed = changes.changes_of(group)
    return f"the model under {changed}" if changed else UNMODIFIED


def comparisons(made: Sequence[Made]) -> list[Sentence]:
    """How treated and control models were matched, and what is known of the teacher."""
    sentences = []
    for run in of_stage(made, "compare"):
        summary = run.numbers("summary.json")
        keys = ("welch1947",) if summary["design"] == "unpaired" else ("miller2024errorbars",)
        who = f"Treated models{_side(run, 'treated')} were"
        if not run.settings.get("treated"):
            who = f"A teacher{_side(run, 'teacher')} was"
        others = f"{summary['reference']} models{_side(run, 'control')}"
        text = f"{who} compared with {others}"
        sentences.append(Sentence(f"{text} (design: {summary['design']}).", keys))
        if summary["positive_control"]:
            sentences.append(Sentence(f"Positive control: {summary['positive_control']}."))
    return sentences


def _side(run: Made, side: str) -> str:
    """The models of a side of a comparison, in brackets; empty where its runs measured none."""
    measured = []
    for name, place in run.inputs.items():
        if name == side or name.removeprefix(side).isdigit():
            measured.append(Made(store.load_run(place)))
    texts = list(map(_model_of, _alike(of_stage(measured, "measure"))))
    return f" ({listed(texts)})" if texts else ""


def sides(run: Made) -> dict[Path, str]:
    """The side of each input of a comparison, such as treated."""
    found = {}
    for name, place in run.inputs.items():
        found[place] = name.rstrip("0123456789")
    return found
