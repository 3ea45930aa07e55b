"""The stages of an audit as nodes of a graph; phases.py says which of them are needed, and when."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from traitscope.auditing import settings
from traitscope.auditing.planning.answers import (
    about_sample,
    answer_nodes,
    clean_nodes,
    inverse_temperature,
)
from traitscope.auditing.planning.job import (
    BLIND_NAMING,
    CLEAN,
    PLACEBO,
    PROMPTED,
    RANDOM_VECTORS,
    REFERENCE,
    SAMPLE,
    SPIKE_INS,
    STEERED,
    AuditNodes,
    Group,
    Job,
    features_of,
    gradients_of,
    null_scores,
    predictions_of,
    prompt_scores,
    steered_scores,
)
from traitscope.auditing.search import HALF, GridPoint
from traitscope.auditing.settings import FEW_ROWS, GRADIENT_ROWS, NullModel
from traitscope.config.analysis import ExtractConfig
from traitscope.config.audit import (
    BlindNamingConfig,
    ReferenceConfig,
    RowGradientsConfig,
    SampleConfig,
    TeacherScoresConfig,
)
from traitscope.data.traits import load_trait
from traitscope.errors import DataError
from traitscope.interventions.intervention import SystemPrompt
from traitscope.interventions.short_form import to_short
from traitscope.runs import store
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS, InterventionsFrom

REFERENCE_FACTOR = 4
"reference rows that are read for every audited row"


def is_free_text(folders: Folders) -> bool:
    """Whether the audited rows are free text."""
    return about_sample(folders)["format"]["kind"] == "free"


def nulls_of(is_free: bool) -> tuple[NullModel, ...]:
    """The nulls of number data, or of free text."""
    return (*settings.NULLS, *settings.STYLED) if is_free else settings.NULLS


def reading_nodes(job: Job) -> AuditNodes:
    """The nodes that read files: they name bad rows before anything is computed."""
    config = job.config
    plan = AuditNodes()
    sample = SampleConfig(
        **job.common,
        seed=config.seed,
        data=config.data,
        context=config.context,
        rows=config.rows,
        by=None if job.source is None else config.by,
        source=job.source,
        reading=config.reading,
        room=job.room,
    )
    plan.add(Group.SAMPLE, Node(SAMPLE, SampleConfig, lambda _: sample, (), 1))
    if config.reference:

        def more_rows(folders: Folders) -> SampleConfig:
            return replace(
                sample,
                data=config.reference,
                rows=REFERENCE_FACTOR * config.rows,
                by=None,
                source=None,
                like=folders[SAMPLE],
            )

        plan.add(Group.SAMPLE, Node(REFERENCE, SampleConfig, more_rows, (SAMPLE,), 1))

        def matched(folders: Folders) -> ReferenceConfig:
            return ReferenceConfig(folders[SAMPLE], folders[REFERENCE], config.seed)

        match = Node(PLACEBO, ReferenceConfig, matched, (SAMPLE, REFERENCE), 1)
        plan.add(Group.PLACEBOS, match)
    return plan


def vector_nodes(job: Job) -> list[Node]:
    """The vectors of all candidates."""
    return [standard_nodes.vectors(job.common, job.config.traits, context=job.config.context)]


def random_vector_nodes(job: Job) -> list[Node]:
    """The vectors of the random nulls."""

    def config(folders: Folders) -> ExtractConfig:
        like = standard_nodes.vector_of(folders, job.config.traits[0])
        return ExtractConfig(
            **job.common, seed=job.config.seed, like=like, randoms=settings.RANDOMS
        )

    return [*vector_nodes(job), Node(RANDOM_VECTORS, ExtractConfig, config, (VECTORS,), 1)]


def spike_in_point(job: Job) -> GridPoint:
    """The steered spike-in teacher, which is on the search's grid."""
    name = load_trait(job.config.traits[0]).name
    return GridPoint(name, job.spike_in_block, job.config.strength)


