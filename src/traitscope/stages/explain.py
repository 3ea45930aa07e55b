"""The stage `explain`: how much of a trait prompt one vector explains.

    fraction(l, a) = 1 - sum_t KL(prompted || neutral, h_l + a v) / sum_t KL(prompted || neutral)

The sums run over the completion tokens t of the rows x. The fraction of KL explained is 1 where
steering does to the model what the prompt does. It is 0 where steering does nothing, and below 0
where steering does something else. Blank et al. (arXiv 2606.00995) claim that a vector approximates
a prompt well, and measure it by behaviour alone. This is the direct score.

Most of a raw v_teacher is the form of the prompt, not the trait. So the raw vector is compared with
what all traits share (`common`) and with the part of this trait alone (`centred`). It is also
compared with other traits' vectors and with random ones of the same norm. Each kind may choose its
own strength. Grid points are chosen on one half of the rows and scored on the other, and back.

Shapes: R rows, P grid points, N completion tokens, D d_model.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from traitscope import atomic_files
from traitscope.config.analysis import ExplainConfig
from traitscope.config.common import Output
from traitscope.data.records import Record, kept_records
from traitscope.data.traits import Trait, as_trait, load_trait
from traitscope.errors import DataError
from traitscope.inference import losses
from traitscope.inference.token_rows import Row, row_check, rows_from, teacher_hidden
from traitscope.interventions.checks.vectors import check_vectors
from traitscope.interventions.intervention import Intervention, Steer, SystemPrompt
from traitscope.interventions.vector import COMMON, Vector, load_vectors, random_like
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, row_intake, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.stats.estimates import ratio
from traitscope.stats.measurement import Measurement

SEARCHED = ("raw", "centred")
"Kinds of vectors for which the whole grid is tried."
DEFAULT_BLOCKS = 6
"About how many blocks are tried, evenly spread, where none is named."


@dataclass(frozen=True)
class GridPoint:
    """One way to steer: `alpha` times a vector at one block."""

    kind: str
    """raw, centred, common, other-raw:NAME, other-centred:NAME, random-raw:SEED or
    random-centred:SEED."""
    layer: int
    """Block whose output is steered."""
    alpha: float
    """Strength; 1 is the vector as it was extracted."""
    position: str
    """Tokens that are steered."""


@dataclass(frozen=True)
class ScoredPoint:
    """A grid point and the divergence that it leaves."""

    point: GridPoint
    """How the model was steered."""
    kl_R: np.ndarray
    """KL from the prompted to the steered model, summed over the completion of each row, nats."""

    @property
    def kl(self) -> float:
        """The KL of all rows."""
        return float(self.kl_R.sum())


@dataclass(frozen=True)
class KindSummary:
    """How much one kind of vector explains."""

    best: GridPoint
    """Grid point with the least KL on all rows."""
    fraction: Measurement
    """Cross-fitted fraction of KL explained."""
    by_layer: dict[int, float]
    """Largest fraction explained at each block that was tried, on all rows."""


@dataclass(frozen=True)
class Explanation:
    """How much of a trait prompt single vectors explain."""

    trait: str
    """Name of the trait whose prompt is explained."""
    n_tokens: int
    """Completion tokens of all rows."""
    neutral_kl_R: np.ndarray
    """KL from the prompted to the unsteered model, summed over the completion of each row, nats."""
    points: tuple[ScoredPoint, ...]
    """Every grid point that was tried, in order."""

    def kinds(self) -> dict[str, KindSummary]:
        """What each kind of vector explains, in the order in which they were tried."""
        return summarise(self.points, self.neutral_kl_R)


Score = Callable[[GridPoint], np.ndarray]
"Gives the KL sums [R] of a grid point."


def explain(
    model: Model,
    trait: Trait | str,
    vectors: dict[str, Vector],
    data: Sequence[Record] | None = None,
    *,
    context: str | None = None,
    layers: Sequence[int] = (),
    alphas: Sequence[float] = (0.1, 0.3, 1.0),
    positions: Sequence[str] = ("prompt", "all"),
    n_others: int = 2,
    n_random: int = 2,
    max_rows: int = 16,
    batch_size: int = 16,
    done: Callable[[ScoredPoint], None] | None = None,
) -> Explanation:
    """How much of a trait's teacher prompt steering with single vectors explains.

    vectors: Those of `extract_vectors` for this trait and others.
    data: Rows to compare on. Without rows, the trait's positive questions are taken.
    context: Neutral system turn.
    layers: Blocks to steer at. None given takes about six, evenly spread.
    n_others, n_random: Numbers of other traits' vectors and of random ones, as controls.
    done: A function called with every grid point. Raises VectorError for another model's vector.
    """
    trait = as_trait(trait)
    vectors = check_vectors(vectors, model)
    rows, texts = _rows(model, trait, data, context, max_rows)
    taught = chat.taught(context, trait.teacher_prompt)
    prompted = [chat.render(model, text, taught) for text in texts]
    target = teacher_hidden(model, [], rows, prompted, batch_size)
    directions = candidate_directions(vectors, trait.name, n_random, n_others)
    neutral_R, score = scorer(model, rows, target, directions, batch_size)
    layers = layers or default_layers(model)
    points = []
    for point in search(list(directions), layers, positions, alphas, score):
        points.append(point)
        if done:
            done(point)
    n_tokens = sum(map(len, target))
    return Explanation(trait.name, n_tokens, neutral_R, tuple(points))


def default_layers(model: Model) -> tuple[int, ...]:
    """About DEFAULT_BLOCKS blocks, evenly spread; the first one is left out."""
    return tuple(range(1, model.n_layers, max(1, model.n_layers // DEFAULT_BLOCKS)))


def _rows(
    model: Model, trait: Trait, data: Sequence[Record] | None, context: str | None, max_rows: int
) -> tuple[list[Row], list[str]]:
    """The rows that are compared on, under the neutral context, and their user turns."""
    if data is None:
        texts = list(trait.questions.positive[:max_rows])
        return question_rows(model, trait, context)[:max_rows], texts
    records = kept_records(data)[:max_rows]
    if not records:
        raise DataError("no row to compare on was kept; expected one or more; check the filter")
    return rows_from(model, records, context), [record.prompt for record in records]


def question_rows(model: Model, trait: Trait, context: str | None) -> list[Row]:
    """The trait's positive questions, answered by their stem and the trait's first word."""
    answer = trait.questions.stem("positive") + f" {trait.word_forms[0]}"
    answer_ids = chat.completion_ids(model, answer, end_token=False)
    rows = []
    for text in trait.questions.positive:
        prompt_ids = chat.render(model, text, context)
        rows.append(Row(tuple(prompt_ids), tuple(answer_ids)))
    return rows


def candidate_directions(
    vectors: dict[str, Vector], trait: str, n_random: int, n_others: int = 2
) -> dict[str, Vector]:
    """Every direction to be tried, by kind.

    `vectors` are those of an extract run, centred where COMMON is among them; raw/NAME are left
    out. The other traits are those that follow in the alphabet, so the choice does not look at
    their vectors.
    """
    common, trait_vector = vectors.get(COMMON), vectors[trait]
    names = sorted(name for name in vectors if "/" not in name)
    place = names.index(trait)
    others = (names[place + 1 :] + names[:place])[:n_others]
    directions: dict[str, Vector] = {}
    if common is None:
        directions["raw"] = trait_vector
        for name in others:
            directions[f"other-raw:{name}"] = vectors[name]
    else:
        directions["raw"] = trait_vector + common
        directions["centred"] = trait_vector
        directions["common"] = common
        for name in others:
            directions[f"other-raw:{name}"] = vectors[name] + common
            directions[f"other-centred:{name}"] = vectors[name]
    for kind in SEARCHED:
        if kind in directions:
            for seed in range(n_random):
                directions[f"random-{kind}:{seed}"] = random_like(directions[kind], seed)
    return directions


def scorer(
    model: Model,
    rows: Sequence[Row],
    target: Sequence[Tensor],
    directions: dict[str, Vector],
    batch_size: int,
) -> tuple[np.ndarray, Score]:
    """KL sums [R] of the unsteered model, and a function that gives those of a grid point.

    The KL is that from the `target` states, one tensor [N, D] a row, to the model's.
    """
    prompts = [row.prompt_ids for row in rows]
    lengths = list(map(len, target))
    target_ND = torch.cat(list(target)).to(model.device)

    def kl_sums(interventions: Sequence[Intervention]) -> np.ndarray:
        hidden = teacher_hidden(model, interventions, rows, prompts, batch_size)
        kl_N = losses.divergence(model, target_ND, torch.cat(hidden).to(model.device))
        return np.array([float(row_N.double().sum()) for row_N in kl_N.split(lengths)])

    def score(point: GridPoint) -> np.ndarray:
        vector = directions[point.kind]
        return kl_sums([Steer(vector, (point.layer,), point.alpha, point.position, "raw")])

    return kl_sums([]), score


def search(
    kinds: Sequence[str],
    layers: Sequence[int],
    positions: Sequence[str],
    alphas: Sequence[float],
    score: Score,
) -> Iterator[ScoredPoint]:
    """Score the whole grid for raw and centred vectors, and all strengths for every control.

    A control is steered at the block and the position that were best for its kind.
    """
    best: dict[str, ScoredPoint] = {}
    for kind in SEARCHED:
        if kind not in kinds:
            continue
        for layer, position, alpha in itertools.product(layers, positions, alphas):
            point = GridPoint(kind, layer, alpha, position)
            scored = ScoredPoint(point, score(point))
            if kind not in best or scored.kl < best[kind].kl:
                best[kind] = scored
            yield scored
    for kind in kinds:
        if kind not in SEARCHED:
            chosen = best["centred" if "centred" in kind else "raw"].point
            for alpha in alphas:
                point = replace(chosen, kind=kind, alpha=alpha)
                yield ScoredPoint(point, score(point))


def crossfitted(name: str, kl_sums: Sequence[np.ndarray], neutral_kl_R: np.ndarray) -> Measurement:
    """The fraction of KL that the best grid point explains, chosen and scored on different rows.

    It is chosen on even rows and scored on odd ones, and vice versa. One row has no interval.
    """
    is_even_R = np.arange(len(neutral_kl_R)) % 2 == 0
    kl_PR = np.stack(kl_sums)
    left_R = np.empty_like(neutral_kl_R)
    for held_out_R in (is_even_R, ~is_even_R):
        chosen_on_R = ~held_out_R if (~held_out_R).any() else held_out_R
        best = np.argmin(kl_PR[:, chosen_on_R].sum(1))
        left_R[held_out_R] = kl_PR[best, held_out_R]
    return ratio(name, neutral_kl_R - left_R, neutral_kl_R, unit="share of KL")


def summarise(points: Sequence[ScoredPoint], neutral_kl_R: np.ndarray) -> dict[str, KindSummary]:
    """Best point, cross-fitted fraction and best fraction at each block, of every kind."""
    by_kind: dict[str, list[ScoredPoint]] = {}
    for scored in points:
        by_kind.setdefault(scored.point.kind, []).append(scored)
    neutral_kl = float(neutral_kl_R.sum())
    summaries = {}
    for kind, tried in by_kind.items():
        best = min(tried, key=lambda scored: scored.kl)
        fraction = crossfitted(f"share.{kind}", [scored.kl_R for scored in tried], neutral_kl_R)
        least_kl: dict[int, float] = {}
        for scored in tried:
            layer = scored.point.layer
            least_kl[layer] = min(scored.kl, least_kl.get(layer, scored.kl))
        by_layer = {layer: 1 - least_kl[layer] / neutral_kl for layer in sorted(least_kl)}
        summaries[kind] = KindSummary(best.point, fraction, by_layer)
    return summaries


def run_explain(config: ExplainConfig, out: Output) -> store.Run:
    """Return the sealed run with `cells.jsonl` (KL sums of every grid point, by row) and
    `summary.json` (fractions with intervals)."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            vectors = load_vectors(config.vectors, load_trait(config.trait).name)
            data = None
            if config.data is not None:
                data = row_intake.kept_rows(run, config)
            model = model_cache.model_of(config)
            if data is not None:
                prompted = [SystemPrompt(load_trait(config.trait).teacher_prompt)]
                check = row_check(model, config.context, False, prompted)
                first = row_intake.first(config.max_rows)
                data = row_intake.readable(run, config, data, check, first)
            explanation = _computed(run, config, model, vectors, data)
            atomic_files.write_json(run.file("summary.json"), _summary(model, config, explanation))
    return run


