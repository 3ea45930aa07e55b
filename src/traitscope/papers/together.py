"""One figure and one table of several runs: a row each, by model and trait.

Runs are put together where one quantity was measured in one way on all of them. They have one
stage, one score, one unit and one kind of control. Everything else is refused, with what differs.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traitscope.errors import ConfigError, DataError
from traitscope.papers.contents import Contents
from traitscope.papers.lineage import Made
from traitscope.papers.recomputed import claim_text, conclusion_of
from traitscope.reporting import drawing
from traitscope.reporting.drawing import Drawing, Shape
from traitscope.reporting.figures import Figure, dot_with_interval, rows_only
from traitscope.reporting.numbers import methods, size_of
from traitscope.reporting.tables import Table, measurements_csv
from traitscope.runs import store
from traitscope.runs.names.labels import label_of
from traitscope.stats.measurement import Measurement
from traitscope.workflow.replay import replayed_config

STAGES = ("compare", "measure", "study")
"stages of which several runs are put together"
LABEL_WIDTH = 70
"characters of a line below the axis"
SAMPLED = "rate"
"unit of scores of sampled answers, which depend on how they were sampled"


@dataclass(frozen=True)
class Row:
    """One run in the figure."""

    model: str
    """Name of the model."""
    trait: str
    """Name of the trait."""
    run: Made
    """The run."""
    number: Measurement
    """The quantity."""
    alike: tuple[tuple[str, str], ...]
    """What all runs must share, by what it is."""
    claim: str = ""
    """Of a study, its claim and its rule."""
    published: str = ""
    """Of a study, where the claim was published."""


def put_together(runs: Sequence[Made], score: str) -> Contents:
    """Return the figure and the table of several runs of one stage.

    score: Of `compare` and `measure` the score that is drawn, such as positive.target_logprob; a
    study has its primary claim.

    Raises DataError for runs that measured other quantities, ConfigError for a stage or a score
    that cannot be drawn.
    """
    stages = sorted({run.run.stage for run in runs})
    if len(stages) > 1 or stages[0] not in STAGES:
        raise DataError(
            f"runs of {', '.join(stages)} in one figure; expected runs of one stage, of"
            f" {', '.join(STAGES)}; report the others one by one"
        )
    row_of = {"compare": _compared, "measure": _measured, "study": _concluded}[stages[0]]
    rows = [row_of(run, score) for run in runs]
    _check_alike(rows)
    labels = _labels(rows)
    models = list(dict.fromkeys(row.model for row in rows))
    order = sorted(range(len(rows)), key=lambda place: models.index(rows[place].model))
    rows, labels = [rows[place] for place in order], [labels[place] for place in order]
    quantity = dict(rows[0].alike)["quantity"]
    numbers = []
    for row, label in zip(rows, labels, strict=True):
        numbers.append(replace(row.number, name=f"{row.model}, {label}"))
    figure = _figure(rows, labels, numbers, quantity)
    table = _table(rows, labels, numbers, quantity)
    return Contents((figure,), (table,), tuple(numbers), rows[0].claim, rows[0].published)


def _compared(run: Made, score: str) -> Row:
    summary = run.numbers("summary.json")
    numbers = {item["score"]: item["difference"] for item in summary["differences"]}
    number = _number(run, numbers, score)
    settings = _first_measured(run)
    subject = "treated" if run.settings.get("treated") else "teacher"
    alike = (
        ("quantity", f"{score}, {subject} − {summary['reference']}"),
        ("unit", number.unit),
        *_sampling(settings, number.unit),
    )
    return Row(_model(settings), summary["trait"], run, number, alike)


def _measured(run: Made, score: str) -> Row:
    content = run.numbers("measurements.json")
    numbers = {item["name"]: item for item in content["measurements"]}
    number = _number(run, numbers, score)
    context = repr(run.settings.get("context"))
    alike = (
        ("quantity", score),
        ("unit", number.unit),
        ("neutral context", context),
        *_sampling(run.settings, number.unit),
    )
    return Row(_model(run.settings), content["trait"], run, number, alike)


def _concluded(run: Made, _: str) -> Row:
    study = conclusion_of(run.run)
    for verdict in study.findings.verdicts:
        if verdict.stated.primary:
            trait = _trait_of(study.size)
            quantity = verdict.claim.removesuffix(".")
            quantity = quantity.replace(trait, "the trait") if trait else quantity
            alike = (
                ("study", study.header.name),
                ("size", study.header.size),
                ("quantity", quantity),
                ("unit", verdict.decided_by.unit),
            )
            model = Path(replayed_config(run.run).model).name
            claim, source = claim_text(study), study.header.source
            return Row(model, trait, run, verdict.decided_by, alike, claim, source)
    raise DataError(f"{run.run.path} has no primary claim; expected one; report it alone")


def _trait_of(size: Any) -> str:
    """The trait of a study's size, or its traits."""
    named = getattr(size, "trait", "") or getattr(size, "traits", "")
    return named if isinstance(named, str) else ", ".join(named)


