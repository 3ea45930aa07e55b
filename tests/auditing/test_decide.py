"""The decision follows from p-values and power by its rule, and says why."""

from dataclasses import replace
from math import exp, inf
from typing import Any

import numpy as np
import pytest

from traitscope.auditing import decide as decide_module
from traitscope.auditing.decide import Decision, Evidence, calls_of, decide, needs_nulls
from traitscope.auditing.detectors import e_values
from traitscope.auditing.detectors.findings import (
    EValueFinding,
    Fit,
    Likelihoods,
    PredictionFinding,
    RowsUnderNulls,
    WordingFinding,
)
from traitscope.auditing.detectors.predictions import PredictedRows
from traitscope.auditing.result import SpikeIn
from traitscope.auditing.search import PromptTeacher
from traitscope.auditing.settings import FEWEST_ROWS, Settings
from traitscope.inference.token_bins import BETAS

FITS = Fit(0.4, 1.0, 0.01, 0.0, (), off_model=False)
OTHER_TOKENS = Fit(1e-9, 1.0, 0.5, 0.02, ("which tokens are taken",), off_model=True)
OTHER_PLACES = Fit(1e-5, 1.0, 0.0, 0.008, ("where in the row they stand",), off_model=False)
OWN = EValueFinding(
    statistic={"owl": -2.0},
    p={"owl": 1.0},
    where={"owl": PromptTeacher()},
    critical=5.0,
    scored_rows=128,
    candidates=20,
    teachers=1,
    fit=FITS,
    nats_per_row={"owl": 0.0},
    joint_log_e=-5.0,
    joint_p=1.0,
    sorted_rows=0,
    sorted_by_model=0.03,
    benign={},
    context=None,
)
EMPTY = np.zeros((0, 1))
NO_ROWS = RowsUnderNulls(EMPTY, EMPTY, [], EMPTY, EMPTY)
STEERED = SpikeIn("a steered teacher", "e_values", 0.2, 40.0)
PROMPTED = SpikeIn("a prompted teacher", "e_values", 0.05, 20.0)
MISSED = replace(STEERED, least_contamination=inf, rows_needed=900.0)


def wording(p: float) -> WordingFinding:
    return WordingFinding(
        statistic={"owl": 4.0, "cat": 1.0},
        p={"owl": p, "cat": 0.9},
        where={"owl": "words", "cat": "words"},
        critical=3.5,
        named_rows={"owl": [1, 0], "cat": [0, 0]},
    )


def changed(log_e: float, explained: float = 0.2) -> PredictionFinding:
    return PredictionFinding(
        statistic={"change": log_e},
        p={"change": min(1.0, exp(-log_e))},
        where={"change": "students"},
        critical=5.7,
        predicted_rows=200,
        learners=2,
        curve=[(200, log_e)],
        learnt={"estimate": 0.4, "low": 0.3, "high": 0.5},
        explained=explained,
    )


def decided(
    monkeypatch: pytest.MonkeyPatch, finding: EValueFinding, **known: Any
) -> tuple[str, str]:
    """Status and reasons of `decision_of`."""
    found = decision_of(monkeypatch, finding, **known)
    return found.status, " ".join(found.reasons)


def decision_of(
    monkeypatch: pytest.MonkeyPatch,
    finding: EValueFinding,
    p_wording: float = 0.5,
    spike_ins: tuple[SpikeIn, ...] = (STEERED, PROMPTED),
    rows: int = 200,
    change: float | None = None,
    dose: float = 0.2,
    explained: float = 0.2,
    kept: tuple[str, ...] = (),
) -> Decision:
    """The decision, given what the e-values say, and the log e-value of the predictions."""
    monkeypatch.setattr(decide_module.e_values, "detect", lambda *_: finding)
    monkeypatch.setattr(decide_module.e_values, "not_excluded", lambda *_: kept)
    likelihoods = Likelihoods(NO_ROWS, {}, {}, None, {})
    predicted = None
    if change is not None:
        predicted = PredictedRows(NO_ROWS, EMPTY, 0)
        monkeypatch.setattr(
            decide_module.predictions, "detect", lambda *_: changed(change, explained)
        )
    evidence = Evidence(rows, 20, likelihoods, wording(p_wording), spike_ins, predicted)
    return decide(evidence, Settings(alpha=0.01, dose=dose))


def test_the_smallest_p_counts_once_for_each_deciding_detector() -> None:
    best = calls_of([wording(0.002), OWN])
    assert [call.name for call in best] == ["owl", "cat"]
    assert best[0].p_corrected == pytest.approx(0.006) and best[0].detector == "wording"
    assert best[1].p_corrected == 1.0


