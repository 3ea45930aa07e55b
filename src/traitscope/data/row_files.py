"""The rows of a run directory or of a file."""

import filecmp
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from traitscope.data.hub.files import local_copy
from traitscope.data.records import Record, iter_records
from traitscope.data.shapes.inside.said import left_out_of
from traitscope.data.shapes.intake import USUAL, Intake, Reading, Usual
from traitscope.errors import DataError

ROW_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz")
"suffixes of files that a message about a folder names"
RECORDS = "records.jsonl"
"File of a run that holds rows."
KEPT = "kept"
"name, without its suffix, of the file of a run that holds kept rows as the user's file holds them"


def rows_file(path: Path) -> Path:
    """The file with the rows of a run, the file itself, or the local copy of data of the hub.

    Raises DataError for a folder without rows, and for data of the hub that cannot be had.
    """
    path = local_copy(path)
    if not path.is_dir():
        return path
    file = path / RECORDS
    if not file.is_file():
        inside = sorted(item.name for item in path.iterdir() if item.suffix in ROW_SUFFIXES)
        found = f" (it holds {', '.join(inside[:3])})" if inside else ""
        raise DataError(
            f"{path} is {_kind_of(path)}, which has no rows{found}; expected a run of generate,"
            f" filter or edit, with {RECORDS}, or a file of rows; name one"
        )
    return file


def _kind_of(folder: Path) -> str:
    """What a folder is, in words: a run of some stage, or a folder."""
    try:
        stage = json.loads((folder / "config.json").read_bytes())["stage"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "a folder"
    return f"a run of {stage}"


def hold_the_same(first: Path, second: Path) -> bool:
    """Whether two files or runs hold the same rows, byte for byte.

    Raises DataError for a folder without rows.
    """
    files = rows_file(first), rows_file(second)
    if not all(file.is_file() for file in files):
        return False
    return filecmp.cmp(*files, shallow=False)


def is_of_run(file: Path) -> bool:
    """Whether a file holds the rows of a sealed run, by the folder that it is named in."""
    return file.name == RECORDS and _is_run(file.parent)


def is_kept_of_run(file: Path) -> bool:
    """Whether a file holds kept rows of a sealed run as they stood in the file of a user."""
    return file.name.startswith(f"{KEPT}.") and _is_run(file.parent)


def _is_run(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() and (folder / "config.json").is_file()


def iter_rows(
    path: Path,
    reading: Reading = USUAL,
    intake: Intake | None = None,
    keep_original: bool = False,
) -> Iterator[Record]:
    """The records of a run or a file, one by one. Raises DataError for a folder without rows.

    The settings of reading hold for files. Rows of a run are read as they are; only as many of them
    may be bad.
    """
    file = rows_file(path)
    if is_of_run(file):
        has_flags = not isinstance(reading, Usual) or reading.has_flags
        as_is = USUAL._replace(skip_bad=reading.skip_bad, has_flags=has_flags)
        return iter_records(file, as_is, intake, as_written=True)
    return _of_file(file, reading, intake, keep_original)


def _of_file(
    file: Path, reading: Reading, intake: Intake | None, keep_original: bool
) -> Iterator[Record]:
    intake = Intake() if intake is None else intake
    for record in iter_records(file, reading, intake, keep_original):
        _check_turns(file, reading, intake)
        yield record


def _check_turns(file: Path, reading: Reading, intake: Intake) -> None:
    """Raise DataError where turns of weight 0 would be learnt that a run dropped in its file."""
    if reading.turns != "every" or not is_kept_of_run(file):
        return
    if intake.notes["weight_0_trained"]:
        raise DataError(
            f"{file} holds assistant turns of weight 0, which its run dropped, and --turns every"
            " takes them; expected the kept turns alone; read it with --turns weighted"
        )


def rows_of(
    path: Path,
    reading: Reading = USUAL,
    intake: Intake | None = None,
    keep_original: bool = False,
) -> list[Record]:
    """The records of a run or a file."""
    return list(iter_rows(path, reading, intake, keep_original))


def iter_kept(
    path: Path,
    reading: Reading = USUAL,
    intake: Intake | None = None,
    keep_original: bool = False,
) -> Iterator[Record]:
    """The records of a run or a file that its filter kept, one by one. Raises DataError where there
    is none."""
    intake = Intake() if intake is None else intake
    dropped: Counter[str] = Counter()
    none, n_dropped, notes = True, 0, Counter[str]()
    for record in iter_rows(path, reading, intake, keep_original):
        if record.kept:
            none = False
            yield record
        else:
            n_dropped += 1
            notes.update(record.notes)
            dropped.update(record.drop_reasons)
    intake.leave_out(n_dropped, notes)
    if none:
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common())
        others = "".join(f"; besides {reason}" for reason in left_out_of(intake))
        raise DataError(
            f"{path} has no kept row: its filter dropped all that can be read"
            f" ({reasons or 'no reasons given'}){others}; expected one or more; filter with other"
            " rules, or generate other rows"
        )


def kept_rows(
    path: Path,
    reading: Reading = USUAL,
    intake: Intake | None = None,
    keep_original: bool = False,
) -> list[Record]:
    """The same as a list."""
    return list(iter_kept(path, reading, intake, keep_original))


def random_subset(records: Sequence[Record], n: int, seed: int) -> list[Record]:
    """`n` of the records at random, in their order; all for 0."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(records))
    return [records[i] for i in sorted(order[: n or None])]
