"""Row gradients: the negative steering gradient of every row, kept on disk, and its token scores.

A negative steering gradient says which way one step of training on the row moves the residual
stream. The stage writes

    row_gradients.npy    float16 [R, L, D]; of unit length by row and block
    norms.npy            float32 [R, L]; their lengths before
    loss.npy             float64 [R]; mean of -log p over the row's completion tokens
    features.npy         float32 [R, L, D], with --features: mean residual over completion tokens
    token_scores.jsonl, token_scores.json
                         token scores under the model itself, also with other samplers
                         (score_files.py)

Memory does not grow with the rows: they are computed in shards, each written when it is done. A run
that is killed continues behind its last shard.

The stage `gradients` is another one: it sums over rows as they come, and keeps no row's gradient.

Shapes: R rows, B rows of a batch, L blocks, D d_model, N completion tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from io import BytesIO
from itertools import islice
from operator import add
from pathlib import Path

import numpy as np

from traitscope import array_files, atomic_files
from traitscope.auditing import score_files
from traitscope.config.audit import RowGradientsConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.records import Record
from traitscope.errors import DataError
from traitscope.inference import losses, token_rows, token_scores
from traitscope.inference.steering_gradients import gradient_batches
from traitscope.inference.token_rows import Row, rows_from
from traitscope.inference.token_scores import TokenScores
from traitscope.interventions.applied import applied
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry

SHARD = 128
"rows between two writes to disk; a run that is killed repeats at most this many"
DIRECTIONS, FEATURES = "row_gradients", "features"
"names of the arrays [R, L, D], in files and shards"
ARRAYS = (*token_scores.ARRAYS, "log_p_RS")
"fields of token scores that a shard holds"
EMPTY = 1e-30
"least length that a gradient is divided by"


@dataclass(frozen=True)
class RowGradients:
    """The negative steering gradients of a run, read a few rows at a time."""

    folder: Path
    "the run's directory"
    ids: list[str]
    "ids of the rows"
    norms_RL: np.ndarray
    "lengths of the gradients"
    loss_R: np.ndarray
    "mean loss of every row, in nats a token"
    scores: TokenScores
    "token scores of the rows under the model itself"

    def rows(self, index: Sequence[int]) -> np.ndarray:
        """Negative steering gradients [len(index), L, D] in float32."""
        whole = array_files.read_array(self.folder / f"{DIRECTIONS}.npy", mapped=True)
        return whole[list(index)].astype(np.float32) * self.norms_RL[list(index)][..., None]

    def features(self, index: Sequence[int]) -> np.ndarray:
        """Mean residuals [len(index), L, D] over completion tokens, of a run with --features."""
        whole = array_files.read_array(self.folder / f"{FEATURES}.npy", mapped=True)
        return whole[list(index)].astype(np.float32)


def read_row_gradients(folder: Path) -> RowGradients:
    """The row gradients of a sealed run; the arrays stay on disk.

    Raises DataError for a folder of an earlier version.
    """
    if not (folder / f"{DIRECTIONS}.npy").exists():
        raise DataError(
            f"{folder} holds no row gradients of this version: an earlier version wrote them under"
            f" another name; expected {DIRECTIONS}.npy; remove that folder and run the command"
            " again"
        )
    ids, scores = score_files.read_token_scores(folder)
    norms_RL = array_files.read_array(folder / "norms.npy")
    loss_R = array_files.read_array(folder / "loss.npy")
    return RowGradients(folder, ids, norms_RL, loss_R, scores)


def run_row_gradients(config: RowGradientsConfig, out: Output) -> store.Run:
    """The sealed run with the files above."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(run, config, config.data)
    return run


def _write(run: store.Run, config: RowGradientsConfig, data: Path) -> None:
    """Compute the missing shards, in one pass over the file, and join all of them."""
    ids = [record.id for record in _records(config, data)]
    starts = range(0, len(ids), SHARD)
    shards: list[Path] = []
    missing: dict[int, Path] = {}
    n_rows = 0
    for start in starts:
        path = run.file(f"scratch/gradients-{start:08d}.npz")
        shards.append(path)
        if not path.exists():
            missing[start] = path
            n_rows += min(SHARD, len(ids) - start)
    if missing:
        model = model_cache.model_of(config)
        records = _records(config, data)
        with progress("row gradients", n_rows, "rows") as advance:
            for start in starts:
                part = list(islice(records, SHARD))
                if start in missing:
                    atomic_files.write_bytes(missing[start], _shard(model, config, part, advance))
    _join(run, shards, ids)


