"""The page of `verify`, made from the content of verify.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from traitscope.reporting.figures import Figure, forest_figure
from traitscope.reporting.page import Card, Section, render_page
from traitscope.reporting.tables import Table
from traitscope.stats.decision import MIN_UNITS
from traitscope.stats.measurement import Measurement
from traitscope.verifying.contrasts import RELEARNING
from traitscope.verifying.rows import LARGEST_SHARE
from traitscope.verifying.sentences import NEXT

BADGES = {"trait": "trait", "nothing-found": "nothing found", "no-verdict": "no verdict"}
"""The answer in a word, for the card."""
RULE = (
    "A trait is found where its log-odds lie above the controls' by log 2 or more, with a corrected"
    " p of at most alpha. In relearning the gain must be larger, too. p values are one-sided and"
    " corrected over all traits, system turns and relearning in both directions (Holm 1979). A unit"
    f" is a model with rows and a seed of its own; {MIN_UNITS} are needed on the smaller side, and"
    f" {MIN_UNITS} controls beside one student."
)
NO_CONTROLS = (
    "There are no controls. Training on any rows moves many answers, so a difference from the base"
    " does not say that these rows carried a trait. Students of the same recipe on clean rows of"
    " the same kind would say it."
)
LIMITS = (
    "Only traits that were asked for are seen, by the first token of their word, after the stem of"
    " their questions. A trait that shows under another system turn or after another trigger is"
    " not.",
    "An interval over questions holds for further questions of these kinds, and for these very"
    " models. It says nothing of another training run.",
    "A verdict over models holds for students of this recipe, and for further rows that are drawn"
    " as those of the controls were. Controls that differ in more than their rows compare that,"
    " too.",
)
"""What the page does not show."""
OF_RELEARNING = (
    "Students that gain more than controls still held something of the trait, or they started"
    " lower. So a trait is found only where their log-odds also lie above the controls' afterwards."
    " The reverse does not follow: a trait that shows already has less to gain, and a slow return"
    " proves no absence. Rows that teach anything else would not show it."
)
DRAWN = 16
"""Traits that the figure draws."""


def verify_page(content: Mapping[str, Any]) -> str:
    """Return the HTML of the page."""
    *findings, next_step = content["findings"]
    card = Card(
        "Does this student carry a trait?",
        badge=BADGES[content["status"]],
        points=tuple(findings),
        paragraphs=(next_step.removeprefix(NEXT).capitalize() + ".",),
        rule=RULE,
        highlighted=content["status"] == "trait",
    )
    sections = [Section("answer", "", cards=(card,)), _who(content)]
    for number, context in enumerate(content["contexts"]):
        sections.append(_asked(content, context, f"context-{number}", f"System turn: {context}"))
    sections += [*_relearning(content), *_sampled(content)]
    sections.append(Section("limits", "What it does not show", notes=LIMITS))
    about = f"base {content['model']} ({content['digest']}), alpha {content['alpha']:g}"
    return render_page("What a finished student carries", sections, about=about)


def has_controls(content: Mapping[str, Any]) -> bool:
    """Whether there are control students."""
    return any(item["role"] == "control" for item in content["models"])


def _who(content: Mapping[str, Any]) -> Section:
    whole = {item["name"]: item for item in content["wholeness"]}
    rows = []
    for item in content["models"]:
        wholeness = whole[item["name"]]
        rows.append(
            (
                item["name"],
                item["text"],
                item["set_of_rows"],
                item["n_rows"],
                item["seed"],
                item["steps"],
                _counts(item),
                wholeness["perplexity"],
                wholeness["on_topic"],
                "yes" if wholeness["is_coherent"] else "no",
            )
        )
    table = Table(
        "models",
        "Who was asked",
        "Rows, seed and optimizer steps are those of a run of train. Models with one number of rows"
        " learnt the same ones, or share many answers; n is how many they are. Counts: whether it"
        " is of a unit. Perplexity is that of plain text. Whole: perplexity at most twice the"
        " base's, and half its probability of any answer of the kind.",
        (
            "model",
            "named",
            "rows",
            "n",
            "seed",
            "steps",
            "counts",
            "perplexity",
            "P any answer",
            "whole",
        ),
        tuple(rows),
    )
    tables = [table, *_rows(content)]
    notes = [] if has_controls(content) else [NO_CONTROLS]
    for left_out, kept in content["contexts_left_out"].items():
        notes.append(f"The system turn {left_out!r} renders as {kept!r} does, and is left out.")
    return Section("models", "Models", paragraphs=tuple(notes), tables=tuple(tables))


def _counts(model: Mapping[str, Any]) -> str | None:
    if model["role"] == "base":
        return None
    return "yes" if model["counts"] else "no"


def _rows(content: Mapping[str, Any]) -> list[Table]:
    """What controls learnt of the students' rows; nothing without controls."""
    rows = []
    for item in content["rows"]:
        is_known = not item["unknown"]
        rows.append(
            (
                item["control"],
                item["student"],
                item["looked_at"] if is_known else None,
                item["common"] if is_known else None,
                item["same_origin"] or None,
                _is_control(item),
            )
        )
    if not rows:
        return []
    about = (
        "Answers of each control that a student learnt, too, equal or nearly so. Answers of the"
        f" base itself to the student's prompts are not counted. From {LARGEST_SHARE:.0%} on a"
        " control is another student."
    )
    columns = ("control", "student", "looked up", "in common", "same origin", "is a control")
    return [Table("rows", "Rows of the controls", about, columns, tuple(rows))]


