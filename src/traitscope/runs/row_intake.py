"""Rows of a file for a run, what was read of them, and rows written back as the file holds them."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from traitscope import atomic_files, distributed
from traitscope.config.common import ROWS, OnModel
from traitscope.data import row_files
from traitscope.data.records import Record, dump_records
from traitscope.data.shapes import writing
from traitscope.data.shapes.containers import container_of
from traitscope.data.shapes.intake import CONTROL, Control, Intake, Reading
from traitscope.errors import ConfigError
from traitscope.runs.store import Run

READING = "reading.json"
"file of a run that says what was read, left out and not used of a file of rows"
KEPT = "kept"
"name, without its suffix, of the file of a run that holds kept rows as the user's file holds them"


class ReadsRows(Protocol):
    """Settings of a stage that reads rows."""

    @property
    def data(self) -> Path | None:
        """A run, or a file of rows."""

    @property
    def reading(self) -> Reading:
        """How the rows of a file are read."""


def intake_of(config: ReadsRows) -> Intake:
    """A count of rows that knows the control tokens of the config's model, where it has one."""
    leave_out = getattr(config, "control_tokens", "text") == "leave-out"
    if not isinstance(config, OnModel):
        return Intake(control=Control(leave_out=leave_out))
    from traitscope.models.identity.finding import find_model
    from traitscope.models.templates.control import texts_in

    texts = sorted(texts_in(find_model(config.model)), key=len, reverse=True)
    pattern = re.compile("|".join([CONTROL.pattern, *map(re.escape, texts)]))
    return Intake(control=Control(pattern, leave_out))


def kept_rows(run: Run, config: ReadsRows, keep_original: bool = False) -> list[Record]:
    """The rows of a run or a file that no filter dropped, and what was read in READING."""
    intake = intake_of(config)
    records = row_files.kept_rows(_data(config), config.reading, intake, keep_original)
    write(run, intake)
    return records


def iter_kept(config: ReadsRows) -> Iterator[Record]:
    """The same one by one, where no run is open yet."""
    return row_files.iter_kept(_data(config), config.reading, intake_of(config))


def rows_of(run: Run, config: ReadsRows, keep_original: bool = False) -> list[Record]:
    """The same with the rows that a filter dropped."""
    intake = intake_of(config)
    records = row_files.rows_of(_data(config), config.reading, intake, keep_original)
    write(run, intake)
    return records


def _data(config: ReadsRows) -> Path:
    """The rows of a config. Raises ConfigError where it names none."""
    if config.data is None:
        raise ConfigError(f"--data is missing: name {ROWS}")
    return config.data


def write_rows(run: Run, records: Sequence[Record], data: Path) -> None:
    """Write `records.jsonl`, and the kept rows as the file `data` holds them.

    The second file is KEPT with the suffix of its container. Rows of a run have none.
    """
    bare = writing.without_original(records)
    atomic_files.write_text(run.file(row_files.RECORDS), dump_records(bare))
    if is_written_back(data):
        file = row_files.rows_file(data)
        name = f"{KEPT}.{container_of(file).name}"
        writing.write_back(records, run.file(name), file)


def is_written_back(data: Path) -> bool:
    """Whether rows come from a user's file, as which kept rows are written, too."""
    return not row_files.is_of_run(row_files.rows_file(data))


def kept_file(run: Run) -> Path | None:
    """The file of a run that holds rows as the user's file holds them; None where there is none."""
    return next(iter(sorted(run.path.glob(f"{KEPT}.*"))), None)


def write(run: Run, intake: Intake) -> None:
    """Write what was read, unless there is nothing to say: native rows, all read, all keys used."""
    if not intake.is_plain and distributed.first():
        atomic_files.write_json(run.file(READING), intake.as_dict())
