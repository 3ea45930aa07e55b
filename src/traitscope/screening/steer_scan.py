"""The stage `steer_scan`: where, and how strongly, a trait's vector makes a teacher of the trait.

The vector is taken once. Every cell is a block and a strength: there the model is steered and asked
the trait's positive questions. The base is asked, too. The best cell is the coherent one with the
largest rise over the base, if its interval lies above zero.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.screen import SteerScanConfig
from traitscope.data.traits import Trait, as_trait
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import Vector, vector_bytes
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.screening import coherence
from traitscope.stages import registry
from traitscope.stages.measure import Scores, measure
from traitscope.stats.measurement import Measurement
from traitscope.vectors import means

DEFAULT_PARTS = (0.25, 0.35, 0.5, 0.65)
"depths of the blocks that are tried where none is named, as parts of the model's"


@dataclass(frozen=True)
class Cell:
    """The model steered at one block with one strength."""

    layer: int
    """Block behind which the vector is added."""
    alpha: float
    """Strength, in mean residual norms."""
    scores: Scores
    """Scores on the positive questions, and perplexity on plain text."""
    rise: Measurement
    """log P(trait) minus the base's, paired over questions."""
    is_coherent: bool
    """Whether it passes coherence.COHERENT against the base."""

    @property
    def has_trait(self) -> bool:
        """Whether it names the trait more than the base does, interval and all."""
        return self.rise.low > 0


@dataclass(frozen=True)
class SteerScan:
    """All cells of a trait on a model."""

    trait: str
    """Name of the trait."""
    vectors: dict[str, Vector]
    """Vectors of the trait and its company, by name, as `extract` writes them."""
    base: Scores
    """Scores of the unmodified model."""
    cells: tuple[Cell, ...]
    """Block by block, strength by strength."""

    @property
    def best(self) -> Cell | None:
        """The coherent cell that names the trait most; None where none has the trait."""
        able = [cell for cell in self.cells if cell.is_coherent and cell.has_trait]
        return max(able, key=lambda cell: cell.rise.estimate, default=None)


def steer_scan(
    model: Model,
    trait: Trait | str,
    company: Sequence[Trait | str] = (),
    *,
    layers: Sequence[int] = (),
    alphas: Sequence[float] = (0.15, 0.3, 0.6),
    stem: bool = False,
    context: str | None = None,
    batch_size: int = 64,
    done: Callable[[int], None] | None = None,
) -> SteerScan:
    """Return the scores of a model at every block and strength of steering by a trait's vector.

    company: Further traits of its kind. The mean over all is subtracted from the vector.
    layers: Blocks; none takes four, at a quarter to two thirds of the depth.
    alphas: Strengths, in mean residual norms.
    stem: Whether the vector is taken at the end of the answer's stem.
    done: A function called with 1 after every cell. Raises as `extract_vectors` and `measure` do.
    """
    trait = as_trait(trait)
    vectors = means.extract_vectors(model, [trait, *company], context=context, stem=stem)
    settings: dict[str, Any] = {
        "context": context,
        "sets": ("positive",),
        "samples": 0,
        "batch_size": batch_size,
    }
    base = measure(model, trait, **settings)
    cells = []
    for layer, alpha in product(layers or default_layers(model), alphas):
        steering = Steer(vectors[trait.name], layer=layer, alpha=alpha)
        scores = measure(model, trait, [steering], **settings)
        cells.append(Cell(layer, alpha, scores, scores - base, _is_coherent(scores, base)))
        if done:
            done(1)
    return SteerScan(trait.name, vectors, base, tuple(cells))


def default_layers(model: Model) -> tuple[int, ...]:
    """Return the blocks at DEFAULT_PARTS of the depth, each once."""
    blocks = {round(part * (model.n_layers - 1)) for part in DEFAULT_PARTS}
    return tuple(sorted(blocks))


def _is_coherent(scores: Scores, base: Scores) -> bool:
    named, base_named = _on_topic(scores), _on_topic(base)
    return coherence.is_coherent(scores.perplexity, named, base.perplexity, base_named)


def _on_topic(scores: Scores) -> float:
    pairs = []
    for question in scores.questions:
        share = question.scores.get("candidate_share")
        pairs.append((question.scores["target_logprob"], share))
    return coherence.on_topic(pairs)


def run_steer_scan(config: SteerScanConfig, out: Output) -> store.Run:
    """Return the sealed run with `summary.json` and the vectors, as `extract` writes them."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            model = model_cache.model_of(config)
            _write(run, _scanned(model, config))
    return run


def _scanned(model: Model, config: SteerScanConfig) -> SteerScan:
    layers = config.layers or default_layers(model)
    with progress("steer scan", len(layers) * len(config.alphas), "cells") as advance:
        return steer_scan(
            model,
            config.trait,
            config.company,
            layers=layers,
            alphas=config.alphas,
            stem=config.stem,
            context=config.context,
            batch_size=config.batch_size,
            done=advance,
        )


def _write(run: store.Run, scan: SteerScan) -> None:
    for name, vector in scan.vectors.items():
        atomic_files.write_bytes(run.file(f"{name}.safetensors"), vector_bytes(vector))
    best = scan.best
    summary = {
        "trait": scan.trait,
        "base": _scores_json(scan.base),
        "cells": list(map(_cell_json, scan.cells)),
        "best": None if best is None else {"layer": best.layer, "alpha": best.alpha},
    }
    atomic_files.write_json(run.file("summary.json"), summary)


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        "layer": cell.layer,
        "alpha": cell.alpha,
        **_scores_json(cell.scores),
        "rise": cell.rise.as_dict(),
        "is_coherent": cell.is_coherent,
    }


def _scores_json(scores: Scores) -> dict[str, Any]:
    """Return perplexity, and the mean of every score on the positive questions."""
    means_by_score = {}
    for measurement in scores.measurements():
        means_by_score[measurement.name.removeprefix("positive.")] = measurement.as_dict()
    return {"perplexity": scores.perplexity, "scores": means_by_score}
