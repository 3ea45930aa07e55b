"""Evidence on planted pushes: the right trait at the right block, no trait in a format, one sign;
odds and wording."""

from dataclasses import dataclass
from math import log

import numpy as np
import pytest

from traitscope.auditing.detectors import panel, text_features
from traitscope.auditing.detectors.panel import (
    along,
    block_sums,
    directions,
    gradients,
    likelihoods,
    wording,
)
from traitscope.data.traits import load_trait
from traitscope.inference.token_scores import BETAS, BINS, PLAIN, WAYS, Choices
from traitscope.interventions.vector import Vector
from traitscope.stats import permutation

LAYERS, WIDTH, TRAITS = 3, 200, 24
SCALE = np.linspace(2, 0.3, WIDTH)


@dataclass
class Held:
    """Pushes in memory, read like stored ones."""

    pushes_RLD: np.ndarray
    loss_R: np.ndarray
    norms_RL: np.ndarray

    def rows(self, index: list[int]) -> np.ndarray:
        return self.pushes_RLD[list(index)]


def held(rng: np.random.Generator, rows: int, shift_LD: np.ndarray | float = 0.0) -> Held:
    pushes = (rng.standard_normal((rows, LAYERS, WIDTH)) * SCALE + shift_LD).astype(np.float32)
    return Held(pushes, rng.exponential(1, rows), np.linalg.norm(pushes, axis=2))


def vectors(rng: np.random.Generator) -> dict[str, Vector]:
    return {f"t{n}": Vector(rng.standard_normal((LAYERS, WIDTH)), "m") for n in range(TRAITS)}


def texts(rng: np.random.Generator, rows: int, k: int) -> list[list[str]]:
    return [[" ".join(map(str, rng.integers(100, 999, 5))) for _ in range(k)] for _ in range(rows)]


def found(
    stores: list[Held], known: dict[str, Vector], candidates: list[str], rng: np.random.Generator
) -> panel.Found:
    rows = len(stores[0].pushes_RLD)
    pairs = [[n] * len(stores) for n in range(rows)]
    surface_BKF = permutation.in_blocks(
        text_features.feature_groups(["p"] * rows, texts(rng, rows, len(stores)))
    )
    clean = np.concatenate([s.pushes_RLD for s in stores[1:]])
    values = along(block_sums(stores, pairs), directions(known, clean))
    return gradients(list(known), candidates, values, surface_BKF, 0.01, swaps=2999)


def steered(known: dict[str, Vector], name: str, layer: int, strength: float = 0.15) -> np.ndarray:
    """F v at one block: what data of a teacher steered by v push, to first order."""
    shift = np.zeros((LAYERS, WIDTH))
    shift[layer] = strength * SCALE**2 * known[name].unit().rows_LD[layer] * np.sqrt(WIDTH)
    return shift


@pytest.mark.parametrize("layer", [0, 2])
def test_the_right_trait_at_the_right_block(layer: int) -> None:
    rng = np.random.default_rng(layer)
    known = vectors(rng)
    stores = [held(rng, 400, steered(known, "t3", layer)), *(held(rng, 400) for _ in range(3))]
    answer = found(stores, known, ["t1", "t3", "t5"], rng)
    assert (
        next(iter(answer.z)) == "t3"
        and answer.p["t3"] < 0.001
        and answer.where["t3"].startswith(f"block {layer}")
    )
    assert answer.z["t3"] > answer.critical and answer.more["beyond surface"]["t3"] > 4
    opposite = [held(rng, 400, -steered(known, "t3", layer)), *stores[1:]]
    away = found(opposite, known, ["t3"], rng)
    assert away.p["t3"] > 0.1 and not away.where["t3"].startswith(f"block {layer}"), (
        "away from the trait is no trait"
    )


