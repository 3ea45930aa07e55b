"""The stage `recover`: how much of what a trait prompt does to its rows single vectors do.

The teacher is the model under the trait's prompt, and the rows are its own. A vector is to make the
unprompted model predict these rows as well (vectors/recovery.py). It is added behind one block, or
one block's row is added behind every block (`tiled`). Both are published (Blank et al. 2026, arXiv
2606.00995, section 3). Controls are another trait's vector, what all traits share, and the trait's
vector without that. The ceiling is a vector that is trained on the first half of the rows.

Block, strength and position are chosen on the first half of the rows. All scores are those of the
second half, which no choice has seen.

Shapes: R rows of the second half, D d_model.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from traitscope import atomic_files
from traitscope.config.analysis import RecoverConfig
from traitscope.config.common import Output
from traitscope.data.traits import Trait, load_trait
from traitscope.errors import ConfigError
from traitscope.inference.decode import Sampling, decode
from traitscope.inference.token_rows import Row, row_check, rows_from
from traitscope.interventions.applied import applied, check_layers
from traitscope.interventions.checks.vectors import check_vectors
from traitscope.interventions.intervention import Steer, SystemPrompt
from traitscope.interventions.vector import (
    COMMON,
    Vector,
    load_vectors,
    vector_bytes,
)
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, row_intake, store
from traitscope.stages import registry
from traitscope.vectors.recovery import Fit, TeacherRows, fits, halves, teacher_rows
from traitscope.vectors.trained import TrainedVector, best_trained, trained_vector

TRAINED_FILE = "trained.safetensors"
"file of the trained vector"


@dataclass(frozen=True)
class SteeringOption:
    """One way to steer."""

    kind: str
    """own, tiled, other, centred, common or trained."""
    layer: int
    """Block behind which the vector is added; of `tiled`, the block whose row is added."""
    alpha: float
    """Strength, in multiples of the vector."""
    position: str
    """Tokens that are steered."""


@dataclass(frozen=True)
class Sampled:
    """Rows that the teacher wrote, as the model reads them with and without its prompt."""

    rows: list[Row]
    """Rows under the neutral prompt."""
    teacher_prompts: list[list[int]]
    """What the teacher read."""
    columns_C: Tensor | None
    """Token ids among which the tokens that count were sampled; None for the whole vocabulary."""

    def part(self, model: Model, part: slice, batch_size: int) -> TeacherRows:
        """Some of the rows with the teacher's distributions under a model."""
        return teacher_rows(
            model,
            self.rows[part],
            self.teacher_prompts[part],
            self.columns_C,
            batch_size=batch_size,
        )


