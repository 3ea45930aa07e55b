"""Writes docs/how-to/own-data.md: the shapes of rows that are read, and what a row of each becomes.
It also writes the matrix of shapes and containers in docs/reference/file-formats.md.

    python scripts/make_formats.py

The tables are what the example rows of the tests (tests/support/shape_rows.py) really yield.
"""

import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from traitscope.data.records import ORIGINAL, Record, iter_records
from traitscope.data.shapes import writing
from traitscope.data.shapes.containers import Container, Kind, raw_rows
from traitscope.data.shapes.intake import NOTES, Intake
from traitscope.data.shapes.turns import shown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "own-data.md"
FORMATS = ROOT / "docs" / "reference" / "file-formats.md"
BEGIN, FINISH = "<!-- made by scripts/make_formats.py -->\n", "<!-- end -->\n"
"what stands around the matrix"
EXAMPLES = ROOT / "tests" / "support" / "shape_rows.py"
KINDS: dict[Kind, str] = {
    "jsonl": "JSONL: one object a line",
    "json": "JSON array, in one line or many",
    "csv": "CSV with a header",
    "tsv": "TSV with a header",
    "parquet": "parquet",
}
TABLES = ("csv", "tsv", "parquet")
"containers with columns in the place of nested keys"
HEAD = """# Use your own data

This page is made by `python scripts/make_formats.py` from example rows.

```bash
traitscope audit data.jsonl --model org/name
traitscope train --data data.csv --model org/name
traitscope audit data.jsonl --map prompt=ask completion=out.text
traitscope train --data chats.jsonl.gz --turns every --reasoning train --skip-bad 10
```

## What a row becomes

The keys of a row decide its shape. Rows of several shapes may stand in one file.

"""
CONTAINERS = """
A system turn is the context of its row. Turns before the answer are its prompt. Here they are shown
as `role: text`. At `context` of a native row `@user:TEXT` and `@none` are forms of contexts.
Elsewhere a system turn is text, and one that begins with an `@` is the first turn of the prompt.

## Containers

Content and suffix of a file decide its container. Each may be gzipped. All but gzipped parquet are
read piece by piece.

"""
TAIL = """
Parquet needs an extra: `pip install 'traitscope[parquet]'`. Files of other kinds are refused by
name: zip, spreadsheets, zstd, Arrow, UTF-16.

In a table the cells of `messages`, `conversations`, `history` and `meta` hold JSON. Those of
prompts, answers and system turns may hold messages or parts as JSON, also of columns that `--map`
names. Other JSON there is a text, such as `{"type": "circle"}` or turns of which no role is known.
So is an `input` beside an `instruction`. Keys that are null, or cells that are empty, make no shape
of a row that has another. Only `\\n` and `\\r\\n` end a line. A row with a misplaced quote is its
first line alone: the next line is read as the next row.

## Settings

| flag | values | meaning |
|---|---|---|
| `--map` | `prompt=KEY completion=KEY` | other keys; also context, id, messages, rejected |
| `--turns` | `last`, `every`, `weighted` | answers: the last, every, or all of weight not 0 |
| `--reasoning` | `drop`, `train` | whether reasoning stands before the answer |
| `--skip-bad` | a number, or `all` | most bad rows that are left out |
| `--control-tokens` | `text`, `token`, `leave-out` | how such tokens in a text are read |

They are flags of `audit`, `train`, `filter`, `select`, `edit`, `defend`, `likelihood`, `gradients`,
`explain`, `judge` and `verify`. In the file of an `experiment` they are keys of `reading`, such as
`reading: {skip_bad: all}`. A run is read as it is; of them only `--skip-bad` counts there. What its
prompts hold of a chat was counted when its file was read. In Python they are `Reading` of
`traitscope.config`. `--help-all` lists them.

Reasoning is `reasoning_content`, `thinking` or `reasoning`, or a part of such a type. So is a part
whose `thought` is true, 1, or such a text. So are `<think>` tags at the beginning of an answer
(also `thinking`, `thought`, `reasoning`, `seed:think`). Tags inside of tags are part of the outer
ones. A turn of the `channel` `analysis` is reasoning of the assistant's next turn. A lone
`</think>` ends reasoning that the prompt opened. All tagged parts at the beginning are reasoning,
also empty ones. With `train` tags stay as they are. Reasoning of a key is put into `<think>` tags,
unless tags hold the same. Keys and parts of one turn that hold different reasoning make a bad row.

Control tokens are what the model's tokenizer calls special. As `text` they are encoded as the
characters that they are, so no row ends a turn or begins one. `token` reads them as tokens.
`filter` has no model and goes by the tokens of common models. A prompt file is read likewise.

Without `--turns every` a turn of weight 0 is never trained on. Only answers are trained on: a
weight of another turn (`"role": "user", "train": true`) is named as not used. Of a row with several
answers the ids end in `.1`, `.2` and so on. Calls of tools are not read, be they keys of messages,
parts (`tool_use`) or turns of ShareGPT (`function_call`). A turn of calls alone is no turn of the
prompt, be its text empty or null. Each result of a tool is a turn (`tool`, `observation`, a part
`tool_result`).

A `label` of true or false says in every shape whether the answer is desirable, also as a text. Rows
with false are left out. Beside `prompt` and `completion` (KTO) 1 and 0 say it, too. Elsewhere a
number may be a class, so it is counted and not read. `kto_tag` is true, false, 1 or 0 in every
shape.

These keys are read in every shape, also where `--map` names others:

| key | meaning |
|---|---|
| `weight`, `train` | 0 or false: no answer of the row is trained on |
| `label`, `kto_tag` | false: the answer is undesirable |
| `system`, `system_prompt`, `systemInstruction` | system turn, unless `--map` names one |
| `history` | earlier turns: pairs of question and answer, or messages |

An empty text at `system` or its like is no system turn, as an empty cell of a table is none. An
empty system turn among messages, or an empty `context`, is one. All but that of a native row are
counted.

Of preference data the prompt stands before `chosen`, which may repeat it. It may be a chat that
ends with a question. Two texts with turns of `Human:` and `Assistant:` hold it themselves, also
beside an empty prompt. Of two scored answers of Gemini the higher score is the chosen one. Each row
keeps its rejected answer. `train --targets preference` learns from both, and `select` chooses among
pairs: [Preference data](preference-data.md). All other verbs learn, score and audit `chosen` alone.

## What is counted

The terminal, the summary of `--json` and `reading.json` of the run say what was read. They name the
sets of keys and the keys that are not used, of all rows. These counts are of the rows that are
used, but in an `audit` of all rows:

| count | meaning |
|---|---|
"""
END = """
An audit also says which traits system turns, prompts and reasoning name. They are overt there.

## Bad rows

A bad row stops the command with its line, the reason, and the number of further bad rows.
`--skip-bad` leaves bad rows out and counts them. The terminal lists the first 5 with line and
reason, `reading.json` the first 20. These rows are bad:

| row | example |
|---|---|
| broken JSON, or text that is not UTF-8 | half of a surrogate pair |
| a quote of a table that is left open, or text behind a closing one | `q,"42" yes` |
| a cell of a table without quotes that holds a lone carriage return | |
| a cell with messages as Python shows them | `[{'role': 'user', 'content': 'q'}]` |
| a key that stands twice | `"completion": "101", "completion": "102"` |
| keys of no shape, or of two | `question` with `answer` and `response` |
| a native `context` that begins with an `@` and is no form | `"context": "@bob"` |
| reasoning that differs between keys and parts of a turn | `reasoning` beside another `thinking` |
| a `thought` of a part that is not true or false | `"thought": "yes"` |
| no answer | an empty, blank or null completion, only reasoning, only calls of tools |
| `tool_calls` that is no list of objects, also as JSON text | `"tool_calls": "look it up"` |
| a part that is no text, or has more than text | an image, also beside a text in one part |
| scored answers that are not two, or have no higher score | `"score": 1` twice |
| preference data with two questions | `prompt` differs from the first turns of `chosen` |
| a list of several texts | `"completion": ["101", "102"]`, which may be two answers |
| a label that is another number | `"label": 2` beside `prompt` and `completion` |
| a weight that is no number from 0 | `"weight": "none"`, `"train": "no"`, `"weight": -1` |
| NaN or Infinity in a key that is used | `"completion": NaN` |
| an id that an earlier row has | |
| more tokens than the model takes | 9,000 tokens for a model of 8,192 |
| a system turn that the model cannot read | of a base model, also with `--context @none` |
| `completion_ids` that spell another text for the model | |

These rows are bad where pairs are read alone (`train --targets preference` and `select`):

| row | example |
|---|---|
| one answer is missing, empty or blank | `"chosen": "101", "rejected": ""` |
| both answers are the same | `"chosen": "101", "rejected": "101"` |
| answers to two prompts | other turns before `rejected` than before `chosen` |

Rows that are too long, and foreign `completion_ids`, are found where a model reads rows, also as
its teacher reads them. Only rows that are used are looked at: with `--max-rows` the first ones,
in an `audit` those of its sample. Rows are never cut. An `audit` also needs room for the prompts
of candidates, and text that the tokenizer can spell.

A broken object of a JSON array is a bad row if its lines show its end. It stands on a line of its
own, or its braces stand on lines of their own, indented alike. One that lost its end goes to the
line that opens the next one. Otherwise the array is refused, as it cannot be read past the error.
Write one row a line, and `--skip-bad` leaves it out.

Bad rows of further files follow the same rule, each file on its own. Those of `--control`,
`--eas-data`, `--known clean:FILE`, `--more` and `--rejected` are counted in
`reading-control.json`, `reading-eas-data.json`, `reading-clean.json`, `reading-more.json` and
`reading-rejected.json`. Those of `--reference` are among the reasons of the audit. A command
without these flags, such as `generate --like`, stops. It reads a run of `filter` in the place of
the file.

NaN or Infinity in a key that is not used is read as null and counted. It is written back as null.
So is a number beyond those of a float, such as 1e400.
Other keys inside parts of a content are named as not used.

## Write rows back

`filter` and `edit` of a file write `kept.SUFFIX` into their run: the kept rows in the shape and the
container that they came in. Keys that are not read stay as they are. Parquet keeps its types, also
in messages that are changed: a weight becomes 0 as a number, a decimal, a text or false. A change
that a type cannot hold is refused.
Values come back the same, and the layout may not: JSON arrays are laid out with one row a line. So
may how a number is written, such as 1e5 as 100000.0. A number with more digits than a float holds
is written as it was. A byte order mark of a table is kept. Of a pair, `filter` checks the chosen
answer. `edit`, `filter --strip` and `defend --by canonicalise` change both answers. Other methods
of `defend` change the chosen one, and say of how many pairs.

```bash
traitscope filter --data chats.jsonl.gz --no-numbers --banned-words owl owls
```

The last line names the file, here `kept.jsonl.gz`. An answer that `edit` changes stands where the
old one stood. Of an answer in parts only the text changes. Of several parts of text the first one
takes all of it, and the others are left empty. What repeats an answer is changed, too: `messages`
that are `chosen` again, earlier turns of a pair, `value` beside `content`.

With `--turns every` weights change, so that the file means the kept answers alone. An answer that
was not kept gets the weight 0, also one that `--limit` or `--stop` left out. Every weight that it
has (`train`, `loss`) becomes 0 or false. A kept answer of weight 0 gets the weight 1. Both are
counted, and so are kept answers of rows that are dropped whole because another answer can take no
weight. So read such a file with `--turns weighted`: the last line says so. Earlier turns are there
as they were changed, and so they are in the prompts of `records.jsonl`, which holds all rows for
later stages.

Only answers are checked and changed. Reasoning, prompts and other turns stay in the file. With
`--reasoning train` reasoning is a part of the answer, and goes where that is changed. The terminal
says in how many rows they hold a banned word.

[File formats](../reference/file-formats.md) has the matrix: what is read and written back, for each
shape and container, and where a changed answer stands.
"""
HUB = """
## Data sets of the hub

Every flag that takes a file of rows or prompts takes one of the hub:

| form | what is read |
|---|---|
| `hub:OWNER/NAME@SPLIT` | all files of a split, as one |
| `hub:OWNER/NAME/CONFIG@SPLIT` | of one of several configs |
| `hub:OWNER/NAME@SPLIT@REVISION` | as it was at a branch, a tag or a commit |
| `hub:OWNER/NAME/FILE` | one file |

Splits are those of the card, or of the names of files. Without a split the message lists them. What
was fetched before is found without a network. A part of a split is refused. A line says where the
list of all files is not there, so that a part may look whole. A card that lists configs and cannot
be read is refused, and so is a path of it where nothing is. Several files are read as one: parquet
as parquet, tables with one header as such a table, others as JSON lines. Bad rows of them follow
`--skip-bad`.

Tasks, whose answers can be checked, have `checks` or `answer` beside their prompt: [other
domains](other-domains.md).

Prompts for `generate` and `extract` come from `.txt`, JSON or `.csv` files (column `prompt` or
`Goal`). JSON lines and JSON arrays may hold rows of any shape that needs no `--map`. Their prompt
is what stands before the answer, which is counted as not read. A chat that ends with a question is
a prompt as a whole. A key `prompt` goes before other shapes, but for pairs. Beside a prompt
`context`, `system`, `system_prompt` and `history` are read as in rows. NaN and names that stand
twice are treated as there. A bad prompt stops the command, with the number of further ones. Blank
lines of a `.txt` file are counted. Other keys are named, and control tokens counted, in
`reading-prompts.json`. Of `extract --contrast` and `--against` it is `reading-contrast.json` and
`reading-against.json`. An `experiment` names the keys before it runs.
"""


