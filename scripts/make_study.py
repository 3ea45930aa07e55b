"""Writes docs/claims/NAME.md from a finished study: python scripts/make_study.py
runs/study-NAME/study-ADDRESS [minutes].

With the name of a study that was not run yet: python scripts/make_study.py NAME. What stands under
"How to read it" was written by hand and is kept.
"""

import csv
import json
import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

from traitscope import studies
from traitscope.reporting.numbers import bounds, crossed_bounds, estimate
from traitscope.stats.measurement import Measurement
from traitscope.studies import protocol

HAND = "## How to read it\n"
PAGES = Path(__file__).parents[1] / "docs" / "claims"
RECORDED = Path(__file__).parents[1] / "src/traitscope/data/bundled/recorded.json"
PRIMARY = re.compile(r"^- \*([a-z ]+)\*, primary claim: ", re.MULTILINE)
"the outcome of a primary claim on a page"
VERDICT = re.compile(r"^- \*([a-z ]+)\*(, primary claim)?: (.*)$", re.MULTILINE)
"outcome, role and text of a verdict on a page"


def measurement(plain: dict) -> str:
    """A table row of a measurement."""
    m = Measurement(**{k: float("nan") if v is None else v for k, v in plain.items()})
    value = f"{estimate(m, True)} | {bounds(m, True)}"
    size = f"{m.n_clusters} {m.counted} | {m.n}"
    return f"| {m.name} | {value} | {crossed_bounds(m, True)} | {size} | {m.interval} |"


def page(folder: Path, minutes: str) -> str:
    """The page, without what was written by hand."""
    found = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    name = found["study"]
    cores = (
        "cores with bf16 units (AVX512)"
        if config["dtype"] == "bf16"
        else "AVX2 cores without bf16 units"
    )
    took = f"; {minutes} minutes on two {cores}" if minutes else ""
    changes = f" --set {found['changes']}" if found.get("changes") else ""
    command = (
        f"`traitscope study run {name}{changes}` ({found['size']} size;"
        f" `traitscope study plan {name}` tells how long it takes{took})"
    )
    where = f"**On {found['model']}, {config['dtype']}:**"
    lines = [*claim(name), f"**Command.** {command}.", "", *conclusion(found, where)]
    for path in sorted(folder.glob("*.csv")):
        if path.stem.startswith("measurements") or path.stem.endswith("-figure"):
            continue  # the numbers are in the table above, or in the table of the figure
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        if 1 < len(rows) <= 40:
            lines += ["", f"`{path.name}`", "", *table(rows)]
    return "\n".join(lines) + "\n\n"


def conclusion(found: dict, where: str) -> list[str]:
    """What a study concludes: bearing, power, verdicts, preconditions, measurements, notes."""
    verdicts = found["verdicts"]
    measured = [v["decided_by"] for v in verdicts]
    measured += [m for m in found["measurements"] if m not in measured]
    return [
        f"**{found['bearing'].replace(', because', '**, because')}",
        "",
        found["power"],
        "",
        where,
        "",
        *map(verdict, verdicts),
        "",
        *preconditions(verdicts),
        "| measurement | estimate | 95 % interval | for new questions, too | units | values |"
        " interval |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *map(measurement, measured),
        "",
        *(f"- {note}" for note in found["notes"]),
    ]


def verdict(plain: dict) -> str:
    """A line of a verdict: outcome, claim, why there is none, and the rule."""
    primary = ", primary claim" if plain["primary"] else ""
    reasons = "".join(f" {reason}" for reason in plain["reasons"])
    return f"- *{plain['outcome']}*{primary}: {plain['claim']}{reasons} {plain['rule']}"


def preconditions(verdicts: list[dict]) -> list[str]:
    """The table of everything that claims need, each once."""
    rows = {}
    for each in verdicts:
        for need in each["preconditions"]:
            met = "yes" if need["met"] else "no"
            rows[f"| {need['name']} | {met} | {need['found']} |"] = None
    if not rows:
        return []
    return ["| the claims need that | met | found |", "| --- | --- | --- |", *rows, ""]


INDEX_HEAD = """# Claims

One page for each claim. It holds what was published, the command, what came out here, and how to
read it. The outcomes hold for the small model and the laptop size that the page names.
No study has been run at full size, which needs a GPU.

[Controls and intervals](../concepts/controls-and-intervals.md) defines the outcomes. They speak of
the small experiment here. A column says whether that bears on the published claim, and why.

| column | meaning |
|---|---|
| primary claim here | verdict of the one primary claim, corrected for the study's other claims |
| estimate | what decided it: 95 % interval, not corrected, and independent units |
| power planned | probability of finding the effect that was expected before the run |
| other claims | their outcomes, counted |

The power of the demo is after the fact: its expected effect comes from runs of the same seeds.

[Does the audit keep its error rate?](audit_calibration.md) is a question of this project, not of a
paper. The error rate is to be measured by the audit that ships, on data sets made for this. The
page says how many of them are audited.

"""