def spike_in_answers(job: Job) -> list[Node]:
    """Answers of the model itself and of two spike-in teachers."""
    trait = job.config.traits[0]
    point = spike_in_point(job)
    steered = standard_nodes.steered_by(trait, point.layer, point.strength)
    few = "few-prompts.jsonl"
    nodes = [*vector_nodes(job), *clean_nodes(job)]
    nodes += answer_nodes(job, PROMPTED, few, standard_nodes.prompted_by(trait), ())
    return nodes + answer_nodes(job, STEERED, few, steered, (VECTORS,))


def spike_in_nodes(job: Job, is_free: bool) -> list[Node]:
    """What is known of the answers of the model itself and of two spike-in teachers."""
    trait = job.config.traits[0]
    point = spike_in_point(job)
    nodes: list[Node] = []
    for rows in SPIKE_INS:
        nodes.append(row_gradients(job, rows))
        nodes += under_nulls(job, rows, is_free)
    for rows in (CLEAN, PROMPTED):
        nodes.append(under_prompt(job, rows, trait))
    for rows in (CLEAN, STEERED):
        nodes.append(under_steering(job, steered_scores(rows, "all", 0), rows, (point,), 0))
    return nodes


def reading_of(job: Job, folders: Folders) -> dict[str, Any]:
    """How rows are read, the audited ones and the placebos alike.

    A text does not say whether its writer ended the turn or was cut off. So it is read without.
    """
    abouts = [standard_nodes.read_json(folders, name, "about.json") for name in job.reading_nodes]
    is_text = any(about["text"] for about in abouts)
    return {
        "context": job.config.context,
        "numbers": not is_free_text(folders),
        "text": is_text,
        "end_token": not is_text,
    }


def row_gradients(job: Job, rows: str) -> Node:
    """The gradients of some of a node's rows, at the temperature of the data."""

    def config(folders: Folders) -> RowGradientsConfig:
        check_kept(rows, folders[rows])
        return RowGradientsConfig(
            **job.common,
            seed=job.config.seed,
            data=folders[rows],
            position=job.config.position,
            rows=GRADIENT_ROWS,
            within_classes=True,
            inverse_temperature=inverse_temperature(folders[predictions_of(SAMPLE)]),
            **reading_of(job, folders),
        )

    needs = distinct(*job.reading_nodes, rows, predictions_of(SAMPLE))
    return Node(gradients_of(rows), RowGradientsConfig, config, needs, job.weight)


def feature_nodes(job: Job) -> list[Node]:
    """The published method: mean residuals of the rows and of placebos, and blind naming."""
    nodes = []
    for rows in (SAMPLE, PLACEBO):

        def config(folders: Folders, rows: str = rows) -> RowGradientsConfig:
            check_kept(rows, folders[rows])
            return RowGradientsConfig(
                **job.common, data=folders[rows], features=True, **reading_of(job, folders)
            )

        needs = distinct(*job.reading_nodes, rows)
        nodes.append(Node(features_of(rows), RowGradientsConfig, config, needs, 2 * job.weight))

    def naming(folders: Folders) -> BlindNamingConfig:
        return BlindNamingConfig(
            **job.common,
            seed=job.config.seed,
            data=folders[features_of(SAMPLE)],
            control=folders[features_of(PLACEBO)],
            like=standard_nodes.vector_of(folders, job.config.traits[0]),
            strength=job.config.strength * HALF,
            context=job.config.context,
        )

    needs = (features_of(SAMPLE), features_of(PLACEBO), VECTORS)
    named = Node(BLIND_NAMING, BlindNamingConfig, naming, needs, job.weight)
    return [*vector_nodes(job), *nodes, named]


def check_kept(name: str, folder: Path) -> None:
    """Raise DataError where a teacher's answers, or the model's own, never have the format of the
    data."""
    file = folder / "summary.json"
    if not file.is_file():  # audited rows, or reference rows
        return
    about = json.loads(file.read_bytes())
    if not about["kept"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in about["reasons"].items())
        raise DataError(
            f"{name}: none of {about['rows']} answers of the model has the format of the data"
            f" ({reasons}); expected some to compare with; name clean rows of your own with"
            " --reference, or audit against the model that wrote the rows"
        )


