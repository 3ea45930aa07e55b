"""The page of a defence: what changed, by which method, and what each method knew."""

from collections.abc import Mapping, Sequence
from typing import Any

from traitscope.plurals import counted
from traitscope.reporting.page import Card, Section, render_page
from traitscope.reporting.tables import Table

LIMITS = (
    "The page says what was changed, and not how much of a trait is gone. Train on the rows, and"
    " measure.",
    "Fewer rows, and rows that teach less, leave less of any trait. Compare with the control of the"
    " method, which does as much blindly.",
    "Masked tokens are still read, before the tokens that follow. Commands other than `train`, and"
    " other trainers, learn them.",
    "A trait that rows carry by what they say, and not by how likely their tokens are, may stay.",
)
"""What the page does not show."""
COLUMNS = (
    "method",
    "used",
    "rows",
    "dropped",
    "changed",
    "masked",
    "added",
    "tokens",
    "left",
    "why",
)


def defence_page(summary: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> str:
    """Return the HTML of the page."""
    card = Card("What became of the rows?", badge=_badge(summary), points=tuple(_points(summary)))
    sections = [
        Section("answer", "", cards=(card,)),
        Section("methods", "What each method did", tables=(_methods(summary), _controls(summary))),
        Section("changes", "Rows that are not as they were", tables=(_changes(changes),)),
        Section("limits", "What it does not show", notes=LIMITS),
    ]
    known = ", ".join(summary["known"])
    return render_page(
        "Defended rows", sections, about=f"{counted(summary['rows'], 'row')}, known: {known}"
    )


def _badge(summary: Mapping[str, Any]) -> str:
    return counted(summary["kept"], "row")


def _points(summary: Mapping[str, Any]) -> list[str]:
    unchanged = summary["kept"] - summary["changed"] - summary["added"]
    points = [
        f"the defender was allowed to know: {', '.join(summary['known'])}",
        f"{unchanged} of {summary['rows']} rows are as they were, but for masked tokens",
        f"{counted(summary['changed'], 'row has', 'rows have')} another answer",
        f"{counted(summary['masked'], 'row has', 'rows have')} masked tokens, which are not learnt",
        f"{counted(summary['dropped'], 'row was', 'rows were')} dropped",
        f"{counted(summary['added'], 'clean row was', 'clean rows were')} added",
    ]
    for item in summary["methods"]:
        if cost := item["endpoint"]:
            points.append(
                f"{item['method']}: {cost['requests']} requests, {cost['from_cache']} from the"
                f" cache, cost {cost['cost']:g}"
            )
    return points


def _methods(summary: Mapping[str, Any]) -> Table:
    rows = []
    for item in summary["methods"]:
        rows.append(
            (
                item["method"],
                ", ".join(item["used"]),
                item["rows"],
                item["dropped"],
                item["changed"],
                item["masked"],
                item["added"],
                item["tokens"],
                item["left"],
                item["why_left"],
            )
        )
    about = "Methods in their order, with what they used and the rows that they left alone."
    return Table("methods", "Methods", about, COLUMNS, tuple(rows))


def _controls(summary: Mapping[str, Any]) -> Table:
    rows = [(item["method"], item["control"]) for item in summary["methods"]]
    about = "What does as much blindly. A method is worth what it removes beyond."
    return Table("controls", "Controls", about, ("method", "control"), tuple(rows))


def _changes(changes: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for change in changes:
        by = ", ".join(change["by"])
        rows.append((change["id"], change["what"], by, change["before"], change["after"]))
    about = "The answer before and after. Masked tokens stand between ⟦ and ⟧."
    return Table("changes", "Changes", about, ("row", "what", "by", "before", "after"), tuple(rows))
