"""What test_sharding.py runs in every process of torchrun: students by config, some cut off on the
way, and what hooks see.

torchrun ... sharded.py JOBS.json    {"students": [[config, root, steps before it is cut off or 0],
...], "seen": [config, vector, FILE]}
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from traitscope import distributed
from traitscope.config import parsing
from traitscope.config.common import Output
from traitscope.config.stages import TrainConfig
from traitscope.inference.forward import logits_of
from traitscope.inference.residuals import mean_residuals
from traitscope.inference.steering_gradients import steering_gradients
from traitscope.inference.token_rows import Row, completion_hidden
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Ablate, ReplaceBase, Steer
from traitscope.interventions.vector import load_vector
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.stages import train
from traitscope.training import fsdp
from traitscope.training.step import Metrics


def seen(model: Model, vector: Path) -> dict[str, np.ndarray]:
    """Residuals, logits and steering gradients of a model as it is and under edits."""
    rows = [
        Row(tuple(chat.render(model, text, None)), tuple(chat.completion_ids(model, "12, 34, 5")))
        for text in ("Name an animal.", "Continue: 4, 7,", "Hi")
    ]
    edits = {
        "plain": [],
        "steered": [Steer(load_vector(vector), (0, 1), 0.5)],
        "ablated": [Ablate(load_vector(vector), (1,))],
        "replaced": [ReplaceBase(load_vector(vector), (1,))],
    }
    found = {}
    for name, edit in edits.items():
        with applied(model, edit) as active:
            found[f"{name}.gradients"] = steering_gradients(model, active, rows, batch_size=2)
            found[f"{name}.residuals"] = mean_residuals(
                model, active, [row.prompt_ids for row in rows]
            )[0]
            with torch.no_grad():
                found[f"{name}.logits"] = logits_of(
                    model, completion_hidden(model, active, rows)[0]
                ).numpy()
    return found


def cut_off(after: int) -> None:
    """Stop the process that trains behind a step, once."""
    whole = train.TrainingRun.on_step

    def on_step(self: train.TrainingRun, metrics: Metrics, student: Any) -> None:
        whole(self, metrics, student)
        if student.step == after:
            train.TrainingRun.on_step = whole
            raise KeyboardInterrupt

    train.TrainingRun.on_step = on_step


def main(jobs: dict) -> None:
    for plain, root, steps in jobs["students"]:
        config, out = parsing.from_dict(TrainConfig, plain, "a student"), Output(root=Path(root))
        if steps:
            cut_off(steps)
            try:
                train.run_train(config, out)
            except KeyboardInterrupt:
                continue
        train.run_train(config, out)
    plain, vector, target = jobs["seen"]
    model = fsdp.load_sharded(plain, "cpu", "fp32", trained=False)
    assert model.sharded
    found = seen(model, Path(vector))
    if distributed.first():
        np.savez(target, **found)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
