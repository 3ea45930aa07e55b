"""What `study list` and `study plan` print: the studies, and the stages and time one takes."""

import ast
import dataclasses
import inspect
import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from traitscope.config.commands import ExperimentConfig, StudyConfig
from traitscope.data.package_files import bundled_file
from traitscope.models import hardware
from traitscope.models.bundled import EMBEDDED
from traitscope.models.hardware import compute_dtype
from traitscope.models.identity.finding import parameter_count
from traitscope.plurals import counted
from traitscope.reporting.tables import Table, shown
from traitscope.studies import names, protocol
from traitscope.workflow import status
from traitscope.workflow.executors import How
from traitscope.workflow.graph import Node, Planned

RECORDED = "recorded.json"
"""file of the package with what came out of each study where it was run, made of the pages of the
claims by `scripts/make_study.py`"""
GIBIBYTE = 2**30
EMBEDDED_PARAMETERS = 1.345e8
"weights of the embedded model"


@dataclass(frozen=True)
class Recorded:
    """The recorded outcome of a study at its laptop size, on the embedded model."""

    outcome: str
    """Outcome of the primary claim; empty where the study was not run."""
    bears: str
    """Whether it bears on the published claim: yes, partly, no; empty where it was not run."""

    def __str__(self) -> str:
        if not self.outcome:
            return "not run yet"
        return f"{self.outcome} (bears on the published claim: {self.bears})"


def recorded(study: str) -> Recorded:
    """Return what was recorded of a study; of one that is not in the file, that it was not run."""
    by_study = json.loads(bundled_file(RECORDED).read_text(encoding="utf-8"))
    return Recorded(**by_study.get(study, {"outcome": "", "bears": ""}))


def print_studies(config: StudyConfig) -> dict:
    """Print claim, source, minutes and recorded outcome of every study; return them by name."""
    rate = hardware.matmul_rate(compute_dtype(config.dtype, config.device))
    common = {"model": EMBEDDED, "device": config.device, "dtype": config.dtype}
    claims, minutes, outcomes = {}, {}, {}
    for name in names():
        study = protocol.load(name)
        nodes = study.nodes(study.SIZES["laptop"], common)
        claims[name] = study.CLAIM
        minutes[name] = round(status.usual(nodes, EMBEDDED_PARAMETERS, rate) / 60, 1)
        outcomes[name] = str(recorded(name))
        print(f"{name}\n  {study.CLAIM}\n  {study.SOURCE}")
        print(f"  laptop size: about {minutes[name]:.0f} minutes here; recorded: {outcomes[name]}")
    return {"status": "ok", "studies": claims, "minutes": minutes, "recorded": outcomes}


def print_information(table: Table | None, study: str) -> None:
    """Print what a size can test, from its table; without rows, why; None says how to know it."""
    if table is None:
        print(f"What this size can test: known after traitscope study information {study}")
        return
    print(f"{table.title}:")
    for row in table.rows:
        cells = []
        for name, cell in zip(table.header[1:], row[1:], strict=True):
            cells.append(f"{name} {shown(cell)}".replace("\n", " "))
        print(f"  {row[0]}: {', '.join(cells)}")
    print(f"  {table.caption}")


def print_forecast(nodes: Sequence[Node], parameters: float, rate: float) -> dict:
    """Print how long nodes take for a model with `parameters` weights at `rate` FLOP/s."""
    hours = status.usual(nodes, parameters, rate) / 3600
    counts: Counter[str] = Counter()
    for node in nodes:
        counts[node.stage] += 1
    listed = []
    for stage, count in counts.most_common():
        listed.append(f"{count} {stage}")
    stages = counted(len(nodes), "stage")
    print(f"{stages} ({', '.join(listed)}): {hours:.1f} hours of one such device")
    return {"status": "ok", "stages": len(nodes), "hours": round(hours, 3)}


def print_settings(size: Any) -> None:
    """Print the settings of a size, and what they mean."""
    meanings = field_texts(type(size))
    for name, value in vars(size).items():
        meaning = f"    # {meanings[name]}" if name in meanings else ""
        print(f"{name} = {value}{meaning}")


def print_plan(
    planned: Sequence[Planned], config: StudyConfig | ExperimentConfig, how: How
) -> dict:
    """Print missing stages and the time that these take; return the same as a summary."""
    missing = [item for item in planned if item.state != "sealed"]
    rate = 1.0
    if missing:
        rate = hardware.matmul_rate(compute_dtype(config.dtype, config.device))
    if config.all:
        _print_each(missing)
    else:
        _print_kinds(planned, parameter_count(config.model), rate)
    needed = status.cost(planned, parameter_count(config.model), rate)
    shares_time = how.executor == "local" and bool(needed.measured)
    side_by_side = max(1, how.workers) if shares_time else 1
    minutes = needed.seconds / 60 / side_by_side
    basis = (
        f"by {counted(needed.measured, 'sealed one')}"
        if needed.measured
        else "by this machine's speed"
    )
    print(
        f"{len(planned) - len(missing)} of {counted(len(planned), 'stage')} are there; the rest"
        " takes about"
        f" {minutes:.0f} minutes here and {needed.memory / GIBIBYTE:.1f} GiB a worker, {basis}"
    )
    return {
        "status": "ok",
        "missing": len(missing),
        "minutes": round(minutes, 1),
        "memory": round(needed.memory),
        "nodes": _states(planned),
    }


def _print_each(missing: Sequence[Planned]) -> None:
    """Print a line for each stage that is not there."""
    for item in missing:
        place = item.path or "address follows from what it needs"
        print(f"{item.state:<8} {item.node.stage:<10} {item.node.name:<34} {place}")


def _print_kinds(planned: Sequence[Planned], parameters: int, rate: float) -> None:
    """Print how many stages of each kind are there, and the minutes of one worker for the rest."""
    kinds: dict[str, list[Planned]] = {}
    for item in planned:
        kinds.setdefault(item.node.stage, []).append(item)
    if all(item.state == "sealed" for item in planned):
        return
    for stage, items in kinds.items():
        missing = sum(item.state != "sealed" for item in items)
        minutes = status.cost(items, parameters, rate).seconds / 60
        print(f"{stage:<12} {missing:4} of {len(items):4} missing, about {minutes:.1f} minutes")
    print("a line for each stage: --all")


def field_texts(size: type) -> dict[str, str]:
    """Return what stands under each field of a dataclass in its source, by the field's name."""
    texts = {}
    for kind in reversed(size.__mro__):
        if not dataclasses.is_dataclass(kind):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        for field, below in pairwise(definition.body):
            text = ast.get_docstring(ast.Module([below], []))
            if isinstance(field, ast.AnnAssign) and text:
                texts[field.target.id] = " ".join(text.split())
    return texts


def _states(planned: Sequence[Planned]) -> dict[str, dict]:
    """Return state and path of every node, by its name."""
    states = {}
    for item in planned:
        path = str(item.path) if item.path else None
        states[item.node.name] = {"state": item.state, "path": path}
    return states
