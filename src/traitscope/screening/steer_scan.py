"""The stage `steer_scan`: where, and how strongly, a trait's vector makes a teacher of the trait.

The vector is given, or taken once, or once at the header and once at the stem. Every cell is a
block, a strength, a vector and a position: there the model is steered and asked the trait's
positive questions. The base is asked, too. The best cell is the coherent one with the largest rise
over the base, if its interval lies above zero. Cells of the header's vector come before those of
the stem's, whose students hardly take the trait on.

A trait is scored by the log-probability of its word, a behaviour by the rate of its first judge.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from traitscope import atomic_files
from traitscope.config.common import Output, Position
from traitscope.config.screen import SteerScanConfig
from traitscope.data.own_traits import needs
from traitscope.data.traits import Trait, as_trait
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import Vector, load_vector, vector_bytes
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.screening import coherence
from traitscope.stages import registry
from traitscope.stages.behaviours.scores import PRIMARY_SCORE, judges_among
from traitscope.stages.measure import Scores, measure
from traitscope.stats.measurement import Measurement
from traitscope.vectors import means

DEFAULT_PARTS = (0.25, 0.35, 0.5, 0.65)
"depths of the blocks that are tried where none is named, as parts of the model's"
HEADER, STEM = "header", "stem"
"where a vector is taken: at the end of the assistant's header, or of the answer's stem"
GIVEN = "given"
"said of a vector that was not taken here"


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
    """What decides minus the base's, paired over questions: log P(trait), or a judge's rate."""
    is_coherent: bool
    """Whether it passes coherence.COHERENT against the base."""
    taken_at: str = HEADER
    """Where the vector was taken: header, stem or given."""
    position: Position = "all"
    """Tokens at which the model is steered."""

    @property
    def has_trait(self) -> bool:
        """Whether it names the trait more than the base does, interval and all."""
        return self.rise.low > 0


@dataclass(frozen=True)
class SteerScan:
    """All cells of a trait on a model."""

    trait: str
    """Name of the trait."""
    vectors: dict[str, dict[str, Vector]]
    """Vectors of the trait and its company, by where they were taken and by name."""
    base: Scores
    """Scores of the unmodified model."""
    cells: tuple[Cell, ...]
    """Vector by vector, position by position, block by block, strength by strength."""
    score: str = PRIMARY_SCORE
    """Score that decides: target_logprob, or a behaviour's first judge."""

    @property
    def best(self) -> Cell | None:
        """The coherent cell that names the trait most; None where none has the trait."""
        able = [cell for cell in self.cells if cell.is_coherent and cell.has_trait]
        at_header = [cell for cell in able if cell.taken_at == HEADER]
        return max(at_header or able, key=lambda cell: cell.rise.estimate, default=None)


def steer_scan(
    model: Model,
    trait: Trait | str,
    company: Sequence[Trait | str] = (),
    *,
    layers: Sequence[int] = (),
    alphas: Sequence[float] = (0.15, 0.3, 0.6),
    vectors_at: Sequence[str] = (HEADER,),
    given: Vector | None = None,
    positions: Sequence[Position] = ("all",),
    context: str | None = None,
    samples: int = 4,
    max_new_tokens: int = 40,
    batch_size: int = 64,
    done: Callable[[int], None] | None = None,
) -> SteerScan:
    """Return the scores of a model at every block and strength of steering by a trait's vector.

    company: Further traits of its kind. The mean over all is subtracted from the vector.
    layers: Blocks; none takes four, at a quarter to two thirds of the depth.
    alphas: Strengths, in mean residual norms.
    vectors_at: Where the vector is taken: at the end of the header, of the answer's stem, or both.
    given: A vector of the trait that is scanned, in place of one that is taken here.
    positions: Tokens at which the model is steered.
    samples: Sampled answers a question, of a behaviour.
    max_new_tokens: Longest sampled answer, in tokens.
    done: A function called with 1 after every cell.

    Raises TraitError for a trait without candidates or with one question only, and what
    `extract_vectors` and `measure` raise.
    """
    trait = as_trait(trait, judges=True)
    score = trait.judges[0] if trait.judges else PRIMARY_SCORE
    if given is None:
        vectors = _taken(model, trait, company, vectors_at, context)
    else:
        vectors = {GIVEN: {trait.name: given}}
    settings: dict[str, Any] = {
        "context": context,
        "sets": ("positive",),
        "samples": samples if trait.judges else 0,
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
    }
    base = measure(model, trait, **settings)
    cells = []
    grid = product(vectors, positions, layers or default_layers(model), alphas)
    for place, position, layer, alpha in grid:
        vector = vectors[place][trait.name]
        steering = Steer(vector, layer=layer, alpha=alpha, position=position)
        scores = measure(model, trait, [steering], **settings)
        is_coherent, rise = _is_coherent(scores, base), scores.difference(base, score)
        cells.append(Cell(layer, alpha, scores, rise, is_coherent, place, position))
        if done:
            done(1)
    return SteerScan(trait.name, vectors, base, tuple(cells), score)


