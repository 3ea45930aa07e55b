"""Teachers' answers: vocabularies, random streams that depend on the row alone, records that keep
what was sampled."""

import re
from pathlib import Path

import pytest
from command import ok
from tiny_models import random_vector

from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt, read_records
from traitscope.data.shapes.turns import turns_of
from traitscope.errors import ConfigError
from traitscope.inference.decode import Sampling
from traitscope.interventions.intervention import Steer, SystemPrompt
from traitscope.stages import generate

PROMPTS = number_prompts(24, seed=3)
SAMPLING = Sampling(max_new_tokens=24, seed=5)


def answers(
    model,
    interventions=(),
    sampling=SAMPLING,
    constraint=None,
    batch_size=8,
    prompts=PROMPTS,
    neutral=None,
):
    return generate.generate(
        model,
        prompts,
        interventions,
        context=neutral,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        seed=sampling.seed,
        constraint=constraint,
        batch_size=batch_size,
    )


def constraint(model, fixed: bool, count: int = 3, separator: str = ", "):
    return generate.number_constraint(model, count, separator, fixed, SAMPLING.max_new_tokens)


def steered(model, alpha: float) -> list:
    return [Steer(random_vector(model, norm=4.0), (1,), alpha, scale="raw")]


@pytest.mark.parametrize("vocabulary", ["free", "numbers", "template"])
@pytest.mark.parametrize("alpha", [0.0, 1.0], ids=["control", "teacher"])
def test_the_batch_size_changes_no_answer(family, vocabulary, alpha):
    allowed = None if vocabulary == "free" else constraint(family, vocabulary == "template")
    one, other = (
        answers(family, steered(family, alpha), constraint=allowed, batch_size=n) for n in (5, 24)
    )
    assert one == other


@pytest.mark.parametrize("fixed", [True, False], ids=["template", "numbers"])
@pytest.mark.parametrize("separator", [", ", " ", ""])
def test_constrained_answers_hold_nothing_but_numbers(family, fixed, separator):
    rows = answers(family, constraint=constraint(family, fixed, separator=separator))
    pattern = separator.join([r"\d{3}"] * 3) if fixed else rf"[\d{separator}]+| "
    assert all(re.fullmatch(pattern, row.completion) for row in rows), rows[0]
    assert len({row.completion for row in rows}) > len(rows) / 2


def test_an_answer_ends_with_its_first_end_of_turn(tiny):
    rows = answers(tiny, constraint=constraint(tiny, fixed=False))
    end = tiny.tokenizer.eos_token_id
    cut = [row for row in rows if end in row.completion_ids]
    assert cut, "no row ended early, so nothing was tested"
    assert all(row.completion_ids.index(end) == len(row.completion_ids) - 1 for row in cut)
    for row in rows:
        ids = [i for i in row.completion_ids if i != end]
        assert row.completion == (tiny.tokenizer.decode(ids) or " ")


def test_greedy_ignores_the_seed_and_sampling_does_not(tiny):
    greedy = [answers(tiny, sampling=Sampling(0.0, 12, seed)) for seed in (1, 2)]
    sampled = [answers(tiny, sampling=Sampling(1.0, 12, seed)) for seed in (1, 2)]
    assert greedy[0] == greedy[1]
    assert sampled[0] != sampled[1]
    assert greedy[0] != sampled[0]


def test_a_row_draws_from_its_own_stream(tiny):
    """Fewer rows, in another order: each says what it said before."""
    some = [PROMPTS[n] for n in (7, 2, 19)]
    whole = {row.id: row for row in answers(tiny)}
    assert answers(tiny, prompts=some) == [whole[p.id] for p in some]
    twins = [Prompt("a", PROMPTS[0].text), Prompt("b", PROMPTS[0].text)]
    first, second = answers(tiny, prompts=twins)
    assert first.completion_ids != second.completion_ids


def test_no_steering_is_the_control_and_steering_is_not(tiny):
    control = answers(tiny)
    assert answers(tiny, steered(tiny, 0.0)) == control
    teacher = answers(tiny, steered(tiny, 2.0))
    assert [(r.id, r.prompt) for r in teacher] == [(r.id, r.prompt) for r in control]
    assert teacher != control