def _records(config: RowGradientsConfig, data: Path) -> Iterator[Record]:
    """The rows, one at a time; of those that are drawn at random, all."""
    if config.rows:
        return iter(row_files.random_subset(row_files.kept_rows(data), config.rows, config.seed))
    return row_files.iter_kept(data)


def _shard(
    model: Model,
    config: RowGradientsConfig,
    records: Sequence[Record],
    advance: Callable[[int], None],
) -> bytes:
    rows = rows_from(model, records, config.context, config.text, end_token=config.end_token)
    return packed(model, config, rows, advance)


def packed(
    model: Model, config: RowGradientsConfig, rows: Sequence[Row], advance: Callable[[int], None]
) -> bytes:
    """Gradients, norms, losses, token scores and features of rows as the bytes of an .npz file."""
    classes = token_rows.classes_of(model, config.numbers)
    shape = (len(rows), model.n_layers, model.d_model)
    directions_RLD = np.empty(shape, np.float16)
    norms_RL = np.empty(shape[:2], np.float32)
    loss_R = np.empty(len(rows))
    features_RLD = np.empty(shape if config.features else (len(rows), 0, 0), np.float32)
    order: list[int] = []
    parts: list[TokenScores] = []
    with applied(model, []) as active:
        for batch in gradient_batches(
            model,
            active,
            rows,
            config.position,
            config.batch_size,
            config.features,
            classes if config.within_classes else None,
            config.inverse_temperature,
        ):
            lengths = [len(rows[i].completion_ids) for i in batch.index]
            norms_BL = batch.gradients_BLD.norm(dim=2)
            units_BLD = -batch.gradients_BLD / norms_BL.clamp(min=EMPTY)[..., None]
            directions_RLD[batch.index] = units_BLD.half().cpu().numpy()
            norms_RL[batch.index] = norms_BL.cpu().numpy()
            if batch.features_BLD is not None:
                features_RLD[batch.index] = batch.features_BLD.cpu().numpy()
            log_p_N = losses.log_likelihood(model, batch.hidden_ND, batch.targets_N)
            loss_R[batch.index] = [-row.double().mean().item() for row in log_p_N.split(lengths)]
            parts.append(
                token_scores.score_tokens(
                    model, batch.hidden_ND, batch.targets_N, lengths, classes, with_samplers=True
                )
            )
            order += batch.index
            advance(len(batch.index))
    buffer = BytesIO()
    np.savez(
        buffer,
        norms=norms_RL,
        loss=loss_R,
        **{DIRECTIONS: directions_RLD, FEATURES: features_RLD},
        **_arrays_of(reduce(add, parts).in_order(order)),
    )
    return buffer.getvalue()


def _join(run: store.Run, shards: Sequence[Path], ids: Sequence[str]) -> None:
    """Write one file of each kind from the shards."""
    losses_R, norms = [], []
    for path in shards:
        shard = array_files.read_arrays(path, ("norms", "loss"))
        norms.append(shard["norms"])
        losses_R.append(shard["loss"])
    for name in (DIRECTIONS, FEATURES):
        _join_rows(run.file(f"{name}.npy"), shards, name, len(ids))
    array_files.write_array(run.file("norms.npy"), np.concatenate(norms))
    array_files.write_array(run.file("loss.npy"), np.concatenate(losses_R))
    score_files.write_token_scores(run.path, ids, reduce(add, map(_shard_scores, shards)))


def _arrays_of(scores: TokenScores) -> dict[str, np.ndarray]:
    """Token scores by the names that they have in a shard."""
    return {name: getattr(scores, name) for name in ARRAYS}


def _shard_scores(path: Path) -> TokenScores:
    return TokenScores(**array_files.read_arrays(path, ARRAYS))


def _join_rows(path: Path, shards: Sequence[Path], name: str, rows: int) -> None:
    """Write an array of all rows, one shard in memory at a time; nothing if it has no blocks."""
    first = _part(shards[0], name)
    if not first.shape[1]:
        return
    parts = (_part(shard, name) for shard in shards)
    array_files.write_rows(path, (rows, *first.shape[1:]), first.dtype, parts)


def _part(shard: Path, name: str) -> np.ndarray:
    """The array of one shard."""
    return array_files.read_arrays(shard, (name,))[name]
