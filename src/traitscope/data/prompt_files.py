"""Prompts from .txt, JSONL and .csv files."""

from collections import Counter
from pathlib import Path
from string import whitespace
from typing import Any

from traitscope.data.domains.task import ANSWER, CHECKED, CHECKS, task_of
from traitscope.data.json_fields import check_finite, id_of, keys_in
from traitscope.data.json_lines import Seen, iter_lines, repeated
from traitscope.data.records import Prompt
from traitscope.data.shapes.containers import (
    Container,
    RawRow,
    check_header,
    check_prompts,
    container_of,
    raw_rows,
)
from traitscope.data.shapes.exchanges import prompt_in
from traitscope.data.shapes.inside.bad_rows import BadRows
from traitscope.data.shapes.inside.cells import cell_value
from traitscope.data.shapes.inside.mapping import mapped, pair_names, without_scores
from traitscope.data.shapes.intake import USUAL, Intake
from traitscope.data.shapes.messages import Message
from traitscope.data.shapes.rows import (
    HISTORY,
    SHAPES,
    SYSTEM_KEYS,
    WRITTEN_HERE,
    Row,
    ShapeName,
    prompt_messages,
    shape_of,
)
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

    A .txt file holds one prompt a line. JSON lines or a JSON array hold {"prompt"} and optionally
    id, a system turn (context, system, system_prompt) and earlier turns (history). Rows of any
    other shape hold a prompt, too: all turns before the answer, or all where none ends them. A .csv
    file has columns of these names. The prompt may be called Goal and the id Index, as in
    JailbreakBench's behaviors (Chao et al. 2024, arXiv 2404.01318).

    intake: What is counted: keys that are not used, and prompts with control tokens.
    domain: The domain of the tasks that the prompts ask, of CHECKED. Each JSONL row then needs what
    its answer is checked by: `checks` or `answer`.

    Raises DataError for a missing or empty file, and where no prompt is left. It names the line,
    and counts further bad rows, for broken JSON and for an id used before. So it does for a field
    that is missing, blank or of the wrong type.
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
    """Prompts of JSON lines or of a JSON array."""
    container = Container("json" if container_of(path).kind == "json" else "jsonl", gzipped=False)
    intake.container = container.kind
    bad_rows, seen = BadRows(USUAL, intake, are_prompts=True), Seen()
    prompts = []
    for row in raw_rows(path, container):
        intake.add_row(row.fields)
        try:
            prompts.append(_new_prompt(row, intake, domain, seen))
        except DataError as error:
            bad_rows.add(row.place, str(error))
    bad_rows.check()
    return prompts


def _new_prompt(row: RawRow, intake: Intake, domain: str | None, seen: Seen) -> Prompt:
    """The prompt of a row. Raises DataError for a bad one, and for an id of an earlier row."""
    if row.problem:
        raise DataError(row.problem)
    default = f"row{row.number:06d}" if row.part == 1 else f"row{row.number:06d}.{row.part}"
    prompt = _prompt(row.fields, default, intake, domain)
    earlier = seen.add(prompt.id.encode("utf-8", "surrogatepass"), row.number)
    if earlier is not None:
        unit = row.place.rpartition(", ")[2].partition(" ")[0]
        raise DataError(repeated(prompt.id, f"{unit} {earlier}", f"{unit} {row.number}"))
    return prompt


def _text_prompts(path: str | Path, intake: Intake) -> list[Prompt]:
    prompts = []
    for line in iter_lines(path, with_blank=True):
        if not line.text.strip(whitespace):
            intake.add_counts({"blank_lines": 1}, {})
            continue
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
    bad_rows, seen = BadRows(USUAL, intake, are_prompts=True), Seen()
    prompts = []
    for number, (_, cells, problem) in enumerate(rows, start=1):
        place = f"{path}, row {number}"
        if not problem and len(cells) != len(header):
            problem = ragged(len(cells), header)
        row = {} if problem else dict(zip(header, cells, strict=True))
        intake.add_row(row)
        try:
            fields = _fields_of(row, columns)
            prompts.append(_new_prompt(RawRow(place, number, fields, problem), intake, None, seen))
        except DataError as error:
            bad_rows.add(place, str(error))
    bad_rows.check()
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
    row, messages, used = _asked(row, used, notes, unused)
    is_as_written = isinstance(row.get("prompt"), str) and not row.get(HISTORY)
    text, context = prompt_in(messages, notes, split=not is_as_written)
    is_turn = context is None and bool(messages) and messages[0].role == "system"
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


def _asked(
    row: Row, used: set[str], notes: Counter[str], unused: Counter[str]
) -> tuple[Row, list[Message], set[str]]:
    """A row, its messages before the answer, and its keys that are read.

    used: Keys that are read of a row with a prompt. Raises DataError for a row of no shape.
    """
    if "prompt" not in row and (names := pair_names(row)):
        fields, others = mapped(row, names)
        row = {**without_scores(others), **fields}
    name: ShapeName | None
    try:
        name = shape_of(row)
    except DataError:
        name = None
    if "prompt" in row and name != "preference":  # the turns of a pair may begin with a system turn
        check_finite(row, used, notes)
        return row, prompt_messages(row, unused), used
    if name is None:
        raise DataError(
            f"no 'prompt' among the keys {keys_in(row)}, which fit no shape of rows; expected it,"
            " or the keys of a row, such as 'messages'; call the question 'prompt', or delete the"
            " row"
        )
    used = {*used, *SHAPES[name].used}
    check_finite(row, used, notes)
    messages = SHAPES[name].read(row, notes, unused)
    del notes["rejected"]
    if messages and messages[-1].role == "assistant":
        messages.pop()
        notes["answers"] += 1
    return row, messages, used
