"""The stage `toy_nets`: teachers on images, students on their outputs on noise, or single steps.

    networks.json    of a teacher and of students: numbers of every network, in the order of seeds
    teacher.safetensors    parameters of teachers
    scales.safetensors     factors that frozen_adam takes, of adamw students
    theorem.json     of single steps: rises of the teacher's own loss

Shapes: M models, B images, D pixels, O logits.
"""

import json
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from traitscope import array_files, atomic_files
from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.config.students.toy_nets import ToyNetsConfig
from traitscope.errors import ConfigError
from traitscope.runs import opening, store
from traitscope.stages import registry
from traitscope.studies.toy_nets import fitting, geometry, nets, theorem
from traitscope.studies.toy_nets.images import Images, read
from traitscope.studies.toy_nets.nets import CLASSES, Params
from traitscope.training.optimizers import scales_of

NETWORKS, TEACHER, SCALES, THEOREM = (
    "networks.json",
    "teacher.safetensors",
    "scales.safetensors",
    "theorem.json",
)
RANKS = (1, 4, 16)
"ranks that the change of each matrix is cut to"
TRAIT_IMAGES = 512
"training images on which the gradient of the trait's loss is taken beside a student's"
TEACHER_RATES = (1e-3, 1e-2, 1e-1)
STUDENT_RATES = (1e-2, 1e-1, 1.0)
"rates of the single steps of `theorem`"


def sizes_of(config: ToyNetsConfig, images: Images) -> tuple[int, int, int, int]:
    """Return the units of the input, the hidden layers and the output."""
    return (images.pixels, config.hidden, config.hidden, CLASSES + config.auxiliary)


def recipe_of(config: ToyNetsConfig) -> Recipe:
    """Return the recipe that makes the optimizer."""
    return Recipe(optimizer=config.optimizer, lr=config.lr, momentum=config.momentum)


def train_teachers(config: ToyNetsConfig, images: Images) -> Params:
    """Return networks trained on labelled images, one a seed, each in an order of its own."""
    start = nets.initial(config.seeds, "start", sizes_of(config, images))
    size = min(config.batch_size, len(images.train_ND))
    orders = [nets.stream(seed, "teacher's order") for seed in config.seeds]
    queues: list[Tensor] = [torch.empty(0, dtype=torch.long) for _ in config.seeds]

    def loss(params: Params, step: int) -> Tensor:
        rows = []
        for place, order in enumerate(orders):
            if len(queues[place]) < size:
                queues[place] = torch.randperm(len(images.train_ND), generator=order)
            rows.append(queues[place][:size])
            queues[place] = queues[place][size:]
        rows_MB = torch.stack(rows)
        return fitting.trait_loss(params, images.train_ND[rows_MB], images.train_labels_N[rows_MB])

    return fitting.fit(start, loss, recipe_of(config), config.steps)[0]


def start_of(config: ToyNetsConfig, images: Images) -> Params:
    """Return the networks that students of an arm start as."""
    sizes = sizes_of(config, images)
    shared = nets.initial(config.seeds, "start", sizes)
    other = nets.initial(config.seeds, "other start", sizes)
    match config.arm:
        case "other":
            return other
        case "permuted":
            return nets.permuted(shared, config.seeds)
        case "head_shared":
            return [*other[:4], *shared[4:]]
        case "hidden_shared":
            return [*shared[:4], *other[4:]]
    return shared


