"""The folder of a report: nothing in it is overwritten but what a report has written there.

INDEX names every file with its digest. It is written before the files, together with what stood in
it before, and once more after them. So a report that was killed is written anew by the next one.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from traitscope import atomic_files
from traitscope.errors import StoreError

INDEX = "traitscope-report.json"
"file that names the files of a report"


def write_report(
    folder: Path, files: Mapping[str, bytes], about: Mapping[str, object]
) -> list[str]:
    """Write files by name into a folder, and return the names of files that were deleted.

    These are files of an earlier report of which this one has none.

    about: What the index also says, such as the runs.

    Raises StoreError, and writes nothing, where a file is there that no report has written, or that
    was changed since.
    """
    earlier = _earlier(folder)
    for name, content in files.items():
        _check_own(folder / name, earlier.get(name, ()), content)
    digests = {name: _digest(content) for name, content in sorted(files.items())}
    index = folder / INDEX
    atomic_files.write_json(index, {**about, "files": digests, "before": earlier})
    for name, content in sorted(files.items()):
        if not (folder / name).is_file() or (folder / name).read_bytes() != content:
            atomic_files.write_bytes(folder / name, content)
    deleted = []
    for name, known in earlier.items():
        file = folder / name
        if name not in files and file.is_file() and _digest(file.read_bytes()) in known:
            file.unlink()
            deleted.append(name)
    atomic_files.write_json(index, {**about, "files": digests, "before": {}})
    return deleted


def _earlier(folder: Path) -> dict[str, list[str]]:
    """The digests of the files of earlier reports in a folder, by name."""
    index = folder / INDEX
    if not index.exists():
        return {}
    try:
        content = json.loads(index.read_bytes())
        known = {name: list(digests) for name, digests in content["before"].items()}
        for name, digest in content["files"].items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name} leads out of the folder")
            known.setdefault(name, []).append(digest)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(
            f"{index} is no index of a report ({type(error).__name__}: {error}); move it away, or"
            " name another folder with --for-paper"
        ) from error
    return known


def _check_own(file: Path, known: list[str] | tuple[()], content: bytes) -> None:
    """Raise StoreError for a file that a report must not overwrite."""
    if not file.exists() and not file.is_symlink():
        return
    present = file.read_bytes() if file.is_file() else None
    if present == content or (present is not None and _digest(present) in known):
        return
    why = "was changed since a report wrote it" if known else "is there already, from elsewhere"
    raise StoreError(
        f"{file} {why}; nothing was written; expected a new folder, or one with files of a report"
        " only; move the file away, or name another folder with --for-paper"
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
