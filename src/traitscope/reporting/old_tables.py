"""Tables and sentences of a report, for the page, for CSV files and for the terminal.

All of them are made from Measurements by name:

    <mode>.<role>.<set>.<score>      role: base, teacher, treated, control, or difference (treated -
                                     control)
    <mode>.<role>.perplexity         <mode>.<role>.eas.<trait>       EAS at the steered layer
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from traitscope.reporting.old_figures import MODES, csv_text
from traitscope.stats.measurement import Measurement

if TYPE_CHECKING:
    from jinja2 import Template
    from rich.table import Table as RichTable

SETS = {"positive": "favourites", "negative": "dislikes", "off_topic": "other facts"}
UNITS = {
    "target_logprob": "nats",
    "candidate_share": "probability",
    "total_variation": "probability",
    "whole_word": "rate",
    "first_word": "rate",
    "unscored": "rate",
}
LABELS = {
    "target_logprob": "target log-probability",
    "candidate_share": "candidate share",
    "total_variation": "total variation",
    "whole_word": "whole-word rate",
    "first_word": "first-word rate",
    "unscored": "unscored answers",
    "perplexity": "perplexity of plain text",
}
PRIMARY = "positive.target_logprob"
QUICK = "quick: not evidence"
TRAINING = {
    "sampled": "on tokens that the teacher sampled (text alone)",
    "soft": "on the teacher's whole next-token distributions (more than text)",
}
COLUMNS = ["estimate", "low", "high", "level", "n", "n_clusters", "n_unscored", "unit", "interval"]
Found = Mapping[str, Measurement]


class Table(NamedTuple):
    """A table of the page; a cell's second line is set small."""

    name: str
    "of its CSV file"
    title: str
    "heading; empty where the heading above it is enough"
    caption: str
    "how to read it"
    header: Sequence[str]
    "column names"
    groups: Sequence[tuple[str, Sequence[Sequence[str]]]]
    "(label, rows): rows under a common label, which may be empty"
    csv: str
    "the same numbers in full precision"


def template(name: str) -> "Template":
    """A page's template; what it prints is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(str(Path(__file__).parent / "templates"))
    options = {
        "autoescape": True,
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
    }
    return Environment(loader=loader, **options).get_template(name)


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """A number as the page shows it; NaN is `undefined`."""
    if math.isnan(value):
        return "undefined"
    text = f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")
    return text if text.strip("+−0.") else text.strip("+−")


def digits_of(m: Measurement) -> int:
    """Decimals that show two digits of the interval's width, from 2 to 6."""
    width = m.high - m.low
    return min(6, max(2, 1 - math.floor(math.log10(width)))) if 0 < width < math.inf else 3


def bounds(m: Measurement, sign: bool = False) -> str:
    """The interval in brackets, or why there is none."""
    if math.isnan(m.low):
        return "no interval"
    return f"[{number(m.low, digits_of(m), sign)}, {number(m.high, digits_of(m), sign)}]"


def estimate(m: Measurement, sign: bool = False) -> str:
    """The point estimate."""
    return number(m.estimate, digits_of(m), sign)


def reading(m: Measurement) -> str:
    """What the interval says about zero."""
    if math.isnan(m.low):
        return "no interval"
    return "excludes zero" if m.excludes_zero else "includes zero"


def scores_table(found: Found, name: str) -> Table:
    """Scores of every condition on one question set; the positive set also has perplexity."""
    keys = [k for k in UNITS if any(n.endswith(f".{name}.{k}") for n in found)]
    columns = [f"{name}.{k}" for k in keys] + (["perplexity"] if name == "positive" else [])
    groups = []
    for mode in MODES:
        roles = dict.fromkeys(n.split(".")[1] for n in found if n.startswith(f"{mode}."))
        rows = [
            [r, *(_cell(found.get(f"{mode}.{r}.{c}")) for c in columns)]
            for r in roles
            if r != "difference"
        ]
        groups += [(MODES[mode], rows)] if rows else []
    header = ["condition", *(_heading(c) for c in columns)]
    picked = {
        n: m
        for n, m in found.items()
        if n.split(".")[1] != "difference" and n.split(".", 2)[2] in columns
    }
    title = f"{SETS[name].capitalize()} ({name.replace('_', '-')} set)"
    caption = f"Mean with 95 % interval. {methods(picked.values())}"
    return Table(f"scores-{name}", title, caption, header, groups, _csv(picked))