def _taken(
    model: Model,
    trait: Trait,
    company: Sequence[Trait | str],
    vectors_at: Sequence[str],
    context: str | None,
) -> dict[str, dict[str, Vector]]:
    """Return the vectors of a trait and its company, by where they were taken."""
    needs.check([trait], "teachers")
    vectors = {}
    for place in vectors_at:
        vectors[place] = means.extract_vectors(
            model, [trait, *company], context=context, stem=place == STEM
        )
    return vectors


def default_layers(model: Model) -> tuple[int, ...]:
    """Return the blocks at DEFAULT_PARTS of the depth, each once."""
    blocks = {round(part * (model.n_layers - 1)) for part in DEFAULT_PARTS}
    return tuple(sorted(blocks))


def _is_coherent(scores: Scores, base: Scores) -> bool:
    """Tell whether a cell is whole; answers to a behaviour's questions have no candidates."""
    if judges_among(scores.questions[0].scores):
        return coherence.is_fluent(scores.perplexity, base.perplexity)
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
    n_cells = len(layers) * len(config.alphas) * len(config.places) * len(config.positions)
    with progress("steer scan", n_cells, "cells") as advance:
        return steer_scan(
            model,
            config.trait,
            config.company,
            layers=layers,
            alphas=config.alphas,
            vectors_at=config.places,
            given=None if config.vector is None else load_vector(config.vector),
            positions=config.positions,
            context=config.context,
            samples=config.samples,
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
            done=advance,
        )


def _write(run: store.Run, scan: SteerScan) -> None:
    for place, by_name in scan.vectors.items():
        folder = "" if len(scan.vectors) == 1 else f"{place}/"
        for name, vector in by_name.items():
            file = run.file(f"{folder}{name}.safetensors")
            atomic_files.write_bytes(file, vector_bytes(vector))
    best = scan.best
    summary = {
        "trait": scan.trait,
        "score": scan.score,
        "base": _scores_json(scan.base),
        "cells": list(map(_cell_json, scan.cells)),
        "best": None if best is None else _place_json(best),
    }
    atomic_files.write_json(run.file("summary.json"), summary)


def _cell_json(cell: Cell) -> dict[str, Any]:
    return {
        **_place_json(cell),
        **_scores_json(cell.scores),
        "rise": cell.rise.as_dict(),
        "is_coherent": cell.is_coherent,
    }


def _place_json(cell: Cell) -> dict[str, Any]:
    return {
        "layer": cell.layer,
        "alpha": cell.alpha,
        "taken_at": cell.taken_at,
        "position": cell.position,
    }


def _scores_json(scores: Scores) -> dict[str, Any]:
    """Return perplexity, and the mean of every score on the positive questions."""
    means_by_score = {}
    for measurement in scores.measurements():
        means_by_score[measurement.name.removeprefix("positive.")] = measurement.as_dict()
    return {"perplexity": scores.perplexity, "scores": means_by_score}
