"""Rows of a file for a run, what was read of them, and rows written back as the file holds them."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

from traitscope import atomic_files, distributed
from traitscope.config.common import ROWS, ControlTokens, OnModel
from traitscope.config.rows.select import SelectConfig
from traitscope.config.stages import TrainConfig
from traitscope.data import row_files
from traitscope.data.prompt_files import read_prompts
from traitscope.data.records import Prompt, Record, dump_records
from traitscope.data.shapes import unchecked, writing
from traitscope.data.shapes.containers import container_of
from traitscope.data.shapes.intake import CONTROL, Control, Intake, Reading, count_chosen
from traitscope.errors import ConfigError, DataError
from traitscope.runs.store import Run

READING = "reading.json"
"file of a run that says what was read, left out and not used of a file of rows"
DATA = "data"
"setting that names the rows of a stage"
OF_PROMPTS = ("prompts", "contrast", "against")
"settings that name prompts"
BESIDE = {
    "control": "--control",
    "eas_data": "--eas-data",
    "clean": "--known clean",
    "more": "--more",
    "rejected": "--rejected",
    **{field: f"--{field}" for field in OF_PROMPTS},
}
"settings that name further rows or prompts, and what the terminal calls them"


class ReadsRows(Protocol):
    """Settings of a stage that reads rows."""

    @property
    def data(self) -> Path | None:
        """A run, or a file of rows."""

    @property
    def reading(self) -> Reading:
        """How the rows of a file are read."""


def intake_of(config: object, refused: Mapping[str, str] | None = None) -> Intake:
    """A count of rows that knows the control tokens of the config's model, where it has one."""
    how: ControlTokens = getattr(config, "control_tokens", "text")
    if not isinstance(config, OnModel):
        return Intake(control=Control(how=how), refused=refused or {})
    from traitscope.models.identity.finding import find_model
    from traitscope.models.templates.control import texts_in

    texts = sorted(texts_in(find_model(config.model)), key=len, reverse=True)
    pattern = re.compile("|".join([CONTROL.pattern, *map(re.escape, texts)]))
    return Intake(control=Control(pattern, how), refused=refused or {})


def kept_rows(
    run: Run,
    config: ReadsRows,
    keep_original: bool = False,
    field: str = DATA,
    refused: Mapping[str, str] | None = None,
) -> list[Record]:
    """The rows of a run or a file that no filter dropped, and what was read in READING.

    field: The setting that names the run or the file.
    refused: Reasons by id of rows that are bad because a model cannot read them.
    """
    intake = intake_of(config, refused)
    intake.reads_pairs = field == DATA and _reads_pairs(config)
    path = _data(config) if field == DATA else getattr(config, field)
    records = row_files.kept_rows(path, config.reading, intake, keep_original)
    write(run, intake, field)
    return records


def _reads_pairs(config: object) -> bool:
    """Whether a config has the rejected answers of its rows read, too."""
    if isinstance(config, SelectConfig):
        return config.rejected is None
    return isinstance(config, TrainConfig) and config.recipe.targets == "preference"


def readable(
    run: Run,
    config: ReadsRows,
    records: Sequence[Record],
    check: Callable[[Record], None],
    choose: Callable[[Sequence[Record]], Sequence[Record]] = list,
    field: str = DATA,
    keep_original: bool = False,
) -> list[Record]:
    """Those of the kept rows of a config that a model can read; the others are bad rows.

    check: Raises DataError for a row that the model cannot read.
    choose: Takes the rows that are used, such as the first few; no other row is checked.

    Raises DataError for more bad rows than may be left out, with the line of the first one.
    """
    refused: dict[str, str] = {}
    chosen = choose(records)
    while found := _refused(chosen, check):
        refused |= found
        records = kept_rows(run, config, keep_original, field, refused)
        chosen = choose(records)
    _count_others(run, field, chosen, len(records) - len(chosen))
    return list(chosen)


