"""Tables and page of a calibration, on a small synthetic file of results."""

import pytest

from traitscope.stats.intervals import clopper_pearson
from traitscope.studies.calibration import page, summary, validity
from traitscope.studies.calibration.results import Line
from traitscope.studies.calibration.sets.menu import KINDS, SetName, plan_of


def line(kind: str, number: int, status: str = "nothing-found", **said) -> Line:
    plan = plan_of(SetName(kind, number))
    return {
        "set": f"{kind}/{number}",
        "kind": kind,
        "number": number,
        "family": KINDS[kind].family,
        "trait": plan.trait,
        "rate": plan.rate,
        "status": status,
        "audited_rows": 128,
        "predictions": -2.0,
        "critical": 5.7,
        "curve": {"64": -1.0, "128": -2.0},
        "learnt": {"estimate": -0.01},
        "joint": -3.0,
        "best": "cat",
        "named": None,
        "seconds_rows": 10.0,
        "seconds_audit": 100.0,
        "code": "abc",
        "dtype": "fp32",
        **said,
    }


def clean(count: int, called: int = 0) -> list[Line]:
    lines = []
    for number in range(count):
        lines.append(line("plain", number, "suspect" if number < called else "nothing-found"))
    return lines


@pytest.mark.parametrize(
    ("count", "called", "outcome"),
    [
        (4, 0, "No verdict"),
        (298, 0, "Undecided"),
        (299, 0, "Holds here"),
        (300, 1, "Undecided"),
        (300, 9, "Opposite here"),
    ],
)
def test_the_verdict_is_the_exact_one_sided_bound(count: int, called: int, outcome: str) -> None:
    said = summary.verdict(clean(count, called))
    assert said.startswith(f"*{outcome}*") and f"{called} of {count} clean sets" in said


def test_rates_have_exact_intervals_and_few_sets_have_none() -> None:
    lines = clean(20, 2) + [line("top-k", number) for number in range(4)]
    rows = {row[0]: row for row in summary.clean_table(lines).rows}
    low, high = clopper_pearson(2, 20)
    assert rows["plain"][1:5] == (30, 20, 2, f"10% [{low:.1%}, {high:.1%}]")
    assert rows["top-k"][2:5] == (4, 0, "0 of 4")
    assert rows["top-p"][2:5] == (0, 0, None)
    assert rows["all"][2] == 24


def test_power_and_names_of_teachers() -> None:
    lines = []
    for number in range(10):
        named = plan_of(SetName("steered", number)).trait if number < 6 else "oak"
        found = {"best": named, "named": named, "curve": {"64": 1.0, "128": 9.0}}
        lines.append(line("steered", number, "suspect", **found))
        lines.append(line("steered 5%", number, "suspect" if number < 1 else "nothing-found"))
    (row,) = [row for row in summary.power_table(lines).rows if row[0] == "steered"]
    assert row[1].startswith("100%") and row[5].startswith("10%") and row[2] is None
    by_rows = {row[0]: row for row in summary.rows_table(lines).rows}
    assert by_rows["steered"][1].startswith("0%") and by_rows["steered"][2].startswith("100%")
    assert by_rows["steered"][3] is None, "no set has so many rows"
    assert summary.names_table(lines).rows == (("steered", 10, 6, 6, 4),)


def test_distributions_are_shown_and_not_counts_alone() -> None:
    lines = [line("plain", number, predictions=float(number)) for number in range(21)]
    (row,) = summary.distribution_table(lines).rows
    assert row[:6] == ("plain", 21, 1.0, 10.0, 19.0, 20.0)


def test_the_page_works_with_part_of_the_results() -> None:
    text = page.page(clean(7), [])
    assert "**7 of 652 planned sets are audited;** 0 of 40 are learnt" in text
    assert "**Undecided**: 0 of 7 clean sets are called" in text
    assert "| plain | 30 | 7 | 0 | 0% [0.0%, 41.0%] | 0 |" in text
    in_both = page.page([line("plain", 0), line("plain", 1, dtype="bf16")], [])
    assert "which machines choose: bf16 1, fp32 1." in in_both
    assert "0 of 652" in page.page([], []) and "Log e-values" not in page.page([], [])


def test_outcome_validity_is_a_rank_correlation_over_sets() -> None:
    audits, outcomes = [], []
    for number in range(10):
        status = "suspect" if number > 4 else "nothing-found"
        audits.append(line("steered", number, status, predictions=10.0 * number))
        rise = [0.1 * number - 0.2, 0.1 * number - 0.1, 0.1 * number]
        outcomes.append({"set": f"steered/{number}", "kind": "steered", "rise": rise})
    outcomes.append({"set": "steered 50%/0", "kind": "steered 50%", "rise": [1.0, 1.0, 1.0]})
    pairs = validity.pairs_of(audits, outcomes)
    assert len(pairs) == 10, "the set that was not audited is in no pair"
    (row, _) = validity.correlation_table(pairs).rows
    assert row[1] == "+1.00" and row[3] == 10
    assert [row[:3] for row in validity.answer_table(pairs).rows] == [
        ("suspect", 5, 0),
        ("nothing-found", 1, 4),
    ]
    assert "Answers by transfer" in page.page(audits, outcomes)