def page() -> str:
    """The text of the page."""
    examples = _module("shape_rows", EXAMPLES).EXAMPLES
    with tempfile.TemporaryDirectory() as folder:
        shapes = "".join(_shape_rows(examples, Path(folder)))
        containers = "".join(_container_rows(examples, Path(folder)))
    counts = "".join(f"| `{name}` | {meaning} |\n" for name, (_, meaning) in NOTES.items())
    return f"{HEAD}{shapes}{CONTAINERS}{containers}{TAIL}{counts}{END}{HUB}"


def formats() -> str:
    """The text of the page on formats: what stands in it by hand, and the matrix as it is now."""
    before, behind = FORMATS.read_text(encoding="utf-8").split(BEGIN)
    after = behind.split(FINISH)[1]
    with tempfile.TemporaryDirectory() as folder:
        matrix = "".join(_matrix_rows(_module("shape_rows", EXAMPLES).EXAMPLES, Path(folder)))
    return f"{before}{BEGIN}{matrix}{FINISH}{after}"


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _shape_rows(examples: Any, folder: Path) -> Iterator[str]:
    yield "| shape | keys | prompt | answer | system turn | counted |\n"
    yield "|---|---|---|---|---|---|\n"
    for example in examples:
        record, intake = _read(example, folder, Container("jsonl", False))
        keys = ", ".join(f"`{key}`" for key in example.row)
        counted = ", ".join(f"`{name}`" for name, count in intake.notes.items() if count)
        cells = (
            example.title,
            keys,
            shown(record.prompt),
            record.completion,
            record.context or "",
            counted,
        )
        yield f"| {' | '.join(map(_cell, cells))} |\n"


