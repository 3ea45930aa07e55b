"""The direction in which rows move a base, against the base's own answers to the same prompts.

    d_l = mean over rows of (g_l(control row) - g_l(row))

g_l is the steering gradient behind block l, at the base (stages/gradients.py). A descent step on
the rows moves the residual stream along d_l; what any answers do to it, the control takes out. It
is computed once, before training, and stays while the student moves.

Shapes: L layers, D d_model.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from traitscope import atomic_files, distributed
from traitscope.config.stages import TrainConfig
from traitscope.data.records import Record
from traitscope.errors import ConfigError, DataError
from traitscope.inference.token_rows import row_check
from traitscope.interventions import short_form
from traitscope.interventions.intervention import Ablate, DataDirection, Intervention
from traitscope.interventions.vector import Vector, random_like, vector_bytes
from traitscope.models.model import Model
from traitscope.runs import row_intake, store
from traitscope.runs.progress import progress
from traitscope.stages.gradients import gradients, readable_pairs

FILE = "data_direction"
"name, without its suffix, of the files of a run that hold directions of its rows"


def data_direction(
    model: Model,
    rows: Sequence[Record],
    control: Sequence[Record],
    *,
    context: str | None = None,
    position: str = "all",
    batch_size: int = 8,
    done: Callable[[int], None] | None = None,
) -> Vector:
    """The direction [L, D] in which rows move a base, minus that of its own rows.

    control: Rows of the unmodified model on the same prompts, matched by id.
    context: System turn of rows that have none.
    position: Tokens that steering gradients are summed over.
    done: A function called with the number of rows of each batch.

    Raises DataError where no control row matches, and where both sides are the same rows.
    """
    sums = gradients(
        model,
        rows,
        {},
        control,
        context=context,
        position=position,
        batch_size=batch_size,
        done=done,
    )
    if not sums.mean_LD.any():
        raise DataError(
            f"the {len(sums.ids)} rows and their control rows are the same, so they have no"
            " direction; expected the base's own answers as the control; make them with:"
            " traitscope defend --by wash"
        )
    about = {"direction_of_rows": len(sums.ids), "minus_control": True, "position": position}
    return Vector(sums.mean_LD.astype(np.float32), model.digest, about)


def with_directions(
    run: store.Run, config: TrainConfig, records: Sequence[Record], model: Model
) -> list[Intervention]:
    """What the gradients of a training lose, with the vectors of its rows in their places.

    The vectors are written into the run. Raises ConfigError for weights that are split over
    processes.
    """
    project_out = short_form.parse_all(config.project_out)
    if not any(isinstance(item, DataDirection) for item in project_out):
        return project_out
    if distributed.world() > 1:
        raise ConfigError(
            "--project-out data:... on several processes was not tested; take one process, or make"
            " the vector before: traitscope gradients --control, and name its push.safetensors"
        )
    data, control = _pairs(run, config, records, model)
    interventions: list[Intervention] = []
    for item in project_out:
        if isinstance(item, DataDirection):
            vector = _vector(model, config, item, data, control)
            name = f"{FILE}-{len(interventions)}.safetensors"
            atomic_files.write_bytes(run.file(name), vector_bytes(vector))
            item = Ablate(vector, layers=item.layers, position=item.position)
        interventions.append(item)
    return interventions


def _pairs(
    run: store.Run, config: TrainConfig, records: Sequence[Record], model: Model
) -> tuple[list[Record], list[Record]]:
    """The rows of a training and its control rows on the same prompts, as the training reads
    them."""
    control = row_intake.kept_rows(run, config, field="control")
    check = row_check(model, config.context, config.text)
    data, control = readable_pairs(run, config, check, records, control)
    alone = len(records) - len(data)
    if alone:
        print(
            f"{alone} of {len(records)} rows have no control row on the same prompt, and do not"
            " count in their direction",
            file=sys.stderr,
        )
    if config.text:
        data = [replace(record, completion_ids=None) for record in data]
        control = [replace(record, completion_ids=None) for record in control]
    return data, control


def _vector(
    model: Model,
    config: TrainConfig,
    item: DataDirection,
    data: Sequence[Record],
    control: Sequence[Record],
) -> Vector:
    """The direction of the rows, or a random one with its norms."""
    with progress("direction of the rows", 2 * len(data), "rows") as advance:
        vector = data_direction(
            model,
            data,
            control,
            context=config.context,
            position=item.position,
            batch_size=config.recipe.micro_batch,
            done=advance,
        )
    return vector if item.random is None else random_like(vector, item.random)