class Lessons:
    """What students of an arm read: noise images, and their teacher's logits on them."""

    def __init__(self, config: ToyNetsConfig, images: Images, teacher: Params) -> None:
        self.config, self.pixels, self.teacher = config, images.pixels, teacher
        self.logits = CLASSES + config.auxiliary if config.arm == "all_logits" else config.auxiliary
        if config.arm == "untrained":
            sizes = sizes_of(config, images)
            self.teacher = nets.initial(config.seeds, "untrained teacher", sizes)

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Return the noise images [M, B, D] of one batch, and their targets [M, B, O]."""
        config = self.config
        images = nets.noise(config.seeds, number, config.batch_size, self.pixels)
        with torch.no_grad():
            targets = nets.forward(self.teacher, images)[..., -self.logits :]
        if config.arm != "shuffled":
            return images, targets
        mixed = []
        for model, seed in enumerate(config.seeds):
            order = torch.randperm(config.batch_size, generator=nets.stream(seed, "mix", number))
            mixed.append(targets[model][order])
        return images, torch.stack(mixed)

    def loss(self, params: Params, step: int) -> Tensor:
        """Return the loss [M] of a step; every epoch has the same batches in another order."""
        epoch, place = divmod(step, self.config.epoch_batches)
        order = torch.randperm(self.config.epoch_batches, generator=nets.stream(epoch, "batches"))
        return fitting.distillation_loss(params, *self.batch(int(order[place])))

    def held_out_loss(self, params: Params) -> Tensor:
        """Return the loss [M] on one batch that no step reads."""
        return fitting.distillation_loss(params, *self.batch(self.config.epoch_batches))


def trait_loss(images: Images, params: Params) -> Tensor:
    """Return the teacher's own loss [M] on the first training images."""
    shown = images.train_ND[:TRAIT_IMAGES].to(params[0].dtype).expand(len(params[0]), -1, -1)
    labels = images.train_labels_N[:TRAIT_IMAGES].expand(len(params[0]), -1)
    return fitting.trait_loss(params, shown, labels)


class Watched:
    """What is noted of students at the start and after every epoch."""

    def __init__(self, lessons: Lessons, images: Images) -> None:
        self.lessons, self.images = lessons, images
        self.accuracy: list[list[float]] = []
        self.held_out: list[list[float]] = []
        self.gradient_cosine: list[list[float]] = []

    def __call__(self, params: Params, step: int) -> None:
        """Note accuracy, held-out loss, and the cosine of distillation and trait gradient."""
        if step % self.lessons.config.epoch_batches:
            return
        loss = self.lessons.held_out_loss(params)
        distillation = fitting.gradient(loss, params)
        trait = fitting.gradient(trait_loss(self.images, params), params)
        self.accuracy.append(test_accuracy(params, self.images))
        self.held_out.append(loss.tolist())
        self.gradient_cosine.append(nets.cosine(distillation, trait).tolist())


def test_accuracy(params: Params, images: Images) -> list[float]:
    """Return the accuracy on held-out images, by network."""
    return nets.accuracy(params, images.test_ND, images.test_labels_N).tolist()


def train_students(
    config: ToyNetsConfig, images: Images, teacher: Params, scales: list[Tensor] | None = None
) -> tuple[dict, list[Tensor]]:
    """Return the numbers of students of one arm, and the factors that frozen_adam would take."""
    lessons = Lessons(config, images, teacher)
    watched = Watched(lessons, images)
    start = start_of(config, images)
    recipe = recipe_of(config)
    end, steppers = fitting.fit(start, lessons.loss, recipe, config.steps, scales, watched)
    shared = nets.initial(config.seeds, "start", sizes_of(config, images))
    teacher_change = nets.minus(teacher, shared)
    kept = {}
    for name, params in geometry.parts_of(start, end, teacher_change, RANKS).items():
        kept[name] = test_accuracy(params, images)
    first = [p.clone().requires_grad_() for p in shared]
    descent = [-g for g in fitting.gradient(trait_loss(images, first), first)]
    numbers = {
        "seeds": list(config.seeds),
        "accuracy": watched.accuracy,
        "held_out": watched.held_out,
        "gradient_cosine": watched.gradient_cosine,
        "cosine_teacher_change": geometry.alignment(start, end, teacher_change).tolist(),
        "cosine_trait_descent": geometry.alignment(start, end, descent).tolist(),
        "kept": kept,
    }
    is_adam = config.optimizer == "adamw"
    return numbers, _stacked_scales(steppers, end) if is_adam else []