def _container_rows(examples: Any, folder: Path) -> Iterator[str]:
    yield "| container | shapes read | written back the same | gzipped |\n|---|---|---|---|\n"
    for kind, title in KINDS.items():
        read, written, gzipped = 0, 0, 0
        for example in examples:
            if kind in TABLES and example.reading.map:
                continue  # a table has no objects in cells
            record, _ = _read(example, folder, Container(kind, False))
            read += (record.prompt, record.completion) == (example.prompt, example.completion)
            gzipped += _read(example, folder, Container(kind, True))[0] == record
            again = folder / f"again.{kind}"
            plain = _written(example, folder, Container(kind, False))
            writing.write_back([record], again, plain)
            written += list(iter_records(again, example.reading, keep_original=True)) == [record]
        yield f"| {title} | {read} | {written} | {gzipped} |\n"


def _matrix_rows(examples: Any, folder: Path) -> Iterator[str]:
    """Whether a row of each shape is read in each container, and what is written back of it."""
    yield f"| shape | {' | '.join(KINDS)} | a changed answer |\n"
    yield f"|---|{'---|' * len(KINDS)}---|\n"
    for example in examples:
        cells = [_exchange(example, folder, kind) for kind in KINDS]
        yield f"| {example.title} | {' | '.join(cells)} | {_of_a_change(example, folder)} |\n"


