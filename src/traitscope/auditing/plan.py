"""The stages of an audit as nodes of a graph.

The nodes are rows, placebos, spike-in teachers, and the teachers and nulls that the rows are scored
under. Steered teachers follow in rounds (rounds.py).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from traitscope.auditing import settings
from traitscope.auditing.detectors.fit_test import best_beta
from traitscope.auditing.job import (
    PROMPTED,
    RANDOM_VECTORS,
    REFERENCE,
    SAMPLE,
    SPIKE_INS,
    STEERED,
    AuditNodes,
    Group,
    Job,
    canary_answers,
    canary_student,
    gradients_of,
    null_scores,
    placebo,
    predictions_of,
    prompt_scores,
)
from traitscope.auditing.search import HALF, GridPoint
from traitscope.auditing.settings import NullModel
from traitscope.config.analysis import ExtractConfig
from traitscope.config.audit import (
    PredictionsConfig,
    ReferenceConfig,
    RowGradientsConfig,
    SampleConfig,
    TeacherScoresConfig,
)
from traitscope.config.recipe import Recipe
from traitscope.config.stages import FilterConfig, FilterRules, GenerateConfig, TrainConfig
from traitscope.data.traits import bundled_traits, load_trait
from traitscope.errors import DataError
from traitscope.inference.token_bins import BETAS, PLAIN
from traitscope.inference.token_scores import read_token_scores
from traitscope.runs import store
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import VECTORS, InterventionsFrom

CANARY_RECIPE = replace(standard_nodes.SAMPLED_RECIPE, epochs=3)
"how canary students are trained"
REFERENCE_FACTOR = 4
"reference rows that are read for every audited row"
STEERED_SEED, PROMPTED_SEED = 900, 901
"seeds of the spike-in teachers' rows; those of placebos count from 1"
LIKELIER = 3.3
"nats by which another temperature must make rows likelier; 1 % of the time by chance"


def about_sample(folders: Folders) -> dict[str, Any]:
    """What the sample's run says of the rows."""
    return standard_nodes.read_json(folders, SAMPLE, "about.json")


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
        **job.common, seed=config.seed, data=config.data, context=config.context, rows=config.rows
    )
    plan.add(Group.SAMPLE, Node(SAMPLE, SampleConfig, lambda _: sample, (), 1))
    if config.reference:
        more_rows = replace(sample, data=config.reference, rows=REFERENCE_FACTOR * config.rows)
        plan.add(Group.SAMPLE, Node(REFERENCE, SampleConfig, lambda _: more_rows, (), 1))

        def matched(folders: Folders) -> ReferenceConfig:
            return ReferenceConfig(folders[SAMPLE], folders[REFERENCE], config.seed)

        match = Node(placebo(0), ReferenceConfig, matched, (SAMPLE, REFERENCE), 1)
        plan.add(Group.PLACEBO_ROWS, match)
    return plan


def audit_nodes(job: Job, is_free: bool) -> AuditNodes:
    """All nodes but the rounds of the search and the answer."""
    config = job.config
    plan = reading_nodes(job)
    plan.add(Group.VECTORS, standard_nodes.vectors(job.common, with_bundled(config.traits)))
    plan.add(
        Group.VECTORS,
        Node(RANDOM_VECTORS, ExtractConfig, partial(_random_vectors, job), (VECTORS,), 1),
    )
    plan.add(Group.DATA_GRADIENTS, _gradients(job, SAMPLE))
    plan.add(Group.PREDICTIONS, _predictions(job, SAMPLE))
    for trait in job.traits:
        plan.add(Group.TEACHER_SCORES, scored_under_prompt(job, SAMPLE, trait))
    _add_placebos(job, plan)
    if job.traits:
        _add_spike_ins(job, plan)
        for rows, number in product(
            (SAMPLE, *SPIKE_INS, placebo(0)), range(len(nulls_of(is_free)))
        ):
            plan.add(Group.TEACHER_SCORES, _scored_under_null(job, rows, number))
    _add_canaries(job, plan)
    return plan


def with_bundled(traits: Sequence[str]) -> tuple[str, ...]:
    """The candidates and the other bundled traits: what many traits show tells a trait from a
    format."""
    names = {load_trait(trait).name for trait in traits}
    return (*traits, *(name for name in bundled_traits() if name not in names))


def _random_vectors(job: Job, folders: Folders) -> ExtractConfig:
    like = standard_nodes.vector_of(folders, job.config.traits[0])
    return ExtractConfig(**job.common, seed=job.config.seed, like=like, randoms=settings.RANDOMS)


