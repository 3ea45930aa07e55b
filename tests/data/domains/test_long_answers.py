"""Answers and patterns on which a naive reader would not end."""

import threading
import time

import pytest

from traitscope.data.domains import patterns
from traitscope.data.domains.final_answers import final_answer, has_form
from traitscope.data.domains.python_answers import code_in, code_reasons, first_code_in
from traitscope.errors import DataError

SIZE = 300_000


@pytest.mark.parametrize(
    "text",
    [
        "<answer>" * (SIZE // 8),
        "<answer>7</answer>" + "<answer>" * (SIZE // 8),
        ("\t" * 1000 + "```\n") * 300,
        "```\n" * (SIZE // 4),
        "\n" * SIZE + "x",
    ],
)
def test_a_long_answer_is_read_in_time(text: str) -> None:
    began = time.process_time()
    final_answer(text)
    code_reasons(text, comments=False)
    first_code_in(text)
    has_form(text, "think")
    assert time.process_time() - began < 2


def test_open_tags_behind_the_last_answer_change_nothing() -> None:
    assert final_answer("<answer>3</answer> <ANSWER>7</ANSWER> <answer>8") == "7"
    assert final_answer("<answer>8 #### 9") == "9"


def test_white_space_around_code_does_not_count() -> None:
    assert code_in(" " * SIZE + "\n```python\nf()\n```\n" + "\n" * SIZE) == "f()"


def test_a_pattern_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.2)
    assert patterns.matches_whole("(a+)+", "a" * 40)
    for pattern in ("(a+)+", "(a|a)*b"):
        with pytest.raises(DataError, match="takes more than 0.2 seconds on an answer of 41"):
            patterns.matches_whole(pattern, "a" * 40 + "!")
    assert not patterns.matches_whole("a+", "a" * 40 + "!")


def test_another_thread_has_no_limit_and_fails_at_nothing() -> None:
    said = []
    thread = threading.Thread(target=lambda: said.append(patterns.matches_whole("a+", "aa")))
    thread.start()
    thread.join()
    assert said == [True]
