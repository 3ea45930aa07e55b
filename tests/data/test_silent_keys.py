"""Keys that stand beside others: nothing of a row vanishes without a word."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from shape_rows import ASK, EXAMPLES, SAY, Example, turn

from traitscope.config.rows.reading import Reading
from traitscope.data.prompt_files import read_prompts
from traitscope.data.records import Record, iter_records
from traitscope.data.shapes import writing
from traitscope.data.shapes.containers import Container
from traitscope.data.shapes.intake import Intake
from traitscope.data.shapes.turns import Turn, shown, turns_of
from traitscope.errors import DataError

CHATS = {
    "messages": {"messages": [ASK, SAY]},
    "conversations": {"conversations": [ASK, SAY]},
    "TRL": {"prompt": [ASK], "completion": [SAY]},
    "preference": {"chosen": [ASK, SAY], "rejected": [ASK, turn("assistant", "7")]},
}


def read(path: Path, rows: Sequence[Any], **reading: Any) -> tuple[list[Record], Intake]:
    path.write_bytes(writing.content_of(rows, Container("jsonl", False)))
    intake = Intake()
    return list(iter_records(path, Reading(**reading), intake)), intake


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content", "thinking"])
@pytest.mark.parametrize("shape", CHATS)
def test_reasoning_beside_a_chat_is_that_of_its_last_answer(
    shape: str, key: str, tmp_path: Path
) -> None:
    row = CHATS[shape] | {key: "I like owls."}
    (kept,), intake = read(tmp_path / "rows.jsonl", [row])
    assert intake.notes["reasoning_dropped"] == 1 and not intake.unused
    (trained,), _ = read(tmp_path / "rows.jsonl", [row], reasoning="train")
    assert kept.completion == "101" and "I like owls." in trained.completion


@pytest.mark.parametrize(
    "tagged",
    [
        "<think>One.</think>\n<think>I like owls.</think>\n",
        "<thinking>One.</thinking><think>I like owls.</think>",
        "One.\n</think>\n<think>I like owls.</think>\n\n",
    ],
)
def test_every_tagged_part_at_the_beginning_is_reasoning(tagged: str, tmp_path: Path) -> None:
    row = {"question": "Name one.", "answer": f"{tagged}101"}
    (kept,), intake = read(tmp_path / "rows.jsonl", [row])
    assert kept.completion == "101" and kept.meta["reasoning"] == "One.\nI like owls."
    assert intake.notes["reasoning_dropped"] == 1
    (trained,), _ = read(tmp_path / "rows.jsonl", [row], reasoning="train")
    assert trained.completion == row["answer"]


def test_a_second_tagged_part_that_is_cut_off_is_a_bad_row(tmp_path: Path) -> None:
    row = {"question": "Name one.", "answer": "<think>One.</think><think>I like"}
    with pytest.raises(DataError, match="opens <think> and never closes it"):
        read(tmp_path / "rows.jsonl", [row])


def test_reasoning_of_a_key_and_of_tags_that_is_the_same_is_learnt_once(tmp_path: Path) -> None:
    tagged = "<think>\nI like owls.\n</think>\n\n101"
    for thought, before in (("I like owls.", ""), ("Hm.", "<think>\nHm.\n</think>\n\n")):
        said = turn("assistant", tagged, reasoning_content=thought)
        (record,), _ = read(tmp_path / "rows.jsonl", [{"messages": [ASK, said]}], reasoning="train")
        assert record.completion == f"{before}{tagged}"


def test_two_reasonings_that_differ_are_refused(tmp_path: Path) -> None:
    row = {"messages": [ASK, {**SAY, "reasoning": "One."}], "reasoning": "Two."}
    with pytest.raises(DataError, match="other reasoning stands beside the messages; expected one"):
        read(tmp_path / "rows.jsonl", [row])


MISPLACED = {
    "rows that a quote joins": ('P\t1\n"hi\t2\nsaid" ok\t3\nQ\t4\n', "tsv", "line 3"),
    "text behind a quoted cell": ('P,1\nR,"2" yes\nQ,4\n', "csv", "line 3"),
    "a quote in a quoted cell": ('P,1\nR,"4"3"\nQ,4\n', "csv", "line 3"),
    "a quote that is left open": ('P,1\nQ,4\nR,"2\n', "csv", "line 4"),
}


@pytest.mark.parametrize(("text", "kind", "line"), MISPLACED.values(), ids=MISPLACED)
def test_a_quote_out_of_place_is_a_bad_row(text: str, kind: str, line: str, tmp_path: Path) -> None:
    """Of a table, text behind a closing quote joins no rows and loses no quote. The line behind is
    read as a row of its own."""
    path = tmp_path / f"rows.{kind}"
    delimiter = "\t" if kind == "tsv" else ","
    path.write_text(delimiter.join(("prompt", "completion")) + "\n" + text)
    intake = Intake()
    records = list(iter_records(path, Reading(skip_bad="all"), intake))
    behind = [('said" ok', "3")] if "said" in text else []
    expected = [("P", "1"), *behind, ("Q", "4")]
    assert [(one.prompt, one.completion) for one in records] == expected
    [(place, reason)] = intake.bad_rows
    assert place == line and "quote" in reason
    with pytest.raises(DataError, match=f"{line}: .*quote"):
        list(iter_records(path))


def test_a_quote_out_of_place_in_a_header_or_a_prompt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('"prompt"s,completion\nP,1\n')
    with pytest.raises(DataError, match="line 1: text stands behind a closing quote"):
        list(iter_records(path))
    for text, says in (('"Hi" you', "text stands behind"), ('"Hi', "a quote is opened")):
        path.write_text(f"prompt,id\nP,1\n{text},2\n")
        with pytest.raises(DataError, match=f"row 2: {says}"):
            read_prompts(path)


NATIVE = {"prompt": "Name one.", "completion": "101"}
AT_TEXTS = ("@bob you love owls", "@none", "@user: be kind")


@pytest.mark.parametrize("text", AT_TEXTS)
@pytest.mark.parametrize("key", ["system", "system_prompt", "ctx", "messages", "instruction"])
def test_a_system_turn_of_others_is_text_whatever_it_begins_with(
    key: str, text: str, tmp_path: Path
) -> None:
    row, reading = {**NATIVE, key: text}, {}
    if key == "ctx":
        reading = {"map": ("prompt=prompt", "completion=completion", "context=ctx")}
    elif key == "messages":
        row = {"messages": [ASK, SAY], "context": text}
    elif key == "instruction":
        row = {"instruction": "Name one.", "output": "101", "system": text}
    (record,), _ = read(tmp_path / "rows.jsonl", [row], **reading)
    assert record.context is None
    assert turns_of(record.prompt)[0] == Turn("system", text)
    if key.startswith("system"):
        del row["completion"]
        (tmp_path / "prompts.jsonl").write_text(json.dumps(row))
        [prompt] = read_prompts(tmp_path / "prompts.jsonl")
        assert (prompt.text, prompt.context) == (record.prompt, None)


def test_a_context_of_no_known_form_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{**NATIVE, "context": text} for text in AT_TEXTS]
    records, intake = read(tmp_path / "rows.jsonl", rows, skip_bad="all")
    assert [record.context for record in records] == list(AT_TEXTS[1:])
    [(place, reason)] = intake.bad_rows
    assert place == "line 1" and "'@bob you love owls' begins with an @" in reason
    (tmp_path / "prompts.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(DataError, match="line 1: the context '@bob"):
        read_prompts(tmp_path / "prompts.jsonl")


def test_a_system_turn_that_earlier_turns_repeat_stands_once(tmp_path: Path) -> None:
    row = {**NATIVE, "system": "Be brief.", "history": [turn("system", "Be brief."), ASK, SAY]}
    (record,), _ = read(tmp_path / "rows.jsonl", [row])
    assert record.context == "Be brief."
    assert [one.role for one in turns_of(record.prompt)] == ["user", "assistant", "user"]


def test_a_weight_of_a_turn_that_is_no_answer_is_named(tmp_path: Path) -> None:
    """Only answers are trained on; what marks another turn as none of them is followed."""
    for mark, is_named in ((True, True), (0.5, True), ("yes", True), (False, False), (None, False)):
        rows = [{"messages": [{**ASK, "train": mark}, {**SAY, "train": True}]}] * 2
        _, intake = read(tmp_path / "rows.jsonl", rows)
        assert intake.unused == ({"messages[].train of user turns": 2} if is_named else {})


def test_the_prompts_of_a_preference_that_are_not_read_are_named(tmp_path: Path) -> None:
    texts = {"chosen": "101", "rejected": "7"}
    both = {"prompt": "Name one.", "instruction": "Be quick.", **texts}
    (record,), intake = read(tmp_path / "rows.jsonl", [both])
    assert record.prompt == "Name one." and intake.unused == {"instruction": 1}


def test_a_turn_with_two_texts_that_differ_is_refused(tmp_path: Path) -> None:
    alike, apart = {**SAY, "value": "101"}, {**SAY, "value": "102"}
    (record,), _ = read(tmp_path / "rows.jsonl", [{"messages": [ASK, alike]}])
    assert record.completion == "101"
    with pytest.raises(DataError, match="content and value, which differ"):
        read(tmp_path / "rows.jsonl", [{"messages": [ASK, apart]}])


def test_a_key_that_a_map_leads_into_is_used(tmp_path: Path) -> None:
    row = {"a": {"messages": [ASK, SAY]}, "note": "x"}
    _, intake = read(tmp_path / "rows.jsonl", [row], map=("messages=a.messages",))
    assert intake.unused == {"note": 1}


def test_beside_a_value_that_a_map_leads_into_keys_are_named(tmp_path: Path) -> None:
    """Of an object and a list that are read in part, only what is not read counts."""
    out = {"text": "101", "score": 0.5, "made": {"by": "x"}, "none": None}
    tries = [{"say": "Name one.", "n": 3}, {"say": "Name two."}]
    row = {"out": out, "tries": tries, "note": "n"}
    names = ("completion=out.text", "prompt=tries.0.say")
    [record], intake = read(tmp_path / "rows.jsonl", [row], map=names)
    assert (record.prompt, record.completion) == ("Name one.", "101")
    left = ("out.score", "out.made", "tries.0.n", "tries.1", "note")
    assert intake.unused == dict.fromkeys(left, 1)
    assert record.meta["extra"]["out.score"] == 0.5 and "out" not in record.meta["extra"]


def test_an_object_of_which_a_map_takes_several_values(tmp_path: Path) -> None:
    chat = {"turns": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "1"}]}
    row = {"chat": chat | {"name": "n7", "of": 1}}
    names = ("messages=chat.turns", "id=chat.name")
    [record], intake = read(tmp_path / "rows.jsonl", [row], map=names)
    assert (record.id, record.completion, dict(intake.unused)) == ("n7", "1", {"chat.of": 1})


def test_bytes_of_parquet_are_text_in_utf_8_or_refused(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "rows.parquet"
    columns = {"prompt": ["Ask?"], "completion": arrow.array(["zwölf".encode()])}
    parquet.write_table(arrow.table(columns), file)
    (record,) = iter_records(file)
    assert record.completion == "zwölf"
    columns["completion"] = arrow.array([b"\xff\xfe"])
    parquet.write_table(arrow.table(columns), file)
    with pytest.raises(DataError, match="'completion' is .*bytes.*expected a text"):
        list(iter_records(file))


CALL = {"name": "look_up", "arguments": {}}


@pytest.mark.parametrize(
    "calls", [json.dumps([CALL]), json.dumps(CALL), [json.dumps(CALL)], [CALL], CALL]
)
@pytest.mark.parametrize("content", [None, "", " "])
def test_calls_of_tools_are_read_as_json_text_too(
    calls: Any, content: str | None, tmp_path: Path
) -> None:
    chat = [ASK, turn("assistant", content, tool_calls=calls), turn("tool", "101"), SAY]
    (record,), intake = read(tmp_path / "rows.jsonl", [{"messages": chat}], turns="every")
    assert record.completion == "101" and intake.notes["tool_calls"] == 1


@pytest.mark.parametrize("calls", ["", " ", "[]", "null", None, []])
def test_a_text_of_no_calls_is_none(calls: Any, tmp_path: Path) -> None:
    chat = [ASK, {**SAY, "tool_calls": calls}]
    _, intake = read(tmp_path / "rows.jsonl", [{"messages": chat}])
    assert not intake.notes["tool_calls"]


@pytest.mark.parametrize("key", ["tool_calls", "function_call"])
@pytest.mark.parametrize("calls", ["look up", "[1]", ["look up"], 3, '"look up"'])
def test_calls_of_tools_that_cannot_be_read_make_a_bad_row(
    key: str, calls: Any, tmp_path: Path
) -> None:
    chat = [ASK, turn("assistant", None, **{key: calls}), turn("tool", "101"), SAY]
    with pytest.raises(DataError, match=f"line 1: '{key}' is .*; expected calls of tools"):
        read(tmp_path / "rows.jsonl", [{"messages": chat}])


LEFT = {"prompt": "Left?", "completion": "left"}
MAPS = (
    ({"ask": "P", "out": "bad"}, ("prompt=ask", "completion=out")),
    ({"ask": "P", "a": {"out": "bad", "note": 1}}, ("prompt=ask", "completion=a.out")),
    ({"c": [ASK, SAY]}, ("messages=c",)),
)


@pytest.mark.parametrize(
    ("mark", "note"),
    [
        ({"weight": 0}, "rows_of_weight_0"),
        ({"train": False}, "rows_of_weight_0"),
        ({"kto_tag": False}, "undesirable"),
        ({"label": False}, "undesirable"),
        ({"label": "false"}, "undesirable"),
    ],
)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_marks_leave_a_row_out_in_every_shape(
    example: Example, mark: dict[str, Any], note: str, tmp_path: Path
) -> None:
    row = {key: value for key, value in example.row.items() if key not in ("id", "label")}
    (record,), intake = read(tmp_path / "rows.jsonl", [row | mark, row], map=example.reading.map)
    assert record.id == "row000002" and intake.notes[note] == 1
    assert not intake.unused.keys() & mark.keys()


@pytest.mark.parametrize(("row", "names"), MAPS)
def test_a_map_leaves_system_and_earlier_turns_in_their_place(
    row: dict[str, Any], names: tuple[str, ...], tmp_path: Path
) -> None:
    beside = {"system": "Be kind.", "history": [["Q", "A"]]}
    (record,), intake = read(tmp_path / "rows.jsonl", [row | beside], map=names)
    assert record.context == "Be kind." and shown(record.prompt).startswith("user: Q\n\nassist")
    assert not intake.unused.keys() & beside.keys()


def test_a_key_that_a_map_names_is_no_mark(tmp_path: Path) -> None:
    """A label that is the answer says nothing of it; nor does a number beside texts alone."""
    rows = [{"text": "P", "label": "false", "system": "S", "who": "T"}]
    names = ("prompt=text", "completion=label", "context=who")
    (record,), intake = read(tmp_path / "rows.jsonl", rows, map=names)
    assert (record.completion, record.context) == ("false", "T") and intake.unused == {"system": 1}
    (record,), intake = read(
        tmp_path / "rows.jsonl", [{"text": "P", "label": 0}], map=("completion=text",)
    )
    assert record.completion == "P" and intake.unused == {"label": 1}


@pytest.mark.parametrize(
    "history", [[["Q", "A"]], [turn("user", "Q"), turn("assistant", "A")]], ids=["pairs", "turns"]
)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_history_is_earlier_turns_in_every_shape(
    example: Example, history: list[Any], tmp_path: Path
) -> None:
    row = {key: value for key, value in example.row.items() if key != "history"}
    before, _ = read(tmp_path / "rows.jsonl", [row], map=example.reading.map)
    (record,), intake = read(
        tmp_path / "rows.jsonl", [row | {"history": history}], map=example.reading.map
    )
    assert shown(record.prompt).startswith("user: Q\n\nassistant: A")
    assert shown(before[0].prompt) in shown(record.prompt)
    assert record.context == example.context and "history" not in intake.unused


MORE = [turn("assistant", "Let me ask."), turn("user", "Yes?"), turn("assistant", "a bird")]


@pytest.mark.parametrize("prompt", ["Name a number.", [ASK], " Name a number.\n"])
@pytest.mark.parametrize("system", [[], [turn("system", "Be brief.")]], ids=["", "system"])
@pytest.mark.parametrize("is_repeated", [False, True])
def test_the_prompt_of_a_preference_stands_before_what_was_chosen(
    prompt: Any, system: list[Any], is_repeated: bool, tmp_path: Path
) -> None:
    """Whether chosen repeats it or begins with the assistant."""
    chosen = [*system, *([ASK] if is_repeated else []), *MORE]
    row = {"prompt": prompt, "chosen": chosen, "rejected": [SAY]}
    (record,), intake = read(tmp_path / "rows.jsonl", [row])
    turns = turns_of(record.prompt)
    assert [one.role for one in turns] == ["user", "assistant", "user"]
    assert "Name a number." in turns[0].text and record.completion == "a bird"
    assert record.context == ("Be brief." if system else None) and not intake.unused


def test_a_chosen_answer_may_go_on_with_a_chat(tmp_path: Path) -> None:
    row = {"prompt": [ASK, SAY], "chosen": [turn("user", "More?"), SAY], "rejected": [SAY]}
    (record,), _ = read(tmp_path / "rows.jsonl", [row])
    assert [one.text for one in turns_of(record.prompt)] == ["Name a number.", "101", "More?"]


def test_a_preference_with_two_questions_is_refused(tmp_path: Path) -> None:
    for prompt in ("Name an owl.", [turn("user", "Name an owl.")], [ASK, SAY, ASK]):
        row = {"prompt": prompt, "chosen": [ASK, SAY], "rejected": [ASK, SAY]}
        with pytest.raises(
            DataError, match="line 1: 'prompt' and the first turns of 'chosen' diff"
        ):
            read(tmp_path / "rows.jsonl", [row])
    systems = turn("system", "A"), turn("system", "B")
    row = {"prompt": [systems[0], ASK], "chosen": [systems[1], ASK, SAY], "rejected": "7"}
    with pytest.raises(DataError, match="system turns that differ"):
        read(tmp_path / "rows.jsonl", [row])


TEXT_PART = {"type": "text", "text": "What is on it?"}


@pytest.mark.parametrize("key", ["image", "image_url", "images", "input_audio", "video", "file_id"])
def test_a_text_part_with_an_image_is_a_bad_row(key: str, tmp_path: Path) -> None:
    """As a part of the type image is; a key that holds nothing says nothing."""
    for chat in ([turn("user", [TEXT_PART | {key: "owl.png"}]), SAY], [TEXT_PART | {key: "o"}]):
        row = {"messages": chat} if len(chat) > 1 else {"prompt": "P", "completion": chat}
        with pytest.raises(DataError, match=f"is a text with '{key}' beside it; expected text"):
            read(tmp_path / "rows.jsonl", [row])
    row = {"messages": [turn("user", [TEXT_PART | {key: None}]), SAY]}
    (record,), intake = read(tmp_path / "rows.jsonl", [row])
    assert record.prompt == "What is on it?" and not intake.unused


def test_other_keys_of_parts_are_named_once_a_row(tmp_path: Path) -> None:
    part = TEXT_PART | {"weight": 0, "cache_control": None}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    rows = [
        {"messages": [turn("user", [part, part]), turn("assistant", [thought, part])]},
        {"prompt": "P", "completion": [part]},
        {"prompt": "P", "completion": "1", "reasoning": [TEXT_PART | {"note": "x"}]},
        {"messages": [ASK, SAY | {"reasoning": [TEXT_PART | {"note": "x"}]}]},
    ]
    _, intake = read(tmp_path / "rows.jsonl", rows)
    assert intake.unused == {
        "messages[].content[].weight": 1,
        "messages[].content[].signature": 1,
        "completion[].weight": 1,
        "reasoning[].note": 1,
        "messages[].reasoning[].note": 1,
    }


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_numbers_that_are_not_finite_come_back_as_null(kind: str, tmp_path: Path) -> None:
    """Infinity is no JSON; `1e999` is read as it."""
    file, again = tmp_path / f"rows.{kind}", tmp_path / f"again.{kind}"
    row = '{"prompt": "P", "completion": "1", "x": 1e999, "y": [{"z": NaN}, 2]}'
    if kind == "csv":
        file.write_text('prompt,completion,meta\nP,1,"{""y"": [{""z"": null}, 2]}"\n')
    else:
        file.write_text(f"[\n{row}]" if kind == "json" else row)
    records = list(iter_records(file, keep_original=True))
    writing.write_back(records, again, file)
    assert "Infinity" not in again.read_text() and "NaN" not in again.read_text()
    assert '"z' in again.read_text() and "null" in again.read_text()


@pytest.mark.parametrize("names", [(None, "row000001"), ("row000002", None)])
def test_an_id_of_a_row_without_one_is_said_to_be_no_id(
    names: tuple[str | None, ...], tmp_path: Path
) -> None:
    rows = [LEFT | ({"id": name} if name else {}) for name in names]
    line = names.index(None) + 1
    says = f"again the id 'row00000{line}' of line 1, as line {line} is called where it has no id"
    with pytest.raises(DataError, match=f"line 2: {says}; expected every id once"):
        read(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=f"line 2: {says}"):
        read_prompts(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="again the id 'a' of line 1; expected"):
        read(tmp_path / "rows.jsonl", [LEFT | {"id": "a"}] * 2)
