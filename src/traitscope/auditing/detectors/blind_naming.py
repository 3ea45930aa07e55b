"""Blind naming: what the model says when a direction of the data is added to it.

    direction_l = mean residual over completion tokens of the rows, minus that of placebos, at
                  block l, as the published method takes it (Data2Behavior, arXiv 2602.04735)
    rise        = log P(answer | direction added) - log P(answer), minus the mean rise of all
                  answers to that question

The rise is averaged over blocks. Its z is taken against random directions of the same length. These
are random sums of placebos' mean residuals. p is corrected over all answers. It is the fraction of
random directions whose largest z is at least as large. First tokens of answers are compared.
Answers that share their first token are left out.

Shapes: L blocks, D d_model, N clean rows or random directions, E answers, V vocabulary,
Q questions, S sets of rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import yaml

from traitscope.data.package_files import bundled_file
from traitscope.inference import forward
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Intervention, Steer
from traitscope.interventions.vector import Vector
from traitscope.models import chat
from traitscope.models.model import Model

FREE = 12
"tokens of the whole vocabulary that are listed"
ByBlock = dict[int, np.ndarray]
"a direction [D] by the block where it is added"


@dataclass(frozen=True)
class OneWordQuestion:
    """A question that calls for one word."""

    kind: str
    "what is asked for, such as animals"
    ids: list[int]
    "token ids of the chat up to the place where the word comes"
    answers: dict[str, int]
    "first token of every answer whose first token no other shares"


@dataclass(frozen=True)
class Rises:
    """What one direction raises, on average over blocks."""

    answers_E: np.ndarray
    "rise of every answer, in nats"
    tokens_V: np.ndarray
    "rise of every token's log-probability, in nats"


def lexicon(model: Model, context: str | None) -> list[OneWordQuestion]:
    """The bundled questions, rendered, with their answers."""
    folder = bundled_file()
    entries_by_kind = yaml.safe_load((folder / "lexicon.yaml").read_text(encoding="utf-8"))
    questions = []
    for kind, entry in entries_by_kind.items():
        words = entry["words"]
        if isinstance(words, str):
            file = folder / "candidates" / f"{words}.yaml"
            words = yaml.safe_load(file.read_text(encoding="utf-8"))
        answers = _answers(model, words)
        stem = chat.completion_ids(model, entry["stem"], end_token=False)
        for text in entry["questions"]:
            questions.append(
                OneWordQuestion(kind, chat.render(model, text, context) + stem, answers)
            )
    return questions


def _answers(model: Model, words: Sequence[str]) -> dict[str, int]:
    """First token of every word whose first token no other word shares."""
    first = {}
    for word in words:
        first[word] = chat.following_ids(model, f" {word}")[0]
    tokens = list(first.values())
    return {word: token for word, token in first.items() if tokens.count(token) == 1}


@torch.inference_mode()
def next_words(
    model: Model, interventions: Sequence[Intervention], questions: Sequence[OneWordQuestion]
) -> np.ndarray:
    """log-probabilities [Q, V] of the token that follows every question."""
    with applied(model, interventions) as active:
        prompts = [question.ids for question in questions]
        _, hidden_QD = forward.prefill(model, active, prompts, 0)
        return torch.log_softmax(forward.logits_of(model, hidden_QD), -1).cpu().numpy()


def entries(questions: Sequence[OneWordQuestion]) -> list[tuple[str, str]]:
    """(kind, answer) of all answers, each once."""
    pairs: dict[tuple[str, str], None] = {}
    for question in questions:
        for word in question.answers:
            pairs[question.kind, word] = None
    return list(pairs)


def rises(
    after_QV: np.ndarray, base_QV: np.ndarray, questions: Sequence[OneWordQuestion]
) -> np.ndarray:
    """Rise of every answer [E] in nats, minus the mean of its question, averaged over the questions
    of its kind."""
    rises_by_entry: dict[tuple[str, str], list[float]] = {}
    for question, rise_V in zip(questions, after_QV - base_QV, strict=True):
        tokens = list(question.answers.values())
        mean = np.mean(rise_V[tokens]) if tokens else 0.0
        for word, token in question.answers.items():
            values = rises_by_entry.setdefault((question.kind, word), [])
            values.append(float(rise_V[token] - mean))
    return np.array(list(map(np.mean, rises_by_entry.values())))


def standing(own_E: np.ndarray, random_NE: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z [E] among random directions, and p [E] corrected over answers.

    Mean and spread are those of all N + 1 directions. So the data's direction is treated like any
    other, p is exact, and z is at most N / sqrt(N + 1).
    """
    all_NE = np.concatenate([own_E[None], random_NE])
    z_NE = (all_NE - all_NE.mean(0)) / np.maximum(all_NE.std(0), 1e-12)
    return z_NE[0], (z_NE.max(1)[:, None] >= z_NE[0]).sum(0) / len(all_NE)


