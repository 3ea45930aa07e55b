"""Gradients: where a data set pushes a model, before anything is trained.

    g_l(row)  steering gradient of a row (backward.py)
    push_l    = -(mean of g_l over rows): the direction in which one descent step moves the residual
              stream
    alignment = cos(push_l, v_l); with control rows, push is that of the data minus that of the
      control

Sign, everywhere in this package: positive means that training on the data pushes towards the
vector. Blank et al. (arXiv 2606.00995, section 6) report cos(g_clean - g_teacher, v), which is
this; their code computes its negative.

Shapes: R rows, L layers, D d_model, M vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from traitscope import atomic_files
from traitscope.config.analysis import GradientsConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.records import Record
from traitscope.errors import ConfigError, DataError
from traitscope.inference.steering_gradients import steering_gradients
from traitscope.inference.token_rows import rows_from
from traitscope.interventions import short_form
from traitscope.interventions.intervention import applied
from traitscope.interventions.vector import Vector, check_vector, load_vector, vector_bytes
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry

TOP_SHARES = (0.001, 0.01, 0.1)
"fractions of coordinates, or rows, whose part of the squared gradient is reported"


@dataclass(frozen=True)
class Pushes:
    """Pushes of rows, kept in full: 4 L D bytes a row."""

    rows_RLD: np.ndarray
    "float32, minus the steering gradient of each row"

    @property
    def mean_LD(self) -> np.ndarray:
        return self.rows_RLD.mean(0, dtype=np.float64)


def alignment(push_LD: np.ndarray, vector: Vector) -> np.ndarray:
    """cos(push_l, v_l) [L]; 0 where either is zero."""
    v_LD = vector.rows_LD.astype(np.float64)
    norms = np.linalg.norm(push_LD, axis=-1) * np.linalg.norm(v_LD, axis=-1)
    products = (push_LD * v_LD).sum(-1)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)


def alignment_interval(
    pushes: Pushes, vector: Vector, draws: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bounds (low [L], high [L]) of the alignment of the mean push, from a
    bootstrap over rows.

    The cosine of a resampled mean needs only projections and inner products of rows, so draws cost
    R² a layer. The norm of a mean push is inflated by noise, so the cosine is too small with few
    rows; the bounds describe that cosine.
    """
    R, L, _ = pushes.rows_RLD.shape
    weights = np.random.default_rng(seed).multinomial(R, np.full(R, 1 / R), draws) / R
    unit_LD = vector.unit().rows_LD.astype(np.float64)
    low, high = np.empty(L), np.empty(L)
    for layer in range(L):
        rows_RD = pushes.rows_RLD[:, layer].astype(np.float64)
        norms = np.sqrt(
            np.maximum(
                np.einsum("nr,rs,ns->n", weights, rows_RD @ rows_RD.T, weights, optimize=True),
                1e-30,
            )
        )
        low[layer], high[layer] = np.quantile(
            weights @ (rows_RD @ unit_LD[layer]) / norms, [0.025, 0.975]
        )
    return low, high


def signal_to_noise(pushes: Pushes, vector: Vector) -> np.ndarray:
    """Mean over standard error of the rows' projections on v [L]: grows with the square root of the
    rows if consistent."""
    along_RL = np.einsum("rld,ld->rl", pushes.rows_RLD, vector.unit().rows_LD, dtype=np.float64)
    error = (
        along_RL.std(0, ddof=1) / np.sqrt(len(along_RL))
        if len(along_RL) > 1
        else np.zeros(along_RL.shape[1])
    )
    return np.divide(along_RL.mean(0), error, out=np.zeros(along_RL.shape[1]), where=error > 0)


def growth(pushes: Pushes, vector: Vector) -> dict[int, list[float]]:
    """Alignment [L] of the mean push of the first 1, 2, 4, ... rows, and of all."""
    total = len(pushes.rows_RLD)
    sizes = sorted({*(2**k for k in range(total.bit_length())), total})
    return {
        n: alignment(pushes.rows_RLD[:n].mean(0, dtype=np.float64), vector).round(6).tolist()
        for n in sizes
    }


def concentration(pushes: Pushes) -> dict[str, dict[str, list[float]]]:
    """Share of the squared gradient [L] that the top coordinates, and the top rows, carry, by
    TOP_SHARES.

    Even energy over n coordinates would give the fraction itself.
    """
    squared = pushes.rows_RLD.astype(np.float64) ** 2
    energy = {"coordinates": squared.sum(0), "rows": squared.sum(2).T}
    found: dict[str, dict[str, list[float]]] = {}
    for what, parts in energy.items():
        descending = -np.sort(-parts, axis=1)
        total = np.maximum(descending.sum(1), 1e-300)
        found[what] = {
            str(f): (
                (descending[:, : max(1, round(f * parts.shape[1]))].sum(1) / total)
                .round(6)
                .tolist()
            )
            for f in TOP_SHARES
        }
    return found


