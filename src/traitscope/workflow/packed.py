"""Together: stages of one kind over one frozen base, side by side in one process: many students in
a pass (packing.py).

Every run keeps its own address, folder and seal, and equals the run made alone to rounding; its
manifest says how many it was packed with. One that fails, or diverges, does not disturb the others.
A pack that was killed continues to the same bytes; only where it was killed while it wrote its
checkpoints, so that some students are ahead, to rounding.

Shapes: N completion tokens.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traitscope.config.analysis import ExtractConfig
from traitscope.config.common import OnModel, Output
from traitscope.config.stages import MeasureConfig
from traitscope.data.prompt_files import read_prompts
from traitscope.data.prompts import number_prompts
from traitscope.errors import TraitscopeError
from traitscope.interventions.intervention import Adapter
from traitscope.models.model import Model
from traitscope.runs import stage, store
from traitscope.runs.progress import progress
from traitscope.stages import extract, measure, registry, train
from traitscope.training import loop
from traitscope.training.student import packed_students


def key(verb: str, config: Any) -> Hashable | None:
    """What stages must share to be packed; None for one that cannot be."""
    if verb == "train" and config.recipe.method == "lora":
        return verb, config.model, config.device, config.dtype
    if (verb == "extract" or verb == "measure" and config.engine == "here") and _folder(config):
        return verb, replace(config, interventions=())
    return None


def _folder(config: MeasureConfig | ExtractConfig) -> Path | None:
    """The whole LoRA student that a config is about, and nothing else."""
    told = stage.parse_all(config.interventions)
    if (
        len(told) == 1
        and isinstance(told[0], Adapter)
        and told[0].whole
        and (Path(told[0].folder) / "adapter_config.json").exists()
    ):
        return Path(told[0].folder)
    return None


def run_together(
    verb: str, configs: Sequence[OnModel], out: Output
) -> list[Path | TraitscopeError]:
    """The sealed runs of configs with one `key`, in their order; in the place of one that failed,
    why."""
    configs = [stage.settled(config) for config in configs]
    found: dict[int, Path | TraitscopeError] = {}
    jobs = list(_opened(verb, configs, out, found))
    try:
        if jobs:
            MAKERS[verb](stage.model_of(configs[0]), jobs)
    except TraitscopeError as error:
        for job in jobs:
            job.close(error)
    except BaseException as error:
        for job in jobs:
            job.close(error)
        raise
    found |= {n: job.error or job.run.path for job in jobs for n in job.places}
    return [found[n] for n in range(len(configs))]


@dataclass
class Job:
    """One stage of a pack, from opening its run to sealing it."""

    places: list[int]
    "which of the configs it is for: two of a study may be the same stage"
    config: Any
    run: store.Run
    stack: ExitStack
    error: Any = None
    open: bool = True

    def close(self, error: BaseException | None = None) -> None:
        """Seal the run, or leave it unsealed where something went wrong; once."""
        if self.open:
            self.open, self.error = False, error
            self.stack.__exit__(
                *((type(error), error, error.__traceback__) if error else (None, None, None))
            )


def _opened(
    verb: str, configs: Sequence[OnModel], out: Output, found: dict[int, Path | TraitscopeError]
) -> Iterator[Job]:
    """Jobs for what is not sealed yet, opened in the order of their folders, so that two packs
    never wait for each other."""
    places: dict[Path, list[int]] = {}
    for n, config in enumerate(configs):
        try:
            with stage.planning():
                found[n] = registry.function(registry.VERBS[verb].run)(config, out).path
        except stage.Missing as missing:
            places.setdefault(missing.path, []).append(n)
        except TraitscopeError as error:
            found[n] = error
    for path in sorted(places):
        config, stack = configs[places[path][0]], ExitStack()
        inputs = stage.trait_inputs([config.trait]) if verb == "measure" else {}
        run = stack.enter_context(
            stage.opened(verb, config, out, verb == "train", inputs, {"packed": len(places)})
        )
        if run.sealed:  # by another process, in the meantime
            stack.close()
            found |= dict.fromkeys(places[path], run.path)
        else:
            yield Job(places[path], config, run, stack)


def _train(model: Model, jobs: Sequence[Job]) -> None:
    trainings: list[train.TrainingRun] = []
    going: list[Job] = []
    for job in jobs:
        try:
            train.check_scales(job.config)
            trainings.append(train.TrainingRun(job.run, job.config, model))
            going.append(job)
        except TraitscopeError as error:
            job.close(error)
    if not going:
        return
    recipes = [job.config.recipe for job in going]
    seeds = [job.config.seed for job in going]
    scales = [job.config.scales for job in going]
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

        with progress(f"train {len(students)} students", tokens_left, "tokens") as advance:
            loop.train_side_by_side(model, trainees, on_end, advance)


def _measure(model: Model, jobs: Sequence[Job]) -> None:
    config, folders = jobs[0].config, [_folder(job.config) for job in jobs]
    each = measure.measure_each(model, config.trait, folders, **measure.core_settings(config))
    for job, scores in zip(jobs, each, strict=True):
        measure.write_scores(job.run, scores)
        job.close()


def _extract(model: Model, jobs: Sequence[Job]) -> None:
    config, folders = jobs[0].config, [_folder(job.config) for job in jobs]
    prompts = (
        read_prompts(config.prompts)
        if config.prompts
        else number_prompts(config.n, config.prompt_seed)
    )
    for job, vector in zip(
        jobs, extract.student_vectors(model, folders, prompts, config), strict=True
    ):
        extract.write_vectors(job.run, model, {"v_student": vector}, config)
        job.close()


MAKERS = {"train": _train, "measure": _measure, "extract": _extract}
