"""Rows of a file for a run, and the file of the run that says what was read of them."""

from pathlib import Path

from traitscope import atomic_files, distributed
from traitscope.data import row_files
from traitscope.data.records import Record
from traitscope.data.shapes.intake import Intake, Reading
from traitscope.runs.store import Run

READING = "reading.json"
"file of a run that says what was read, left out and not used of a file of rows"


def kept_rows(run: Run, path: Path, reading: Reading) -> list[Record]:
    """The rows of a run or a file that no filter dropped, and what was read in READING."""
    intake = Intake()
    records = row_files.kept_rows(path, reading, intake)
    write(run, intake)
    return records


def rows_of(run: Run, path: Path, reading: Reading) -> list[Record]:
    """The same with the rows that a filter dropped."""
    intake = Intake()
    records = row_files.rows_of(path, reading, intake)
    write(run, intake)
    return records


def write(run: Run, intake: Intake) -> None:
    """Write what was read, unless there is nothing to say: native rows, all read, all keys used."""
    if not intake.is_plain and distributed.first():
        atomic_files.write_json(run.file(READING), intake.as_dict())