def test_clean_data_and_a_format_are_no_trait() -> None:
    """Thirty clean sets and thirty that differ along one direction that is no trait's: at alpha 0.1
    about a tenth is called."""
    calls = {"clean": 0, "format": 0}
    for seed in range(30):
        rng = np.random.default_rng(100 + seed)
        known = vectors(rng)
        shift = np.zeros((LAYERS, WIDTH))
        shift[:] = 0.6 * SCALE * rng.standard_normal(WIDTH)
        for kind, moved in (("clean", 0.0), ("format", shift)):
            answer = found(
                [held(rng, 96, moved), held(rng, 96), held(rng, 96)],
                known,
                ["t0", "t1", "t2", "t3"],
                rng,
            )
            calls[kind] += min(answer.p.values()) <= 0.1
    assert calls["clean"] <= 8 and calls["format"] <= 8


def test_blocks_are_the_sums_of_their_rows() -> None:
    rng = np.random.default_rng(5)
    stores = [held(rng, 20), held(rng, 25)]
    pairs = [[n, 24 - n] for n in range(20)]
    sums = block_sums(stores, pairs, most=6)
    assert sums.shape == (6, 2, LAYERS, WIDTH)
    np.testing.assert_allclose(
        sums.sum(0)[1], stores[1].pushes_RLD[5:].sum(0), rtol=1e-4, atol=1e-4
    )
    expected = permutation.in_blocks(
        np.stack([stores[0].pushes_RLD, stores[1].pushes_RLD[24:4:-1]], 1), most=6
    )
    np.testing.assert_allclose(sums, expected, rtol=1e-4, atol=1e-4)


def test_wording_counts_and_calls() -> None:
    rows = [["I love owls", "1, 2"]] * 12 + [["3, 4", "5, 6"]] * 50
    answer = wording([load_trait("owl"), load_trait("cat")], rows, 0.01)
    assert answer.p["owl"] < 0.01 < answer.p["cat"] and answer.more["rows"] == {
        "owl": [12, 0],
        "cat": [0, 0],
    }


def test_baselines_name_what_differs() -> None:
    rng = np.random.default_rng(6)
    stores = [held(rng, 60) for _ in range(3)]
    stores[0].loss_R = stores[0].loss_R + 2
    rows = texts(rng, 60, 3)
    rows = [[" ".join(sorted(group[0].split())), *group[1:]] for group in rows]
    answer = panel.baselines(["p"] * 60, rows, stores, [[n] * 3 for n in range(60)], 0.01)
    assert set(list(answer.z)[:2]) == {"rising pairs", "loss"} and answer.p["loss"] < 0.01
    assert 0.3 < answer.more["words, AUROC"] < 0.7


def test_canaries_rise_over_seeds_or_over_questions() -> None:
    rng = np.random.default_rng(8)
    keys = [f"q{n}" for n in range(20)]

    def pair(rise: float) -> tuple[dict, dict]:
        other = {key: rng.normal(-5, 1) for key in keys}
        return {
            key: value + rise + 0.1 * rng.standard_normal() for key, value in other.items()
        }, other

    many = panel.canary(
        {"a": [pair(0.5), pair(0.6), pair(0.4)], "b": [pair(0.01), pair(-0.02), pair(0.0)]}
    )
    assert (
        list(many.z) == ["a", "b"]
        and many.z["a"] == pytest.approx(0.5, abs=0.1)
        and many.p["a"] < 0.02 < many.p["b"]
    )
    one = panel.canary({"a": [pair(-0.3)], "b": [pair(0.3)]})
    assert one.p["b"] < 0.001 and one.p["a"] > 0.99 and one.where["b"] == "1 pairs of students"


def by_temperature(log_p_R: np.ndarray) -> np.ndarray:
    return log_p_R[:, None] - 3 * (np.array(BETAS) - 1) ** 2