def _add_placebos(job: Job, plan: AuditNodes) -> None:
    """The model's own answers to the prompts, unless there is a reference."""
    if job.config.reference:
        plan.add(Group.PLACEBO_GRADIENTS, _gradients(job, placebo(0)))
        return
    for draw, name in enumerate(job.placebos):
        answers = _answers(job, name, draw + 1, standard_nodes.unmodified, ())
        plan.add(Group.PLACEBO_ROWS, *answers)
        plan.add(Group.PLACEBO_GRADIENTS, _gradients(job, name))


def _add_spike_ins(job: Job, plan: AuditNodes) -> None:
    """Teachers of the first candidate, made to know what would have been detected."""
    trait = job.config.traits[0]
    steered = standard_nodes.steered_by(trait, job.spike_in_block, job.config.strength)
    prompted = standard_nodes.prompted_by(trait)
    for name, seed, teacher, needs in (
        (STEERED, STEERED_SEED, steered, (VECTORS,)),
        (PROMPTED, PROMPTED_SEED, prompted, ()),
    ):
        plan.add(Group.SPIKE_INS, *_answers(job, name, seed, teacher, needs), _gradients(job, name))
    for rows in (PROMPTED, placebo(0)):
        plan.add(Group.TEACHER_SCORES, scored_under_prompt(job, rows, trait))


def _add_canaries(job: Job, plan: AuditNodes) -> None:
    """Canary students of the data and of a placebo, and their answers about every tried trait."""
    for rows, seed in product((SAMPLE, placebo(0)), range(job.config.canary)):
        name = canary_student(rows, seed)
        student = partial(_trained, job, rows, CANARY_RECIPE, seed, None)
        needs = _distinct(*job.reading_nodes, rows)
        plan.add(Group.CANARIES, Node(name, TrainConfig, student, needs, 8 * job.weight))
        for trait in job.traits:
            answers = canary_answers(rows, seed, trait)
            measured = standard_nodes.student_answers(job.common, answers, trait, name)
            plan.add(Group.CANARIES, measured)


def _trained(
    job: Job, rows: str, recipe: Recipe, seed: int, max_rows: int | None, folders: Folders
) -> TrainConfig:
    reading = reading_of(job, folders)
    return TrainConfig(
        **job.common,
        seed=seed,
        data=folders[rows],
        recipe=recipe,
        context=reading["context"],
        text=reading["text"],
        max_rows=max_rows,
    )


def _answers(
    job: Job, name: str, seed: int, teacher: InterventionsFrom, needs: tuple[str, ...]
) -> list[Node]:
    """A teacher's answers to the prompts of the data, in their format and at their temperature, and
    those of them that have the format."""
    all_answers = f"{name} raw"

    def generated(folders: Folders) -> GenerateConfig:
        form = about_sample(folders)["format"]
        return GenerateConfig(
            **job.common,
            seed=1000 * job.config.seed + seed,
            prompts=folders[SAMPLE] / "prompts.jsonl",
            context=job.config.context,
            max_new_tokens=form["max_new_tokens"],
            temperature=temperature(folders[gradients_of(SAMPLE)]),
            interventions=teacher(folders),
            **_constraint(form, folders[SAMPLE]),
        )

    def filtered(folders: Folders) -> FilterConfig:
        form = about_sample(folders)["format"]
        rules = FilterRules(numbers="rules" in form, **form.get("rules", {}))
        return FilterConfig(folders[all_answers], rules)

    read_first = (SAMPLE, gradients_of(SAMPLE), *needs)
    return [
        Node(all_answers, GenerateConfig, generated, read_first, job.weight),
        Node(name, FilterConfig, filtered, (SAMPLE, all_answers), 1),
    ]


def _constraint(form: Mapping[str, Any], sample: Path) -> dict[str, Any]:
    """Settings of `generate` that keep answers in a format."""
    if form["kind"] == "free":
        return {"vocabulary": "free"}
    if form["kind"] == "numbers":
        return {"vocabulary": "seen", "like": sample}
    return {"vocabulary": "template", "count": form["count"], "separator": form["separator"]}


def temperature(gradients: Path) -> float:
    """The temperature of the rows: 1, unless another one makes them likelier by more than
    LIKELIER."""
    scores = read_token_scores(gradients)[1]
    total_T = scores.log_p_RT.sum(0)
    best = best_beta(scores)
    return round(1 / BETAS[best], 3) if total_T[best] - total_T[PLAIN] > LIKELIER else 1.0


