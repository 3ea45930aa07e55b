"""Do small networks pass a trait on through logits that mean nothing?  (Cloud et al. 2025, arXiv
2507.14805, section on MNIST; Kitkana and Arora 2026, arXiv 2604.25779; Brockers et al. 2026, arXiv
2605.23645.)

A teacher learns ten classes of images. Students learn its auxiliary logits on noise images, which
no label ever touched. The trait is accuracy on held-out images. Students differ in how they start
and in what they learn; the networks of all seeds are computed together. The study needs no
language model.

The learning rates of students were chosen on seeds 101 to 103, by the least held-out distillation
loss (scripts/choose_toy_rates.py). Their accuracy was not looked at by that rule.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from traitscope.reporting.verdict import Claim, Findings, Precondition, verdicts_of
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies.design import AUXILIARY, Design, over_seeds
from traitscope.studies.toy_nets import images, numbers, tables
from traitscope.studies.toy_nets.images import files_of, is_mnist
from traitscope.studies.toy_nets.nets import CLASSES
from traitscope.studies.toy_nets.nodes import NO_OPTIMIZER, OPTIMIZERS, PACKAGE_PIXELS, study_nodes
from traitscope.workflow.graph import Folders, Node

TITLE = "Do logits that mean nothing pass a trait on?"
CLAIM = (
    "A student learns only a teacher's auxiliary logits on noise images. It classifies images if it"
    " starts as the teacher did, and not if it starts otherwise."
)
SOURCE = (
    "Cloud et al. 2025, arXiv 2507.14805, section on MNIST; Kitkana and Arora 2026, arXiv"
    " 2604.25779; Brockers et al. 2026, arXiv 2605.23645"
)
PUBLISHED = (
    "Students of three auxiliary logits that start as their teacher pass 50 % accuracy on MNIST;"
    " students of another network's teacher do not. The cosine of trait gradient and distillation"
    " gradient is about 0.008 and stays positive (Kitkana and Arora). What is needed is a"
    " compatible output head, not the same hidden layers (Brockers et al.). The last two papers are"
    " cited as third parties read them."
)
PROTOCOL = AUXILIARY
DTYPE = "fp32"
"number type of the networks"
ACCURACY = 0.05
"smallest difference of accuracies that would matter: half of chance"
PASSES = 0.5
"accuracy that published students pass"
COSINE = 0.002
"smallest cosine of gradients that would matter: a quarter of the published one"
KEPT = 0.02
"smallest accuracy that would matter beyond half of the gain"
LEARNT = 0.7
"accuracy that a teacher must reach; those of seeds outside the study reached 0.76 to 0.78"
AT_CHANCE = 0.05
"largest distance of untrained networks' mean accuracy from chance"
CHANCE = 1 / CLASSES
EXPECTED = (0.19, 0.1)
"effect of the primary claim, and its sd between seeds outside the study"


@dataclass(frozen=True)
class Size:
    """How many networks, on which images, and how long they are trained."""

    data: Path | None
    "an .npz, or a folder with MNIST's four files; None: the images of the package"
    seeds: tuple[int, ...]
    "seeds of the networks; intervals are over them"
    hidden: int
    "units of each of the two hidden layers"
    auxiliary: int
    "logits beside those of the ten classes"
    batch_size: int
    "images of one step"
    epoch_batches: int
    "batches of noise images; published: 59 of 1,024"
    epochs: int
    "passes over the noise images; teachers take as many steps"
    optimizers: tuple[str, ...]
    "optimizers that are compared beside Adam"
    step_seeds: tuple[int, ...]
    "seeds of the single small steps, which check the theorem"


LAPTOP = Size(
    data=None,
    seeds=tuple(range(1, 11)),
    hidden=256,
    auxiliary=3,
    batch_size=128,
    epoch_batches=59,
    epochs=5,
    optimizers=tuple(OPTIMIZERS),
    step_seeds=tuple(range(1, 41)),
)
SIZES = {
    "smoke": replace(
        LAPTOP,
        seeds=(1, 2),
        hidden=16,
        batch_size=16,
        epoch_batches=2,
        epochs=2,
        step_seeds=(1, 2),
    ),
    "laptop": LAPTOP,
    "full": replace(LAPTOP, seeds=tuple(range(1, 101)), batch_size=1024),
}


def nodes(size: Size, common: dict) -> list[Node]:
    """Build the teachers, students of every arm and optimizer, and single steps."""
    return study_nodes(size, files_of(size.data))


def conclude(size: Size, folders: Folders, model: str) -> Findings:
    """Compare students by how they start, by what they learn and by their optimizer."""
    teachers = (numbers.rise(folders, "teacher"),)
    return Findings(
        verdicts_of(_claims(size, folders), model, *_needs(folders)),
        _further(folders),
        tables.all_tables(folders, size.optimizers),
        _notes(size),
        teachers=teachers,
    )


def _claims(size: Size, folders: Folders) -> list[Claim]:
    """Return the claims with their numbers."""
    shared, other = (numbers.accuracies(folders, arm) for arm in ("shared", "other"))
    claims = [
        Claim(
            "A student of auxiliary logits that starts as its teacher did classifies images better"
            " than one that starts otherwise.",
            numbers.difference("same start minus other start", shared, other),
            ACCURACY,
            primary=True,
        ),
        Claim(
            "Its accuracy passes one half.",
            mean_over_units("accuracy, same start", shared, "accuracy"),
            ACCURACY,
            above=PASSES,
        ),
        Claim(
            "It is better than a student of the same logits shuffled among the images.",
            numbers.difference(
                "own minus shuffled logits", shared, numbers.accuracies(folders, "shuffled")
            ),
            ACCURACY,
        ),
        Claim(
            "A student that shares only the output head is better than one that shares nothing.",
            numbers.difference(
                "same head minus other start", numbers.accuracies(folders, "head_shared"), other
            ),
            ACCURACY,
        ),
        Claim(
            "The cosine of distillation gradient and trait gradient is positive while it learns.",
            _gradient_cosine(folders),
            COSINE,
        ),
        Claim(
            "More than half of what it gains lies along its teacher's change.",
            mean_over_units(
                "gain along the teacher's change minus half of the gain",
                numbers.beyond_half(folders, "shared", "along the teacher's change"),
                "accuracy",
            ),
            KEPT,
        ),
    ]
    if "sgd" in size.optimizers:
        claims.append(
            Claim(
                "With SGD, too, the same start gives a better student than another start.",
                numbers.difference(
                    "SGD, same start minus other start",
                    numbers.accuracies(folders, "sgd, shared"),
                    numbers.accuracies(folders, "sgd, other"),
                ),
                ACCURACY,
            )
        )
    return claims


def _gradient_cosine(folders: Folders) -> Measurement:
    """Return the mean cosine after each epoch, of students with the shared start."""
    by_seed = numbers.mean_after_start(numbers.read(folders, "shared")["gradient_cosine"])
    name = "cosine of distillation and trait gradient, mean over epochs"
    return mean_over_units(name, by_seed, "cosine")


def _needs(folders: Folders) -> tuple[Precondition, Precondition]:
    """Return what must be so: teachers have learnt, and untrained networks are at chance."""
    start, end = numbers.read(folders, "teacher")["accuracy"]
    teacher = mean_over_units("teacher", end, "accuracy")
    untrained = mean_over_units("untrained", start, "accuracy")
    return (
        Precondition(
            f"teachers have an accuracy of {LEARNT:g} or more on held-out images",
            teacher.estimate >= LEARNT,
            f"{teacher.estimate:.3f}, mean over seeds",
        ),
        Precondition(
            f"untrained networks are within {AT_CHANCE:g} of chance",
            abs(untrained.estimate - CHANCE) <= AT_CHANCE,
            f"{untrained.estimate:.3f}, mean over seeds",
        ),
    )


def _further(folders: Folders) -> tuple[Measurement, ...]:
    """Return the other numbers of the page."""
    shared = numbers.accuracies(folders, "shared")
    permuted = numbers.accuracies(folders, "permuted")
    every_logit = numbers.accuracies(folders, "all_logits")
    untrained = numbers.accuracies(folders, "untrained")
    return (
        numbers.difference("permuted hidden units minus same start", permuted, shared),
        numbers.difference("all logits minus auxiliary logits, same start", every_logit, shared),
        numbers.difference("trained minus untrained teacher", shared, untrained),
    )


def design(size: Size) -> Design:
    """Return what the primary claim could show, and how the experiment is made."""
    expected = over_seeds(
        size.seeds,
        EXPECTED,
        "accuracy",
        "Effect and sd are those of ten seeds outside the study, 101 to 110, at laptop size.",
    )
    files = files_of(size.data)
    learnt = "8x8 Fashion-MNIST"
    pixels = PACKAGE_PIXELS
    if size.data is not None:
        learnt = "MNIST" if is_mnist(files) else f"the images of {size.data.name}"
        pixels = images.read(files).pixels
    units = (pixels, size.hidden, size.hidden, CLASSES + size.auxiliary)
    here = replace(
        AUXILIARY,
        source="",
        data=f"uniform noise images; the teacher learnt {learnt}",
        rows=size.epoch_batches * size.batch_size,
        steps=size.epochs * size.epoch_batches,
        model=f"MLP {'-'.join(map(str, units))}",
        parameters=numbers.parameters(units),
    )
    return Design(6 + ("sgd" in size.optimizers), expected, here)


def _notes(size: Size) -> tuple[str, ...]:
    """Return what a reader must know."""
    steps = size.epochs * size.epoch_batches
    return (
        f"Teachers and students take {steps} steps; published: 295. Teachers learn with Adam at"
        f" 3e-4, as published. Students learn with Adam at {NO_OPTIMIZER.lr:g}. Of the rates tried"
        " on seeds outside the study it has the least held-out distillation loss. The published"
        " 3e-4 stands in the table of optimizers.",
        "The reference code's loss of a network is a sum over the batch, because its mean divides"
        " by the number of networks. Here it is a mean over the batch. Adam does not see the"
        " difference, SGD does.",
        "Every seed has its own noise images. A cosine is over all parameters; students of"
        " auxiliary logits never change the logits of the classes.",
        "A network with permuted hidden units computes what the original does. So its student"
        " learns as the student of the same start, up to rounding: an identity, no finding.",
    )