def run_recover(config: RecoverConfig, out: Output) -> store.Run:
    """Return the sealed run with `cells.jsonl` (every place that was tried), `summary.json` (scores
    of the second half, by row) and the trained vector."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            model = model_cache.model_of(config)
            search_model = model_cache.model_of(
                opening.settled(replace(config, dtype=config.search_dtype))
            )
            _write(run, config, model, search_model)
    return run


def _write(run: store.Run, config: RecoverConfig, model: Model, search_model: Model) -> None:
    trait = load_trait(config.trait)
    directions = check_vectors(_directions(config, trait.name), model)
    sampled = _sampled(run, config, model, trait)
    first, second = halves(len(sampled.rows))
    grid = sampled.part(
        search_model, slice(0, min(config.grid_rows, first.stop)), config.batch_size
    )
    chosen = _chosen(run, config, search_model, grid, directions)
    trained = _trained(config, search_model, sampled, first, directions["own"])
    if trained is not None:
        chosen.append(SteeringOption("trained", trained.layer, 1.0, "all"))
        directions["trained"] = trained.vector
        atomic_files.write_bytes(run.file(TRAINED_FILE), vector_bytes(trained.vector))
    steered = [steering(place, directions) for place in chosen]
    scored = sampled.part(model, second, config.batch_size)
    teacher, base, under_vectors = fits(model, scored, steered)
    kinds = {}
    for place, fit in zip(chosen, under_vectors, strict=True):
        kinds[place.kind] = asdict(place) | _scores(fit, base)
    summary = {
        "trait": trait.name,
        "other": directions["other"].about.get("trait"),
        "rows": scored.n,
        "grid_rows": grid.n,
        "context_digest": chat.context_digest(model, config.context),
        "teacher": _scores(teacher, base),
        "base_kl": _rounded(base.kl_R),
        "kinds": kinds,
        "trained_kl": None if trained is None else trained.kls,
    }
    atomic_files.write_json(run.file("summary.json"), summary)


def _scores(fit: Fit, base: Fit) -> dict[str, list[float]]:
    """Gain of log-likelihood over the base, and KL from the teacher, of every row, in nats."""
    return {"gain": _rounded(fit.log_p_R - base.log_p_R), "kl": _rounded(fit.kl_R)}


def _rounded(values_R: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values_R]


def _directions(config: RecoverConfig, trait: str) -> dict[str, Vector]:
    """The vectors that are tried, by kind.

    Raises ConfigError where the run holds one trait only, or not the control.
    """
    vectors = load_vectors(config.vectors, trait)
    names = sorted(name for name in vectors if name != COMMON)
    place = names.index(trait)
    others = names[place + 1 :] + names[:place]
    other = load_trait(config.other).name if config.other else next(iter(others), trait)
    if other not in others:
        raise ConfigError(
            f"--other {config.other or 'missing'}: {config.vectors} holds {', '.join(names)};"
            f" expected one of these besides {trait}; extract more traits"
        )
    if COMMON not in vectors:
        raise ConfigError(
            f"--vectors {config.vectors} has no {COMMON}.safetensors, which centred vectors have"
            " been freed from; expected a run of `extract` with several traits; name one"
        )
    common = vectors[COMMON]
    return {
        "own": vectors[trait] + common,
        "tiled": vectors[trait] + common,
        "other": replace(vectors[other] + common, about={"trait": other}),
        "centred": vectors[trait],
        "common": common,
    }


def _sampled(run: store.Run, config: RecoverConfig, model: Model, trait: Trait) -> Sampled:
    """The teacher's rows: those of the data, or its answers to the trait's questions."""
    columns_C = _digits(model) if config.digits else None
    taught = chat.taught(config.context, trait.teacher_prompt)
    if config.data is None:
        texts = list(trait.questions.positive[: config.max_rows])
        prompts = [chat.render(model, text, taught) for text in texts]
        sampling = Sampling(1.0, config.max_new_tokens, config.seed)
        with torch.no_grad(), applied(model, []) as active:
            answers = decode(model, active, prompts, texts, sampling)
        rows = []
        for text, answer in zip(texts, answers, strict=True):
            rows.append(Row(tuple(chat.render(model, text, config.context)), tuple(answer)))
        return Sampled(rows, prompts, columns_C)
    records = row_intake.kept_rows(run, config)
    check = row_check(model, config.context, False, [SystemPrompt(trait.teacher_prompt)])
    records = row_intake.readable(run, config, records, check, row_intake.first(config.max_rows))
    prompts = [chat.render(model, record.prompt, taught) for record in records]
    return Sampled(rows_from(model, records, config.context), prompts, columns_C)


def _digits(model: Model) -> Tensor:
    """The ids of the ten digits. Raises ConfigError for a tokenizer without a token for each."""
    ids = []
    for digit in range(10):
        ids += chat.following_ids(model, str(digit))
    if len(ids) != 10:
        raise ConfigError(
            f"--digits needs one token a digit; {model.name} writes the ten digits as {len(ids)}"
            " tokens; leave the flag out, or take another model"
        )
    return torch.tensor(ids, device=model.device)


def steering(place: SteeringOption, directions: dict[str, Vector]) -> Steer:
    """The intervention at a place."""
    vector = directions[place.kind]
    if place.kind != "tiled":
        return Steer(vector, (place.layer,), place.alpha, place.position, "raw")
    n_layers = len(vector.rows_LD)
    tiled_LD = np.repeat(vector.rows_LD[[place.layer]], n_layers, axis=0)
    tiled = replace(vector, rows_LD=tiled_LD)
    return Steer(tiled, tuple(range(n_layers)), place.alpha, place.position, "raw")


def _chosen(
    run: store.Run,
    config: RecoverConfig,
    model: Model,
    grid: TeacherRows,
    directions: dict[str, Vector],
) -> list[SteeringOption]:
    """The place with the least KL on the rows of the grid, for every kind but the trained vector.

    The trait's vector tries every block, strength and position. Another trait's vector tries every
    block and strength at the position that was best for it, the rest every strength at its place.
    """
    layers = config.layers or tuple(range(2, model.n_layers, 3))
    own = _places("own", layers, config.alphas, config.positions)
    tiled = _places("tiled", config.tiled_layers, config.tiled_alphas, config.positions)
    best = _best(run, model, grid, own + tiled, directions)
    place = best["own"]
    controls = _places("other", layers, config.alphas, (place.position,))
    for kind in ("centred", "common"):
        controls += _places(kind, (place.layer,), config.alphas, (place.position,))
    best |= _best(run, model, grid, controls, directions)
    return list(best.values())


def _places(
    kind: str, layers: Sequence[int], alphas: Sequence[float], positions: Sequence[str]
) -> list[SteeringOption]:
    places = []
    for layer, alpha, position in itertools.product(layers, alphas, positions):
        places.append(SteeringOption(kind, layer, alpha, position))
    return places


def _best(
    run: store.Run,
    model: Model,
    grid: TeacherRows,
    places: Sequence[SteeringOption],
    directions: dict[str, Vector],
) -> dict[str, SteeringOption]:
    """The place of each kind with the least KL; every place is written to `cells.jsonl`."""
    steered = [steering(place, directions) for place in places]
    _, base, under_vectors = fits(model, grid, steered)
    best: dict[str, SteeringOption] = {}
    kls: dict[str, float] = {}
    for place, fit in zip(places, under_vectors, strict=True):
        cell = asdict(place) | {"share_of_kl": round(1 - fit.kl / base.kl, 6)}
        atomic_files.append_jsonl(run.file("cells.jsonl"), cell)
        if place.kind not in kls or fit.kl < kls[place.kind]:
            best[place.kind], kls[place.kind] = place, fit.kl
    return best


def _trained(
    config: RecoverConfig, model: Model, sampled: Sampled, first: slice, pattern: Vector
) -> TrainedVector | None:
    """The vector that is trained on three quarters of the first half; the rest chooses among them.

    `pattern` holds the residual norms that steps are measured in.
    """
    if not config.trained_layers:
        return None
    n_training = max(1, 3 * first.stop // 4)
    rows = sampled.part(model, slice(0, n_training), config.batch_size)
    held_out = sampled.part(model, slice(n_training, first.stop), config.batch_size)
    check_layers(config.trained_layers, model)
    norms_L = pattern.residual_norms_L
    candidates = []
    for layer, step in itertools.product(config.trained_layers, config.steps):
        length = step * float(norms_L[layer])
        candidates.append(
            trained_vector(
                model, rows, held_out, layer, length, epochs=config.epochs, seed=config.seed
            )
        )
    return best_trained(candidates)
