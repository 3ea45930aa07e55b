"""Rows that an experiment is given as files: how they are read, how many there are, what is said.

A file is read once in a process, as long as it does not change.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from traitscope.config.rows.filtering import FilterRules
from traitscope.config.rows.reading import Reading
from traitscope.data.prompt_files import read_prompts
from traitscope.data.row_files import hold_the_same, iter_rows, rows_file
from traitscope.data.shapes.inside.said import notes_of
from traitscope.data.shapes.intake import Intake
from traitscope.data.traits import load_trait
from traitscope.errors import ConfigError, DataError
from traitscope.plurals import counted
from traitscope.stages.filter import filter_records
from traitscope.studies.experiment.file import NUMBERS, ROWS, Experiment

DATA_PROMPTS = "data.prompts"
"the key of the prompts that teachers answer"
VALUES = r"all|\d+|last|every|weighted|drop|train"
FLAG = re.compile(rf"--(map|turns|reasoning|skip-bad)((?: \w+=[^\s;,)]+)+| (?:{VALUES})\b)?")
"a flag of reading in a message, with its value"


@dataclass(frozen=True)
class GivenRows:
    """What a file of rows holds for the students of an experiment."""

    rows: int
    """Rows that can be read."""
    kept: int
    """Rows among them that the experiment's filter keeps."""
    notes: tuple[str, ...]
    """What was not used or left out, in words."""


def rules_of(experiment: Experiment) -> FilterRules:
    """Return the rules of the experiment's filter; those of `none` keep every row."""
    data = experiment.data
    if data.kept == "numbers":
        return FilterRules(max_count=data.numbers)
    words: dict[str, None] = {}
    if data.kept == "trait-words":
        for trait in experiment.traits:
            words |= dict.fromkeys(load_trait(trait, words=False).word_forms)
    return FilterRules(banned_words=tuple(words), numbers=False)


def reading_of(experiment: Experiment, teacher: str = "") -> Reading:
    """Return how the rows of a teacher are read, or those of controls."""
    own = experiment.teachers[teacher].reading if teacher else None
    return own or experiment.reading


def given_rows(experiment: Experiment, path: Path, reading: Reading) -> GivenRows:
    """Return what a file holds. Raises DataError where nothing is left, and for bad rows."""
    status = rows_file(path).stat()
    return _read(path, reading, rules_of(experiment), (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=64)
def _read(path: Path, reading: Reading, rules: FilterRules, _: tuple[int, int]) -> GivenRows:
    """The same, once for each state of the file."""
    intake, dropped = Intake(), Counter[str]()
    rows = kept = 0
    for record in iter_rows(path, reading, intake):
        (decided,) = filter_records([record], rules)
        rows += 1
        kept += decided.kept
        dropped.update(decided.drop_reasons)
    if not kept:
        kind = "numbers" if rules.numbers else "trait-words"
        reasons = ", ".join(f"{count} by {reason}" for reason, count in dropped.most_common())
        most = f", or more than {rules.max_count} data.numbers" if dropped["count"] else ""
        raise DataError(
            f"{path}: the filter {kind} keeps none of {counted(rows, 'row')} (dropped: {reasons});"
            f" expected one or more; name another data.filter{most}, or other rows"
        )
    return GivenRows(rows, kept, tuple(notes_of(intake.as_dict(), file="")))


def files_of(experiment: Experiment) -> dict[tuple[Path, Reading], str]:
    """Return the files of rows with how they are read, and where the experiment names them."""
    files: dict[tuple[Path, Reading], str] = {}
    for name, teacher in experiment.teachers.items():
        if teacher.rows is not None:
            files.setdefault((teacher.rows, reading_of(experiment, name)), f"teachers.{name}")
    for control in experiment.all_controls:
        if isinstance(control, dict) and ROWS in control:
            files.setdefault((Path(control[ROWS]), experiment.reading), "controls")
    return files


def prompts_of(experiment: Experiment) -> dict[Path, str]:
    """Return the files of prompts of an experiment with where it names them, in data or judge."""
    files: dict[Path, str] = {}
    if not experiment.data.about_numbers:
        files[Path(experiment.data.prompts)] = DATA_PROMPTS
    judge = experiment.measures.judge
    if judge is not None and judge.prompts is not None:
        files.setdefault(judge.prompts, "measures.judge")
    return files


def check_files(experiment: Experiment, where: str) -> None:
    """Raise ConfigError for rows that are not there, and DataError for what cannot be read."""
    for (path, reading), named_at in files_of(experiment).items():
        if not path.exists():
            raise ConfigError(
                f"{where}: {named_at}: rows {path} do not exist; expected a file of rows or a run;"
                " check the path"
            )
        given_rows(experiment, path, reading)
    _check_other_rows(experiment, where)
    for path, named_at in prompts_of(experiment).items():
        if not path.exists():
            words = f" {NUMBERS}, or" if named_at == DATA_PROMPTS else ""
            raise ConfigError(
                f"{where}: {named_at}: prompts {path} do not exist; expected{words} a file of"
                " prompts; correct it"
            )
        read_prompts(path)


def _check_other_rows(experiment: Experiment, where: str) -> None:
    """Raise ConfigError for a control that reads the rows of its teacher in the same way."""
    for name, teacher in experiment.teachers.items():
        if teacher.rows is None or reading_of(experiment, name) != experiment.reading:
            continue
        for control in experiment.students_of(name).controls or ():
            rows = control.get(ROWS) if isinstance(control, dict) else None
            if rows is not None and hold_the_same(teacher.rows, Path(rows)):
                raise ConfigError(
                    f"{where}: teachers.{name} and its control hold the same rows ({teacher.rows},"
                    f" {rows}), so their students are the same; expected other rows; name those of"
                    " a model without the trait"
                )


def said_of_files(experiment: Experiment) -> list[str]:
    """Return what was not used or left out of every file, in words."""
    lines = []
    for path, reading in files_of(experiment):
        for note in given_rows(experiment, path, reading).notes:
            lines.append(f"{path}: {note}")
    for path in prompts_of(experiment):
        intake = Intake()
        read_prompts(path, intake)
        for note in notes_of(intake.as_dict(), file=""):
            lines.append(f"{path}: {note}")
    return lines


@contextmanager
def advice_of_the_file() -> Iterator[None]:
    """Raise errors with keys of the experiment's file in the place of flags of other commands."""
    try:
        yield
    except (ConfigError, DataError) as error:
        text = FLAG.sub(_key, str(error))
        raise (error if text == str(error) else type(error)(text)) from None


def _key(flag: re.Match[str]) -> str:
    """Return the key of the experiment's file that stands for a flag."""
    name, value = flag[1].replace("-", "_"), (flag[2] or "").strip()
    if not value:
        return f"reading.{name}"
    if name == "map":
        value = f"[{', '.join(value.split())}]"
    return f"reading: {{{name}: {value}}}"