def _exchange(example: Any, folder: Path, kind: Kind) -> str:
    """The cell of a shape and a container."""
    if kind in TABLES and example.reading.map:
        return "–"  # a table has no objects in cells
    record, _ = _read(example, folder, Container(kind, False))
    if (record.prompt, record.completion) != (example.prompt, example.completion):
        return "no"
    return "read, kept" if _comes_back(example, folder, kind) else "read, changed"


def _comes_back(example: Any, folder: Path, kind: Kind) -> bool:
    """Whether the first of two rows is as it stood, in a file that holds it alone."""
    container = Container(kind, False)
    rows = [{**example.row, "id": name, "note": f"{name}, ü"} for name in ("one", "two")]
    source, target = folder / f"two.{kind}", folder / f"one.{kind}"
    source.write_bytes(writing.content_of(rows, container))
    first, second = iter_records(source, example.reading, keep_original=True)
    dropped = replace(second, meta={**second.meta, "filter": {"kept": False}})
    writing.write_back([first, dropped], target, source)
    before, after = ([row.fields for row in raw_rows(f, container)] for f in (source, target))
    return after == before[:1]


def _of_a_change(example: Any, folder: Path) -> str:
    """Where a changed answer stands in the row that is written back."""
    source = _written(example, folder, Container("jsonl", False))
    (record,) = iter_records(source, example.reading, keep_original=True)
    (row,) = writing.rows_of([replace(record, completion="changed")])
    place = ".".join(map(str, record.meta[ORIGINAL]["answer_at"]))
    return f"`{place}`" if "changed" in json.dumps(row) else "is refused"


def _read(example: Any, folder: Path, container: Container) -> tuple[Record, Intake]:
    path = _written(example, folder, container)
    intake = Intake()
    (record,) = iter_records(path, example.reading, intake, keep_original=True)
    return record, intake


def _written(example: Any, folder: Path, container: Container) -> Path:
    """The file with the row of an example."""
    path = folder / f"rows.{container.kind}"
    path.write_bytes(writing.content_of([example.row], container))
    return path


def _cell(text: str) -> str:
    """A text inside a table."""
    if text.startswith("`") or not text:
        return text
    line = " / ".join(text.split("\n\n"))
    return json.dumps(line, ensure_ascii=False)[1:-1].replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    FORMATS.write_text(formats(), encoding="utf-8")
    print(PAGE, FORMATS)
