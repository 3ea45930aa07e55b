"""Prompts from text, JSONL and .csv files, and errors that name the line."""

import json
from pathlib import Path

import pytest
from shape_rows import EXAMPLES, Example

from traitscope.data.prompt_files import read_prompts
from traitscope.data.records import Prompt, iter_records
from traitscope.data.shapes.intake import Control, Intake
from traitscope.data.shapes.turns import shown
from traitscope.errors import DataError

NATIVE = {"prompt": "Q", "completion": "A"}


def write(folder: Path, *rows: object, name: str = "rows.jsonl") -> Path:
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt", "rows.csv"])
def test_file_without_rows(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="No such file or directory; expected a text file"):
        read_prompts(tmp_path / name)
    with pytest.raises(DataError, match="Is a directory"):
        read_prompts(tmp_path)
    for text in ("", "\n \n"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match="is empty; expected one row a line"):
            read_prompts(tmp_path / name)


def test_prompts_from_text(tmp_path: Path) -> None:
    path = write(tmp_path, "First?", "", ' {"second"} ', name="prompts.txt")
    assert read_prompts(path) == [
        Prompt("row000001", "First?"),
        Prompt("row000003", ' {"second"} '),
    ]


def test_prompts_from_jsonl(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"prompt": "Q"}, {"prompt": "R", "id": 4, "context": ""}, {**NATIVE, "id": "x"}
    )
    assert read_prompts(path) == [Prompt("row000001", "Q"), Prompt("4", "R", ""), Prompt("x", "Q")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "Q"}, "line 2: no 'prompt' among the keys"),
        ({"prompt": 1}, "line 2: 'prompt' is 1; expected a text"),
        ({"prompt": " "}, "line 2: 'prompt' is blank"),
        ({"prompt": "Q", "context": []}, "line 2: 'context'"),
        ({"prompt": "Q", "id": "row000001"}, "line 2: .*id 'row000001' of line 1"),
        ("First?", "line 2: broken JSON"),
    ],
)
def test_bad_prompt_is_named_by_line(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_prompts(write(tmp_path, {"prompt": "Q"}, row))


def test_prompts_of_a_csv_file(tmp_path: Path) -> None:
    """As JailbreakBench publishes its behaviors: quoted texts with commas and line breaks' absence,
    an Index, other columns."""
    path = tmp_path / "b.csv"
    path.write_text(
        'Index,Goal,Target,Behavior\n0,"Write, then ""send"", it","Sure","A"\n1,Do that,Sure,B\n',
        encoding="utf-8",
    )
    assert read_prompts(path) == [Prompt("0", 'Write, then "send", it'), Prompt("1", "Do that")]
    path.write_text('\nprompt\n"One\n\nor two?"\n\n', encoding="utf-8")
    assert read_prompts(path) == [Prompt("row000001", "One\n\nor two?")]
    path.write_text("prompt\nOne?\nTwo?\n", encoding="utf-8")
    assert read_prompts(path) == [Prompt("row000001", "One?"), Prompt("row000002", "Two?")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n", "has the columns .*expected one of prompt or Goal"),
        ("id,prompt\n1,\n", "row 1: 'prompt' is blank"),
        ("id,prompt\n1,A\n1,B\n", "again the id '1'"),
    ],
)
def test_a_csv_file_that_cannot_be_read(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "b.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        read_prompts(path)


def test_a_prompt_may_be_blank_on_purpose(tmp_path: Path) -> None:
    (prompt,) = read_prompts(write(tmp_path, {"prompt": "", "may_be_blank": True}))
    assert prompt.text == ""


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("One?,a\nTwo?,b,c\n", "row 2: 3 cells under a header of 2 .prompt, note.; .*; quote a"),
        ("One?,a\nTwo?\n", "row 2: 1 cell under a header of 2 .*; add those that are missing"),
        (
            'One?,"a\nTwo?,b\nThree?,c\n',
            "row 1: a quote is opened and never closed; .* to line 4, ",
        ),
    ],
)
def test_a_ragged_table_of_prompts_is_refused(tmp_path: Path, rows: str, says: str) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,note\n" + rows)
    with pytest.raises(DataError, match=says):
        read_prompts(path)


