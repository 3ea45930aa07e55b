"""Columns that cover all temperatures, against rows whose likelihood is known at every one."""

import numpy as np
import pytest

from traitscope.auditing.detectors import e_values, predictions, temperatures
from traitscope.auditing.detectors.findings import RowsUnderNulls
from traitscope.auditing.detectors.predictions import PredictedRows
from traitscope.inference.samplers import SAMPLERS
from traitscope.inference.token_bins import BETAS
from traitscope.stats import mixtures
from traitscope.training import prequential

EARLIER = (0.1, 0.2, 0.3, 0.4, 0.5, *np.arange(0.6, 1.51, 0.05), 1.9, 2.4, 3.0, 3.8, 4.8, 6.0)
"a grid with wide steps below 0.6 and above 1.5"
COLUMNS, SPREAD = 40, 2.2


class Rows:
    """Rows of tokens that a model with random logits writes, each at some temperature."""

    def __init__(self, temperatures_R: np.ndarray, tokens: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shape = (len(temperatures_R), tokens, COLUMNS)
        logits_RNC = rng.normal(0, SPREAD, shape)
        at_R11 = logits_RNC / np.asarray(temperatures_R)[:, None, None]
        chosen_RN1 = (at_R11 + rng.gumbel(size=shape)).argmax(2)[:, :, None]
        # A constant in the logits of a token changes nothing: the largest one becomes 0.
        self.logits_RNC = logits_RNC - logits_RNC.max(2, keepdims=True)
        self.own_RN = np.take_along_axis(self.logits_RNC, chosen_RN1, 2)[:, :, 0]
        self.true_R = self.log_p(1 / np.asarray(temperatures_R))

    def log_p(self, beta: float | np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Log-likelihoods [R] at an inverse temperature, or at one for each row."""
        beta_R1 = scale * np.broadcast_to(beta, len(self.logits_RNC))[:, None]
        sums_RN = np.exp(beta_R1[:, :, None] * self.logits_RNC).sum(2)
        return (beta_R1 * self.own_RN - np.log(sums_RN)).sum(1)

    def at(self, betas: tuple[float, ...], scale: float = 1.0) -> np.ndarray:
        """Log-likelihoods [T, R] at several inverse temperatures."""
        return np.array([self.log_p(beta, scale) for beta in betas])


def test_without_parts_the_columns_are_the_grids_and_a_little_more() -> None:
    log_p_TR = Rows(np.full(6, 0.8), 30).at(BETAS)
    covering_TR = temperatures.covering(log_p_TR, BETAS, parts=1)
    assert covering_TR.shape == log_p_TR.shape
    assert (covering_TR >= log_p_TR - 1e-9).all()


def test_rows_whose_likelihood_is_linear_in_the_temperature_gain_nothing() -> None:
    betas = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
    linear_TR = np.outer(betas, [-3.0, 2.0]) + 1.0
    fine_F, _ = temperatures._interpolation(betas, 2)
    expected_FR = np.outer(fine_F, [-3.0, 2.0]) + 1.0
    assert temperatures.covering(linear_TR, betas, 2) == pytest.approx(expected_FR, abs=1e-9)


@pytest.mark.parametrize("parts", [1, 4])
def test_no_temperature_is_likelier_than_the_mixture_of_its_two_neighbours(parts: int) -> None:
    """Row by row, with one weight for all rows."""
    rows = Rows(np.geomspace(0.15, 6, 12), 60)
    covering_FR = temperatures.covering(rows.at(BETAS), BETAS, parts)
    fine_F, _ = temperatures._interpolation(BETAS, parts)
    for beta in np.random.default_rng(1).uniform(0.15, 8, 60):
        right = int(np.searchsorted(fine_F, beta))
        weight = (fine_F[right] - beta) / (fine_F[right] - fine_F[right - 1])
        mixed_R = np.logaddexp(
            np.log(weight) + covering_FR[right - 1], np.log1p(-weight) + covering_FR[right]
        )
        assert (rows.log_p(beta) <= mixed_R + 0.01).all(), beta


@pytest.mark.parametrize("temperature", [0.04, 0.12, 0.36, 0.5, 0.6, 0.65, 1.0, 1.8, 4.0])
def test_the_bound_holds_between_the_points_of_the_grid(temperature: float) -> None:
    rows = Rows(np.full(128, temperature), 150)
    bound = mixtures.supremum(temperatures.covering(rows.at(BETAS), BETAS)).bound
    assert rows.true_R.sum() <= bound
    assert bound - rows.true_R.sum() < 40, "so much is lost that nothing would be found"


def test_a_grid_with_wide_steps_is_no_bound() -> None:
    rows = Rows(np.full(128, 0.6), 150)
    assert rows.true_R.sum() > mixtures.supremum(rows.at(EARLIER)).bound + 20
    covered = mixtures.supremum(temperatures.covering(rows.at(EARLIER), EARLIER)).bound
    assert rows.true_R.sum() <= covered


@pytest.mark.parametrize("temperature", [0.5, 0.6, 1.8])
def test_a_learner_of_the_temperature_alone_is_not_called(temperature: float) -> None:
    """Its logits are those of the model, times what its own temperatures lack of the rows'."""
    n = 128
    rows = Rows(np.full(n, temperature), 150)
    model_RT = rows.at(BETAS).T
    under = RowsUnderNulls(
        model_RT=model_RT,
        model_RS=np.full((n, len(SAMPLERS)), -1e6),
        nulls=(),
        orders_R=np.zeros(n, int),
        placebo_orders_N=np.zeros(64, int),
    )
    scale = 1 / temperature / 1.1
    learner_RT = rows.at(prequential.TEMPERATURES, scale).T
    plain = prequential.TEMPERATURES.index(1.0)
    found = predictions.detect(PredictedRows(under, learner_RT[None], plain), 0.01 / 3)
    assert found.statistic[predictions.CHANGE] < found.critical
    teacher_RT = rows.at(BETAS, 1.07).T
    assert e_values.log_e_value(e_values.null_of_rows(under), teacher_RT) < found.critical
