"""Report: one self-contained HTML file from the sealed runs that a study file names.

    difference = mean over (seed, question) of score(treated) - score(control)

Artefacts only are read. Kinds of training data (modes) are never pooled. A control for soft targets
may be left out: a student distilled from the unmodified model has no gradient, so the control is
the base itself, by construction.

The study file is JSON: schema, title, quick, model, trait, steered_layer, settings, minutes,
conditions, data; paths in it are relative to its folder.

Shapes: L layers.
"""

import base64
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from traitscope import atomic_files
from traitscope.config.commands import ReportConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError
from traitscope.reporting import old_figures as figures
from traitscope.reporting import old_tables as tables
from traitscope.reporting.study import (
    MODES_OF,
    SCHEMA,
    STUDENTS,
    Condition,
    Study,
    named,
    pairs,
    read_study,
)
from traitscope.runs import store
from traitscope.stages import registry
from traitscope.stats.estimates import measure, paired_difference
from traitscope.stats.intervals import mean_interval_t
from traitscope.stats.measurement import Measurement


def run_report(config: ReportConfig, out: Output) -> store.Run:
    """The sealed run with report.html, summary.json, figures/*.csv and tables/*.csv."""
    if config.study_file is None:
        raise ConfigError("no study file is given: name the study.json of a study")
    study = read_study(config.study_file)
    inputs = {
        f"{name}.{kind}": run for name, c in named(study).items() for kind, run in c.runs.items()
    }
    with registry.opened(config, out, inputs) as run:
        if not run.sealed:
            found = findings(study)
            summary = summarise(study, found)
            charts, shown = charts_of(study, found), tables_of(study, found)
            for name, text in [(f"figures/{c.name}.csv", c.csv) for c in charts] + [
                (f"tables/{t.name}.csv", t.csv) for part in shown.values() for t in part
            ]:
                atomic_files.write_text(run.file(name), text)
            atomic_files.write_json(run.file("summary.json"), summary)
            atomic_files.write_text(run.file("report.html"), page(study, summary, charts, shown))
    return run


def findings(study: Study) -> dict[str, Measurement]:
    """Every number of the report by name (see tables.py): scores, differences, EAS at the steered
    layer."""
    found: dict[str, Measurement] = {}
    for mode in ("none", *STUDENTS):
        for role in MODES_OF:
            found |= _means([c for c in study.of(mode, role) if c.scores], f"{mode}.{role}")
    for mode in study.modes:
        found |= _differences(pairs(study, mode), f"{mode}.difference")
        if study.plain["steered_layer"] is not None:
            found |= _eas_findings(study, mode, study.plain["steered_layer"])
    return found


def _scores_of(conditions: Sequence[Condition]) -> list[tuple[str, str]]:
    """(set, score) pairs that all rows of a set have."""
    rows = [row for c in conditions for row in c.scores.values()]
    of_set = {name: [row for row in rows if row["set"] == name] for name in tables.SETS}
    found = [(name, key, part) for name, part in of_set.items() if part for key in tables.UNITS]
    return [(name, key) for name, key, part in found if all(key in row for row in part)]


def _means(conditions: Sequence[Condition], name: str) -> dict[str, Measurement]:
    """Mean of every score over the seeds and questions of one condition."""
    found = {}
    for part, key in _scores_of(conditions):
        rows = [
            (c.seed, i, row[key])
            for c in conditions
            for i, row in c.scores.items()
            if row["set"] == part
        ]
        seeds, questions, values = zip(*rows, strict=True)
        what = f"{name}.{part}.{key}"
        found[what] = measure(
            what, values, None if set(seeds) == {None} else seeds, questions, tables.UNITS[key]
        )
    known = [
        (c.seed, c.about["perplexity"]) for c in conditions if c.about.get("perplexity") is not None
    ]
    return found | _per_seed(f"{name}.perplexity", dict(known), "perplexity")


def _differences(both: Sequence[tuple[Condition, Condition]], name: str) -> dict[str, Measurement]:
    """Treated minus control of every score, paired by seed and question."""
    found = {}
    for part, key in _scores_of([c for pair in both for c in pair]):
        if key == "unscored":
            continue
        rows = [(t, c, i) for t, c in both for i, row in t.scores.items() if row["set"] == part]
        rows = [(t.seed, i, t.scores[i][key], c.scores[i][key]) for t, c, i in rows]
        seeds, questions, treated, control = zip(*rows, strict=True)
        what = f"{name}.{part}.{key}"
        found[what] = paired_difference(what, treated, control, seeds, questions, tables.UNITS[key])
    sides = [(t.seed, t.about.get("perplexity"), c.about.get("perplexity")) for t, c in both]
    known = {seed: a - b for seed, a, b in sides if a is not None and b is not None}
    return found | _per_seed(f"{name}.perplexity", known, "perplexity")