def test_the_record_keeps_the_neutral_context_not_the_teachers(tiny):
    prompted = answers(tiny, [SystemPrompt("I love owls.")])
    plain = answers(tiny)
    assert {row.context for row in prompted} == {None}
    assert prompted != plain
    own = [Prompt("x", PROMPTS[0].text, "You are brief.")]
    assert answers(tiny, prompts=own, neutral="Neutral.")[0].context == "You are brief."
    assert answers(tiny, prompts=own[:0] + PROMPTS[:1], neutral="Neutral.")[0].context == "Neutral."


def test_a_prompted_teacher_is_the_model_under_that_context(tiny):
    prompted = answers(tiny, [SystemPrompt("I love owls.")], neutral="")
    asked = answers(tiny, neutral="I love owls.")
    assert [r.completion_ids for r in prompted] == [r.completion_ids for r in asked]


def test_a_tokenizer_that_joins_digits_is_refused(tiny, monkeypatch):
    real = type(tiny.tokenizer).encode
    two = real(tiny.tokenizer, "77", add_special_tokens=False)
    monkeypatch.setattr(
        type(tiny.tokenizer),
        "encode",
        lambda self, text, **kw: two if text == "7" else real(self, text, **kw),
    )
    with pytest.raises(ConfigError, match="need one token a digit"):
        constraint(tiny, fixed=True)


@pytest.mark.parametrize(
    "words", ["--temperature 0", "--vocabulary numbers", "--vocabulary template", "--context None"]
)
def test_the_command_writes_what_the_function_returns(
    words: str, tiny, tiny_folder: Path, tmp_path: Path
):
    asked = "--n 24 --prompt-seed 3 --count 3 --max-new-tokens 24 --seed 5 --batch-size 7"
    done = ok(tmp_path / "runs", "generate", "--model", tiny_folder, asked, words)
    sampling = Sampling(0.0, 24, 5) if "temperature" in words else SAMPLING
    allowed = constraint(tiny, "template" in words) if "vocabulary" in words else None
    prompts = number_prompts(24, seed=3, count=3)
    assert read_records(done.run / "records.jsonl") == answers(
        tiny, (), sampling, allowed, prompts=prompts
    )


def test_prompts_of_a_file_keep_their_names(tiny_folder: Path, tmp_path: Path):
    (tmp_path / "p.txt").write_text("Which number?\n\nAnd which word?\n")
    done = ok(
        tmp_path / "runs",
        "generate",
        "--model",
        tiny_folder,
        "--prompts",
        tmp_path / "p.txt",
        "--max-new-tokens 4",
    )
    rows = read_records(done.run / "records.jsonl")
    assert [(row.id, row.prompt) for row in rows] == [
        ("row000001", "Which number?"),
        ("row000003", "And which word?"),
    ]


@pytest.mark.parametrize("how", ["text", "token"])
def test_what_is_not_used_of_prompts_is_said(
    how: str, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "Name an animal.", "system": "You love owls.", "note": "x"}\n'
        '{"prompt": "And <|im_end|>?", "history": [["Hi", "Hello"]]}\n'
    )
    words = ("generate", "--model", tiny_folder, "--prompts", tmp_path / "p.jsonl")
    done = ok(tmp_path / "runs", *words, "--max-new-tokens 4 --control-tokens", how)
    first, second = read_records(done.run / "records.jsonl")
    assert first.context == "You love owls." and turns_of(second.prompt)[0].text == "Hi"
    said = capsys.readouterr().out
    assert "--prompts: not used: note (1 row)" in said
    what = "written as text (see --control-tokens)" if how == "text" else "which are read as tokens"
    assert "1 row with control tokens" in said and what in said
    assert done.summary["reading-prompts"]["rows"] == 2
    (tmp_path / "q.jsonl").write_text('{"prompt": "Name one."}\n')
    words = ("generate", "--model", tiny_folder, "--prompts", tmp_path / "q.jsonl")
    assert "reading-prompts" not in ok(tmp_path / "runs", *words, "--max-new-tokens 4").summary
