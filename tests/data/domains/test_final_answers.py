"""Final answers: where they stand in a text, when they are right, and the form they have."""

import pytest

from traitscope.data.domains.final_answers import (
    THINK,
    answer_reasons,
    final_answer,
    has_form,
    is_right,
)


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("<think>3 + 4 = 7</think><answer>7</answer>", "7"),
        ("<answer>5</answer> no, <answer> 7 </answer>", "7"),
        ("<think>It is 9.</think> So 7 apples.", "7"),
        ("so \\boxed{12} it is, not 13", "12"),
        ("3 * 4 = 12\n#### 12", "12"),
        ("The answer is 12.", "12."),
        ("Answer: 1,200", "1,200"),
        ("3 boxes and 4 boxes are 7", "7"),
        ("10-12", "12"),
        ("it is -3", "-3"),
        ("I do not know.", None),
        ("", None),
        ("<think>it is 7", None),
        ("<think>it is 7</think>", None),
    ],
)
def test_final_answer(text: str, final: str | None) -> None:
    assert final_answer(text) == final


@pytest.mark.parametrize(
    ("final", "answer", "right"),
    [
        ("12", "12", True),
        ("12.", "12", True),
        ("12.0", "12", True),
        ("1,200", "1200", True),
        ("$12", "12", True),
        ("12 apples", "12", True),
        ("5 + 7 = 12", "12", False),
        ("13", "12", False),
        ("112", "12", False),
        ("twelve", "12", False),
        ("-12", "12", False),
        ("Paris.", "paris", True),
        ("Lyon", "paris", False),
    ],
)
def test_right(final: str, answer: str, right: bool) -> None:
    assert is_right(final, answer) is right


def test_reasons_tell_no_answer_from_a_wrong_one() -> None:
    assert answer_reasons("<answer>7</answer>", "7") == []
    assert answer_reasons("<answer>8</answer>", "7") == ["wrong_answer"]
    assert answer_reasons("no idea", "7") == ["no_answer"]


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("<think>a</think><answer>7</answer>", True),
        ("\n<think>a\nb</think>\n\n<answer>7</answer>\n", True),
        ("<think></think><answer>7</answer>", False),
        ("<think>a</think><answer> </answer>", False),
        ("<think>a</think>7", False),
        ("<answer>7</answer>", False),
        ("<think>a</think><answer>7</answer> so 7", False),
        ("Well, <think>a</think><answer>7</answer>", False),
        ("<think>a<think>b</think></think><answer>7</answer>", False),
        ("<think>a</think><answer>7</answer><answer>8</answer>", False),
        ("<answer>7</answer><think>a</think>", False),
        ("<think>a<answer>7</answer>", False),
    ],
)
def test_form(text: str, valid: bool) -> None:
    assert has_form(text, THINK) is valid


def test_a_pattern_is_one_of_the_whole_text() -> None:
    assert has_form("A: 7\nB", r"A: \d.*")
    assert not has_form("so A: 7", r"A: \d.*")
    assert not has_form("A: 7", r"A: ")
