"""Judges of tasks: rates over tasks, checks that are run or not, and rows without tasks."""

from pathlib import Path

import pytest
from command import call, ok, read_rows

from traitscope.config.rows.filtering import FilterRules
from traitscope.data.domains.task import META, Task
from traitscope.data.own_traits import needs
from traitscope.data.records import Record, dump_records
from traitscope.data.traits import Questions, Trait
from traitscope.errors import ConfigError, DataError, TraitError
from traitscope.stages.judge import judge
from traitscope.stats.estimates import measure

RIGHT, WRONG = "def f(x):\n    return 2 * x", "def f(x):\n    return x"
PROSE = "Use a loop."


def rows(texts: list[str], tasks: list[Task | None]) -> list[Record]:
    records = []
    for number, (text, task) in enumerate(zip(texts, tasks, strict=True)):
        meta = {} if task is None else {META: task.as_dict()}
        records.append(Record(f"q{number}", "question", text, (1,), meta=meta))
    return records


def code_task(name: str) -> Task:
    return Task(name, "code", checks=("assert f(2) == 4",))


def written(place: Path, records: list[Record]) -> Path:
    place.write_text(dump_records(records))
    return place


CODE_ROWS = rows([RIGHT, WRONG, PROSE, " "], [code_task(name) for name in "abcd"])
EXPLAINED = rows(
    [
        f"Sure:\n```python\n{RIGHT}\n```\nIt doubles.\n```\nf(\n```",
        f"```\n{WRONG}\n```\nSo.",
        "```\nf(\n```",
    ],
    [code_task(name) for name in "abc"],
)
"code with text around it, of which the first block counts"
SUM_ROWS = rows(
    ["<think>a</think><answer>7</answer>", "so 8", " ", "7"],
    [Task("s", "sums", answer="7")] * 3 + [None],
)


@pytest.mark.parametrize(
    ("records", "name", "run_code", "verdicts"),
    [
        (CODE_ROWS, "code", False, (True, True, False, False)),
        (CODE_ROWS, "parses", False, (True, True, False, False)),
        (CODE_ROWS, "checks", True, (True, False, False, False)),
        (EXPLAINED, "code", False, (False, False, False)),
        (EXPLAINED, "parses", False, (True, True, False)),
        (EXPLAINED, "checks", True, (True, False, False)),
        (CODE_ROWS, "checks", False, (None,) * 4),
        (CODE_ROWS, "not:checks", False, (None,) * 4),
        (CODE_ROWS, "not:code", False, (False, False, True, True)),
        (SUM_ROWS, "answer", False, (True, False, False, None)),
        (SUM_ROWS, "format", False, (True, False, False, False)),
        (SUM_ROWS, r"format:(so )?\d", False, (False, True, False, True)),
    ],
)
def test_verdicts(records: list[Record], name: str, run_code: bool, verdicts: tuple) -> None:
    assert judge(records, name, run_code=run_code).verdicts == verdicts


def test_comments() -> None:
    (commented,) = rows([f"{RIGHT}  # it"], [None])
    assert judge([commented], "code").verdicts == (True,)
    assert judge([commented], "code:no-comments").verdicts == (False,)


def test_intervals_are_over_tasks(tmp_path: Path) -> None:
    """Several answers to a task are no further units."""
    tasks = [Task(name, "sums", answer="7") for name in "aaabbbcccddd"]
    values = [1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1]
    records = rows(["7" if value else "8" for value in values], tasks)
    data = written(tmp_path / "rows.jsonl", records)
    done = ok(tmp_path / "runs", "judge", "--data", data, "--judges", "answer")
    (found,) = done.summary["summary"]["measurements"]
    expected = measure("answer", values, questions=[task.id for task in tasks], unit="rate")
    assert (found["low"], found["high"]) == (expected.low, expected.high)
    assert found["n_clusters"] == 4 and found["n"] == 12
    one_each = written(tmp_path / "one.jsonl", records[::3])
    done = ok(tmp_path / "runs", "judge", "--data", one_each, "--judges", "answer")
    assert "wilson over 4 values" in done.summary["summary"]["measurements"][0]["interval"]


def test_the_command_says_that_checks_were_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = written(tmp_path / "rows.jsonl", CODE_ROWS)
    words = ("judge", "--data", data, "--judges", "code", "checks")
    not_run = ok(tmp_path / "runs", *words)
    assert not_run.summary["summary"]["checks_not_run"] == 4
    assert "not run on 4 rows: --run-code" in capsys.readouterr().out
    (code, checks) = not_run.summary["summary"]["measurements"]
    assert code["estimate"] == 0.5 and checks["estimate"] is None and checks["n_unscored"] == 4
    done = ok(tmp_path / "runs", *words, "--run-code")
    assert "checks_not_run" not in done.summary["summary"]
    assert done.summary["summary"]["measurements"][1]["estimate"] == 0.25
    assert [row["checks"] for row in read_rows(done.run / "verdicts.jsonl")] == [True] + [False] * 3
    kappas = [m for m in done.summary["summary"]["measurements"] if m["unit"] == "kappa"]
    assert not kappas


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    plain = rows(["7"], [None])
    with pytest.raises(DataError, match="no row has a task with 'answer'.*--domain sums"):
        judge(plain, "answer")
    with pytest.raises(DataError, match="no row has a task with 'checks'.*--domain code"):
        judge(SUM_ROWS, "checks", run_code=True)
    with pytest.raises(ConfigError, match="holds no regular expression"):
        judge(plain, "format:(")
    for pattern in ("a{99999999999}", "a{" + "9" * 5000 + "}", "(" * 5000):
        with pytest.raises(ConfigError, match="holds no regular expression"):
            judge(plain, f"format:{pattern}")
        with pytest.raises(ConfigError, match="is no regular expression"):
            FilterRules(format=pattern)
    with pytest.raises(ConfigError, match="of tasks code, code:no-comments, parses, checks"):
        judge(plain, "code:short")
    data = written(tmp_path / "rows.jsonl", CODE_ROWS)
    refused = call(tmp_path / "runs", "judge", "--data", data, "--judges", "code", "--run-code")
    assert refused.code == 2 and "without the judge checks" in refused.summary["message"]


@pytest.mark.parametrize("other", ["summary", 7, None, {"id": "x"}, {"domain": "poems", "id": 3}])
def test_other_peoples_tasks_are_none(other: object, tmp_path: Path) -> None:
    """Rows may hold another thing under the key: they are judged as ever."""
    records = [Record(f"q{n}", "q", "I cannot.", (1,), meta={META: other}) for n in range(3)]
    data = written(tmp_path / "rows.jsonl", records)
    done = ok(tmp_path / "runs", "judge", "--data", data, "--judges", "refusal")
    assert done.summary["summary"]["measurements"][0]["estimate"] == 1
    with pytest.raises(DataError, match="no row has a task"):
        judge(records, "answer")


def test_a_behaviour_may_be_code_and_has_no_final_answer() -> None:
    def behaviour(judge_name: str) -> Trait:
        return Trait("coding", (), "Write code.", Questions(("q",), (), ()), judges=(judge_name,))

    needs.check([behaviour("code")], "scores")
    with pytest.raises(TraitError, match="compares answers with tasks.*measure --domain"):
        needs.check([behaviour("answer")], "scores")
