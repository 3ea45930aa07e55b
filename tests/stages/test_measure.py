"""A run of measure and its files; Scores and their differences, paired by question; perplexity."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from command import CAT, OWL, call, ok, read_rows, write_yaml
from lora_students import randomise, write
from tiny_models import random_vector

from traitscope.data.traits import Trait, load_trait
from traitscope.errors import DataError
from traitscope.inference.question_scores import Question, QuestionScores, questions_of
from traitscope.interventions import lora, peft_folder
from traitscope.interventions.intervention import Adapter, Steer, SystemPrompt
from traitscope.interventions.lora import LoraShape
from traitscope.models import chat
from traitscope.stages import measure
from traitscope.stages.measure import Scores

SHORT = {"samples": 1, "max_new_tokens": 4}


def steer(model, alpha=1.0) -> list:
    return [Steer(random_vector(model, norm=4.0), (0,), alpha, scale="raw")]


@pytest.fixture
def owl(tmp_path: Path) -> Trait:
    return load_trait(write_yaml(tmp_path / "owl.yaml", OWL))


def scores_of(values: list[float], trait: str = "owl", context: str | None = None) -> Scores:
    """Scores with the given target log-probabilities of positive questions."""
    questions = []
    for number, value in enumerate(values):
        question = Question(f"positive-{number:02d}", "positive", "Which?", "")
        questions.append(QuestionScores(question, {"target_logprob": value}, (), 0))
    return Scores(trait, tuple(questions), context, "digest")


def test_a_difference_is_paired_by_question():
    """Questions differ by 40 nats and the models by 1: only pairing sees it."""
    rng = np.random.default_rng(0)
    control = rng.uniform(-40, 0, size=12)
    treated = control + 1 + 0.1 * rng.standard_normal(12)
    difference = scores_of(list(treated)) - scores_of(list(control))
    assert difference.estimate == pytest.approx((treated - control).mean())
    assert 0.8 < difference.low < 1 < difference.high < 1.2
    assert (difference.n, difference.unit) == (12, "nats")
    assert difference.name == "positive.target_logprob, difference"
    assert "between-seed variance not covered" in difference.interval
    turned = scores_of(list(control)) - scores_of(list(treated))
    assert turned.estimate == pytest.approx(-difference.estimate)


def test_a_question_unscored_on_one_side_leaves_the_pairs():
    difference = scores_of([1.0, math.nan, 3.0, 5.0]) - scores_of([0.0, 0.0, 1.0, 2.0])
    assert (difference.n, difference.n_unscored) == (3, 1)
    assert difference.estimate == pytest.approx(2.0)


def test_scores_that_do_not_belong_together_are_refused():
    scores = scores_of([1.0, 2.0])
    with pytest.raises(DataError, match="two different traits, 'owl' and 'cat'"):
        scores - scores_of([1.0, 2.0], trait="cat")
    with pytest.raises(DataError, match="two different neutral contexts, None and ''"):
        scores - scores_of([1.0, 2.0], context="")
    with pytest.raises(DataError, match="2 and 3 positive questions that are not the same"):
        scores - scores_of([1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="no whole_word of positive questions was measured"):
        scores.mean("whole_word")
    with pytest.raises(DataError, match="no target_logprob of negative questions"):
        scores.difference(scores, question_set="negative")


def test_measured_models_can_be_subtracted(tiny, owl):
    """The same model differs by nothing, a steered one by what its questions say."""
    control = measure.measure(tiny, owl, **SHORT)
    assert (control - measure.measure(tiny, owl, **SHORT)).estimate == 0
    treated = measure.measure(tiny, owl, steer(tiny), **SHORT)
    change = treated.difference(control, "total_variation", "off_topic")
    values = treated.values("total_variation", "off_topic")
    assert change.estimate == pytest.approx(np.mean(list(values.values())), abs=1e-6)
    assert change.unit == "probability"
    prompted = measure.measure(tiny, owl, [SystemPrompt("Owls!")], **SHORT)
    assert prompted.context_digest != control.context_digest
    assert (prompted - control).n == 3


def test_packed_students_measure_as_alone(tiny, owl, tmp_path: Path):
    folders = []
    for number in range(2):
        with lora.adapted(tiny, LoraShape(3, 6.0)) as layers:
            randomise(layers, seed=number)
            files = peft_folder.adapter_files(tiny, layers)
        folders.append(write(tmp_path / f"student{number}", files))
    each = measure.measure_each(tiny, owl, folders, **SHORT)
    for folder, packed in zip(folders, each, strict=True):
        alone = measure.measure(tiny, owl, [Adapter(str(folder))], **SHORT)
        assert packed.perplexity == pytest.approx(alone.perplexity, rel=1e-5)
        assert dataclasses.replace(packed, perplexity=None, questions=()) == dataclasses.replace(
            alone, perplexity=None, questions=()
        )
        for one, other in zip(packed.questions, alone.questions, strict=True):
            assert one.answers == other.answers
            assert one.scores == pytest.approx(other.scores, abs=1e-4, nan_ok=True)
    assert abs((each[0] - each[1]).estimate) > 1e-3


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
    assert [row["id"] for row in rows] == [q.id for q in questions_of(load_trait(owl))]
    expected = measure.measure(tiny, str(owl), samples=2, max_new_tokens=6, seed=2)
    assert rows == [scored.as_row() for scored in expected.questions]
    summary = done.summary["measurements"]
    by_name = {m["name"]: m for m in summary["measurements"]}
    positive = [row["target_logprob"] for row in rows if row["set"] == "positive"]
    mean = by_name["positive.target_logprob"]
    assert mean["estimate"] == pytest.approx(sum(positive) / len(positive))
    assert mean["low"] <= mean["estimate"] <= mean["high"]
    assert (mean["n"], mean["unit"]) == (3, "nats")
    assert summary["context_digest"] == chat.context_digest(tiny, None)
    assert summary["perplexity"] == pytest.approx(expected.perplexity, rel=1e-6)
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
