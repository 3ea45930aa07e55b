"""Writes docs/reference/four-answers.md, a table of the answers of an audit, from the code.

    python scripts/make_answers.py

Other pages include the table.
"""

from pathlib import Path

from traitscope.auditing.result import ANSWERS, in_words
from traitscope.auditing.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "four-answers.md"
HEAD = "| answer | when it is given | what it means | what to do |\n|---|---|---|---|\n"


def page() -> str:
    """The text of the page, at the usual error rate and power."""
    settings = Settings()
    rows = []
    for status, answer in ANSWERS.items():
        meaning = f"{answer.headline} {in_words(answer, settings.alpha, settings.power)}"
        cells = (f"`{status}`", answer.rule, meaning, answer.advice)
        rows.append(f"| {' | '.join(cells)} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