def raised_by(
    model: Model,
    directions: Sequence[ByBlock],
    questions: Sequence[OneWordQuestion],
    strength: float,
    norms: Sequence[float],
) -> Iterator[Rises]:
    """What every direction raises; `strength` is in mean residual norms, `norms` are these."""
    base_QV = next_words(model, [], questions)
    for by_block in directions:
        answers, tokens = [], []
        for block, row_D in by_block.items():
            steer = steering(model, block, row_D, norms, strength)
            after_QV = next_words(model, [steer], questions)
            answers.append(rises(after_QV, base_QV, questions))
            tokens.append((after_QV - base_QV).mean(0))
        yield Rises(np.mean(answers, 0), np.mean(tokens, 0))


def steering(
    model: Model, block: int, row_D: np.ndarray, norms: Sequence[float], strength: float
) -> Steer:
    """Steering by a direction [D] behind one block."""
    rows_LD = np.zeros((model.n_layers, model.d_model), np.float32)
    rows_LD[block] = row_D
    vector = Vector(rows_LD, model.digest, {"residual_norms": list(norms)})
    return Steer(vector, (block,), strength)


def feature_direction(
    data_NLD: np.ndarray, control_NLD: np.ndarray, blocks: Sequence[int]
) -> ByBlock:
    """Mean residual of the data minus that of placebos, by block; of unit length."""
    difference_LD = data_NLD.mean(0) - control_NLD.mean(0)
    return {block: _unit(difference_LD[block]) for block in blocks}


def random_direction(
    clean_NLD: np.ndarray, blocks: Sequence[int], rng: np.random.Generator
) -> ByBlock:
    """What the direction of as many clean rows could be: a random sum of them, the same rows at all
    blocks; of unit length."""
    weights_N = rng.standard_normal(len(clean_NLD)).astype(np.float32)
    direction = {}
    for block in blocks:
        clean_ND = clean_NLD[:, block]
        direction[block] = _unit(weights_N @ (clean_ND - clean_ND.mean(0)))
    return direction


def _unit(row_D: np.ndarray) -> np.ndarray:
    return row_D / max(float(np.linalg.norm(row_D)), 1e-12)


def named_answers(
    questions: Sequence[OneWordQuestion],
    data: Rises,
    halves: Sequence[Rises],
    randoms: Sequence[Rises],
) -> list[Mapping[str, object]]:
    """Answers with their z, corrected p and the fraction of `halves` that name them, best first."""
    random_NE = np.stack([rise.answers_E for rise in randoms])
    z_E, p_E = standing(data.answers_E, random_NE)
    named_by_half = []
    for half in halves:
        named_by_half.append(int(standing(half.answers_E, random_NE)[0].argmax()))
    names = entries(questions)
    rows = []
    for e in np.argsort(-z_E, kind="stable"):
        kind, word = names[e]
        rows.append(
            {
                "name": word,
                "kind": kind,
                "statistic": round(float(z_E[e]), 4),
                "p_corrected": round(float(p_E[e]), 6),
                "agreement": round(named_by_half.count(int(e)) / len(halves), 4),
            }
        )
    return rows


def named_tokens(model: Model, data: Rises, randoms: Sequence[Rises]) -> list[Mapping[str, object]]:
    """The tokens of the whole vocabulary that rise most, with z and corrected p."""
    z_V, p_V = standing(data.tokens_V, np.stack([rise.tokens_V for rise in randoms]))
    rows = []
    for v in np.argsort(-z_V, kind="stable")[:FREE]:
        rows.append(
            {
                "token": model.tokenizer.decode([int(v)]),
                "statistic": round(float(z_V[v]), 4),
                "p_corrected": round(float(p_V[v]), 6),
            }
        )
    return rows
