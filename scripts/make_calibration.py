"""Writes docs/claims/audit_calibration.md from the results: python scripts/make_calibration.py

The page shows what is there: it says how many of the planned sets are missing.
"""

from pathlib import Path

from traitscope.studies.calibration import page as pages
from traitscope.studies.calibration.results import read_results

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "claims" / "audit_calibration.md"
AUDITS = DOCS / "evidence" / "audit_calibration.jsonl"
OUTCOMES = DOCS / "evidence" / "outcome_validity.jsonl"


def page() -> str:
    """The text of the page."""
    return pages.page(read_results(AUDITS), read_results(OUTCOMES))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
