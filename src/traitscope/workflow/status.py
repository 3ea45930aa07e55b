"""What `study plan`, `status` and `gather` say of a study: where its stages stand, what they take,
what they found.

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
from traitscope.reporting.tables import csv_text
from traitscope.runs import store
from traitscope.workflow import schedule
from traitscope.workflow.graph import Node, Planned

STATES = ("sealed", "running", "interrupted", "failed", "missing", "waiting")
SHARE = 0.5
"of the matmul rate that is expected to be reached"
RESERVE = 1.5
"memory of a worker, in sizes of its model's weights, where nothing was measured yet"


def state_of(planned: Planned, notes: Mapping[str, dict]) -> str:
    """One of STATES."""
    if planned.state != "missing":
        return planned.state
    if planned.path and _held(store.lock_of(planned.path)):
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
    """How many stages are in which state, and why some failed; what is waiting behind them is
    named, too."""
    notes = schedule.failures(out)
    states = {p.node.name: state_of(p, notes) for p in planned}
    counts = Counter(states.values())
    print(
        ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        + f" of {len(planned)} stages"
    )
    failed = {name: notes[name] for name, state in states.items() if state == "failed"}
    for name, note in failed.items():
        behind = sum(name in p.node.needs for p in planned)
        print(
            f"failed   {name}, {note['when']}, try {note['tried']}: {note['error']}:"
            f" {note['message']}" + (f" ({behind} stages need it)" if behind else "")
        )
    for p in planned:
        if states[p.node.name] in ("running", "interrupted"):
            print(f"{states[p.node.name]:<12} {p.node.stage:<10} {p.node.name:<34} {p.path}")
    return {"status": "ok", "counts": dict(counts), "states": states, "failed": failed}


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
    """What the stages that are not sealed take: by stages of their kind that are, else as `usual`
    has it."""
    sealed = [(p.node, store.load_run(p.path).manifest()) for p in planned if p.state == "sealed"]
    by_stage = {
        node.stage: _per_weight([(n, m) for n, m in sealed if n.stage == node.stage])
        for node, _ in sealed
    }
    left = [p.node for p in planned if p.state != "sealed"]
    peak = max(
        (manifest["peak_memory_mib"] * 2**20 for _, manifest in sealed),
        default=RESERVE * 4 * parameters,
    )
    seconds = sum(
        (
            node.weight * by_stage[node.stage]
            if by_stage.get(node.stage)
            else usual([node], parameters, rate)
        )
        for node in left
    )
    return Cost(seconds, peak, len(sealed))


def _per_weight(made: Sequence[tuple[Node, dict]]) -> float:
    """Seconds for one unit of weight; a run that was packed with others had its share of their
    time."""
    return sum(m["seconds"] / m.get("packed", 1) for _, m in made) / max(
        1e-9, sum(node.weight for node, _ in made)
    )


def gather(planned: Sequence[Planned], out: Output) -> dict:
    """`gathered.csv` beside the runs: a row a sealed stage with every number that it left; nothing
    of what is unfinished."""
    rows = [
        {"node": p.node.name, "stage": p.node.stage, "run": p.path.name, **numbers(p.path)}
        for p in planned
        if p.state == "sealed"
    ]
    header = list(dict.fromkeys(key for row in rows for key in row))
    file = out.root / out.study / "gathered.csv"
    if rows:
        atomic_files.write_text(
            file, csv_text(header, [[row.get(key, "") for key in header] for row in rows])
        )
        print(f"{len(rows)} of {len(planned)} stages in {file}")
    else:
        print("nothing is sealed yet, so there is nothing to gather")
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
    found: dict[str, Any] = {
        "seconds": manifest["seconds"],
        "peak_memory_mib": manifest["peak_memory_mib"],
        "packed": manifest.get("packed", 1),
    }
    metrics = path / "metrics.jsonl"
    if metrics.is_file() and (lines := metrics.read_text(encoding="utf-8").splitlines()):
        found |= {
            key: value
            for key, value in json.loads(lines[-1]).items()
            if isinstance(value, int | float)
        }
    for name in ("measurements.json", "summary.json"):
        if (path / name).is_file():
            plain = json.loads((path / name).read_text(encoding="utf-8"))
            found |= {key: value for key, value in plain.items() if isinstance(value, int | float)}
            found |= {
                item["name"]: item["estimate"]
                for item in plain.get("measurements", ())
                if item["estimate"] is not None
            }
    return found