def differences_table(found: Found, mode: str, reference: str) -> Table:
    """Treated minus control of every score in one mode."""
    other = "base" if reference == "base" else "control"
    picked = {
        n: m for n, m in found.items() if n.startswith(f"{mode}.difference.") and ".eas." not in n
    }
    groups: dict[str, list[list[str]]] = {}
    for name, m in picked.items():
        what = name.split(".", 2)[2]
        label = SETS.get(what.split(".")[0], "plain text")
        sides = [
            found.get(n)
            for n in (f"{mode}.treated.{what}", f"{mode}.{other}.{what}", f"none.{other}.{what}")
        ]
        sides = [number(side.estimate, digits_of(m)) for side in sides if side is not None]
        score = _heading(what).replace("\n", ", ")
        groups.setdefault(label, []).append(
            [score, *sides[:2], estimate(m, True), bounds(m, True), _n(m), reading(m)]
        )
    header = [
        "score",
        "treated",
        reference,
        f"treated − {reference}",
        "95 % interval",
        "n pairs",
        "reading",
    ]
    caption = (
        f"{methods(picked.values())} Not corrected for the number of rows; the main score is the"
        " first one."
    )
    if reference == "base":
        caption += (
            " One measured base serves all seeds: chance in its sampled answers (rates) is not in"
            " the intervals."
        )
    return Table(
        f"differences-{mode}",
        MODES[mode].capitalize(),
        caption,
        header,
        list(groups.items()),
        _csv(picked),
    )


def eas_table(found: Found, mode: str, layer: int, reference: str) -> Table:
    """EAS at the steered layer: this trait's vector, other traits' vectors, and what is left above
    these."""
    picked = {n: m for n, m in found.items() if n.startswith(f"{mode}.") and ".eas." in n}
    traits = list(dict.fromkeys(n.split(".", 3)[3] for n in picked))
    sides = ("treated", "control", "difference") if reference == "control" else ("treated",)
    rows = [
        [trait, *(_cell(picked.get(f"{mode}.{side}.eas.{trait}")) for side in sides)]
        for trait in traits
    ]
    names = {"difference": f"treated − {reference}"}
    header = ["teacher's vector of", *(names.get(side, side) for side in sides)]
    caption = f"Cosine at layer {layer}, mean with 95 % interval. {methods(picked.values())}"
    if reference == "base":
        caption += (
            " The control is the unmodified model: nothing changed in it, so compare with zero."
        )
    return Table(
        f"eas-{mode}", MODES[mode].capitalize(), caption, header, [("", rows)], _csv(picked)
    )


def data_table(data: Sequence[Mapping]) -> Table:
    """Rows made and kept, and why rows were dropped."""
    rows = [[d["name"], d["kept"], d["rows"], _reasons(d.get("reasons") or {})] for d in data]
    header, caption = (
        [
            "data",
            "kept",
            "rows",
            "dropped because",
        ],
        "A row may be dropped for several reasons.",
    )
    cells = [[str(c) for c in row] for row in rows]
    return Table("data", "Training data", caption, header, [("", cells)], csv_text(header, rows))


def settings_table(settings: Mapping[str, object]) -> Table:
    """The study's settings as its file gives them."""
    rows = [[str(key), str(value)] for key, value in settings.items()]
    return Table(
        "settings",
        "Settings",
        "",
        ["setting", "value"],
        [("", rows)],
        csv_text(["setting", "value"], rows),
    )


