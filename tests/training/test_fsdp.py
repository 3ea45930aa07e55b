"""One student over two processes: the one that a process alone trains, and hooks that see what they
see there."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sharded
from command import ENV, OWL, call, ok, same_metrics, write_yaml
from safetensors.numpy import load_file
from sharded import seen

from traitscope import distributed
from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.config.stages import TrainConfig
from traitscope.errors import ConfigError
from traitscope.models.kernels import compiled
from traitscope.models.model import Model
from traitscope.runs import lineage, store
from traitscope.stages.train import run_train
from traitscope.training import fsdp

BASE = Recipe(rank=4, alpha=8.0, lr=1e-2, epochs=2, batch_size=5, micro_batch=2, held_out=0.25)
RECIPES = {
    "lora": BASE,  # batches of 5 and of 4 rows for two processes: one is left over at times
    "soft": dataclasses.replace(BASE, targets="soft", optimizer="muon", mask_top=0.01),
    "full": dataclasses.replace(BASE, method="full", lr=1e-3),
    "sgd": dataclasses.replace(
        BASE, method="full", optimizer="sgd", momentum=0.9, lr=0.02, weight_decay=0.01
    ),
    "vector": dataclasses.replace(BASE, method="vector", layer=1, lr=0.1),
}
CUT = {"full": 3, "sgd": 3}
"students that are cut off behind a step; the first goes on in two processes, the other in one"


def torchrun(*words: object) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *map(str, words),
    ]
    return subprocess.run(
        command,
        check=False,
        env=ENV | {"PYTHONFAULTHANDLER": "1", compiled.SWITCH: os.environ.get(compiled.SWITCH, "")},
        cwd=Path(sharded.__file__).parent,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def vector(place: Path, tiny_folder: Path) -> Path:
    return (
        ok(
            place / "runs",
            "extract",
            "--model",
            tiny_folder,
            "--traits",
            write_yaml(place / "owl.yaml", OWL),
        ).run
        / "owl.safetensors"
    )


@pytest.fixture(scope="module")
def configs(place: Path, tiny_folder: Path, vector: Path) -> dict[str, TrainConfig]:
    data = ok(
        place / "runs", "generate", "--model", tiny_folder, "--n 19 --count 4 --vocabulary template"
    ).run
    return {
        name: TrainConfig(
            model=str(tiny_folder),
            data=data,
            recipe=recipe,
            vector=vector,
            eas_every=2,
            eas_prompts=4,
            dtype="fp32",
            device="cpu",
            teacher=("prompt:Owls, owls!",) if recipe.targets == "soft" else (),
            resume_every=1,
            checkpoint_every=4,
        )
        for name, recipe in RECIPES.items()
    }


@pytest.fixture(scope="module")
def torch_passes() -> Iterator[None]:
    """torch's own passes on both sides, because weights in parts take these.

    Compiled passes add in another order, and Adam makes a whole step of the sign of a gradient that
    is all but zero.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compiled.SWITCH, compiled.OFF)  # for the processes that are started
        patch.setattr(compiled, "library", lambda: None)
        yield


@pytest.fixture(scope="module")
def together(
    place: Path,
    configs: dict[str, TrainConfig],
    tiny_folder: Path,
    vector: Path,
    torch_passes: None,
) -> Path:
    """The root of the students that two processes trained, and seen.npz."""
    students = [
        [json.loads(json.dumps(dataclasses.asdict(config), default=str)), str(place / "two"), 0]
        for config in configs.values()
    ]
    cut = [
        [plain, root, CUT[name]]
        for (plain, root, _), name in zip(students, configs, strict=True)
        if name in CUT
    ]
    again = [item for item, name in zip(students, configs, strict=True) if name != "sgd"]
    jobs = {
        "students": [*cut, *again],
        "seen": [str(tiny_folder), str(vector), str(place / "seen.npz")],
    }
    (place / "jobs.json").write_text(json.dumps(jobs))
    done = torchrun("sharded.py", place / "jobs.json")
    assert done.returncode == 0, done.stderr[-12000:]
    return place / "two"


