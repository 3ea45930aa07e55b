"""Report: one self-contained HTML file from the sealed runs that a study file names.

    difference = mean over (seed, question) of score(treated) - score(control)

Artefacts only are read.  Kinds of training data (modes) are never pooled.  A control for soft targets may be left out: a
student distilled from the unmodified model has no gradient, so the control is the base itself, by construction.

The study file is JSON: schema, title, quick, model, trait, steered_layer, settings, minutes, conditions, data; paths in
it are relative to its folder.

Shapes: L layers.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from traitscope import figures, stage, store, tables
from traitscope.configs import Output, ReportConfig
from traitscope.errors import ConfigError, DataError, StoreError
from traitscope.stats import Measurement, mean_interval_t, measure, paired_difference

SCHEMA = 1
STUDENTS = ("sampled", "soft")
ROLES = ("base", "teacher", "treated", "control")
STAGES = {"measure": "measure", "train": "train", "eas": "extract"}
NEEDED = ("title", "quick", "model", "trait", "steered_layer", "settings", "conditions", "data")


@dataclass(frozen=True)
class Condition:
    """A model of the study and what was found out about it."""

    mode: str
    """none, sampled or soft."""
    role: str
    """base, teacher, treated or control."""
    seed: Hashable
    """Seed of the training run; pairs treated and control."""
    runs: Mapping[str, store.Run] = field(default_factory=dict)
    """Sealed runs by kind: measure, train, eas, eas.<other trait>."""
    scores: Mapping[str, dict] = field(default_factory=dict)
    """Rows of scores.jsonl by question id; empty where nothing was measured."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """measurements.json."""
    steps: Sequence[dict] = ()
    """Rows of metrics.jsonl."""
    eas: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """EAS [L] by trait: with the study's own vector, and with those of other traits."""


@dataclass(frozen=True)
class Study:
    """A study file and everything it names."""

    plain: Mapping[str, Any]
    """The file's content."""
    conditions: Sequence[Condition]
    """In the order of the file."""

    def of(self, mode: str, role: str) -> list[Condition]:
        """Conditions of one kind."""
        return [c for c in self.conditions if (c.mode, c.role) == (mode, role)]

    @property
    def modes(self) -> list[str]:
        """Modes that have a treated student."""
        return [mode for mode in STUDENTS if self.of(mode, "treated")]

    def reference(self, mode: str) -> str:
        """What treated students are compared with: control, or base where soft targets have no control."""
        return "control" if self.of(mode, "control") else "base"


def run_report(config: ReportConfig, out: Output) -> store.Run:
    """The sealed run with report.html, summary.json, figures/*.csv and tables/*.csv."""
    if config.study is None:
        raise ConfigError("--study is missing: name the study.json of a study")
    study = read_study(config.study)
    inputs = {f"{name}.{kind}": run for name, c in _named(study).items() for kind, run in c.runs.items()}
    with stage.opened("report", config, out, inputs=inputs) as run:
        if not run.sealed:
            found = findings(study)
            summary = summarise(study, found)
            charts, shown = charts_of(study, found), tables_of(study, found)
            for name, text in [(f"figures/{c.name}.csv", c.csv) for c in charts] + [
                (f"tables/{t.name}.csv", t.csv) for part in shown.values() for t in part
            ]:
                store.write_text(run.file(name), text)
            store.write_json(run.file("summary.json"), summary)
            store.write_text(run.file("report.html"), page(study, summary, charts, shown))
    return run


def read_study(path: Path) -> Study:
    """A study with all rows it names.

    Raises DataError for a broken file, unpaired students or runs of another kind, StoreError for a newer schema, or a
    run that is missing, unfinished or changed.
    """
    plain = _plain(path)
    study = Study(plain, [_condition(path.parent, item, i, plain["trait"]) for i, item in enumerate(plain["conditions"])])
    _check(study)
    return study