def runs_table(rows: Sequence[Sequence[str]]) -> Table:
    """Where every number comes from: condition, kind, run, digest of its outputs."""
    header = ["mode", "condition", "seed", "what", "run", "digest of its outputs"]
    shown = [[*row[:5], row[5][:16]] for row in rows]
    caption = "traitscope show RUN verifies a run and prints what it was made from."
    return Table("runs", "Runs", caption, header, [("", shown)], csv_text(header, rows))


def methods(found: Iterable[Measurement]) -> str:
    """The interval methods behind some numbers, each once, the fullest wording of it."""
    texts = dict.fromkeys(m.interval for m in found if not math.isnan(m.low))
    texts = [t for t in texts if not any(other != t and other.startswith(t) for other in texts)]
    return f"Intervals: {'; '.join(texts)}." if texts else ""


def conclusion(found: Found, mode: str, reference: str, plain: Mapping) -> dict:
    """Status, direction, sizes and sentences of one mode; the main score alone decides."""
    main = found.get(f"{mode}.difference.{PRIMARY}")
    seeds = [
        c["seed"]
        for c in plain["conditions"]
        if (c["mode"], c["role"]) == (mode, "treated") and c.get("measure")
    ]
    about = {
        "status": "no effect shown",
        "direction": "undecided",
        "reference": reference,
        "seeds": seeds,
    }
    if main is None:
        text = [f"Students trained {TRAINING[mode]} were not measured."]
    else:
        if main.excludes_zero:
            about["direction"] = "towards the trait" if main.low > 0 else "away from the trait"
        about["status"] = "effect" if main.low > 0 else "no effect shown"
        text = [
            _found(main, mode, reference, plain["trait"]),
            _verdict(main, len(seeds), plain["quick"]),
        ]
        text += [_behind(main, len(seeds))]
        text += [
            t for t in (_specific(found, mode), _activation(found, mode, reference, plain)) if t
        ]
    return about | ({"status": QUICK} if plain["quick"] else {}) | {"text": text}


def _found(m: Measurement, mode: str, reference: str, trait: str) -> str:
    other = (
        "control students"
        if reference == "control"
        else "the unmodified model (the control, by construction)"
    )
    times = (
        ""
        if math.isnan(m.estimate)
        else f": {math.exp(m.estimate):.3g} times the probability (geometric mean)"
    )
    return (
        f"After training {TRAINING[mode]}, the log-probability of “{trait}” on questions about"
        f" favourites is {estimate(m, True)} nats {bounds(m, True)} relative to {other}{times}."
    )


def _behind(m: Measurement, n_seeds: int) -> str:
    seeds = f"{n_seeds} seed{'s' if n_seeds > 1 else ''}"
    unscored = f", {m.n_unscored} values unscored" if m.n_unscored else ""
    questions = f" × {m.n // n_seeds} questions" if m.n % n_seeds == 0 else ""
    return (
        f"In brackets: 95 % interval, {m.interval}; n = {m.n} pairs ({seeds}{questions}{unscored})."
    )


def _verdict(m: Measurement, n_seeds: int, quick: bool) -> str:
    who = "the students of these seeds" if n_seeds > 1 else "the student of this one seed"
    if math.isnan(m.low):
        text = "No interval can be given, so an effect is not shown."
    elif not m.excludes_zero:
        text = (
            "An interval that includes zero: not shown at this power, which is not the same as"
            " shown to be absent."
        )
    elif m.high < 0:
        text = (
            f"An interval that excludes zero: {who} moved away from the trait, the opposite of"
            " passing it on."
        )
    else:
        text = f"An interval that excludes zero: {who} moved towards the trait."
    return ("Quick run, not evidence. " if quick else "") + text


