"""The state, cost and numbers of a study's stages, for `study plan`, `status` and `gather`.

All of it is read from the disk. A stage is sealed, running (somebody holds its lock), interrupted,
failed, missing, or waiting for what it needs.
"""

import fcntl
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.plurals import counted
from traitscope.reporting.tables import csv_text
from traitscope.runs import locks, store
from traitscope.workflow import failure_notes
from traitscope.workflow.graph import Node, Planned

STATES = ("sealed", "running", "interrupted", "failed", "missing", "waiting")
SHARE = 0.5
"""Part of the rate of matrix products that is expected to be reached."""
RESERVE = 1.5
"""Memory of a worker in sizes of its model's weights, where nothing was measured yet."""


def state_of(planned: Planned, notes: Mapping[str, dict]) -> str:
    """One of STATES."""
    if planned.state != "missing":
        return planned.state
    if planned.path and _held(locks.lock_of(planned.path)):
        return "running"
    if planned.node.name in notes:
        return "failed"
    return "interrupted" if planned.path and planned.path.exists() else "missing"


def _held(lock: Path) -> bool:
    """Whether a process holds this lock now."""
    try:
        with open(lock, "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # never locked, or gone since
        pass
    return False


def status(planned: Sequence[Planned], out: Output) -> dict:
    """Print how many stages are in which state, why some failed, and how many wait behind them."""
    notes = failure_notes.read(out.root / out.study)
    states = {}
    for item in planned:
        states[item.node.name] = state_of(item, notes)
    counts = Counter(states.values())
    parts = []
    for state in STATES:
        if counts[state]:
            parts.append(f"{counts[state]} {state}")
    print(", ".join(parts) + f" of {counted(len(planned), 'stage')}")
    failed = {}
    for name, state in states.items():
        if state == "failed":
            failed[name] = notes[name]
            _print_failure(name, notes[name], planned)
    for item in planned:
        node, state = item.node, states[item.node.name]
        if state in ("running", "interrupted"):
            print(f"{state:<12} {node.stage:<10} {node.name:<34} {item.path}")
    return {"status": "ok", "counts": dict(counts), "states": states, "failed": failed}


def _print_failure(name: str, note: Mapping[str, Any], planned: Sequence[Planned]) -> None:
    behind = sum(name in item.node.needs for item in planned)
    needed = f" ({counted(behind, 'stage needs', 'stages need')} it)" if behind else ""
    print(
        f"failed   {name}, {note['when']}, try {note['tried']}: {note['error']}:"
        f" {note['message']}{needed}"
    )


@dataclass(frozen=True)
class Cost:
    """What stages take."""

    seconds: float
    """Of one worker."""
    memory: float
    """Bytes of one worker at its largest."""
    measured: int
    """Sealed stages that the figures come from; 0 where the machine's own speed and the model's
    size stand in."""


def usual(nodes: Sequence[Node], parameters: float, rate: float) -> float:
    """Seconds that stages take where nothing was measured: 2 FLOP a parameter and token, at SHARE
    of a matmul `rate` in FLOP/s."""
    return 2 * parameters * sum(node.weight for node in nodes) / (SHARE * rate)


def cost(planned: Sequence[Planned], parameters: int, rate: float) -> Cost:
    """What the stages that are not sealed take.

    Their seconds are those of sealed stages of the same kind by weight; without any, `usual` has
    them. `rate` is that of matrix products in FLOP/s.
    """
    sealed: dict[str, list[tuple[Node, dict]]] = {}
    peaks = []
    left = []
    for item in planned:
        if item.state == "sealed":
            manifest = store.load_run(item.path).manifest()
            sealed.setdefault(item.node.stage, []).append((item.node, manifest))
            peaks.append(manifest["peak_memory_mib"] * 2**20)
        else:
            left.append(item.node)
    seconds_per_weight = {}
    for stage, made in sealed.items():
        seconds_per_weight[stage] = _per_weight(made)
    seconds = 0.0
    for node in left:
        measured = seconds_per_weight.get(node.stage)
        seconds += node.weight * measured if measured else usual([node], parameters, rate)
    return Cost(seconds, max(peaks, default=RESERVE * 4 * parameters), len(peaks))


def _per_weight(made: Sequence[tuple[Node, dict]]) -> float:
    """Seconds for one unit of weight; a packed run counts with its part of the pack's time."""
    seconds = sum(manifest["seconds"] / manifest.get("packed", 1) for _, manifest in made)
    weight = sum(node.weight for node, _ in made)
    return seconds / max(1e-9, weight)


def gather(planned: Sequence[Planned], out: Output) -> dict:
    """Write two tables beside the runs of what every sealed stage left.

    `gathered.csv` has a row for each stage. `gathered-inside.csv` has a row for each number inside
    of a summary, such as those by vector and block.
    """
    rows = []
    header: dict[str, None] = {}
    inside = []
    for item in planned:
        if item.state == "sealed":
            about = {"node": item.node.name, "stage": item.node.stage, "run": item.path.name}
            rows.append({**about, **numbers(item.path)})
            header.update(dict.fromkeys(rows[-1]))
            for place, number in numbers_inside(item.path).items():
                inside.append([*about.values(), place, number])
    file = out.root / out.study / "gathered.csv"
    if rows:
        cells = []
        for row in rows:
            cells.append([row.get(key, "") for key in header])
        atomic_files.write_text(file, csv_text(list(header), cells))
        print(f"{len(rows)} of {counted(len(planned), 'stage')} in {file}")
    else:
        print("nothing is sealed yet, so there is nothing to gather")
    if inside:
        other = file.with_name("gathered-inside.csv")
        columns = ["node", "stage", "run", "number", "value"]
        atomic_files.write_text(other, csv_text(columns, inside))
        print(f"numbers by vector, block and the like: {other}")
    return {
        "status": "ok",
        "rows": len(rows),
        "of": len(planned),
        "file": str(file) if rows else None,
    }


def numbers(path: Path) -> dict[str, Any]:
    """The plain numbers of a run: seconds and memory, the last line of its metrics, its
    measurements, its summary."""
    manifest = store.load_run(path).manifest()
    plain: dict[str, Any] = {
        "seconds": manifest["seconds"],
        "peak_memory_mib": manifest["peak_memory_mib"],
        "packed": manifest.get("packed", 1),
    }
    metrics = path / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    if lines:
        plain.update(_only_numbers(json.loads(lines[-1])))
    for name in ("measurements.json", "summary.json"):
        if (path / name).is_file():
            content = json.loads((path / name).read_text(encoding="utf-8"))
            plain.update(_only_numbers(content))
            for item in content.get("measurements", ()):
                if item["estimate"] is not None:
                    plain[item["name"]] = item["estimate"]
    return plain


def _only_numbers(content: Mapping[str, Any]) -> dict[str, int | float]:
    return {key: value for key, value in content.items() if isinstance(value, int | float)}


def numbers_inside(path: Path) -> dict[str, int | float]:
    """The numbers inside of a run's summary, by place, such as `vectors.owl.alignment.14`."""
    file = path / "summary.json"
    by_place: dict[str, int | float] = {}
    if file.is_file():
        for key, content in json.loads(file.read_text(encoding="utf-8")).items():
            if isinstance(content, dict | list):
                by_place.update(_numbers_in(content, key))
    return by_place


def _numbers_in(content: Any, place: str) -> dict[str, int | float]:
    if isinstance(content, int | float) and not isinstance(content, bool):
        return {place: content}
    by_place: dict[str, int | float] = {}
    items = content.items() if isinstance(content, dict) else ()
    for key, inside in enumerate(content) if isinstance(content, list) else items:
        by_place.update(_numbers_in(inside, f"{place}.{key}"))
    return by_place