def _plain(path: Path) -> dict:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"study file {path} cannot be read ({error}); expected JSON; name the study.json") from error
    if not isinstance(plain, dict) or not isinstance(plain.get("schema"), int):
        raise DataError(f"{path} is no study file; expected a JSON object with schema: {SCHEMA}; name the study.json")
    if plain["schema"] > SCHEMA:
        raise StoreError(f"{path} has schema {plain['schema']}; this version reads {SCHEMA}: upgrade traitscope")
    if lacks := ", ".join(key for key in NEEDED if key not in plain):
        raise DataError(f"study file {path} lacks {lacks}; expected {', '.join(NEEDED)}; write it again")
    return plain


def _condition(folder: Path, item: dict, index: int, trait: str) -> Condition:
    where = f"condition {index + 1} of the study"
    mode, role = item.get("mode"), item.get("role")
    if role not in ROLES or mode not in (STUDENTS if role in ("treated", "control") else ("none", *STUDENTS)):
        expected = f"a role of {', '.join(ROLES)}, and mode sampled or soft for students"
        raise DataError(f"{where} has role {role!r} and mode {mode!r}; expected {expected}; correct the study file")
    paths = {kind: item.get(kind) for kind in STAGES}
    paths |= {f"eas.{name}": other for name, other in (item.get("other_eas") or {}).items()}
    runs = {kind: _run(folder / path, kind) for kind, path in paths.items() if path}
    rows = _rows(runs["measure"], "scores.jsonl") if "measure" in runs else []
    about = json.loads(_sealed(runs["measure"], "measurements.json")) if rows else {}
    steps = _rows(runs["train"], "metrics.jsonl") if "train" in runs else []
    eas = {kind.removeprefix("eas.") if "." in kind else trait: _eas(run) for kind, run in runs.items() if kind[:3] == "eas"}
    return Condition(mode, role, item.get("seed"), runs, {r["id"]: _scored(r) for r in rows}, about, steps, eas)


def _run(path: Path, kind: str) -> store.Run:
    run, expected = store.load_run(path), STAGES[kind.split(".")[0]]
    if run.stage != expected:
        raise DataError(f"{path} is a run of {run.stage}; expected one of {expected}; correct the study file")
    return run


def _sealed(run: store.Run, name: str) -> bytes:
    """A file of a run, as it was sealed."""
    sealed = run.manifest()["outputs"].get(name)
    if sealed is None or not run.file(name).is_file():
        raise StoreError(f"{run.path} has no {name}; expected it in a run of {run.stage}; make the run again")
    data = run.file(name).read_bytes()
    if hashlib.sha256(data).hexdigest() != sealed:
        raise StoreError(f"{run.file(name)} changed after it was sealed; {store.RESTORE}")
    return data


def _rows(run: store.Run, name: str) -> list[dict]:
    return [json.loads(line) for line in _sealed(run, name).splitlines()]


def _scored(row: dict) -> dict:
    """A row of scores.jsonl with the share of answers that could not be scored."""
    share = {"unscored": row["unscored"] / len(row["answers"])} if row.get("answers") else {}
    return {k: v for k, v in row.items() if k != "unscored"} | share


def _eas(run: store.Run) -> list[float]:
    found = json.loads(_sealed(run, "eas.json"))
    if len(found) != 1:
        raise DataError(f"{run.path} compares {len(found)} vectors; expected one student's; give that run")
    return next(iter(found.values()))


def _named(study: Study) -> dict[str, Condition]:
    """Conditions by a name for inputs.  Raises DataError where two have the same."""
    found: dict[str, Condition] = {}
    for c in study.conditions:
        name = ".".join([c.mode, c.role, *([] if c.seed is None else [f"seed{c.seed}"])])
        if name in found:
            raise DataError(f"the study has {name} twice; expected one condition a mode, role and seed; remove one")
        found[name] = c
    return found


