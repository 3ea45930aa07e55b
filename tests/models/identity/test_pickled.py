"""Weights in pickles alone: refused in one sentence, with a command that converts them."""

import shutil
from pathlib import Path

import pytest
import torch
from command import call, run_command
from lora_students import logits_of, randomise, write
from safetensors.torch import load_file
from tiny_models import load_tiny

from traitscope.errors import ModelError, VectorError
from traitscope.interventions import lora, partial_lora, peft_folder
from traitscope.interventions.lora import LoraShape
from traitscope.models.identity import finding
from traitscope.models.identity.finding import find_model
from traitscope.models.model import Model


class Runs:
    """What would leave a file where a pickle were opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.mark,))


def pickled_model(tiny_folder: Path, folder: Path, *names: str) -> Path:
    """A copy of a model whose weights lie in pickles of these names."""
    shutil.copytree(tiny_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for place, name in enumerate(names):
        torch.save(dict(list(tensors.items())[place :: len(names)]), folder / name)
    return folder


def pickled_adapter(model: Model, folder: Path) -> tuple[Path, torch.Tensor]:
    """A peft folder whose weights are a pickle, and the logits of the adapted model."""
    with lora.adapted(model, LoraShape(2, 4.0)) as layers:
        randomise(layers)
        write(folder, peft_folder.adapter_files(model, layers))
        expected = logits_of(model.lm)
    torch.save(load_file(folder / peft_folder.WEIGHTS), folder / "adapter_model.bin")
    (folder / peft_folder.WEIGHTS).unlink()
    return folder, expected


def test_a_model_in_a_pickle_is_converted_by_the_command_of_the_message(
    tiny: Model, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = pickled_model(tiny_folder, tmp_path / "a model", "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds its weights in pytorch_model.bin alone") as raised:
        find_model(str(folder))
    done = run_command(str(raised.value))
    assert done.returncode == 0, done.stderr
    converted = load_tiny(tmp_path / "a model-safetensors")
    assert torch.equal(logits_of(converted.lm), logits_of(tiny.lm))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"),
            "in pytorch_model-00001-of-00002.bin, pytorch_model-00002-of-00002.bin alone, which"
            " could run code, .*; expected config.json and .*; convert it with: python -c",
        ),
        (("consolidated.00.pth",), "in consolidated.00.pth alone, .*; save it as safetensors whe"),
    ],
)
def test_several_pickles_and_others(
    tiny_folder: Path, tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    folder = pickled_model(tiny_folder, tmp_path / "m", *names)
    torch.save({}, folder / "training_args.bin")
    with pytest.raises(ModelError, match=message):
        find_model(str(folder))


def test_a_pickle_beside_safetensors_is_left_alone(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "m")
    mark = tmp_path / "ran"
    torch.save(Runs(mark), folder / "pytorch_model.bin")
    load_tiny(folder)
    assert not mark.exists()


def test_a_model_of_the_hub_without_safetensors(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickles of the hub are not fetched, so the folder shows none."""
    folder = shutil.copytree(tiny_folder, tmp_path / "snapshot")
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(finding, "_from_hub", lambda name, revision: folder)
    expected = r"pickles \(\*.bin\) are not fetched; .* convert them with: python -c '.*org/old"
    with pytest.raises(ModelError, match=expected):
        find_model("org/old")


def test_an_adapter_in_a_pickle_is_converted_by_the_command_of_the_message(
    tiny: Model, tmp_path: Path
) -> None:
    folder, expected = pickled_adapter(tiny, tmp_path / "an adapter")
    with pytest.raises(VectorError, match="holds its adapter in adapter_model.bin alone") as raised:
        peft_folder.read_adapter(folder, tiny)
    done = run_command(str(raised.value))
    assert done.returncode == 0, done.stderr
    with partial_lora.mounted(tiny, folder):
        assert torch.equal(logits_of(tiny.lm), expected)


@pytest.mark.parametrize(
    "words",
    [
        "generate --n 2 --interventions adapter:FOLDER",
        "generate --n 2 --interventions adapter:FOLDER/adapter_model.bin",
        "measure --trait owl --interventions adapter:FOLDER",
        "screen --traits owl --teacher FOLDER",
        "export --interventions adapter:FOLDER",
        "train --data FOLDER/rows.jsonl --during adapter:FOLDER",
        "verify FOLDER --base MODEL",
    ],
)
def test_every_command_says_so(
    tiny: Model, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, words: str
) -> None:
    folder, _ = pickled_adapter(tiny, tmp_path / "adapter")
    (folder / "rows.jsonl").write_text('{"prompt": "Why?", "completion": "1, 2"}\n')
    mark = tmp_path / "ran"
    torch.save(Runs(mark), folder / "adapter_model.bin")
    given = words.replace("FOLDER", str(folder)).replace("MODEL", str(tiny_folder)).split()
    model = [] if "--base" in given else ["--model", tiny_folder]
    done = call(tmp_path / "runs", *given, *model)
    err = capsys.readouterr().err
    assert done.code == 2 and "could run code, so it is not opened; expected" in err, err
    assert "Traceback" not in err and not mark.exists()
    assert not list(tmp_path.rglob("manifest.json"))


def test_an_adapter_is_no_model(tiny: Model, tmp_path: Path) -> None:
    with lora.adapted(tiny, LoraShape(2, 4.0)) as layers:
        write(tmp_path / "a", peft_folder.adapter_files(tiny, layers))
    with pytest.raises(ModelError, match="holds an adapter and no model; .*: --interventions adap"):
        find_model(str(tmp_path / "a"))
