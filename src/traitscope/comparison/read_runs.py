"""Sealed runs of one model, read into a MeasuredModel.

A run of `measure` gives scores; the run of `train` below it gives the seed and, where training was
compared with a vector, EAS. A run of `train`, or of `extract` with a reference, gives EAS alone.
Runs of one student are taken together.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traitscope.comparison.matching import ASKED, MeasuredModel, judges_of
from traitscope.comparison.results import UNSCORED
from traitscope.comparison.roles import STUDENT, prompt_of_settings, role_of_settings
from traitscope.data.own_traits.score_rows import scores_of_row
from traitscope.errors import DataError, StoreError
from traitscope.interventions.intervention import Adapter
from traitscope.interventions.vector import Vector, load_vector
from traitscope.runs import store
from traitscope.runs.manifests import RUN_NAME, SCORED_BY, check_unchanged, input_of_value
from traitscope.stages.behaviours.scores import RATE, UNITS, Scores, judges_among
from traitscope.training.eas import StudentEas

SCORE_UNITS = UNITS | {UNSCORED: RATE}
"units of what a comparison shows of a trait with a word, the fraction of unscored answers included"
BESIDE = ("set", ASKED, UNSCORED)
"keys of the scores of a question that are none"
TRAIN = "train"
"stage that trains students"
V_STUDENT = "v_student.safetensors"
"file of what training changed"


@dataclass(frozen=True)
class ReadModel:
    """What the runs of one model hold."""

    model: MeasuredModel
    """The numbers."""
    v_student: Vector | None
    """What training changed; None where the runs do not keep it."""


def read_models(paths: Sequence[Path]) -> list[ReadModel]:
    """Return what runs hold, in their order; runs of one student are taken together.

    Raises StoreError and DataError as `compare`.
    """
    by_student: dict[Path, list[store.Run]] = {}
    for path in paths:
        run = _unchanged(path)
        by_student.setdefault(_student_of(run), []).append(run)
    return [_read_together(runs) for runs in by_student.values()]


def read_model(*paths: Path) -> ReadModel:
    """Return what the runs of one model hold.  Raises StoreError and DataError as `compare`."""
    return _read_together(list(map(_unchanged, paths)))


def _unchanged(path: Path) -> store.Run:
    """Return the sealed run at a path.  Raises StoreError where its files were changed."""
    run = store.load_run(path)
    check_unchanged(run.path, run.manifest())
    return run


def model_from_scores(scores: Scores, name: str, place: int) -> MeasuredModel:
    """Return a model whose scores are in memory; its place in the list stands for its seed."""
    rows = {}
    for question in scores.questions:
        rows[question.question.id] = _compared(question.as_row())
    return MeasuredModel(
        name=name,
        seed=place,
        scores=rows,
        perplexity=scores.perplexity,
        trait=scores.trait,
        context=scores.context_digest,
        neutral=scores.context,
        prompt=scores.prompt,
        scored_by=scores.scored_by or None,
        judges=_judges_of(rows),
    )


def score_units(models: Sequence[MeasuredModel]) -> dict[str, str]:
    """Return the units of what a comparison of some models shows, by score, in their order."""
    judges = judges_of(models)
    return dict.fromkeys(judges, RATE) | {UNSCORED: RATE} if judges else SCORE_UNITS


def _judges_of(rows: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the judges of rows of scores, by question; none of a trait with a word."""
    for row in rows.values():
        return judges_among(key for key in row if key not in BESIDE)
    return ()


def _student_of(run: store.Run) -> Path:
    """Return the run that trained the student of a run, or the run itself for another model."""
    trained = _training_run(run)
    return trained.path.resolve() if trained else run.path.resolve()


def _read_together(runs: Sequence[store.Run]) -> ReadModel:
    """Return what several runs of one model hold."""
    training = _training_run(runs[0])
    kinds = [run.stage for run in runs]
    if len(set(kinds)) < len(kinds):
        raise DataError(
            f"{runs[0].path} and {runs[-1].path} are both runs of {runs[-1].stage} of one model;"
            " expected one; leave one out"
        )
    model = MeasuredModel(name=runs[0].path.name, base=_manifest(runs[0])["model"])
    if training is not None:
        config = _config(training)
        targets = _targets(config["recipe"])
        rows = _manifest(training)["inputs"].get("data", {}).get("digest")
        model = replace(
            model,
            name=training.path.name,
            role=STUDENT,
            seed=config["seed"],
            data=rows,
            targets=targets,
        )
    sources = list(runs)
    if training is not None and training.stage not in kinds and "extract" not in kinds:
        sources.append(training)
    v_student = None
    for run in sources:
        if run.stage == "measure":
            model = _with_scores(model, run)
        elif run.stage in ("train", "extract"):
            model = replace(model, eas={**model.eas, **_eas(run)})
            v_student = _v_student(run) or v_student
        else:
            raise DataError(
                f"{run.path} is a run of {run.stage}; expected one of measure, train or extract;"
                " name such a run"
            )
    return ReadModel(model, v_student)