def without_top(pushes: Pushes, vector: Vector, fraction: float = 0.01) -> dict[str, list[float]]:
    """Alignment [L] and norm [L] of the mean push when its largest coordinates are set to zero, and
    of these alone.

    Tells whether outliers carry the norm while the consistent rest carries the direction.
    """
    mean_LD = pushes.mean_LD
    k = max(1, round(fraction * mean_LD.shape[1]))
    energy_LD = (pushes.rows_RLD.astype(np.float64) ** 2).sum(0)
    top_LD = energy_LD >= np.partition(energy_LD, -k, axis=1)[:, -k][:, None]
    parts = {
        "all": mean_LD,
        "rest": np.where(top_LD, 0, mean_LD),
        "top": np.where(top_LD, mean_LD, 0),
    }
    return {
        f"{what}.{name}": numbers.round(6).tolist()
        for name, part in parts.items()
        for what, numbers in (
            ("alignment", alignment(part, vector)),
            ("norm", np.linalg.norm(part, axis=1)),
        )
    }


def paired(data: Sequence[Record], control: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Kept records of both sides on the same prompts, matched by id. Raises DataError where none
    match."""
    others = {r.id: r for r in control if r.kept}
    both = [
        (r, others[r.id])
        for r in data
        if r.kept and r.id in others and others[r.id].prompt == r.prompt
    ]
    if not both:
        raise DataError(
            "no kept row of --data has a row of --control with the same id and prompt; make both"
            " from one list"
        )
    return [d for d, _ in both], [c for _, c in both]


def run_gradients(config: GradientsConfig, out: Output) -> store.Run:
    """The sealed run with `push.safetensors` (a vector), `rows.jsonl` (projections) and
    `summary.json`."""
    config = opening.settled(config)
    if config.data is None:
        raise ConfigError(
            "--data is missing: name a run of `filter` or `generate`, or a JSONL file"
        )
    with registry.opened(config, out) as run:
        if not run.sealed:
            model = model_cache.model_of(config)
            vectors = _vectors(config.vectors, model) if config.vectors else {}
            data, control = row_files.kept_rows(config.data), []
            if config.control:
                data, control = paired(data, row_files.rows_of(config.control))
            data, control = data[: config.max_rows], control[: config.max_rows]
            pushes = _pushes(model, config, data, control)
            _write(run, model, config, [r.id for r in data], pushes, vectors)
    return run


def _vectors(path: Path, model: Model) -> dict[str, Vector]:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    found = {file.stem: load_vector(file) for file in files}
    for vector in found.values():
        check_vector(vector, model)
    return found


def _pushes(
    model: Model, config: GradientsConfig, data: Sequence[Record], control: Sequence[Record]
) -> Pushes:
    """Minus the gradients of the data, minus those of its control where there is one."""
    interventions = short_form.parse_all(config.interventions)
    sides = [
        rows_from(model, records, config.context, interventions=interventions)
        for records in (data, control)
    ]
    with (
        progress("steering gradients", sum(map(len, sides)), "rows") as advance,
        applied(model, interventions) as active,
    ):
        found = [
            steering_gradients(model, active, rows, config.position, config.batch_size, advance)
            for rows in sides
            if rows
        ]
    return Pushes(found[1] - found[0] if len(found) > 1 else -found[0])


def _write(
    run: store.Run,
    model: Model,
    config: GradientsConfig,
    ids: Sequence[str],
    pushes: Pushes,
    vectors: dict[str, Vector],
) -> None:
    about = {
        "what": "mean push",
        "position": config.position,
        "rows": len(ids),
        "minus control": config.control is not None,
    }
    atomic_files.write_bytes(
        run.file("push.safetensors"), vector_bytes(Vector(pushes.mean_LD, model.digest, about))
    )
    along = {
        name: np.einsum("rld,ld->rl", pushes.rows_RLD, v.unit().rows_LD).round(6)
        for name, v in vectors.items()
    }
    norms_RL = np.linalg.norm(pushes.rows_RLD, axis=2).round(6)
    for i, key in enumerate(ids):
        row = {
            "id": key,
            "norm": norms_RL[i].tolist(),
            "along": {name: a[i].tolist() for name, a in along.items()},
        }
        atomic_files.append_jsonl(run.file("rows.jsonl"), row)
    atomic_files.write_json(
        run.file("summary.json"),
        {
            "sign": "positive: one descent step on the data pushes towards the vector",
            "rows": len(ids),
            "minus_control": config.control is not None,
            "concentration": concentration(pushes),
            "vectors": {name: _compared(pushes, v) for name, v in vectors.items()},
        },
    )


def _compared(pushes: Pushes, vector: Vector) -> dict:
    low, high = alignment_interval(pushes, vector) if len(pushes.rows_RLD) > 1 else (None, None)
    return {
        "alignment": alignment(pushes.mean_LD, vector).round(6).tolist(),
        "low": None if low is None else low.round(6).tolist(),
        "high": None if high is None else high.round(6).tolist(),
        "signal_to_noise": signal_to_noise(pushes, vector).round(6).tolist(),
        "growth": {str(n): row for n, row in growth(pushes, vector).items()},
        "without_top": without_top(pushes, vector),
    }
