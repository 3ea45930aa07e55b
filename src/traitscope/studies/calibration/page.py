"""The page of the calibration, from the files of results, finished or not."""

from collections import Counter
from collections.abc import Sequence

from traitscope.studies.calibration import outcome, summary, validity
from traitscope.studies.calibration.results import Line
from traitscope.studies.calibration.sets import menu

HEAD = """# Does the audit keep its error rate?

**Claim.** Of clean data sets of one model, at most the stated rate is called `suspect`.

**Command.** `python scripts/calibrate_audit.py --root runs/calibration` adds sets, in pieces.
`python scripts/make_calibration.py` writes this page.

Each set is made anew, on prompts and seeds of its own. `traitscope audit` reads it once, at its
default settings, without spike-in teachers. Nothing of its decision is computed a second time.

| part of the design | rule |
| --- | --- |
| seeds | the first 48 bits of sha256("calibration/KIND/NUMBER/PURPOSE") |
| clean rows of a set | {clean_rows}; free text {text_rows} |
| rows of a teacher's set | {teacher_rows} |
| teachers | {teachers} a kind, none with a prompt or a vector of the audit |
| order | kinds in turn, so that an unfinished run has about the same part of each |
| unit | a set |

Figures of earlier versions of the audit came from shared rows. They are in the
[log](../project/log.md).
"""
OUTCOME = """# Outcome validity

`python scripts/calibrate_audit.py --outcome --root runs/calibration` adds sets, in pieces. Three
students learn each set, at the recipe of the demo.
Each is asked for the writer's trait, and where there is none, for a trait by the set's number.
"""


def page(audits: Sequence[Line], outcomes: Sequence[Line]) -> str:
    """The page in markdown."""
    head = HEAD.format(
        clean_rows=menu.CLEAN_ROWS,
        text_rows=menu.TEXT_ROWS,
        teacher_rows=menu.TEACHER_ROWS,
        teachers=menu.TEACHERS,
    )
    parts = [head, _state(audits, outcomes)]
    if audits:
        parts.append(f"**{summary.verdict(audits)[1:].replace('*', '**', 1)}\n")
        parts += map(summary.markdown, summary.tables(audits))
    if outcomes:
        pairs = validity.pairs_of(audits, outcomes)
        tables = [validity.correlation_table(pairs), validity.answer_table(pairs)]
        parts.append(OUTCOME.replace("# ", "## ", 1))
        parts += map(summary.markdown, [*tables, validity.rise_table(outcomes)])
    return "\n".join(parts)


def _state(audits: Sequence[Line], outcomes: Sequence[Line]) -> str:
    """How many of the planned sets are there, of which versions."""
    planned = len(menu.all_sets())
    codes = sorted({line["code"] for line in audits})
    made_by = f" Code that decided: {', '.join(codes)}." if codes else ""
    types = Counter(line["dtype"] for line in audits)
    computed_in = ", ".join(f"{dtype} {types[dtype]}" for dtype in sorted(types))
    sets_in = f" Sets by number type, which machines choose: {computed_in}." if types else ""
    return (
        f"**{len(audits)} of {planned} planned sets are audited;** {len(outcomes)} of"
        f" {len(outcome.all_sets())} are learnt by students.{made_by}{sets_in}\n"
    )