NOT_COVERED = {
    "Blank et al.": (
        "steering rate as predictor, with students",
        "tiled vectors, and rank with alpha, in the causal tests",
        "causal tests on fine-tuned teachers (appendix E)",
        "code data",
        "Alpaca paraphrase",
        "sparsified and frozen coordinates, gradient mask, zeroed start",
        "one rotation for all blocks",
        "pairwise judging of outputs",
        "a direction of a sparse autoencoder",
        "OLMo-3 variants",
        "2 against 10 epochs",
    ),
    "Nief et al.": (
        "trees and bands",
        "template and entity cells as published",
        "LoRA on attention alone, on MLPs alone, or with the head",
        "activation patching",
        "Muon and SGD by rank",
        "temperature of the teacher",
    ),
    "König et al.": (
        "refusal itself",
        "several blocks",
        "negative strengths",
        "directional ablation",
    ),
    "Hadley and Gultepe": (
        "steering with the negated gradient",
        "mean activation difference",
        "scopes of noise",
        "the condition of Llama",
    ),
    "Cloud et al.": (
        "code",
        "chain of thought",
        "misalignment",
        "shuffled numbers in text",
        "classifier of data sets",
        "the pair of GPT-4.1 and GPT-4o",
    ),
    "others": (
        "loss on divergence tokens alone, and LoRA on one block",
        "greedy data",
        "entangled tokens",
        "corridor regularisation",
        "phantom transfer",
        "paraphrases",
        "agent distillation",
        "preference labels alone",
        "state of the optimizer",
    ),
}
"published experiments that no study tests, by paper"


def not_covered() -> str:
    """The section of the index on published experiments that no study tests."""
    lines = ["", "## Not covered", "", "No study tests these.", "", "| paper | not covered |"]
    lines.append("|---|---|")
    for paper, experiments in NOT_COVERED.items():
        lines.append(f"| {paper} | {'; '.join(experiments)} |")
    return "\n".join(lines) + "\n"


def index() -> str:
    """One table of all studies: claim, source, published, verdict, what it bears on, command."""
    header = ["claim", "published", *HERE, "bears on the published claim", "command"]
    rows = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for name in studies.names():
        study = protocol.load(name)
        text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        claim_cell = f"[{study.TITLE}]({name}.md) {study.CLAIM}"
        published = f"{study.SOURCE}: {study.PUBLISHED}"
        command = f"`traitscope study run {name}`"
        row = [claim_cell, published, *here(text), bears(text, with_reason=True), command]
        rows.append(f"| {' | '.join(row)} |")
    return INDEX_HEAD + "\n".join(rows) + "\n" + not_covered()


HERE = ("primary claim here", "estimate", "power planned", "other claims", "model")
"columns of what came out here"
NOT_RUN = ("not run", "–", "–", "–", "–")


def here(page: str) -> tuple[str, ...]:
    """The columns `HERE` of a page: its k-th verdict is decided by the k-th measurement."""
    verdicts = VERDICT.findall(page)
    if not verdicts:
        return NOT_RUN
    primary = [place for place, found in enumerate(verdicts) if found[1]][0]
    outcome, _, rest = verdicts[primary]
    table = page.split("| measurement | estimate |")[1].split("\n")[2:]
    _, value, bounds_there, _, units, *_ = (cell.strip() for cell in table[primary][1:].split("|"))
    unit = re.search(r"The unit is ([^,]+),", rest)[1]
    estimated = f"{value} {bounds_there} {unit}, {units}"
    if value == "undefined":
        estimated = "not measured"
    power = re.search(r"With (\d+ \w+) the power is ([\d.]+\d)", page)
    others = Counter(found[0] for found in verdicts if not found[1])
    counts = ", ".join(f"{count} {name}" for name, count in others.items())
    model = re.search(r"^\*\*On ([^:]+):", page, re.MULTILINE)[1]
    return outcome, estimated, f"{power[2]} with {power[1]}", counts or "none", model


def recorded() -> str:
    """JSON of the primary claim's outcome of every study, for `study list`."""
    by_study = {}
    for name in studies.names():
        text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
        found = PRIMARY.search(text)
        by_study[name] = {"outcome": found[1] if found else "", "bears": bears(text)}
    return json.dumps(by_study, indent=2) + "\n"


def bears(page: str, with_reason: bool = False) -> str:
    """What a page says after `Bears on the published claim`; empty where nothing was run."""
    _, found, after = page.partition("**Bears on the published claim: ")
    answer, _, reason = after.split("\n")[0].rstrip(".").partition("**")
    if not found:
        return ""
    return f"{answer}{reason}" if with_reason else answer


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
        if source in studies.names()
        else json.loads((folder / "findings.json").read_text(encoding="utf-8"))["study"]
    )
    target = PAGES / f"{name}.md"
    hand = target.read_text(encoding="utf-8").split(HAND)[1:] if target.exists() else ["\n"]
    target.write_text(
        (blank(name) if name == source else page(folder, minutes)) + HAND + hand[0],
        encoding="utf-8",
    )
    (PAGES / "index.md").write_text(index(), encoding="utf-8")
    RECORDED.write_text(recorded(), encoding="utf-8")
    return target


if __name__ == "__main__":
    print(write(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
