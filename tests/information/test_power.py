"""Expected z and power against simulated students; the measured factor from its own numbers."""

import math

import numpy as np
import pytest

from traitscope.errors import ConfigError
from traitscope.information import power
from traitscope.information.power import Calibration, Contrast
from traitscope.stats.intervals import mean_interval_t
from traitscope.stats.measurement import Measurement


def nats(value: float) -> Measurement:
    return Measurement("d", value, value / 2, 2 * value, 64, 64, 0, "nats a row")


def test_far_from_the_control_a_statistic_may_have_more_than_the_scale() -> None:
    """Rows of 0 and 1 with shares of 0.01 and 0.5: the difference of means has z = 0.96 a row."""
    few, half = 0.01, 0.5
    divergence = few * np.log(few / half) + (1 - few) * np.log((1 - few) / (1 - half))
    z = (half - few) / np.sqrt(few * (1 - few) + half * (1 - half))
    assert power.z_if_near(divergence, 1) == pytest.approx(0.798, abs=1e-3)
    assert z == pytest.approx(0.961, abs=1e-3)


def test_the_log_likelihood_ratio_of_near_teachers_has_the_z_of_the_scale() -> None:
    """Planted: rows of 30 digits of two near models; the difference of mean log-likelihood ratios
    has the z of `z_if_near`."""
    rng = np.random.default_rng(0)
    base_PC = rng.dirichlet(np.full(10, 5.0), 30)
    teacher_PC = base_PC * np.exp(0.1 * rng.standard_normal((30, 10)))
    teacher_PC /= teacher_PC.sum(1, keepdims=True)
    ratio_PC = np.log(teacher_PC / base_PC)
    divergence = float((teacher_PC * ratio_PC).sum())
    n_rows, sets = 32, 4000

    def means(p_PC: np.ndarray) -> np.ndarray:
        total_S = np.zeros(sets)
        for place in range(30):
            drawn_SR = rng.choice(10, size=(sets, n_rows), p=p_PC[place])
            total_S += ratio_PC[place][drawn_SR].mean(1)
        return total_S

    difference_S = means(teacher_PC) - means(base_PC)
    z = difference_S.mean() / difference_S.std()
    assert z == pytest.approx(power.z_if_near(divergence, n_rows), rel=0.06)


@pytest.mark.parametrize(("z", "seeds"), [(0.5, 5), (1.5, 5), (3.0, 3), (0.0, 10)])
def test_power_is_how_often_an_interval_lies_above_zero(z: float, seeds: int) -> None:
    rng = np.random.default_rng(1)
    above = 0
    for _ in range(3000):
        _, low, _ = mean_interval_t((z + rng.standard_normal(seeds)).tolist())
        above += low > 0
    assert above / 3000 == pytest.approx(power.power(z, seeds), abs=0.03)


def test_rows_needed_have_the_power() -> None:
    rows = power.rows_needed(0.3, 5, 0.15)
    assert power.power(0.15 * power.z_if_near(0.3, round(rows)), 5) == pytest.approx(0.8, abs=0.01)
    assert power.rows_needed(0.0, 5, 0.15) == math.inf
    assert math.isnan(power.rows_needed(0.3, 1, 0.15)) and math.isnan(power.power(2.0, 1))


def test_the_efficiency_is_found_again() -> None:
    """Planted: seeds whose z is 0.2 of the best one; its interval covers in 95 % of the draws."""
    rng = np.random.default_rng(2)
    truth, covered, found = 0.2, 0, []
    z = truth * power.z_if_near(13.4, 32)
    for _ in range(400):
        groups = []
        for _ in range(2):
            mean, low, high = mean_interval_t((z + rng.standard_normal(5)).tolist())
            groups.append((mean, low, high))
        efficiency = Calibration(tuple(groups), 5, 32, 13.4, "here").efficiency()
        covered += efficiency.low <= truth <= efficiency.high
        found.append(efficiency.estimate)
    assert 0.92 < covered / 400 < 0.98
    assert np.median(found) == pytest.approx(truth, rel=0.1)


def test_the_table() -> None:
    table = power.power_table(
        [Contrast("cat", nats(13.4), 32, 5), Contrast("dog", nats(0.008), 32, 5)], power.DEMO
    )
    cat, dog = table.rows
    assert cat[5].estimate > 0.95 > 0.2 > dog[5].estimate > 0.02
    assert cat[6] < 32 < 10_000 < dog[6]
    assert cat[5].low < cat[5].estimate < cat[5].high
    assert power.DEMO.source in table.caption
    (alone,) = power.power_table([Contrast("cat", nats(0.3), 32, 1)]).rows
    assert alone[5] is None and alone[6] is None


def test_refused() -> None:
    with pytest.raises(ConfigError, match="expected 0 or more"):
        power.z_if_near(-0.1, 3)
