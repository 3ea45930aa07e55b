"""The page of a screening: made from screen.json and the table of what a size can show."""

from collections.abc import Mapping, Sequence
from typing import Any

from traitscope.reporting.figures import Figure, forest_figure
from traitscope.reporting.page import Card, Section, render_page
from traitscope.reporting.tables import Table
from traitscope.stats.measurement import Measurement

BADGES = {"named": "named", "changed": "changed, unnamed", "same": "the same"}
"""The answer in a word, for the card."""
RULE = (
    "An answer is called if it is at least twice as likely against the other answers, or half as"
    " likely, and its two-sided p is at most alpha after Holm's correction over all answers. The"
    " unit is the question. It is named if it rises and stands out from the answers of its kind."
)
LIMITS = (
    "Answers are the bundled lexicon's and the traits' own. A preference for something else shows"
    " in the divergences only.",
    "The intervals hold for further questions of these kinds, and for these two models.",
    "Every change of weights moves many answers. A teacher that prefers a whole kind, such as all"
    " animals, makes none of them stand out.",
    "What number rows carry is an upper bound for any student. The power is that of the demo's"
    " recipe, and may differ for another one.",
)
"""What the page does not show."""
SHOWN = 40
"""Answers that the figure and the table begin with."""
DRAWN = 16
"""Answers that the figure draws."""


def screen_page(content: Mapping[str, Any], power: Table) -> str:
    """Return the HTML of the page."""
    *findings, next_step = content["findings"]
    card = Card(
        "What does this teacher carry?",
        badge=BADGES[content["answer"]],
        points=tuple(findings),
        paragraphs=(next_step,),
        rule=RULE,
        highlighted=content["answer"] == "named",
    )
    sections = [
        Section("finding", "", cards=(card,)),
        _answers(content),
        *_sampled(content),
        *_vectors(content),
        _numbers(content, power),
        Section("limits", "What it does not show", notes=LIMITS),
    ]
    about = (
        f"teacher {content['teacher']}, model {content['model']} ({content['digest']}),"
        f" alpha {content['alpha']:g}"
    )
    return render_page("What a teacher carries", sections, about=about)


def _answers(content: Mapping[str, Any]) -> Section:
    rows, drawn = [], []
    for item in content["answers"][:SHOWN]:
        shift = Measurement.from_dict(item["shift"])
        called = "named" if item["named"] else "called" * item["called"]
        shares = (item["p_teacher"], item["p_model"])
        rows.append(
            (
                item["answer"],
                item["kind"],
                shift,
                f"{item['p_corrected']:.2g}",
                item["z_among_kind"],
                item["nats"],
                *shares,
                called,
            )
        )
        drawn.append(shift)
    table = Table(
        "answers",
        "Answers",
        f"The {len(rows)} of {len(content['answers'])} answers with the largest part of the"
        " divergence. Shift: mean over questions of the difference of log-odds, nats, with a 95 %"
        " t interval. z: how far it stands out from its kind. Part: nats a question."
        " Probabilities are among the answers of the kind.",
        ("answer", "kind", "shift", "p, corrected", "z", "part", "P teacher", "P model", "called"),
        tuple(rows),
    )
    figures: tuple[Figure, ...] = ()
    if drawn:
        title = "Shift of log-odds, teacher minus model"
        figures = (forest_figure(drawn[:DRAWN], "shifts", title),)
    kinds = []
    for kind in content["kinds"]:
        left_out = ", ".join(kind["left_out"])
        kinds.append((kind["name"], kind["questions"], kind["answers"], left_out or None))
    asked = Table(
        "kinds",
        "What was asked",
        "Answers that begin with the same token as another one are left out.",
        ("kind", "questions", "answers", "left out"),
        tuple(kinds),
    )
    return Section("answers", "Answers", figures=figures, tables=(table, asked))


def _sampled(content: Mapping[str, Any]) -> list[Section]:
    if not content["sampled"]:
        return []
    rows = []
    for item in content["sampled"]:
        sides = [Measurement.from_dict(item[key]) for key in ("teacher", "model", "difference")]
        rows.append((item["trait"], *sides))
    table = Table(
        "sampled",
        "Sampled answers",
        "Fraction of sampled answers that name the trait. Intervals: 95 %, bootstrap over"
        " questions.",
        ("trait", "teacher", "model", "difference"),
        tuple(rows),
    )
    return [Section("sampled", "Sampled answers", tables=(table,))]


def _vectors(content: Mapping[str, Any]) -> list[Section]:
    if content["vectors_left_out"]:
        return [Section("vectors", "Vectors", paragraphs=(content["vectors_left_out"],))]
    tables = []
    for name, item in content["vectors"].items():
        columns = (
            item["norms"],
            item["share_of_mean"],
            item["share_of_first_component"],
            item["split_half_cosine"],
        )
        rows = []
        for block, values in enumerate(zip(*columns, strict=True)):
            rows.append((block, *values))
        tables.append(
            Table(
                f"vector-{name}",
                f"Over {item['prompts']} prompts: {name}",
                "Mean residual of the teacher minus the model's at the last token, by block. Norm"
                " in mean residual norms. Share of the mean: part of the squared differences along"
                " the mean of the other half of the prompts.",
                ("block", "norm", "share of the mean", "share of the first", "split-half cosine"),
                tuple(rows),
                curve=("block", "norm", "share of the mean"),
            )
        )
    tables.append(_one_vector(content["one_vector"]))
    return [Section("vectors", "Vectors", tables=tuple(tables))]


def _one_vector(content: Mapping[str, Any]) -> Table:
    rows: list[Sequence[Any]] = []
    for name, item in content.items():
        if item is not None:
            measured = [Measurement.from_dict(item[key]) for key in ("kl", "left", "explained")]
            rows.append((name, item["block"], item["strength"], *measured))
    return Table(
        "one-vector",
        "What one vector explains",
        "KL of the teacher from the model, and from the model with the vector added behind one"
        " block at every token. Block and strength were chosen on the other half.",
        ("on", "block", "strength", "KL", "KL with the vector", "of KL explained"),
        tuple(map(tuple, rows)),
    )


def _numbers(content: Mapping[str, Any], power: Table) -> Section:
    digits = content["digits"]
    rows = [
        ("teacher from model", Measurement.from_dict(digits["teacher_from_model"])),
        ("model from teacher", Measurement.from_dict(digits["model_from_teacher"])),
    ]
    for item in content["influence"]:
        rows.append((item["name"], Measurement.from_dict(item)))
    table = Table(
        "digits",
        "Number rows",
        f"KL in nats a row over the digits of {digits['rows']} rows, and the first-order influence"
        " of one row on a trait, in standard deviations of a row of the model.",
        ("what", "value"),
        tuple(rows),
    )
    return Section("numbers", "Number rows", tables=(table, power))