def _per_seed(name: str, values: Mapping[Hashable, float], unit: str) -> dict[str, Measurement]:
    """The mean of one value a seed."""
    return {name: measure(name, list(values.values()), list(values), unit=unit)} if values else {}


def eas_by_seed(study: Study, mode: str, trait: str) -> tuple[dict, dict]:
    """EAS [L] with one trait's vector by seed, of treated and of control; zeros where the control
    did not move."""
    treated = {c.seed: c.eas[trait] for c in study.of(mode, "treated") if trait in c.eas}
    if study.reference(mode) == "base":
        return treated, {seed: [0.0] * len(row) for seed, row in treated.items()}
    control = {c.seed: c.eas[trait] for c in study.of(mode, "control") if trait in c.eas}
    return {s: v for s, v in treated.items() if s in control}, {
        s: v for s, v in control.items() if s in treated
    }


def _eas_findings(study: Study, mode: str, layer: int) -> dict[str, Measurement]:
    """EAS at one layer by trait, and of the study's own trait minus the mean of the others."""
    own = study.plain["trait"]
    names = list(dict.fromkeys([own, *(t for c in study.of(mode, "treated") for t in c.eas)]))
    at = {
        t: [{s: v[layer] for s, v in side.items()} for side in eas_by_seed(study, mode, t)]
        for t in names
    }
    others = [at[t] for t in names[1:] if at[t][0].keys() == at[own][0].keys()]
    if others:
        above = [
            {s: v - sum(o[i][s] for o in others) / len(others) for s, v in at[own][i].items()}
            for i in (0, 1)
        ]
        at[f"{own} minus others"] = above
    at_layer = {seed: row[layer] for seed, row in shared_change(study, mode).items()}
    found = _per_seed(f"{mode}.difference.eas.{own} of (treated − control)", at_layer, "cosine")
    for trait, (treated, control) in at.items():
        sides = {"treated": treated, "difference": {s: v - control[s] for s, v in treated.items()}}
        sides |= {"control": control} if study.reference(mode) == "control" else {}
        for side, values in sides.items():
            found |= _per_seed(f"{mode}.{side}.eas.{trait}", values, "cosine")
    return found


def shared_change(study: Study, mode: str) -> dict[Hashable, Sequence[float]]:
    """cos(v_treated - v_control, v_teacher) [L] by seed: what the two kinds of data changed
    differently.

    Training on any numbers moves both students alike, and in a short run that common shift is most
    of v_student; it cancels here before the cosine is taken, while in EAS(treated) - EAS(control)
    it stays in both norms.
    """
    if study.v_teacher is None or study.reference(mode) == "base":
        return {}
    control = {c.seed: c.v_student for c in study.of(mode, "control") if c.v_student}
    both = [
        (t.seed, t.v_student, control[t.seed])
        for t in study.of(mode, "treated")
        if t.v_student and t.seed in control
    ]
    return {seed: (t - c).cosine(study.v_teacher).tolist() for seed, t, c in both}


def summarise(study: Study, found: Mapping[str, Measurement]) -> dict[str, Any]:
    """What summary.json holds: a stable status, each mode's reading in words, all Measurements."""
    plain = study.plain
    modes = {m: tables.conclusion(found, m, study.reference(m), plain) for m in study.modes}
    status = "effect" if any(m["status"] == "effect" for m in modes.values()) else "no effect shown"
    about = {key: plain[key] for key in ("title", "quick", "model", "trait", "steered_layer")}
    about |= {
        "minutes": plain.get("minutes"),
        "modes": modes,
        "measurements": [m.as_dict() for m in found.values()],
    }
    return {"schema": SCHEMA, "status": tables.QUICK if plain["quick"] else status} | about


