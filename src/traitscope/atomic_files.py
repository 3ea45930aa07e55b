"""Files that a crash cannot leave half-written."""

import errno
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from traitscope.errors import StoreError, TraitscopeError

FULL = "the disk is full: free some space, then run the same command again"
BLOCKED = "read-only, or not permitted: choose a folder that you can write to"
TOO_MANY = "too many files are open: allow more with ulimit -n 4096, then run it again"
IN_THE_WAY = "a file is where a folder is expected: move the file away"
WRITE_HELP = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: BLOCKED,
    errno.EACCES: BLOCKED,
    errno.EPERM: BLOCKED,
    errno.EEXIST: IN_THE_WAY,
    errno.ENOTDIR: IN_THE_WAY,
    errno.EMFILE: TOO_MANY,
    errno.ENFILE: TOO_MANY,
}
"what to do, by the reason for which the operating system refuses"
EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
"reasons that say nothing of the path: the machine has no more"
RUST_ERROR = re.compile(r"\(os error (\d+)\)")
"how Rust writes what the operating system refused"


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` in one step, making its folder: a crash leaves the old content or the new.

    A link stays, and the file that it names is replaced. What is no regular file, such as a device
    or a pipe, is written to and never replaced. Raises StoreError.
    """
    write_pieces(path, [data])


def write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """write_bytes of pieces that follow each other, one in memory at a time."""
    if is_no_regular_file(path):
        with writing(path), open(path, "wb") as stream:
            stream.writelines(pieces)
        return
    path = Path(os.path.realpath(path))
    temp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temp.open("wb") as stream:
                stream.writelines(pieces)
            sync(temp)
            os.replace(temp, path)
            sync(path.parent)
        finally:
            temp.unlink(missing_ok=True)


def is_no_regular_file(path: Path) -> bool:
    """Whether something other than a file or a folder is there, such as a device or a pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def write_text(path: Path, text: str) -> None:
    """write_bytes in UTF-8, line ends as given."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """write_bytes of indented JSON in the given key order; NaN and infinity raise StoreError: use
    None."""
    write_bytes(path, _json(path, value, indent=2))


def write_jsonl(path: Path, rows: Iterable[dict]) -> None:
    """write_bytes of one JSON line a row; one row is in memory at a time."""
    write_pieces(path, (_json(path, row) for row in rows))


def append_jsonl(path: Path, row: dict) -> None:
    """Add one JSON line, visible to readers at once; on a full disk no partial line stays. Raises
    StoreError."""
    path, data = Path(path), _json(path, row)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as stream:
            size = stream.tell()
            if stream.write(data) != len(data):
                stream.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _json(path: Path, value: object, indent: int | None = None) -> bytes:
    try:
        return (
            json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
        ).encode()
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"cannot write {path} as JSON: {error}; give plain values, and None for undefined"
        ) from error


def check_writable(folder: Path) -> None:
    """Raise StoreError where a folder, or the nearest one above it that is there, is no place to
    write. Nothing is written."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise StoreError(f"cannot write below {there}: {IN_THE_WAY}")
    if not os.access(there, os.W_OK):
        raise StoreError(f"cannot write into {there}: {BLOCKED}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a StoreError about `path`.

    Libraries in Rust, such as safetensors and tokenizers, have errors of their own for it.
    """
    try:
        yield
    except TraitscopeError:
        raise
    except Exception as error:
        refused = _refusal(error)
        if refused is None:
            raise
        reason = WRITE_HELP.get(refused.errno, "check the path and the disk")
        said = refused.strerror or refused
        raise StoreError(f"cannot write {path} ({said}): {reason}") from error


def exhausted(error: Exception) -> StoreError | None:
    """What to say of a full disk or of too many open files, wherever that was met; None for an
    error of another kind."""
    refused = _refusal(error)
    if refused is None or refused.errno not in EXHAUSTED:
        return None
    return StoreError(f"{refused}: {WRITE_HELP[refused.errno]}")


def _refusal(error: Exception) -> OSError | None:
    """What the operating system refused; None for an error of another kind."""
    if isinstance(error, OSError):
        return error
    number = RUST_ERROR.search(str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
