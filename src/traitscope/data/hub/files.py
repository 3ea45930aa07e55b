"""Local copies of data sets of the hub, by an address:

    hub:OWNER/NAME@SPLIT                    all files of a split
    hub:OWNER/NAME/CONFIG@SPLIT             of one of several configs
    hub:OWNER/NAME@SPLIT@REVISION           as they were at a branch, a tag or a commit
    hub:OWNER/NAME/FILE                     one file

What was fetched before is found without a network.
"""

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from traitscope import atomic_files, distributed
from traitscope.data.hub.splits import Splits, missing_shards, splits_of, unmatched
from traitscope.data.shapes.containers import (
    BAD_ROW,
    DELIMITERS,
    container_of,
    raw_lines,
    raw_rows,
)
from traitscope.errors import DataError, StoreError
from traitscope.plain_values import to_json
from traitscope.plurals import counted

HUB = "hub:"
"what a path begins with that names a data set of the hub"
CARD = "README.md"
"file that describes a data set"
WITH_SPLIT = re.compile(r"([^/@]+/[^/@]+)(?:/([^@]+))?@([\w-]+)(?:@([^@]+))?")
"owner and name, config, split, revision"
FORMS = f"{HUB}OWNER/NAME@SPLIT or {HUB}OWNER/NAME/FILE"
"how to name a data set of the hub"
JOINT = b"2"
"number of the way of joining files; another one gives the whole another name"
NO_SPLIT = f"none, as no file is where {CARD} says"
"what is said of the splits of a data set that has none"
EXAMPLE = f"{HUB}JailbreakBench/JBB-Behaviors/data/harmful-behaviors.csv"


class Address(NamedTuple):
    """A split of a data set."""

    name: str
    """OWNER/NAME."""
    config: str | None
    split: str
    revision: str | None


def is_of_hub(path: Path | str) -> bool:
    """Whether a path names a data set of the hub."""
    return str(path).startswith(HUB)


def local_copy(path: Path) -> Path:
    """The local file behind a path; the path itself where it names nothing of the hub.

    Raises DataError for an address of no form, for a split that is not there, and for what cannot
    be fetched.
    """
    return _fetched(str(path)) if is_of_hub(path) else path


@cache
def _fetched(path: str) -> Path:
    rest = path.removeprefix(HUB)
    with_split = WITH_SPLIT.fullmatch(rest)
    if with_split:
        return _joined(Address(*with_split.groups()), path)
    owner, _, rest = rest.partition("/")
    name, _, file = rest.partition("/")
    if not (owner and name) or "@" in name:
        raise DataError(
            f"{path}: expected {FORMS}, such as {EXAMPLE}; correct it, or name a local file"
        )
    if not file:
        _refuse_without_split(f"{owner}/{name}", path)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(f"{owner}/{name}", file, repo_type="dataset"))
    except Exception as error:  # the client raises many unrelated types; all mean "not available"
        raise _out_of_reach(path, error) from error


def _out_of_reach(path: str, error: Exception) -> DataError:
    return DataError(
        f"{path} could not be fetched from the hub ({type(error).__name__}); check name and"
        " network, or name a local copy"
    )


def _refuse_without_split(name: str, path: str) -> None:
    """Raise DataError for a data set without a split, with its splits where they can be had."""
    try:
        address = Address(name, None, "", None)
        splits = ", ".join(_splits(_listed(address, path), address))
    except DataError as error:
        splits = f"not known ({error})"
    raise DataError(
        f"{path} names no split; expected {FORMS}; its splits: {splits}; write {path}@SPLIT"
    )


class _Listed(NamedTuple):
    """What is known of the files of a data set."""

    folder: Path
    """Where those are that were fetched."""
    card: str
    files: list[str]
    is_whole: bool
    """Whether these are all files; else those that were fetched before."""


def _listed(address: Address, path: str) -> _Listed:
    """The card and the files of a data set; without a network what was fetched before."""
    folder = _snapshot(address, [CARD], path)
    card = folder / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    commit = folder.name
    for listing in (_list_in_cache, _list_of_hub):
        try:
            return _Listed(folder, text, listing(address.name, commit), is_whole=True)
        except Exception:  # of many unrelated types; what is here is looked at instead
            continue
    found = [file for file in folder.rglob("*") if file.is_file()]
    here = [file.relative_to(folder).as_posix() for file in found]
    return _Listed(folder, text, here, is_whole=False)


def _list_in_cache(name: str, commit: str) -> list[str]:
    """The list of all files that the client keeps; older clients keep none."""
    from huggingface_hub import get_cached_repo_tree

    entries = get_cached_repo_tree(name, repo_type="dataset", revision=commit)
    return [entry.path for entry in entries]


def _list_of_hub(name: str, commit: str) -> list[str]:
    from huggingface_hub import HfApi

    return HfApi().list_repo_files(name, repo_type="dataset", revision=commit)


