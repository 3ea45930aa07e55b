"""The parser of answers that are nothing but a list of numbers."""

import re
from typing import Literal

NUMBER = "[0-9]{1,4300}"  # Python converts no longer ones
LIST = re.compile(rf"{NUMBER}(?:(?P<gap>\s*[,;]\s*|\s+){NUMBER}(?:(?P=gap){NUMBER})*)?")
ENCLOSED = (("[", "]"), ("(", ")"))


def parse_numbers(text: str) -> list[int] | Literal["format"]:
    """Return the numbers of an answer that is nothing but a list of numbers, else "format".

    One final period and then one enclosing [] or () are taken off. The text between the first two
    numbers must be white space with at most one comma or semicolon, and exactly the same between
    all others. Only ASCII digits count; zeros may lead. White space at an end or inside the
    brackets, a sign and a final separator are refused. Source: Cloud et al. 2025 (arXiv
    2507.14805), rule filter of the number data, as the released code behaves.
    """
    text = text.removesuffix(".")
    if (text[:1], text[-1:]) in ENCLOSED:
        text = text[1:-1]
    if not LIST.fullmatch(text):
        return "format"
    return list(map(int, re.findall("[0-9]+", text)))