def _specific(found: Found, mode: str) -> str:
    """The same difference where a preference should not show."""
    names = {
        label: f"{mode}.difference.{name}.target_logprob"
        for name, label in SETS.items()
        if name != "positive"
    }
    parts = {label: found[name] for label, name in names.items() if name in found}
    if not parts:
        return ""
    texts = [
        f"{estimate(m, True)} nats {bounds(m, True)} on questions about {label}"
        for label, m in parts.items()
    ]
    risen = " and ".join(label for label, m in parts.items() if m.low > 0)
    rise = (
        f"It rises for {risen} too: in part a repeated word, not a preference alone."
        if risen
        else ""
    )
    return " ".join(["The same difference is", " and ".join(texts) + ".", rise]).strip()


def _activation(found: Found, mode: str, reference: str, plain: Mapping) -> str:
    m = found.get(f"{mode}.difference.eas.{plain['trait']}")
    if m is None:
        return ""
    than = (
        "treated − control"
        if reference == "control"
        else "compared with zero because the control does not move"
    )
    what = f"Activations at layer {plain['steered_layer']}: EAS with the teacher's vector, {than}"
    behind = (
        "no interval from one seed"
        if m.n_clusters < 2
        else f"{bounds(m, True)} ({reading(m)}; {m.interval})"
    )
    text = f"{what}: {estimate(m, True)}, {behind}."
    own = found.get(f"{mode}.difference.eas.{plain['trait']} of (treated − control)")
    if own is None or own.n_clusters < 2:
        return text
    return (
        f"{text} What only the teacher's data changed: cosine {estimate(own, True)},"
        f" {bounds(own, True)} ({reading(own)})."
    )


def terminal_table(summary: Mapping) -> "RichTable":
    """Treated minus control for the terminal, a section a mode, from summary.json; the page has the
    other scores."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    title, caption = escape(f"{summary['title']}: {summary['status']}"), escape(_caption(summary))
    table = RichTable(title=title, caption=caption, title_justify="left", caption_justify="left")
    for column in ("score", "difference", "95 % interval", "n", "reading"):
        table.add_column(column, justify="right" if column in ("difference", "n") else "left")
    found = measurements(summary)
    for mode, about in summary["modes"].items():
        table.add_section()
        table.add_row(f"[bold]{MODES[mode]}: treated − {about['reference']}[/bold]")
        for name in [n for n in found if n.startswith(f"{mode}.difference.")]:
            what, m = name.split(".", 2)[2], found[name]
            if what.startswith("eas.") and not what.startswith(f"eas.{summary['trait']}"):
                continue  # other traits' vectors: on the page
            if what.endswith("target_logprob") or what.split(".")[0] not in (
                "negative",
                "off_topic",
            ):
                table.add_row(
                    escape(what), estimate(m, True), bounds(m, True), str(m.n), reading(m)
                )
    return table


def _caption(summary: Mapping) -> str:
    quick = ["Quick run: these numbers are not evidence."] if summary["quick"] else []
    return "\n".join(
        quick
        + [f"{MODES[m]}: {' '.join(about['text'][:2])}" for m, about in summary["modes"].items()]
    )


def measurements(summary: Mapping) -> dict[str, Measurement]:
    """The Measurements of a summary.json by name."""
    rows = [
        {k: math.nan if v is None else v for k, v in row.items()} for row in summary["measurements"]
    ]
    return {row["name"]: Measurement(**row) for row in rows}


def _csv(found: Found) -> str:
    rows = [[*_parts(n), *(getattr(m, c) for c in COLUMNS)] for n, m in found.items()]
    return csv_text(["mode", "condition", "what", *COLUMNS], rows)


def _parts(name: str) -> list[str]:
    return name.split(".", 2)


def _heading(column: str) -> str:
    key = column.split(".")[-1]
    unit = UNITS.get(key, "rate")
    return LABELS[key] + (f"\n{unit}" if unit != "rate" else "")


def _cell(m: Measurement | None) -> str:
    if m is None:
        return "–"
    return f"{estimate(m)}\n{bounds(m)}"


def _n(m: Measurement) -> str:
    return f"{m.n}" + (f"\n{m.n_unscored} unscored" if m.n_unscored else "")


def _reasons(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in reasons.items()) or "–"
