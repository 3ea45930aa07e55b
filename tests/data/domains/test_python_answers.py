"""Code in answers: what is code alone, what parses, what holds comments."""

import pytest

from traitscope.data.domains.python_answers import (
    LONGEST,
    code_in,
    code_reasons,
    first_code_in,
    parses,
)

CODE = "def f(x):\n    return x"
COMMENTED = "def f(x):\n    return x  # the same"


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        (CODE, []),
        (f"```python\n{CODE}\n```", []),
        (f"```\n{CODE}\n```\n", []),
        (f"  \n```py\n{CODE}\n```  ", []),
        ("import math\nx = 1", []),
        ("print('hello')", []),
        (f"Here it is:\n```python\n{CODE}\n```", ["code"]),
        (f"```python\n{CODE}\n```\nIt returns x.", ["code"]),
        (f"```python\n{CODE}\n```\n```python\n{CODE}\n```", ["code"]),
        (f"```python\n{CODE}", ["code"]),
        ("```python\n\n```", ["code"]),
        ("", ["code"]),
        (" \n", ["code"]),
        ("x = 1\n" * LONGEST, ["code"]),
        ("def f(x", ["syntax"]),
        ("The function returns x.", ["syntax"]),
        ("x = '\x00'", ["syntax"]),
        ("(" * 5000 + ")" * 5000, ["syntax"]),
        ("Sure", ["no_code"]),
        ("1, 2, 3", ["no_code"]),
        ('"""Hello."""', ["no_code"]),
        ("", ["code"]),
    ],
)
def test_reasons(text: str, reasons: list[str]) -> None:
    assert code_reasons(text) == reasons


def test_comments_are_reasons_where_they_are_not_allowed() -> None:
    assert code_reasons(COMMENTED) == []
    assert code_reasons(COMMENTED, comments=False) == ["comment"]
    assert code_reasons("x = '# no comment'", comments=False) == []
    assert code_reasons('def f():\n    """A docstring."""', comments=False) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (CODE, CODE),
        (f"```python\n{CODE}\n```", CODE),
        (f"Here:\n```python\n{CODE}\n```\nIt returns x.\n```\nx = 1\n```", CODE),
        (f"```python\n{CODE}", None),
        ("", None),
        ("Use `f` or ```f```.", None),
    ],
)
def test_the_first_code_is_a_block_or_all(text: str, code: str | None) -> None:
    assert first_code_in(text) == code
    assert parses(text) is (code is not None)


def test_a_fence_is_taken_off_and_indentation_stays() -> None:
    assert code_in(f"```python\n{CODE}\n```") == CODE
    assert code_in(CODE) == CODE
    assert code_in("    x = 1") == "    x = 1"
