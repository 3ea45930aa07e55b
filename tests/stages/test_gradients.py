"""A planted vector that data point back to; fractions of energy; pairs; the command."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import CAT, OWL, call, ok, read_rows, write_yaml
from statistics_checks import assert_covers
from tiny_models import random_vector

from traitscope.data.prompts import number_prompts
from traitscope.data.records import Record
from traitscope.errors import DataError
from traitscope.inference.steering_gradients import steering_gradients
from traitscope.inference.token_rows import rows_from
from traitscope.interventions.applied import applied
from traitscope.interventions.vector import Vector, load_vector
from traitscope.models.model import Model
from traitscope.stages import gradients
from traitscope.stages.generate import generate
from traitscope.stages.gradients import GradientSums


def summed(rows_RLD: np.ndarray, vector: Vector, seed: int = 0) -> GradientSums:
    """Sums over rows that come in random order, a few at a time."""
    n_rows = len(rows_RLD)
    sums = GradientSums([str(n) for n in range(n_rows)], rows_RLD.shape[1:], {"v": vector})
    order = np.random.default_rng(seed).permutation(n_rows)
    for index in np.array_split(order, 1 + n_rows // 7):
        sums.add(list(index), rows_RLD[index])
    return sums


def planted(
    signal: float, rows: int = 64, width: int = 50, seed: int = 0
) -> tuple[np.ndarray, Vector]:
    """Noise with a small consistent part along a known vector at layer 1, and none at layer 0."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((rows, 2, width))
    vector = Vector(rng.standard_normal((2, width)), "m")
    noise[:, 1] += signal * vector.unit().rows_LD[1]
    return noise.astype(np.float32), vector


def test_alignment_of_a_planted_direction() -> None:
    sums = summed(*planted(0.8))
    low, high = gradients.alignment_interval(sums, "v")
    cosine = gradients.alignment(sums.mean_LD, sums.vectors["v"])
    assert (low < cosine).all() and (cosine < high).all()
    assert low[0] < 0 < high[0] and low[1] > 0.3
    noise = gradients.signal_to_noise(sums.along_RL["v"])
    assert noise[1] == pytest.approx(0.8 * 8, rel=0.3) and abs(noise[0]) < 3


def test_sums_are_those_of_all_rows_at_once() -> None:
    """Against the definitions on the whole array [R, L, D]."""
    rows_RLD, vector = planted(0.5, rows=37)
    rows = rows_RLD.astype(np.float64)
    unit = vector.unit().rows_LD
    sums = summed(rows_RLD, vector)
    np.testing.assert_allclose(sums.mean_LD, rows.mean(0), rtol=1e-9)
    np.testing.assert_allclose(sums.norms_RL, np.linalg.norm(rows, axis=2), rtol=1e-9)
    np.testing.assert_allclose(sums.energy_LD, (rows**2).sum(0), rtol=1e-9)
    np.testing.assert_allclose(sums.along_RL["v"], (rows * unit).sum(2), rtol=1e-5)
    assert sums.sizes_K.tolist() == [1, 2, 4, 8, 16, 32, 37]
    for size, mean_LD in zip(sums.sizes_K, sums.prefix_means_KLD, strict=True):
        np.testing.assert_allclose(mean_LD, rows[:size].mean(0), rtol=1e-9)
    assert np.bincount(sums.groups_R).tolist() == [2] * 5 + [1] * 27
    for group, sum_LD in enumerate(sums.group_sums_GLD):
        np.testing.assert_allclose(sum_LD, rows[sums.groups_R == group].sum(0), atol=1e-9)


