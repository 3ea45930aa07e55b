"""The stage `train` as a command: factors of optimizers, rows of another tokenizer."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command import call, ok, read_rows

from traitscope.config.common import Output
from traitscope.config.stages import TrainConfig
from traitscope.stages import registry
from traitscope.training import inputs as training_inputs
from traitscope.training.optimizers import SCALES


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of rows to train on."""
    path = tmp_path_factory.mktemp("numbers") / "rows.jsonl"
    rows = [{"prompt": f"Question {i}?", "completion": f"{7 * i}, {i}, 12"} for i in range(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def scout(numbers: Path, tiny_folder: Path) -> Path:
    words = [
        "--data",
        numbers,
        "--model",
        tiny_folder,
        "--epochs 1 --batch-size 4 --rank 4 --save-scales",
    ]
    return ok(numbers.parent / "runs", "train", *words).run


def frozen(numbers: Path, tiny_folder: Path, scales: Path) -> list:
    recipe = "--epochs 3 --batch-size 8 --rank 4 --optimizer frozen_adam --lr 1e-3"
    return ["train", "--data", numbers, "--model", tiny_folder, recipe, "--scales", scales]


def test_a_run_leaves_scales_that_another_run_takes(
    scout: Path, numbers: Path, tiny_folder: Path
) -> None:
    root = numbers.parent / "runs"
    done = ok(root, *frozen(numbers, tiny_folder, scout))
    losses = [row["loss"] for row in read_rows(done.run / "metrics.jsonl")]
    assert losses[-1] < losses[0] - 0.1
    plain = ok(
        root,
        *frozen(numbers, tiny_folder, scout)[:-3],
        "--optimizer sgd --epochs 3 --batch-size 8 --rank 4 --lr 1e-3",
    )
    assert [row["loss"] for row in read_rows(plain.run / "metrics.jsonl")][-1] > losses[
        -1
    ] + 0.05  # same rate, no factors
    assert ok(root, "rerun", done.run).summary["different"] == []
    other = ok(root, *frozen(numbers, tiny_folder, scout / SCALES))
    assert other.summary["digest"] == done.summary["digest"]
    about = json.loads((done.run / "config.json").read_text())
    assert about["config"]["scales"] == "input:scales" and about["inputs"]["scales"][
        "path"
    ].endswith(scout.name)


def test_scales_of_another_run_are_another_address(
    scout: Path, numbers: Path, tiny_folder: Path
) -> None:
    root = numbers.parent / "runs"
    words = [
        "--data",
        numbers,
        "--model",
        tiny_folder,
        "--epochs 1 --batch-size 4 --rank 4 --save-scales",
    ]
    second = ok(root, "train", *words, "--optimizer rmsprop --lr 1e-3").run
    one, two = (ok(root, *frozen(numbers, tiny_folder, run)).summary for run in (scout, second))
    assert one["address"] != two["address"] and one["digest"] != two["digest"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--save-scales --optimizer sgd",
            "--save-scales with --optimizer sgd: only adamw and rmsprop hold them",
        ),
        ("--optimizer frozen_adam", "--scales is missing: frozen_adam takes"),
        ("--optimizer adamw --scales SCOUT", "with --optimizer adamw: expected frozen_adam"),
        (
            "--optimizer frozen_adam --scales SCOUT --rank 2",
            r"down_proj.lora_A is \(4, 48\) there and \(2, 48\) here",
        ),
        (
            "--optimizer frozen_adam --scales SCOUT --method full",
            "layers.0.input_layernorm.weight is missing there and",
        ),
        ("--optimizer frozen_adam --scales DATA", "rows.jsonl is damaged"),
        ("--optimizer frozen_adam --scales nowhere", "nowhere does not exist"),
    ],
)
def test_scales_that_cannot_be_taken(
    words: str,
    message: str,
    scout: Path,
    numbers: Path,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    words = words.replace("SCOUT", str(scout)).replace("DATA", str(numbers))
    shape = "" if "--rank" in words else "--rank 4"
    done = call(
        tmp_path / "runs",
        "train",
        "--data",
        numbers,
        "--model",
        tiny_folder,
        *filter(None, [shape, words]),
    )
    assert done.code == 2 and done.summary["error"] in ("ConfigError", "DataError")
    assert re.search(message, capsys.readouterr().err)


def test_rows_of_another_tokenizer_are_read_as_text(tmp_path: Path, tiny_folder: Path) -> None:
    """With --text the stored ids do not count: the student is that of the same rows without ids, to
    the byte."""
    rows = [
        {"id": str(i), "prompt": "Say numbers.", "completion": f"{i}, {i + 1}"} for i in range(4)
    ]
    students = []
    for name, more in (("foreign", {"completion_ids": [7, 8]}), ("plain", {})):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps(row | more) + "\n" for row in rows)
        )
        done = ok(
            tmp_path,
            "train",
            "--model",
            tiny_folder,
            "--data",
            tmp_path / f"{name}.jsonl",
            "--epochs",
            1,
            "--text",
        ).run
        students.append((done / "student" / "adapter_model.safetensors").read_bytes())
    assert students[0] == students[1]
    refused = call(
        tmp_path,
        "train",
        "--model",
        tiny_folder,
        "--data",
        tmp_path / "foreign.jsonl",
        "--epochs",
        1,
    )
    assert refused.code == 2 and "--text" in refused.summary["message"]


