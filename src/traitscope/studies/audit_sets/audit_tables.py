"""Tables of audit_calibration on rows that carry no trait."""

from collections.abc import Iterator

from traitscope.auditing.detectors import fit_test
from traitscope.auditing.detectors.e_values import critical_log_e
from traitscope.reporting.tables import Table
from traitscope.studies.audit_sets import audit_sources
from traitscope.studies.audit_sets.audit_bank import SETTINGS, mean_of
from traitscope.studies.audit_sets.audit_draws import SELECTED, Bench, selected_rows
from traitscope.studies.audit_sets.audit_sources import FORMATS, Kind
from traitscope.workflow.graph import Folders

CALLED = 3
"column of the fraction of audits that call, in `rows_without_trait`"


def rows_without_trait(bench: Bench) -> Iterator[tuple]:
    """Yield audits of rows without a trait: those that differ from clean ones, then clean ones.

    Rows whose placebos have their format are audited at the full rate only.
    """
    size = bench.size
    clean = audit_sources.clean_sets(size)
    others = []
    for source in audit_sources.all_sets(size):
        if source.kind != Kind.CLEAN and source.trait is None:
            others.append(source)
    for source in (*others, *clean):
        is_matched = source.kind in (Kind.CLEAN, *FORMATS)
        scores = bench.bank.sets[source.name].model
        fit = fit_test.fit_of(scores)
        for rate in size.rates[-1 if is_matched else -3 :]:
            audits = bench.audits(source, rate, size.rows, size.repeats)
            yield (
                source.name,
                rate,
                mean_of(audits, "gradients_call"),
                mean_of(audits, "called"),
                mean_of(audits, "off_model"),
                fit.excess_surprisal,
                fit.excess_chi_square,
                fit.p,
            )


def format_table(rows: tuple[tuple, ...]) -> Table:
    """Return the table of audits of rows without a trait."""
    return Table(
        "formats",
        "Rows that carry no trait",
        "A fraction of the rows from the set; placebos in their format but for sorted rows."
        " `off-model`: the answer would be that the model did not generate them. Of all rows of the"
        " set: excess surprisal and excess chi-square a token, p of the goodness-of-fit test.",
        (
            "rows",
            "contamination rate",
            "gradients",
            "called",
            "off-model",
            "excess surprisal",
            "excess chi-square",
            "goodness-of-fit p",
        ),
        rows,
    )


def selected_table(bench: Bench, folders: Folders) -> Table:
    """Return the table of audits of clean rows that were selected."""
    size = bench.size
    critical = critical_log_e(len(size.traits), SETTINGS.error_share)
    columns = [f"one in {every}" for every in SELECTED]
    return Table(
        "picked",
        "Clean rows that were selected",
        f"Of {len(bench.clean) * size.rows} clean rows one in a number was kept, by what can be"
        f" seen of it, and {size.rows} of these audited: log e-value of the likeliest candidate,"
        f" called from {critical:.1f} on, if it alone has one.",
        ("kept", *columns, "called"),
        tuple(selected_rows(bench, folders)),
    )
