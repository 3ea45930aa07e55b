"""The rows of a run directory or of a JSONL file."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from traitscope.data.records import Record, iter_records
from traitscope.errors import DataError

RECORDS = "records.jsonl"
"File of a run that holds rows."


def rows_file(path: Path) -> Path:
    """The file with the rows of a run, or the file itself. Raises DataError for a folder without
    rows."""
    if not path.is_dir():
        return path
    file = path / RECORDS
    if not file.is_file():
        raise DataError(
            f"{path} is {_kind_of(path)}, which has no rows; expected a run of generate, filter or"
            f" edit, with {RECORDS}, or a JSONL file; name one"
        )
    return file


def _kind_of(folder: Path) -> str:
    """What a folder is, in words: a run of some stage, or a folder."""
    try:
        stage = json.loads((folder / "config.json").read_bytes())["stage"]
    except (OSError, ValueError, KeyError, TypeError):
        return "a folder"
    return f"a run of {stage}"


def iter_rows(path: Path) -> Iterator[Record]:
    """The records of a run or a JSONL file, one by one. Raises DataError for a folder without
    rows."""
    return iter_records(rows_file(path))


def rows_of(path: Path) -> list[Record]:
    """The records of a run or a JSONL file."""
    return list(iter_rows(path))


def iter_kept(path: Path) -> Iterator[Record]:
    """The records of a run or a JSONL file that its filter kept, one by one. Raises DataError where
    there is none."""
    dropped: Counter[str] = Counter()
    none = True
    for record in iter_rows(path):
        if record.kept:
            none = False
            yield record
        else:
            dropped.update(record.drop_reasons)
    if none:
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
        raise DataError(
            f"{path} has no kept row: its filter dropped all ({reasons or 'no reasons given'});"
            " expected one or more; filter with other rules, or generate other rows"
        )


def kept_rows(path: Path) -> list[Record]:
    """The same as a list."""
    return list(iter_kept(path))


def random_subset(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    """`n` of the records at random, in their order; all for 0."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(records))
    return [records[i] for i in sorted(order[: n or None])]
