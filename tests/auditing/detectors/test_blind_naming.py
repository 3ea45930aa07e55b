"""Naming: a planted direction is read out as its word and no random one is; ranks and p by hand."""

import numpy as np
import pytest
from tiny_models import hooks_left

from traitscope.auditing.detectors import blind_naming
from traitscope.auditing.detectors.blind_naming import (
    OneWordQuestion,
    entries,
    lexicon,
    next_words,
    rises,
    standing,
)
from traitscope.models.model import Model


def test_the_lexicon_has_no_two_answers_with_one_first_token(tiny: Model) -> None:
    found = lexicon(tiny, None)
    assert {q.kind for q in found} == {
        "animals",
        "trees",
        "emotions",
        "personas",
        "colours",
        "countries",
        "stances",
    }
    for q in found:
        assert len(set(q.answers.values())) == len(q.answers) and all(
            isinstance(word, str) for word in q.answers
        )


def test_a_planted_direction_is_named(tiny: Model) -> None:
    """The head's own row of a word's token, added behind the last block, raises that word above all
    others."""
    questions, before = lexicon(tiny, None), hooks_left(tiny)
    base, rng, last = next_words(tiny, [], questions), np.random.default_rng(0), tiny.n_layers - 1
    word, token = next((w, t) for q in questions for w, t in q.answers.items())
    kind = questions[0].kind
    head = tiny.head.weight.detach().numpy()
    rows = [head[token], *rng.standard_normal((20, tiny.d_model)).astype(np.float32)]
    found = []
    for row in rows:
        told = blind_naming.steering(
            tiny, last, row / np.linalg.norm(row), [1.0] * tiny.n_layers, 2.0
        )
        found.append(rises(next_words(tiny, [told], questions), base, questions))
    z, p = standing(found[0], np.stack(found[1:]))
    hit = {
        tiny.tokenizer.encode(f" {w}")[0]: (k, w)
        for k, w in np.array(entries(questions))[np.argsort(-z)[:1]]
    }
    assert token in hit and p.min() == pytest.approx(1 / 21)
    assert (kind, word) in entries(questions) and hooks_left(tiny) == before
    assert standing(found[1], np.stack(found[2:]))[1].min() > 1 / 20


def test_rises_are_centred_by_question_and_averaged_by_kind() -> None:
    questions = [
        OneWordQuestion("k", [1], {"a": 0, "b": 1}),
        OneWordQuestion("k", [1], {"a": 0, "b": 1}),
        OneWordQuestion("m", [1], {"c": 2}),
    ]
    base = np.zeros((3, 4))
    found = np.array([[1.0, 0, 9, 9], [3.0, 0, 9, 9], [0, 0, 5.0, 0]])
    assert entries(questions) == [("k", "a"), ("k", "b"), ("m", "c")]
    np.testing.assert_allclose(rises(found, base, questions), [1.0, -1.0, 0.0])


def test_standing_by_hand() -> None:
    random = np.array([[-1.0, 0, 1], [0, 1, -1], [1, -1, 0]])
    z, p = standing(np.array([5.0, 0.0, -5.0]), random)
    np.testing.assert_allclose(
        z, [1.6465, 0, -1.6465], atol=1e-4
    )  # (5 - 1.25) / sd of (5, -1, 0, 1)
    np.testing.assert_allclose(p, [0.25, 1.0, 1.0])


def test_clean_directions_are_called_as_often_as_said() -> None:
    rng = np.random.default_rng(1)
    hits = [
        standing(rng.standard_normal(30), rng.standard_normal((39, 30)))[1].min() <= 0.1
        for _ in range(300)
    ]
    assert np.mean(hits) < 0.1 + 3.3 * np.sqrt(0.09 / 300)
