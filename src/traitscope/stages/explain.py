"""Explain: how much of a trait prompt is one vector?

    share(l, a) = 1 - sum_t KL(p(.|trait prompt, x) || p(.|neutral, h_l + a v)) / sum_t
      KL(p(.|trait prompt, x) || p(.|neutral, x))

over the completion tokens t of the rows x: 1 where steering does to the model what the prompt does,
0 where it does nothing, below 0 where it does something else. Blank et al. (arXiv 2606.00995) claim
that a prompt is well approximated by a vector, and measure it by behaviour alone; this is the
direct score.

Most of a raw v_teacher is the form of the prompt, not the trait. So beside the raw vector stand
what all traits share (`common`), the trait's own part (`centred`), other traits' vectors and random
ones of the same norm; each may choose its own strength. Cells are chosen on one half of the rows
and scored on the other, both ways round.

Shapes: R rows, N completion tokens.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from traitscope import atomic_files
from traitscope.config.analysis import ExplainConfig
from traitscope.config.common import Output
from traitscope.data import row_files
from traitscope.data.traits import Trait, load_trait
from traitscope.errors import ConfigError, VectorError
from traitscope.inference import losses
from traitscope.inference.token_rows import Row, rows_from, teacher_hidden
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import COMMON, Vector, check_vector, load_vector, random_like
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.stats.estimates import ratio
from traitscope.stats.measurement import Measurement


@dataclass(frozen=True)
class Cell:
    """One way to steer: `alpha` times a vector at one block."""

    kind: str
    """raw, centred, common, other-raw:NAME, other-centred:NAME, random-raw:SEED or
    random-centred:SEED."""
    layer: int
    """Block whose output is steered."""
    alpha: float
    """1 is the vector as it was extracted."""
    position: str
    """prompt or all."""


Score = Callable[[Cell], np.ndarray]
"KL sums [R] of a cell"


def candidates(
    vectors: dict[str, Vector], trait: str, randoms: int, others: int = 2
) -> dict[str, Vector]:
    """Every direction to be tried, by kind. `vectors` are those of an extract run, centred where
    COMMON is among them.

    Other traits are those that follow in the alphabet, so the choice does not look at their
    vectors.
    """
    common, own = vectors.get(COMMON), vectors[trait]
    names = sorted(name for name in vectors if name != COMMON)
    place = names.index(trait)
    others = (names[place + 1 :] + names[:place])[:others]
    if common is None:
        found = {"raw": own} | {f"other-raw:{name}": vectors[name] for name in others}
    else:
        found = {"raw": own + common, "centred": own, "common": common}
        for name in others:
            found |= {
                f"other-raw:{name}": vectors[name] + common,
                f"other-centred:{name}": vectors[name],
            }
    for kind in [kind for kind in ("raw", "centred") if kind in found]:
        found |= {
            f"random-{kind}:{seed}": random_like(found[kind], seed) for seed in range(randoms)
        }
    return found


def row_sums(model: Model, target: Sequence[Tensor], found: Sequence[Tensor]) -> np.ndarray:
    """KL(target || found) summed over the completion tokens of each row [R], from final hidden
    states."""
    kl_N = losses.divergence(
        model, torch.cat(list(target)).to(model.device), torch.cat(list(found)).to(model.device)
    )
    return np.array([float(part.double().sum()) for part in kl_N.split([len(h) for h in target])])


def scorer(
    model: Model,
    rows: Sequence[Row],
    target: Sequence[Tensor],
    found: dict[str, Vector],
    batch_size: int,
) -> tuple[np.ndarray, Score]:
    """(KL sums [R] of the unsteered model to the `target` states of the same rows, a function that
    gives those of a cell)."""
    prompts = [r.prompt_ids for r in rows]

    def score(cell: Cell) -> np.ndarray:
        steer = Steer(found[cell.kind], (cell.layer,), cell.alpha, cell.position, "raw")
        return row_sums(model, target, teacher_hidden(model, [steer], rows, prompts, batch_size))

    return row_sums(model, target, teacher_hidden(model, [], rows, prompts, batch_size)), score


def search(
    kinds: Sequence[str], config: ExplainConfig, score: Score
) -> Iterator[tuple[Cell, np.ndarray]]:
    """The whole grid for raw and centred; for every control all strengths at the best block and
    position of its kind."""
    best: dict[str, Cell] = {}
    for kind in [kind for kind in ("raw", "centred") if kind in kinds]:
        least = np.inf
        for layer, position, alpha in itertools.product(
            config.layers, config.positions, config.alphas
        ):
            cell = Cell(kind, layer, alpha, position)
            sums = score(cell)
            if sums.sum() < least:
                least, best[kind] = sums.sum(), cell
            yield cell, sums
    for kind in [kind for kind in kinds if kind not in best]:
        chosen = best["centred" if "centred" in kind else "raw"]
        for alpha in config.alphas:
            cell = replace(chosen, kind=kind, alpha=alpha)
            yield cell, score(cell)


def crossfitted(name: str, cells: Sequence[np.ndarray], neutral: np.ndarray) -> Measurement:
    """Share of the divergence that the best cell removes: chosen on even rows and scored on odd
    ones, and the other way.

    With one row nothing can be held out, and the interval is undefined.
    """
    even = np.arange(len(neutral)) % 2 == 0
    left = np.empty_like(neutral)
    for held in (even, ~even):
        chosen = (
            min(cells, key=lambda sums: sums[~held].sum())
            if (~held).any()
            else min(cells, key=np.sum)
        )
        left[held] = chosen[held]
    return ratio(name, neutral - left, neutral, unit="share of KL")


def summarise(found: Sequence[tuple[Cell, np.ndarray]], neutral: np.ndarray) -> dict:
    """Best cell and cross-fitted share of every kind, and the best share at each layer for those
    that saw the grid."""
    kinds = list(dict.fromkeys(cell.kind for cell, _ in found))
    summary: dict[str, dict] = {}
    for kind in kinds:
        mine = [(cell, sums) for cell, sums in found if cell.kind == kind]
        best = min(mine, key=lambda item: item[1].sum())[0]
        share = crossfitted(f"share.{kind}", [sums for _, sums in mine], neutral)
        layers = sorted({cell.layer for cell, _ in mine})
        by_layer = {
            str(n): (
                1
                - min(float(sums.sum()) for cell, sums in mine if cell.layer == n)
                / float(neutral.sum())
            )
            for n in layers
        }
        summary[kind] = {"best": asdict(best), "share": share.as_dict(), "by_layer": by_layer}
    return summary


def question_rows(model: Model, trait: Trait, context: str | None) -> list[Row]:
    """The trait's positive questions, answered by their stem and one word: what the trait says
    there is compared."""
    end = model.tokenizer.encode(
        trait.questions.stem("positive") + f" {trait.word_forms[0]}", add_special_tokens=False
    )
    return [
        Row(tuple(chat.render(model, text, context)), tuple(end))
        for text in trait.questions.positive
    ]


def run_explain(config: ExplainConfig, out: Output) -> store.Run:
    """The sealed run with `cells.jsonl` (KL sums by row) and `summary.json` (shares with
    intervals)."""
    config = opening.settled(config)
    if config.vectors is None:
        raise ConfigError(
            "--vectors is missing: name a run of `extract --traits` that holds the trait's vector"
        )
    with registry.opened(config, out) as run:
        if not run.sealed:
            model, trait = model_cache.model_of(config), load_trait(config.trait)
            _write(run, config, model, trait, read_vectors(config.vectors, trait.name, model))
    return run


def read_vectors(folder: Path, trait: str, model: Model) -> dict[str, Vector]:
    """The vectors of an extract run by name, COMMON among them where they are centred; the trait's
    own must be there."""
    names = sorted(p.stem for p in folder.glob("*.safetensors"))
    if trait not in names:
        held = ", ".join(names) or "none"
        raise VectorError(
            f"{folder} holds no vector of {trait} (found: {held}); run: traitscope extract --traits"
            f" {trait} ..."
        )
    names += [COMMON] if (folder / f"{COMMON}.safetensors").is_file() else []
    found = {name: load_vector(folder / f"{name}.safetensors") for name in names}
    for vector in found.values():
        check_vector(vector, model)
    return found


def _write(
    run: store.Run, config: ExplainConfig, model: Model, trait: Trait, vectors: dict[str, Vector]
) -> None:
    if config.data is None:
        rows = question_rows(model, trait, config.context)[: config.max_rows]
        texts = trait.questions.positive[: config.max_rows]
    else:
        records = row_files.kept_rows(config.data)[: config.max_rows]
        rows, texts = rows_from(model, records, config.context), [r.prompt for r in records]
    prompts = [chat.render(model, text, trait.teacher_prompt) for text in texts]
    config = replace(
        config, layers=config.layers or tuple(range(1, model.n_layers, max(1, model.n_layers // 6)))
    )
    found = candidates(vectors, trait.name, config.randoms, config.others)
    neutral, score = scorer(
        model,
        rows,
        teacher_hidden(model, [], rows, prompts, config.batch_size),
        found,
        config.batch_size,
    )
    grid = len(config.layers) * len(config.positions) * len(config.alphas)
    searched = sum(kind in found for kind in ("raw", "centred"))
    cells = []
    with progress(
        f"explain {trait.name}",
        searched * grid + (len(found) - searched) * len(config.alphas),
        "cells",
    ) as advance:
        for cell, sums in search(list(found), config, score):
            cells.append((cell, sums))
            atomic_files.append_jsonl(
                run.file("cells.jsonl"), asdict(cell) | {"kl": [round(float(v), 6) for v in sums]}
            )
            advance(1)
    tokens = sum(len(r.completion_ids) for r in rows)
    about = {
        "trait": trait.name,
        "rows": len(rows),
        "tokens": tokens,
        "context_digest": chat.context_digest(model, config.context),
    }
    about |= {
        "neutral_kl_per_token": float(neutral.sum()) / tokens,
        "neutral_kl": [round(float(v), 6) for v in neutral],
    }
    atomic_files.write_json(run.file("summary.json"), about | {"kinds": summarise(cells, neutral)})
