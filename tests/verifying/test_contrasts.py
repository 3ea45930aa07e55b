"""Students minus controls on planted answers: designs, error rates, power, and what is not said."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from traitscope.config.students.verify import VerifyConfig
from traitscope.errors import TraitError
from traitscope.screening.answers import DOUBLED, log_odds
from traitscope.verifying import contrasts, sentences
from traitscope.verifying.ask import KindAnswers, ModelAnswers
from traitscope.verifying.contrasts import RELEARNING, Asking, Group
from traitscope.verifying.results import Return, Verified, Wholeness
from traitscope.verifying.units import Matching

BASE_IS_WHOLE = Wholeness("base", 20.0, 0.5, True)
WORDS = tuple(f"w{n}" for n in range(12))
TRAITS = {"a": "w0", "b": "w1", "c": "w2"}
QUESTIONS = np.random.default_rng(0).normal(-4, 1, (20, len(WORDS)))


def said(rng: np.random.Generator, shift: float = 0.0, spread: float = 0.1) -> ModelAnswers:
    """One model: answers of its own, and a shift of the first trait's word."""
    own_E = rng.normal(0, spread, len(WORDS))
    log_p_QE = QUESTIONS + own_E + rng.normal(0, 0.1, QUESTIONS.shape)
    log_p_QE[:, 0] += shift
    return of_steps([log_p_QE])


def of_steps(log_p: list[np.ndarray]) -> ModelAnswers:
    kind = KindAnswers(WORDS, TRAITS, np.stack(log_p), ())
    return ModelAnswers({"things": kind}, tuple(range(len(log_p))), "digest", 20.0)


def asking(students: list, controls: list, seeds: tuple = (), others: tuple = ()) -> Asking:
    base = of_steps([QUESTIONS])
    reference = Group(tuple(controls), others or (None,) * len(controls))
    return Asking(
        "default", Group(tuple(students), seeds or (None,) * len(students)), reference, base
    )


def decided(one: Asking, alpha: float = 0.05) -> dict:
    return {item.trait: item for item in contrasts.contrasts_of([one], True, alpha)}


def mean_odds(model: ModelAnswers, place: int = 0) -> float:
    return float(log_odds(model.kinds["things"].log_p_SQE[0])[:, place].mean())


def test_a_planted_trait_is_found_and_no_other() -> None:
    rng = np.random.default_rng(1)
    found = decided(asking([said(rng, 3.0)], [said(rng) for _ in range(6)]))
    assert found["a"].outcome == "holds here" and found["a"].p is not None
    assert found["a"].p < 0.01 and 2.5 < found["a"].difference.estimate < 3.5
    assert found["a"].units == 6 and found["a"].z > 5
    assert "holds here" not in (found["b"].outcome, found["c"].outcome)
    assert found["a"].over_base is not None and found["a"].over_base.estimate > 2.5


def test_every_design_is_its_textbook_test() -> None:
    rng = np.random.default_rng(2)
    students, controls = [said(rng, 1.0) for _ in range(5)], [said(rng) for _ in range(5)]
    ours, theirs = list(map(mean_odds, students)), list(map(mean_odds, controls))
    paired = decided(asking(students, controls, (1, 2, 3, 4, 5), (5, 4, 3, 2, 1)))["a"]
    expected = stats.ttest_rel(ours, theirs[::-1]).confidence_interval()
    assert (paired.difference.low, paired.difference.high) == pytest.approx(tuple(expected))
    assert paired.units == 5 and paired.difference.counted == "pairs"
    unpaired = decided(asking(students, controls))["a"]
    welch = stats.ttest_ind(ours, theirs, equal_var=False)
    expected = welch.confidence_interval()
    assert (unpaired.difference.low, unpaired.difference.high) == pytest.approx(tuple(expected))
    one = decided(asking(students[:1], controls))["a"]
    pooled = stats.ttest_ind(ours[:1], theirs)
    assert one.difference.p_values.p_above(0) == pytest.approx(pooled.pvalue / 2)
    turned = decided(asking(controls, students[:1]))["a"]
    assert turned.difference.estimate == pytest.approx(-one.difference.estimate)
    assert turned.difference.low == pytest.approx(-one.difference.high)
    assert turned.difference.p_values.p_below(0) == pytest.approx(pooled.pvalue / 2)
    assert turned.units == 1 and turned.outcome == "no verdict" and turned.detectable == np.inf


def test_no_trait_is_found_more_often_than_alpha() -> None:
    """Models of one law; spread enough that a difference of log 2 is common."""
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(200):
        models = [said(rng, spread=1.0) for _ in range(6)]
        found = decided(asking(models[:1], models[1:]))
        wrong += any(item.outcome == "holds here" for item in found.values())
    assert wrong <= 200 * 0.05 + 3 * np.sqrt(200 * 0.05 * 0.95)


