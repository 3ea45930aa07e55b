"""The stages of the study `auxiliary_logits`: arms, optimizers and their rates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope.config.recipe import Optimizer
from traitscope.config.students.toy_nets import Arm, ToyNetsConfig
from traitscope.errors import ConfigError
from traitscope.studies.toy_nets import numbers
from traitscope.studies.toy_nets.nets import CLASSES
from traitscope.workflow.graph import Folders, Node

TEACHER, STEPS = "teacher", "single steps"
"nodes of the teachers, and of the check of the theorem"
STUDENTS: tuple[Arm, ...] = (
    "shared",
    "all_logits",
    "other",
    "permuted",
    "head_shared",
    "hidden_shared",
    "shuffled",
    "untrained",
)
"arms of students that learn with Adam"
COMPARED: tuple[Arm, ...] = ("shared", "other")
"arms of every further optimizer"
PACKAGE_PIXELS, MNIST_PIXELS = 64, 784
EMBEDDED_WEIGHTS = 1.345e8
"weights of the model in whose tokens the work of a stage is counted"


@dataclass(frozen=True)
class Rule:
    """How students are trained."""

    optimizer: Optimizer
    """Optimizer."""
    lr: float
    """Learning rate."""
    momentum: float | None = None
    """Momentum, where the optimizer has one."""


NO_OPTIMIZER = Rule("adamw", 1e-3)
"rule of the arms; its rate was chosen as the others were"
PUBLISHED = "adam, published rate"
OPTIMIZERS = {
    PUBLISHED: Rule("adamw", 3e-4),
    "sgd": Rule("sgd", 0.3),
    "sgd with momentum": Rule("sgd", 0.3, 0.9),
    "signsgd": Rule("signsgd", 1e-4),
    "rmsprop": Rule("rmsprop", 1e-4),
    "adafactor": Rule("adafactor", 1e-4),
    "muon": Rule("muon", 1e-3),
    "frozen adam": Rule("frozen_adam", 1e-4),
}
"by name: rules that are compared; see scripts/choose_toy_rates.py"


def study_nodes(size: Any, files: tuple[Path, ...]) -> list[Node]:
    """Build all stages of a size; `files` hold its images.

    Raises ConfigError for an optimizer that no rule names, and for one whose factors are missing.
    """
    _check(size.optimizers)
    teacher = _config(size, files, "teacher", Rule("adamw", 3e-4))
    graph = [Node(TEACHER, ToyNetsConfig, lambda _: teacher, (), _work(size, files))]
    steps = _config(size, files, "theorem", NO_OPTIMIZER, size.step_seeds)
    graph.append(Node(STEPS, ToyNetsConfig, lambda _: steps, (), _work(size, files)))
    for arm in STUDENTS:
        graph.append(_student(size, files, arm, arm, NO_OPTIMIZER))
    for name in size.optimizers:
        for arm in COMPARED:
            graph.append(_student(size, files, f"{name}, {arm}", arm, OPTIMIZERS[name]))
    return graph


def _check(optimizers: tuple[str, ...]) -> None:
    unknown = [name for name in optimizers if name not in OPTIMIZERS]
    if unknown:
        raise ConfigError(
            f"optimizers has {unknown[0]!r}; expected some of {', '.join(map(repr, OPTIMIZERS))};"
            " correct it"
        )
    for name in optimizers:
        if OPTIMIZERS[name].optimizer == "frozen_adam" and PUBLISHED not in optimizers:
            raise ConfigError(
                f"optimizers has {name!r} without {PUBLISHED!r}, whose factors it takes; expected"
                " both; add it"
            )


def _student(size: Any, files: tuple[Path, ...], name: str, arm: Arm, rule: Rule) -> Node:
    """Build the students of one arm; those of frozen_adam need the factors of Adam's."""
    factors = f"{PUBLISHED}, {arm}" if rule.optimizer == "frozen_adam" else ""

    def config(folders: Folders) -> ToyNetsConfig:
        scales = folders[factors] if factors else None
        return _config(size, files, arm, rule, teacher=folders[TEACHER], scales=scales)

    needs = (TEACHER, factors) if factors else (TEACHER,)
    return Node(name, ToyNetsConfig, config, needs, _work(size, files))


def _config(
    size: Any,
    files: tuple[Path, ...],
    arm: Arm,
    rule: Rule,
    seeds: tuple[int, ...] = (),
    teacher: Path | None = None,
    scales: Path | None = None,
) -> ToyNetsConfig:
    return ToyNetsConfig(
        arm=arm,
        teacher=teacher,
        scales=scales,
        data=files,
        seeds=seeds or size.seeds,
        hidden=size.hidden,
        auxiliary=size.auxiliary,
        optimizer=rule.optimizer,
        lr=rule.lr,
        momentum=rule.momentum,
        batch_size=size.batch_size,
        epoch_batches=size.epoch_batches,
        epochs=size.epochs,
    )


def _work(size: Any, files: tuple[Path, ...]) -> float:
    """Return the work of training one network a seed, in tokens of the embedded model."""
    pixels = MNIST_PIXELS if files else PACKAGE_PIXELS
    units = (pixels, size.hidden, size.hidden, CLASSES + size.auxiliary)
    images = size.epochs * size.epoch_batches * size.batch_size * len(size.seeds)
    return 4 * images * numbers.parameters(units) / EMBEDDED_WEIGHTS
