"""What candidates say together: the mean of their e-values, and the set that is not excluded.

Rows of digits are drawn from planted logits, so who wrote them is known.

Shapes: R rows, N tokens of a row, C digits, T inverse temperatures.
"""

from collections.abc import Mapping

import numpy as np
import pytest
import scipy.stats
from scipy.special import logsumexp

from traitscope.auditing.detectors import e_values
from traitscope.auditing.detectors.findings import Likelihoods, RowsUnderNulls
from traitscope.inference.token_bins import BETAS

SHAPE = 40, 6, 10
ALPHA = 0.1
"error rate of the simulated sets; 0.01 would need many more simulations"
PRIOR = {"its prompt": 0.5, "its vector": 0.02}
"weights of a candidate's teachers; the second one writes the rows"
NAMES = ("right", "near", "other")
CANDIDATES = 4
"candidates that count, one of them not tried"


def most(repeats: int, rate: float) -> int:
    """The 99.95 % quantile of the number of errors, if the stated rate were reached exactly."""
    return int(scipy.stats.binom.ppf(0.9995, repeats, rate))


def written_by(rng: np.random.Generator, logits_RNC: np.ndarray) -> np.ndarray:
    """Digits [R, N] drawn from logits at temperature 1."""
    return (logits_RNC + rng.gumbel(size=logits_RNC.shape)).argmax(2)


def log_p(logits_RNC: np.ndarray, chosen_RN: np.ndarray) -> np.ndarray:
    """Log-likelihood [R, T] of the digits at every inverse temperature."""
    scaled_TRNC = np.array(BETAS)[:, None, None, None] * logits_RNC
    taken_TRN = np.take_along_axis(scaled_TRNC, chosen_RN[None, ..., None], 3)[..., 0]
    return (taken_TRN - logsumexp(scaled_TRNC, axis=3)).sum(2).T


def likelihoods_of(
    logits_RNC: np.ndarray,
    changed: Mapping[str, Mapping[str, np.ndarray]],
    chosen_RN: np.ndarray,
) -> Likelihoods:
    """What the model and the teachers, all given as logits, say of the digits."""
    teachers = {}
    for name, by_teacher in changed.items():
        teachers[name] = {teacher: log_p(of, chosen_RN) for teacher, of in by_teacher.items()}
    orders_R = np.zeros(len(chosen_RN), int)
    model_RT = log_p(logits_RNC, chosen_RN)
    nothing_RS = np.zeros((len(chosen_RN), 0))
    rows = RowsUnderNulls(model_RT, nothing_RS, [], orders_R, orders_R)
    return Likelihoods(rows, teachers, PRIOR, None, {})


def drawn(
    rng: np.random.Generator, alike: float, effect: float = 0.7, poisoned: float = 1.0
) -> Likelihoods:
    """Rows of which a share was written by the second teacher of `right`, the rest by the model.

    All teachers share a part `alike` of what they change in the model's logits.
    """
    logits, shared = rng.normal(0, 1, (2, *SHAPE))
    changed: dict[str, dict[str, np.ndarray]] = {}
    for name in NAMES:
        changed[name] = {}
        for teacher in PRIOR:
            own = rng.normal(0, 1, SHAPE)
            changed[name][teacher] = logits + effect * (alike * shared + (1 - alike) * own)
    is_poisoned_R11 = (rng.random(SHAPE[0]) < poisoned)[:, None, None]
    writer = np.where(is_poisoned_R11, changed["right"]["its vector"], logits)
    return likelihoods_of(logits, changed, written_by(rng, writer))


def values_of(rows: Likelihoods) -> dict[str, e_values.CandidateEValue]:
    null = e_values.null_of_rows(rows.under_nulls)
    return e_values.e_values_of(null, rows.teachers, PRIOR, CANDIDATES)


def joint(rows: Likelihoods) -> float:
    log_e = [value.log_e for value in values_of(rows).values()]
    return e_values.p_bound(e_values.joint_log_e(log_e, CANDIDATES))


@pytest.mark.parametrize(("alike", "poisoned"), [(0.4, 1.0), (0.8, 1.0), (0.4, 0.5)])
def test_the_set_holds_the_right_candidate_as_often_as_stated(
    alike: float, poisoned: float
) -> None:
    rng, repeats, excluded = np.random.default_rng(11), 100, 0
    for _ in range(repeats):
        rows = drawn(rng, alike, effect=1.0, poisoned=poisoned)
        excluded += "right" not in e_values.not_excluded(rows, CANDIDATES, ALPHA)
    assert excluded <= most(repeats, ALPHA)


def test_candidates_that_are_unlike_the_rows_are_excluded() -> None:
    """The set is not everything: nothing shared leaves the right one alone."""
    rng = np.random.default_rng(12)
    sets = []
    for _ in range(20):
        rows = drawn(rng, alike=0.0, effect=1.4)
        sets.append(e_values.not_excluded(rows, CANDIDATES, ALPHA))
    assert sum(names == ("right",) for names in sets) >= 17


def test_a_candidate_is_always_left() -> None:
    """Whoever wrote the rows: here somebody whom nobody tried."""
    rng = np.random.default_rng(14)
    for _ in range(20):
        logits = rng.normal(0, 1, SHAPE)
        changed = {
            name: {teacher: logits + rng.normal(0, 0.7, SHAPE) for teacher in PRIOR}
            for name in NAMES
        }
        rows = likelihoods_of(logits, changed, written_by(rng, rng.normal(0, 2, SHAPE)))
        assert e_values.not_excluded(rows, CANDIDATES, ALPHA)
    nobody = likelihoods_of(logits, {"right": {}}, written_by(rng, logits))
    assert e_values.not_excluded(nobody, CANDIDATES, ALPHA) == ()


def test_the_mean_e_value_keeps_its_error_rate_on_clean_rows() -> None:
    """And calls whatever one candidate does alone."""
    rng, repeats, called = np.random.default_rng(15), 120, 0
    for _ in range(repeats):
        rows = drawn(rng, alike=0.8, effect=0.4, poisoned=0.0)
        p = joint(rows)
        called += p <= ALPHA
        assert p <= min(value.p for value in values_of(rows).values())
    assert called <= most(repeats, ALPHA)


def test_near_candidates_call_together_more_often_than_one_does_alone() -> None:
    """Rows of few nats whose candidates share nearly everything."""
    rng, alone, together = np.random.default_rng(16), 0, 0
    for _ in range(60):
        rows = drawn(rng, alike=0.97, effect=0.25)
        together += joint(rows) <= ALPHA
        alone += min(value.p for value in values_of(rows).values()) <= ALPHA
    assert together > alone