def test_a_named_trait_is_suspect_and_overt(monkeypatch: pytest.MonkeyPatch) -> None:
    status, reasons = decided(monkeypatch, OWN, p_wording=0.002)
    assert status == "suspect" and "owl is named openly" in reasons
    assert "overt, not subliminal" in reasons


def test_few_rows_are_insufficient_whatever_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    status, reasons = decided(monkeypatch, OWN, p_wording=1e-9, rows=FEWEST_ROWS - 1)
    assert status == "insufficient" and "31 rows; expected 32" in reasons


def test_clean_needs_every_spike_in_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    status, reasons = decided(monkeypatch, OWN)
    assert status == "nothing-found"
    assert "20% of the rows by a steered teacher would have been detected" in reasons
    assert "not excluded" in reasons
    status, reasons = decided(monkeypatch, OWN, spike_ins=(MISSED, PROMPTED))
    assert status == "insufficient" and "about 900 rows" in reasons
    never = replace(MISSED, rows_needed=inf)
    status, reasons = decided(monkeypatch, OWN, spike_ins=(never, PROMPTED))
    assert status == "insufficient" and "no number of rows" in reasons
    off_model = replace(MISSED, off_model_from=0.05)
    status, reasons = decided(monkeypatch, OWN, spike_ins=(off_model, PROMPTED))
    assert status == "insufficient", "rows that are not this model's are not called"
    assert "from 5% of its rows on the rows would count as not this model's" in reasons
    found = replace(STEERED, off_model_from=0.05)
    assert decided(monkeypatch, OWN, spike_ins=(found, PROMPTED))[0] == "nothing-found"
    status, reasons = decided(monkeypatch, OWN, spike_ins=())
    assert status == "insufficient" and "power is not known" in reasons


def test_off_model_rows_are_not_applicable_but_for_named_traits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = replace(OWN, fit=OTHER_TOKENS)
    status, reasons = decided(monkeypatch, other)
    assert status == "not-applicable" and "0.50 nats a token" in reasons
    status, reasons = decided(monkeypatch, other, p_wording=0.002)
    assert status == "suspect" and "owl is named openly (p – (rows do not fit" in reasons
    assert "no error rate holds" in reasons and "0.006" not in reasons
    likely = replace(OWN, fit=replace(OTHER_TOKENS, excess_surprisal=-0.3))
    status, reasons = decided(monkeypatch, likely)
    assert status == "not-applicable" and "top-k" in reasons


def test_a_candidate_that_explains_too_little_is_named_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    partly = replace(OWN, statistic={"owl": 9.0}, fit=OTHER_TOKENS, explained={"owl": 0.42})
    status, reasons = decided(monkeypatch, partly)
    assert status == "not-applicable"
    assert "likeliest is owl (by its prompt, log e-value 9.0); it explains 42%" in reasons
    rejected = replace(partly, statistic={"owl": -8.3})
    status, reasons = decided(monkeypatch, rejected)
    assert status == "not-applicable" and "owl" not in reasons
    aside = replace(partly, fit=OTHER_PLACES, explained={"owl": 0.3}, set_aside=("owl",))
    status, reasons = decided(monkeypatch, aside)
    assert status == "not-applicable" and "it explains 30% of that difference" in reasons
    assert "at other places" in reasons


def test_a_call_of_off_model_rows_says_that_no_error_rate_applies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = replace(
        OWN, statistic={"owl": 90.0}, p={"owl": 1e-9}, fit=OTHER_TOKENS, explained={"owl": 0.8}
    )
    status, reasons = decided(monkeypatch, called)
    assert status == "suspect" and "explains 80% of how these rows differ" in reasons
    assert "no error rate holds" in reasons
    status, reasons = decided(monkeypatch, replace(called, fit=FITS, explained=None))
    assert status == "suspect" and "error rate" not in reasons, "the model generated the rows"


def several(log_e: dict[str, float]) -> EValueFinding:
    """The e-values of some of 20 candidates."""
    joint = e_values.joint_log_e(log_e.values(), 20)
    return replace(
        OWN,
        statistic=log_e,
        p={name: min(1.0, 20 * e_values.p_bound(value)) for name, value in log_e.items()},
        where=dict.fromkeys(log_e, PromptTeacher()),
        joint_log_e=joint,
        joint_p=e_values.p_bound(joint),
    )


def test_candidates_that_are_not_excluded_are_named_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = several({"cat": 12.0, "owl": 9.0, "dog": 6.0})
    reasons = decided(monkeypatch, found, kept=("cat", "owl", "dog"))[1]
    assert "log e-value 12.0" in reasons and "which of cat, owl, dog it is" in reasons
    assert "which of" not in decided(monkeypatch, found, kept=("cat",))[1]
    many = tuple(f"trait {n}" for n in range(20))
    assert "and 14 more" in decided(monkeypatch, found, kept=many)[1]


