"""Files are replaced in one step; links, pipes and devices stay what they are."""

import errno
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


class Rust(Exception):
    """What safetensors and tokenizers raise is neither an OSError nor a ValueError."""


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Rust("I/O error: No space left on device (os error 28)"), "the disk is full: free some"),
        (Rust("Permission denied (os error 13)"), "read-only, or not permitted"),
        (OSError(errno.EMFILE, "Too many open files"), "allow more with ulimit -n 4096"),
        (OSError(errno.EIO, "Input/output error"), "check the path and the disk"),
    ],
)
def test_what_the_operating_system_refuses_is_named(
    tmp_path: Path, error: Exception, says: str
) -> None:
    file = tmp_path / "a.txt"
    with (
        pytest.raises(StoreError, match=f"cannot write {file} .*{says}"),
        atomic_files.writing(file),
    ):
        raise error


@pytest.mark.parametrize("error", [Rust("not of the disk"), KeyError("a"), StoreError("a; b")])
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised, atomic_files.writing(tmp_path):
        raise error
    assert raised.value is error
    assert atomic_files.exhausted(error) is None


def test_lines_are_written_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.jsonl"
    atomic_files.write_jsonl(file, ({"a": n} for n in range(2)))
    with pytest.raises(StoreError, match="as JSON"):
        atomic_files.write_jsonl(file, [{"a": 3}, {"a": float("nan")}])
    assert file.read_text() == '{"a": 0}\n{"a": 1}\n' and list(file.parent.iterdir()) == [file]
