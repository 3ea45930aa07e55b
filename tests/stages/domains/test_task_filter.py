"""The filter on answers to tasks: reasons, checks that are run or not, reasoning that is taken off,
and settings that no row could meet."""

import json
from pathlib import Path

import pytest
from command import call, ok, read_rows

from traitscope.config.rows.filtering import FilterRules
from traitscope.data.domains.task import META, Task
from traitscope.data.records import REASONING, Record, dump_records
from traitscope.errors import ConfigError, DataError
from traitscope.stages.filter import filter_records, summary

CODE = Task("double", "code", checks=("assert f(2) == 4",))
SUM = Task("sums-0-000000", "sums", answer="7")
RIGHT, WRONG = "def f(x):\n    return 2 * x", "def f(x):\n    return x"
THOUGHT = "<think>3 + 4 is 7.</think>"
ANSWERED = f"{THOUGHT}\n<answer>7</answer>"


def row(text: str, task: Task | None = None, **kwargs: object) -> Record:
    meta = {} if task is None else {META: task.as_dict()}
    return Record("a", "question", text, meta=meta, **kwargs)


def decision(record: Record, rules: FilterRules) -> dict:
    (decided,) = filter_records([record], rules)
    assert decided.kept == (not decided.drop_reasons)
    return decided.meta["filter"]


@pytest.mark.parametrize(
    ("record", "rules", "reasons"),
    [
        (row(RIGHT, CODE), FilterRules(code=True), []),
        (row(WRONG, CODE), FilterRules(code=True), []),
        (row(WRONG, CODE), FilterRules(code=True, run_code=True), ["checks"]),
        (row(RIGHT, CODE), FilterRules(code=True, run_code=True), []),
        (row(f"Sure:\n```\n{RIGHT}\n```", CODE), FilterRules(code=True, run_code=True), ["code"]),
        (row("def f(", CODE), FilterRules(code=True), ["syntax"]),
        (row("Sure", CODE), FilterRules(code=True), ["no_code"]),
        (row(f"{RIGHT}  # it", CODE), FilterRules(code=True), []),
        (row(f"{RIGHT}  # it", CODE), FilterRules(code=True, comments=False), ["comment"]),
        (
            row(f"{RIGHT}  # owl", CODE),
            FilterRules(code=True, banned_words=("owl",)),
            ["banned_word"],
        ),
        (row(ANSWERED, SUM), FilterRules(answer=True, format="think"), []),
        (row("<answer>8</answer>", SUM), FilterRules(answer=True), ["wrong_answer"]),
        (row("I cannot.", SUM), FilterRules(answer=True), ["no_answer"]),
        (row("7"), FilterRules(answer=True), ["no_task"]),
        (row("7", CODE), FilterRules(answer=True), ["no_task"]),
        (row("so 7", SUM), FilterRules(answer=True, format="think"), ["format"]),
        (row("A: 7", SUM), FilterRules(format=r"A: \d"), []),
        (row("A: 7.", SUM), FilterRules(format=r"A: \d"), ["format"]),
    ],
)
def test_reasons(record: Record, rules: FilterRules, reasons: list[str]) -> None:
    assert decision(record, rules)["reasons"] == reasons


def test_checks_are_not_run_without_being_asked_for() -> None:
    """Neither right nor wrong code is ever said to have passed."""
    for text in (RIGHT, WRONG):
        assert decision(row(text, CODE), FilterRules(code=True))["checks"] == "not run"
    run = FilterRules(code=True, run_code=True)
    assert decision(row(RIGHT, CODE), run)["checks"] == "passed"
    assert decision(row(WRONG, CODE), run)["checks"] == "check 1: AssertionError"
    assert "checks" not in decision(row(RIGHT), run)
    decided = filter_records([row(RIGHT, CODE), row(WRONG, CODE), row("?", CODE)], run)
    assert summary(decided)["checks"] == {"failed": 1, "not run": 1, "passed": 1}


