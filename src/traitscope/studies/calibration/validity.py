"""Tables of the outcome validity: what the audit says of sets, beside what students took."""

import math
from collections.abc import Sequence

from traitscope.reporting.tables import NO_VALUE, Table
from traitscope.stats.correlation import association, spearman
from traitscope.stats.decision import MIN_UNITS
from traitscope.stats.intervals import mean_interval_t
from traitscope.stats.measurement import Measurement
from traitscope.studies.calibration.results import Line
from traitscope.studies.calibration.summary import STATUSES

Pair = tuple[Line, Line]
"a set's line of the audit, and its line of the students"


def pairs_of(audits: Sequence[Line], outcomes: Sequence[Line]) -> list[Pair]:
    """The sets that were audited and learnt."""
    by_set = {line["set"]: line for line in audits}
    pairs = []
    for outcome in outcomes:
        if outcome["set"] in by_set:
            pairs.append((by_set[outcome["set"]], outcome))
    return pairs


def rise(outcome: Line) -> float:
    """Mean rise of a set's students, in nats."""
    return sum(outcome["rise"]) / len(outcome["rise"])


def has_passed(outcome: Line) -> bool:
    """Whether students took the trait: the 95 % t interval over a set's students is above zero."""
    low = mean_interval_t(outcome["rise"])[1]
    return not math.isnan(low) and low > 0


def log_e_a_row(audit: Line) -> float | None:
    """ln e of the predictions a row."""
    value: float | None = audit["predictions"]
    return None if value is None else value / audit["audited_rows"]


def learnt(audit: Line) -> float | None:
    """Nats a row that a student gained from what it had learnt."""
    value: float | None = audit["learnt"].get("estimate")
    return value


def correlations(pairs: Sequence[Pair]) -> list[Measurement]:
    """Rank correlations over sets of what the audit says with the students' rise."""
    measurements = []
    for name, read in (("ln e a row", log_e_a_row), ("nats learnt a row", learnt)):
        said, rises = [], []
        for audit, outcome in pairs:
            value = read(audit)
            if value is not None:
                said.append(value)
                rises.append(rise(outcome))
        if len(said) >= MIN_UNITS:
            title = f"{name} with the rise"
            measurements.append(association(title, said, rises, spearman, "", of="sets"))
    return measurements


def correlation_table(pairs: Sequence[Pair]) -> Table:
    """Rank correlations with their intervals."""
    rows = []
    for m in correlations(pairs):
        interval = f"[{m.low:+.2f}, {m.high:+.2f}]"
        rows.append((m.name, f"{m.estimate:+.2f}", interval, m.n))
    return Table(
        "correlations",
        "Does the audit foretell what students take?",
        "Rank correlations over sets, with 95 % intervals by bootstrap over sets.",
        ("correlation of", "Spearman's rho", "interval", "sets"),
        tuple(rows),
    )


def answer_table(pairs: Sequence[Pair]) -> Table:
    """Answers by transfer."""
    rows = []
    for status in STATUSES:
        of_status = [outcome for audit, outcome in pairs if audit["status"] == status]
        if of_status:
            passed = sum(map(has_passed, of_status))
            mean = sum(map(rise, of_status)) / len(of_status)
            rows.append((status, passed, len(of_status) - passed, f"{mean:+.2f}"))
    return Table(
        "answers",
        "Answers by transfer",
        "A trait has passed where the 95 % interval over a set's three students is above zero.",
        ("answer", "sets whose trait passed", "others", "mean rise, nats"),
        tuple(rows),
    )


def rise_table(outcomes: Sequence[Line]) -> Table:
    """Rises by kind."""
    by_kind: dict[str, list[Line]] = {}
    for line in outcomes:
        by_kind.setdefault(line["kind"], []).append(line)
    rows = []
    for kind, lines in by_kind.items():
        rises = ", ".join(f"{rise(line):+.2f}" for line in lines)
        writers = ", ".join(_signed(line.get("writer_rise")) for line in lines)
        rows.append((kind, len(lines), sum(map(has_passed, lines)), rises, writers))
    return Table(
        "rises",
        "Rise of the students by kind",
        "Nats of log share, mean of three students a set. A writer without a rise has no trait that"
        " students could take.",
        ("kind", "sets", "passed", "rise of each set", "rise of its writer"),
        tuple(rows),
    )


def _signed(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:+.2f}"