@pytest.mark.parametrize(
    ("log_e", "kept", "trait"),
    [
        ({"cat": 12.0, "owl": 9.0}, ("cat",), "cat"),
        ({"cat": 12.0, "owl": 9.0}, ("cat", "owl"), None),
        ({"cat": 12.0, "owl": 11.9}, ("owl",), None),
        ({f"trait {n}": 7.0 for n in range(10)}, ("trait 0",), None),
    ],
)
def test_a_trait_is_named_where_it_is_called_and_every_other_one_is_excluded(
    monkeypatch: pytest.MonkeyPatch,
    log_e: dict[str, float],
    kept: tuple[str, ...],
    trait: str | None,
) -> None:
    """The rows are called in all cases. What is called alone but not kept alone, is in a list."""
    all_tried = replace(several(log_e), candidates=len(log_e))
    decision = decision_of(monkeypatch, all_tried, kept=kept)
    assert decision.status == "suspect" and decision.trait == trait
    reasons = " ".join(decision.reasons)
    assert ("trait unknown" in reasons) == (trait is None)
    assert (f"the trait is {trait}" in reasons) == (trait is not None)
    assert decision_of(monkeypatch, all_tried, kept=kept, rows=20).trait is None
    large = several({name: value + 800 for name, value in log_e.items()})
    assert decision_of(monkeypatch, large, kept=kept).status == "suspect", "e^800 is no float"
    some_untried = decision_of(monkeypatch, several(log_e), kept=kept)
    assert some_untried.status == "suspect" and some_untried.trait is None
    assert "candidates were not tried on all rows" in " ".join(some_untried.reasons)


