"""Verdicts: preconditions silence, reasons are in words, and one claim is primary."""

import json
from dataclasses import replace

import numpy as np
import pytest

from traitscope.errors import ConfigError
from traitscope.reporting.study_page import StudyHeader, findings_json, preconditions, study_page
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import (
    Claim,
    Findings,
    Precondition,
    above_zero,
    verdicts_of,
)
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.stats.power import detectable, detection_power

CLEAR = mean_over_units("rise", [0.4, 0.5, 0.6, 0.5, 0.45], "nats")
MET = Precondition("the students moved", True, "+0.5 nats")
UNMET = Precondition("losses are matched", False, "0.22 and 0.15")
TABLE = Table("t", "T", "", ("a",), (("b",),))
HEADER = StudyHeader(
    "s", "Title?", "Claim.", "Source", "Published.", "laptop", "m", "Power: x.", "Bears: no.", TABLE
)


def claim(**settings) -> Claim:
    return Claim("It rises.", **{"measurement": CLEAR, "margin": 0.05, "primary": True} | settings)


def test_a_clear_effect_holds() -> None:
    (verdict,) = verdicts_of([claim(needs=(MET,))], "m")
    assert (verdict.outcome, verdict.reasons) == ("holds here", ())
    assert "p corrected" in str(verdict) and str(verdict).startswith("primary claim, holds here")


def test_a_precondition_that_fails_silences_the_verdict_with_its_numbers() -> None:
    (verdict,) = verdicts_of([claim(needs=(MET, UNMET))], "m")
    assert verdict.outcome == "no verdict"
    assert verdict.reasons == ("It needs that losses are matched. Found: 0.22 and 0.15.",)
    assert verdict.p_value_text == ""
    assert (verdict.decision.p_above, verdict.decision.p_negligible) == (1, 1)


def test_too_few_units_are_counted_by_name() -> None:
    """150 values of three seeds are three units; one teacher audited ten times is one."""
    few = replace(CLEAR, n=150, n_clusters=3)
    (verdict,) = verdicts_of([claim(measurement=few)], "m")
    assert verdict.reasons == ("It has 3 of the 5 seeds that a verdict needs.",)
    (verdict,) = verdicts_of([claim(units=1, counted="teachers")], "m")
    assert verdict.reasons == ("It has 1 of the 5 teachers that a verdict needs.",)


def test_an_undecided_claim_says_what_would_have_been_found() -> None:
    """An oracle: the sd of the values, and the power of the t test at the effect that is named."""
    values = [0.9, -0.6, 0.5, -0.2, 0.3]
    (verdict,) = verdicts_of([claim(measurement=mean_over_units("rise", values, "nats"))], "m")
    sd = float(np.std(values, ddof=1))
    effect = detectable(sd, 5)
    assert verdict.outcome == "undecided"
    assert detection_power(effect, sd, 5) == pytest.approx(0.8, abs=1e-6)
    assert f"was {sd:.2g} nats. With 5 such " in verdict.power_text
    assert f"an effect of {effect:.2g} nats is found with power 0.8 (1 claim" in str(verdict)
    second = claim(primary=False)
    both = verdicts_of([claim(measurement=verdict.decided_by), second], "m")
    shared = detectable(sd, 5, alpha=0.025)
    assert f"{shared:.2g} nats is found with power 0.8 (2 claims tested" in both[0].power_text
    assert shared > effect
    (bounded,) = verdicts_of([claim(measurement=verdict.decided_by, above=0.1)], "m")
    assert f"{effect:.2g} nats above 0.1 is found" in bounded.power_text
    six = mean_over_units("rise", [*values, 0.1], "nats")
    (fewer,) = verdicts_of([claim(measurement=six, units=5)], "m")
    assert fewer.outcome == "undecided" and fewer.power_text == "", "another spread"
    (clear,) = verdicts_of([claim()], "m")
    assert clear.power_text == ""


def test_what_has_no_interval_has_no_verdict() -> None:
    nothing = Measurement.undefined("m", "nats", "no scored value", n_clusters=5)
    (verdict,) = verdicts_of([claim(measurement=nothing)], "m")
    assert verdict.reasons == ("No interval could be given: no scored value.",)


@pytest.mark.parametrize("primary", [(False, False), (True, True)])
def test_exactly_one_claim_is_primary(primary: tuple[bool, bool]) -> None:
    claims = [claim(primary=marked) for marked in primary]
    with pytest.raises(ConfigError, match=f"{sum(primary)} of 2 claims are primary"):
        verdicts_of(claims, "m")


def test_preconditions_from_measurements() -> None:
    assert above_zero(CLEAR, "it rises").met
    low = replace(CLEAR, low=-0.1)
    assert not above_zero(low, "it rises").met and "[-0.100, " in above_zero(low, "x").found


def test_the_page_and_its_json_show_outcome_units_reasons_and_power() -> None:
    claims = [claim(needs=(MET,)), claim(needs=(MET, UNMET), primary=False)]
    findings = Findings(verdicts_of(claims, "m"))
    assert preconditions(findings) == (MET, UNMET)
    page = study_page(HEADER, findings, TABLE)
    for words in (
        "Primary claim. It rises.",
        "holds here",
        "no verdict",
        "n = 5 seeds",
        "It needs that losses are matched",
        "Power: x.",
        "Bears: no.",
        "Preconditions",
    ):
        assert words in page, words
    plain = json.loads(json.dumps(findings_json(HEADER, findings), allow_nan=False))
    assert [v["outcome"] for v in plain["verdicts"]] == ["holds here", "no verdict"]
    assert plain["verdicts"][1]["preconditions"][1] == {
        "name": "losses are matched",
        "met": False,
        "found": "0.22 and 0.15",
    }
    assert (plain["verdicts"][0]["units"], plain["verdicts"][0]["counted"]) == (5, "seeds")
    assert plain["said"][-2:] == ["Power: x.", "Bears: no."]


def test_what_was_changed_of_a_size_is_said() -> None:
    changed = replace(HEADER, changes="traits=[cat,owl] rows=32")
    findings = Findings(verdicts_of([claim()], "m"))
    assert findings_json(changed, findings)["changes"] == "traits=[cat,owl] rows=32"
    assert "changes" not in findings_json(HEADER, findings)
    page = study_page(changed, findings, TABLE)
    assert "Model m · size “laptop”, with traits=[cat,owl] rows=32" in page
