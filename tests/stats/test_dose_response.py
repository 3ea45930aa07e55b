"""Transfer ratios and dose–response shapes: planted truth, coverage by simulation, and what must
stay undefined."""

import math

import numpy as np
import pytest

from traitscope.errors import ConfigError, DataError
from traitscope.stats import dose_response

ALPHAS = (0.0, 0.15, 0.3, 0.45, 0.6)


def outcomes(rng: np.random.Generator, rate: float, *shape: int) -> np.ndarray:
    return (rng.random(shape) < rate).astype(float)


def test_ratio_of_planted_rates_is_covered() -> None:
    """Teacher 0.1 -> 0.6, students 0.15 -> 0.35 with seeds that differ: tau 0.4."""
    rng, hits = np.random.default_rng(0), 0
    for n in range(300):
        shift = rng.normal(0, 0.03, 6)
        student = np.stack([outcomes(rng, 0.35 + s, 100) for s in shift])
        control = np.stack([outcomes(rng, 0.15, 100) for _ in shift])
        found = dose_response.transfer_ratio(
            "tau",
            student,
            control,
            outcomes(rng, 0.6, 100),
            outcomes(rng, 0.1, 100),
            draws=400,
            seed=n,
        )
        hits += found.low <= 0.4 <= found.high
    assert 0.88 <= hits / 300 <= 0.99, (
        hits
    )  # percentile intervals over six seeds are a little narrow


def test_order_of_prompts_and_scale() -> None:
    rng = np.random.default_rng(1)
    student, control = outcomes(rng, 0.5, 3, 80), outcomes(rng, 0.2, 3, 80)
    teacher, base = outcomes(rng, 0.8, 80), outcomes(rng, 0.1, 80)
    found = dose_response.transfer_ratio("tau", student, control, teacher, base)
    order = rng.permutation(80)
    again = dose_response.transfer_ratio(
        "tau", student[:, order], control[:, order], teacher[order], base[order]
    )
    assert again.estimate == pytest.approx(found.estimate)
    assert found.estimate == pytest.approx(
        (student.mean() - control.mean()) / (teacher.mean() - base.mean())
    )
    assert found.low < found.estimate < found.high and found.n == 80 and found.n_clusters == 3
    mirrored = dose_response.transfer_ratio("tau", 1 - student, 1 - control, 1 - teacher, 1 - base)
    assert (mirrored.estimate, mirrored.low, mirrored.high) == pytest.approx(
        (found.estimate, found.low, found.high)
    )


def test_student_that_copies_the_teacher_has_ratio_one() -> None:
    rng = np.random.default_rng(2)
    teacher, base = outcomes(rng, 0.7, 60), outcomes(rng, 0.2, 60)
    found = dose_response.transfer_ratio(
        "tau", np.stack([teacher] * 2), np.stack([base] * 2), teacher, base
    )
    assert (found.estimate, found.low, found.high) == pytest.approx((1, 1, 1))


def test_undefined_where_the_teacher_did_not_move() -> None:
    rng = np.random.default_rng(3)
    found = dose_response.transfer_ratio(
        "tau",
        outcomes(rng, 0.5, 2, 50),
        outcomes(rng, 0.2, 2, 50),
        outcomes(rng, 0.3, 50),
        outcomes(rng, 0.3, 50),
    )
    assert math.isnan(found.estimate) and "undefined: the teacher's change" in found.interval


def test_unscored_prompts_are_left_out_and_counted() -> None:
    rng = np.random.default_rng(4)
    student, control = outcomes(rng, 0.5, 2, 50), outcomes(rng, 0.2, 2, 50)
    teacher, base = outcomes(rng, 0.9, 50), outcomes(rng, 0.1, 50)
    student[0, 3] = base[7] = np.nan
    found = dose_response.transfer_ratio("tau", student, control, teacher, base)
    keep = np.delete(np.arange(50), [3, 7])
    assert (found.n, found.n_unscored) == (48, 2)
    assert found.estimate == pytest.approx(
        dose_response.transfer_ratio(
            "tau", student[:, keep], control[:, keep], teacher[keep], base[keep]
        ).estimate
    )
    gone = dose_response.transfer_ratio("tau", student * np.nan, control, teacher, base)
    assert math.isnan(gone.estimate) and gone.n_unscored == 50


