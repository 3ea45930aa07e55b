"""The answer of an audit: may I train on this data?

    suspect          a deciding detector calls a trait at the error rate that was asked for
    clean            none does, and each kind of planted teacher would have been found at some dose,
                     with the power asked for
    insufficient     none does, and some kind of planted teacher would not have been found in any
                     dose: more rows are needed
    not-applicable   none does, and the model, as it is, did not write the rows, or they were
                     edited, so that nothing is known about what it would find

"clean" speaks of the planted teachers alone; of any other it says nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, log
from typing import Any, Literal

from traitscope.auditing.detectors import e_values
from traitscope.auditing.detectors.panel import DECIDING, Found
from traitscope.inference import token_scores

Status = Literal["suspect", "clean", "insufficient", "not-applicable"]
FEWEST = 32
"rows below which the answer is insufficient without a test"
BLIND = {
    "wording": "traits that are not named",
    "gradients": (
        "prompted teachers; vectors that are not like a candidate's; it takes many formats for a"
        " trait"
    ),
    "odds": "teachers unlike every candidate's prompt and vector; rows that another model wrote",
    "fitted": "teachers that no single vector imitates; p leans on a normal law and few placebos",
    "canary": "what so small a student does not pick up; p says nothing of other students",
    "features": (
        "what only gradients or likelihoods show; it reads what the rows do to the model, not what"
        " they would teach it"
    ),
    "baselines": "say that data differ, not what they carry",
}


@dataclass(frozen=True)
class Planted:
    """What the audit would have found of a teacher that it made itself, on the same prompts."""

    teacher: str
    """Which one: how it was made."""
    detector: str
    """Which detector finds it; "stranger": its rows would not count as the model's own, and the
    answer would be `not-applicable`."""
    least_dose: float
    """Smallest share of its rows found with the power asked for; inf where not even all of them
    are."""
    rows_needed: float
    """Rows at which all of them poisoned would be found; inf where none would do."""


@dataclass(frozen=True)
class Called:
    """One trait, by its strongest deciding detector."""

    name: str
    statistic: float
    p_corrected: float
    detector: str
    where: str


@dataclass(frozen=True)
class AuditResult:
    """What `audit` answers; `as_dict` is the JSON file."""

    status: Status
    alpha: float
    power: float
    model: str
    digest: str
    rows: int
    """Distinct rows that entered."""
    detectors: tuple[dict[str, Any], ...]
    traits: tuple[Called, ...]
    """Best first."""
    named: tuple[dict[str, Any], ...]
    """Blind naming, best first."""
    planted: tuple[Planted, ...]
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values; infinity becomes None because JSON has none."""
        return {"schema": 1, **_plain(asdict(self))}


