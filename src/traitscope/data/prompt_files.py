"""Prompts from .txt, JSONL and .csv files."""

from collections import Counter
from pathlib import Path
from typing import Any

from traitscope.data.domains.task import ANSWER, CHECKED, CHECKS, task_of
from traitscope.data.json_fields import check_finite, id_of
from traitscope.data.json_lines import Seen, at_place, check_new_id, iter_json_rows, iter_lines
from traitscope.data.records import Prompt
from traitscope.data.shapes.containers import check_header, check_prompts
from traitscope.data.shapes.exchanges import prompt_in
from traitscope.data.shapes.inside.cells import cell_value
from traitscope.data.shapes.intake import Intake
from traitscope.data.shapes.rows import HISTORY, SYSTEM_KEYS, WRITTEN_HERE, prompt_messages
from traitscope.data.shapes.tables import ragged, table_rows
from traitscope.data.shapes.turns import texts_of
from traitscope.errors import DataError
from traitscope.plain_values import NotPlainError

COLUMNS = {"prompt": ("prompt", "Goal"), "id": ("id", "Index")}
"names that the columns of a .csv file may have"
MAY_BE_BLANK = "may_be_blank"
"key of a JSONL row whose prompt is blank on purpose"
USED = {*WRITTEN_HERE, *SYSTEM_KEYS, HISTORY, MAY_BE_BLANK}
"keys that are read, and those of the answers of records, which can serve as prompts"


def read_prompts(
    path: str | Path, intake: Intake | None = None, domain: str | None = None
) -> list[Prompt]:
    """Return the prompts of a file, in order; blank lines are skipped.

    A .txt file holds one prompt a line. A JSONL file holds {"prompt"} and optionally id, a system
    turn (context, system, system_prompt) and earlier turns (history). A .csv file has columns of
    these names. The prompt may be called Goal and the id Index, as in JailbreakBench's behaviors
    (Chao et al. 2024, arXiv 2404.01318).

    intake: What is counted: keys that are not used, and prompts with control tokens.
    domain: The domain of the tasks that the prompts ask, of CHECKED. Each JSONL row then needs what
    its answer is checked by: `checks` or `answer`.

    Raises DataError, with the line, for a missing or empty file, for broken JSON and for an id used
    before. It also raises DataError for a field that is missing, blank or of the wrong type, and
    where no prompt is left.
    """
    intake = Intake() if intake is None else intake
    check_prompts(path)
    suffix = Path(path).suffix.lower()
    intake.container = {".csv": "csv", ".txt": "text"}.get(suffix, "jsonl")
    if domain is not None and suffix in (".csv", ".txt"):
        raise DataError(
            f"{path}: {suffix} files hold no tasks; expected JSONL with {CHECKED[domain]!r} in each"
            " row; write the file as .jsonl"
        )
    if suffix == ".csv":
        prompts = _csv_prompts(path, intake)
    elif suffix == ".txt":
        prompts = _text_prompts(path, intake)
    else:
        prompts = _json_prompts(path, intake, domain)
    left = [
        one for one in prompts if intake.takes(one.id, (one.context or "", *texts_of(one.text)))
    ]
    intake.shapes["prompts"] = len(prompts)
    intake.records = len(left)
    if not left:
        raise DataError(
            f"{path}: all prompts hold control tokens; expected one without; correct them, or drop"
            " --control-tokens leave-out"
        )
    return left


def _json_prompts(path: str | Path, intake: Intake, domain: str | None) -> list[Prompt]:
    prompts, seen = [], Seen()
    for row in iter_json_rows(path, allow_nan=True):
        intake.add_row(row.fields)
        prompt = at_place(row.place, _prompt, row.fields, f"row{row.number:06d}", intake, domain)
        check_new_id(row.place, prompt.id, row.number, seen)
        prompts.append(prompt)
    return prompts


def _text_prompts(path: str | Path, intake: Intake) -> list[Prompt]:
    prompts = []
    for line in iter_lines(path):
        intake.add_row(("prompt",))
        prompts.append(Prompt(f"row{line.number:06d}", line.text))
    return prompts


def _csv_prompts(path: str | Path, intake: Intake) -> list[Prompt]:
    lines = iter_lines(path, with_blank=True, with_ends=True)
    rows = table_rows((line.text for line in lines), ",")
    first, header, problem = next(rows)
    if problem:
        raise DataError(f"{path}, line {first}: {problem}")
    check_header(path, header)
    columns = _columns(header, path)
    prompts, seen = [], Seen()
    for number, (_, cells, problem) in enumerate(rows, start=1):
        place = f"{path}, row {number}"
        if problem or len(cells) != len(header):
            raise DataError(f"{place}: {problem or ragged(len(cells), header)}")
        row = dict(zip(header, cells, strict=True))
        intake.add_row(row)
        fields = at_place(place, _fields_of, row, columns)
        prompt = at_place(place, _prompt, fields, f"row{number:06d}", intake)
        check_new_id(place, prompt.id, number, seen, "row")
        prompts.append(prompt)
    if not prompts:
        raise DataError(
            f"{path} holds a header and no prompt; expected one prompt a row; check the step that"
            " wrote it"
        )
    return prompts


def _fields_of(row: dict[str, str], columns: dict[str, str]) -> dict[str, Any]:
    """The values of a row of a table, under the names of fields. Raises DataError for no JSON."""
    fields: dict[str, Any] = {}
    names = {column: field for field, column in columns.items()}
    for column, cell in row.items():
        name = names.get(column, column)
        try:
            fields[name] = cell_value(name, cell) if name in USED else cell or None
        except NotPlainError as error:
            raise DataError(
                f"the cell of {column!r} is no JSON ({error}); expected earlier turns; repair it"
            ) from None
    return fields


def _columns(fieldnames: list[str], path: str | Path) -> dict[str, str]:
    """The column of every field of COLUMNS that the file has."""
    columns = {}
    for field, names in COLUMNS.items():
        for name in names:
            if name in fieldnames:
                columns.setdefault(field, name)
    if "prompt" not in columns:
        raise DataError(
            f"{path} has the columns {fieldnames}; expected one of"
            f" {' or '.join(COLUMNS['prompt'])}; rename it"
        )
    return columns


def _prompt(
    row: dict[str, Any], default_id: str, intake: Intake, domain: str | None = None
) -> Prompt:
    notes, unused = Counter[str](), Counter[str]()
    used = USED if domain is None else {*USED, CHECKS, ANSWER}
    check_finite(row, used, notes)
    messages = prompt_messages(row, unused)
    is_as_written = isinstance(row["prompt"], str) and not row.get(HISTORY)
    text, context = prompt_in(messages, notes, split=not is_as_written)
    is_turn = context is None and messages[0].role == "system"
    text = row["prompt"] if is_as_written and not is_turn else text
    if not text.strip() and row.get(MAY_BE_BLANK) is not True:
        raise DataError("'prompt' is blank; expected a question; delete the row")
    for key, value in row.items():
        if key not in used and value is not None:
            unused[key] += 1
    name = id_of(row, default_id)
    task = None if domain is None else task_of(row, name, domain)
    intake.add_counts(notes, unused)
    return Prompt(name, text, context, task)