def test_bad_input() -> None:
    one, two, p = np.zeros((1, 5)), np.zeros((2, 5)), np.zeros(5)
    with pytest.raises(ConfigError, match="with 1 seed; expected two or more"):
        dose_response.transfer_ratio("tau", one, one, p, p)
    with pytest.raises(DataError, match="align them"):
        dose_response.transfer_ratio("tau", two, two, p, np.zeros(4))
    for alphas, says in [
        ((0.1, 0.2, 0.3), "have no 0"),
        ((0.0, 0.2), "three or more"),
        ((0.0, 0.2, 0.2), "each once"),
        ((0.0, 0.2, -0.2), "go both ways"),
    ]:
        with pytest.raises(ConfigError, match=says):
            dose_response.check_strengths(alphas)
    with pytest.raises(DataError, match="expected .prompts, strengths."):
        dose_response.held_out(ALPHAS, dose_response.counts_of(np.zeros((1, 50, 4))))
    for outcomes_SPA in (np.zeros((50, 5)), np.full((2, 50, 5), 0.5)):
        with pytest.raises(DataError, match="pass single outcomes, not their means"):
            dose_response.counts_of(outcomes_SPA)


def made(
    shape: dose_response.Shape, p: tuple[float, ...], prompts: int, seed: int = 0
) -> dose_response.Counts:
    x_A = np.asarray(ALPHAS) / max(ALPHAS)
    drawn = np.random.default_rng(seed).random((1, prompts, len(ALPHAS))) < shape.rate(x_A, p)
    return dose_response.counts_of(drawn)


PLANTED = [
    (dose_response.SHAPES[0], (0.1, 0.6)),
    (dose_response.SHAPES[1], (0.1, 2.4, 0.7)),
    (dose_response.SHAPES[2], (0.1, 0.5, 0.05)),
]


def test_a_planted_threshold_is_seen_and_a_planted_line_is_none() -> None:
    line, hinge, logistic = (made(shape, p, 600) for shape, p in PLANTED)
    assert dose_response.threshold(dose_response.held_out(ALPHAS, hinge)).low > 0
    assert (
        dose_response.threshold(dose_response.held_out(ALPHAS, logistic)).low > 0
    )  # a steep step is nearer to a hinge than to a line
    found = dose_response.threshold(dose_response.held_out(ALPHAS, line))
    assert found.low <= 0 <= found.high + 0.005 and abs(found.estimate) < 0.01
    smooth = made(dose_response.SHAPES[2], (0.1, 0.5, 0.15), 4000)
    scores = {name: values.sum() for name, values in dose_response.held_out(ALPHAS, smooth).items()}
    assert max(scores, key=scores.get) == "logistic"


@pytest.mark.parametrize(("shape", "p"), PLANTED, ids=lambda v: getattr(v, "name", ""))
def test_fit_finds_the_planted_rates(shape: dose_response.Shape, p: tuple[float, ...]) -> None:
    x_A = np.asarray(ALPHAS) / max(ALPHAS)
    n_A = np.full(len(ALPHAS), 1e6)
    found = shape.rate(x_A, dose_response.fit(shape, x_A, shape.rate(x_A, p) * n_A, n_A))
    np.testing.assert_allclose(found, shape.rate(x_A, p), atol=3e-3)


def test_strengths_of_either_sign_are_doses() -> None:
    """A behaviour is suppressed by negative strengths: the same outcomes have the same shape."""
    data = made(*PLANTED[1], 200)
    down = dose_response.held_out([-a for a in ALPHAS], data)
    for name, scores in dose_response.held_out(ALPHAS, data).items():
        np.testing.assert_allclose(down[name], scores)


def test_outcomes_of_all_seeds_count() -> None:
    """Twice the same outcomes are twice the log-likelihood under the same fit; unscored ones and a
    base that was asked once are not made up."""
    drawn_PA = made(*PLANTED[1], 60).hits_PA
    once = dose_response.held_out(ALPHAS, dose_response.counts_of(drawn_PA[None]))
    twice = dose_response.held_out(ALPHAS, dose_response.counts_of(np.stack([drawn_PA] * 2)))
    for name, scores in once.items():
        np.testing.assert_allclose(twice[name], 2 * scores, rtol=1e-4)
    outcomes_SPA = np.stack([drawn_PA] * 3)
    outcomes_SPA[1:, :, 0] = outcomes_SPA[0, 5, 2] = np.nan
    counts = dose_response.counts_of(outcomes_SPA)
    assert counts.n_PA[0].tolist() == [1, 3, 3, 3, 3] and counts.n_PA[5, 2] == 2
    np.testing.assert_array_equal(counts.hits_PA[:, 1], 3 * drawn_PA[:, 1])


