"""Compare: treated models minus control models, from runs that are there.

    traitscope compare --treated RUN ... --control RUN ... [--vector FILE] [--layer N]

A run of `measure` gives scores; the run of `train` below it gives the seed and, where training was
compared with a vector, EAS. A run of `train`, or of `extract` with a reference, gives EAS alone.
Runs of one student are taken together. The statistics are those of reporting/comparison.py.

Shapes: L layers.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.config.commands import CompareConfig, ReportConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError, DataError, StoreError
from traitscope.interventions.vector import Vector, load_vector
from traitscope.reporting.comparison import UNSCORED, Comparison, compare_models
from traitscope.reporting.comparison_page import comparison_page, differences_table
from traitscope.reporting.comparison_text import Wording, sentences, status, terminal_table
from traitscope.reporting.matching import MeasuredModel
from traitscope.reporting.tables import Table, table_csv
from traitscope.runs import store
from traitscope.stages import registry
from traitscope.stages.measure import UNITS, Scores

SCORE_UNITS = UNITS | {UNSCORED: "rate"}
"units of what a comparison shows, the fraction of unscored answers included"
V_STUDENT = "v_student.safetensors"


@dataclass(frozen=True)
class ReadModel:
    """What the runs of one model hold."""

    model: MeasuredModel
    """The numbers."""
    v_student: Vector | None
    """What training changed; None where the runs do not keep it."""


def compare(
    treated: Sequence[str | Path | Scores],
    control: Sequence[str | Path | Scores],
    *,
    vector: Path | None = None,
    layer: int | None = None,
    design: str = "auto",
) -> Comparison:
    """Return treated minus control for every score, perplexity and EAS.

    Each side is a list of sealed runs, or of what `measure` returned. Scores at the same place of
    both lists are a pair: give them in the order of their seeds. Intervals are over the models.

    `vector` is the teacher's: with it, the cosine of (v_treated - v_control) is compared, too.
    `layer` is where EAS is read; without it, EAS is compared by layer only. `design` is auto,
    paired or unpaired. Raises DataError for runs that were measured differently, ConfigError for
    pairs that cannot be made, StoreError for a run that is missing, unfinished or changed.
    """
    treated_models = _models_of(treated, "treated")
    control_models = _models_of(control, "control")
    _check_apart(treated_models, control_models)
    return compare_read(treated_models, control_models, vector=vector, layer=layer, design=design)


def _models_of(side: Sequence[str | Path | Scores], name: str) -> list[ReadModel]:
    """Return the models of one side, from runs or from scores in memory."""
    if not side:
        raise ConfigError(f"no {name} model is given; expected one or more; name their runs")
    in_memory = [item for item in side if isinstance(item, Scores)]
    if not in_memory:
        return read_models([Path(item) for item in side if not isinstance(item, Scores)])
    if len(in_memory) < len(side):
        raise ConfigError(
            f"the {name} side holds runs and scores in memory; expected one kind; save the scores"
            " with `traitscope measure`, or measure the runs' models again"
        )
    models = []
    for place, scores in enumerate(in_memory):
        models.append(_model_in_memory(scores, f"{name} {place}", place))
    return models


def _model_in_memory(scores: Scores, name: str, place: int) -> ReadModel:
    """Return a model whose scores are in memory; its place stands for its seed."""
    rows = {}
    for question in scores.questions:
        rows[question.question.id] = _with_unscored_fraction(question.as_row())
    model = MeasuredModel(
        name=name,
        seed=place,
        scores=rows,
        perplexity=scores.perplexity,
        trait=scores.trait,
        context=scores.context_digest,
    )
    return ReadModel(model, None)


def compare_read(
    treated: Sequence[ReadModel],
    control: Sequence[ReadModel],
    *,
    vector: Path | None = None,
    layer: int | None = None,
    design: str = "auto",
    name: str = "",
) -> Comparison:
    """Return what `compare` returns, for models that were read.

    `name` begins the names of the numbers.
    """
    treated_models = [read.model for read in treated]
    control_models = [read.model for read in control]
    changes = None
    if vector is not None:
        changes = _change_cosines(treated, control, load_vector(vector))
    return compare_models(
        treated_models,
        control_models,
        SCORE_UNITS,
        name=name,
        design=design,
        trait=_trait_of([*treated_models, *control_models], vector),
        layer=layer,
        changes=changes,
    )


def _check_apart(treated: Sequence[ReadModel], control: Sequence[ReadModel]) -> None:
    """Raise DataError for a model that stands on both sides."""
    shared = {read.model.name for read in treated} & {read.model.name for read in control}
    if shared:
        raise DataError(
            f"{', '.join(sorted(shared))} is both treated and control; expected different models;"
            " name it on one side"
        )


def _trait_of(models: Sequence[MeasuredModel], vector: Path | None) -> str:
    """Return the trait that a comparison is about: the vector's, or that of the questions."""
    if vector is not None:
        return vector.stem
    for model in models:
        names = [model.trait] if model.trait else list(model.eas)
        if names:
            return str(names[0])
    return ""