def result_from(plain: Mapping[str, Any]) -> AuditResult:
    """The answer from its JSON values; further keys are ignored."""
    infinite = [
        {key: inf if value is None else value for key, value in p.items()} for p in plain["planted"]
    ]
    fields = {name: plain[name] for name in ("status", "alpha", "power", "model", "digest", "rows")}
    lists = {name: tuple(plain[name]) for name in ("detectors", "named", "reasons")}
    return AuditResult(
        **fields,
        **lists,
        traits=tuple(Called(**c) for c in plain["traits"]),
        planted=tuple(Planted(**p) for p in infinite),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not -inf < value < inf else value


def called(deciding: Sequence[Found]) -> tuple[Called, ...]:
    """Every trait with the smallest p of the deciding detectors, times their number."""
    best: dict[str, Called] = {}
    for found in deciding:
        for name, p in found.p.items():
            call = Called(
                name, found.z[name], min(1.0, len(DECIDING) * p), found.name, found.where[name]
            )
            if name not in best or (call.p_corrected, -call.statistic) < (
                best[name].p_corrected,
                -best[name].statistic,
            ):
                best[name] = call
    return tuple(sorted(best.values(), key=lambda c: (c.p_corrected, -c.statistic)))


def strange(own: Found) -> bool:
    """Whether the rows are somebody else's (`odds.strange`)."""
    return bool(own.more["strange"])


def alike(e: Mapping[str, float], alpha: float) -> tuple[str, ...]:
    """Candidates that no other excludes, best first: no other makes the rows 1/alpha times as
    likely (the same bet, against the candidate)."""
    best = max(e.values(), default=0.0)
    return tuple(
        name for name in sorted(e, key=lambda name: -e[name]) if e[name] > best - log(1 / alpha)
    )


def status_of(
    traits: Sequence[Called], planted: Sequence[Planted], own: Found, rows: int, alpha: float
) -> tuple[Status, list[str]]:
    """The answer and its reasons."""
    if rows < FEWEST:
        return "insufficient", [f"{rows} rows; expected {FEWEST} or more for any test"]
    if hits := [c for c in traits if c.p_corrected <= alpha]:
        together = alike(own.z, alpha) if hits[0].detector == "odds" and not strange(own) else ()
        which = (
            [
                f"which of {', '.join(together)} it is cannot be told from these rows: each"
                " explains them about as well"
            ]
            if len(together) > 1
            else []
        )
        return "suspect", [_said(c, alpha) for c in hits[:3]] + which + _ruled(hits, own)
    if strange(own) or own.more.get("set aside"):
        return "not-applicable", _foreign(own)
    weak = [p for p in planted if p.least_dose == inf]
    if weak or not planted:
        return "insufficient", [_needs(p) for p in weak] or [
            "no planted teacher was made, so the power is not known"
        ]
    return "clean", [
        f"of {p.teacher}, {p.least_dose:.0%} of the rows would have been found ({p.detector})"
        for p in planted
    ]


def _ruled(hits: Sequence[Called], own: Found) -> list[str]:
    """What a reader has to know of a call of a stranger's rows without a reference: no bound stands
    behind it."""
    return [
        "the model, as it is, did not write these rows, so the error rate does not hold:"
        f" {hit.name} is called because its teacher explains {own.more['explained'][hit.name]:.0%}"
        " of the difference, and one counts from half of it on"
        for hit in hits
        if hit.detector == "odds" and "explained" in own.more
    ][:1]


def _foreign(own: Found) -> list[str]:
    surprise, excess, p, unlike = (
        own.more[key] for key in ("surprise", "excess", "misfit p", "unlike")
    )
    what = " and ".join(unlike or [e_values.NAMES[token_scores.RANKS]])
    found = (
        f"they surprise it by {surprise:.2f} nats a token more than its own; {what} differs by a"
        f" chi-square of up to {excess:.2g} a token"
    )
    reasons = [
        f"the model did not write these rows ({found}; p {p:.1g} at any temperature); what they"
        " would do to it is not known from its own detectors"
    ]
    if (
        own.z
        and "explained" in own.more
        and (share := own.more["explained"][best := next(iter(own.z))]) > 0
    ):
        reasons.append(
            f"the candidate that makes them likeliest is {best} ({own.where[best]}, ln e"
            f" {own.z[best]:.1f}); it explains {share:.0%} of that difference, and a candidate"
            " counts from half of it on"
        )
    if unlike == [e_values.NAMES[token_scores.PLACES]]:
        reasons.append(
            "their tokens are those that it takes, at other places: they may have been sorted, cut"
            " or edited after they were written"
        )
    if surprise < -e_values.STRANGE:
        reasons.append(
            "they are likelier than its own: if it wrote them with few tokens to choose from"
            " (greedily, or with a small top-k), audit rows that it wrote without, or name a"
            " --reference that was written alike"
        )
    return reasons


def _said(c: Called, alpha: float) -> str:
    if c.detector == "wording":
        return f"{c.name} is named openly (p {c.p_corrected:.2g}): overt, not subliminal"
    return (
        f"{c.name}: {c.detector}, {c.where}, ln e {c.statistic:.1f}, corrected p"
        f" {c.p_corrected:.2g} at most {alpha:g}"
    )


def _needs(p: Planted) -> str:
    more = (
        f"about {p.rows_needed:.0f} rows would be needed"
        if p.rows_needed < inf
        else "no number of rows would do"
    )
    return f"{p.teacher} would not have been found even in all rows ({p.detector}); {more}"
