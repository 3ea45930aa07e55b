"""Files of a model as they are read: JSON objects, and digests.

A digest is kept for as long as its file stays as it is.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from traitscope.errors import ModelError


def json_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no file."""
    try:
        content = json.loads(file.read_bytes()) if file.is_file() else {}
    except (ValueError, RecursionError):
        return {"unreadable": file_digest(file)}
    return content if isinstance(content, dict) else {"content": content}


def value_digest(value: Any) -> str:
    """The sha256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """The sha256 of a file."""
    return _file_digest(*mark(file))


def mark(file: Path) -> tuple[str, int, int]:
    """What changes where a file changes: its path, the time of its last change, and its size."""
    about = file.stat()
    return str(file.resolve()), about.st_mtime_ns, about.st_size


def unreadable(folder: Path, error: Exception) -> ModelError:
    """The error for a file of a model that this user cannot read."""
    return ModelError(
        f"a file of the model in {folder} cannot be read ({error}); expected files that this"
        " user may read, with names in UTF-8; change that, or fetch the model again"
    )


@lru_cache(maxsize=1024)
def _file_digest(path: str, changed: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
