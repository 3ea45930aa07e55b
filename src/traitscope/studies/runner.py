"""The verb `study`: list the studies, plan one, run it, print what it says about its claim.

A finished study is itself a sealed run: findings.json, a CSV a table and one HTML page, made of the
sealed runs of its nodes alone.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from traitscope import atomic_files
from traitscope.config import parsing
from traitscope.config.commands import StudyConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError
from traitscope.models import hardware
from traitscope.models.bundled import EMBEDDED
from traitscope.models.hardware import compute_dtype
from traitscope.models.loading import outline, parameter_count
from traitscope.reporting import figures
from traitscope.reporting.tables import bounds, estimate, number, template
from traitscope.reporting.verdict import Findings, Sheet
from traitscope.runs import stage, store
from traitscope.stats.measurement import Measurement
from traitscope.studies import protocol
from traitscope.workflow import executors, graph, schedule, standard_nodes, status
from traitscope.workflow.executors import How
from traitscope.workflow.graph import Folders, Node, Planned

LONG = 24
"rows of a table that is folded on the page"


def run_study(config: StudyConfig, out: Output) -> dict:
    """What the action asks for; `plan` and `report` compute nothing."""
    if config.action == "list":
        return _listed()
    if not config.name:
        raise ConfigError(
            f"which study? expected one of {', '.join(protocol.names())}: traitscope study"
            f" {config.action} NAME"
        )
    study = protocol.load(config.name)
    config = replace(stage.settled(config), name=config.name.replace("-", "_"))
    if out.study == "default":
        out = replace(
            out,
            study=f"study-{config.name}" + ("" if config.size == "laptop" else f"-{config.size}"),
        )
    common = {"model": config.model, "device": config.device, "dtype": config.dtype}
    if config.blocks:
        return _foreseen(
            config,
            study.nodes(standard_nodes.at_depth(study.SIZES[config.size], config.blocks), common),
        )
    nodes = study.nodes(_size(config, study), common)
    if config.action != "run":
        return _planned(
            config, study, graph.plan(nodes, out, strict=config.action != "status"), out
        )
    folders = schedule.run(nodes, out, _how(config))
    if len(folders) < len(nodes):
        print(f"{len(folders)} of {len(nodes)} stages are sealed; the same command goes on")
        return {"status": "ok", "sealed": len(folders), "of": len(nodes)}
    return _concluded(config, study, folders, out)


def _foreseen(config: StudyConfig, nodes: Sequence[Node]) -> dict:
    """What a study would take with a model, and on a machine, that are not here."""
    hours = status.usual(nodes, config.parameters, config.rate) / 3600
    by_verb = Counter(node.verb for node in nodes)
    print(
        f"{len(nodes)} stages ({', '.join(f'{n} {verb}' for verb, n in by_verb.most_common())}):"
        f" {hours:.1f} hours of one such device"
    )
    return {"status": "ok", "stages": len(nodes), "hours": round(hours, 3)}


def _how(config: StudyConfig) -> How:
    """Where and how the stages of a settled config run."""
    here = config.executor == "local"
    workers = (
        config.workers or executors.default_workers(config.device) if here else config.max_jobs
    )
    return How(
        workers,
        config.executor,
        config.pack or (16 if config.device == "cuda" else 1),
        config.limit,
        cluster=config.cluster,
    )


def _size(config: StudyConfig, study: ModuleType) -> Any:
    """The size that was asked for; layers that were not set are moved to the same depth of a model
    with other blocks."""
    size = _moved(config, study.SIZES[config.size])
    return parsing.changed(size, config.set, f"size {config.size} of {config.name}")


def _moved(config: StudyConfig, size: Any) -> Any:
    if config.size == "smoke" or config.model == EMBEDDED:
        return size
    return standard_nodes.at_depth(size, outline(config.model).n_layers)


def _listed() -> dict:
    found = {name: protocol.load(name) for name in protocol.names()}
    for name, study in found.items():
        print(f"{name}\n  {study.CLAIM}\n  {study.SOURCE}")
    return {"status": "ok", "studies": {name: study.CLAIM for name, study in found.items()}}


def _planned(config: StudyConfig, study: ModuleType, found: list[Planned], out: Output) -> dict:
    """What is there and what is missing; with everything there, `report` prints the verdicts."""
    missing = [p for p in found if p.state != "sealed"]
    if config.action == "status":
        return status.status(found, out)
    if config.action == "gather":
        return status.gather(found, out)
    if config.action == "report":
        if missing:
            left = (
                f"{len(missing)} of {len(found)} stages are missing, the first is"
                f" {missing[0].node.name}"
            )
            raise ConfigError(
                f"{left}; run: traitscope study run {config.name} --size {config.size}"
            )
        return _concluded(config, study, {p.node.name: p.path for p in found}, out)
    for field, value in vars(_size(config, study)).items():
        print(f"{field} = {value}")
    for p in missing:
        print(
            f"{p.state:<8} {p.node.verb:<10} {p.node.name:<34}"
            f" {p.path or 'address follows from what it needs'}"
        )
    rate = hardware.matmul_rate(compute_dtype(config.dtype, config.device)) if missing else 1.0
    how, needed = _how(config), status.cost(found, parameter_count(config.model), rate)
    minutes = (
        needed.seconds
        / 60
        / max(1, how.workers if how.executor == "local" and needed.measured else 1)
    )
    basis = f"by {needed.measured} sealed ones" if needed.measured else "by this machine's speed"
    print(
        f"{len(found) - len(missing)} of {len(found)} stages are there; the rest takes about"
        f" {minutes:.0f} minutes here and {needed.memory / 2**30:.1f} GiB a worker, {basis}"
    )
    states = {
        p.node.name: {"state": p.state, "path": str(p.path) if p.path else None} for p in found
    }
    return {
        "status": "ok",
        "missing": len(missing),
        "minutes": round(minutes, 1),
        "memory": round(needed.memory),
        "nodes": states,
    }


def _concluded(config: StudyConfig, study: ModuleType, folders: Folders, out: Output) -> dict:
    inputs = {name: store.load_run(path) for name, path in folders.items()} | {
        "the study's file": Path(study.__file__)
    }
    plain = replace(
        config, action="run", workers=0, executor="local", max_jobs=0, cluster=(), limit=0, pack=0
    )  # what changes no number
    with stage.opened("study", plain, out, inputs=inputs) as run:
        if not run.sealed:
            found = study.conclude(_size(config, study), folders, config.model)
            _write(run, config, study, found, folders)
    summary = json.loads(run.file("findings.json").read_text(encoding="utf-8"))
    print("\n".join(summary["said"]))
    print(run.file("report.html"))
    return summary | {"run": str(run.path)}


def _write(
    run: store.Run, config: StudyConfig, study: ModuleType, found: Findings, folders: Folders
) -> None:
    for sheet in found.sheets:
        atomic_files.write_text(
            run.file(f"{sheet.name}.csv"), figures.csv_text(*_with_bounds(sheet))
        )
    atomic_files.write_text(
        run.file("measurements.csv"), figures.measurements_csv(_measurements(found))
    )
    smoke = (
        ["smoke: shows the path, its numbers are not evidence"] if config.size == "smoke" else []
    )
    atomic_files.write_json(
        run.file("findings.json"),
        {
            "status": "ok",
            "study": config.name,
            "size": config.size,
            "model": config.model,
            "verdicts": [v.as_dict() for v in found.verdicts],
            "measurements": [m.as_dict() for m in found.measurements],
            "notes": [*smoke, *found.notes],
            "said": [*smoke, *map(str, found.verdicts)],
        },
    )
    atomic_files.write_text(run.file("report.html"), page(config, study, found, folders))


def _with_bounds(sheet: Sheet) -> tuple[list[str], list[list]]:
    """Header and rows of a CSV; behind a column of measurements, which become their estimates,
    stand two with the ends of the intervals."""
    wide = [
        any(isinstance(row[n], Measurement) for row in sheet.rows) for n in range(len(sheet.header))
    ]
    header = [
        [name, f"{name}, low", f"{name}, high"] if more else [name]
        for name, more in zip(sheet.header, wide, strict=True)
    ]
    rows = [
        [_cells(cell, more) for cell, more in zip(row, wide, strict=True)] for row in sheet.rows
    ]
    return [name for names in header for name in names], [
        [cell for cells in row for cell in cells] for row in rows
    ]


def _cells(cell: object, more: bool) -> list:
    if isinstance(cell, Measurement):
        return [cell.estimate, cell.low, cell.high]
    return [cell, None, None] if more else [cell]


def shown(cell: object) -> str:
    """A cell as the page shows it."""
    if isinstance(cell, Measurement):
        return f"{estimate(cell)}\n{bounds(cell)}"
    return number(cell) if isinstance(cell, float) else str(cell)


def page(config: StudyConfig, study: ModuleType, found: Findings, folders: Folders) -> str:
    """One self-contained HTML page: claim, verdicts, tables, and where every number comes from."""
    from markupsafe import Markup

    by_unit: dict[str, list[Measurement]] = {}
    for m in _measurements(found):
        by_unit.setdefault(m.unit, []).append(m)
    charts = [
        figures.forest_chart(group, f"measurements-{i}") for i, group in enumerate(by_unit.values())
    ]
    sheets = [
        {
            "sheet": s,
            "rows": [[shown(cell) for cell in row] for row in s.rows],
            "svg": Markup(figures.lines_chart(s).svg) if s.curve else "",
        }
        for s in (*found.sheets, _runs(folders))
    ]
    values = {
        "study": study,
        "config": config,
        "found": found,
        "sheets": sheets,
        "said": _said,
        "long": LONG,
    }
    return (
        template("study.html.jinja").render(
            values, charts=[Markup(c.svg) for c in charts], caption=charts[0].caption
        )
        + "\n"
    )


def _measurements(found: Findings) -> list[Measurement]:
    """What decided, and the rest, each once."""
    decided = [v.decided_by for v in found.verdicts]
    return decided + [m for m in found.measurements if m not in decided]


def _said(m: Measurement) -> str:
    return f"{m.name}: {estimate(m)} {bounds(m)} {m.unit}, n = {m.n}, {m.interval}"


def _runs(folders: Folders) -> Sheet:
    rows = tuple(
        (name, path.name, store.load_run(path).digest[:16]) for name, path in folders.items()
    )
    return Sheet(
        "runs",
        "Runs",
        "traitscope show RUN verifies a run and prints what it was made from.",
        ("node", "run", "digest"),
        rows,
    )