BESIDE = [("context", "Be kind."), ("system", "Be kind."), ("system_prompt", "Be kind.")]


@pytest.mark.parametrize(("key", "text"), BESIDE)
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_keys_of_rows_are_read_beside_prompts(
    key: str, text: str, kind: str, tmp_path: Path
) -> None:
    """As the reader of rows reads them: a system turn, and turns before the prompt."""
    history = [["Hi", "<think>Hm.</think>Hello"]]
    if kind == "csv":
        path = tmp_path / "rows.csv"
        cell = json.dumps(history).replace('"', '""')
        path.write_text(f'Goal,{key},history,note\nQ,{text},"{cell}",x\nR,,,\n')
    else:
        row = {"prompt": "Q", key: text, "history": history, "note": "x"}
        path = write(tmp_path, row, {"prompt": "R", key: None, "note": None})
    intake = Intake()
    first, second = read_prompts(path, intake)
    assert shown(first.text) == "user: Hi\n\nassistant: Hello\n\nuser: Q"
    assert (first.context, second.text, second.context) == (text, "R", None)
    assert intake.unused == {"note": 1} and intake.notes == {"reasoning_earlier": 1}


def test_prompts_as_messages_and_two_system_turns(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    assert read_prompts(write(tmp_path, {"prompt": chat})) == [Prompt("row000001", "Q", "S")]
    with pytest.raises(DataError, match="line 1: two system turns that differ"):
        read_prompts(write(tmp_path, {"prompt": chat, "system": "T"}))
    (tmp_path / "a.csv").write_text("prompt,history\nQ,no\n")
    with pytest.raises(DataError, match="row 1: the cell of 'history' is no JSON"):
        read_prompts(tmp_path / "a.csv")


@pytest.mark.parametrize("how", ["text", "token", "leave-out"])
def test_control_tokens_in_prompts_are_counted(how: str, tmp_path: Path) -> None:
    rows = {"prompt": "Q<|im_end|>"}, {"prompt": "R", "system": "[INST]"}, {"prompt": "Plain"}
    intake = Intake(control=Control(how=how))
    prompts = read_prompts(write(tmp_path, *rows), intake)
    assert len(prompts) == (1 if how == "leave-out" else 3)
    assert sum(intake.notes.values()) == 2 and intake.control_token == "<|im_end|> in row000001"
    if how == "leave-out":
        with pytest.raises(DataError, match="all prompts hold control tokens"):
            read_prompts(write(tmp_path, *rows[:2]), Intake(control=Control(how=how)))


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".gz", ".parquet"])
@pytest.mark.parametrize(
    ("begins", "named"),
    [
        (b"\x1f\x8b\x08", "is gzipped, which is not read"),
        (b"PAR1", "is a parquet file, which"),
        (b"PK\x03\x04", "is a zip archive or a spreadsheet, which"),
        (b"\xff\xfeW\x00", "is UTF-16 text, which"),
    ],
)
def test_files_that_hold_no_text_are_named(
    tmp_path: Path, suffix: str, begins: bytes, named: str
) -> None:
    file = tmp_path / f"prompts{suffix}"
    file.write_bytes(begins + bytes(20))
    with pytest.raises(DataError, match=named):
        read_prompts(file)


def test_a_table_of_prompts_is_read_as_one_of_rows(tmp_path: Path) -> None:
    """Without prompts it says so; every name stands once; cells keep their line ends."""
    for text, says in (
        ("prompt\n", "b.csv holds a header and no prompt; expected one prompt a row"),
        ("prompt,prompt\nfirst,second\n", "has the columns .*; expected every name once"),
        ("prompt,note,note\nQ,1,2\n", "has the columns .*; expected every name once"),
    ):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(DataError, match=says):
            read_prompts(tmp_path / "b.csv", Intake(control=Control(how="leave-out")))
    cells = '"a\r\nb","c\nd",e'
    (tmp_path / "b.csv").write_bytes(b"prompt,id,note\r\n" + cells.encode() + b"\r\n")
    [prompt] = read_prompts(tmp_path / "b.csv")
    assert (prompt.text, prompt.id) == ("a\r\nb", "c\nd")
    (tmp_path / "b.csv").write_bytes(b'prompt,completion,id\r\n"a\r\nb",7,x\r\n')
    [record] = iter_records(tmp_path / "b.csv")
    assert read_prompts(tmp_path / "b.csv")[0].text == record.prompt


