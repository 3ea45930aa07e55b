"""Sentences about small networks on images, and about the students of their outputs."""

from collections.abc import Sequence

from traitscope.papers.lineage import Made
from traitscope.papers.wording.basics import Sentence, counted, listed
from traitscope.papers.wording.stages import OPTIMIZERS


def sentences(made: Sequence[Made]) -> list[Sentence]:
    """How networks were made, and by which rule each arm of students was trained."""
    runs = [run for run in made if run.run.stage == "toy_nets"]
    if not runs:
        return []
    first = runs[0].settings
    steps = first["epochs"] * first["epoch_batches"]
    said = [
        Sentence(
            f"Networks have two hidden layers of {first['hidden']} units, ten logits of classes and"
            f" {first['auxiliary']} auxiliary logits; they take {steps} steps of"
            f" {first['batch_size']} images in float32 ({counted('seed', first['seeds'])}).",
            ("cloud2025subliminal",),
        )
    ]
    by_rule: dict[str, list[str]] = {}
    for run in runs:
        settings = run.settings
        if settings["arm"] == "theorem":
            continue
        rule = f"{OPTIMIZERS[settings['optimizer']]} at {settings['lr']:g}"
        if settings["momentum"] is not None:
            rule += f" with momentum {settings['momentum']:g}"
        by_rule.setdefault(rule, []).append(settings["arm"].replace("_", " "))
    for rule, arms in by_rule.items():
        said.append(Sentence(f"{rule} trained: {listed(arms)}."))
    return said