def _check(study: Study) -> None:
    _named(study)
    if not study.modes:
        raise DataError("the study has no treated student; expected one or more; train and measure one first")
    for mode in study.modes:
        if study.reference(mode) == "base" and (mode == "sampled" or not _bases(study)):
            needed = "a control student" if mode == "sampled" else "a control student or the base"
            raise DataError(f"mode {mode} has a treated student but no control; expected {needed}; add it to the study")
        if study.reference(mode) == "control":
            _check_paired(study, mode)
    asked = {(c.about["trait"], c.about["context_digest"]) for c in study.conditions if c.about and c.role != "teacher"}
    if len(asked) > 1:
        raise DataError(f"runs of measure with {len(asked)} traits or contexts ({sorted(asked)}); expected one; do not mix")
    lengths = {len(v) for c in study.conditions for v in c.eas.values()}
    if len(lengths) > 1 or study.plain["steered_layer"] not in (None, *range(min(lengths, default=10**6))):
        raise DataError(f"EAS has {sorted(lengths)} layers, steered layer {study.plain['steered_layer']}; expected one model")


def _check_paired(study: Study, mode: str) -> None:
    sides = [study.of(mode, role) for role in ("treated", "control")]
    scored, compared = [{c.seed for c in side if c.scores} for side in sides], [{c.seed for c in side if c.eas} for side in sides]
    for what, (treated, control) in {"scores": scored, "EAS": compared}.items():
        if treated != control:
            found = f"mode {mode} has {what} of treated seeds {sorted(map(str, treated))}, control {sorted(map(str, control))}"
            raise DataError(f"{found}; expected the same seeds; measure both sides")
    for t, c in pairs(study, mode):
        if t.scores.keys() != c.scores.keys():
            raise DataError(f"mode {mode}, seed {t.seed}: treated and control have other questions; measure both alike")


def _bases(study: Study) -> list[Condition]:
    return [c for c in study.of("none", "base") if c.scores]


def pairs(study: Study, mode: str) -> list[tuple[Condition, Condition]]:
    """(treated, control) of every seed that was measured; the base stands in for the control where there is none."""
    others = {c.seed: c for c in study.of(mode, "control")}
    if study.reference(mode) == "base":
        others = {c.seed: c for c in reversed(_bases(study))}
        others = {t.seed: others.get(t.seed, _bases(study)[0]) for t in study.of(mode, "treated")}
    return [(t, others[t.seed]) for t in study.of(mode, "treated") if t.scores]


def findings(study: Study) -> dict[str, Measurement]:
    """Every number of the report by name (see tables.py): scores of conditions, differences, EAS at the steered layer."""
    found: dict[str, Measurement] = {}
    for mode in ("none", *STUDENTS):
        for role in ROLES:
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
    return [(name, key) for name, part in of_set.items() for key in tables.UNITS if part and all(key in r for r in part)]


def _means(conditions: Sequence[Condition], name: str) -> dict[str, Measurement]:
    """Mean of every score over the seeds and questions of one condition."""
    found = {}
    for part, key in _scores_of(conditions):
        rows = [(c.seed, i, row[key]) for c in conditions for i, row in c.scores.items() if row["set"] == part]
        seeds, questions, values = zip(*rows, strict=True)
        what = f"{name}.{part}.{key}"
        found[what] = measure(what, values, None if set(seeds) == {None} else seeds, questions, tables.UNITS[key])
    known = [(c.seed, c.about["perplexity"]) for c in conditions if c.about["perplexity"] is not None]
    return found | _per_seed(f"{name}.perplexity", dict(known), "perplexity")