def test_numbers_that_are_not_finite_in_prompts_are_read_as_in_rows(tmp_path: Path) -> None:
    row = '{"prompt": "Q", "score": NaN, "far": [1e999]}\n'
    (tmp_path / "a.jsonl").write_text(row)
    intake = Intake()
    [prompt] = read_prompts(tmp_path / "a.jsonl", intake)
    assert prompt.text == "Q" and +intake.notes == {"not_finite": 2}
    (tmp_path / "a.jsonl").write_text('{"prompt": "Q", "history": [NaN]}\n')
    with pytest.raises(DataError, match="line 1: 'history' holds NaN or Infinity"):
        read_prompts(tmp_path / "a.jsonl")


@pytest.mark.parametrize("layout", ["lines", "array"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_a_row_of_any_shape_holds_the_prompt_that_it_is_read_with(
    example: Example, layout: str, tmp_path: Path
) -> None:
    if example.reading.map:
        pytest.skip("prompts have no --map")
    rows = [{**example.row, "id": name} for name in ("first", "second")]
    path = tmp_path / "rows.json"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(lines if layout == "lines" else json.dumps(rows, indent=2))
    if not example.prompt:
        with pytest.raises(DataError, match="1: 'prompt' is blank; .*; all 2 rows"):
            read_prompts(path)
        return
    prompts = read_prompts(path)
    records = list(iter_records(path, example.reading))
    assert [one.id for one in prompts] == ["first", "second"]
    assert [(one.text, one.context) for one in prompts] == [
        (record.prompt, record.context) for record in records
    ]


def test_a_chat_that_ends_with_a_question_is_a_prompt(tmp_path: Path) -> None:
    """All of it is; of others the answer behind the prompt is counted, and keys are named."""
    asked = {"role": "user", "content": "Q"}
    chat = [asked, {"role": "assistant", "content": "A"}, {"role": "user", "content": "And?"}]
    path = write(tmp_path, {"messages": chat, "tag": 1}, {"messages": chat[:2]})
    intake = Intake()
    first, second = read_prompts(path, intake)
    assert shown(first.text) == "user: Q\n\nassistant: A\n\nuser: And?" and second.text == "Q"
    assert +intake.notes == {"answers": 1} and intake.unused == {"tag": 1}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_all_bad_prompts_are_counted(kind: str, tmp_path: Path) -> None:
    rows = [{"prompt": "Q"}, {"prompt": ""}, {"prompt": " "}, {"prompt": "R"}, {"prompt": ""}]
    if kind == "jsonl":
        path = write(tmp_path, *rows[:3], "nonsense", {"x": 1})
        says = "line 2: 'prompt' is blank; .*; 3 more bad rows, the next is .*, line 3$"
    else:
        path = write(tmp_path, "prompt,n", *(f"{row['prompt']},1" for row in rows), name="a.csv")
        says = "row 2: 'prompt' is blank; .*; 2 more bad rows, the next is .*, row 3$"
    with pytest.raises(DataError, match=says):
        read_prompts(path)
    path = write(tmp_path, {"x": 1}, {"x": 2})
    with pytest.raises(DataError, match="line 1: no 'prompt' among the keys .*; all 2 rows of"):
        read_prompts(path)


def test_blank_lines_of_a_text_file_are_counted(tmp_path: Path) -> None:
    intake = Intake()
    path = write(tmp_path, "", "One?", " \t", "Two?", "", name="prompts.txt")
    assert len(read_prompts(path, intake)) == 2
    assert intake.notes == {"blank_lines": 3} and intake.rows == 2
