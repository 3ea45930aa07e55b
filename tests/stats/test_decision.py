"""Holm's correction against its definition, outcomes by their rule, and their error rates."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import scipy.stats as scipy_stats

from traitscope.errors import ConfigError, DataError
from traitscope.stats.decision import MIN_UNITS, ClaimUnderTest, decide, holm
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.stats.tails import StudentTail


def test_a_claim_of_two_quantities_needs_both():
    """Its p is the larger one; what is negligible or opposite follows from the first."""
    rng = np.random.default_rng(2)
    high = mean_over_units("high", (1 + rng.normal(0, 0.1, 8)).tolist(), "")
    higher = mean_over_units("higher", (2 + rng.normal(0, 0.1, 8)).tolist(), "")
    low = mean_over_units("low", (-1 + rng.normal(0, 0.1, 8)).tolist(), "")
    nothing = Measurement.undefined("nothing", "", "one unit")

    def outcome(first, second=None, margin=0.5):
        return decide([ClaimUnderTest(first, margin, also=second)])[0]

    assert outcome(high, higher).outcome == outcome(higher, high).outcome == "holds here"
    assert outcome(high, higher).p_above == outcome(high).p_above
    assert outcome(higher, high).p_above == outcome(high).p_above
    assert outcome(high, low).outcome == "undecided" and outcome(high, low).p_above > 0.99
    assert outcome(low, high).outcome == "opposite here"
    assert outcome(high, higher, margin=1.5).outcome == outcome(high, margin=1.5).outcome
    assert outcome(higher, high, margin=1.5).outcome == "undecided"
    assert outcome(high, nothing).outcome == "no verdict"


def test_holm_is_the_closed_bonferroni_test():
    p = np.random.default_rng(1).random(6) ** 3
    subsets = [s for size in range(1, 7) for s in combinations(range(6), size)]
    expected = [
        max(min(1.0, len(s) * min(p[list(s)])) for s in subsets if i in s) for i in range(6)
    ]
    assert holm(p) == pytest.approx(expected)
    assert holm([]) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: holm([0.1, math.nan]), DataError, "nan"),
    ],
)
def test_bad_input_says_what_was_found(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "expected" in str(caught.value)


MARGIN = 0.05
STUDY, RUNS = 12, 1500
"claims of a study, and studies that are simulated"


def t_measured(values: np.ndarray) -> Measurement:
    return mean_over_units("m", values.tolist(), "nats")


def claim(low: float, high: float, **settings) -> ClaimUnderTest:
    """A mean of eight units whose t interval is the one given."""
    middle, half = (low + high) / 2, (high - low) / 2
    error = half / scipy_stats.t.isf(0.025, 7)
    tail = StudentTail(middle, error, 7)
    found = Measurement("m", middle, low, high, 8, 8, 0, "nats", tail=tail)
    return ClaimUnderTest(found, **{"margin": MARGIN} | settings)


@pytest.mark.parametrize(
    ("low", "high", "settings", "outcome"),
    [
        (0.1, 0.3, {}, "holds here"),
        (0.01, 0.07, {}, "undecided"),
        (0.001, 0.04, {}, "negligible here"),
        (-0.02, 0.03, {}, "negligible here"),
        (-0.3, -0.1, {}, "opposite here"),
        (-0.04, -0.001, {}, "negligible here"),
        (-0.1, 0.06, {}, "undecided"),
        (0.4, 0.9, {"above": 0.5}, "undecided"),
        (0.6, 0.9, {"above": 0.5}, "holds here"),
        (0.2, 0.4, {"above": 0.5}, "opposite here"),
        (0.1, 0.3, {"silenced": True}, "no verdict"),
        (0.1, 0.3, {"units": MIN_UNITS - 1}, "no verdict"),
        (0.1, 0.3, {"units": MIN_UNITS}, "holds here"),
        (math.nan, math.nan, {}, "no verdict"),
    ],
)
def test_one_claim_follows_the_rule(low: float, high: float, settings: dict, outcome: str) -> None:
    """An effect within the margin is negligible, also where its interval excludes zero."""
    assert decide([claim(low, high, **settings)])[0].outcome == outcome


def test_silenced_claims_stay_in_the_family() -> None:
    """What is true of the other claims' data does not change how strict the correction is."""
    borderline = claim(0.001, 0.3)
    others = [claim(-0.3, 0.4)] * 3
    silenced = [replace(other, silenced=True) for other in others]
    alone = decide([borderline])[0]
    assert alone.outcome == "holds here"
    for family in (others, silenced):
        first = decide([borderline, *family])[0]
        assert first.outcome == "undecided"
        assert first.p_above == pytest.approx(min(1, 8 * alone.p_above / 2))


def test_a_margin_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="margin 0"):
        decide([claim(0.1, 0.3, margin=0)])


def share_of_wrong_studies(
    truth: float, wrong: set[str], common_sd: float, own_sd: float, seed: int
) -> float:
    """How often a study of twelve claims with one truth has any wrong outcome.

    Claims share seeds: their errors have a common part.
    """
    rng = np.random.default_rng(seed)
    n_wrong = 0
    for _ in range(RUNS):
        common = common_sd * rng.standard_normal(6)
        claims = []
        for _ in range(STUDY):
            values = truth + common + own_sd * rng.standard_normal(6)
            claims.append(ClaimUnderTest(t_measured(values), MARGIN))
        n_wrong += any(decision.outcome in wrong for decision in decide(claims))
    return n_wrong / RUNS


@pytest.mark.parametrize(("common_sd", "own_sd"), [(0.0, 0.3), (0.25, 0.15)])
def test_a_study_of_null_claims_rarely_errs(common_sd: float, own_sd: float) -> None:
    """Twelve claims without an effect: any wrong direction in at most 5 % of the studies."""
    share = share_of_wrong_studies(0.0, {"holds here", "opposite here"}, common_sd, own_sd, 1)
    assert share <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.parametrize(("common_sd", "own_sd"), [(0.0, 0.01), (0.01, 0.005)])
@pytest.mark.parametrize("side", [1, -1])
def test_effects_at_the_margin_are_rarely_called_negligible(
    common_sd: float, own_sd: float, side: int
) -> None:
    """Twelve claims exactly at the margin: any `negligible` in at most 5 % of the studies."""
    share = share_of_wrong_studies(side * MARGIN, {"negligible here"}, common_sd, own_sd, 2)
    assert share <= 0.05 + 2.5 * math.sqrt(0.05 * 0.95 / RUNS)


def test_without_the_correction_the_same_studies_would_err() -> None:
    """The bound of the tests above is not free: one claim alone at 5 % each is wrong in 46 %."""
    rng = np.random.default_rng(3)
    n_wrong = 0
    for _ in range(300):
        outcomes = set()
        for _ in range(STUDY):
            alone = ClaimUnderTest(t_measured(0.3 * rng.standard_normal(6)), MARGIN)
            outcomes.add(decide([alone])[0].outcome)
        n_wrong += bool(outcomes & {"holds here", "opposite here"})
    assert n_wrong / 300 > 0.3


def test_large_effects_survive_the_correction() -> None:
    rng = np.random.default_rng(4)
    claims = []
    for _ in range(STUDY):
        claims.append(ClaimUnderTest(t_measured(1 + 0.2 * rng.standard_normal(6)), MARGIN))
    assert {decision.outcome for decision in decide(claims)} == {"holds here"}