def _differences(both: Sequence[tuple[Condition, Condition]], name: str) -> dict[str, Measurement]:
    """Treated minus control of every score, paired by seed and question."""
    found = {}
    for part, key in _scores_of([c for pair in both for c in pair]):
        if key == "unscored":
            continue
        cells = [(row[key], c.scores[i][key], t.seed, i) for t, c in both for i, row in t.scores.items() if row["set"] == part]
        what = f"{name}.{part}.{key}"
        found[what] = paired_difference(what, *zip(*cells, strict=True), unit=tables.UNITS[key])
    sides = [(t.seed, t.about["perplexity"], c.about["perplexity"]) for t, c in both]
    known = {seed: a - b for seed, a, b in sides if a is not None and b is not None}
    return found | _per_seed(f"{name}.perplexity", known, "perplexity")


def _per_seed(name: str, values: Mapping[Hashable, float], unit: str) -> dict[str, Measurement]:
    """The mean of one value a seed."""
    return {name: measure(name, list(values.values()), list(values), unit=unit)} if values else {}


def eas_by_seed(study: Study, mode: str, trait: str) -> tuple[dict, dict]:
    """EAS [L] with one trait's vector by seed, of treated and of control; zeros where the control did not move."""
    treated = {c.seed: c.eas[trait] for c in study.of(mode, "treated") if trait in c.eas}
    if study.reference(mode) == "base":
        return treated, {seed: [0.0] * len(row) for seed, row in treated.items()}
    control = {c.seed: c.eas[trait] for c in study.of(mode, "control") if trait in c.eas}
    return {s: v for s, v in treated.items() if s in control}, {s: v for s, v in control.items() if s in treated}


def _eas_findings(study: Study, mode: str, layer: int) -> dict[str, Measurement]:
    """EAS at one layer by trait, and of the study's own trait above the mean of the others."""
    own = study.plain["trait"]
    names = list(dict.fromkeys([own, *(t for c in study.of(mode, "treated") for t in c.eas)]))
    at = {t: [{s: v[layer] for s, v in side.items()} for side in eas_by_seed(study, mode, t)] for t in names}
    others = [at[t] for t in names[1:] if at[t][0].keys() == at[own][0].keys()]
    if others:
        above = [{s: v - sum(o[i][s] for o in others) / len(others) for s, v in at[own][i].items()} for i in (0, 1)]
        at[f"{own} minus mean of other traits"] = above
    found: dict[str, Measurement] = {}
    for trait, (treated, control) in at.items():
        sides = {"treated": treated, "difference": {s: v - control[s] for s, v in treated.items()}}
        sides |= {"control": control} if study.reference(mode) == "control" else {}
        for side, values in sides.items():
            found |= _per_seed(f"{mode}.{side}.eas.{trait}", values, "cosine")
    return found


def summarise(study: Study, found: Mapping[str, Measurement]) -> dict[str, Any]:
    """What summary.json holds: a stable status, each mode's reading in words, all Measurements."""
    plain = study.plain
    modes = {m: tables.conclusion(found, m, study.reference(m), plain) for m in study.modes}
    status = "effect" if any(m["status"] == "effect" for m in modes.values()) else "no effect shown"
    about = {key: plain[key] for key in ("title", "quick", "model", "trait", "steered_layer")}
    about |= {"minutes": plain.get("minutes"), "modes": modes, "measurements": [m.as_dict() for m in found.values()]}
    return {"schema": SCHEMA, "status": tables.QUICK if plain["quick"] else status} | about