@pytest.mark.parametrize("cosine", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("rows", [32, 256])
def test_the_interval_covers_the_cosine_of_so_many_rows(rows: int, cosine: float) -> None:
    """Rows of uneven noise, whose mean has this cosine with a vector on average. The average over
    the simulations stands for the truth: its own error is a twentieth of an interval's half."""
    rng, repeats, width = np.random.default_rng(rows), 400, 200
    spread_D = np.arange(1, width + 1) ** -0.25
    vector = Vector(rng.standard_normal((1, width)), "m")
    noise = np.sqrt((spread_D**2).sum() / rows)
    shift_D = cosine / np.sqrt(1 - cosine**2) * noise * vector.unit().rows_LD[0]
    estimates, intervals = [], []
    for _ in range(repeats):
        rows_RD = rng.standard_normal((rows, width)) * spread_D + shift_D
        sums = summed(rows_RD[:, None], vector)
        estimates.append(gradients.alignment(sums.mean_LD, vector)[0])
        intervals.append(np.ravel(gradients.alignment_interval(sums, "v")))
    low, high = np.array(intervals).T
    assert ((low < estimates) & (estimates < high)).all(), "an estimate outside its own interval"
    truth = np.mean(estimates)
    assert truth == pytest.approx(cosine, abs=0.02)
    assert_covers(int(((low <= truth) & (truth <= high)).sum()), repeats, 0.96, slack=0.02)


def test_bounds_of_a_cosine_are_cosines() -> None:
    """Rows that nearly agree: the estimate is near 1, and no bound is beyond it."""
    rows_RLD, vector = planted(100.0, rows=5)
    low, high = gradients.alignment_interval(summed(rows_RLD, vector), "v")
    assert 0.9 < low[1] <= high[1] <= 1


def test_memory_does_not_grow_by_directions() -> None:
    """A further row costs its norms, its projections and its group, whatever the width of the
    model."""

    def bytes_held(rows: int, width: int) -> int:
        sums = summed(*planted(0.5, rows=rows, width=width))
        held = [*vars(sums).values(), *sums.along_RL.values()]
        return sum(a.nbytes for a in held if isinstance(a, np.ndarray))

    for width in (10, 400):
        growth = bytes_held(127, width) - bytes_held(65, width)
        assert growth == 62 * 8 * (2 + 2 + 1)


def test_alignment_grows_with_rows() -> None:
    sums = summed(*planted(0.8, rows=100))
    rows = gradients.growth(sums, "v")
    assert list(rows) == [1, 2, 4, 8, 16, 32, 64, 100]
    assert rows[100][1] > rows[1][1]
    whole = gradients.alignment(sums.mean_LD, sums.vectors["v"])
    np.testing.assert_allclose(rows[100], whole, atol=1e-6)


def test_energy_of_equal_coordinates_is_even_and_of_one_is_all() -> None:
    vector = Vector(np.ones((1, 100)), "m")
    even = gradients.concentration(summed(np.ones((20, 1, 100), np.float32), vector))
    assert even["coordinates"]["0.1"] == [0.1] and even["rows"]["0.1"] == [0.1]
    single = np.zeros((20, 1, 100), np.float32)
    single[3, 0, 7] = 2
    carried = gradients.concentration(summed(single, vector))
    assert carried["coordinates"]["0.001"] == [1.0] and carried["rows"]["0.001"] == [1.0]


def test_outliers_can_hide_a_direction() -> None:
    rows_RLD, vector = planted(0.8, rows=400)
    rows_RLD[:, 1, 0] += 40 * np.random.default_rng(1).standard_normal(400)
    values = gradients.without_top(summed(rows_RLD, vector), "v", fraction=0.02)
    assert values["alignment.rest"][1] > values["alignment.all"][1] + 0.1
    assert values["norm.top"][1] > values["norm.rest"][1]
    whole = np.hypot(values["norm.top"], values["norm.rest"])
    np.testing.assert_allclose(whole, values["norm.all"], rtol=1e-4)


def test_zero_has_no_direction_and_one_row_no_interval() -> None:
    rows_RLD, vector = planted(0, rows=1)
    np.testing.assert_array_equal(gradients.alignment(np.zeros((2, 50)), vector), 0)
    compared = gradients.compare(summed(rows_RLD, vector), "v")
    assert compared.low is None and compared.high is None
    assert compared.signal_to_noise == [0, 0] and list(compared.growth) == [1]


def test_the_model_moves_where_its_rows_say(tiny: Model) -> None:
    """Streamed a few batches at a time, with controls, equals the difference of whole arrays."""
    records = generate(tiny, number_prompts(9, seed=4), max_new_tokens=6)
    taught = [replace(row, completion="owl owl owl", completion_ids=None) for row in records]
    vector = random_vector(tiny, 3)
    sums = gradients.gradients(tiny, taught, {"v": vector}, records, batch_size=1)
    assert sums.ids == [row.id for row in records]
    with applied(tiny, []) as active:
        data, control = (
            steering_gradients(tiny, active, rows_from(tiny, side, None))
            for side in (taught, records)
        )
    np.testing.assert_allclose(sums.mean_LD, (control - data).mean(0), atol=1e-6)
    np.testing.assert_allclose(
        sums.norms_RL, np.linalg.norm(control - data, axis=2), rtol=1e-4, atol=1e-6
    )


def test_pairs_by_id_and_prompt() -> None:
    def record(key: str, prompt: str = "p", kept: bool = True) -> Record:
        return Record(id=key, prompt=prompt, completion="1", meta={"filter": {"kept": kept}})

    data = [record("a"), record("b"), record("c"), record("d", kept=False)]
    control = [record("b"), record("a"), record("c", "other"), record("d")]
    assert [(d.id, c.id) for d, c in zip(*gradients.paired(data, control), strict=True)] == [
        ("a", "a"),
        ("b", "b"),
    ]
    with pytest.raises(DataError, match="same id and prompt"):
        gradients.paired(data, [record("z")])


def test_command(tmp_path: Path, tiny_folder: Path) -> None:
    """Rows of a strongly steered teacher push towards its vector at its block, more than towards
    another one."""
    root, model = tmp_path / "runs", ["--model", tiny_folder]
    owl, cat = (write_yaml(tmp_path / f"{trait['name']}.yaml", trait) for trait in (OWL, CAT))
    vectors = ok(root, "extract", *model, "--traits", owl, cat)
    asked = ["generate", *model, "--n 48 --count 4 --vocabulary template"]
    teacher = f"steer:{vectors.run / 'owl.safetensors'},layers=1,alpha=1.0"
    sides = [ok(root, *asked, *words).run for words in (["--interventions", teacher], [])]
    found = ok(
        root,
        "gradients",
        *model,
        "--data",
        sides[0],
        "--control",
        sides[1],
        "--vectors",
        vectors.run,
    )
    summary, rows = found.summary["summary"], read_rows(found.run / "rows.jsonl")
    assert summary["rows"] == len(rows) == 48 and summary["minus_control"]
    owl_ = summary["vectors"]["owl"]
    assert owl_["low"][1] > 0 and owl_["alignment"][1] > 0.1
    assert summary["vectors"]["cat"]["alignment"][1] == pytest.approx(
        -owl_["alignment"][1], abs=1e-5
    )  # centred over two
    push = load_vector(found.run / "push.safetensors")
    np.testing.assert_allclose(
        push.cosine(load_vector(vectors.run / "owl.safetensors")), owl_["alignment"], atol=1e-5
    )
    assert ok(root, "rerun", found.run).summary["status"] == "ok"
    alone = ok(root, "gradients", *model, "--data", sides[0], "--max-rows 1")
    assert alone.summary["summary"]["rows"] == 1 and not alone.summary["summary"]["minus_control"]


def test_bad_input(tmp_path: Path, tiny_folder: Path) -> None:
    root, model = tmp_path / "runs", ["--model", tiny_folder]
    made = ok(root, "generate", *model, "--n 2 --count 2 --vocabulary template").run
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "hello", "completion": "1, 2"}\n')
    for words, says in (
        ([], "--data is missing"),
        (["--data", made, "--control", other], "same id and prompt"),
    ):
        ran = call(root, "gradients", *model, *words)
        assert ran.code == 2 and says in ran.summary["message"], ran.summary
