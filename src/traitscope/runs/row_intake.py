"""Rows of a file for a run, what was read of them, and rows written back as the file holds them."""

from collections.abc import Sequence
from pathlib import Path

from traitscope import atomic_files, distributed
from traitscope.data import row_files
from traitscope.data.records import Record, dump_records
from traitscope.data.shapes import writing
from traitscope.data.shapes.containers import container_of
from traitscope.data.shapes.intake import Intake, Reading
from traitscope.runs.store import Run

READING = "reading.json"
"file of a run that says what was read, left out and not used of a file of rows"
KEPT = "kept"
"name, without its suffix, of the file of a run that holds kept rows as the user's file holds them"


def kept_rows(run: Run, path: Path, reading: Reading, keep_original: bool = False) -> list[Record]:
    """The rows of a run or a file that no filter dropped, and what was read in READING."""
    intake = Intake()
    records = row_files.kept_rows(path, reading, intake, keep_original)
    write(run, intake)
    return records


def rows_of(run: Run, path: Path, reading: Reading, keep_original: bool = False) -> list[Record]:
    """The same with the rows that a filter dropped."""
    intake = Intake()
    records = row_files.rows_of(path, reading, intake, keep_original)
    write(run, intake)
    return records


def write_rows(run: Run, records: Sequence[Record], data: Path) -> None:
    """Write `records.jsonl`, and the kept rows as the file `data` holds them.

    The second file is KEPT with the suffix of its container. Rows of a run have none.
    """
    bare = writing.without_original(records)
    atomic_files.write_text(run.file(row_files.RECORDS), dump_records(bare))
    file = row_files.rows_file(data)
    if not row_files.is_of_run(file):
        name = f"{KEPT}.{container_of(file).name}"
        writing.write_back(records, run.file(name), file)


def kept_file(run: Run) -> Path | None:
    """The file of a run that holds rows as the user's file holds them; None where there is none."""
    return next(iter(sorted(run.path.glob(f"{KEPT}.*"))), None)


def write(run: Run, intake: Intake) -> None:
    """Write what was read, unless there is nothing to say: native rows, all read, all keys used."""
    if not intake.is_plain and distributed.first():
        atomic_files.write_json(run.file(READING), intake.as_dict())