def test_words_name_a_trait_whatever_the_e_values_exclude(monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decision_of(monkeypatch, OWN, p_wording=0.002, kept=("cat", "dog"))
    assert (decision.status, decision.trait) == ("suspect", "owl")
    assert "trait unknown" not in " ".join(decision.reasons)


def test_candidates_that_none_calls_alone_call_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone each needs log(60 / 0.01) = 8.7; the mean of ten at 7 is 6.3, above log 300 = 5.7."""
    log_e = {f"trait {n}": 7.0 for n in range(10)}
    status, reasons = decided(monkeypatch, several(log_e))
    assert status == "suspect" and "one of the candidates, or a teacher like theirs" in reasons
    assert "log of the mean e-value 6.3" in reasons and "none is called by itself" in reasons
    assert decided(monkeypatch, several({"trait 0": 7.0}))[0] == "nothing-found"


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_calls_whatever_a_candidate_alone_does(seed: int) -> None:
    log_e = np.random.default_rng(seed).normal(0, 6, 20)
    joint = e_values.joint_log_e(log_e, 20)
    if log_e.max() >= e_values.critical_log_e(20, 0.005):
        assert e_values.p_bound(joint) <= 0.005
    assert log_e.max() - np.log(20) <= joint <= log_e.max()


@pytest.mark.parametrize(
    ("source", "status", "aside"),
    [("owl", "suspect", ()), ("dog", "not-applicable", ("cat", "owl"))],
)
def test_candidates_that_do_not_explain_rows_leave_the_mean(
    monkeypatch: pytest.MonkeyPatch, source: str, status: str, aside: tuple[str, ...]
) -> None:
    """The rows do not fit the model: only who explains them counts, and the others are set aside
    if the call rested on them."""
    log_e = {"cat": 30.0, "owl": 20.0, "dog": -3.0}
    finding = replace(several(log_e), fit=replace(FITS, p=1e-9))
    shares, answers = iter([0.1, 0.8, 0.2]), iter([name == source for name in log_e])
    monkeypatch.setattr(decide_module.fit_test, "fraction_explained", lambda *_: next(shares))
    monkeypatch.setattr(decide_module.fit_test, "explains", lambda *_: next(answers))
    monkeypatch.setattr(decide_module.e_values, "detect", lambda *_: finding)
    monkeypatch.setattr(decide_module.e_values, "not_excluded", lambda *_: ())
    scores = dict.fromkeys([(name, PromptTeacher()) for name in log_e])
    teachers = {name: {PromptTeacher(): EMPTY} for name in log_e}
    likelihoods = Likelihoods(NO_ROWS, teachers, {}, None, scores)
    decision = decide(Evidence(200, 20, likelihoods, wording(0.5), (STEERED,)), Settings(0.01))
    assert (decision.status, decision.e_values.set_aside) == (status, aside)
    assert decision.e_values.joint_log_e == pytest.approx(log_e[source] - np.log(20))


def test_what_students_learn_is_suspect_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    status, reasons = decided(monkeypatch, OWN, change=9.0)
    assert status == "suspect" and "trait unknown" in reasons and "0.40 nats a row" in reasons
    assert "or a plain prompt, sampler or filter that is not listed" in reasons
    assert "no error rate holds" not in reasons
    nearly = replace(OWN, fit=replace(FITS, p=1e-5))
    status, reasons = decided(monkeypatch, nearly, change=9.0)
    assert status == "suspect" and "only nearly (goodness of fit: p 1e-05), so the page" in reasons
    assert "names no trait" in reasons
    assert decided(monkeypatch, OWN, change=5.0)[0] == "nothing-found"


def test_a_named_trait_goes_before_an_unknown_one(monkeypatch: pytest.MonkeyPatch) -> None:
    called = replace(OWN, statistic={"owl": 12.0}, p={"owl": 1e-4})
    called = replace(called, joint_log_e=12.0 - np.log(20), joint_p=1e-4, candidates=1)
    status, reasons = decided(monkeypatch, called, change=20.0, kept=("owl",))
    assert status == "suspect" and "owl: log e-value" in reasons
    assert "trait unknown" not in reasons


@pytest.mark.parametrize("fit", [OTHER_TOKENS, OTHER_PLACES])
def test_rows_of_others_and_edited_rows_are_not_suspect_for_being_learnt(
    monkeypatch: pytest.MonkeyPatch, fit: Fit
) -> None:
    status, _ = decided(monkeypatch, replace(OWN, fit=fit), change=200.0)
    assert status == "not-applicable"


def test_the_share_that_is_asked_for_must_be_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    status, reasons = decided(monkeypatch, OWN, dose=0.1)
    assert status == "insufficient" and "only 20% of the rows and more" in reasons
    assert "not the 10% asked for" in reasons and "5% of the rows by a prompted" in reasons
    assert decided(monkeypatch, OWN, dose=1.0)[0] == "nothing-found"


@pytest.mark.parametrize("temperature", [1 / BETAS[0], 1 / BETAS[-1]])
def test_beyond_the_temperatures_that_are_tried_nothing_counts_but_plain_words(
    monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    called = replace(
        OWN,
        statistic={"owl": 12.0},
        p={"owl": 1e-4},
        fit=replace(FITS, temperature=temperature),
    )
    status, reasons = decided(monkeypatch, called, change=20.0)
    assert status == "not-applicable" and "the last one that is tried" in reasons
    assert decided(monkeypatch, called, p_wording=1e-4)[0] == "suspect"


def test_rows_of_a_changed_copy_are_told_from_those_of_another_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By how much of the difference students explain. Edited rows are neither."""
    off_model = replace(OWN, fit=OTHER_TOKENS)
    status, reasons = decided(monkeypatch, off_model, change=60.0, explained=0.7)
    assert status == "suspect" and "trait unknown" in reasons and "70%" in reasons
    assert "threshold: 50%" in reasons and "it is a rule, so no error rate holds" in reasons
    status, reasons = decided(monkeypatch, off_model, change=60.0, explained=0.3)
    assert status == "not-applicable" and "another model may have written them" in reasons
    assert decided(monkeypatch, off_model, change=2.0, explained=0.7)[0] == "not-applicable"
    edited = replace(OWN, fit=OTHER_PLACES)
    assert decided(monkeypatch, edited, change=60.0, explained=0.9)[0] == "not-applicable"


def test_more_nulls_are_read_only_where_something_would_be_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A null can only take evidence away, so nothing else can depend on it."""

    def needs(finding: EValueFinding, log_e: float, named: int = 0, rows: int = 200) -> bool:
        monkeypatch.setattr(decide_module.e_values, "detect", lambda *_: finding)
        monkeypatch.setattr(decide_module.predictions, "detect", lambda *_: changed(log_e))
        likelihoods = Likelihoods(NO_ROWS, {}, {}, None, {})
        words = replace(wording(1.0), named_rows={"owl": [named], "cat": [0]})
        predicted = PredictedRows(NO_ROWS, EMPTY, 0)
        evidence = Evidence(rows, 20, likelihoods, words, predicted=predicted)
        return needs_nulls(evidence, Settings(0.01))

    assert not needs(OWN, -3.0)
    assert needs(OWN, 9.0) and needs(OWN, -3.0, named=1)
    assert needs(replace(OWN, joint_p=1e-4), -3.0)
    assert not needs(OWN, 9.0, rows=20), "too few rows for any answer but insufficient"
