"""A study file and the runs that it names: read, checked, paired.

The file is JSON that a driver writes: title, model, trait, settings, and one condition per model
with the run directories of its measurement, training and vectors, relative to the file.
"""

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from traitscope.errors import DataError, StoreError
from traitscope.interventions.vector import Vector, load_vector
from traitscope.runs import store

SCHEMA = 1
STUDENTS = ("sampled", "soft")
MODES_OF = {
    "base": ("none",),
    "teacher": ("none", *STUDENTS),
    "treated": STUDENTS,
    "control": STUDENTS,
}
STAGES = {"measure": ("measure",), "train": ("train",), "eas": ("extract", "train")}
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
    v_student: Vector | None = None
    """What training changed, where the run keeps it."""


@dataclass(frozen=True)
class Study:
    """A study file and everything it names."""

    plain: Mapping[str, Any]
    """The file's content."""
    conditions: Sequence[Condition]
    """In the order of the file."""
    v_teacher: Vector | None = None
    """The vector that EAS compares with, where the file names it."""

    def of(self, mode: str, role: str) -> list[Condition]:
        """Conditions of one kind."""
        return [c for c in self.conditions if (c.mode, c.role) == (mode, role)]

    @property
    def modes(self) -> list[str]:
        """Modes that have a treated student."""
        return [mode for mode in STUDENTS if self.of(mode, "treated")]

    def reference(self, mode: str) -> str:
        """What treated students are compared with: control, or base where soft targets have no
        control."""
        return "control" if self.of(mode, "control") else "base"


def read_study(path: Path) -> Study:
    """A study with all rows it names.

    Raises DataError for a broken file, unpaired students or runs of another kind, StoreError for a
    newer schema, or a run that is missing, unfinished or changed.
    """
    plain = _plain(path)
    items = enumerate(plain["conditions"], 1)
    conditions = [
        _condition(path.parent, item, f"condition {i}", plain["trait"]) for i, item in items
    ]
    study = Study(
        plain,
        conditions,
        load_vector(path.parent / plain["vector"]) if plain.get("vector") else None,
    )
    _check(study)
    return study


def _plain(path: Path) -> dict:
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"study file {path} cannot be read ({error}); expected JSON; name the study.json"
        ) from error
    if not isinstance(plain, dict) or not isinstance(plain.get("schema"), int):
        raise DataError(
            f"{path} is no study file; expected a JSON object with schema: {SCHEMA}; name the"
            " study.json"
        )
    if plain["schema"] > SCHEMA:
        raise StoreError(
            f"{path} has schema {plain['schema']}; this version reads {SCHEMA}: upgrade traitscope"
        )
    if lacks := ", ".join(key for key in NEEDED if key not in plain):
        raise DataError(
            f"study file {path} lacks {lacks}; expected {', '.join(NEEDED)}; write it again"
        )
    lists = [plain["conditions"], plain["data"]]
    if not all(
        isinstance(part, list) and all(isinstance(item, dict) for item in part) for part in lists
    ):
        raise DataError(
            f"conditions or data of {path} hold no objects; expected lists of objects; write it"
            " again"
        )
    if not isinstance(plain["settings"], dict) or any(
        {"name", "kept", "rows"} - item.keys() for item in plain["data"]
    ):
        raise DataError(
            f"settings or data of {path}: expected an object; name, kept and rows a data set;"
            " correct it"
        )
    return plain


def _condition(folder: Path, item: dict, where: str, trait: str) -> Condition:
    mode, role = item.get("mode"), item.get("role")
    if mode not in MODES_OF.get(role, ()):
        expected = "; ".join(f"{r} with {' or '.join(modes)}" for r, modes in MODES_OF.items())
        raise DataError(
            f"{where} has role {role!r} and mode {mode!r}; expected {expected}; correct the study"
            " file"
        )
    paths = {kind: item.get(kind) for kind in STAGES}
    paths |= {f"eas.{name}": other for name, other in (item.get("other_eas") or {}).items()}
    runs = {kind: _run(folder / path, kind) for kind, path in paths.items() if path}
    rows = _rows(runs["measure"], "scores.jsonl") if "measure" in runs else []
    about = json.loads(_sealed(runs["measure"], "measurements.json")) if rows else {}
    steps = _rows(runs["train"], "metrics.jsonl") if "train" in runs else []
    compared = {kind[4:] or trait: run for kind, run in runs.items() if kind.startswith("eas")}
    eas = {name: row for t, run in compared.items() for name, row in _eas(run, t).items()}
    scores = {r["id"]: _scored(r) for r in rows}
    return Condition(
        mode, role, item.get("seed"), runs, scores, about, steps, eas, _v_student(runs.get("eas"))
    )


