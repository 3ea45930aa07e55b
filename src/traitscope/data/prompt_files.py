"""Prompts from .txt, JSONL and .csv files."""

import csv
import io
from pathlib import Path
from typing import Any

from traitscope.data.json_fields import context_of, id_of, text_of
from traitscope.data.json_lines import Seen, at_place, check_new_id, iter_json_rows, iter_lines
from traitscope.data.records import Prompt
from traitscope.data.shapes.tables import LEFT_OPEN, is_left_open, ragged
from traitscope.errors import DataError

COLUMNS = {"prompt": ("prompt", "Goal"), "id": ("id", "Index")}
"names that the columns of a .csv file may have"
MAY_BE_BLANK = "may_be_blank"
"key of a JSONL row whose prompt is blank on purpose"


def read_prompts(path: str | Path) -> list[Prompt]:
    """Return the prompts of a file, in order; blank lines are skipped.

    A .txt file holds one prompt a line. A JSONL file holds {"prompt"} and optionally id and
    context; other keys are ignored, so a file of records can serve as prompts. A .csv file has a
    column prompt or Goal, and optionally id or Index, as JailbreakBench's behaviors do (Chao et al.
    2024, arXiv 2404.01318).

    Raises DataError, with the line, for a missing or empty file, for broken JSON and for an id used
    before. It also raises DataError for a field that is missing, blank or of the wrong type.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        return _csv_prompts(path)
    if suffix == ".txt":
        return _text_prompts(path)
    prompts, seen = [], Seen()
    for row in iter_json_rows(path):
        prompt = at_place(row.place, _prompt, row.fields, f"row{row.number:06d}")
        check_new_id(row.place, prompt.id, row.number, seen)
        prompts.append(prompt)
    return prompts


def _text_prompts(path: str | Path) -> list[Prompt]:
    prompts = []
    for line in iter_lines(path):
        prompts.append(Prompt(f"row{line.number:06d}", line.text))
    return prompts


def _csv_prompts(path: str | Path) -> list[Prompt]:
    texts = [line.text for line in iter_lines(path)]
    text = "\n".join(texts)
    if is_left_open(texts, ","):
        raise DataError(f"{path}: {LEFT_OPEN.format(len(texts))}")
    rows = csv.DictReader(io.StringIO(text))
    columns = _columns(rows.fieldnames or (), path)
    prompts, seen = [], Seen()
    for number, row in enumerate(rows, start=1):
        place = f"{path}, row {number}"
        _check_cells(place, row, list(rows.fieldnames or ()))
        fields = {field: row[column] for field, column in columns.items()}
        prompt = at_place(place, _prompt, fields, f"row{number:06d}")
        check_new_id(place, prompt.id, number, seen, "row")
        prompts.append(prompt)
    return prompts


def _check_cells(place: str, row: dict, header: list[str]) -> None:
    """Raise DataError for a row with more or fewer cells than the header.

    The reader puts further ones under None, and None for those that are missing.
    """
    missing = sum(value is None for value in row.values())
    further = len(row.get(None) or ())
    if missing or further:
        raise DataError(f"{place}: {ragged(len(header) - missing + further, header)}")


def _columns(fieldnames: list[str] | tuple[str, ...], path: str | Path) -> dict[str, str]:
    """The column of every field of COLUMNS that the file has."""
    columns = {}
    for field, names in COLUMNS.items():
        for name in names:
            if name in fieldnames:
                columns.setdefault(field, name)
    if "prompt" not in columns:
        raise DataError(
            f"{path} has the columns {list(fieldnames)}; expected one of"
            f" {' or '.join(COLUMNS['prompt'])}; rename it"
        )
    return columns


def _prompt(row: dict[str, Any], default_id: str) -> Prompt:
    text = text_of(row, "prompt")
    if not text.strip() and row.get(MAY_BE_BLANK) is not True:
        raise DataError("'prompt' is blank; expected a question; delete the row")
    return Prompt(id_of(row, default_id), text, context_of(row))
