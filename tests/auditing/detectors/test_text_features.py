"""Surface: features by hand, a classifier that sees what differs and nothing else, residuals that
lose it."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

from traitscope.auditing.detectors import text_features
from traitscope.auditing.detectors.text_features import (
    FEATURES,
    classifier_auroc,
    feature_groups,
    features,
    mentions,
    residual_groups,
)
from traitscope.data.traits import load_trait
from traitscope.stats.permutation import in_blocks, z_scores


def numbers(rng: np.random.Generator, low: int = 100) -> str:
    return ", ".join(str(n) for n in rng.integers(low, 1000, 8))


def test_features_by_hand() -> None:
    found = dict(zip(FEATURES, features("Continue 12, 40.", "12, 7, 99"), strict=True))
    assert found["characters"] == 9 and found["words"] == 7 and found["numbers"] == 3
    assert found["rising pairs"] == 0.5 and found["repeats of the prompt"] == pytest.approx(1 / 3)
    assert (
        found["share of 9"] == pytest.approx(2 / 9)
        and found["signs"] == pytest.approx(2 / 9) == found["white space"]
    )
    assert features("", "") == [0.0] * len(FEATURES)
    assert np.isfinite(features("x", "9" * 4000)).all()


def test_classifier_is_at_chance_on_the_same_source_and_sees_another() -> None:
    rng = np.random.default_rng(0)
    same = [[numbers(rng) for _ in range(3)] for _ in range(150)]
    assert classifier_auroc(same) == pytest.approx(0.5, abs=0.08)
    other = [[numbers(rng, 700), numbers(rng), numbers(rng)] for _ in range(150)]
    assert classifier_auroc(other) > 0.9
    assert 0 <= classifier_auroc([["1", "2"], ["1", "2"]]) <= 1
    assert classifier_auroc([["1", "2"]]) == 0.5, "there is no other prompt to learn from"


def test_weights_of_the_classifier_are_those_of_a_dense_ridge() -> None:
    """By augmented least squares: rows of sqrt(penalty) under the standardised columns, none under
    the intercept."""
    rng = np.random.default_rng(1)
    x_NW, y_N = (
        np.c_[rng.random((60, 7)) * (rng.random((60, 7)) < 0.4), np.ones(60)],
        rng.integers(0, 2, 60).astype(float),
    )
    scale_W = np.r_[x_NW[:, :-1].std(0), 1.0]
    under = np.diag(np.r_[np.full(7, np.sqrt(0.5 * np.sqrt(60))), 0.0])
    wanted = (
        np.linalg.lstsq(np.r_[x_NW / scale_W, under], np.r_[y_N, np.zeros(8)], rcond=None)[0]
        / scale_W
    )
    np.testing.assert_allclose(text_features._fitted(csr_array(x_NW), y_N, 0.5), wanted, atol=1e-6)


def test_memory_of_the_classifier_grows_by_what_a_row_says() -> None:
    """Free text of many words: a dense table of them would take 2,400 bytes a row."""
    rng, words, peaks = (
        np.random.default_rng(2),
        [f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(400)],
        [],
    )
    for rows in (500, 2500):
        texts = [[" ".join(rng.choice(words, 8)) for _ in range(2)] for _ in range(rows)]
        tracemalloc.start()
        classifier_auroc(texts)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / (2000 * 2) < 1000


def test_sorted_numbers_are_seen_by_their_feature() -> None:
    rng = np.random.default_rng(1)
    rows = [
        [", ".join(map(str, sorted(rng.integers(100, 1000, 8)))), numbers(rng)] for _ in range(80)
    ]
    z = dict(zip(FEATURES, z_scores(in_blocks(feature_groups(["p"] * 80, rows))), strict=True))
    assert z["rising pairs"] > 6 and abs(z["share of 3"]) < 4


def test_residuals_lose_what_the_surface_explains_and_keep_the_rest() -> None:
    rng = np.random.default_rng(2)
    surface_ = rng.standard_normal((200, 3, 4))
    surface_[:, 0, 1] += 1
    values = surface_ @ np.ones((4, 2)) + 0.1 * rng.standard_normal((200, 3, 2))
    values[:, 0, 1] += 0.1
    before, after = (z_scores(in_blocks(x)) for x in (values, residual_groups(values, surface_)))
    assert abs(before[0]) > 5 and abs(after[0]) < 3.5 and after[1] > 5


def test_mentions() -> None:
    found = mentions(
        [load_trait("owl"), load_trait("cat")],
        [["An owl!", "caterpillar"], ["Cats and owls", "1, 2"]],
    )
    assert found.tolist() == [[[1, 0], [0, 0]], [[1, 1], [0, 0]]]


def test_words() -> None:
    assert text_features.words_of("Ab1_2, c-d") == ["ab", "1", "2", ",", "c", "-", "d"]


@pytest.mark.parametrize(
    ("text", "order"),
    [("1 2 2 9", 1), ("9, 4, 4, 1", -1), ("1 3 2", 0), ("7 7 7", 0), ("1 2", 0), ("no numbers", 0)],
)
def test_order_of_numbers(text: str, order: int) -> None:
    assert text_features.order_of(text) == order
