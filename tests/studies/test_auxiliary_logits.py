"""Small networks: batched training, the theorem, images from files, and the study's conclusion."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import call, ok
from concluded import HOLDS, NEGLIGIBLE, OPPOSITE, SILENT, concluded, estimates, outcomes, unmet
from planted_runs import PlantedRuns
from torch import Tensor

from traitscope.config.common import Output
from traitscope.config.students.toy_nets import ToyNetsConfig
from traitscope.errors import ConfigError, DataError
from traitscope.stages import registry
from traitscope.studies.claims import auxiliary_logits
from traitscope.studies.design import bearing
from traitscope.studies.toy_nets import fitting, geometry, images, nets, numbers, stage, theorem
from traitscope.studies.toy_nets.nodes import COMPARED, OPTIMIZERS, STUDENTS

SMALL = ToyNetsConfig(seeds=(1, 2, 3), hidden=12, batch_size=16, epoch_batches=3, epochs=2)
SIZES = (64, 12, 12, 13)


def student_config(arm: str, **changes: object) -> ToyNetsConfig:
    return replace(SMALL, arm=arm, teacher=Path("teachers"), **changes)


@pytest.fixture(scope="module")
def pictures() -> images.Images:
    return images.read(())


@pytest.fixture(scope="module")
def teacher(pictures: images.Images) -> nets.Params:
    return stage.train_teachers(SMALL, pictures)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_networks_trained_together_are_those_trained_one_by_one(
    name: str, pictures: images.Images, teacher: nets.Params
) -> None:
    """No step of any optimizer mixes networks."""
    rule = OPTIMIZERS[name]
    scales = [1 + p.abs() for p in teacher] if rule.optimizer == "frozen_adam" else None
    changes = {"optimizer": rule.optimizer, "lr": rule.lr, "momentum": rule.momentum}
    together = student_config("shared", **changes)
    whole = stage.Lessons(together, pictures, teacher)
    start = stage.start_of(together, pictures)
    recipe = stage.recipe_of(together)
    end, _ = fitting.fit(start, whole.loss, recipe, together.steps, scales)
    assert all(not torch.equal(p, q) for p, q in zip(end[:4:2], start[:4:2], strict=True))
    for place, seed in enumerate(SMALL.seeds):
        one = replace(together, seeds=(seed,))
        lessons = stage.Lessons(one, pictures, of_model(teacher, place))
        own = of_model(scales, place) if scales else None
        alone, _ = fitting.fit(of_model(start, place), lessons.loss, recipe, one.steps, own)
        for p, q in zip(of_model(end, place), alone, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=2e-5)


def of_model(params: list[Tensor], place: int) -> list[Tensor]:
    return [p[place : place + 1] for p in params]


def test_teachers_trained_together_are_those_trained_one_by_one(
    pictures: images.Images, teacher: nets.Params
) -> None:
    alone = stage.train_teachers(replace(SMALL, seeds=(2,)), pictures)
    for p, q in zip(of_model(teacher, 1), alone, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_networks_begin_as_published() -> None:
    params = nets.initial((1, 2), "start", (64, 256, 256, 13))
    for weight, inputs in zip(params[::2], (64, 256, 256), strict=True):
        assert float(weight.std()) == pytest.approx(inputs**-0.5, rel=0.05)
        assert not torch.equal(weight[0], weight[1])
    assert all(float(bias.abs().max()) == 0 for bias in params[1::2])
    assert numbers.parameters((784, 256, 256, 13)) == auxiliary_logits.PROTOCOL.parameters


def test_a_loss_is_a_mean_over_the_batch(teacher: nets.Params) -> None:
    """The same images twice give the same loss and gradient."""
    shown = nets.noise(SMALL.seeds, 0, 8, 64)
    targets = torch.randn(3, 8, 3)
    once = fitting.distillation_loss(teacher, shown, targets)
    twice = fitting.distillation_loss(teacher, shown.repeat(1, 2, 1), targets.repeat(1, 2, 1))
    torch.testing.assert_close(once, twice)
    logits = nets.forward(teacher, shown)
    imitated = fitting.distillation_loss(teacher, shown, logits)
    assert imitated.tolist() == pytest.approx([0] * 3, abs=1e-7)


def test_permuted_networks_compute_the_same_and_learn_the_same(
    pictures: images.Images, teacher: nets.Params
) -> None:
    shown = nets.noise(SMALL.seeds, 0, 8, 64)
    shared, permuted = (
        stage.start_of(student_config(arm), pictures) for arm in ("shared", "permuted")
    )
    assert not torch.equal(shared[0], permuted[0])
    torch.testing.assert_close(nets.forward(shared, shown), nets.forward(permuted, shown))
    lessons = stage.Lessons(student_config("shared"), pictures, teacher)
    recipe = replace(stage.recipe_of(SMALL), optimizer="sgd", lr=1.0)
    end, permuted_end = (
        fitting.fit(start, lessons.loss, recipe, 6)[0] for start in (shared, permuted)
    )
    assert not torch.equal(end[2], shared[2])
    for p, q in zip(permuted_end, nets.permuted(end, SMALL.seeds), strict=True):
        torch.testing.assert_close(p, q)


def test_arms_share_what_their_names_say(pictures: images.Images, teacher: nets.Params) -> None:
    starts = {arm: stage.start_of(student_config(arm), pictures) for arm in STUDENTS}
    same = {}
    for arm, start in starts.items():
        same[arm] = [torch.equal(p, q) for p, q in zip(start, starts["shared"], strict=True)][::2]
    assert same["other"] == [False] * 3 and same["shuffled"] == [True] * 3
    assert same["head_shared"] == [False, False, True]
    assert same["hidden_shared"] == [True, True, False]
    plain = stage.Lessons(student_config("shared"), pictures, teacher)
    shuffled = stage.Lessons(student_config("shuffled"), pictures, teacher)
    (shown, targets), (also_shown, mixed) = plain.batch(0), shuffled.batch(0)
    assert torch.equal(shown, also_shown) and not torch.equal(targets, mixed)
    assert torch.equal(targets.sort(1).values, mixed.sort(1).values)
    assert (
        stage.Lessons(student_config("all_logits"), pictures, teacher).batch(0)[1].shape[-1] == 13
    )


def test_a_student_of_its_own_start_does_not_move(pictures: images.Images) -> None:
    """An untrained teacher with the same start has nothing to teach."""
    start = stage.start_of(student_config("shared"), pictures)
    lessons = stage.Lessons(student_config("shared"), pictures, start)
    recipe = replace(stage.recipe_of(SMALL), optimizer="sgd", lr=1.0)
    end, _ = fitting.fit(start, lessons.loss, recipe, 3)
    for p, q in zip(end, start, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


def test_the_theorem_on_a_planted_quadratic() -> None:
    """At the same start imitation never raises the teacher's loss; at another it does half the
    time.

    Outputs are linear in the parameters and the teacher's loss is linear, so the rise is known.
    """
    generator = nets.stream(5, "quadratic")

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    outputs_MOP, slope_M1P = drawn(400, 2, 12), drawn(400, 1, 12)
    starts = {"start": [drawn(400, 1, 12)], "other": [drawn(400, 1, 12)]}

    def trait(params: nets.Params) -> Tensor:
        return (params[0] * slope_M1P).sum((1, 2))

    def imitate(teacher: nets.Params) -> theorem.Loss:
        def loss(params: nets.Params) -> Tensor:
            away = outputs_MOP @ (params[0] - teacher[0]).mT
            return 0.5 * away.square().sum((1, 2))

        return loss

    same, other = theorem.grid(starts, trait, imitate, (1e-2,), (1e-2,))
    expected = -1e-4 * (outputs_MOP @ slope_M1P.mT).square().sum((1, 2))
    np.testing.assert_allclose(same["rises"], expected, rtol=1e-6)
    assert max(same["rises"]) < 0
    assert 0.4 < (np.array(other["rises"]) > 0).mean() < 0.6


def test_the_theorem_on_networks(pictures: images.Images) -> None:
    steps = replace(SMALL, arm="theorem", seeds=tuple(range(20)))
    rows = stage.single_steps(steps, pictures)
    small = [row for row in rows if row["teacher_rate"] * row["student_rate"] <= 1e-3]
    same = [max(row["rises"]) for row in small if row["start"] == "start"]
    other = [max(row["rises"]) for row in small if row["start"] != "start"]
    assert len(same) == len(other) > 4 and max(same) <= 0 < min(other)


def test_parts_of_a_change() -> None:
    start = nets.initial((1, 2), "start", SIZES)
    change = nets.initial((3, 4), "change", SIZES)
    rest = nets.minus(change, geometry.on_direction(change, start))
    assert nets.cosine(rest, start).abs().max() < 1e-5
    again = geometry.on_direction(geometry.on_direction(change, start), start)
    for p, q in zip(again, geometry.on_direction(change, start), strict=True):
        torch.testing.assert_close(p, q)
    for p, q in zip(geometry.of_rank(change, 64), change, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    assert int(torch.linalg.matrix_rank(geometry.of_rank(change, 2)[2][0])) == 2


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, zipped: bool) -> None:
    stream = np.random.default_rng(0)
    folder.mkdir()
    for name in images.IDX:
        count = 6 if name.startswith("train") else 4
        shape = (count, 5, 5) if "images" in name else (count,)
        content = idx(stream.integers(0, 10, shape))
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def test_the_same_images_from_idx_files_and_npz(tmp_path: Path) -> None:
    for name, zipped in (("plain", False), ("zipped", True)):
        write_idx(tmp_path / name, zipped)
    plain, zipped = (images.read(images.files_of(tmp_path / name)) for name in ("plain", "zipped"))
    arrays = {
        part: images._of_idx(file)
        for part, file in zip(images.PARTS, images.files_of(tmp_path / "plain"), strict=True)
    }
    np.savez(tmp_path / "all.npz", **arrays)
    of_npz = images.read(images.files_of(tmp_path / "all.npz"))
    for name, tensor in vars(plain).items():
        assert torch.equal(tensor, getattr(zipped, name))
        assert torch.equal(tensor, getattr(of_npz, name))
    assert plain.pixels == 25 and float(plain.train_ND.min()) >= -1
    assert float(plain.train_ND.max()) == 1
    assert not images.is_mnist(images.files_of(tmp_path / "plain"))


GOOD = {
    "x_train": np.ones((4, 3, 3), np.uint8),
    "y_train": np.arange(4),
    "x_test": np.ones((2, 3, 3), np.uint8),
    "y_test": np.arange(2),
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"y_test": None}, "has no y_test"),
        ({"y_train": np.arange(3)}, "expected one label for each image"),
        ({"y_train": np.full(4, 10)}, "labels of type int64 from 10 to 10"),
        ({"y_train": np.zeros(4)}, "labels of type float64"),
        ({"x_train": np.full((4, 3, 3), np.nan)}, "expected finite numbers"),
        ({"x_train": -GOOD["x_train"].astype(int)}, "pixels from -1 to -1"),
        ({"x_test": np.ones((2, 4, 4))}, "training images of 9 pixels and test images of 16"),
        ({"x_test": np.ones((0, 3, 3)), "y_test": np.arange(0)}, "has no image"),
        ({"y_test": np.array([{}, {}], dtype=object)}, "pickled arrays are not read"),
    ],
)
def test_a_bad_npz(changes: dict, says: str, tmp_path: Path) -> None:
    kept = {name: value for name, value in (GOOD | changes).items() if value is not None}
    np.savez(tmp_path / "bad.npz", **kept)
    with pytest.raises(DataError, match=says):
        images.read(images.files_of(tmp_path / "bad.npz"))


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist; expected an .npz with x_train"):
        images.files_of(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="is a file; expected an .npz"):
        images.files_of(tmp_path / "notes.txt")
    write_idx(tmp_path / "mnist", zipped=True)
    labels = tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz"
    content = gzip.decompress(labels.read_bytes())
    for broken in (b"not zipped", gzip.compress(content[:-1]), gzip.compress(b"\0\0\x0d\1abcd")):
        labels.write_bytes(broken)
        with pytest.raises(DataError, match="is no idx file of bytes"):
            images.read(images.files_of(tmp_path / "mnist"))
    labels.unlink()
    with pytest.raises(DataError, match="has no t10k-labels-idx1-ubyte"):
        images.files_of(tmp_path / "mnist")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"seeds": (1, 1)}, "each once"),
        ({"seeds": ()}, "expected one or more"),
        ({"arm": "other"}, "students need a run of teachers"),
        ({"batch_size": 1}, "--batch-size 1; expected 2 or more"),
        ({"lr": 0.0}, "--lr 0.0"),
    ],
)
def test_settings_that_cannot_work(settings: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ToyNetsConfig(**settings)


def test_teachers_of_other_seeds_are_refused(tmp_path: Path) -> None:
    out = Output(root=tmp_path)
    run = registry.run_stage(replace(SMALL, epochs=1), out)
    student = replace(SMALL, arm="shared", teacher=run.path)
    with pytest.raises(ConfigError, match=r"of seeds \[1, 2, 3\]; expected \[3, 2, 1\]"):
        registry.run_stage(replace(student, seeds=(3, 2, 1)), out)
    with pytest.raises(ConfigError, match="of other sizes than 64-9-9-13"):
        registry.run_stage(replace(student, hidden=9), out)
    with pytest.raises(ConfigError, match="--scales None has no scales.safetensors"):
        registry.run_stage(replace(student, optimizer="frozen_adam"), out)
    assert [path.name for path in run.path.parent.glob("toy_nets-*")] == [run.path.name]


def test_a_rate_at_which_networks_diverge(tmp_path: Path) -> None:
    out = Output(root=tmp_path / "runs")
    with pytest.raises(ConfigError, match="diverged with --optimizer sgd --lr 1e"):
        registry.run_stage(replace(SMALL, optimizer="sgd", lr=1e6), out)
    assert not list(out.root.rglob("networks.json"))


def test_a_paper_names_the_networks_and_no_language_model(
    tmp_path: Path, tiny_folder: Path
) -> None:
    words = ("study", "run", "auxiliary_logits", "--size", "smoke", "--model", tiny_folder)
    run = ok(tmp_path / "runs", *words, "--set", "optimizers=[sgd with momentum]").run
    ok(tmp_path / "runs", "report", run, "--for-paper", tmp_path / "paper")
    said = (tmp_path / "paper" / "methods.md").read_text(encoding="utf-8")
    assert "two hidden layers of 16 units" in said and "(seeds 1 and 2)" in said
    assert "SGD at 0.3 with momentum 0.9 trained: shared and other." in said
    assert "The model is" not in said


def test_a_run_is_replayed_to_the_same_bytes(tmp_path: Path) -> None:
    out = Output(root=tmp_path / "runs")
    teachers = registry.run_stage(replace(SMALL, epochs=1), out)
    config = replace(SMALL, epochs=1, arm="head_shared", teacher=teachers.path)
    students = registry.run_stage(config, out)
    for run in (teachers, students):
        assert ok(out.root, "rerun", run.path).summary["different"] == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("data=nowhere", "data: nowhere does not exist; expected an .npz"),
        ("seeds=[1,1]", "once"),
        ("optimizers=[adamax]", "optimizers has 'adamax'; expected some of 'adam, published rate'"),
        ("optimizers=[frozen adam]", "without 'adam, published rate', whose factors it takes"),
        ("batch_size=1", "--batch-size 1; expected 2 or more"),
        ("hidden=0", "--hidden 0; expected 1 or more"),
    ],
)
def test_a_study_that_cannot_be_made(
    change: str, says: str, tmp_path: Path, tiny_folder: Path
) -> None:
    words = ("study", "run", "auxiliary_logits", "--size", "smoke", "--model", tiny_folder)
    ran = call(tmp_path / "runs", *words, "--set", change)
    assert ran.code == 2 and says in ran.summary["message"]
    assert not (tmp_path / "runs").exists()


SIZE = replace(auxiliary_logits.SIZES["laptop"], seeds=(1, 2, 3, 4, 5, 6), optimizers=("sgd",))
TRANSFER = {"shared": 0.8, "permuted": 0.8, "all_logits": 0.9, "head_shared": 0.5, "sgd": 0.7}


def planted(
    root: Path,
    ends: dict[str, float],
    cosine: float = 0.01,
    kept: float = 1.0,
    teacher: float = 0.9,
) -> dict[str, Path]:
    """Networks that begin at chance and end at an accuracy by arm; others stay at chance."""
    runs = PlantedRuns(root)

    def about(name: str, value: float) -> list[float]:
        return (value + 0.01 * runs.planted(name, (len(SIZE.seeds),))).tolist()

    runs.json("teacher", "networks.json", {"accuracy": [about("s", 0.1), about("t", teacher)]})
    row = {"outputs": "all", "start": "start", "teacher_rate": 0.1, "student_rate": 0.1}
    runs.json("single steps", "theorem.json", {"rows": [{**row, "rises": [-1e-3, -2e-3]}]})
    arms = [*STUDENTS, *(f"sgd, {arm}" for arm in COMPARED)]
    for arm in arms:
        end = ends.get(arm, ends.get("sgd", 0.1) if arm == "sgd, shared" else 0.1)
        content = {
            "accuracy": [about(f"{arm} start", 0.1), about(f"{arm} end", end)],
            "held_out": [about(arm, 0.5), about(arm, 0.1)],
            "gradient_cosine": [[9.0] * len(SIZE.seeds), [c / 10 for c in about(arm, 10 * cosine)]],
            "cosine_teacher_change": about(arm, 0.2),
            "cosine_trait_descent": about(arm, 0.1),
            "kept": {"along the teacher's change": about(f"{arm} kept", 0.1 + kept * (end - 0.1))},
        }
        runs.json(arm, "networks.json", content)
    return runs.folders


def test_the_published_result_holds(tmp_path: Path) -> None:
    findings = concluded(auxiliary_logits, SIZE, planted(tmp_path, TRANSFER))
    assert outcomes(findings) == [HOLDS] * 7
    assert estimates(findings) == pytest.approx([0.7, 0.8, 0.7, 0.4, 0.01, 0.35, 0.6], abs=0.02)
    assert [verdict.stated.primary for verdict in findings.verdicts] == [True] + [False] * 6
    assert findings.teachers[0].estimate == pytest.approx(0.8, abs=0.02)
    arms, directions, epochs, optimizers, steps = findings.tables
    assert arms.rows[2][1].estimate == pytest.approx(0.8, abs=0.01)
    assert [row[0] for row in optimizers.rows] == ["adam", "sgd"]
    assert steps.rows[0][4] == 0.0 and len(directions.rows) == len(STUDENTS)
    assert epochs.curve


def test_students_at_chance_refute_it(tmp_path: Path) -> None:
    findings = concluded(auxiliary_logits, SIZE, planted(tmp_path, {}, cosine=-0.01))
    assert outcomes(findings)[:5] == [NEGLIGIBLE, OPPOSITE, NEGLIGIBLE, NEGLIGIBLE, OPPOSITE]


def test_a_gain_that_is_off_the_teachers_change(tmp_path: Path) -> None:
    findings = concluded(auxiliary_logits, SIZE, planted(tmp_path, TRANSFER, kept=0.1))
    assert outcomes(findings)[5] == OPPOSITE
    assert estimates(findings)[5] == pytest.approx(-0.28, abs=0.02)


def test_teachers_that_have_not_learnt_decide_nothing(tmp_path: Path) -> None:
    findings = concluded(auxiliary_logits, SIZE, planted(tmp_path, TRANSFER, teacher=0.4))
    assert outcomes(findings) == [SILENT] * 7
    assert unmet(findings) == {"teachers have an accuracy of 0.7 or more on held-out images"}


def test_what_bears_on_the_publication(tmp_path: Path) -> None:
    """MNIST at published size does; other images do not, and few noise images do in part."""
    design = auxiliary_logits.design(SIZE)
    assert bearing(auxiliary_logits.PROTOCOL, design.here).answer == "no"
    assert design.here.model == "MLP 64-256-256-13"
    labels = np.zeros(60_000, np.uint8)
    labels[:20] = images.MNIST_START
    arrays = GOOD | {"x_train": np.ones((60_000, 784), np.uint8), "y_train": labels}
    np.savez(tmp_path / "mnist.npz", **(arrays | {"x_test": np.ones((2, 784), np.uint8)}))
    for name, answer in (("laptop", "partly"), ("full", "yes")):
        size = replace(auxiliary_logits.SIZES[name], data=tmp_path / "mnist.npz")
        here = auxiliary_logits.design(size).here
        assert (here.model, here.parameters) == ("MLP 784-256-256-13", 270_093)
        assert bearing(auxiliary_logits.PROTOCOL, here).answer == answer