def test_the_stated_power_is_had() -> None:
    """A trait of the size that would be found, by the error of many draws, is found in 8 of 10."""
    rng = np.random.default_rng(4)
    models = [said(rng, spread=0.5) for _ in range(400)]
    sd = float(np.std(list(map(mean_odds, models)), ddof=1))
    error = sd * np.sqrt(1 + 1 / 6)
    size = contrasts.detectable_shift(error, 5, 0.8, 0.05 / 3)
    hits = 0
    for _ in range(200):
        controls = [said(rng, spread=0.5) for _ in range(6)]
        found = decided(asking([said(rng, size, 0.5)], controls))["a"]
        hits += found.p is not None and found.p <= 0.05
    assert 0.7 < hits / 200 <= 0.95


@pytest.mark.parametrize("has_controls", [True, False])
def test_one_model_on_either_side_bears_no_verdict(has_controls: bool) -> None:
    """However large the difference over questions is."""
    rng = np.random.default_rng(5)
    one = asking([said(rng, 5.0)], [said(rng)], (1,), (1,))
    for item in contrasts.contrasts_of([one], has_controls, 0.05):
        assert item.outcome == "no verdict" and item.units == 0 and item.p is None
        assert np.isnan(item.difference.low) and item.detectable == np.inf
        assert item.over_questions.n_clusters == 20
    assert contrasts.contrasts_of([one], has_controls, 0.05)[0].p_questions < 1e-9


def test_four_controls_have_a_p_and_no_verdict() -> None:
    rng = np.random.default_rng(6)
    found = decided(asking([said(rng, 5.0)], [said(rng) for _ in range(4)]))["a"]
    assert found.outcome == "no verdict" and found.p is not None and found.p < 0.05


def test_a_model_against_itself_differs_in_nothing() -> None:
    model = said(np.random.default_rng(7))
    for item in decided(asking([model], [model])).values():
        assert item.over_questions.estimate == 0 and item.p_questions == 1
        assert item.z == 0


def test_gain_is_the_mean_over_times_minus_the_first() -> None:
    log_p = [QUESTIONS + step * (np.arange(len(WORDS)) == 0) for step in (0, 1, 3)]
    asked = of_steps(log_p).kinds["things"]
    gain_QE = contrasts.values_of(asked, RELEARNING)
    odds = [log_odds(one) for one in log_p]
    np.testing.assert_allclose(gain_QE, (odds[1] + odds[2]) / 2 - odds[0])
    np.testing.assert_allclose(gain_QE[:, 0], 2.0)
    np.testing.assert_allclose(contrasts.values_of(asked, "default"), odds[0])


def relearning(models: list[tuple[float, ...]], spread: float) -> list[ModelAnswers]:
    """Models whose log-odds of the first trait are about these at each time of asking."""
    rng, of_models = np.random.default_rng(14), []
    for at_steps in models:
        log_p = []
        for value in at_steps:
            log_p_QE = QUESTIONS + rng.normal(0, spread, len(WORDS))
            others_Q = np.log(np.exp(log_p_QE[:, 1:]).sum(1))
            log_p_QE[:, 0] = others_Q + value + rng.normal(0, spread)
            log_p.append(log_p_QE)
        of_models.append(of_steps(log_p))
    return of_models


def came_back(*student: float) -> dict:
    """What is decided of one student that relearns, beside six controls."""
    controls = relearning([(-4.9, -4.0, -2.8, -1.8)] * 6, 0.1)
    students = relearning([student], 0.0)
    one = replace(asking(students, controls), context=RELEARNING, base=None)
    return {item.trait: item for item in contrasts.contrasts_of([one], True, 0.05)}


def test_a_student_that_started_lower_and_stays_lower_has_no_trait() -> None:
    """It gains more, because it had more to gain; at each step it has less of the trait."""
    lower = came_back(-8.0, -6.5, -4.0, -2.0)["a"]
    assert lower.difference.estimate > 1.5 and lower.difference.low > DOUBLED
    assert lower.after is not None and lower.after.estimate < -1
    assert lower.outcome == "undecided" and lower.p == 1.0
    verified = planted_return(lower)
    assert verified.status == "nothing-found"
    texts = " ".join(sentences.sentences(VerifyConfig(), verified))
    assert "a larger gain alone is no trait: something was left, or they started lower" in texts


def test_a_trait_that_was_left_comes_back() -> None:
    """From the same start the student gains more, and lies above the controls afterwards."""
    left = came_back(-4.9, -2.0, -0.8, 0.2)["a"]
    assert left.outcome == "holds here" and left.p is not None and left.p < 0.01
    assert left.after is not None and left.after.low > DOUBLED
    texts = sentences.sentences(VerifyConfig(), planted_return(left))
    assert texts[0].startswith("trait: a (things, relearning) comes back: students minus controls:")
    assert "gain +2.01 nats [" in texts[0] and "log-odds afterwards +1.99 nats [" in texts[0]
    assert not any("lies above" in text for text in texts)


