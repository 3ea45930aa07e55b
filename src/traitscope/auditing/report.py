"""The audit as one self-contained HTML page, for somebody who did not run it."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from traitscope.auditing.result import BLIND
from traitscope.reporting.numbers import number
from traitscope.reporting.page import template

ANSWERS = {
    "suspect": (
        "Do not train on these data as they are.",
        (
            "A test that calls one clean data set in {once} has called this one. Look at what it"
            " names, ask where the rows come from, and audit what is left after a change."
        ),
    ),
    "clean": (
        "Nothing was found that would have been found.",
        (
            "No test calls these data, and the teachers listed under “What would have been found”"
            " would have been. This says nothing of teachers unlike them."
        ),
    ),
    "insufficient": (
        "These rows do not say.",
        (
            "No test calls these data, but neither would it have called a teacher that was planted"
            " on purpose. More rows are needed before an answer means anything."
        ),
    ),
    "not-applicable": (
        "These tests do not apply.",
        (
            "Another model or a person wrote these rows, or they were edited, or a changed copy of"
            " this model wrote them, such as a fine-tuned one. What they would do to this model is"
            " not known from tests that compare it with itself; a trait is not excluded."
        ),
    ),
}
SHOWN, CUT = 15, 160
"rows and characters that the page shows"


class Table(NamedTuple):
    """A table of texts."""

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def page(
    result: Mapping[str, Any],
    about: Mapping[str, Any],
    rows: Sequence[Mapping],
    bags: Mapping[str, Sequence[Mapping]],
    texts: Mapping[str, tuple[str, str]],
    seconds: Mapping[str, float],
) -> str:
    """The page from result.json, the intake's about.json, rows.jsonl, bags.json, {id: (prompt,
    answer)} and {detector: seconds}."""
    headline, meaning = ANSWERS[result["status"]]
    found = {d["name"]: d for d in result["detectors"]}
    sheets = [
        _power(result),
        _traits(result, found),
        *([_named(result)] if result["named"] else []),
        _detectors(result, seconds),
        _baselines(found["baselines"]),
        _rows(rows, texts),
        _bags(bags),
        _data(about),
    ]
    values = {
        "result": result,
        "headline": headline,
        "meaning": meaning.format(once=round(1 / result["alpha"])),
        "sheets": sheets,
    }
    return template("audit.html.jinja").render(values) + "\n"


def _power(result: Mapping) -> Table:
    rows = [
        (
            p["teacher"],
            p["detector"],
            _share(p["least_dose"]),
            "none would do" if p["rows_needed"] is None else f"{p['rows_needed']:.0f}",
        )
        for p in result["planted"]
    ]
    caption = (
        "Teachers that the audit made itself, on the same prompts. A dose is found with"
        f" probability {result['power']:g}."
    )
    return Table(
        "power",
        "What would have been found",
        caption,
        ("teacher", "by", "smallest dose, share of the rows", "rows needed if all are its"),
        rows,
    )


def _share(dose: float | None) -> str:
    return "not even all" if dose is None else f"{dose:.0%}"


def _traits(result: Mapping, found: Mapping[str, Mapping]) -> Table:
    gradients, odds, words = found["gradients"], found["odds"], found["wording"]
    rows = []
    for trait in result["traits"]:
        name = trait["name"]
        rows.append(
            (
                name,
                p_value(trait["p_corrected"]),
                f"{trait['detector']}\n{trait['where']}",
                _number(gradients["statistic"].get(name)),
                _number(gradients["beyond surface"].get(name)),
                _number(odds["nats a row"].get(name)),
                _number(odds["statistic"].get(name)),
                " / ".join(map(str, words["rows"].get(name, ()))),
            )
        )
    header = (
        "trait",
        "corrected p",
        "strongest by",
        "push, z",
        "push beyond the surface, z",
        "its teacher adds, nats a row",
        "ln e",
        "rows that name it: data / placebos",
    )
    caption = (
        "All signs: positive pushes towards the trait. Odds are called above ln e ="
        f" {_number(odds['critical'])}; p is corrected over traits and detectors. A push decides"
        " nothing: it says where the odds look; that of clean data rarely exceeds z ="
        f" {gradients['critical']:.1f}, but formats push, too."
    )
    return Table("traits", "Candidate traits", caption, header, rows)


def _named(result: Mapping) -> Table:
    rows = [
        (n["name"], _number(n["statistic"]), p_value(n["p_corrected"]), f"{n['agreement']:.0%}")
        for n in result["named"][:SHOWN]
    ]
    caption = (
        "What the model says when the direction that the data push is added to it, against random"
        " directions of the same length; no candidate was given."
    )
    return Table(
        "named",
        "Blind naming",
        caption,
        ("answer", "rise, z", "corrected p", "halves or placebos that agree"),
        rows,
    )


def _detectors(result: Mapping, seconds: Mapping[str, float]) -> Table:
    rows = []
    for d in result["detectors"]:
        best = next(iter(d["statistic"]), None)
        rows.append(
            (
                d["name"],
                "yes" if d["decides"] else "no",
                "nothing" if best is None else f"{best}: {_number(d['statistic'][best])}",
                "" if best is None else p_value(d["p"][best]),
                BLIND[d["name"]],
                f"{seconds[d['name']]:.0f}\u00a0s" if d["name"] in seconds else "",
            )
        )
    return Table(
        "detectors",
        "Detectors",
        "p is corrected over what the one detector looked at.",
        ("detector", "decides", "strongest", "p", "cannot see", "cost"),
        rows,
    )


def _baselines(found: Mapping) -> Table:
    rows = [
        (name, _number(z), p_value(found["p"][name]))
        for name, z in sorted(found["statistic"].items(), key=lambda item: -abs(item[1]))
    ]
    caption = (
        "What differs without any model, or in how well the model predicts. A bag of words tells"
        f" data from placebos with AUROC {found['words, AUROC']:.2f}; 0.5 is chance."
    )
    return Table(
        "baselines",
        "Baselines",
        caption,
        ("feature", "data minus placebos, z", "p that it is larger"),
        rows[:SHOWN],
    )


def _rows(rows: Sequence[Mapping], texts: Mapping[str, tuple[str, str]]) -> Table:
    best = sorted(rows, key=lambda row: -row["gradient"])[:SHOWN]
    shown = [
        (
            row["id"],
            _number(row["gradient"]),
            _number(row["odds"]),
            *(_cut(text) for text in texts[row["id"]]),
        )
        for row in best
    ]
    name, candidate = (best[0]["along"], best[0]["teacher of"]) if best else ("", "")
    caption = (
        "Single rows are weak evidence: most of the highest are clean rows by chance. Push along"
        f" {name}, in standard deviations of placebos; nats that the teacher of {candidate} adds,"
        " where it was tried."
    )
    return Table(
        "rows", "Rows that push most", caption, ("row", "push", "odds", "prompt", "answer"), shown
    )


def _bags(bags: Mapping[str, Sequence[Mapping]]) -> Table:
    rows = [
        (
            size,
            str(len(found)),
            _number(max(bag["z"] for bag in found)),
            p_value(min(1.0, len(found) * min(bag["p"] for bag in found))),
            f"{sum(bag['p'] <= 0.01 for bag in found)}",
            f"{0.01 * len(found):.1f}",
        )
        for size, found in bags.items()
    ]
    caption = (
        "Push of consecutive rows of the file together, along the first candidate's vector, against"
        " swaps with their placebos. The candidate was chosen on the same rows: for looking."
    )
    return Table(
        "bags",
        "Bags of rows",
        caption,
        (
            "rows a bag",
            "bags",
            "highest z",
            "its p, corrected over the bags",
            "bags with p at most 0.01",
            "expected in clean data",
        ),
        rows,
    )


def _data(about: Mapping) -> Table:
    form = about["format"]
    rows = [(name.replace("_", " "), str(n)) for name, n in about["counts"].items()]
    rows += [
        ("format", ", ".join(f"{k} {v}" for k, v in form.items() if k != "rules")),
        ("rules", str(form.get("rules", "none"))),
    ]
    rows += [
        ("read as", "text" if about["text"] else "token ids"),
        ("first row, as the model reads it", about["first"]),
    ]
    return Table("data", "The data", "What was read, left out, and learnt.", ("", ""), rows)


def p_value(p: float) -> str:
    """Two digits, or a bound below one in ten thousand."""
    return "<\u00a00.0001" if p < 1e-4 else f"{p:.2g}"


def _number(value: float | None) -> str:
    return "–" if value is None else number(float(value), 2, sign=True)


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= CUT else flat[: CUT - 1] + "…"