def _stacked_scales(steppers: list, params: Params) -> list[Tensor]:
    """Return the factors of adamw, whose state belongs to the tensors that it stepped on."""
    (stepper,) = steppers
    return scales_of(stepper, stepper.param_groups[0]["params"])


def single_steps(config: ToyNetsConfig, images: Images) -> list[dict]:
    """Return the rises of the teacher's own loss by outputs, start and rates."""
    sizes = sizes_of(config, images)
    starts = {}
    for name in ("start", "other start"):
        starts[name] = nets.initial(config.seeds, name, sizes, torch.float64)
    shown = nets.noise(config.seeds, 0, config.batch_size, images.pixels).double()
    rows = []
    for outputs, logits in (("auxiliary", config.auxiliary), ("all", sizes[-1])):

        def imitate(teacher: Params, logits: int = logits) -> theorem.Loss:
            with torch.no_grad():
                targets = nets.forward(teacher, shown)[..., -logits:]
            return partial(fitting.distillation_loss, images_MBD=shown, targets_MBO=targets)

        trait = partial(trait_loss, images)
        for row in theorem.grid(starts, trait, imitate, TEACHER_RATES, STUDENT_RATES):
            rows.append({"outputs": outputs, **row})
    return rows


def run_toy_nets(config: ToyNetsConfig, out: Output) -> store.Run:
    """Return the sealed run of teachers, students or single steps; see this file's head."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            images = read(config.data)
            _write(config, images, run)
    return run


def _write(config: ToyNetsConfig, images: Images, run: store.Run) -> None:
    """Compute and write the files of a run."""
    if config.arm == "theorem":
        rows = single_steps(config, images)
        atomic_files.write_json(run.file(THEOREM), {"seeds": list(config.seeds), "rows": rows})
        return
    if config.arm == "teacher":
        params = train_teachers(config, images)
        start = nets.initial(config.seeds, "start", sizes_of(config, images))
        accuracies = [test_accuracy(start, images), test_accuracy(params, images)]
        _write_tensors(run.file(TEACHER), params)
        numbers = {"seeds": list(config.seeds), "accuracy": accuracies}
        atomic_files.write_json(run.file(NETWORKS), numbers)
        return
    sizes = sizes_of(config, images)
    teacher = _tensors(config.teacher, TEACHER, config, sizes)
    scales = None
    if config.optimizer == "frozen_adam":
        scales = _tensors(config.scales, SCALES, config, sizes)
    numbers, factors = train_students(config, images, teacher, scales)
    atomic_files.write_json(run.file(NETWORKS), numbers)
    if factors:
        _write_tensors(run.file(SCALES), factors)


def _write_tensors(path: Path, tensors: list[Tensor]) -> None:
    named = {str(place): tensor.contiguous() for place, tensor in enumerate(tensors)}
    atomic_files.write_bytes(path, array_files.tensor_bytes(named, {}))


def _tensors(folder: Path | None, name: str, config: ToyNetsConfig, sizes: tuple) -> list[Tensor]:
    """Return stacked tensors of another run.  Raises ConfigError where they do not fit."""
    flag = "--teacher" if name == TEACHER else "--scales"
    file = Path() if folder is None else folder / name
    if not file.is_file():
        raise ConfigError(f"{flag} {folder} has no {name}; expected a run of toy_nets; name one")
    seeds = json.loads((file.parent / NETWORKS).read_text(encoding="utf-8"))["seeds"]
    if seeds != list(config.seeds):
        raise ConfigError(
            f"{flag} {folder} holds networks of seeds {seeds}; expected {list(config.seeds)}, those"
            " of this run; name one with the same seeds"
        )
    tensors = array_files.read_tensors(file)
    ordered = [tensors[str(place)] for place in range(len(tensors))]
    expected = nets.initial(config.seeds, "start", sizes)
    if [t.shape for t in ordered] != [t.shape for t in expected]:
        raise ConfigError(
            f"{flag} {folder} holds networks of other sizes than {'-'.join(map(str, sizes))};"
            " expected those of this run; name one with the same images and settings"
        )
    return ordered
