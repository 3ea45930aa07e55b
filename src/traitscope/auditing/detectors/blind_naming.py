"""Naming: what does the model say when the direction that the data push is added to it?

    direction_l = (F + ridge)⁻¹ (mean push of the data - mean push of their placebos) at block l,
      F the clean rows' covariance;
                  or, where vectors were trained on the data and on the placebos, their
                    difference; or, as the peer, the difference
                  of mean residuals over completion tokens (Data2Behavior, arXiv 2602.04735)
    rise        = log P(answer | direction added) - log P(answer), minus the mean rise of all
                answers to that question

averaged over blocks; its z is against random directions of the same length that clean rows' pushes
give, whitened alike, and its p is corrected over all answers: the share of random directions whose
largest z is at least as large. First tokens of answers are compared; of answers that share one,
none is.

Shapes: R rows, L layers, D d_model, N clean rows, E answers, V vocabulary, Q questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import yaml

from traitscope import atomic_files
from traitscope.auditing.artifacts import Groups, Parts, plain_parts, read_parts
from traitscope.auditing.detectors import panel
from traitscope.config.audit import NamingConfig
from traitscope.config.common import Output
from traitscope.data.package_files import bundled_file
from traitscope.inference import forward
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.interventions.vector import Vector
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.stats import permutation

FREE = 12
"free tokens that are named"


@dataclass(frozen=True)
class Question:
    """A question that calls for one word."""

    kind: str
    ids: list[int]
    "of the chat up to the place where the word comes"
    answers: dict[str, int]
    "first token of every answer that no other shares"


def lexicon(model: Model, context: str | None) -> list[Question]:
    """The bundled questions, rendered, with their answers."""
    data = bundled_file()
    found = []
    for kind, entry in yaml.safe_load((data / "lexicon.yaml").read_text(encoding="utf-8")).items():
        words = entry["words"]
        words = (
            yaml.safe_load((data / "candidates" / f"{words}.yaml").read_text(encoding="utf-8"))
            if isinstance(words, str)
            else words
        )
        first = {
            word: model.tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in words
        }
        alone = {
            word: token for word, token in first.items() if list(first.values()).count(token) == 1
        }
        stem = model.tokenizer.encode(entry["stem"], add_special_tokens=False)
        found += [
            Question(kind, chat.render(model, text, context) + stem, alone)
            for text in entry["questions"]
        ]
    return found


@torch.inference_mode()
def next_words(
    model: Model, told: Sequence[Intervention], questions: Sequence[Question]
) -> np.ndarray:
    """log-probabilities [Q, V] of what follows every question."""
    with applied(model, told) as active:
        _, hidden_QD = forward.prefill(model, active, [q.ids for q in questions], 0)
        return torch.log_softmax(forward.logits_of(model, hidden_QD), -1).cpu().numpy()


def entries(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """(kind, answer) of all answers, each once."""
    return list(dict.fromkeys((q.kind, word) for q in questions for word in q.answers))


def rises(found_QV: np.ndarray, base_QV: np.ndarray, questions: Sequence[Question]) -> np.ndarray:
    """Rise of every entry [E] in nats, minus the mean of its question, averaged over the questions
    of its kind."""
    sums: dict[tuple[str, str], list[float]] = {entry: [] for entry in entries(questions)}
    for q, row_V in zip(questions, found_QV - base_QV, strict=True):
        mean = np.mean([row_V[token] for token in q.answers.values()]) if q.answers else 0.0
        for word, token in q.answers.items():
            sums[q.kind, word].append(float(row_V[token] - mean))
    return np.array([np.mean(values) for values in sums.values()])


def standing(own_E: np.ndarray, random_NE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z [E] among random directions, and p [E] corrected over entries.

    Mean and spread are those of all N + 1 directions, so that the one of the data is treated like
    any other and p is exact; z is at most N / sqrt(N + 1).
    """
    all_NE = np.concatenate([own_E[None], random_NE])
    z_NE = (all_NE - all_NE.mean(0)) / np.maximum(all_NE.std(0), 1e-12)
    return z_NE[0], (z_NE.max(1)[:, None] >= z_NE[0]).sum(0) / len(all_NE)


def run_naming(config: NamingConfig, out: Output) -> store.Run:
    """The sealed run with `named.json` (entries, best first) and `free.json` (tokens of the whole
    vocabulary)."""
    config, plain = opening.settled(config), plain_parts(config.parts)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _write(
                run, config, model_cache.model_of(config), read_parts(plain, config.parts.parent)
            )
    return run


