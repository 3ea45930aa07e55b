"""Files are replaced in one step; links, pipes and devices stay what they are."""

import os
import stat
import threading
from pathlib import Path

import pytest

from traitscope import atomic_files
from traitscope.errors import StoreError


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.json"
    atomic_files.write_json(file, {"a": 1})
    atomic_files.write_json(file, {"a": 2})
    assert file.read_text() == '{\n  "a": 2\n}\n' and list(file.parent.iterdir()) == [file]


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "far" / "a.txt", tmp_path / "a.txt"
    file.parent.mkdir()
    file.write_text("old")
    link.symlink_to(file)
    atomic_files.write_text(link, "new")
    assert link.is_symlink() and file.read_text() == "new"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "not yet")
    atomic_files.write_text(dangling, "new")
    assert dangling.is_symlink() and (tmp_path / "not yet").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_what_is_no_regular_file_is_written_to_and_stays(tmp_path: Path) -> None:
    """A pipe stands for /dev/null, which a superuser could replace."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    atomic_files.write_text(pipe, "through")
    reader.join(10)
    assert read == ["through"] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        atomic_files.write_text(tmp_path, "x")


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="there are no files of open handles")
def test_a_pipe_that_has_no_name_is_written_to() -> None:
    """As `--json /dev/stdout | jq` and `--json >(jq)` give it; more than a pipe holds at once."""
    reading, writing = os.pipe()
    read: list[bytes] = []

    def drain() -> None:
        with open(reading, "rb") as stream:
            read.append(stream.read())

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    atomic_files.write_bytes(Path(f"/dev/fd/{writing}"), b"x" * 300_000)
    os.close(writing)
    reader.join(10)
    assert read == [b"x" * 300_000]
