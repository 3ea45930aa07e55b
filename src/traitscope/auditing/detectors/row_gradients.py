"""Pushes: minus the steering gradient of every row, kept in full, and the model's own choices on
the row (choices.py).

    pushes.npy      float16 [R, L, D]; of unit length by row and layer
    norms.npy       float32 [R, L]; their lengths before
    loss.npy        float64 [R]; mean of -log p over the row's completion tokens
    features.npy    float32 [R, L, D], with --features: mean residual over the row's completion
                    tokens
    choices.jsonl, choices.json     see choices.py

Memory does not grow with the rows: shards are written as they come, and a run that is killed
continues behind the last one.

Shapes: R rows, L layers, D d_model.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import reduce
from io import BytesIO
from itertools import islice
from operator import add
from pathlib import Path

import numpy as np

from traitscope import atomic_files
from traitscope.config.audit import PushesConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.records import Record
from traitscope.errors import ConfigError
from traitscope.inference import losses, token_scores
from traitscope.inference.steering_gradients import gradient_batches
from traitscope.inference.token_rows import Row, rows_from
from traitscope.inference.token_scores import Choices
from traitscope.interventions.applied import applied
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry

SHARD = 128
"rows between two writes to disk; a run that is killed repeats at most this many"
EMPTY = 1e-30


def run_pushes(config: PushesConfig, out: Output) -> store.Run:
    """The sealed run with the files above."""
    config = opening.settled(config)
    if config.data is None:
        raise ConfigError("--data is missing: name a run of `intake` or `filter`, or a JSONL file")
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config, config.data)
    return run


def _write(run: store.Run, config: PushesConfig, data: Path) -> None:
    """A pass over the file for the names of its rows, and one for what is missing; a shard of rows
    is in memory at one time."""
    ids = [record.id for record in row_files.iter_kept(data)]
    starts = range(0, len(ids), SHARD)
    shards = [run.file(f"scratch/rows-{start:08d}.npz") for start in starts]
    missing = {start: path for start, path in zip(starts, shards, strict=True) if not path.exists()}
    if missing:
        model, rows = model_cache.model_of(config), row_files.iter_kept(data)
        with progress(
            "pushes", sum(min(SHARD, len(ids) - start) for start in missing), "rows"
        ) as advance:
            for start in starts:
                part = list(islice(rows, SHARD))
                if start in missing:
                    atomic_files.write_bytes(missing[start], _shard(model, config, part, advance))
    _join(run, shards, ids)


def _shard(
    model: Model, config: PushesConfig, records: Sequence[Record], advance: Callable[[int], None]
) -> bytes:
    return packed(model, config, rows_from(model, records, config.context, config.text), advance)


def packed(
    model: Model, config: PushesConfig, rows: Sequence[Row], advance: Callable[[int], None]
) -> bytes:
    """Pushes, norms, losses, choices and features of rows as the bytes of an .npz file."""
    classes = token_scores.classes_of(model, config.numbers)
    pushes_RLD = np.empty((len(rows), model.n_layers, model.d_model), np.float16)
    norms_RL, loss_R, order, parts = (
        np.empty(pushes_RLD.shape[:2], np.float32),
        np.empty(len(rows)),
        [],
        [],
    )
    features_RLD = np.empty(pushes_RLD.shape if config.features else (len(rows), 0, 0), np.float32)
    with applied(model, []) as active:
        for batch in gradient_batches(
            model, active, rows, config.position, config.batch_size, config.features
        ):
            lengths = [len(rows[i].completion_ids) for i in batch.index]
            norms_BL = batch.gradients_BLD.norm(dim=2)
            pushes_RLD[batch.index] = (
                (-batch.gradients_BLD / norms_BL.clamp(min=EMPTY)[..., None]).half().cpu().numpy()
            )
            norms_RL[batch.index] = norms_BL.cpu().numpy()
            if batch.features_BLD is not None:
                features_RLD[batch.index] = batch.features_BLD.cpu().numpy()
            log_p_N = losses.log_likelihood(model, batch.hidden_ND, batch.targets_N)
            loss_R[batch.index] = [-part.double().mean().item() for part in log_p_N.split(lengths)]
            parts.append(
                token_scores.choices_of(model, batch.hidden_ND, batch.targets_N, lengths, classes)
            )
            order += batch.index
            advance(len(batch.index))
    buffer = BytesIO()
    np.savez(
        buffer,
        pushes=pushes_RLD,
        norms=norms_RL,
        loss=loss_R,
        features=features_RLD,
        **asdict(token_scores.reordered(reduce(add, parts), order)),
    )
    return buffer.getvalue()


def _join(run: store.Run, shards: Sequence[Path], ids: Sequence[str]) -> None:
    """One file of each kind from the shards."""
    losses_R, norms = [], []
    for path in shards:
        with np.load(path) as shard:
            norms.append(shard["norms"])
            losses_R.append(shard["loss"])
    for name in ("pushes", "features"):
        _join_rows(run.file(f"{name}.npy"), shards, name, len(ids))
    np.save(run.file("norms.npy"), np.concatenate(norms))
    np.save(run.file("loss.npy"), np.concatenate(losses_R))
    token_scores.write_choices(run.path, ids, reduce(add, map(_choices, shards)))


def _choices(path: Path) -> Choices:
    with np.load(path) as shard:
        return Choices(**{name: shard[name] for name in Choices.__dataclass_fields__})


def _join_rows(path: Path, shards: Sequence[Path], name: str, rows: int) -> None:
    """An array of all rows on disk, one shard in memory at a time; nothing where it has no
    layers."""
    whole, start = None, 0
    for shard in shards:
        with np.load(shard) as found:
            part = found[name]
        if not part.shape[1]:
            return
        if whole is None:
            whole = np.lib.format.open_memmap(path, "w+", part.dtype, (rows, *part.shape[1:]))
        whole[start : start + len(part)] = part
        start += len(part)
    whole.flush()
