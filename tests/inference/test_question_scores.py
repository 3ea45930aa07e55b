"""Scores against a slow reading of the same definitions: one question at a time, no cache, no
batch."""

import math

import pytest
import torch
from command import QUESTIONS
from tiny_models import random_vector

from traitscope.data.traits import SETS, Questions, Trait
from traitscope.errors import DataError
from traitscope.inference import forward, question_scores
from traitscope.inference.decode import Sampling
from traitscope.inference.question_scores import form_ids, question_ids, questions_of
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Steer, SystemPrompt

SAMPLING = Sampling(max_new_tokens=6, seed=2)
TRAIT = Trait(
    "owl",
    ("owl", "owls"),
    "I love owls.",
    Questions(*(tuple(QUESTIONS[n]) for n in SETS), QUESTIONS["stems"]),
    ("cat", "dog", "eagle", "s"),
)


def scored(model, interventions=(), samples=0, batch_size=64, context=None) -> list[dict]:
    """Scores of each question by name, with its id and its sampled answers."""
    scores = question_scores.score_questions(
        model, TRAIT, interventions, context, samples, SAMPLING, batch_size
    )
    return [
        {"id": row.question.id, "answers": row.answers, "unscored": row.unscored} | row.scores
        for row in scores
    ]


def steer(model, alpha=1.0) -> list:
    return [Steer(random_vector(model, norm=4.0), (0,), alpha, scale="raw")]


def next_logprobs(model, interventions, ids: list[int]) -> torch.Tensor:
    """log p(next token) [V] behind these ids, the whole row read at once."""
    with torch.inference_mode(), applied(model, interventions) as active:
        hidden = forward.hidden_states(
            model, active, forward.batch_of([ids], [len(ids)], model.pad_id)
        )
        return torch.log_softmax(forward.logits_of(model, hidden[0, -1:])[0].double(), -1)


def slowly(model, interventions, question) -> dict[str, float]:
    ids = question_ids(model, question, None)
    log_p = next_logprobs(model, interventions, ids)
    base = next_logprobs(model, [], ids)

    def sequence(form: list[int]) -> float:
        return sum(
            next_logprobs(model, interventions, ids + form[:n])[token].item()
            for n, token in enumerate(form)
        )

    target = math.log(
        sum(math.exp(sequence(form)) for form in form_ids(model, TRAIT.word_forms, question.stem))
    )
    single = [f[0] for f in form_ids(model, TRAIT.candidates, question.stem) if len(f) == 1]
    others = sum(log_p[token].exp().item() for token in single)
    share = math.exp(target) / (math.exp(target) + others) if single else math.nan
    return {
        "target_logprob": target,
        "candidate_share": share,
        "total_variation": 0.5 * (log_p.exp() - base.exp()).abs().sum().item(),
    }


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_forced_scores_are_those_of_the_definition(family, alpha):
    rows = scored(family, steer(family, alpha), batch_size=2)
    for row, question in zip(rows, questions_of(TRAIT), strict=True):
        for name, value in slowly(family, steer(family, alpha), question).items():
            assert row[name] == pytest.approx(value, abs=2e-4, nan_ok=True), (row["id"], name)


def test_the_base_does_not_differ_from_itself(family):
    assert max(row["total_variation"] for row in scored(family)) < 1e-6
    assert min(row["total_variation"] for row in scored(family, steer(family))) > 1e-3


def test_another_context_is_compared_with_the_base_in_the_neutral_one(tiny):
    prompted = scored(tiny, [SystemPrompt("Owls!")])
    assert min(row["total_variation"] for row in prompted) > 1e-4
    in_context = scored(tiny, context="Owls!")
    assert max(row["total_variation"] for row in in_context) < 1e-6
    for a, b in zip(prompted, in_context, strict=True):
        assert a["target_logprob"] == pytest.approx(b["target_logprob"], abs=1e-5)


@pytest.mark.parametrize("samples", [0, 3])
def test_the_batch_size_changes_no_score(family, samples):
    whole, parts = (scored(family, steer(family), samples, batch_size=n) for n in (64, 2))
    for a, b in zip(whole, parts, strict=True):
        assert a["answers"] == b["answers"]
        assert len(a["answers"]) == samples
        assert a["target_logprob"] == pytest.approx(b["target_logprob"], abs=1e-4)


def test_answers_are_counted_as_the_trait_says():
    question = questions_of(TRAIT)[0]

    def counted(*answers: str) -> question_scores.QuestionScores:
        return question_scores.question_scores(TRAIT, question, {}, answers)

    some = counted("Owls are best", "the owl", "cat", "", "  ")
    assert some.scores == {"whole_word": 2 / 3, "first_word": 1 / 3}
    assert some.unscored == 2
    assert math.isnan(counted("", " ").scores["whole_word"])
    assert "whole_word" not in counted().scores


def test_a_row_of_the_file_has_no_nan():
    question = questions_of(TRAIT)[0]
    row = question_scores.question_scores(TRAIT, question, {"candidate_share": math.nan}, [""])
    assert row.as_row() == {
        "id": "positive-00",
        "set": "positive",
        "question": "Which animal do you like best?",
        "candidate_share": None,
        "whole_word": None,
        "first_word": None,
        "answers": [""],
        "unscored": 1,
    }


def test_word_forms_that_continue_each_other_are_counted_once(tiny):
    forms = form_ids(tiny, ("owl", "owls"), "My favourite is the")
    assert forms
    assert all(not (a != b and a[: len(b)] == b) for a in forms for b in forms)
    texts = {tiny.tokenizer.decode(ids) for ids in form_ids(tiny, ("dog",), "")}
    assert texts == {"dog", "Dog"}
    assert {tiny.tokenizer.decode(ids) for ids in form_ids(tiny, ("dog",), "The")} == {" dog"}


def test_a_question_that_leaves_no_room_is_named(tiny):
    with pytest.raises(DataError, match="question positive-00: .* tokens, but"):
        scored(tiny, context="owls " * 2000)


def test_few_base_distributions_are_kept(tiny, monkeypatch):
    """A process that measures many traits keeps the last few; a kept one is not computed again."""
    monkeypatch.setattr(question_scores, "_base_cache", {})
    computed = []
    real = question_scores._compute_base

    def counted(model, prompts):
        computed.append(prompts)
        return real(model, prompts)

    monkeypatch.setattr(question_scores, "_compute_base", counted)
    size = question_scores.BASE_CACHE_SIZE
    prompts = [[[1, 2, 3 + n], [4, 5]] for n in range(size + 2)]
    first = question_scores.base_log_probs(tiny, prompts[0])
    for rows in prompts[1:size]:
        question_scores.base_log_probs(tiny, rows)
    assert question_scores.base_log_probs(tiny, prompts[0]) is first
    assert len(computed) == size
    for rows in prompts[size:]:
        question_scores.base_log_probs(tiny, rows)
        assert len(question_scores._base_cache) == size
    assert question_scores.base_log_probs(tiny, prompts[0]) is first, "used last, so kept"
    question_scores.base_log_probs(tiny, prompts[1])
    assert len(computed) == size + 3


def test_the_unmodified_model_does_not_differ_from_itself(tiny) -> None:
    """Not by the rounding of batches either; a change of no strength is a change."""
    for batch_size in (1, 2, 64):
        rows = scored(tiny, batch_size=batch_size)
        assert [row["total_variation"] for row in rows] == [0.0] * len(rows)
    assert all(row["total_variation"] > 0 for row in scored(tiny, steer(tiny)))
