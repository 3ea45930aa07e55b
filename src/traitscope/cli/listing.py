"""The list of runs below a root: a line for each, with what made it and its main number."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from traitscope.cli import printed
from traitscope.data.traits import TRAIT_FILES, trait_name
from traitscope.errors import TraitscopeError
from traitscope.runs import drawn_rows, store

HEADER = ("stage", "model", "teacher or student", "trait", "seed", "number", "made", "run")
WIDEST = 34
"""Characters of a cell; of a longer one the beginning is shown. The run is always whole."""
UNREADABLE = "cannot be read"
"""What stands in place of the number of a run whose files are damaged or of another version."""
COMPARED = "positive.target_logprob"
"""The difference that decides a comparison."""


def table(runs: Sequence[store.Run]) -> list[str]:
    """Return the lines of the list, with a header; every column is as wide as its widest cell."""
    rows = [HEADER, *map(row_of, runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return lines


def row_of(run: store.Run) -> tuple[str, ...]:
    """Return the cells of a run; those that it has not are empty."""
    if not run.sealed:
        return (run.stage, "", "", "", "", "unfinished", "", str(run.path))
    try:
        settings = drawn_rows.settings_of(run)
        made = run.manifest()["created"][:16].replace("T", " ")
        cells = (
            Path(settings.get("model", "")).name,
            ", ".join(_made_by(run, settings)),
            _trait(run, settings),
            str(_seed(run, settings)),
        )
        cells = (*map(_short, cells), main_number(run))
    except (TraitscopeError, OSError, ValueError, KeyError, TypeError, IndexError):
        made, cells = "", ("", "", "", "", UNREADABLE)
    return (run.stage, *cells, made, str(run.path))


def _short(cell: str) -> str:
    one_line = " ".join(cell.split())
    return one_line if len(one_line) <= WIDEST else f"{one_line[: WIDEST - 3]}..."


def _trait(run: store.Run, settings: dict[str, Any]) -> str:
    """Return the traits of a run by name; one whose file is gone by the name of the file."""
    named = settings.get("trait") or settings.get("traits") or ()
    names = []
    for number, trait in enumerate((named,) if isinstance(named, str) else named):
        file = run.manifest()["inputs"].get(f"trait{number}", {}).get("path", "")
        place = (run.path / file).resolve()
        is_file = str(trait).endswith(TRAIT_FILES)
        names.append(trait_name(place) if is_file and place.is_file() else Path(str(trait)).stem)
    return " ".join(names)


def _seed(run: store.Run, settings: dict[str, Any]) -> int | str:
    """Return the seed of a run; of what a student said, the seed of its training."""
    inputs = run.manifest()["inputs"]
    for item in settings.get("interventions") or ():
        if item["kind"] == "Adapter":
            folder = store.run_folder((run.path / _place(item, inputs)).resolve())
            if folder is not None:
                return drawn_rows.settings_of(store.load_run(folder))["seed"]
    return settings.get("seed", "")


def _place(item: dict[str, Any], inputs: dict[str, dict]) -> Path:
    """Return where the vector or adapter of an intervention lies, from the folder of its run."""
    value = item["vector" if "vector" in item else "folder"]
    return Path(inputs[value.partition(":")[2].partition("/")[0]]["path"])


def _made_by(run: store.Run, settings: dict[str, Any]) -> list[str]:
    """Return the interventions of a model in words; of a student of text those of its teacher."""
    interventions = settings.get("interventions") or settings.get("teacher") or []
    if run.stage == "train":
        run, interventions = printed.teacher_of(run)
    inputs = run.manifest()["inputs"]
    return [_in_words(item, inputs) for item in interventions if isinstance(item, dict)]


def _in_words(item: dict[str, Any], inputs: dict[str, dict]) -> str:
    """Return one intervention in a few words, such as `steer cat 0.6 at 14`."""
    kind = item["kind"]
    if kind == "SystemPrompt":
        return f"prompt “{item['text']}”"
    if kind == "WeightNoise":
        return f"noise {item['sd']:g}"
    path = _place(item, inputs)
    if kind == "Adapter":
        return path.name
    blocks = "+".join(map(str, item["layers"])) or "all"
    strength = f" {item['alpha']:g}" if "alpha" in item else ""
    return f"{kind.lower()} {path.stem}{strength} at {blocks}"


def main_number(run: store.Run) -> str:
    """Return the number that a run was made for, with its interval where it has one."""
    numbers = printed.numbers_of(run)
    if run.stage in OF_STAGE:
        return OF_STAGE[run.stage](run, numbers)
    measurements = numbers.get("measurements", numbers.get("summary", {})).get("measurements", [])
    if not measurements:
        return ""
    name = measurements[0]["name"].rpartition(".")[2]
    return f"{name} {printed.value(measurements[0], 2)}"


def _generated(run: store.Run, _: dict[str, Any]) -> str:
    return f"{len(run.file('records.jsonl').read_bytes().splitlines())} rows"


def _trained(run: store.Run, _: dict[str, Any]) -> str:
    return printed.last_loss(run)


def _kept(_: store.Run, numbers: dict[str, Any]) -> str:
    return f"kept {numbers['summary']['kept']} of {numbers['summary']['rows']}"


def _matched(_: store.Run, numbers: dict[str, Any]) -> str:
    return f"strength {numbers['strength']['alpha']:.4g}"


def _explained(_: store.Run, numbers: dict[str, Any]) -> str:
    share = next(iter(numbers["summary"]["kinds"].values()))["share"]
    return f"share {printed.value(share, 2)}"


def _aligned(_: store.Run, numbers: dict[str, Any]) -> str:
    return f"{numbers['summary']['rows']} rows, {len(numbers['summary']['vectors'])} vectors"


def _scanned(_: store.Run, numbers: dict[str, Any]) -> str:
    best = numbers["summary"]["best"]
    return "no cell" if best is None else f"block {best['layer']}, {best['alpha']:g}"


def _compared(_: store.Run, numbers: dict[str, Any]) -> str:
    summary = numbers["summary"]
    for item in summary["differences"]:
        if item["score"] == COMPARED:
            return f"{summary['answer']}: {printed.value(item['difference'], 2)}"
    return summary["answer"]


def _concluded(run: store.Run, _: dict[str, Any]) -> str:
    """Return the outcome of the primary claim of a study or an experiment."""
    findings = json.loads(run.file(printed.FINDINGS).read_text(encoding="utf-8"))
    for verdict in findings["verdicts"]:
        if verdict["primary"]:
            return f"{verdict['outcome']}: {printed.value(verdict['decided_by'], 2)}"
    return ""


OF_STAGE: dict[str, Callable[[store.Run, dict[str, Any]], str]] = {
    "generate": _generated,
    "train": _trained,
    "filter": _kept,
    "match_kl": _matched,
    "explain": _explained,
    "gradients": _aligned,
    "steer_scan": _scanned,
    "compare": _compared,
    "study": _concluded,
    "experiment": _concluded,
}
"""The main number of a run of each stage that has no measurements of its own."""