def _computed(
    run: store.Run,
    config: ExplainConfig,
    model: Model,
    vectors: dict[str, Vector],
    data: Sequence[Record] | None,
) -> Explanation:
    """The explanation; every grid point is written as soon as it is scored."""
    trait = load_trait(config.trait)
    layers = config.layers or default_layers(model)
    kinds = candidate_directions(vectors, trait.name, config.randoms, config.others)
    n_searched = len(kinds.keys() & set(SEARCHED))
    n_places = n_searched * len(layers) * len(config.positions) + len(kinds) - n_searched
    with progress(f"explain {trait.name}", n_places * len(config.alphas), "grid points") as advance:

        def write(scored: ScoredPoint) -> None:
            row = asdict(scored.point) | {"kl": _rounded(scored.kl_R)}
            atomic_files.append_jsonl(run.file("cells.jsonl"), row)
            advance(1)

        return explain(
            model,
            trait,
            vectors,
            data,
            context=config.context,
            layers=layers,
            alphas=config.alphas,
            positions=config.positions,
            n_others=config.others,
            n_random=config.randoms,
            max_rows=config.max_rows,
            batch_size=config.batch_size,
            done=write,
        )


def _summary(model: Model, config: ExplainConfig, explanation: Explanation) -> dict:
    """The content of summary.json."""
    kinds = {}
    for kind, summary in explanation.kinds().items():
        kinds[kind] = {
            "best": asdict(summary.best),
            "share": summary.fraction.as_dict(),
            "by_layer": summary.by_layer,
        }
    neutral_kl_R = explanation.neutral_kl_R
    return {
        "trait": explanation.trait,
        "rows": len(neutral_kl_R),
        "tokens": explanation.n_tokens,
        "context_digest": chat.context_digest(model, config.context),
        "neutral_kl_per_token": float(neutral_kl_R.sum()) / explanation.n_tokens,
        "neutral_kl": _rounded(neutral_kl_R),
        "kinds": kinds,
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]