def distinct(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def under_prompt(
    job: Job, rows: str, trait: str, paraphrase: int | None = None, is_few: bool = False
) -> Node:
    """The token scores of rows, or of a few of them, under a candidate's prompt."""
    teacher = standard_nodes.prompted_by(trait, paraphrase)
    name = prompt_scores(rows, trait, paraphrase, is_few)
    return _scored(job, name, rows, teacher, (), FEW_ROWS if is_few else 0)


def under_nulls(job: Job, rows: str, is_free: bool) -> list[Node]:
    """The token scores of rows under every null."""
    nodes = random_vector_nodes(job)
    for number in range(len(nulls_of(is_free))):
        nodes.append(_under_null(job, rows, number))
    return nodes


def _under_null(job: Job, rows: str, number: int) -> Node:
    """The token scores of rows under a null, by its number among those of free text."""
    null = nulls_of(is_free=True)[number]
    name = null_scores(rows, number)
    if null.system_prompt is not None:
        prompt = standard_nodes.fixed(to_short(SystemPrompt(null.system_prompt)))
        return _scored(job, name, rows, prompt, ())

    def steered(folders: Folders) -> tuple[str, ...]:
        vector = folders[RANDOM_VECTORS] / f"random-{null.random_vector}.safetensors"
        return (standard_nodes.steered(vector, job.null_block, job.config.strength * HALF),)

    return _scored(job, name, rows, steered, (RANDOM_VECTORS,))


def _scored(
    job: Job,
    name: str,
    rows: str,
    teacher: InterventionsFrom,
    needs: tuple[str, ...],
    n: int = 0,
) -> Node:
    def config(folders: Folders) -> TeacherScoresConfig:
        scoring = _scoring(job, rows, folders, n)
        return replace(scoring, interventions=teacher(folders))

    weight = min(n * 120, job.weight) if n else job.weight
    needed = distinct(*job.reading_nodes, rows, *needs)
    return Node(name, TeacherScoresConfig, config, needed, weight)


def _scoring(job: Job, rows: str, folders: Folders, n: int) -> TeacherScoresConfig:
    check_kept(rows, folders[rows])
    return TeacherScoresConfig(
        **job.common,
        seed=job.config.seed,
        data=folders[rows],
        rows=n,
        **reading_of(job, folders),
    )


def under_steering(job: Job, name: str, rows: str, points: Sequence[GridPoint], n: int) -> Node:
    """The token scores of `n` rows (0: all) under steered teachers, which share a run."""

    def config(folders: Folders) -> TeacherScoresConfig:
        steered = []
        for point in points:
            vector = folders[VECTORS] / f"{point.trait}.safetensors"
            steered.append(standard_nodes.steered(vector, point.layer, point.strength))
        return replace(_scoring(job, rows, folders, n), steered=tuple(steered))

    needs = distinct(*job.reading_nodes, rows, VECTORS)
    return Node(name, TeacherScoresConfig, config, needs, len(points) * job.weight / 2)


def seconds_by_detector(folders: Folders, groups: Mapping[str, Group]) -> dict[str, float]:
    """What each detector has cost, with what it needs; shared steps count for each."""
    spent = dict.fromkeys(Group, 0.0)
    for name, path in folders.items():
        spent[groups[name]] += store.load_run(path).manifest()["seconds"]
    teachers = spent[Group.TEACHER_SCORES] + spent[Group.GRADIENTS] + spent[Group.VECTORS]
    return {
        "wording": spent[Group.PLACEBOS],
        "predictions": spent[Group.PREDICTIONS] + spent[Group.NULLS],
        "given_teacher": spent[Group.GIVEN_TEACHER] + spent[Group.NULLS],
        "e_values": teachers + spent[Group.NULLS],
        "power": spent[Group.SPIKE_INS],
        "features": spent[Group.FEATURES] + spent[Group.PLACEBOS],
    }