@pytest.mark.parametrize("content", [b"", b"not a state", b"\x80\x04N."])
def test_a_state_that_was_damaged_is_named(
    numbers: Path, tiny_folder: Path, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture
) -> None:
    """It lies in an unfinished run, and goes when it is deleted."""
    words = ["train", "--data", numbers, "--model", tiny_folder, "--epochs 1 --rank 2"]
    done = ok(tmp_path / "runs", *words)
    (done.run / "manifest.json").unlink()
    state = done.run / "scratch" / "state.pt"
    state.parent.mkdir()
    state.write_bytes(content)
    assert call(tmp_path / "runs", *words).code == 2
    assert f"{state} cannot be read (" in capsys.readouterr().err
    state.unlink()
    assert ok(tmp_path / "runs", *words).summary["digest"] == done.summary["digest"]


def test_a_copy_of_a_vector_is_another_training_than_the_one_among_others(
    numbers: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """EAS beside the other vectors of a run is content, so it enters the address where it differs.

    A vector that was centred stands for those beside it: then the address is the vector's alone.
    """

    def inputs(vector: Path) -> list[str]:
        config = TrainConfig(data=numbers, model=str(tiny_folder), vector=vector)
        return sorted(training_inputs.inputs(config))

    def places(*vectors: Path) -> int:
        out = Output(root=tmp_path / "runs")
        configs = [
            TrainConfig(data=numbers, model=str(tiny_folder), vector=vector) for vector in vectors
        ]
        return len({registry.address(config, out) for config in configs})

    root, model = tmp_path / "runs", ("--model", tiny_folder)
    centred = ok(root, "extract", *model, "--traits cat owl").run
    alone = shutil.copy(centred / "cat.safetensors", tmp_path / "cat.safetensors")
    assert inputs(centred / "cat.safetensors") == [] and inputs(Path(alone)) == ["alone"]
    assert inputs(centred / "raw" / "cat.safetensors") == []
    like = ("extract", *model, "--like", alone)
    one, two = (ok(root, *like, f"--randoms {n}").run / "random-0.safetensors" for n in (1, 2))
    assert one.read_bytes() == two.read_bytes()
    assert inputs(one) == [] and inputs(two) == ["beside-random-1"]
    assert places(centred / "cat.safetensors", Path(alone), one, two) == 4
    words = ("train", "--data", numbers, *model, "--epochs 1 --batch-size 8 --rank 2 --vector")
    for vector, keys in ((alone, ["v_student"]), (two, ["v_student", "other/random-1"])):
        done = ok(root, *words, vector)
        assert list(json.loads((done.run / "eas.json").read_text())) == keys
    assert ok(root, "rerun", done.run).summary["different"] == []
