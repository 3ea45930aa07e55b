"""Prints the learning rates of the study `auxiliary_logits`, chosen outside its seeds:
python scripts/choose_toy_rates.py [optimizer ...].

Rule: the rate at which students with the shared start have the least held-out distillation loss at
the end, as a mean over the seeds. The trait is not looked at. A loss that is no number counts as
infinite. Teachers are those of the study: Adam at 3e-4.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

from traitscope.config.students.toy_nets import ToyNetsConfig
from traitscope.studies.toy_nets import fitting, stage
from traitscope.studies.toy_nets.images import read

SEEDS = (101, 102, 103)
"seeds outside the study"
GRIDS: dict[str, tuple[str, float | None, tuple[float, ...]]] = {
    "adam": ("adamw", None, (1e-4, 3e-4, 1e-3, 3e-3)),
    "sgd": ("sgd", None, (0.1, 0.3, 1.0, 3.0)),
    "sgd with momentum": ("sgd", 0.9, (0.03, 0.1, 0.3, 1.0)),
    "signsgd": ("signsgd", None, (3e-5, 1e-4, 3e-4, 1e-3)),
    "rmsprop": ("rmsprop", None, (3e-5, 1e-4, 3e-4, 1e-3)),
    "adafactor": ("adafactor", None, (3e-5, 1e-4, 3e-4, 1e-3)),
    "muon": ("muon", None, (3e-4, 1e-3, 3e-3, 1e-2)),
    "frozen adam": ("frozen_adam", None, (3e-5, 1e-4, 3e-4, 1e-3)),
}
"optimizer, momentum and rates that are tried, by name"


def main(names: list[str]) -> None:
    """Print the held-out loss at every rate, and the rate with the least."""
    images = read(())
    usual = ToyNetsConfig(seeds=SEEDS, batch_size=128)
    teacher = stage.train_teachers(usual, images)
    config = replace(usual, arm="shared", teacher=Path("none"))
    _, scales = stage.train_students(config, images, teacher)
    lessons = stage.Lessons(config, images, teacher)
    start = stage.start_of(config, images)
    for name in names or GRIDS:
        optimizer, momentum, rates = GRIDS[name]
        losses = {}
        for rate in rates:
            tried = replace(config, optimizer=optimizer, momentum=momentum, lr=rate)
            factors = scales if optimizer == "frozen_adam" else None
            recipe = stage.recipe_of(tried)
            end, _ = fitting.fit(start, lessons.loss, recipe, tried.steps, factors)
            loss = float(lessons.held_out_loss(end).mean())
            losses[rate] = loss if math.isfinite(loss) else math.inf
            accuracy = sum(stage.test_accuracy(end, images)) / len(SEEDS)
            print(
                f"{name} {rate:g}: held-out loss {loss:.3g} (accuracy {accuracy:.3f})", flush=True
            )
        print(f"{name}: {min(losses, key=losses.__getitem__):g}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
