"""Stages of one kind, packed: many LoRA students on one frozen base, in one pass.

Every run keeps its own address, folder and seal. It equals the run made alone, to rounding, and its
manifest says how many runs it was packed with. A run that fails, or whose training diverges, does
not disturb the others.

A pack that was killed continues to the same bytes, with one exception. If it was killed while it
wrote its states, some students are ahead. Then it continues to the same numbers, to rounding.
"""

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traitscope.config.analysis import ExtractConfig
from traitscope.config.common import OnModel, Output
from traitscope.config.stages import MeasureConfig, TrainConfig
from traitscope.errors import TraitscopeError
from traitscope.interventions import peft_folder, short_form
from traitscope.interventions.intervention import Adapter
from traitscope.models.model import Model
from traitscope.plurals import counted
from traitscope.runs import manifests, model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import extract, measure, registry, train
from traitscope.training import loop
from traitscope.training.student import packed_students
from traitscope.vectors import means


def key(config: Any) -> Hashable | None:
    """What configs must share to be packed; None for a config that cannot be."""
    if isinstance(config, TrainConfig):
        alone = config.during or config.project_out or config.recipe.train_layers
        alone = alone or config.recipe.targets == "preference"
        if config.recipe.method != "lora" or alone:
            return None
        return TrainConfig, config.model, config.device, config.dtype
    answers_here = isinstance(config, MeasureConfig) and config.engine == "here"
    if (answers_here or isinstance(config, ExtractConfig)) and _folder(config):
        return type(config), replace(config, interventions=())
    return None


def _folder(config: MeasureConfig | ExtractConfig) -> Path | None:
    """The folder of the LoRA student that a config is about; None where it is about more or less
    than one whole LoRA student."""
    interventions = short_form.parse_all(config.interventions)
    if len(interventions) != 1 or not isinstance(interventions[0], Adapter):
        return None
    folder = Path(interventions[0].folder)
    is_lora = (folder / peft_folder.CONFIG).exists() and peft_folder.is_low_rank(folder)
    return folder if interventions[0].whole and is_lora else None


def run_together(configs: Sequence[OnModel], out: Output) -> list[Path | TraitscopeError]:
    """The sealed runs of configs with one `key`, in their order.

    The error of a config that failed stands in the place of its run.
    """
    configs = [opening.settled(config) for config in configs]
    results: dict[int, Path | TraitscopeError] = {}
    jobs = _opened_jobs(configs, out, results)
    try:
        if jobs:
            MAKERS[type(configs[0])](model_cache.model_of(configs[0]), jobs)
    except BaseException as error:
        for job in jobs:
            job.close(error)
        if not isinstance(error, TraitscopeError):
            raise
    for job in jobs:
        results.update(dict.fromkeys(job.places, job.error or job.run.path))
    return [results[place] for place in range(len(configs))]


@dataclass
class Job:
    """One stage of a pack, from opening its run to sealing it."""

    places: list[int]
    """Places of the configs that it is for: two nodes of a study may be the same stage."""
    config: Any
    """The settled config."""
    run: store.Run
    """The run directory, open."""
    stack: ExitStack
    """Seals the run when it is closed."""
    error: Any = None
    """What went wrong; None where nothing did."""
    is_open: bool = True
    """Whether the run is still to be sealed."""

    def close(self, error: BaseException | None = None) -> None:
        """Seal the run, or leave it unsealed where something went wrong; once."""
        if not self.is_open:
            return
        self.is_open, self.error = False, error
        if error is None:
            self.stack.__exit__(None, None, None)
        else:
            self.stack.__exit__(type(error), error, error.__traceback__)


def _opened_jobs(
    configs: Sequence[OnModel], out: Output, results: dict[int, Path | TraitscopeError]
) -> list[Job]:
    """Jobs for the configs that are not sealed yet; runs of the others are added to `results`.

    The runs are opened in the order of their folders, so that two packs never wait for each other.
    """
    places: dict[Path, list[int]] = {}
    for place, config in enumerate(configs):
        try:
            path = registry.address(config, out)
        except TraitscopeError as error:
            results[place] = error
            continue
        if manifests.is_sealed(path):
            results[place] = path
        else:
            places.setdefault(path, []).append(place)
    jobs = []
    for path in sorted(places):
        config = configs[places[path][0]]
        stack = ExitStack()
        facts: dict[str, Any] = {"packed": len(places)}
        if isinstance(config, TrainConfig):
            facts |= train.not_adapted(config)
        run = stack.enter_context(registry.opened(config, out, facts=facts))
        if run.sealed:  # by another process, in the meantime
            stack.close()
            results.update(dict.fromkeys(places[path], run.path))
        else:
            jobs.append(Job(places[path], config, run, stack))
    return jobs


def _train(model: Model, jobs: Sequence[Job]) -> None:
    trainings: list[train.TrainingRun] = []
    going: list[Job] = []
    for job in jobs:
        try:
            train.check_scales(job.config)
            records = train.training_records(job.config, job.run)
            records = train.readable_records(job.config, job.run, records, model)
            trainings.append(train.TrainingRun(job.run, job.config, records, model))
            going.append(job)
        except TraitscopeError as error:
            job.close(error)
    if not going:
        return
    recipes, seeds, scales = [], [], []
    for job in going:
        recipes.append(job.config.recipe)
        seeds.append(job.config.seed)
        scales.append(job.config.scales)
    with packed_students(model, recipes, seeds, scales) as students:
        trainees, tokens_left = [], 0
        for training, student in zip(trainings, students, strict=True):
            training.restore(student)
            tokens_left += training.plan.tokens_left(student.step)
            trainees.append(loop.Trainee(student, training.plan, training.on_step))

        def on_end(n: int, error: TraitscopeError | None) -> None:
            if error is None:
                trainings[n].finish(students[n])
            going[n].close(error)

        with progress(
            f"train {counted(len(students), 'student')}", tokens_left, "tokens"
        ) as advance:
            loop.train_side_by_side(model, trainees, on_end, advance)


def _measure(model: Model, jobs: Sequence[Job]) -> None:
    config, folders = jobs[0].config, [_folder(job.config) for job in jobs]
    each = measure.measure_each(model, config.trait, folders, **measure.core_settings(config))
    for job, scores in zip(jobs, each, strict=True):
        measure.write_scores(job.run, scores)
        job.close()


def _extract(model: Model, jobs: Sequence[Job]) -> None:
    config, folders = jobs[0].config, [_folder(job.config) for job in jobs]
    settings = extract.core_settings(config)
    prompts = extract.prompts_of(config, [job.run for job in jobs])
    vectors = means.student_vectors(model, folders, prompts, **settings)
    for job, vector in zip(jobs, vectors, strict=True):
        extract.write_vectors(job.run, model, {"v_student": vector}, config)
        job.close()


MAKERS = {TrainConfig: _train, MeasureConfig: _measure, ExtractConfig: _extract}