def _snapshot(address: Address, patterns: Sequence[str], path: str) -> Path:
    """The folder with some files of a data set."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            address.name,
            repo_type="dataset",
            revision=address.revision,
            allow_patterns=list(patterns),
        )
    except Exception as error:  # the client raises many unrelated types; all mean "not available"
        raise _out_of_reach(path, error) from error
    return Path(folder)


def _joined(address: Address, path: str) -> Path:
    """The file of a split, or its files as one."""
    listed = _listed(address, path)
    splits = _splits(listed, address)
    files = splits.get(address.split)
    if not files:
        known = ", ".join(split for split in splits if splits[split]) or NO_SPLIT
        raise DataError(
            f"{path}: there is no split {address.split!r}; expected one of {known}; name it"
            f" behind @{'' if listed.is_whole else ', or fetch it with a network'}"
        )
    parts = _all_here(listed, files, address, path)
    return parts[0] if len(parts) == 1 else _one_file(parts, address)


def _splits(listed: _Listed, address: Address) -> Splits:
    return splits_of(listed.card, listed.files, address.config, f"{HUB}{address.name}")


def _all_here(
    listed: _Listed, files: Sequence[str], address: Address, path: str
) -> tuple[Path, ...]:
    """The local files of a split. Raises DataError where one of them is not here."""
    missing = _missing(listed.folder, files)
    reason = ""
    if missing and listed.is_whole:
        try:
            _snapshot(address._replace(revision=listed.folder.name), files, path)
        except DataError as error:
            reason = f" ({type(error.__cause__).__name__})"
        missing = _missing(listed.folder, files)
    unmet = unmatched(listed.card, listed.files, address.config, address.name, address.split)
    if listed.is_whole and unmet:
        raise DataError(
            f"{path}: {CARD} lists {unmet[0]} for the split {address.split}, and no file of rows is"
            " there; expected one for each path that it lists; name a file:"
            f" {HUB}{address.name}/FILE"
        )
    if not listed.is_whole:
        missing += [*unmet, *missing_shards(files)]
    if missing:
        n_files = len({*files, *missing})
        raise DataError(
            f"{path}: {len(missing)} of {n_files} files of the split are not here{reason}, such as"
            f" {missing[0]}; expected all; fetch them with a network, or name local files"
        )
    if not listed.is_whole:
        there = counted(len(files), "file in {} is", "files in {} are").format(listed.folder)
        distributed.say(
            f"{path}: which files the data set has could not be asked; its {there} read as the"
            " whole split"
        )
    return tuple(listed.folder / file for file in files)


def _missing(folder: Path, files: Sequence[str]) -> list[str]:
    return [file for file in files if not (folder / file).is_file()]


def _one_file(parts: Sequence[Path], address: Address) -> Path:
    """The rows of several files in one, which is named by their contents."""
    from huggingface_hub import constants

    digest = hashlib.sha256(JOINT)
    for part in parts:
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    suffix, write = _joint(parts)
    config = f"{address.config.replace('/', '-')}-" if address.config else ""
    name = f"{address.name.replace('/', '--')}-{config}{address.split}"
    folder = Path(constants.HF_HOME) / "traitscope"
    target = folder / f"{name}-{digest.hexdigest()[:16]}.{suffix}"
    if not target.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(parts, target)
        except OSError as error:
            raise StoreError(
                f"{folder} cannot be written ({error.strerror}); the files of a split are joined"
                " there; name another folder: HF_HOME=FOLDER"
            ) from error
    return target


def _joint(parts: Sequence[Path]) -> tuple[str, Callable[[Sequence[Path], Path], None]]:
    """The suffix of a file that takes the rows of several files, and what writes it.

    Tables of one header stay a table, so that their cells are read alike.
    """
    kinds = {container_of(part).kind for part in parts}
    kind = kinds.pop() if len(kinds) == 1 else "jsonl"
    if kind == "parquet":
        return kind, _write_parquet
    if kind in DELIMITERS and len({_first_line(part) for part in parts}) == 1:
        return kind, _write_table
    return "jsonl", _write_lines


def _first_line(part: Path) -> bytes:
    """The first line of a table, without its end."""
    return next(raw_lines(part), b"").rstrip(b"\r\n")


def _write_table(parts: Sequence[Path], target: Path) -> None:
    atomic_files.write_pieces(target, _lines_of_tables(parts))


def _lines_of_tables(parts: Sequence[Path]) -> Iterator[bytes]:
    """The lines of several tables with one header."""
    yield _first_line(parts[0]) + b"\n"
    for part in parts:
        for line in islice(raw_lines(part), 1, None):
            yield line if line.endswith(b"\n") else line + b"\n"


def _write_lines(parts: Sequence[Path], target: Path) -> None:
    atomic_files.write_pieces(target, _lines(parts))


def _lines(parts: Sequence[Path]) -> Iterator[bytes]:
    """The rows of several files as JSON lines; a row that cannot be read says there why."""
    for part in parts:
        for row in raw_rows(part, container_of(part)):
            if row.problem:
                place = row.place.rpartition(", ")[2]
                yield f"{BAD_ROW}{part.name}, {place}: {row.problem}\n".encode()
            else:
                yield f"{to_json(row.fields, allow_nan=True)}\n".encode()


def _write_parquet(parts: Sequence[Path], target: Path) -> None:
    """Join tables; their columns may differ."""
    import io

    import pyarrow
    from pyarrow import parquet

    tables: list[Any] = []
    try:
        for part in parts:
            is_zipped = container_of(part).gzipped
            file = io.BytesIO(gzip.decompress(part.read_bytes())) if is_zipped else part
            tables.append(parquet.read_table(file))
        whole = pyarrow.concat_tables(tables, promote_options="permissive")
    except (pyarrow.ArrowException, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{', '.join(map(str, parts))} cannot be joined to one table ({reason}); expected whole"
            f" files whose columns have the same types; name one file: {HUB}OWNER/NAME/FILE"
        ) from None
    stream = io.BytesIO()
    parquet.write_table(whole, stream)
    atomic_files.write_bytes(target, stream.getvalue())