def charts_of(study: Study, found: Mapping[str, Measurement]) -> list[figures.Chart]:
    """The figures for which there is data."""
    own, layer = study.plain["trait"], study.plain["steered_layer"]
    both = {mode: eas_by_seed(study, mode, own) for mode in study.modes}
    both = {mode: sides for mode, sides in both.items() if sides[0]}
    eas = {m: {"treated": t} | ({"control": c} if study.reference(m) == "control" else {}) for m, (t, c) in both.items()}
    against = {m: "control" if study.reference(m) == "control" else "zero" for m in both}
    dots = {m: _dots(study, m, found) for m in study.modes if f"{m}.treated.{tables.PRIMARY}" in found}
    steps = _curves(study, lambda row: (row["step"], row["eas"][layer]) if "eas" in row and layer is not None else None)
    losses = _curves(study, lambda row: (row["step"], row["loss"], row.get("held_out_loss")))
    charts = [figures.logprob_chart(dots, own)] if dots else []
    if eas:
        charts.append(figures.eas_chart(eas, layer, study.plain["settings"].get("d_model")))
        charts.append(figures.eas_difference_chart({m: _by_layer(*sides) for m, sides in both.items()}, layer, against))
    charts += [figures.eas_steps_chart(steps, layer)] if steps else []
    return charts + ([figures.loss_chart(losses)] if losses else [])


def _dots(study: Study, mode: str, found: Mapping[str, Measurement]) -> dict[str, Measurement]:
    names = {role: (f"{mode}.{role}", f"none.{role}") for role in ROLES}
    first = {role: next((n for n in options if f"{n}.{tables.PRIMARY}" in found), None) for role, options in names.items()}
    return {role: found[f"{name}.{tables.PRIMARY}"] for role, name in first.items() if name}


def _by_layer(treated: Mapping, control: Mapping) -> list[figures.Interval]:
    differences = [[a - b for a, b in zip(treated[s], control[s], strict=True)] for s in treated]
    return [figures.Interval(*mean_interval_t(row)) for row in zip(*differences, strict=True)]


def _curves(study: Study, point: Callable[[dict], tuple | None]) -> dict[str, dict[str, dict]]:
    """mode -> role -> seed -> points over optimizer steps, of the students that have any."""
    found: dict[str, dict[str, dict]] = {}
    for c in (c for mode in study.modes for role in ("treated", "control") for c in study.of(mode, role)):
        points = [p for row in c.steps if (p := point(row))]
        if points:
            found.setdefault(c.mode, {}).setdefault(c.role, {})[c.seed] = points
    return found


def tables_of(study: Study, found: Mapping[str, Measurement]) -> dict[str, list[tables.Table]]:
    """The tables by section of the page."""
    plain, layer = study.plain, study.plain["steered_layer"]
    refs = {mode: study.reference(mode) for mode in study.modes}
    runs = [[c.mode, c.role, "" if c.seed is None else str(c.seed), kind, run.path.name, run.digest]
            for c in study.conditions for kind, run in c.runs.items()]  # fmt: skip
    measured = [m for m in refs if any(n.startswith(f"{m}.difference.") and ".eas." not in n for n in found)]
    compared = [m for m in refs if any(n.startswith(f"{m}.difference.eas.") for n in found)]
    return {
        "differences": [tables.differences_table(found, m, refs[m]) for m in measured],
        "scores": [tables.scores_table(found, s) for s in tables.SETS if any(f".{s}." in n for n in found)],
        "eas": [tables.eas_table(found, m, layer, refs[m]) for m in compared],
        "data": [tables.data_table(plain["data"])],
        "settings": [tables.settings_table(plain["settings"])],
        "runs": [tables.runs_table(runs)],
    }


def page(study: Study, summary: Mapping, charts: Sequence[figures.Chart], shown: Mapping[str, Sequence]) -> str:
    """The HTML, with nothing loaded from elsewhere."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    text = (files("traitscope") / "data" / "report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    drawn = [c._asdict() | {"svg": Markup(c.svg), "uri": _data_uri(c.csv)} for c in charts]
    soft = [tables.MODES[m] for m in study.modes if study.reference(m) == "base"]
    one = any(len(m["seeds"]) < 2 for m in summary["modes"].values())
    values = {"s": summary, "modes": tables.MODES, "charts": drawn, "tables": shown, "no_control": soft, "one_seed": one}
    return environment.from_string(text).render(values, schema=SCHEMA, data=study.plain["data"]) + "\n"


def _data_uri(text: str) -> str:
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.encode()).decode()
