"""Together: stages of one kind over one frozen base, side by side in one process: many students in
a pass (packing.py).

Every run keeps its own address, folder and seal, and equals the run made alone to rounding; its
manifest says how many it was packed with. One that fails, or diverges, does not disturb the others.
A pack that was killed continues to the same bytes; only where it was killed while it wrote its
checkpoints, so that some students are ahead, to rounding.

Shapes: N completion tokens.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from traitscope.config.analysis import ExtractConfig
from traitscope.config.common import OnModel, Output
from traitscope.config.stages import MeasureConfig
from traitscope.data.prompts import number_prompts
from traitscope.data.records import read_prompts
from traitscope.errors import TraitscopeError
from traitscope.inference import forward, losses
from traitscope.inference.token_rows import completion_hidden
from traitscope.interventions.intervention import Adapter
from traitscope.models.model import Model
from traitscope.runs import stage, store
from traitscope.runs.progress import progress
from traitscope.stages import extract, measure, registry
from traitscope.training import loop
from traitscope.training.student import Student, packed_students

PASS_ROWS = 16
"""rows of all students in one pass on a CPU, where more take memory and no less time
(benchmarks/packing.py)"""


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
    courses: dict[int, loop.Course] = {}
    for n, job in enumerate(jobs):
        try:
            loop.check_scales(job.config)
            courses[n] = loop.course_of(job.run, job.config, model)
        except TraitscopeError as error:
            job.close(error)
    going = [jobs[n] for n in courses]
    if not going:
        return
    recipes, seeds, scales = zip(
        *((job.config.recipe, job.config.seed, job.config.scales) for job in going), strict=True
    )
    with packed_students(model, recipes, seeds, scales) as students:
        pairs = list(zip(courses.values(), students, strict=True))
        for course, student in pairs:
            loop.restore(course.run, student)
        left = sum(course.left(student.step) for course, student in pairs)
        with progress(f"train {len(pairs)} students", left, "tokens") as told:
            train_packed(model, pairs, lambda n, error: going[n].close(error), told)


def train_packed(
    model: Model,
    pairs: Sequence[tuple[loop.Course, Student]],
    ended: Callable[[int, TraitscopeError | None], None],
    told: Callable[[int], None],
) -> None:
    """Train packed students, each from where it stands to its own end; `ended` hears which has come
    there, or why not."""
    pack = pairs[0][1].active.pack
    ways = {n: course.batches(student.step) for n, (course, student) in enumerate(pairs)}
    while ways:
        batches = {n: batch for n, way in ways.items() if (batch := next(way, None))}
        for n in [n for n in ways if n not in batches]:
            del ways[n]
            pairs[n][0].finish(pairs[n][1])
            ended(n, None)
        if not batches:
            break
        sums = _gradients(model, pairs, batches)
        values = torch.stack(
            [
                loop.advance(pairs[n][1], pairs[n][0].config.recipe, sums[n], pairs[n][0].total)
                for n in batches
            ]
        ).tolist()
        for n, own in zip(batches, values, strict=True):
            course, student = pairs[n]
            try:
                metrics = loop.stepped(student, course.config.recipe, own)
                with pack.only(n):
                    metrics |= loop.held_out(
                        model,
                        student,
                        course.config.recipe,
                        course.total,
                        course.held,
                        course.rows,
                        course.soft,
                    )
                    course.on_step(metrics, student)
            except TraitscopeError as error:
                del ways[n]
                ended(n, error)
            told(sum(len(course.rows[i].ids) for i in batches[n]))


def _gradients(
    model: Model, pairs: Sequence[tuple[loop.Course, Student]], batches: dict[int, list[int]]
) -> dict[int, Tensor]:
    """Fill every student's gradients from its own batch, micro-batches of all side by side; its
    loss per token."""
    active = pairs[0][1].active
    tokens = {
        n: sum(len(pairs[n][0].rows[i].completion_ids) for i in batch)
        for n, batch in batches.items()
    }
    found = {n: torch.zeros((), device=model.device) for n in batches}
    sizes = {n: pairs[n][0].config.recipe.micro_batch for n in batches}
    for k in range(max(-(-len(batch) // sizes[n]) for n, batch in batches.items())):
        left = {
            n: part
            for n, batch in batches.items()
            if (part := batch[k * sizes[n] : (k + 1) * sizes[n]])
        }
        longest = {n: max(len(pairs[n][0].rows[i].ids) for i in part) for n, part in left.items()}
        for parts in _passes(left, longest, PASS_ROWS if model.device.type == "cpu" else None):
            active.pack.rows = tuple(len(parts.get(n, ())) for n in range(len(pairs)))
            rows = {n: [pairs[n][0].rows[i] for i in part] for n, part in parts.items()}
            hidden_ND, targets_N = completion_hidden(
                model, active, [row for own in rows.values() for row in own]
            )
            lengths = [sum(len(row.completion_ids) for row in own) for own in rows.values()]
            total = torch.zeros((), device=model.device)
            for n, hidden, targets in zip(
                rows, hidden_ND.split(lengths), targets_N.split(lengths), strict=True
            ):
                loss = _loss(model, hidden, targets, pairs[n][0].soft, parts[n]) / tokens[n]
                found[n] += loss.detach()
                total = total + loss
            total.backward()
    return found


def _passes(
    parts: dict[int, list[int]], longest: dict[int, int], most: int | None
) -> Iterator[dict[int, list[int]]]:
    """Students' micro-batches that share a pass: as many as have `most` rows together, or one; all
    of them for None.

    Those with a like longest row go together, since a pass is padded to its longest.
    """
    groups: list[list[int]] = []
    for n in sorted(parts, key=lambda n: longest[n]):
        if not groups or most is not None and sum(len(parts[m]) for m in (*groups[-1], n)) > most:
            groups.append([])
        groups[-1].append(n)
    for group in groups:
        yield {n: parts[n] for n in sorted(group)}


def _loss(
    model: Model,
    hidden_ND: Tensor,
    targets_N: Tensor,
    soft: Sequence[Tensor] | None,
    part: Sequence[int],
) -> Tensor:
    """A student's loss on its micro-batch, a sum over tokens."""
    if soft is None:
        return losses.cross_entropy(model, hidden_ND, targets_N)
    return losses.soft_cross_entropy(
        model, hidden_ND, forward.sent(torch.cat([soft[i] for i in part]), model.device)
    )


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