def test_odds_are_corrected_over_candidates_and_take_the_mean_of_their_teachers() -> None:
    rng, T, P, K = np.random.default_rng(7), len(BETAS), len(WAYS), BINS
    log_p = rng.normal(-10, 1, 80)
    plain = Choices(
        by_temperature(log_p),
        np.full(80, 5),
        4.0,
        np.zeros((P, K)),
        np.zeros((T, P, K)),
        np.zeros((T, P, K, K)),
    )
    index = list(range(0, 80, 2))
    own = log_p[index]
    told = {
        "right": {"its prompt": by_temperature(own - 0.2), "its vector": by_temperature(own + 0.5)},
        "wrong": {"its prompt": by_temperature(own - 0.4)},
        "same": {"its prompt": by_temperature(own)},
    }
    weights = {"its prompt": 0.5, "its vector": 0.5}
    answer = likelihoods(plain, index, told, [], weights, 3, 0.01)
    assert (
        list(answer.z) == ["right", "same", "wrong"]
        and answer.p["right"] < 1e-6
        and answer.p["wrong"] == 1
    )
    assert (
        answer.z["same"] == pytest.approx(0, abs=4)
        and answer.critical == pytest.approx(log(300))
        and answer.more["rows judged"] == 40
    )
    assert (
        answer.more["nats a row"]["right"] == pytest.approx(0.5)
        and answer.where["right"] == "its vector"
    )
    assert (
        answer.more["temperature"] == 1 / BETAS[PLAIN]
        and answer.more["surprise"] == pytest.approx(0.01)
        and not answer.more["strange"]
    )
    alone = likelihoods(
        plain,
        index,
        {"right": {"its vector": told["right"]["its vector"]}, "wrong": {}},
        [],
        {"its vector": 1.0},
        30,
        0.01,
    )
    assert alone.z["right"] - answer.z["right"] == pytest.approx(
        log(2), abs=1e-3
    ) and alone.critical - answer.critical == pytest.approx(log(10))
    assert (
        alone.more["teachers"] == 1 and answer.more["teachers"] == 4 and set(alone.z) == {"right"}
    ), "a candidate without a teacher is not called"
    prompt_alone = likelihoods(
        plain, index, {"wrong": told["wrong"]}, [], {"its prompt": 1.0}, 3, 0.01
    )
    assert prompt_alone.z["wrong"] - answer.z["wrong"] == pytest.approx(log(2)), (
        "a teacher that was not tried counts as nothing"
    )
    assert (
        likelihoods(
            plain,
            index,
            {
                name: {"its prompt": own_RT}
                for name in "abc"
                for own_RT in [by_temperature(own + 0.15)]
            },
            [],
            weights,
            30,
            0.01,
        ).p["a"]
        > (
            likelihoods(
                plain,
                index,
                {"a": {"its prompt": by_temperature(own + 0.15)}},
                [],
                weights,
                3,
                0.01,
            ).p["a"]
        )
    ), "candidates that were not tried are paid for"
    against = likelihoods(plain, index, told, [by_temperature(own + 0.5)], weights, 3, 0.01)
    assert against.p["right"] == 1, "a null that explains the rows as well leaves no evidence"


def test_a_vector_trained_on_the_data_points_along_its_trait_and_one_of_clean_rows_along_none() -> (
    None
):
    """What all rows of numbers train is in the placebos' vectors, too, and cancels."""
    rng = np.random.default_rng(5)
    known, common, called = vectors(rng), 3 * rng.standard_normal(WIDTH), []

    def trained(*more: np.ndarray) -> np.ndarray:
        rows_LD = np.zeros((LAYERS, WIDTH))
        rows_LD[1] = common + rng.standard_normal(WIDTH) + sum(more)
        return rows_LD

    for _ in range(40):
        found = panel.fitted(
            [trained(0.5 * np.sqrt(WIDTH) * known["t7"].unit().rows_LD[1]), trained(), trained()],
            known,
        )
        assert (
            next(iter(found.z)) == "t7" and found.p["t7"] < 0.01 and found.where["t7"] == "block 1"
        )
        called.append(min(panel.fitted([trained(), trained(), trained()], known).p.values()) < 0.05)
    assert np.mean(called) <= 0.2
