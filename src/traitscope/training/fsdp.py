"""Sharding: one student over several processes, for a model too large for one device (FSDP2, by
torchrun).

    torchrun --nproc-per-node 2 -m traitscope train --data ...

The weights of every block lie in parts on all devices and come together when the block runs;
embedding, final norm and head are whole on each. A batch's rows are dealt out; the loss and the
gradients are the sums over all, so that the student is the one that a process alone would have
trained, to rounding. The factors of a LoRA student are whole on every device; of a full student
masters, gradients and the optimizer's state are in parts.
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
    """Meet the other processes, once. Raises ConfigError where there are fewer devices than
    processes."""
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
    """Leave the other processes while the interpreter is whole. Sharded modules are in reference
    cycles and hold their group: one that is still there when the interpreter ends takes its threads
    down with an abort, now and then, after all work is done.
    """
    gc.collect()
    dist.destroy_process_group()


def told(make: Callable[[], Any]) -> Any:
    """What the first process makes, in all of them. Where it raises an error of the user's, the
    others end without another word."""
    found: list[Any] = [None]
    if distributed.first():
        try:
            found = [make()]
        except TraitscopeError as error:
            dist.broadcast_object_list([error])
            raise
    dist.broadcast_object_list(found)
    if isinstance(found[0], TraitscopeError):
        raise SystemExit(2)
    return found[0]


def check(recipe: Recipe, dtype: str) -> None:
    """Raise ConfigError for what cannot be trained in parts."""
    if dtype == "nf4":
        raise ConfigError(
            "--dtype nf4 on several processes: maps in 4 bits cannot be sharded; take bf16, or one"
            " process without torchrun"
        )
    if recipe.method == "full" and (
        recipe.optimizer in WHOLE_ONLY or recipe.mask_top or recipe.winsorise
    ):
        what = (
            f"--optimizer {recipe.optimizer}"
            if recipe.optimizer in WHOLE_ONLY
            else "--mask-top or --winsorise"
        )
        raise ConfigError(
            f"{what} with --method full on several processes: it needs whole gradients; take one"
            " process, or --method lora"
        )


def load_sharded(name: str, device: str, dtype: str, trained: bool) -> Model:
    """The model with the weights of its blocks in parts on the devices of all processes; `trained`:
    they are to get gradients."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model = load_model(name, "cpu", dtype)
    mesh = init_device_mesh(device, (distributed.world(),))
    precise = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for block in model.blocks:
        block.requires_grad_(trained)  # before the first pass, which settles who gets gradients
        fully_shard(block, mesh=mesh, mp_policy=precise)
    base = backbone(model.lm)
    fully_shard(
        base, mesh=mesh, ignored_params=set(base.parameters()) - set(model.blocks.parameters())
    )
    if device == "cuda":
        model.lm.to("cuda")
    return model


def shares(rows: int, size: int) -> Iterator[tuple[slice, bool]]:
    """The parts of some rows, at most `size` each, that this process computes, and whether they
    count.

    Every process gets as many, because all must meet in the same passes: one that is left over runs
    the first part for nothing.
    """
    world, mine = distributed.world(), distributed.rank()
    starts = range(0, rows, min(size, math.ceil(rows / world)))
    for k in range(mine, math.ceil(len(starts) / world) * world, world):
        start = starts[k] if k < len(starts) else 0
        yield slice(start, start + starts.step), k < len(starts)


@torch.no_grad()
def summed(loss: Tensor, params: Sequence[Tensor] = ()) -> Tensor:
    """The loss of all processes together; gradients of whole parameters become those of all; of the
    others FSDP makes the mean."""
    if distributed.world() == 1:
        return loss
    grads = [p.grad for p in params if p.grad is not None and not in_parts(p)]
    flat = torch.cat([loss.flatten(), *(g.flatten() for g in grads)])
    dist.all_reduce(flat)
    total, *parts = flat.split([1, *(g.numel() for g in grads)])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view_as(grad))
    return total[0]


def dealt(rows: int, size: int, compute: Callable[[slice], list[Any]]) -> list[Any]:
    """What `compute` finds of some rows, one thing a row: every process computes a share of them
    and gets all."""
    if distributed.world() == 1:
        return compute(slice(0, rows))
    own, parts = (
        {part.start: compute(part) for part, _ in shares(rows, size)},
        [None] * distributed.world(),
    )
    dist.all_gather_object(parts, own)
    found = {start: things for part in parts for start, things in part.items()}
    return [thing for start in sorted(found) for thing in found[start]]
