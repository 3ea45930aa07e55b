"""What runs of `measure`, `train` and the decision of an audit give a paper."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitscope.auditing import report
from traitscope.auditing.artifacts import read_artifacts
from traitscope.errors import DataError
from traitscope.interventions.vector import load_vector
from traitscope.papers.contents import Contents, measurements_table
from traitscope.papers.lineage import Made
from traitscope.reporting.figures import Figure, forest_figure, line_figure
from traitscope.reporting.study_page import forest_figures
from traitscope.reporting.tables import Table
from traitscope.runs import store
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies.pages.demo_page import LOSSES, MODES
from traitscope.studies.pages.training_figures import eas_layer_figure, loss_figure
from traitscope.training.eas import StudentEas

WITH_DATA = ("rows", "data")
"tables of an audit's page that show rows of the audited file, which a paper does not"
V_STUDENT = "v_student.safetensors"


def measured(run: Made) -> Contents:
    """Return the scores of one model."""
    content = run.numbers("measurements.json")
    numbers = tuple(Measurement.from_dict(item) for item in content["measurements"])
    table = measurements_table("scores", f"Scores on the questions of {content['trait']}", numbers)
    if content.get("perplexity") is not None:
        row = ("perplexity of plain text", float(content["perplexity"]), "a token", *[None] * 4)
        table = Table(table.name, table.title, table.caption, table.header, (*table.rows, row))
    return Contents(forest_figures(numbers), (table,), numbers)


def trained(runs: Sequence[Made]) -> Contents:
    """Return losses of students, and their EAS where all were compared with one vector.

    Raises DataError for students of several models, of several vectors, or of one kind twice.
    """
    _check_alike(runs)
    folders: dict[str, dict[str, dict[Any, Path]]] = {}
    for run in runs:
        mode = MODES[run.settings["recipe"]["targets"]]
        by_seed = folders.setdefault(mode, {}).setdefault(condition_of(run), {})
        seed = run.settings["seed"]
        by_seed[seed if seed not in by_seed else run.run.path.name] = run.run.path
    figures = [loss_figure(folders, {mode: LOSSES[mode] for mode in folders})]
    if "vector" not in runs[0].manifest["inputs"]:
        return Contents(tuple(figures), (_losses(runs),), ())
    width = load_vector(runs[0].run.file(V_STUDENT)).rows_LD.shape[1]
    figures.insert(0, eas_layer_figure(folders, None, width))
    table, numbers = _eas_table(runs)
    return Contents(tuple(figures), (table, _losses(runs)), numbers)


def condition_of(run: Made) -> str:
    """Return `control` for a student of the unmodified model, else `treated`."""
    if run.settings["recipe"]["targets"] == "soft":
        return "treated" if run.settings.get("teacher") else "control"
    folder = store.run_folder(run.inputs["data"])
    while folder is not None:
        rows = Made(store.load_run(folder))
        if rows.run.stage in ("generate", "select"):
            return "treated" if rows.settings["interventions"] else "control"
        folder = store.run_folder(rows.inputs["data"]) if "data" in rows.inputs else None
    return "student"


def _check_alike(runs: Sequence[Made]) -> None:
    without = [run.run.path.name for run in runs if "vector" not in run.manifest["inputs"]]
    if without and len(without) < len(runs):
        raise DataError(
            f"{', '.join(without)} trained without --vector, so there is no EAS, and the others"
            " with one; expected all or none; report them one by one"
        )
    for what, values in (
        ("models", {run.manifest["model"] for run in runs}),
        ("vectors", {run.manifest["inputs"].get("vector", {}).get("digest") for run in runs}),
    ):
        if len(values) > 1:
            names = ", ".join(run.run.path.name for run in runs)
            raise DataError(
                f"{names} are students of {len(values)} {what}; expected one, since EAS with"
                " another vector or of another model is another quantity; report them one by one"
            )


def _eas_table(runs: Sequence[Made]) -> tuple[Table, tuple[Measurement, ...]]:
    """Return EAS by layer: the mean over the students of each condition."""
    vector = runs[0].inputs["vector"].stem
    groups: dict[str, list[list[float]]] = {}
    for run in runs:
        mode = MODES[run.settings["recipe"]["targets"]]
        eas = StudentEas.from_json(run.numbers("eas.json"))
        groups.setdefault(f"{condition_of(run)}, {mode}", []).append(eas.own_L)
    rows, numbers = [], []
    layers = len(next(iter(groups.values()))[0])
    for layer in range(layers):
        cells: list[Any] = [layer]
        for name, values_SL in groups.items():
            at_layer = [values_L[layer] for values_L in values_SL]
            label = f"EAS with {vector}, {name}, layer {layer}"
            cells.append(mean_over_units(label, at_layer, "cosine"))
        rows.append(tuple(cells))
        numbers += cells[1:]
    caption = f"Cosine of v_student with the vector {vector}, mean over seeds with 95 % intervals."
    table = Table("eas", "EAS by layer", caption, ("layer", *groups), tuple(rows))
    return table, tuple(numbers)


def _losses(runs: Sequence[Made]) -> Table:
    """Return steps and losses of each student."""
    rows = []
    for run in runs:
        lines = run.run.file("metrics.jsonl").read_bytes().splitlines()
        steps = list(map(json.loads, lines))
        held_out = [step["held_out_loss"] for step in steps if "held_out_loss" in step]
        losses = [float(step["loss"]) for step in steps] or [None]
        ends = (losses[0], losses[-1], held_out[-1] if held_out else None)
        student = (run.run.path.name, condition_of(run), run.settings["seed"])
        rows.append((*student, len(steps), *ends))
    caption = "Training loss a completion token at the first and the last optimizer step, nats."
    header = ("student", "condition", "seed", "steps", "first loss", "last loss", "held-out loss")
    return Table("training", "Training", caption, header, tuple(rows))


def audited(run: Made) -> Contents:
    """Return the answer of an audit, without rows of the audited file."""
    result = run.numbers("result.json")
    parts = run.inputs["parts"]
    sample = parts.parent / read_artifacts(parts).sample
    about = json.loads((sample / "about.json").read_bytes())
    tables = []
    for table in report.tables(result, about, [], {}, {}):
        if table.name not in WITH_DATA:
            tables.append(table)
    return Contents(_audit_figures(result), (_answer(result), *tables), ())


def _answer(result: dict[str, Any]) -> Table:
    """Return the answer, with the settings that it depends on."""
    rows = (
        ("answer", result["status"]),
        ("trait", result["trait"]),
        ("rows", result["rows"]),
        ("error rate", float(result["alpha"])),
        ("power asked for", float(result["power"])),
        ("contamination rate asked for", float(result["dose"])),
    )
    reasons = " ".join(f"{reason}." for reason in result["reasons"])
    return Table("answer", "Answer of the audit", reasons, ("", "value"), rows)


def _audit_figures(result: dict[str, Any]) -> tuple[Figure, ...]:
    """Return what students learn by rows, and the e-values of the candidates."""
    findings = {finding["name"]: finding for finding in result["detectors"]}
    change, e_values = findings["predictions"], findings["e_values"]
    rows = tuple((n, float(log_e)) for n, log_e in change["curve"] if log_e is not None)
    caption = f"Rows hold something else from a log e-value of {change['critical']:.1f} on."
    columns = ("rows", "log e-value, nats")
    learnt = Table("learnt", "What students learn", caption, columns, rows, columns)
    figures = [line_figure(learnt)] if rows else []
    candidates = []
    for name, value in e_values["statistic"].items():
        if value is not None:
            basis = (result["rows"], result["rows"], 0, "log e-value, nats")
            nan = float("nan")
            candidates.append(Measurement(name, value, nan, nan, *basis, counted="rows"))
    if candidates:
        figures.append(forest_figure(candidates, "candidates", "Log e-value of each candidate"))
    return tuple(figures)