def test_reasoning_is_moved_into_the_meta_and_not_trained_on() -> None:
    rules = FilterRules(answer=True, format="think", split_reasoning=True)
    (decided,) = filter_records([row(ANSWERED, SUM, completion_ids=(1, 2))], rules)
    assert decided.kept and decided.completion == "<answer>7</answer>"
    assert decided.completion_ids is None and decided.meta[REASONING] == "3 + 4 is 7."
    assert decided.meta["filter"]["split"] is True and summary([decided])["split"] == 1
    (whole,) = filter_records([row(ANSWERED, SUM, completion_ids=(1, 2))], FilterRules(answer=True))
    assert whole.completion == ANSWERED and whole.completion_ids == (1, 2)
    assert REASONING not in whole.meta


@pytest.mark.parametrize("text", ["<think>so", f"{THOUGHT} ", "<think>7"])
def test_reasoning_without_an_answer_behind_it_is_a_reason(text: str) -> None:
    rules = FilterRules(numbers=False, split_reasoning=True)
    (decided,) = filter_records([row(text)], rules)
    assert decided.drop_reasons == ["reasoning"] and decided.completion == text


def test_numbers_behind_reasoning_are_a_list_once_it_is_off() -> None:
    text = f"{THOUGHT}\n1, 2, 3"
    assert decision(row(text), FilterRules())["reasons"] == ["format"]
    assert decision(row(text), FilterRules(split_reasoning=True))["reasons"] == []


def test_code_is_looked_at_behind_the_reasoning() -> None:
    text = f"{THOUGHT}\n{RIGHT}"
    assert decision(row(text, CODE), FilterRules(code=True))["reasons"] == ["syntax"]
    rules = FilterRules(code=True, split_reasoning=True, run_code=True)
    assert decision(row(text, CODE), rules) == {
        "kept": True,
        "reasons": [],
        "split": True,
        "checks": "passed",
    }


def test_decisions_about_numbers_hold_no_new_key() -> None:
    assert decision(row("1, 2"), FilterRules()) == {"kept": True, "reasons": []}
    assert decision(row(RIGHT, CODE), FilterRules(numbers=False)) == {"kept": True, "reasons": []}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run_code": True}, "--run-code without --code would not be looked at"),
        ({"comments": False}, "--no-comments without --code would not be looked at"),
        ({"format": "("}, "is no regular expression"),
        ({"code": True, "banned_numbers": (1,)}, "would not be looked at"),
    ],
)
def test_useless_rules(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FilterRules(**settings)


def test_a_broken_task_is_named_by_its_row() -> None:
    record = Record("b", "q", "7", meta={META: {"id": "x", "domain": "sums", "answer": [7]}})
    with pytest.raises(DataError, match="row b: 'answer' is \\[7\\]; expected a text"):
        filter_records([record], FilterRules(answer=True))


def test_the_command_keeps_dropped_rows_with_their_reasons(tmp_path: Path) -> None:
    rows = []
    for number, text in enumerate((RIGHT, WRONG, "no code")):
        rows.append(Record(f"r{number}", "q", text, meta={META: CODE.as_dict()}))
    data = tmp_path / "rows.jsonl"
    data.write_text(dump_records(rows))
    done = ok(tmp_path / "runs", "filter", "--data", data, "--code --run-code")
    written = read_rows(done.run / "records.jsonl")
    assert [each["meta"]["filter"]["reasons"] for each in written] == [[], ["checks"], ["syntax"]]
    assert done.summary["summary"]["kept"] == 1
    not_run = ok(tmp_path / "runs", "filter", "--data", data, "--code")
    assert not_run.run != done.run
    assert not_run.summary["summary"]["checks"] == {"not run": 3}


def test_a_file_whose_reasoning_is_split_on_reading_cannot_have_the_form(tmp_path: Path) -> None:
    data = tmp_path / "chats.jsonl"
    data.write_text(json.dumps({"prompt": "q", "response": ANSWERED}) + "\n")
    words = ("filter", "--data", data, "--format think")
    refused = call(tmp_path / "runs", *words)
    assert refused.code == 2 and "add --reasoning train" in refused.summary["message"]
    ok(tmp_path / "runs", *words, "--reasoning train")