def charts_of(study: Study, found: Mapping[str, Measurement]) -> list[figures.Chart]:
    """The figures for which there is data."""
    own, layer = study.plain["trait"], study.plain["steered_layer"]
    both = {mode: eas_by_seed(study, mode, own) for mode in study.modes}
    both = {mode: sides for mode, sides in both.items() if sides[0]}
    against = {m: "control" if study.reference(m) == "control" else "zero" for m in both}
    eas = {
        m: {"treated": t} | ({"control": c} if against[m] == "control" else {})
        for m, (t, c) in both.items()
    }
    dots = {
        m: _dots(study, m, found) for m in study.modes if f"{m}.treated.{tables.PRIMARY}" in found
    }
    steps = _curves(
        study,
        lambda row: (
            (row["step"], row["eas"][layer]) if "eas" in row and layer is not None else None
        ),
    )
    losses = _curves(study, lambda row: (row["step"], row["loss"], row.get("held_out_loss")))
    charts = [figures.logprob_chart(dots, own)] if dots else []
    if eas:
        charts.append(figures.eas_chart(eas, layer, study.plain["settings"].get("d_model")))
        charts.append(
            figures.eas_difference_chart(
                {m: _by_layer(*sides) for m, sides in both.items()}, layer, against
            )
        )
    shared = {m: rows for m in study.modes if (rows := shared_change(study, m))}
    zeros = {
        m: {seed: [0.0] * len(row) for seed, row in rows.items()} for m, rows in shared.items()
    }
    if shared:
        charts.append(
            figures.shared_change_chart(
                {m: _by_layer(rows, zeros[m]) for m, rows in shared.items()}, layer
            )
        )
    charts += [figures.eas_steps_chart(steps, layer)] if steps else []
    return charts + ([figures.loss_chart(losses)] if losses else [])


def _dots(study: Study, mode: str, found: Mapping[str, Measurement]) -> dict[str, Measurement]:
    names = {role: [f"{m}.{role}.{tables.PRIMARY}" for m in (mode, "none")] for role in MODES_OF}
    return {
        role: found[n]
        for role, options in names.items()
        for n in [o for o in options if o in found][:1]
    }


def _by_layer(treated: Mapping, control: Mapping) -> list[figures.Interval]:
    differences = [[a - b for a, b in zip(treated[s], control[s], strict=True)] for s in treated]
    return [figures.Interval(*mean_interval_t(row)) for row in zip(*differences, strict=True)]


def _curves(study: Study, point: Callable[[dict], tuple | None]) -> dict[str, dict[str, dict]]:
    """mode -> role -> seed -> points over optimizer steps, of the students that have any."""
    found: dict[str, dict[str, dict]] = {}
    for c in (
        c for mode in study.modes for role in ("treated", "control") for c in study.of(mode, role)
    ):
        points = [p for row in c.steps if (p := point(row))]
        if points:
            found.setdefault(c.mode, {}).setdefault(c.role, {})[c.seed] = points
    return found


def tables_of(study: Study, found: Mapping[str, Measurement]) -> dict[str, list[tables.Table]]:
    """The tables by section of the page."""
    plain, layer = study.plain, study.plain["steered_layer"]
    refs = {mode: study.reference(mode) for mode in study.modes}
    runs = [
        [c.mode, c.role, "" if c.seed is None else str(c.seed), kind, run.path.name, run.digest]
        for c in study.conditions
        for kind, run in c.runs.items()
    ]
    measured = [
        m for m in refs if any(n.startswith(f"{m}.difference.") and ".eas." not in n for n in found)
    ]
    compared = [m for m in refs if any(n.startswith(f"{m}.difference.eas.") for n in found)]
    return {
        "differences": [tables.differences_table(found, m, refs[m]) for m in measured],
        "scores": [
            tables.scores_table(found, s) for s in tables.SETS if any(f".{s}." in n for n in found)
        ],
        "eas": [tables.eas_table(found, m, layer, refs[m]) for m in compared],
        "data": [tables.data_table(plain["data"])],
        "settings": [tables.settings_table(plain["settings"])],
        "runs": [tables.runs_table(runs)],
    }


def page(
    study: Study, summary: Mapping, charts: Sequence[figures.Chart], shown: Mapping[str, Sequence]
) -> str:
    """The HTML, with nothing loaded from elsewhere."""
    from markupsafe import Markup

    drawn = [c._asdict() | {"svg": Markup(c.svg), "uri": _data_uri(c.csv)} for c in charts]
    soft = [tables.MODES[m] for m in study.modes if study.reference(m) == "base"]
    one = any(len(m["seeds"]) < 2 for m in summary["modes"].values())
    values = {"s": summary, "modes": tables.MODES, "charts": drawn, "tables": shown}
    return tables.template("report.html.jinja").render(values, no_control=soft, one_seed=one) + "\n"


def _data_uri(text: str) -> str:
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