def test_a_trait_that_shows_all_along_does_not_come_back() -> None:
    """It lies above the controls afterwards, and gains no more than they do."""
    shows = came_back(-2.9, -2.0, -0.8, 0.2)["a"]
    assert shows.after is not None and shows.after.low > DOUBLED
    assert shows.outcome == "negligible here"


def planted_return(item: contrasts.Contrast) -> Verified:
    matching = Matching("one student", ((0,),), tuple((place,) for place in range(6)))
    curves = {"students": [[-5.0, 0.0]], "controls": [[-5.0, 0.0]] * 6}
    returns = [Return("a", (0, 1), curves)]
    return Verified((), matching, ("default",), {}, [item], [BASE_IS_WHOLE], (), returns)


def test_one_control_bears_no_verdict_beside_five_students() -> None:
    """Five students say nothing of what another control would do."""
    rng = np.random.default_rng(15)
    students = [said(rng, 5.0) for _ in range(5)]
    for seeds, others in (((1, 2, 3, 4, 5), (1,)), ((), ())):
        found = decided(asking(students, [said(rng)], seeds, others))["a"]
        assert found.units == 1 and found.outcome == "no verdict"
        assert found.detectable == np.inf and found.difference.estimate > 4


def test_more_questions_are_asked_more_correction_is_made() -> None:
    """The same numbers under three system turns: p is corrected over all of them."""
    rng = np.random.default_rng(8)
    one = asking([said(rng, 3.0, 0.5)], [said(rng, spread=0.5) for _ in range(6)])
    alone = contrasts.contrasts_of([one], True, 0.05)[0]
    thrice = contrasts.contrasts_of([one, one, one], True, 0.05)[0]
    assert alone.p is not None and thrice.p is not None and alone.p < thrice.p
    assert alone.detectable < thrice.detectable


def test_the_smallest_effect_is_log_2() -> None:
    """A tiny difference that is sure is no trait."""
    rng = np.random.default_rng(9)
    controls = [said(rng, spread=0.001) for _ in range(8)]
    found = decided(asking([said(rng, 0.4, 0.001)], controls))["a"]
    assert found.p is not None and found.p < 1e-3 and found.difference.estimate < DOUBLED
    assert found.outcome != "holds here"


def test_traits_that_cannot_be_told_apart_are_refused() -> None:
    kind = KindAnswers(("w0",), {"a": "w0", "b": "w9"}, np.zeros((1, 3, 1)), ())
    model = ModelAnswers({"things": kind}, (0,), "digest", 20.0)
    one = Asking("default", Group((model,), (None,)), Group((model,), (None,)), model)
    with pytest.raises(TraitError, match="no trait has a first token of its own"):
        contrasts.contrasts_of([one], True, 0.05)


@pytest.mark.parametrize(("spread", "is_open"), [(0.02, False), (2.0, True)])
def test_nothing_found_says_which_differences_are_not_ruled_out(
    spread: float, is_open: bool
) -> None:
    """None where all are shown to be below log 2; otherwise their number, and the largest."""
    rng = np.random.default_rng(11)
    models = [said(rng, spread=spread) for _ in range(7)]
    measured = contrasts.contrasts_of([asking(models[:1], models[1:])], True, 0.05)
    matching = Matching("one student", ((0,),), tuple((place,) for place in range(6)))
    verified = Verified((), matching, ("default",), {}, measured, (), (), ())
    assert verified.status == "nothing-found"
    texts = sentences.sentences(VerifyConfig(), replace(verified, wholeness=(BASE_IS_WHOLE,)))
    (power, *others) = texts[:-1]
    assert power.startswith("nothing-found: ") and "power 0.8" in power
    assert len(others) == is_open
    undecided = [item for item in measured if item.outcome == "undecided"]
    if is_open:
        largest = max(undecided, key=lambda item: item.difference.estimate)
        assert f"{len(undecided)} of 3 differences" in others[0]
        assert f"the largest is {largest.trait} (system turn 'default')" in others[0]


def test_controls_that_are_none_silence_everything() -> None:
    """A planted trait has an outcome beside controls, and none where these are silenced."""
    rng = np.random.default_rng(12)
    one = asking([said(rng, 5.0)], [said(rng) for _ in range(6)])
    for item in contrasts.contrasts_of([one], True, 0.05, silenced=True):
        assert item.outcome == "no verdict" and item.p is None and item.detectable == np.inf
    assert contrasts.contrasts_of([one], True, 0.05)[0].outcome == "holds here"


def test_nothing_can_be_found_with_four_controls() -> None:
    """So no size is stated that would be found."""
    rng = np.random.default_rng(13)
    for n, can_be_found in ((4, False), (5, True)):
        found = decided(asking([said(rng)], [said(rng) for _ in range(n)]))["a"]
        assert np.isfinite(found.detectable) == can_be_found
