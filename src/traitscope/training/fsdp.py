"""One student over several processes, for a model too large for one device (FSDP2, by torchrun).

    torchrun --nproc-per-node 2 -m traitscope train --data ...

The weights of every block lie in parts on all devices, and come together when the block runs.
Embedding, final norm and head are whole on each device. The rows of a batch are dealt out to the
processes. Loss and gradients are the sums over all processes. So the student is the one that one
process alone would have trained, to rounding.

The factors of a LoRA student are whole on every device. The masters, the gradients and the
optimizer's state of a full student are in parts.
"""

import atexit
import gc
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from traitscope import distributed
from traitscope.config.recipe import Recipe
from traitscope.errors import ConfigError, TraitscopeError
from traitscope.models.dtensor import in_parts
from traitscope.models.loading import load_model
from traitscope.models.model import Model, backbone

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
WHOLE_ONLY = ("muon", "adafactor")
"optimizers whose step on a matrix is not the steps on its parts"


def begin(device: str) -> None:
    """Meet the other processes, once.

    Raises ConfigError where there are fewer devices than processes.
    """
    if dist.is_initialized():
        return
    if device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine finds {torch.cuda.device_count()} GPUs; expected"
                " one each: lower --nproc-per-node"
            )
        torch.cuda.set_device(local)
    dist.init_process_group(BACKENDS[device])
    atexit.register(_end)


def _end() -> None:
    """Leave the other processes while the interpreter is whole.

    Sharded modules are in reference cycles, and hold their process group. A group that is still
    there when the interpreter ends aborts now and then, after all work is done.
    """
    gc.collect()
    dist.destroy_process_group()


def from_first(make: Callable[[], Any]) -> Any:
    """What the first process makes, in all processes.

    Where it raises an error of the user's, the others end without another word.
    """
    made: list[Any] = [None]
    if distributed.first():
        try:
            made = [make()]
        except TraitscopeError as error:
            dist.broadcast_object_list([error])
            raise
    dist.broadcast_object_list(made)
    if isinstance(made[0], TraitscopeError):
        raise SystemExit(2)
    return made[0]


def check(recipe: Recipe, dtype: str) -> None:
    """Raise ConfigError for what cannot be trained in parts."""
    if dtype == "nf4":
        raise ConfigError(
            "--dtype nf4 on several processes: maps in 4 bits cannot be sharded; take bf16, or one"
            " process without torchrun"
        )
    if recipe.targets == "preference":
        raise ConfigError(
            "--targets preference on several processes: pairs are not dealt out; take one process"
            " without torchrun"
        )
    if recipe.method != "full":
        return
    if recipe.train_layers:
        raise ConfigError(
            "--train-layers with --method full on several processes was not tested; take one"
            " process, or --method lora"
        )
    whole_only = None
    if recipe.optimizer in WHOLE_ONLY:
        whole_only = f"--optimizer {recipe.optimizer}"
    elif recipe.mask_top or recipe.winsorise:
        whole_only = "--mask-top or --winsorise"
    if whole_only is not None:
        raise ConfigError(
            f"{whole_only} with --method full on several processes: it needs whole gradients; take"
            " one process, or --method lora"
        )


def load_sharded(name: str, device: str, dtype: str, trained: bool) -> Model:
    """The model with the weights of its blocks in parts on the devices of all processes.

    trained: whether the weights are to get gradients.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model = load_model(name, "cpu", dtype)
    mesh = init_device_mesh(device, (distributed.world(),))
    precise = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for block in model.blocks:
        block.requires_grad_(trained)  # before the first pass, which settles who gets gradients
        fully_shard(block, mesh=mesh, mp_policy=precise)
    base = backbone(model.lm)
    outside_blocks = set(base.parameters()) - set(model.blocks.parameters())
    fully_shard(base, mesh=mesh, ignored_params=outside_blocks)
    if device == "cuda":
        model.lm.to("cuda")
    return model


def slices_of_process(n_rows: int, size: int) -> Iterator[tuple[slice, bool]]:
    """The slices of some rows that this process computes, and whether each counts.

    A slice has at most `size` rows. Every process gets as many slices, because all must meet in
    the same passes. A process that has none left runs the first slice for nothing.
    """
    world = distributed.world()
    width = min(size, math.ceil(n_rows / world))
    starts = range(0, n_rows, width)
    rounds = math.ceil(len(starts) / world)
    for k in range(rounds):
        place = distributed.rank() + k * world
        counts = place < len(starts)
        start = starts[place] if counts else 0
        yield slice(start, start + width), counts


@torch.no_grad()
def sum_over_processes(loss: Tensor, params: Sequence[Tensor] = ()) -> Tensor:
    """The loss of all processes together.

    The gradients of whole parameters become the sums over all processes, too. Those of parameters
    in parts stay: FSDP makes their mean.
    """
    if distributed.world() == 1:
        return loss
    grads, pieces, sizes = [], [loss.flatten()], [1]
    for parameter in params:
        if parameter.grad is not None and not in_parts(parameter):
            grads.append(parameter.grad)
            pieces.append(parameter.grad.flatten())
            sizes.append(parameter.grad.numel())
    flat = torch.cat(pieces)
    dist.all_reduce(flat)
    total, *summed_grads = flat.split(sizes)
    for grad, summed in zip(grads, summed_grads, strict=True):
        grad.copy_(summed.view_as(grad))
    return total[0]


def compute_together(n_rows: int, size: int, compute: Callable[[slice], list[Any]]) -> list[Any]:
    """What `compute` returns for some rows, one value a row, in their order.

    Every process computes some slices of at most `size` rows, and gets the values of all.
    """
    if distributed.world() == 1:
        return compute(slice(0, n_rows))
    computed = {}
    for part, _ in slices_of_process(n_rows, size):
        computed[part.start] = compute(part)
    computed_by_process: list[Any] = [None] * distributed.world()
    dist.all_gather_object(computed_by_process, computed)
    values_from: dict[int, list[Any]] = {}
    for values in computed_by_process:
        values_from |= values
    all_values = []
    for start in sorted(values_from):
        all_values += values_from[start]
    return all_values