def _targets(recipe: dict[str, Any]) -> str:
    """Return the kind of training target of a recorded recipe, which may be of an older version."""
    if recipe.get("soft_over", "vocabulary") == "vocabulary":
        return recipe["targets"]
    return f"{recipe['targets']} over {recipe['soft_over']} tokens"


def _training_run(run: store.Run) -> store.Run | None:
    """Return the run that trained the model of a run: itself, or that of its adapter."""
    if run.stage == TRAIN:
        return run
    inputs = _manifest(run)["inputs"]
    for item in _config(run).get("interventions", ()):
        named = input_of_value(item["folder"]) if item["kind"] == Adapter.__name__ else None
        if named is None:
            continue
        path = (run.path / inputs[named[0]]["path"]).resolve()
        parts = RUN_NAME.fullmatch(path.name)
        if parts and parts[1] == TRAIN:
            return _unchanged(path)
    return None


def _manifest(run: store.Run) -> dict[str, Any]:
    return run.manifest()


def _config(run: store.Run) -> dict[str, Any]:
    return json.loads(run.file("config.json").read_text(encoding="utf-8"))["config"]


def _bytes_of(run: store.Run, name: str) -> bytes:
    """Return a file of a run.  Raises StoreError where the run has none of that name."""
    if name not in _manifest(run)["outputs"]:
        raise StoreError(
            f"{run.path} has no {name}; expected it in a run of {run.stage}; make the run again"
        )
    return run.file(name).read_bytes()


def _with_scores(model: MeasuredModel, run: store.Run) -> MeasuredModel:
    """Return the model with the scores of a run of `measure`."""
    scores = {}
    for line in _bytes_of(run, "scores.jsonl").splitlines():
        row = json.loads(line)
        scores[row["id"]] = _compared(row)
    about = json.loads(_bytes_of(run, "measurements.json"))
    settings = _config(run)
    return replace(
        model,
        role=model.role or role_of_settings(settings),
        neutral=settings.get("context"),
        prompt=prompt_of_settings(settings),
        scores=scores,
        perplexity=about.get("perplexity"),
        trait=about["trait"],
        context=about["context_digest"],
        scored_by=_manifest(run).get(SCORED_BY) or None,
        sampling=_sampling(settings),
        judges=_judges_of(scores),
    )


def _compared(row: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a row, with its set, its question and the fraction of unscored answers;
    without answers there is none."""
    compared = {"set": row["set"], ASKED: row["question"], **scores_of_row(row)}
    if row.get("answers"):
        compared[UNSCORED] = row[UNSCORED] / len(row["answers"])
    return compared


def _sampling(config: dict[str, Any]) -> str | None:
    """Return how answers were sampled, in words; None without answers."""
    if not config.get("samples"):
        return None
    return f"{config['max_new_tokens']} tokens at temperature {config['temperature']:g}"


def _eas(run: store.Run) -> dict[str, list[float]]:
    """Return EAS [L] of a student by the trait of the vector; empty where none was compared.

    A run of `extract` has one EAS for each vector that it took, and one student is expected. Raises
    DataError for a run that compares several students.
    """
    if "eas.json" not in _manifest(run)["outputs"]:
        return {}
    content = json.loads(_bytes_of(run, "eas.json"))
    if run.stage == TRAIN:
        student = StudentEas.from_json(content)
        return {_reference_trait(run): student.own_L, **student.others}
    if len(content) != 1:
        raise DataError(
            f"{run.path} compares {len(content)} vectors; expected one student's; name a run of"
            " one student"
        )
    return {_reference_trait(run): next(iter(content.values()))}


def _reference_trait(run: store.Run) -> str:
    """Return the name of the vector that a run compares its student with."""
    inputs = _manifest(run)["inputs"]
    source = inputs.get("vector") or inputs.get("reference")
    return Path(source["path"]).stem if source else "reference"


def _v_student(run: store.Run) -> Vector | None:
    file = run.file(V_STUDENT)
    return load_vector(file) if file.exists() else None