def _count_others(run: Run, field: str, chosen: Sequence[Record], others: int) -> None:
    """Count the chosen rows alone in what a run says of its rows, if it says anything.

    others: Number of rows that were not chosen.
    """
    file = run.file(reading_file(field))
    if others and file.is_file() and distributed.first():
        about = json.loads(file.read_bytes())
        count_chosen(about, map(attrgetter("notes"), chosen), others)
        atomic_files.write_json(file, about)


def _refused(records: Sequence[Record], check: Callable[[Record], None]) -> dict[str, str]:
    """Why rows cannot be read, by id."""
    reasons = {}
    for record in records:
        try:
            check(record)
        except DataError as error:
            reasons[record.id] = str(error)
    return reasons


def first(n: int | None) -> Callable[[Sequence[Record]], Sequence[Record]]:
    """A function that takes the first `n` rows; all for None."""
    return lambda records: records[:n]


def iter_kept(config: ReadsRows) -> Iterator[Record]:
    """The same one by one, where no run is open yet."""
    return row_files.iter_kept(_data(config), config.reading, intake_of(config))


def prompts(
    config: object, runs: Sequence[Run], field: str = OF_PROMPTS[0], domain: str | None = None
) -> list[Prompt]:
    """The prompts of a file, and what was read of them in every one of some runs.

    field: The setting that names the file. domain: The domain of the tasks that they ask, of
    CHECKED. Raises DataError for a file that cannot be read.
    """
    intake = intake_of(config)
    from_file = read_prompts(getattr(config, field), intake, domain)
    for run in runs:
        write(run, intake, field)
    return from_file


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


def write_rows(run: Run, records: Sequence[Record], data: Path) -> dict[str, int]:
    """Write `records.jsonl`, and the kept rows as the file `data` holds them.

    The second file is KEPT with the suffix of its container. Rows of a run have none.

    Returns what is said of it: counts of kept answers that are not in it, and of weights that are
    others there.
    """
    write_records(run, records)
    if is_written_back(data):
        file = row_files.rows_file(data)
        name = f"{row_files.KEPT}.{container_of(file).name}"
        writing.write_back(records, run.file(name), file)
        return writing.counts_of(records)
    return {}


def write_records(run: Run, records: Sequence[Record]) -> None:
    """Write `records.jsonl`. Prompts of later turns hold the answers of earlier ones as they are
    now, as the rows that are written back do."""
    bare = writing.without_original(unchecked.with_earlier_answers(records))
    atomic_files.write_text(run.file(row_files.RECORDS), dump_records(bare))


def is_written_back(data: Path) -> bool:
    """Whether rows come from a user's file, as which kept rows are written, too."""
    return not row_files.is_of_run(row_files.rows_file(data))


def kept_file(run: Run) -> Path | None:
    """The file of a run that holds rows as the user's file holds them; None where there is none."""
    return next(iter(sorted(run.path.glob(f"{row_files.KEPT}.*"))), None)


def write(run: Run, intake: Intake, field: str = DATA) -> None:
    """Write what was read, unless there is nothing to say: native rows, all read, all keys used.

    Of other rows than those of the data, only bad ones are something to say; of prompts, what is
    counted.
    """
    is_said = not intake.is_plain if field == DATA else intake.bad > 0
    if field in OF_PROMPTS:
        is_said = bool(intake.unused or +intake.notes)
    if is_said and distributed.first():
        atomic_files.write_json(run.file(reading_file(field)), intake.as_dict())


def said_of(folder: Path) -> dict[str, Any]:
    """What a run says of the file that its rows were read from, as `reading`; empty if nothing."""
    file = folder / READING
    return {"reading": json.loads(file.read_bytes())} if file.is_file() else {}


def write_again(run: Run, earlier: Iterable[Run]) -> None:
    """Write what the first of earlier runs read that left bad rows out, for a run made of them."""
    for other in earlier:
        file = other.file(READING)
        if file.exists() and json.loads(file.read_bytes())["bad"]:
            atomic_files.write_bytes(run.file(READING), file.read_bytes())
            return


def reading_file(field: str) -> str:
    """The file of a run that says what was read of the rows that a setting names."""
    return READING if field == DATA else f"reading-{field.replace('_', '-')}.json"
