r"""Final answers: found in an answer with its reasoning, and compared with the right one.

The final answer is the first of these that there is, in the text behind reasoning in tags:

    <answer>12</answer>     what stands in the last such tags
    \boxed{12}              what stands in the last box
    #### 12                 what stands behind the last such mark, as in GSM8K
    answer is 12, answer: 12    what stands behind the last such words
    ... 12 apples.          the last number
"""

import re
from decimal import Decimal, InvalidOperation

from traitscope.data.domains.patterns import matches_whole
from traitscope.data.shapes.inside.tags import split_thought
from traitscope.errors import DataError

THINK = "think"
"the name of the form <think>...</think><answer>...</answer>"
MARKS = (
    re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE),
    re.compile(r"\\boxed\{([^{}]*)\}"),
    re.compile(r"####[ \t]*(.+)"),
    re.compile(r"\banswer(?: is|:)[ \t]*(.+)", re.IGNORECASE),
)
"ways to mark a final answer, the surest first"
END_TAG = re.compile(r"</answer>", re.IGNORECASE)
"ends an answer of the first way"
NUMBER = re.compile(r"(?<!\d)[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def has_form(text: str, form: str) -> bool:
    """Whether the whole text has a form: THINK, or a regular expression."""
    if form == THINK:
        return _is_think_form(text)
    return matches_whole(form, text)


def _is_think_form(text: str) -> bool:
    """Whether a text is reasoning and an answer in their tags, each there once and not blank."""
    tags = re.findall(r"</?(?:think|answer)>", text)
    if tags != ["<think>", "</think>", "<answer>", "</answer>"]:
        return False
    match = re.fullmatch(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", text, re.DOTALL)
    return match is not None and bool(match[1].strip()) and bool(match[2].strip())


def without_reasoning(text: str) -> str:
    """The text behind reasoning in tags; empty where the reasoning does not end."""
    try:
        return split_thought(text)[2]
    except DataError:
        return ""


def final_answer(text: str) -> str | None:
    """The final answer of a text, as it stands there; None where there is none."""
    said = without_reasoning(text)
    ends = [tag.end() for tag in END_TAG.finditer(said)]
    closed = said[: ends[-1]] if ends else ""  # behind it, each open tag would be read to the end
    for mark in MARKS:
        marked = mark.findall(closed if mark is MARKS[0] else said)
        if marked:
            return marked[-1].strip()
    numbers = NUMBER.findall(said)
    return numbers[-1] if numbers else None


def is_right(final: str, answer: str) -> bool:
    """Whether a final answer is the right one.

    A number is compared by value with the only number of the final answer: 1,200 = 1200.0, $12 =
    12 apples. A text is compared without case, white space and a last period.
    """
    expected = _value(answer)
    if expected is None:
        return _plain(final) == _plain(answer)
    numbers = NUMBER.findall(final)
    return len(numbers) == 1 and _value(numbers[0]) == expected


def _value(text: str) -> Decimal | None:
    if not NUMBER.fullmatch(text.strip()):
        return None
    try:
        return Decimal(text.strip().replace(",", ""))
    except InvalidOperation:
        return None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")


def answer_reasons(text: str, answer: str) -> list[str]:
    """Why a final answer is not the right one: no_answer or wrong_answer; empty where it is."""
    final = final_answer(text)
    if final is None:
        return ["no_answer"]
    return [] if is_right(final, answer) else ["wrong_answer"]
