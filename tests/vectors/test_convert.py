"""The command `convert`: from and to other tools' files, and a vector that then steers."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command import call
from template_kinds import OPENS_THINKING, TURNS
from tiny_models import random_vector

from traitscope.cli import main
from traitscope.config.commands import ConvertConfig
from traitscope.config.entries import COMMANDS
from traitscope.interventions.foreign import files, layer_rows
from traitscope.interventions.vector import Vector
from traitscope.models.model import Model

STORED = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
"rows as persona_vectors stores them for the tiny model of three blocks"


@pytest.fixture
def pt(tmp_path: Path) -> Path:
    torch.save(STORED, tmp_path / "v.pt")
    return tmp_path / "v.pt"


def convert(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main.main(["convert", *map(str, words)])
    return int(stop.value.code or 0)


def test_from_another_tool(
    pt: Path, tiny: Model, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    target, summary = pt.with_suffix(".safetensors"), pt.with_suffix(".json")
    words = ["--from", "persona_vectors", "--model", tiny_folder, "--json", summary]
    assert convert(pt, target, *words) == 0
    vector = Vector.load(target, tiny)
    assert np.array_equal(vector.rows_LD, STORED[1:].numpy())
    said = json.loads(summary.read_text())
    assert said["blocks"] == [0, 1, 2] and said["behind_final_norm"] == 2
    assert (said["from"], said["to"]) == ("persona_vectors", "traitscope")
    out = capsys.readouterr().out
    assert (
        "a row of 32 numbers for each of the blocks 0, 1, 2" in out
        and "block 2: in files of persona_vectors the last row was taken behind the final norm"
        in out
        and "steer at another one, unless convert wrote the file" in out
    )


def test_the_next_command_is_typed_as_it_stands(
    pt: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """It names the model, and steers between the blocks, not behind the final norm."""
    target = pt.with_suffix(".safetensors")
    assert convert(pt, target, "--from", "persona_vectors", "--model", tiny_folder) == 0
    said = capsys.readouterr().err.split("next:   traitscope ")[1]
    words = shlex.split(said)
    assert f"steer:{target},layers=1,alpha=1,scale=raw" in words
    ran = call(pt.parent / "runs", *map(shlex.quote, words), "--samples 0 --sets positive")
    assert ran.code == 0


def test_a_file_that_is_called_as_a_trait_is_asked_about_it(
    pt: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ("--from", "persona_vectors", "--model", tiny_folder)
    assert convert(pt, pt.with_name("owl.safetensors"), *words) == 0
    err = capsys.readouterr().err
    assert err.endswith(" --trait owl\n") and "the trait is not known" not in err


def with_template(folder: Path, template: str | None, target: Path) -> Path:
    """A copy of a model with another chat template."""
    from transformers import AutoTokenizer

    shutil.copytree(folder, target)
    tokenizer = AutoTokenizer.from_pretrained(target)
    tokenizer.chat_template = template
    for file in target.glob("chat_template*"):
        file.unlink()
    tokenizer.save_pretrained(target)
    return target


@pytest.mark.parametrize(
    ("template", "given", "kept"),
    [
        (None, [], ["--context", "@none"]),
        (OPENS_THINKING, ["--template", "skip_thinking=true"], []),
        (TURNS, ["--same-as", "0123456789abcdef"], []),
    ],
)
def test_the_next_command_keeps_what_its_model_needs_and_the_folder_of_runs(
    pt: Path,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture,
    template: str | None,
    given: list,
    kept: list,
) -> None:
    model = with_template(tiny_folder, template, pt.parent / "model")
    place = ["--root", str(pt.parent / "my runs"), "--study", "steered"]
    target = pt.with_suffix(".safetensors")
    words = [*given, "--from", "persona_vectors", "--model", model, *place]
    assert convert(pt, target, *words) == 0
    before, said = capsys.readouterr().err.split("next:   traitscope ")
    words = shlex.split(said)
    assert words[:-4] == ["measure", "--model", str(model), *given, *kept, *place]
    assert words[-2:] == ["--trait", "cat"] and "the trait is not known" in before
    with pytest.raises(SystemExit) as stop:
        main.main([*words, "--samples", "0", "--sets", "positive"])
    assert not stop.value.code and list((pt.parent / "my runs" / "steered").glob("measure-*"))


def test_to_another_tool_and_on(tmp_path: Path, tiny: Model, tiny_folder: Path) -> None:
    """Own file, GGUF, persona_vectors, own file: the rows stay, but block 0 that GGUF lacks."""
    vector = random_vector(tiny, 3)
    own, gguf, pt, back = (tmp_path / name for name in ("a.safetensors", "b.gguf", "c.pt", "d"))
    vector.save(own)
    assert convert(own, gguf) == 0
    assert convert(gguf, pt, "--to", "persona_vectors") == 0
    words = ["--from", "persona_vectors", "--to", "traitscope", "--model", tiny_folder]
    assert convert(pt, back, *words) == 0
    rows_LD = Vector.load(back).rows_LD
    assert np.array_equal(rows_LD[1:], vector.rows_LD[1:]) and not rows_LD[0].any()


def test_one_layer(pt: Path, tiny: Model, tiny_folder: Path) -> None:
    target = pt.with_suffix(".safetensors")
    words = ["--layers-are", "hidden-states", "--layer", 1, "--model", tiny_folder]
    assert convert(pt, target, *words) == 0
    vector = Vector.load(target, tiny)
    assert vector.about["held_blocks"] == [1] and vector.norms_L[[0, 2]].tolist() == [0, 0]
    assert np.array_equal(vector.rows_LD[1], STORED[2].numpy())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["v.pt"], "--target is missing: name the file to write"),
        (["v.pt", "w.safetensors", "--from", "persona_vectors"], "--model is missing: a vector"),
        (["v.pt", "w.safetensors"], "expected --layers-are blocks (row 0 leaves block 0) or"),
        (["v.pt", "w.pt"], "suffix '.pt', which tells no format; expected one of"),
        (["v.pt", "v.pt", "--to", "agu18dec"], "would be written over; name another file"),
        (["v.pt", "w.gguf", "--from", "pt"], "--from is 'pt'; expected auto, traitscope"),
        (["none.pt", "w.gguf"], "does not exist; name"),
        (["v.pt", "w.gguf", "--layer", "-1"], "--layer -1; expected 0 or more"),
        (["own.safetensors", "w.safetensors"], "is a vector file of Traitscope already; name"),
        (["own.safetensors", "w.gguf", "--layer", "7"], "layer 7 is asked for; name one that"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(
    pt: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(pt.parent)
    Vector(STORED.numpy(), "0123").save("own.safetensors")
    assert convert(*words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_model_of_another_width(pt: Path, folders: dict, capsys: pytest.CaptureFixture) -> None:
    words = ["--layers-are", "hidden-states", "--model", folders["qwen2"]]
    assert convert(pt, pt.with_suffix(".gguf"), *words) == 2
    assert "has rows for 3 blocks, and" in capsys.readouterr().err


def test_the_command_knows_the_formats_of_the_code() -> None:
    hints = ConvertConfig.__annotations__
    assert hints["from_"].__args__ == hints["to"].__args__ == ("auto", *files.FORMATS)
    assert hints["layers_are"].__args__ == ("auto", *layer_rows.LAYERS_ARE)
    assert COMMANDS["convert"].subject == ("source", "target")


def test_nothing_is_written_over(
    tmp_path: Path, pt: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / "kept.safetensors"
    target.write_bytes(b"kept")
    words = ("--model", tiny_folder, "--layers-are", "blocks")
    assert convert(pt, target, *words) == 2
    assert "exists already" in capsys.readouterr().err and target.read_bytes() == b"kept"


def test_zeros_are_no_direction(
    tmp_path: Path, tiny: Model, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    np.save(tmp_path / "zero.npy", np.zeros((tiny.n_layers, tiny.d_model), np.float32))
    target = tmp_path / "zero.safetensors"
    words = ("--model", tiny_folder, "--layers-are", "blocks")
    assert convert(tmp_path / "zero.npy", target, *words) == 2
    assert "rows are zero" in capsys.readouterr().err and not target.exists()


def test_a_layer_beyond_the_model_and_a_dictionary(tmp_path: Path, tiny_folder: Path) -> None:
    torch.save({0: torch.ones(32), 1: torch.ones(32)}, tmp_path / "v.pt")
    words = ("convert", "--source", tmp_path / "v.pt", "--model", tiny_folder)
    target = ("--target", tmp_path / "v.safetensors")
    beyond = call(tmp_path, *words, *target, "--layer 99 --layers-are blocks")
    assert beyond.code == 2 and "has layers 0 to 2; name one of these" in beyond.summary["message"]
    unsaid = call(tmp_path, *words, *target)
    assert "or --from steering-vectors if that tool wrote it" in unsaid.summary["message"]
    torch.save({"a": {"b": torch.ones(32)}}, tmp_path / "w.pt")
    other = call(tmp_path, "convert", "--source", tmp_path / "w.pt", *target)
    assert "such as --from steering-vectors for a dictionary" in other.summary["message"]
    assert not (tmp_path / "v.safetensors").exists()


def test_the_family_that_a_control_vector_names(
    tiny: Model, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    Vector(STORED[1:].numpy(), tiny.digest).save(tmp_path / "own.safetensors")
    says = "model_hint: unknown; repeng compares it where vectors are added; --model MODEL writes"
    assert convert(tmp_path / "own.safetensors", tmp_path / "a.gguf") == 0
    assert says in capsys.readouterr().out
    words = [tmp_path / "own.safetensors", tmp_path / "b.gguf", "--model", tiny_folder]
    assert convert(*words) == 0 and "model_hint" not in capsys.readouterr().out
    assert convert(tmp_path / "b.gguf", tmp_path / "c.gguf", "--to", "repeng") == 0
    assert "model_hint" not in capsys.readouterr().out


def test_blocks_without_a_row_are_named_where_zeros_stand_for_them(
    pt: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """A control vector has no row for block 0; a format with one for every block has zeros."""
    gguf, back = pt.with_suffix(".gguf"), pt.with_name("back.pt")
    model = ["--model", tiny_folder]
    assert convert(pt, gguf, "--from", "persona_vectors", *model) == 0
    assert "block 0: left out" in capsys.readouterr().out
    assert convert(gguf, back, "--to", "persona_vectors", *model, "--json", pt.parent / "s") == 0
    said = "no row for 0: the format has one for every block, so zeros stand there"
    assert said in capsys.readouterr().out
    assert json.loads((pt.parent / "s").read_text())["zero_rows"] == [0]
    assert not torch.load(back)[1].any() and torch.equal(torch.load(back)[2:], STORED[2:])
    assert convert(pt, pt.with_name("all.npy"), "--from", "persona_vectors") == 0
    assert "no row for" not in capsys.readouterr().out
