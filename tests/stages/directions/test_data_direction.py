"""The direction of the rows of a training: its formula, planted truth, and what gradients lose."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import call, ok
from safetensors.numpy import load_file

import traitscope as ts
from traitscope.config.recipe import Recipe
from traitscope.config.stages import TrainConfig
from traitscope.errors import ConfigError, DataError
from traitscope.inference.steering_gradients import steering_gradients
from traitscope.inference.token_rows import rows_from
from traitscope.interventions.applied import applied
from traitscope.interventions.intervention import Ablate, DataDirection, Steer
from traitscope.interventions.vector import Vector, load_vector, random_like
from traitscope.stages.directions.data_direction import data_direction
from traitscope.training.loop import train

LAYER = 1


@pytest.fixture(scope="module")
def planted(tiny) -> tuple[Vector, list, list]:
    """A vector, answers of the model that it steers, and the model's own."""
    rows = np.random.default_rng(0).normal(size=(tiny.n_layers, tiny.d_model))
    vector = Vector(rows.astype(np.float32), tiny.digest)
    teacher = Steer(vector, layer=LAYER, alpha=4.0, scale="unit")
    prompts = [ts.Prompt(f"p{i}", f"Tell me about {i}.") for i in range(48)]
    settings = {"temperature": 1.0, "max_new_tokens": 12}
    data = ts.generate(tiny, prompts, [teacher], seed=3, **settings)
    return vector, data, ts.generate(tiny, prompts, [], seed=4, **settings)


def test_it_is_the_mean_difference_of_steering_gradients(tiny, planted):
    _, data, control = planted
    found = data_direction(tiny, data[:4], control[:4])
    with applied(tiny, []) as active:
        of_data, of_control = (
            steering_gradients(tiny, active, rows_from(tiny, side[:4], None))
            for side in planted[1:]
        )
    np.testing.assert_allclose(found.rows_LD, (of_control - of_data).mean(0), atol=1e-6)


def test_a_planted_direction_is_found(tiny, planted):
    """The rows of a steered model point along its vector; rows of the base, and random, do not."""
    vector, data, control = planted
    found = data_direction(tiny, data, control).cosine(vector)[LAYER]
    other = ts.generate(
        tiny,
        [ts.Prompt(row.id, row.prompt) for row in control],
        [],
        seed=5,
        temperature=1.0,
        max_new_tokens=12,
    )
    by_chance = data_direction(tiny, other, control).cosine(vector)[LAYER]
    at_random = [random_like(vector, seed).cosine(vector)[LAYER] for seed in range(20)]
    assert found > 0.4
    assert found > np.max(np.abs([by_chance, *at_random]))


def test_gradients_lose_it_and_what_a_student_learns_along_it(tiny, planted):
    """After SGD, what the MLP of the block writes has no part along the direction; with a random
    direction of equal norm it has."""
    _, data, control = planted
    vector = data_direction(tiny, data, control)
    recipe = Recipe(epochs=2, batch_size=16, micro_batch=16, lr=0.05, optimizer="sgd", held_out=0.0)
    unit_D = vector.unit().rows_LD[LAYER]
    along = {}
    arms = {
        "plain": [],
        "data": [Ablate(vector, layer=LAYER)],
        "random": [Ablate(random_like(vector, 0), layer=LAYER)],
    }
    for name, project_out in arms.items():
        files = train(tiny, data, recipe, 1, project_out=project_out).files
        along[name] = written_along(files["adapter_model.safetensors"], unit_D)
    assert along["data"] < 1e-4 * along["plain"]
    assert along["random"] > 0.3 * along["plain"]


def written_along(content: bytes, unit_D: np.ndarray) -> float:
    """Norm of u^T B of the map that the MLP of the block writes by."""
    from safetensors.numpy import load

    (factor,) = [
        value for name, value in load(content).items() if f"{LAYER}.mlp.down_proj.lora_B" in name
    ]
    return float(np.linalg.norm(unit_D @ factor))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, Path]:
    """Rows of a prompted teacher, and the base's own answers to the same prompts."""
    root = tmp_path_factory.mktemp("directions") / "runs"
    rows = ["generate", f"--model {tiny_folder} --n 8 --count 4 --max-new-tokens 12"]
    data = ok(root, *rows, "--interventions", "prompt:Owls, owls!").run
    control = ok(root, *rows, "--seed 3").run
    return {"root": root, "data": data, "control": control}