def _change_cosines(
    treated: Sequence[ReadModel], control: Sequence[ReadModel], vector: Vector
) -> dict[int, list[float]]:
    """Return the cosine [L] of (v_treated - v_control) with a vector, by the seed of both."""
    control_by_seed = {read.model.seed: read.v_student for read in control}
    cosines = {}
    for read in treated:
        seed, other = read.model.seed, control_by_seed.get(read.model.seed)
        if seed is not None and read.v_student is not None and other is not None:
            cosines[seed] = (read.v_student - other).cosine(vector).tolist()
    return cosines


def read_models(paths: Sequence[Path]) -> list[ReadModel]:
    """Return what runs hold, in their order; runs of one student are taken together.

    Raises StoreError and DataError as `compare`.
    """
    by_student: dict[Path, list[store.Run]] = {}
    for path in paths:
        run = store.load_run(path)
        by_student.setdefault(_student_of(run), []).append(run)
    return [_read_together(runs) for runs in by_student.values()]


def read_model(*paths: Path) -> ReadModel:
    """Return what the runs of one model hold.  Raises StoreError and DataError as `compare`."""
    return _read_together([store.load_run(path) for path in paths])


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
        targets = config["recipe"]["targets"]
        model = replace(model, name=training.path.name, seed=config["seed"], targets=targets)
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


def _training_run(run: store.Run) -> store.Run | None:
    """Return the run that trained the model of a run: itself, or one among its inputs."""
    if run.stage == "train":
        return run
    for name, source in _manifest(run)["inputs"].items():
        path = (run.path / source["path"]).resolve()
        if name.startswith("interventions") and path.name.startswith("train-"):
            return store.load_run(path)
    return None


def _manifest(run: store.Run) -> dict[str, Any]:
    return run.manifest()


def _config(run: store.Run) -> dict[str, Any]:
    return json.loads(run.file("config.json").read_text(encoding="utf-8"))["config"]


def _sealed_bytes(run: store.Run, name: str) -> bytes:
    """Return a file of a run as it was sealed.  Raises StoreError for a missing or changed one."""
    digest = _manifest(run)["outputs"].get(name)
    if digest is None or not run.file(name).is_file():
        raise StoreError(
            f"{run.path} has no {name}; expected it in a run of {run.stage}; make the run again"
        )
    data = run.file(name).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise StoreError(f"{run.file(name)} changed after it was sealed; {store.RESTORE}")
    return data


def _with_scores(model: MeasuredModel, run: store.Run) -> MeasuredModel:
    """Return the model with the scores of a run of `measure`."""
    scores = {}
    for line in _sealed_bytes(run, "scores.jsonl").splitlines():
        row = json.loads(line)
        scores[row["id"]] = _with_unscored_fraction(row)
    about = json.loads(_sealed_bytes(run, "measurements.json"))
    return replace(
        model,
        scores=scores,
        perplexity=about.get("perplexity"),
        trait=about["trait"],
        context=about["context_digest"],
    )


