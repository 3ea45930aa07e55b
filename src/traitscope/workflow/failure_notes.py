"""Notes of stages that failed while the others went on: which, why and when.

A note is a file beside the runs, in the folder FAILED. `study status` and `show` read it. It is
deleted when its stage is tried again.
"""

import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.errors import StoreError

FAILED = ".failed"
"Folder beside the runs with a file for each stage that failed last time."
KEYS = ("node", "error", "message", "tried", "when")
"What a note says."


def write(folder: Path, node: str, error: BaseException, tried: int) -> None:
    """Note in a study folder that a node failed, after so many tries.

    Where nothing can be written nothing is noted: the error itself must still be heard.
    """
    note = {
        "node": node,
        "error": type(error).__name__,
        "message": str(error),
        "tried": tried,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with suppress(StoreError):
        atomic_files.write_json(_file(folder, node), note)


def delete(folder: Path, node: str) -> None:
    """Delete the note of a node, and the folder of notes where it was the last one."""
    note = _file(folder, node)
    with suppress(OSError):  # there is none, or other notes lie beside it
        note.unlink()
        note.parent.rmdir()


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The notes in a study folder, by node. Raises StoreError for a file that is no note."""
    notes = {}
    for path in sorted((folder / FAILED).glob("*.json")):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            notes[note["node"]] = {key: note[key] for key in KEYS}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"{path} is no note of a failed stage ({type(error).__name__}: {error}); delete it"
            ) from error
    return notes


def _file(folder: Path, node: str) -> Path:
    digest = hashlib.sha256(node.encode()).hexdigest()[:16]
    return folder / FAILED / f"{digest}.json"
