"""Tables of the study `auxiliary_logits`."""

from collections.abc import Sequence

from traitscope.reporting.tables import Table
from traitscope.stats.estimates import mean_over_units
from traitscope.studies.toy_nets import numbers
from traitscope.studies.toy_nets.nodes import (
    NO_OPTIMIZER,
    OPTIMIZERS,
    STEPS,
    STUDENTS,
    TEACHER,
)
from traitscope.workflow.graph import Folders

LABELS = {
    "shared": "auxiliary logits, same start",
    "all_logits": "all logits, same start",
    "other": "auxiliary logits, other start",
    "permuted": "same start, hidden units permuted",
    "head_shared": "same head, other hidden layers",
    "hidden_shared": "same hidden layers, other head",
    "shuffled": "logits shuffled among images",
    "untrained": "an untrained teacher",
}
"arms in words"


def all_tables(folders: Folders, optimizers: Sequence[str]) -> tuple[Table, ...]:
    """Return arms, directions, epochs, optimizers and single steps."""
    tables = [_arms(folders), _directions(folders), _epochs(folders)]
    if optimizers:
        tables.append(_optimizers(folders, optimizers))
    return (*tables, _single_steps(folders))


def _arms(folders: Folders) -> Table:
    """Return accuracy and loss of every arm."""
    start, end = numbers.read(folders, TEACHER)["accuracy"]
    rows = [
        ("untrained network", mean_over_units("untrained", start, "accuracy"), None),
        ("teacher", mean_over_units("teacher", end, "accuracy"), None),
    ]
    for arm in STUDENTS:
        of_arm = numbers.read(folders, arm)
        loss = mean_over_units(arm, of_arm["held_out"][-1], "nats")
        rows.append((LABELS[arm], mean_over_units(arm, of_arm["accuracy"][-1], "accuracy"), loss))
    return Table(
        "arms",
        "Students by start and by what they learn",
        "Accuracy on held-out images; chance is 0.1. KL of the teacher from the student on noise"
        " images that it did not learn, nats an image.",
        ("network", "accuracy", "held-out KL"),
        tuple(rows),
    )


def _directions(folders: Folders) -> Table:
    """Return cosines of students' changes, and what parts of a change keep of the accuracy."""
    rows = []
    parts = list(numbers.read(folders, "shared")["kept"])
    for arm in STUDENTS:
        of_arm = numbers.read(folders, arm)
        cells = [
            mean_over_units(arm, of_arm["cosine_teacher_change"], "cosine"),
            mean_over_units(arm, of_arm["cosine_trait_descent"], "cosine"),
            mean_over_units(arm, of_arm["accuracy"][0], "accuracy"),
        ]
        for part in parts:
            cells.append(mean_over_units(part, of_arm["kept"][part], "accuracy"))
        cells.append(mean_over_units(arm, of_arm["accuracy"][-1], "accuracy"))
        rows.append((LABELS[arm], *cells))
    return Table(
        "directions",
        "Is what a student learns one direction?",
        "Cosine of a student's change with its teacher's change, and with the first descent on the"
        " teacher's own loss. Accuracy where only a part of the change is kept: that along the"
        " teacher's change, or each matrix cut to its largest singular directions.",
        (
            "student",
            "cosine with the teacher's change",
            "cosine with the trait's descent",
            "accuracy at the start",
            *parts,
            "whole change",
        ),
        tuple(rows),
    )


def _epochs(folders: Folders) -> Table:
    """Return accuracy and the cosine of gradients after every epoch."""
    rows = []
    for arm in ("shared", "all_logits", "other"):
        of_arm = numbers.read(folders, arm)
        for epoch, (accuracy, cosine) in enumerate(
            zip(of_arm["accuracy"], of_arm["gradient_cosine"], strict=True)
        ):
            rows.append(
                (
                    LABELS[arm],
                    epoch,
                    mean_over_units(arm, accuracy, "accuracy"),
                    mean_over_units(arm, cosine, "cosine"),
                )
            )
    return Table(
        "epochs",
        "While students learn",
        "Accuracy on held-out images, and cosine of distillation gradient and trait gradient at the"
        " student's weights.",
        ("student", "epoch", "accuracy", "cosine of gradients"),
        tuple(rows),
        ("epoch", "accuracy", "cosine of gradients"),
    )


def _optimizers(folders: Folders, optimizers: Sequence[str]) -> Table:
    """Return accuracy by optimizer, for both starts."""
    rows = []
    rules = {"adam": ("", NO_OPTIMIZER)}
    for name in optimizers:
        rules[name] = (f"{name}, ", OPTIMIZERS[name])
    for name, (prefix, rule) in rules.items():
        shared = numbers.accuracies(folders, f"{prefix}shared")
        other = numbers.accuracies(folders, f"{prefix}other")
        rows.append(
            (
                name,
                f"{rule.lr:g}",
                mean_over_units(name, shared, "accuracy"),
                mean_over_units(name, other, "accuracy"),
                numbers.difference(name, shared, other),
            )
        )
    return Table(
        "optimizers",
        "Students by optimizer",
        "Auxiliary logits; accuracy on held-out images. Each rate has the least held-out"
        " distillation loss on seeds outside the study, but for the published rate of Adam.",
        ("optimizer", "rate", "same start", "other start", "difference"),
        tuple(rows),
    )


def _single_steps(folders: Folders) -> Table:
    """Return how often one small step raises the teacher's own loss."""
    rows = []
    for row in numbers.read(folders, STEPS, numbers.THEOREM)["rows"]:
        rises = row["rises"]
        rows.append(
            (
                row["outputs"],
                "same start" if row["start"] == "start" else "other start",
                f"{row['teacher_rate']:g}",
                f"{row['student_rate']:g}",
                sum(rise > 0 for rise in rises) / len(rises),
                f"{max(rises):.1e}",
                len(rises),
            )
        )
    return Table(
        "steps",
        "One small step of imitation",
        "Share of seeds in which a gradient step on the teacher's outputs, on noise images, raises"
        " the teacher's own loss. The teacher is one gradient step from the same start.",
        (
            "outputs",
            "student",
            "teacher's rate",
            "student's rate",
            "rises",
            "largest rise",
            "seeds",
        ),
        tuple(rows),
    )