def same(one: Path, other: Path) -> None:
    assert one.name == other.name and lineage.verify(one) == lineage.verify(other) == []
    same_metrics(one, other)
    files = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert (
        files == sorted(path.relative_to(other) for path in other.rglob("*.safetensors"))
        and len(files) > 2
    )
    for name in files:
        left, right = load_file(one / name), load_file(other / name)
        assert left.keys() == right.keys()
        for key in left:
            np.testing.assert_allclose(left[key], right[key], atol=2e-4, err_msg=f"{name} {key}")


def test_students_and_hooks_are_those_of_one_process(
    configs: dict[str, TrainConfig],
    together: Path,
    place: Path,
    tiny: Model,
    vector: Path,
):
    """Loss, held-out loss, EAS, weights and checkpoints, also where training was cut off (sgd goes
    on in one process); and what hooks, steering gradients and vectors see. One test, so that two
    processes are started once."""
    for name, config in configs.items():
        two = run_train(config, Output(root=together)).path
        assert store.load_run(two).manifest().get("processes") == (None if name == "sgd" else 2)
        same(run_train(config, Output(root=place / "one")).path, two)
    alone, found = seen(tiny, vector), np.load(place / "seen.npz")
    assert alone.keys() == set(found.files)
    for name in alone:
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert np.abs(alone["steered.gradients"] - alone["plain.gradients"]).max() > 1e-3


def test_from_the_command_line(tiny_folder: Path, tmp_path: Path):
    """An error of the user's is said once, by the first process, and nothing is left."""
    target = tmp_path / "summary.json"
    words = [
        "--model",
        tiny_folder,
        "--data",
        tmp_path / "nowhere.jsonl",
        "--root",
        tmp_path / "runs",
        "--json",
        target,
        "--device",
        "cpu",
    ]
    done = torchrun("-m", "traitscope", "train", *words)
    assert (
        done.returncode != 0
        and done.stderr.count("nowhere.jsonl does not exist") == 1
        and "traitscope/cli/main.py" not in done.stderr
    )
    assert (
        json.loads(target.read_text())["status"] == "error"
        and list(tmp_path.rglob("train-*")) == []
    )


def test_other_verbs_refuse(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path):
    as_process(monkeypatch, 0, 2)
    done = call(tmp_path, "extract", "--model", tiny_folder)
    assert (
        done.code == 2
        and "extract runs in one process, torchrun started 2" in done.summary["message"]
    )


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    """This process as one that torchrun started."""
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": world, "RANK": rank}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize(("rows", "size"), [(1, 2), (5, 2), (8, 8), (32, 8), (30, 7)])
def test_every_row_counts_once_and_all_meet_as_often(
    monkeypatch: pytest.MonkeyPatch, world: int, rows: int, size: int
):
    parts = []
    for rank in range(world):
        as_process(monkeypatch, rank, world)
        assert (distributed.world(), distributed.rank(), distributed.first()) == (
            world,
            rank,
            rank == 0,
        )
        parts.append(list(fsdp.slices_of_process(rows, size)))
    assert len({len(own) for own in parts}) == 1
    counted = sorted(
        i for own in parts for part, counts in own if counts for i in range(rows)[part]
    )
    assert counted == list(range(rows))
    assert all(
        range(rows)[part] and len(range(rows)[part]) <= size for own in parts for part, _ in own
    )


@pytest.mark.parametrize(
    ("changes", "dtype", "message"),
    [
        ({"optimizer": "adafactor"}, "fp32", "--optimizer adafactor"),
        ({"targets": "preference"}, "fp32", "--targets preference"),
        ({"winsorise": 0.1}, "fp32", "--mask-top or --winsorise"),
        ({}, "nf4", "--dtype nf4"),
    ],
)
def test_what_cannot_be_in_parts(changes: dict, dtype: str, message: str):
    with pytest.raises(ConfigError, match=message):
        fsdp.check(dataclasses.replace(RECIPES["full"], **changes), dtype)