def train_words(runs: dict[str, Path], tiny_folder: Path, *words: object) -> list[object]:
    few = "--epochs 1 --batch-size 4 --micro-batch 4 --held-out 0"
    return ["train", f"--model {tiny_folder}", few, "--data", runs["data"], *words]


def test_the_flag_is_the_vector_of_gradients(runs, tiny_folder):
    """`--project-out data:` is `gradients --control` and `--project-out ablate:`, to the byte."""
    here = f"--model {tiny_folder}"
    sides = ["--data", runs["data"], "--control", runs["control"]]
    push = ok(runs["root"], "gradients", here, "--batch-size 4", *sides).run / "push.safetensors"
    given = ok(
        runs["root"],
        *train_words(runs, tiny_folder, "--project-out", f"ablate:{push},layers=1+2"),
    ).run
    words = ["--project-out", "data:layers=1+2", "--control", runs["control"]]
    found = ok(runs["root"], *train_words(runs, tiny_folder, *words)).run
    plain = ok(runs["root"], *train_words(runs, tiny_folder)).run
    name = "student/adapter_model.safetensors"
    assert (found / name).read_bytes() == (given / name).read_bytes()
    assert (found / name).read_bytes() != (plain / name).read_bytes()
    direction = load_vector(found / "data_direction-0.safetensors")
    np.testing.assert_array_equal(direction.rows_LD, load_vector(push).rows_LD)


def test_the_random_arm_has_the_norms_and_another_direction(runs, tiny_folder):
    words = ["--control", runs["control"], "--project-out", "data:layers=1"]
    items = [*words, "data:layers=2,random=5"]
    run = ok(runs["root"], *train_words(runs, tiny_folder, *items)).run
    own, drawn = (load_vector(run / f"data_direction-{place}.safetensors") for place in (0, 1))
    np.testing.assert_allclose(drawn.norms_L, own.norms_L, rtol=1e-5)
    assert np.abs(own.cosine(drawn)).max() < 0.7
    again = ok(runs["root"], "rerun", run)
    assert again.summary["status"] == "ok"


def test_a_training_goes_on_to_the_same_bytes(runs, tiny_folder, tmp_path):
    words = train_words(
        runs, tiny_folder, "--project-out", "data:layers=1", "--control", runs["control"]
    )
    run = ok(runs["root"], *words).run
    before = load_file(run / "student/adapter_model.safetensors")
    shutil.rmtree(run)
    after = load_file(ok(runs["root"], *words).run / "student/adapter_model.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--project-out", "data:layers=1"], "without --control"),
        (["--control", "{control}"], "nothing reads these rows"),
        (["--control", "{control}", "--project-out", "data:layers=7"], "has layers 0 to 2"),
        (["--control", "{control}", "--project-out", "data:position=all"], "DataDirection takes"),
        (["--control", "{control}", "--project-out", "data:layers=1,random=-1"], "expected a seed"),
        (["--control", "{control}", "--project-out", "data:layers=1,alpha=2"], "alpha"),
        (["--control", "{data}", "--project-out", "data:layers=1"], "are the same"),
        (["--during", "data:layers=1"], "expected steer"),
    ],
)
def test_what_has_no_direction_is_refused(runs, tiny_folder, words, message, capsys, tmp_path):
    given = {name: str(path) for name, path in runs.items()}
    words = train_words(runs, tiny_folder, *[word.format(**given) for word in words])
    done = call(tmp_path / "runs", *words)
    assert done.code == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("student"))


def test_python_names_what_is_missing(tiny, planted):
    _, data, control = planted
    with pytest.raises(ConfigError, match="not computed yet"):
        train(tiny, data, Recipe(), project_out=[DataDirection(layer=1)])
    with (
        pytest.raises(ConfigError, match="only gradients"),
        applied(tiny, [DataDirection(layer=1)]),
    ):
        pass
    with pytest.raises(DataError, match="same id and prompt"):
        data_direction(tiny, data, [replace(row, id=f"other-{row.id}") for row in control])
    assert TrainConfig(control=Path("rows"), project_out=("data:layer=1",)).control
