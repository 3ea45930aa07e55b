"""Scores against a slow reading of the same definitions: one question at a time, no cache, no
batch."""

import math
from pathlib import Path

import pytest
import torch
from command import CAT, OWL, QUESTIONS, call, ok, read_rows, write_yaml
from tiny_models import random_vector

from traitscope.data.traits import Questions, Trait, load_trait
from traitscope.errors import DataError
from traitscope.inference import forward
from traitscope.inference.decode import Sampling
from traitscope.interventions.intervention import Steer, SystemPrompt, applied
from traitscope.models import chat
from traitscope.stages import measure

SAMPLING = Sampling(max_new_tokens=6, seed=2)
TRAIT = Trait(
    "owl",
    ("owl", "owls"),
    "I love owls.",
    Questions(*(tuple(QUESTIONS[n]) for n in measure.SETS), QUESTIONS["stems"]),
    ("cat", "dog", "eagle", "s"),
)


def scored(model, interventions=(), samples=0, batch_size=64, context=None, trait=TRAIT):
    return measure.score(model, trait, interventions, context, samples, SAMPLING, batch_size)


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
    ids = measure.question_ids(model, question, None)
    log_p = next_logprobs(model, interventions, ids)
    base = next_logprobs(model, [], ids)

    def sequence(form: list[int]) -> float:
        return sum(
            next_logprobs(model, interventions, ids + form[:n])[token].item()
            for n, token in enumerate(form)
        )

    target = math.log(
        sum(
            math.exp(sequence(form))
            for form in measure.form_ids(model, TRAIT.word_forms, question.stem)
        )
    )
    single = [f[0] for f in measure.form_ids(model, TRAIT.candidates, question.stem) if len(f) == 1]
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
    for row, question in zip(rows, measure.questions_of(TRAIT), strict=True):
        for name, value in slowly(family, steer(family, alpha), question).items():
            assert row[name] == pytest.approx(value, abs=2e-4, nan_ok=True), (row["id"], name)


def test_the_base_does_not_differ_from_itself(family):
    assert max(row["total_variation"] for row in scored(family)) < 1e-6
    assert min(row["total_variation"] for row in scored(family, steer(family))) > 1e-3


def test_another_context_is_compared_with_the_base_in_the_neutral_one(tiny):
    prompted = scored(tiny, [SystemPrompt("Owls!")])
    assert min(row["total_variation"] for row in prompted) > 1e-4
    told = scored(tiny, context="Owls!")
    assert max(row["total_variation"] for row in told) < 1e-6
    for a, b in zip(prompted, told, strict=True):
        assert a["target_logprob"] == pytest.approx(b["target_logprob"], abs=1e-5)


@pytest.mark.parametrize("samples", [0, 3])
def test_the_batch_size_changes_no_score(family, samples):
    whole, parts = (scored(family, steer(family), samples, batch_size=n) for n in (64, 2))
    for a, b in zip(whole, parts, strict=True):
        assert a["answers"] == b["answers"]
        assert len(a["answers"]) == samples
        assert a["target_logprob"] == pytest.approx(b["target_logprob"], abs=1e-4)


def test_answers_are_counted_as_the_trait_says(tiny):
    question = measure.questions_of(TRAIT)[0]
    row = measure._row(TRAIT, question, {}, ["Owls are best", "the owl", "cat", "", "  "])
    assert (row["whole_word"], row["first_word"], row["unscored"]) == (2 / 3, 1 / 3, 2)
    assert math.isnan(measure._row(TRAIT, question, {}, ["", " "])["whole_word"])
    assert "whole_word" not in measure._row(TRAIT, question, {}, [])


def test_word_forms_that_continue_each_other_are_counted_once(tiny):
    forms = measure.form_ids(tiny, ("owl", "owls"), "My favourite is the")
    assert forms
    assert all(not (a != b and a[: len(b)] == b) for a in forms for b in forms)
    texts = {tiny.tokenizer.decode(ids) for ids in measure.form_ids(tiny, ("dog",), "")}
    assert texts == {"dog", "Dog"}
    assert {tiny.tokenizer.decode(ids) for ids in measure.form_ids(tiny, ("dog",), "The")} == {
        " dog"
    }


def test_a_question_that_leaves_no_room_is_named(tiny):
    with pytest.raises(DataError, match="question positive-00: .* tokens, but"):
        scored(tiny, context="owls " * 2000)


def test_the_run_holds_a_row_a_question_and_intervals(tiny, tiny_folder: Path, tmp_path: Path):
    owl = write_yaml(tmp_path / "owl.yaml", OWL)
    words = [
        "measure",
        "--model",
        tiny_folder,
        "--trait",
        owl,
        "--samples 2 --max-new-tokens 6 --seed 2",
    ]
    done = ok(tmp_path / "runs", *words)
    rows = read_rows(done.run / "scores.jsonl")
    assert [row["id"] for row in rows] == [q.id for q in measure.questions_of(load_trait(owl))]
    expected = measure.score(tiny, load_trait(owl), [], None, 2, SAMPLING)
    assert [row["answers"] for row in rows] == [row["answers"] for row in expected]
    summary = done.summary["measurements"]
    found = {m["name"]: m for m in summary["measurements"]}
    positive = [row["target_logprob"] for row in rows if row["set"] == "positive"]
    mean = found["positive.target_logprob"]
    assert mean["estimate"] == pytest.approx(sum(positive) / len(positive))
    assert mean["low"] <= mean["estimate"] <= mean["high"]
    assert (mean["n"], mean["unit"]) == (3, "nats")
    assert summary["context_digest"] == chat.context_digest(tiny, None)
    assert summary["perplexity"] == pytest.approx(measure.perplexity(tiny, []), rel=1e-6)
    assert (
        ok(tmp_path / "runs", *words, "--no-capability").summary["measurements"]["perplexity"]
        is None
    )


def test_perplexity_is_that_of_the_text_and_moves_with_the_model(tiny):
    base = measure.perplexity(tiny, [])
    assert 1 < base
    assert measure.perplexity(tiny, steer(tiny, 0.0)) == base
    assert measure.perplexity(tiny, steer(tiny, 3.0)) != pytest.approx(base, rel=1e-3)


def test_traits_are_told_apart_by_name_and_file(tiny_folder: Path, tmp_path: Path):
    runs = [
        ok(
            tmp_path / "runs",
            "measure",
            "--model",
            tiny_folder,
            "--samples 0 --no-capability --trait",
            path,
        ).summary
        for path in (write_yaml(tmp_path / "owl.yaml", OWL), write_yaml(tmp_path / "cat.yaml", CAT))
    ]
    assert runs[0]["address"] != runs[1]["address"]
    assert [run["measurements"]["trait"] for run in runs] == ["owl", "cat"]


def test_some_sets_only(tmp_path: Path, tiny_folder: Path) -> None:
    """The rows of a set are the same without the others; the flag takes known sets, once each."""
    trait = write_yaml(tmp_path / "owl.yaml", OWL)
    words = ["measure", "--model", tiny_folder, "--trait", trait, "--samples", "1"]
    whole, part = (
        ok(tmp_path / "runs", *words, *flags).run
        for flags in ([], ["--sets", "off_topic", "positive"])
    )
    rows, fewer = (read_rows(run / "scores.jsonl") for run in (whole, part))
    assert fewer == [row for row in rows if row["set"] != "negative"] and len(fewer) < len(rows)
    for bad in (["--sets"], ["--sets", "positive", "positive"], ["--sets", "neutral"]):
        assert call(tmp_path / "runs", *words, *bad).code == 2