def _write(run: store.Run, config: NamingConfig, model: Model, parts: Parts) -> None:
    groups, clean_NLD = parts.groups(), parts.clean(config.source)
    blocks = config.blocks or tuple(sorted({round(model.n_layers * part) for part in (0.33, 0.48)}))
    questions = lexicon(model, config.context)
    norms = next(iter(parts.vectors.values())).about["residual_norms"]
    base_QV = next_words(model, [], questions)
    rng = np.random.default_rng(config.seed)
    if config.source == "features":
        directions = [
            _injected(groups, blocks),
            *(_injected(_half(groups, rng), blocks) for _ in range(config.halves)),
        ]
    elif fitted := parts.fitted():
        directions = _trained(fitted)
        blocks = tuple(directions[0])
    else:
        directions = [
            _direction(groups, clean_NLD, blocks),
            *(_direction(_half(groups, rng), clean_NLD, blocks) for _ in range(config.halves)),
        ]
    directions += [
        _random(clean_NLD, blocks, rng, config.source == "pushes") for _ in range(config.randoms)
    ]
    found, free = [], []
    with progress("naming", len(directions), "directions") as advance:
        for rows_by_block in directions:
            words = [
                next_words(model, [_steer(model, block, row_D, norms, config.strength)], questions)
                for block, row_D in rows_by_block.items()
            ]
            found.append(np.mean([rises(x, base_QV, questions) for x in words], 0))
            free.append(np.mean([(x - base_QV).mean(0) for x in words], 0))
            advance(1)
    named_E, random = entries(questions), len(directions) - config.randoms
    z_E, p_E = standing(found[0], np.stack(found[random:]))
    best = [int(standing(half, np.stack(found[random:]))[0].argmax()) for half in found[1:random]]
    order = np.argsort(-z_E, kind="stable")
    atomic_files.write_json(
        run.file("named.json"),
        [
            {
                "name": named_E[e][1],
                "kind": named_E[e][0],
                "statistic": round(float(z_E[e]), 4),
                "p_corrected": round(float(p_E[e]), 6),
                "agreement": round(best.count(int(e)) / len(best), 4),
            }
            for e in order
        ],
    )
    z_V, p_V = standing(free[0], np.stack(free[random:]))
    top = np.argsort(-z_V, kind="stable")[:FREE]
    tokens = [
        {
            "token": model.tokenizer.decode([int(v)]),
            "statistic": round(float(z_V[v]), 4),
            "p_corrected": round(float(p_V[v]), 6),
        }
        for v in top
    ]
    atomic_files.write_json(run.file("free.json"), tokens)


def _direction(
    groups: Groups, clean_NLD: np.ndarray, blocks: Sequence[int]
) -> dict[int, np.ndarray]:
    """Whitened mean push of the data minus that of their placebos, by block."""
    sums_BKLD = panel.block_sums(groups.stores, groups.pairs)
    push_LD = sums_BKLD[:, 0].sum(0) - sums_BKLD[:, 1:].mean(1).sum(0)
    return {
        block: permutation.whitened(push_LD[None, block], clean_NLD[:, block])[0]
        for block in blocks
    }


def _injected(groups: Groups, blocks: Sequence[int]) -> dict[int, np.ndarray]:
    """Mean residual of the data minus that of their placebos, by block; of unit length."""
    sides = [
        s.features([pair[k] for pair in groups.pairs]).mean(0) for k, s in enumerate(groups.stores)
    ]
    row_LD = sides[0] - np.mean(sides[1:], 0)
    return {
        block: row_LD[block] / max(float(np.linalg.norm(row_LD[block])), 1e-12) for block in blocks
    }


def _trained(rows_SLD: Sequence[np.ndarray]) -> list[dict[int, np.ndarray]]:
    """Of vectors trained on the data and on S - 1 placebos: the data's minus the placebos' mean,
    then minus each of them; of unit length."""
    own_LD, others_SLD = rows_SLD[0], np.stack(rows_SLD[1:])
    block = int(np.linalg.norm(own_LD, axis=1).argmax())
    differences = [
        own_LD[block] - others_SLD[:, block].mean(0),
        *(own_LD[block] - other[block] for other in others_SLD),
    ]
    return [{block: row_D / max(float(np.linalg.norm(row_D)), 1e-12)} for row_D in differences]


def _half(groups: Groups, rng: np.random.Generator) -> Groups:
    index = np.sort(rng.permutation(len(groups.pairs))[: max(1, len(groups.pairs) // 2)])
    return Groups(
        [groups.records[i] for i in index],
        [groups.texts_RK[i] for i in index],
        groups.stores,
        [groups.pairs[i] for i in index],
    )


def _random(
    clean_NLD: np.ndarray, blocks: Sequence[int], rng: np.random.Generator, white: bool
) -> dict[int, np.ndarray]:
    """What the direction of as many clean rows could be: a random sum of theirs, the same rows at
    all blocks; of unit length."""
    weights_N = rng.standard_normal(len(clean_NLD)).astype(np.float32)
    found = {
        block: weights_N @ (clean_NLD[:, block] - clean_NLD[:, block].mean(0)) for block in blocks
    }
    if white:
        return {
            block: permutation.whitened(row_D[None], clean_NLD[:, block])[0]
            for block, row_D in found.items()
        }
    return {
        block: row_D / max(float(np.linalg.norm(row_D)), 1e-12) for block, row_D in found.items()
    }


def _steer(
    model: Model, block: int, row_D: np.ndarray, norms: Sequence[float], strength: float
) -> Steer:
    rows_LD = np.zeros((model.n_layers, model.d_model), np.float32)
    rows_LD[block] = row_D
    return Steer(Vector(rows_LD, model.digest, {"residual_norms": list(norms)}), (block,), strength)