def _is_control(item: Mapping[str, Any]) -> str:
    if item["unknown"]:
        return f"not checked: rows of {', '.join(item['unknown'])} are not known"
    return "no" if item["is_copy"] else "yes"


def _asked(content: Mapping[str, Any], context: str, name: str, title: str) -> Section:
    """Every trait under one system turn, or in relearning."""
    other = "controls" if has_controls(content) else "base"
    rows, drawn = [], []
    for item in content["contrasts"]:
        if item["context"] != context:
            continue
        over_models = Measurement.from_dict(item["difference"])
        over_questions = Measurement.from_dict(item["over_questions"])
        drawn.append(over_models if item["units"] else over_questions)
        over_base = None
        if item["over_base"] is not None:
            over_base = Measurement.from_dict(item["over_base"])
        after: tuple[Measurement, ...] = ()
        if context == RELEARNING:
            which = "after" if item["units"] else "after_over_questions"
            after = (Measurement.from_dict(item[which]),)
        rows.append(
            (
                item["trait"],
                over_models if item["units"] else None,
                *after,
                _p(item["p_corrected"]),
                item["outcome"],
                item["detectable"],
                over_questions,
                _p(item["p_questions_corrected"]),
                item["z_among_kind"],
                over_base,
            )
        )
    table = Table(
        name,
        "Traits",
        f"Students minus {other}, nats of log-odds, with 95 % intervals. Would be found: smallest"
        " difference that is found with power 0.8. z: how far it stands out from its kind."
        f" Units of over models: {_units(content, context)}.",
        (
            "trait",
            "over models",
            *(("afterwards",) if context == RELEARNING else ()),
            "p, corrected",
            "outcome",
            "would be found",
            "over questions",
            "p over questions",
            "z",
            "students minus base",
        ),
        tuple(rows),
    )
    figures: tuple[Figure, ...] = ()
    if drawn:
        heading = f"Students minus {other}"
        figures = (forest_figure(drawn[:DRAWN], f"{name}-figure", heading),)
    return Section(name, title, figures=figures, tables=(table,))


def _units(content: Mapping[str, Any], context: str) -> str:
    for item in content["contrasts"]:
        if item["context"] == context and item["units"]:
            return f"{item['units']}, {item['difference']['interval']}"
    return "none, because there is one unit on either side"


def _p(value: float | None) -> str | None:
    return None if value is None else f"{value:.2g}"


def _relearning(content: Mapping[str, Any]) -> list[Section]:
    if not content["relearning"]:
        return []
    asked = _asked(content, RELEARNING, "relearning", "Relearning")
    most = content["relearning"][0]
    rows: list[Sequence[Any]] = []
    for side in ("students", "controls"):
        for number, curve in enumerate(most[side], start=1):
            label = f"{side} {number}" if side == "students" or has_controls(content) else "base"
            for step, value in zip(most["steps"], curve, strict=True):
                rows.append((label, step, value))
    curves = Table(
        "relearning-curves",
        f"Return of {most['trait']}",
        "Mean log-odds of the trait that the rows teach most, by optimizer step, nats.",
        ("model", "step", "log-odds"),
        tuple(map(tuple, rows)),
        curve=("step", "log-odds"),
    )
    return [
        Section(
            "relearning",
            "Relearning",
            paragraphs=(
                "Mean gain of log-odds while models learn the rows, and afterwards the log-odds.",
                OF_RELEARNING,
            ),
            figures=asked.figures,
            tables=(curves, *asked.tables),
        )
    ]


def _sampled(content: Mapping[str, Any]) -> list[Section]:
    if not content["sampled"]:
        return []
    rows = []
    for item in content["sampled"]:
        sides = [Measurement.from_dict(item[key]) for key in ("students", "reference")]
        rows.append((item["trait"], *sides, Measurement.from_dict(item["difference"])))
    other = "controls" if has_controls(content) else "base"
    table = Table(
        "sampled",
        "Sampled answers",
        f"Fraction of sampled answers that name the trait, under {content['contexts'][0]!r}."
        " Intervals: 95 %, bootstrap over questions.",
        ("trait", "students", other, "difference"),
        tuple(rows),
    )
    return [Section("sampled", "Sampled answers", tables=(table,))]
