"""Writes docs/claims/NAME.md from a finished study: python scripts/make_study.py
runs/study-NAME/study-ADDRESS [minutes].

With the name of a study that was not run yet: python scripts/make_study.py NAME. What stands under
"How to read it" was written by hand and is kept.
"""

import csv
import json
import sys
from itertools import pairwise
from pathlib import Path

from traitscope.reporting.numbers import bounds, crossed_bounds, estimate
from traitscope.stats.measurement import Measurement
from traitscope.studies import protocol

HAND = "## How to read it\n"
OUTCOMES = ("- *reproduced*", "- *contradicted*", "- *inconclusive")
PAGES = Path(__file__).parents[1] / "docs" / "claims"


def measurement(plain: dict) -> str:
    """A table row of a measurement."""
    m = Measurement(**{k: float("nan") if v is None else v for k, v in plain.items()})
    value = f"{estimate(m, True)} | {bounds(m, True)}"
    return f"| {m.name} | {value} | {crossed_bounds(m, True)} | {m.n} | {m.interval} |"


def page(folder: Path, minutes: str) -> str:
    """The page, without what was written by hand."""
    found = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    name = found["study"]
    head = (
        "| measurement | estimate | 95 % interval | for new questions, too | n | interval |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    cores = (
        "cores with bf16 units (AVX512)"
        if config["dtype"] == "bf16"
        else "AVX2 cores without bf16 units"
    )
    took = f"; {minutes} minutes on two {cores}" if minutes else ""
    command = (
        f"`traitscope study run {name}` ({found['size']} size; `traitscope study plan {name}` tells"
        f" how long it takes{took})"
    )
    lines = [
        *claim(name),
        f"**Command.** {command}.",
        "",
        f"**On {found['model']}, {config['dtype']}:**",
        "",
    ]
    for v in found["verdicts"]:
        lines += [f"- *{v['outcome']}*: {v['claim']} ({v['rule']})"]
    lines += [
        "",
        head,
        *(measurement(v["decided_by"]) for v in found["verdicts"]),
        *map(measurement, found["measurements"]),
        "",
    ]
    lines += [f"- {note}" for note in found["notes"]]
    for path in sorted(set(folder.glob("*.csv")) - {folder / "measurements.csv"}):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        if len(rows) <= 40:
            lines += ["", f"`{path.name}`", "", *table(rows)]
    return "\n".join(lines) + "\n\n"


INDEX_HEAD = """# Claims

One page for each claim. It holds what was published, the command, what came out here, and how to
read it. The outcomes hold for the small model and the laptop size that the page names.
No study has been run at full size, which needs a GPU.

[Controls and intervals](../concepts/controls-and-intervals.md) defines the outcomes.
A `contradicted` speaks of the small experiment here, never of the published one.

| claim | source | reproduced | contradicted | inconclusive |
|---|---|---|---|---|
"""


def index() -> str:
    """One table of all studies: how many of their parts came out how."""
    rows = []
    for name in protocol.names():
        study = protocol.load(name)
        counts = _outcome_counts((PAGES / f"{name}.md").read_text(encoding="utf-8"))
        cells = " | ".join(str(counts[outcome]) for outcome in OUTCOMES)
        source = study.SOURCE.split(";")[0].strip()
        rows.append(f"| [{study.TITLE}]({name}.md) | {source} | {cells} |")
    return INDEX_HEAD + "\n".join(rows) + "\n"


def _outcome_counts(page: str) -> dict[str, int]:
    """How many verdict lines of a page begin with each outcome."""
    lines = page.splitlines()
    counts = {}
    for outcome in OUTCOMES:
        counts[outcome] = sum(line.startswith(outcome) for line in lines)
    return counts


def table(rows: list[list[str]]) -> list[str]:
    """Markdown of a small CSV, numbers to three digits; bounds stand beside their estimate."""
    header, *body = rows
    starts = []
    for place, name in enumerate(header):
        is_bound = name.endswith((", low", ", high", ", crossed low", ", crossed high"))
        if not is_bound:
            starts.append(place)
    groups = list(pairwise([*starts, len(header)]))
    shown = [[header[start] for start, _ in groups]]
    for row in body:
        shown.append([interval(row[start:end]) for start, end in groups])
    lines = [f"| {' | '.join(row)} |" for row in shown]
    return [lines[0], "|" + " --- |" * len(groups), *lines[1:]]


def interval(cells: list[str]) -> str:
    """An estimate with its intervals, where it has any."""
    estimate, *ends = map(short, cells)
    text = f"{estimate} [{ends[0]}, {ends[1]}]" if ends and ends[0] else estimate
    return f"{text}, new questions [{ends[2]}, {ends[3]}]" if ends[2:] and ends[2] else text


def short(cell: str) -> str:
    """A number with at most three decimals."""
    try:
        return cell if cell.lstrip("-").isdigit() else f"{float(cell):.3f}"
    except ValueError:
        return cell


def claim(name: str) -> list[str]:
    """The head of a page: what is claimed, where, and what was published."""
    study = protocol.load(name)
    return [
        f"# {study.TITLE}",
        "",
        f"**Claim.** {study.CLAIM}",
        "",
        f"**Source.** {study.SOURCE}.",
        "",
        f"**Published.** {study.PUBLISHED}",
        "",
    ]


def blank(name: str) -> str:
    """The page of a study without a result."""
    command = (
        f"**Command.** `traitscope study run {name}`; `traitscope study plan {name}` tells how long"
        " it takes."
    )
    tried = (
        "No result yet at this size: only the path was tried (`--size smoke`), whose numbers are"
        " not evidence."
    )
    return "\n".join([*claim(name), command, "", tried]) + "\n\n"


def write(source: str, minutes: str) -> Path:
    """Write the page of a finished study, or of one without a result, and the list of all."""
    folder = Path(source)
    name = (
        source
        if source in protocol.names()
        else json.loads((folder / "findings.json").read_text(encoding="utf-8"))["study"]
    )
    target = PAGES / f"{name}.md"
    hand = target.read_text(encoding="utf-8").split(HAND)[1:] if target.exists() else ["\n"]
    target.write_text(
        (blank(name) if name == source else page(folder, minutes)) + HAND + hand[0],
        encoding="utf-8",
    )
    (PAGES / "index.md").write_text(index(), encoding="utf-8")
    return target


if __name__ == "__main__":
    print(write(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