def _with_unscored_fraction(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the fraction of unscored answers; without answers there is none."""
    fraction = dict(row)
    count = fraction.pop(UNSCORED)
    if row.get("answers"):
        fraction[UNSCORED] = count / len(row["answers"])
    return fraction


def _eas(run: store.Run) -> dict[str, list[float]]:
    """Return EAS [L] of a student by the trait of the vector; empty where none was compared.

    Raises DataError for a run that compares several students.
    """
    if "eas.json" not in _manifest(run)["outputs"]:
        return {}
    rows = json.loads(_sealed_bytes(run, "eas.json"))
    students = [name for name in rows if not name.startswith("other/")]
    if len(students) != 1:
        raise DataError(
            f"{run.path} compares {len(students)} vectors; expected one student's; name a run of"
            " one student"
        )
    eas = {_reference_trait(run): rows[students[0]]}
    for name, row in rows.items():
        if name not in students:
            eas[name.removeprefix("other/")] = row
    return eas


def _reference_trait(run: store.Run) -> str:
    """Return the name of the vector that a run compares its student with."""
    inputs = _manifest(run)["inputs"]
    source = inputs.get("vector") or inputs.get("reference")
    return Path(source["path"]).stem if source else "reference"


def _v_student(run: store.Run) -> Vector | None:
    file = run.file(V_STUDENT)
    return load_vector(file) if file.exists() else None


def run_compare(config: CompareConfig, out: Output) -> store.Run:
    """Return the sealed run with summary.json, differences.csv and report.html.

    Prints a table. With `report`, the page is also written there.
    """
    if not (config.treated and config.control):
        raise ConfigError(
            f"{len(config.treated)} treated and {len(config.control)} control runs; expected one or"
            " more on each side: traitscope compare --treated RUN ... --control RUN ..."
        )
    comparison = compare(
        config.treated,
        config.control,
        vector=config.vector,
        layer=config.layer,
        design=config.design,
    )
    models = [*comparison.treated, *comparison.control]
    wording = Wording(_trait_of(models, config.vector))
    settings = replace(config, report=None)
    with registry.opened(settings, out) as run:
        if not run.sealed:
            _write(run, comparison, wording, config)
    if config.report is not None:
        page = run.file("report.html").read_text(encoding="utf-8")
        atomic_files.write_text(config.report, page)
    _print(comparison, wording)
    print(config.report or run.file("report.html"))
    return run


def _write(run: store.Run, comparison: Comparison, wording: Wording, config: CompareConfig) -> None:
    table = differences_table("differences", "Treated minus control", comparison)
    atomic_files.write_text(run.file("differences.csv"), table_csv(table))
    atomic_files.write_json(run.file("summary.json"), comparison_json(comparison, wording))
    runs = _runs_table(config)
    page = comparison_page(comparison, wording, SCORE_UNITS, config.layer, runs)
    atomic_files.write_text(run.file("report.html"), page)


def comparison_json(comparison: Comparison, wording: Wording) -> dict[str, Any]:
    """Return what summary.json holds."""
    differences = []
    for item in comparison.differences:
        differences.append(
            {
                "score": item.score,
                "treated": item.treated.as_dict() if item.treated else None,
                "control": item.control.as_dict() if item.control else None,
                "difference": item.difference.as_dict(),
            }
        )
    return {
        "answer": status(comparison),
        "design": comparison.design,
        "reference": comparison.reference,
        "trait": wording.trait,
        "text": list(sentences(comparison, wording)),
        "differences": differences,
    }


def _print(comparison: Comparison, wording: Wording) -> None:
    """Print the differences and what they say."""
    from rich.console import Console

    heading = f"treated − {comparison.reference}, {comparison.design}"
    caption = " ".join(sentences(comparison, wording)[:2])
    title = f"{wording.trait}: {status(comparison)}"
    Console().print(terminal_table(title, caption, {heading: comparison}, wording.trait))


def _runs_table(config: CompareConfig) -> Table:
    """Return the table that says where every number comes from."""
    rows = []
    for side, paths in (("treated", config.treated), ("control", config.control)):
        for path in paths:
            run = store.load_run(path)
            rows.append((side, run.stage, run.path.name, run.digest[:16]))
    caption = "traitscope show RUN verifies a run and prints what it was made from."
    header = ("side", "stage", "run", "digest of its outputs")
    return Table("runs", "Runs", caption, header, tuple(rows))


STUDY_SCHEMA = 1
"schema of the study files that `report` read"


def run_report(config: ReportConfig, out: Output) -> dict[str, Any]:
    """Raise ConfigError with the commands of `compare` that take the place of a study file."""
    if config.study_file is None:
        raise ConfigError(
            "`report` has become `compare`: traitscope compare --treated RUN ... --control RUN ..."
        )
    commands = compare_commands(config.study_file)
    listed = "\n  ".join(commands)
    raise ConfigError(
        f"`report` has become `compare`; instead of {config.study_file} type\n  {listed}"
    )


def compare_commands(study_file: Path) -> list[str]:
    """Return a command of `compare` for each kind of training in a study file.

    Raises DataError for a file that is none, StoreError for one of a newer version.
    """
    plain = _study_of(study_file)
    folder, conditions = study_file.parent, plain["conditions"]
    commands = []
    for mode in ("sampled", "soft"):
        treated = _measured_runs(folder, conditions, mode, "treated")
        control = _measured_runs(folder, conditions, mode, "control")
        if not control:
            control = _measured_runs(folder, conditions, "none", "base")
        if treated and control:
            words = ["traitscope compare --treated", *treated, "--control", *control]
            if plain.get("vector"):
                words.append(f"--vector {folder / plain['vector']}")
            if plain.get("steered_layer") is not None:
                words.append(f"--layer {plain['steered_layer']}")
            commands.append(" ".join(words))
    if not commands:
        raise DataError(
            f"{study_file} names no treated models with controls; expected both; compare other runs"
        )
    return commands


def _study_of(path: Path) -> dict[str, Any]:
    """Return the content of a study file."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"study file {path} cannot be read ({error}); expected JSON; name the study.json"
        ) from error
    if not isinstance(plain, dict) or not isinstance(plain.get("schema"), int):
        raise DataError(
            f"{path} is no study file; expected a JSON object with schema: {STUDY_SCHEMA}; name the"
            " study.json"
        )
    if plain["schema"] > STUDY_SCHEMA:
        raise StoreError(
            f"{path} has schema {plain['schema']}; this version reads {STUDY_SCHEMA}: upgrade"
            " traitscope"
        )
    conditions = plain.get("conditions")
    if not isinstance(conditions, list) or not all(isinstance(item, dict) for item in conditions):
        raise DataError(
            f"conditions of {path} are no list of objects; expected one; write the file again"
        )
    return plain


def _measured_runs(folder: Path, conditions: Sequence[dict], mode: str, role: str) -> list[str]:
    """Return the runs of `measure` of the conditions of one kind."""
    runs = []
    for item in conditions:
        if (item.get("mode"), item.get("role")) == (mode, role) and item.get("measure"):
            runs.append(str(folder / item["measure"]))
    return runs