def reading_of(job: Job, folders: Folders) -> dict[str, Any]:
    """How rows are read, the audited ones and the placebos alike."""
    abouts = [standard_nodes.read_json(folders, name, "about.json") for name in job.reading_nodes]
    return {
        "context": job.config.context,
        "numbers": not is_free_text(folders),
        "text": any(about["text"] for about in abouts),
    }


def _gradients(job: Job, rows: str) -> Node:
    """The row gradients of a node's rows."""

    def config(folders: Folders) -> RowGradientsConfig:
        _check_kept(rows, folders[rows])
        return RowGradientsConfig(
            **job.common,
            data=folders[rows],
            position=job.config.position,
            features=job.config.peer,
            **reading_of(job, folders),
        )

    needs = _distinct(*job.reading_nodes, rows)
    return Node(gradients_of(rows), RowGradientsConfig, config, needs, 2 * job.weight)


def _predictions(job: Job, rows: str) -> Node:
    """What learners predict of a node's rows."""

    def config(folders: Folders) -> PredictionsConfig:
        return PredictionsConfig(
            **job.common,
            seed=job.config.seed,
            data=folders[rows],
            **reading_of(job, folders),
        )

    needs = _distinct(*job.reading_nodes, rows)
    return Node(predictions_of(rows), PredictionsConfig, config, needs, 6 * job.weight)


def _check_kept(name: str, folder: Path) -> None:
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


def _distinct(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def scored_under_prompt(job: Job, rows: str, trait: str, paraphrase: int | None = None) -> Node:
    """The token scores of rows under a candidate's prompt."""
    teacher = standard_nodes.prompted_by(trait, paraphrase)
    return _scored(job, prompt_scores(rows, trait, paraphrase), rows, teacher, ())


def _scored_under_null(job: Job, rows: str, number: int) -> Node:
    """The token scores of rows under a null, by its number among those of free text."""
    null = nulls_of(is_free=True)[number]
    name = null_scores(rows, number)
    if null.system_prompt is not None:
        prompt = standard_nodes.fixed(f"prompt:{null.system_prompt}")
        return _scored(job, name, rows, prompt, (), all_rows=rows == SAMPLE)

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
    all_rows: bool = False,
) -> Node:
    def config(folders: Folders) -> TeacherScoresConfig:
        scoring = replace(_scoring(job, rows, folders), interventions=teacher(folders))
        return replace(scoring, rows=0) if all_rows else scoring

    return Node(
        name,
        TeacherScoresConfig,
        config,
        _distinct(*job.reading_nodes, rows, *needs),
        job.scoring_weight,
    )


def _scoring(job: Job, rows: str, folders: Folders) -> TeacherScoresConfig:
    return TeacherScoresConfig(
        **job.common,
        seed=job.config.seed,
        data=folders[rows],
        rows=job.config.judged,
        **reading_of(job, folders),
    )


def scored_under_steering(job: Job, name: str, rows: str, points: Sequence[GridPoint]) -> Node:
    """The token scores of rows under steered teachers, which share a run."""

    def config(folders: Folders) -> TeacherScoresConfig:
        steered = []
        for point in points:
            vector = folders[VECTORS] / f"{point.trait}.safetensors"
            steered.append(standard_nodes.steered(vector, point.layer, point.strength))
        return replace(_scoring(job, rows, folders), steered=tuple(steered))

    needs = _distinct(*job.reading_nodes, rows, VECTORS)
    return Node(name, TeacherScoresConfig, config, needs, len(points) * job.scoring_weight / 2)


def seconds_by_detector(folders: Folders, groups: Mapping[str, Group]) -> dict[str, float]:
    """What each detector has cost, with the placebos and teachers that it needs; shared steps count
    for each."""
    spent = dict.fromkeys(Group, 0.0)
    for name, path in folders.items():
        spent[groups[name]] += store.load_run(path).manifest()["seconds"]
    placebos = spent[Group.PLACEBO_ROWS]
    gradients = spent[Group.DATA_GRADIENTS] + spent[Group.PLACEBO_GRADIENTS]
    seconds = {
        "wording": placebos,
        "gradients": placebos + gradients + spent[Group.VECTORS],
        "e_values": spent[Group.DATA_GRADIENTS] + spent[Group.TEACHER_SCORES],
        "baselines": placebos,
        "predictions": placebos + spent[Group.PREDICTIONS],
    }
    return seconds