def _run(path: Path, kind: str) -> store.Run:
    run, expected = store.load_run(path), STAGES[kind.split(".")[0]]
    if run.stage not in expected:
        raise DataError(
            f"{path} is a run of {run.stage}; expected one of {' or '.join(expected)}; correct the"
            " study file"
        )
    return run


def _sealed(run: store.Run, name: str) -> bytes:
    """A file of a run, as it was sealed."""
    sealed = run.manifest()["outputs"].get(name)
    if sealed is None or not run.file(name).is_file():
        raise StoreError(
            f"{run.path} has no {name}; expected it in a run of {run.stage}; make the run again"
        )
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


def _eas(run: store.Run, trait: str) -> dict[str, list[float]]:
    """EAS [L] of one student by trait: `trait` for the run's reference, others as a run of `train`
    names them."""
    found = json.loads(_sealed(run, "eas.json"))
    own = [name for name in found if not name.startswith("other/")]
    if len(own) != 1:
        raise DataError(
            f"{run.path} compares {len(own)} vectors; expected one student's; give that run"
        )
    return {trait: found[own[0]]} | {
        name.removeprefix("other/"): row for name, row in found.items() if name not in own
    }


def _v_student(run: store.Run | None) -> Vector | None:
    return (
        load_vector(run.file("v_student.safetensors"))
        if run and run.file("v_student.safetensors").exists()
        else None
    )


def named(study: Study) -> dict[str, Condition]:
    """Conditions by a name for inputs.  Raises DataError where two have the same."""
    found: dict[str, Condition] = {}
    for c in study.conditions:
        name = ".".join([c.mode, c.role, *([] if c.seed is None else [f"seed{c.seed}"])])
        if name in found:
            raise DataError(
                f"the study has {name} twice; expected one condition a mode, role and seed;"
                " remove one"
            )
        found[name] = c
    return found


def _check(study: Study) -> None:
    named(study)
    if not study.modes:
        raise DataError(
            "the study has no treated student; expected one or more; train and measure one first"
        )
    for mode in study.modes:
        if study.reference(mode) == "base" and (mode == "sampled" or not _bases(study)):
            needed = "a control student" if mode == "sampled" else "a control student or the base"
            raise DataError(
                f"mode {mode} has a treated student but no control; expected {needed}; add it to"
                " the study"
            )
        _check_paired(study, mode)
    asked = {
        (c.about["trait"], c.about["context_digest"])
        for c in study.conditions
        if c.about and c.role != "teacher"
    }
    if len(asked) > 1:
        raise DataError(
            f"measured with {len(asked)} traits or contexts, {sorted(asked)}; expected one; do"
            " not mix"
        )
    rows = [
        v
        for c in study.conditions
        for v in (*c.eas.values(), *(row["eas"] for row in c.steps if "eas" in row))
    ]
    lengths, layer = {len(row) for row in rows}, study.plain["steered_layer"]
    if len(lengths) > 1 or layer is not None and rows and layer not in range(len(rows[0])):
        raise DataError(
            f"EAS has {sorted(lengths)} layers, steered layer {layer}; expected one number above it"
        )


def _check_paired(study: Study, mode: str) -> None:
    sides = [study.of(mode, role) for role in ("treated", study.reference(mode))]
    scored = [{c.seed for c in side if c.scores} for side in sides]
    compared = [{c.seed for c in side if c.eas} for side in sides]
    for what, (treated, control) in {"scores": scored, "EAS": compared}.items():
        if treated != control and study.reference(mode) == "control":
            found = (
                f"{what} of treated seeds {sorted(map(str, treated))}, of control seeds"
                f" {sorted(map(str, control))}"
            )
            raise DataError(f"mode {mode} has {found}; expected the same seeds; measure both sides")
    for t, c in pairs(study, mode):
        if t.scores.keys() != c.scores.keys():
            found = f"mode {mode}, seed {t.seed}: treated and {c.role} have other questions"
            raise DataError(f"{found}; expected the same; measure both alike")


def _bases(study: Study) -> list[Condition]:
    return [c for c in study.of("none", "base") if c.scores]


def pairs(study: Study, mode: str) -> list[tuple[Condition, Condition]]:
    """(treated, control) of every seed that was measured; the base stands in for the control where
    there is none."""
    others = {c.seed: c for c in study.of(mode, "control")}
    if study.reference(mode) == "base":
        others = {c.seed: c for c in reversed(_bases(study))}
        others = {t.seed: others.get(t.seed, _bases(study)[0]) for t in study.of(mode, "treated")}
    return [(t, others[t.seed]) for t in study.of(mode, "treated") if t.scores]