def _number(run: Made, numbers: dict[str, dict[str, Any]], score: str) -> Measurement:
    if score not in numbers:
        raise ConfigError(
            f"--score {score}: {run.run.path} has none of that name; expected one of"
            f" {', '.join(numbers)}; choose a score that all runs have"
        )
    return Measurement.from_dict(numbers[score])


def _first_measured(run: Made) -> dict[str, Any]:
    """The settings of the first treated run of a comparison, or of its teacher without any."""
    first = run.inputs.get("treated0") or run.inputs["teacher"]
    return Made(store.load_run(first)).settings


def _sampling(settings: dict[str, Any], unit: str) -> Iterable[tuple[str, str]]:
    """How answers were sampled, where the score is of sampled answers."""
    if unit != SAMPLED:
        return
    for name in ("temperature", "max_new_tokens"):
        yield name.replace("_", " "), str(settings.get(name))


def _model(settings: dict[str, Any]) -> str:
    return Path(settings["model"]).name


def _check_alike(rows: Sequence[Row]) -> None:
    """Raise DataError where two rows are of different quantities."""
    first = rows[0]
    for row in rows[1:]:
        for (what, value), (_, other) in zip(first.alike, row.alike, strict=True):
            if value != other:
                raise DataError(
                    f"{first.run.run.path} and {row.run.run.path} cannot stand in one figure: the"
                    f" {what} is {value!r} and {other!r}; expected the same; report them one by one"
                )


def _labels(rows: Sequence[Row]) -> list[str]:
    """What stands beside each row: the trait, and the run's name where that does not tell rows
    apart."""
    pairs = [(row.model, row.trait) for row in rows]
    labels = []
    for row, pair in zip(rows, pairs, strict=True):
        name = label_of(row.run.run.path).name or row.run.run.path.name
        labels.append(f"{row.trait}, {name}" if pairs.count(pair) > 1 else row.trait)
    return labels


def _figure(
    rows: Sequence[Row], labels: Sequence[str], numbers: Sequence[Measurement], quantity: str
) -> Figure:
    """Return a dot with its interval a row; rows of one model stand together under its name."""
    places, heads, place = [], [], 0
    for number, row in enumerate(rows):
        if number == 0 or row.model != rows[number - 1].model:
            heads.append((place, row.model))
            place += 1
        places.append(place)
        place += 1

    def draw(axes: Any, panel: str) -> None:
        axes.axvline(0, color=drawing.MARK, linewidth=0.7)
        for at, number in zip(places, numbers, strict=True):
            if not math.isnan(number.estimate):
                dot_with_interval(axes, number, at, drawing.COLOURS["control"])
            axes.annotate(
                f"n = {number.n_clusters} {number.counted}",
                (1.02, at),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=8,
                annotation_clip=False,
            )
        ticks = sorted([*zip(places, labels, strict=True), *heads])
        axes.set_yticks([at for at, _ in ticks], [text for _, text in ticks])
        for tick, (at, _) in zip(axes.get_yticklabels(), ticks, strict=True):
            tick.set_fontweight("normal" if at in places else "bold")
        axes.set_ylim(place - 0.4, -0.6)
        rows_only(axes)
        axes.set_xlabel(textwrap.fill(f"{quantity}, {numbers[0].unit}", LABEL_WIDTH))

    title = f"{quantity}, by model and trait"
    caption = (
        "Dots: estimates. Thick lines: 95 % intervals, where there are any. n counts what the"
        f" intervals are over. {methods(numbers)}"
    )
    if any(not math.isnan(number.crossed_low) for number in numbers):
        caption += " Thin lines: the same for new questions, too."
    shape = Shape(width=6.4, height=0.8 + 0.27 * max(3, place))
    drawn = Drawing("by-model-and-trait", title, ("",), draw, shape)
    return Figure(drawn.name, title, caption, drawn, measurements_csv(numbers))


def _table(
    rows: Sequence[Row], labels: Sequence[str], numbers: Sequence[Measurement], quantity: str
) -> Table:
    cells = []
    for row, label, number in zip(rows, labels, numbers, strict=True):
        size = size_of(number)
        cells.append((row.model, label, number, number.unit, size, number.interval))
    header = ("model", "trait", "estimate", "unit", "n", "interval")
    caption = "Estimates with 95 % intervals. Models and traits are not pooled."
    return Table("by-model-and-trait", quantity, caption, header, tuple(cells))
