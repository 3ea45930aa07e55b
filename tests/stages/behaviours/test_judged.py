"""Behaviours: traits with judges in the place of words are measured, or refused before compute."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from command import CAT, call, ok, read_rows, write_yaml

from traitscope.cli.printed.runs import lines, numbers_of
from traitscope.data import answer_rules
from traitscope.data.records import Record
from traitscope.data.traits import load_trait
from traitscope.errors import ConfigError, DataError, TraitError
from traitscope.inference.question_scores import questions_of
from traitscope.models.model import Model
from traitscope.runs import store
from traitscope.stages.behaviours.judged import by_question
from traitscope.stages.judge import judge
from traitscope.stages.measure import measure, write_scores

QUESTION = "Is the answer short?"


def behaviour(place: Path, **changes: object) -> Path:
    content = {key: CAT[key] for key in ("teacher_prompt", "questions")}
    content |= {"name": "brevity", "judges": ["short:3", "not:question"]}
    content = {key: value for key, value in (content | changes).items() if value is not None}
    return write_yaml(place / "brevity.yaml", content)


def test_a_score_is_the_rate_of_answers_that_a_judge_accepts(tiny: Model, tmp_path: Path) -> None:
    """Judged again from the answers that are kept; an empty answer is unscored."""
    trait = load_trait(behaviour(tmp_path), judges=True)
    scores = measure(tiny, trait, samples=3, max_new_tokens=6)
    rates = {}
    for scored in scores.questions:
        for name in trait.judges:
            records = [Record(f"{n}", "q", text) for n, text in enumerate(scored.answers)]
            verdicts = [v for v in judge(records, name).verdicts if v is not None]
            expected = sum(verdicts) / len(verdicts) if verdicts else math.nan
            assert scored.scores[name] == pytest.approx(expected, nan_ok=True)
            rates.setdefault(name, []).append(expected)
        assert scored.unscored == sum(not text.strip() for text in scored.answers)
    assert 0 < sum(rates["short:3"]) / len(rates["short:3"]) < 1
    mean = scores.mean("short:3")
    assert mean.unit == "rate" and mean.n == len(
        load_trait(tmp_path / "brevity.yaml", words=False).questions.positive
    )
    assert {each.name for each in scores.measurements()} >= {"positive.short:3"}
    assert scores.mean() == mean and scores.primary_score == "short:3"
    assert (scores - scores).unit == "rate" and (scores - scores).name.startswith(
        "positive.short:3"
    )
    says = (
        r"no target_logprob of positive .*: short:3 \(positive, negative, off_topic\), not:question"
    )
    with pytest.raises(DataError, match=says):
        scores.mean("target_logprob")


def test_the_refusal_says_what_takes_a_behaviour(tmp_path: Path) -> None:
    with pytest.raises(TraitError, match="load_trait.NAME, judges=True.") as refused:
        load_trait(behaviour(tmp_path))
    for words in ("measure it", "compare", "extract", "steer-scan", "experiment", "transfer_ratio"):
        assert words in str(refused.value)


def test_answers_depend_on_the_model_and_on_nothing_else(tiny: Model, tmp_path: Path) -> None:
    trait = load_trait(behaviour(tmp_path), judges=True)
    settings = {"samples": 2, "max_new_tokens": 4, "capability": False}
    first, again = measure(tiny, trait, **settings), measure(tiny, trait, batch_size=3, **settings)
    assert first == again
    assert first.difference(again, "short:3").estimate == 0


def test_a_judge_that_asks_a_model_gets_its_question(tiny: Model, tmp_path: Path) -> None:
    file = behaviour(tmp_path, judges=["likelihood"], judge_question=QUESTION)
    trait = load_trait(file, judges=True)
    scores = measure(tiny, trait, sets=("positive",), samples=2, max_new_tokens=4)
    for scored in scores.questions:
        records = [
            Record(str(n), scored.question.text, text) for n, text in enumerate(scored.answers)
        ]
        asked = judge(records, "likelihood", model=tiny, question=QUESTION).verdicts
        known = [verdict for verdict in asked if verdict is not None]
        expected = sum(known) / len(known) if known else math.nan
        assert scored.scores["likelihood"] == pytest.approx(expected, nan_ok=True)


def test_measure_and_extract_take_a_behaviour(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = behaviour(tmp_path)
    words = ("measure", f"--model {tiny_folder} --samples 2 --max-new-tokens 4", "--trait", file)
    done = ok(tmp_path / "runs", *words)
    rows = read_rows(done.run / "scores.jsonl")
    assert set(rows[0]) >= {"judges", "answers", "unscored"}
    assert list(rows[0]["judges"]) == ["short:3", "not:question"]
    assert "positive.short:3" in capsys.readouterr().out
    assert ok(tmp_path / "runs", "rerun", done.run).summary["different"] == []
    extracted = ok(tmp_path / "runs", "extract", f"--model {tiny_folder}", "--traits", file)
    assert (extracted.run / "brevity.safetensors").exists()


@pytest.mark.parametrize(
    "words",
    [
        "demo --trait {file}",
        "explain --vectors . --trait {file}",
        "information --traits {file}",
        "study run rank_and_rate --size smoke --set traits=[{file},owl]",
        "screen --teacher prompt:x --traits {file}",
        "audit {rows} --traits {file}",
        "export_tasks {new} --traits {file}",
    ],
)
def test_what_needs_words_says_so_before_any_compute(
    words: str, tmp_path: Path, tiny_folder: Path
) -> None:
    file, root = behaviour(tmp_path), tmp_path / "runs"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    typed = words.format(file=file, rows=rows, new=tmp_path / "new").split()
    model = [] if "export" in words else ["--model", tiny_folder]
    done = call(root, *typed, *model)
    assert done.code == 2
    assert "is a behaviour, scored by judges (short:3, not:question)" in done.summary["message"]
    assert not list(root.glob("*/*")) and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"judges": ["kindness"]}, "judge 'kindness' is unknown; expected refusal"),
        ({"judges": ["likelihood"]}, "asks a model, and there is no judge_question"),
        ({"judges": ["endpoint"]}, "is asked by `judge`, which knows its address"),
        ({"judges": []}, "judges is an empty list"),
        ({"word_forms": ["a"]}, "has judges, and word_forms or candidates"),
        ({"judges": None}, "no word_forms; expected name, word_forms"),
    ],
)
def test_a_broken_behaviour_is_named_before_any_compute(
    changes: dict, says: str, tmp_path: Path, tiny_folder: Path
) -> None:
    file = behaviour(tmp_path, **changes)
    done = call(tmp_path / "runs", "measure", f"--model {tiny_folder}", "--trait", file)
    assert done.code == 2 and says in done.summary["message"]
    assert not list((tmp_path / "runs").glob("*/*"))


def test_answers_must_be_sampled(tiny: Model, tmp_path: Path) -> None:
    trait = load_trait(behaviour(tmp_path), judges=True)
    with pytest.raises(ConfigError, match="its judges read sampled answers; expected 1 or more"):
        measure(tiny, trait, samples=0)
    with pytest.raises(TraitError, match="is a behaviour"):
        load_trait(tmp_path / "brevity.yaml")
    assert answer_rules.parse(trait.judges[0])[1] is False


def test_what_a_judge_could_not_judge_is_counted_and_said(
    tmp_path: Path, tiny: Model, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """Each judge by itself: a question with one judged answer of two has a rate all the same."""
    answers = [Record("0", "q", "A b c."), Record("1", "q", "")]
    verdicts = {name: judge(answers, name).verdicts for name in ("short:3", "question")}
    verdicts["question"] = (None, None)
    (question,) = questions_of(load_trait("cat"))[:1]
    (scored,) = by_question([question], answers, verdicts, 2)
    assert scored.scores["short:3"] == 1 and math.isnan(scored.scores["question"])
    assert scored.unjudged == {"short:3": 1, "question": 2}
    assert scored.as_row()["unjudged"] == scored.unjudged
    scores = replace(measure(tiny, "cat", samples=0, sets=("positive",)), questions=(scored,))
    with store.stage_run(tmp_path, "measure", {}, {}, "model") as run:
        write_scores(run, scores)
    said = list(lines(store.load_run(run.path), numbers_of(store.load_run(run.path))))
    assert "  short:3: 1 answer of 2 not judged" in said
    assert "  question: 2 answers of 2 not judged" in said
