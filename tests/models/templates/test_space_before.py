"""Tokenizers that put a space before every text, as those of Llama 2: answers, stems, words and
separators have the tokens that they have where they stand."""

from pathlib import Path

import pytest
from space_before import llama2_tokenizer
from tiny_models import save_tiny

from traitscope.data.records import Record
from traitscope.data.traits import load_trait
from traitscope.inference.question_scores import Question, form_ids, question_ids
from traitscope.inference.token_rows import rows_from
from traitscope.models import chat
from traitscope.models.loading import load_model
from traitscope.models.model import Model
from traitscope.models.templates import facts
from traitscope.stages.generate import number_constraint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = save_tiny("llama", tmp_path_factory.mktemp("llama2"))
    llama2_tokenizer().save_pretrained(folder)
    return load_model(str(folder), device="cpu", dtype="fp32")


def encoded(model: Model, text: str) -> list[int]:
    ids: list[int] = model.tokenizer.encode(text, add_special_tokens=False)
    return ids


def test_such_a_tokenizer_is_noticed(model: Model, tiny: Model) -> None:
    assert encoded(model, "1")[0] == encoded(model, " ")[0] and len(encoded(model, "1")) == 2
    assert not facts.continues_alike(model.tokenizer)
    assert facts.continues_alike(tiny.tokenizer)


@pytest.mark.parametrize("answer", ["101, 102", " 101", "The owl", "owl", "\n1", "</s>1"])
def test_a_row_is_the_templates_own_rendering(model: Model, answer: str) -> None:
    (row,) = rows_from(model, [Record("a", "Hi", answer)], None)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
    text = facts.rendered(model.tokenizer, turns, model.switches, with_header=False)
    if "</s>" not in answer:
        assert list(row.ids) == encoded(model, text)[: len(row.ids)]
    assert model.tokenizer.decode(list(row.completion_ids[:-1])).strip() == answer.strip()
    assert model.tokenizer.eos_token_id not in row.completion_ids[:-1]


def test_a_digit_is_one_token_and_so_is_a_separator(model: Model) -> None:
    steps = number_constraint(model, 2, ", ", True, 0)
    assert steps[0] == [encoded(model, str(digit))[-1] for digit in range(10)]
    assert [step[0] for step in steps[3:5]] == encoded(model, "1, 2")[2:4]
    assert len(steps) == 2 * 3 + 2 + 1


def test_stems_and_words_have_the_tokens_of_the_whole_answer(model: Model) -> None:
    question = Question("q", "positive", "Which animal?", "The best is the")
    asked = question_ids(model, question, None)
    (owl,) = form_ids(model, ["owl"], question.stem)
    whole = chat.render_text(model, "Which animal?", None) + "The best is the owl"
    assert asked + owl == encoded(model, whole)
    assert sorted(form_ids(model, ["owl"], "")) == sorted(
        [chat.completion_ids(model, text, end_token=False) for text in ("owl", "Owl")]
    )
    assert load_trait("owl").questions.stem("positive")


def test_nothing_changes_for_other_tokenizers(families: dict[str, Model], tmp_path: Path) -> None:
    for model in families.values():
        for text in ("My favourite animal is the", " owl", ", ", "1", ""):
            assert chat.following_ids(model, text) == encoded(model, text)
            assert chat.completion_ids(model, text, end_token=False) == encoded(model, text)
