"""The rows of a run directory or of a JSONL file."""

from collections.abc import Iterator
from pathlib import Path

from traitscope.data.records import Record, iter_records
from traitscope.errors import DataError


def iter_rows(path: Path) -> Iterator[Record]:
    """The records of a run or a JSONL file, one by one."""
    return iter_records(path / "records.jsonl" if path.is_dir() else path)


def rows_of(path: Path) -> list[Record]:
    """The records of a run or a JSONL file."""
    return list(iter_rows(path))


def iter_kept(path: Path) -> Iterator[Record]:
    """The records of a run or a JSONL file that its filter kept, one by one. Raises DataError where
    there is none."""
    none = True
    for record in iter_rows(path):
        if record.kept:
            none = False
            yield record
    if none:
        raise DataError(
            f"{path} has no kept row; expected one or more; look at the reasons in the filter's"
            " summary.json, or generate with --vocabulary template"
        )


def kept_rows(path: Path) -> list[Record]:
    """The same as a list."""
    return list(iter_kept(path))
