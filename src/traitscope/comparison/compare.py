"""The command `compare`: treated models minus control models, from sealed runs.

    traitscope compare --treated RUN ... --control RUN ... [--vector FILE] [--layer N]

What a run gives is said in read_runs.py, the statistics in differences.py, and how the sides are
matched in matching.py.

"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.comparison.differences import compare_models
from traitscope.comparison.matching import MeasuredModel, check_comparable
from traitscope.comparison.page import comparison_figures, comparison_tables
from traitscope.comparison.read_runs import ReadModel, model_from_scores, read_models, score_units
from traitscope.comparison.results import AlongVector, Comparison, Source
from traitscope.comparison.roles import BASE, STUDENT, TEACHER
from traitscope.comparison.vectors import (
    along_randoms,
    along_vectors,
    changes_of,
    teacher_vectors,
)
from traitscope.comparison.wording import (
    Wording,
    sentences,
    status,
    terminal_table,
    wording_of,
)
from traitscope.config.commands import CompareConfig
from traitscope.config.common import Output
from traitscope.errors import ConfigError, DataError
from traitscope.interventions.vector import Vector
from traitscope.reporting.study_page import write_figures
from traitscope.reporting.tables import table_csv
from traitscope.reporting.verdict import NO_TRANSFER, teacher_has_trait
from traitscope.runs import store
from traitscope.stages import registry
from traitscope.stages.behaviours.scores import Scores
from traitscope.stats.estimates import ONE_SEED_ONLY
from traitscope.stats.measurement import Measurement

IN_MEMORY = "memory"
"stands for the stage of scores that no run holds"


def compare(
    treated: Sequence[str | Path | Scores] = (),
    control: Sequence[str | Path | Scores] = (),
    *,
    vector: Vector | str | Path | None = None,
    layer: int | None = None,
    design: str = "auto",
    base: str | Path | Scores | None = None,
    teacher: str | Path | Scores | None = None,
) -> Comparison:
    """Return treated minus control for every score, perplexity and EAS.

    Each side is a list of sealed runs, or of what `measure` returned. Scores at the same place of
    both lists are a pair: give them in the order of their seeds. Intervals are over the models.

    vector: The teacher's vector, its file, or a run of `extract` with one vector. With it, the
    cosine of (v_treated - v_control) is compared, too.
    layer: The layer at which EAS is read. Without it, EAS is compared by layer only.
    design: auto, paired or unpaired.
    base, teacher: The unmodified model and the teacher, as runs or scores, for rows of their own.
    With both, the comparison says whether the teacher has the trait. Without treated and control,
    they are the comparison: teacher minus base.

    Raises DataError for runs that were measured differently, ConfigError for pairs that cannot be
    made. Raises StoreError for a run that is missing, unfinished or changed, VectorError for a
    vector that is missing, or of another model.
    """
    given, sources = {}, [*_sources(treated, "treated"), *_sources(control, "control")]
    for name, item in (("base", base), ("teacher", teacher)):
        if item is not None:
            given[name] = _as_given(*_models_of([item], name), name)
            sources += _sources([item], name)
    if not (treated or control) and len(given) == 2:
        treated_models, control_models = [given["teacher"]], [given["base"]]
    else:
        treated_models = _models_of(treated, "treated")
        control_models = _models_of(control, "control")
    _check_apart(treated_models, control_models)
    comparison = compare_read(
        treated_models, control_models, vector=vector, layer=layer, design=design
    )
    comparison = replace(_without_seeds(comparison), sources=tuple(sources))
    return _with_teacher(comparison, given.get("base"), given.get("teacher"))


def _as_given(read: ReadModel, name: str) -> ReadModel:
    """Return a model as the base or the teacher that it was given as, whatever trained it.

    Raises ConfigError for a base that is a teacher or a student.
    """
    if name == BASE and read.model.role in (STUDENT, TEACHER):
        raise ConfigError(
            f"--base {read.model.name} is a run of a {read.model.role}; expected one of the"
            " unmodified model; run `traitscope measure` without --interventions, and name that run"
        )
    return replace(read, model=replace(read.model, role=name, seed=None, targets=None))


def _without_seeds(comparison: Comparison) -> Comparison:
    """Return the comparison with intervals that speak of no seeds, where no model has one."""
    models = [*comparison.treated, *comparison.control]
    if any(model.seed is not None for model in models):
        return comparison
    differences = []
    for item in comparison.differences:
        number = item.difference
        interval = number.interval.replace(ONE_SEED_ONLY, "").replace("seed", "model")
        counted = number.counted.replace("seed", "model")
        number = replace(number, interval=interval, counted=counted)
        differences.append(replace(item, difference=number))
    return replace(comparison, differences=tuple(differences))


def _with_teacher(
    comparison: Comparison, base: ReadModel | None, teacher: ReadModel | None
) -> Comparison:
    """Return the comparison with base and teacher, and whether the teacher has the trait.

    Raises DataError where they were measured differently.
    """
    has_trait = None
    for read in (base, teacher):
        if read is not None:
            alike = (replace(model, targets=None) for model in (read.model, comparison.treated[0]))
            check_comparable(list(alike))
    if base is not None and teacher is not None:
        has_trait = teacher_has_trait(teacher_rise(teacher, base))
        if teacher.model in comparison.treated:
            found = has_trait.found.replace(NO_TRANSFER, "look for another before you train on it")
            has_trait = replace(has_trait, found=found)
    return replace(
        comparison,
        base=base.model if base else None,
        teacher=teacher.model if teacher else None,
        teacher_has_trait=has_trait,
    )


def _sources(side: Sequence[str | Path | Scores], name: str) -> list[Source]:
    """Return where the numbers of one side come from."""
    sources = []
    for place, item in enumerate(side):
        if isinstance(item, Scores):
            sources.append(Source(name, IN_MEMORY, f"{name} {place}", ""))
        else:
            run = store.load_run(Path(item))
            sources.append(Source(name, run.stage, run.path.name, run.digest[:16]))
    return sources


def _models_of(side: Sequence[str | Path | Scores], name: str) -> list[ReadModel]:
    """Return the models of one side, from runs or from scores in memory."""
    if not side:
        raise ConfigError(
            f"0 {name} models are given; expected one or more on each side; name their runs"
        )
    paths: list[Path] = []
    models: list[ReadModel] = []
    for place, item in enumerate(side):
        if isinstance(item, Scores):
            models.append(ReadModel(model_from_scores(item, f"{name} {place}", place), None))
        else:
            paths.append(Path(item))
    if models and paths:
        raise ConfigError(
            f"the {name} side holds runs and scores in memory; expected one kind; name runs of"
            " `measure`, or measure the models of the runs again"
        )
    return models or read_models(paths)


def compare_read(
    treated: Sequence[ReadModel],
    control: Sequence[ReadModel],
    *,
    vector: Vector | str | Path | None = None,
    layer: int | None = None,
    design: str = "auto",
    name: str = "",
) -> Comparison:
    """Return what `compare` returns, for models that were read.

    `name` begins the names of the numbers.
    """
    treated_models = [read.model for read in treated]
    control_models = [read.model for read in control]
    trait = _trait_of([*treated_models, *control_models])
    changes = changes_of(treated, control)
    vectors: dict[str, Vector] = {}
    cosines = {}
    if vector is not None:
        vectors = teacher_vectors(vector, trait)
        trait, teacher = next(iter(vectors.items()))
        for seed, change in changes.items():
            cosines[seed] = change.cosine(teacher).tolist()
    comparison = compare_models(
        treated_models,
        control_models,
        score_units([*treated_models, *control_models]),
        name=name,
        design=design,
        trait=trait,
        layer=layer,
        changes=cosines,
    )
    if layer is None or not cosines:
        return comparison
    return replace(
        comparison,
        along_vectors=along_vectors(changes, vectors, layer),
        along_randoms=along_randoms(changes, layer),
    )


def teacher_rise(teacher: ReadModel, base: ReadModel) -> Measurement:
    """Return the teacher's primary score minus the base's, paired over questions."""
    comparison = compare_read([teacher], [base], name="teacher")
    return comparison[comparison.primary]


def _check_apart(treated: Sequence[ReadModel], control: Sequence[ReadModel]) -> None:
    """Raise DataError for a model that stands on both sides."""
    treated_names = {read.model.name for read in treated}
    for read in control:
        if read.model.name in treated_names:
            raise DataError(
                f"{read.model.name} is both treated and control; expected different models; name it"
                " on one side"
            )


def _trait_of(models: Sequence[MeasuredModel]) -> str:
    """Return the trait whose questions were asked, or with whose vector EAS was measured."""
    for model in models:
        names = [model.trait] if model.trait else list(model.eas)
        if names:
            return str(names[0])
    return ""


def compared(config: CompareConfig) -> Comparison:
    """Return the comparison that settings ask for; errors as in `compare`."""
    return compare(
        config.treated,
        config.control,
        vector=config.vector,
        layer=config.layer,
        design=config.design,
        base=config.base,
        teacher=config.teacher,
    )


def run_compare(config: CompareConfig, out: Output) -> store.Run:
    """Return the sealed run with summary.json, differences.csv and report.html.

    Prints a table. With `report`, the page is also written there.
    """
    has_sides = bool(config.treated and config.control)
    if not has_sides and (config.treated or config.control or config.teacher is None):
        raise ConfigError(
            f"{len(config.treated)} treated and {len(config.control)} control runs; expected one or"
            " more on each side: traitscope compare --treated RUN ... --control RUN ..., or a"
            " teacher alone: traitscope compare --base RUN --teacher RUN"
        )
    comparison = compared(config)
    wording = wording_of(comparison)
    settings = replace(config, report=None, latex=None)
    with registry.opened(settings, out) as run:
        if not run.sealed:
            _write(run, comparison, wording)
    if config.report is not None:
        page = run.file("report.html").read_text(encoding="utf-8")
        atomic_files.write_text(config.report, page)
    if config.latex is not None:
        comparison.to_latex(config.latex)
    _print(comparison, wording)
    print(config.report or run.file("report.html"))
    return run


def _write(run: store.Run, comparison: Comparison, wording: Wording) -> None:
    for table in comparison_tables("differences", comparison.heading, comparison):
        atomic_files.write_text(run.file(f"{table.name}.csv"), table_csv(table))
    write_figures(run.path, comparison_figures(comparison))
    atomic_files.write_json(run.file("summary.json"), comparison_json(comparison, wording))
    comparison.to_html(run.file("report.html"))


def comparison_json(comparison: Comparison, wording: Wording) -> dict[str, Any]:
    """Return what summary.json holds."""
    differences, control = [], comparison.teacher_has_trait
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
        "answer": status(comparison, wording),
        "design": comparison.design,
        "reference": comparison.reference,
        "trait": wording.trait,
        "decides": str(comparison.primary),
        "text": list(sentences(comparison, wording)),
        "positive_control": control.found if control else None,
        "differences": differences,
        "along_vectors": [_along_json(item) for item in comparison.along_vectors],
        "along_randoms": asdict(comparison.along_randoms) if comparison.along_randoms else None,
    }


def _along_json(item: AlongVector) -> dict[str, Any]:
    change = item.change.as_dict()
    return {"vector": item.vector, "cosine_with_own": item.cosine_with_own, "change": change}


def _print(comparison: Comparison, wording: Wording) -> None:
    """Print the differences and what they say."""
    from rich.console import Console

    heading = f"{comparison.subject} − {comparison.reference}, {comparison.design}"
    texts = sentences(comparison, wording)
    caption = " ".join((*texts[:2], *texts[-1:])) if len(texts) > 2 else " ".join(texts)
    title = f"{wording.trait}: {status(comparison, wording)}"
    if comparison.teacher_has_trait is not None:
        title += f"\n{comparison.teacher_has_trait.found}"
    Console().print(terminal_table(title, caption, {heading: comparison}, wording.trait))