def test_the_published_shape() -> None:
    teacher = [0.1, 0.2, 0.3, 0.4, 0.6]
    rates = dose_response.threshold_rates(ALPHAS, teacher, 0.1, 0.2, 0.3)
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.16, 0.19, 0.25])
    down = [-alpha for alpha in ALPHAS]
    np.testing.assert_allclose(dose_response.threshold_rates(down, teacher, 0.1, 0.2, 0.3), rates)


def test_power_is_that_of_the_named_shape_and_grows_with_the_outcomes() -> None:
    """A steep threshold is seen with many outcomes, hardly with few; a line is not called."""
    hinge, line = (0.1, 0.1, 0.1, 0.4, 0.7), (0.1, 0.25, 0.4, 0.55, 0.7)
    many, few = np.full((300, 5), 3), np.full((15, 5), 1)
    assert dose_response.threshold_power(ALPHAS, hinge, many, draws=10) == 1
    assert dose_response.threshold_power(ALPHAS, hinge, few, draws=10) <= 0.5
    # a nominal 2.5 % on one side: three or more calls of 10 have probability 0.002
    assert dose_response.threshold_power(ALPHAS, line, many, draws=10) <= 0.2


def test_students_that_differ_look_like_a_shape() -> None:
    """What `holds for these students` warns of: the false positives of a flat line."""
    flat, n_PA = np.full(5, 0.3), np.full((400, 5), 3)
    alike, unlike = (
        dose_response.threshold_power(ALPHAS, flat, n_PA, sd, draws=20) for sd in (0.0, 0.15)
    )
    assert alike <= 0.2 < 0.3 < unlike


def test_the_spread_between_students_is_that_beyond_chance() -> None:
    """A hundred students of 200 prompts; the standard error of a variance of n is sqrt(2/n) of
    it."""
    rng, planted = np.random.default_rng(3), np.array([0.0, 0.1])
    rates_SA = np.clip(0.4 + rng.normal(0, 1, (100, 2)) * planted, 0, 1)
    drawn_SPA = (rng.random((100, 200, 2)) < rates_SA[:, None]).astype(float)
    total = planted**2 + 0.24 / 200
    error = 3 * np.sqrt(2 / 100) * total
    assert (np.abs(dose_response.student_sd(drawn_SPA) ** 2 - planted**2) <= error).all()
    assert dose_response.student_sd(drawn_SPA[:1]).tolist() == [0, 0]


def test_held_out_needs_no_prompt_twice() -> None:
    """The score of a prompt does not depend on its own outcome beyond its likelihood: flipping one
    changes its fold's only."""
    data = made(*PLANTED[0], 50)
    before = dose_response.held_out(ALPHAS, data)
    data.hits_PA[0, 2] = 1 - data.hits_PA[0, 2]
    after = dose_response.held_out(ALPHAS, data)
    fold = np.random.default_rng(0).permutation(50) % dose_response.FOLDS
    same = (fold == fold[0]) & (np.arange(50) != 0)
    for name in before:
        np.testing.assert_allclose(after[name][same], before[name][same])


def test_a_draw_that_leaves_the_teacher_unmoved_is_left_out() -> None:
    """Four of 24 prompts move: some resamples hold none of them, and divide by zero."""
    moved_P = np.zeros(24)
    moved_P[:4] = 1.0
    base_P = np.zeros(24)
    student_SP = np.stack([moved_P, moved_P])
    tau = dose_response.transfer_ratio("tau", student_SP, np.zeros((2, 24)), moved_P, base_P)
    # Means of the same numbers may differ in the last bit, by the order that a processor sums in.
    assert (tau.estimate, tau.low, tau.high) == pytest.approx((1.0, 1.0, 1.0), rel=1e-12)
