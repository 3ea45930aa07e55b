"""Generate and measure on the domains: rows that keep their task, files of tasks, and rates of a
model that are those of its rows."""

import json
from pathlib import Path

import pytest
from command import Ran, call, ok, read_rows

from traitscope.data.domains.final_answers import final_answer
from traitscope.data.domains.prompts import domain_prompts
from traitscope.data.prompt_files import read_prompts
from traitscope.data.records import Record, read_records
from traitscope.errors import DataError
from traitscope.models.model import Model
from traitscope.stages.domains.measured import distinct_tasks
from traitscope.stages.judge import judge
from traitscope.stages.measure import measure_tasks

TASKS = {
    "code": [{"id": "twice", "prompt": "Write f.", "checks": ["assert f(2) == 4"]}],
    "sums": [
        {"id": "one", "prompt": "What is 3 + 4?", "answer": 7},
        {"id": "two", "prompt": "What is 3 + 5?", "answer": "8"},
    ],
}


def tasks_file(place: Path, rows: list[dict], suffix: str = ".jsonl") -> Path:
    file = place / f"tasks{suffix}"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("domain", ["code", "sums", "requests", "stories"])
def test_rows_keep_their_task(domain: str, tiny_folder: Path, tmp_path: Path) -> None:
    words = ("generate", "--model", tiny_folder, "--domain", domain, "--max-new-tokens 4")
    done = ok(tmp_path / "runs", *words, "--n 6")
    rows = read_records(done.run / "records.jsonl")
    prompts = domain_prompts(domain, 6, seed=42)
    assert [row.prompt for row in rows] == [prompt.text for prompt in prompts]
    assert [row.meta["task"] for row in rows] == [prompt.task.as_dict() for prompt in prompts]
    part = ok(tmp_path / "runs", *words, "--n 4 --start 2")
    assert read_records(part.run / "records.jsonl") == rows[2:]


@pytest.mark.parametrize("domain", TASKS)
def test_a_file_of_tasks_is_asked(domain: str, tiny_folder: Path, tmp_path: Path) -> None:
    file = tasks_file(tmp_path, TASKS[domain])
    words = ("generate", "--model", tiny_folder, "--prompts", file, "--max-new-tokens 4")
    done = ok(tmp_path / "runs", *words, "--domain", domain)
    rows = read_rows(done.run / "records.jsonl")
    assert [row["meta"]["task"]["id"] for row in rows] == [task["id"] for task in TASKS[domain]]
    assert "reading-prompts" not in done.summary
    without = ok(tmp_path / "runs", *words)
    assert without.run != done.run
    plain = read_rows(without.run / "records.jsonl")
    assert [row["meta"] for row in plain] == [{}] * len(plain)
    assert [row["completion_ids"] for row in plain] == [row["completion_ids"] for row in rows]


@pytest.mark.parametrize(
    ("domain", "row", "message"),
    [
        ("code", {"prompt": "Write f."}, "line 1: no 'checks' among .*needs a list of statements"),
        ("code", {"prompt": "f", "checks": "assert f"}, "'checks' is .*; expected a list"),
        ("code", {"prompt": "f", "checks": [1]}, "a text of 'checks' is 1; expected a text"),
        ("code", {"prompt": "f", "checks": ["f("]}, "is no Python .*correct it"),
        ("sums", {"prompt": "3 + 4?"}, "no 'answer' among .*needs the final answer"),
        ("sums", {"prompt": "3 + 4?", "answer": True}, "'answer' is true; expected a text"),
    ],
)
def test_a_broken_task_is_named_by_its_line(
    domain: str, row: dict, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_prompts(tasks_file(tmp_path, [row]), domain=domain)


def test_other_containers_hold_no_tasks(tmp_path: Path) -> None:
    file = tmp_path / "tasks.csv"
    file.write_text("prompt,answer\n3 + 4?,7\n")
    with pytest.raises(DataError, match="hold no tasks; expected JSONL with 'answer'"):
        read_prompts(file, domain="sums")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("generate --domain code --vocabulary template", "only numbers could be written"),
        ("generate --domain stories --prompts FILE", "names a bundled set"),
        ("generate --domain code --count 5", "--count 5 would not be read"),
        ("measure --domain sums --samples 0 --max-new-tokens 64", "expected 1 answer or more"),
        ("measure --domain sums", "of 16 tokens or more"),
        ("measure --domain sums --engine vllm --max-new-tokens 64", "expected the engine here"),
        ("measure --domain sums --max-new-tokens 64 --run-code", "--run-code True would not be"),
        ("measure --domain sums --max-new-tokens 64 --trait owl", "--trait owl would not be read"),
        ("measure --n 5", "--n 5 would not be read: --domain trait asks no tasks"),
    ],
)
def test_settings_that_cannot_be_meant(
    words: str, message: str, tiny_folder: Path, tmp_path: Path
) -> None:
    file = tasks_file(tmp_path, TASKS["sums"])
    refused = call(tmp_path / "runs", *words.replace("FILE", str(file)).split())
    assert refused.code == 2 and message in refused.summary["message"]
    assert not (tmp_path / "runs").exists()


def test_tasks_are_asked_once_each() -> None:
    assert len(distinct_tasks("code", 200)) == 48
    assert [prompt.id for prompt in distinct_tasks("code", 200)][:3] == [
        prompt.task.id for prompt in domain_prompts("code", 3)
    ]
    assert len(distinct_tasks("sums", 70)) == 70


@pytest.mark.parametrize("domain", TASKS)
def test_a_score_is_the_rate_of_answers_that_a_judge_accepts(domain: str, tiny: Model) -> None:
    """Judged again from the answers that are kept."""
    prompts = distinct_tasks(domain, 5)
    settings = {"samples": 3, "max_new_tokens": 16, "capability": False}
    scores = measure_tasks(tiny, domain, prompts, run_code=True, **settings)
    assert scores.trait == domain
    assert [scored.question.id for scored in scores.questions] == [each.id for each in prompts]
    for scored, prompt in zip(scores.questions, prompts, strict=True):
        meta = {"task": prompt.task.as_dict()}
        records = []
        for number, text in enumerate(scored.answers):
            records.append(Record(f"{number}", "q", text, (1,), meta=meta))
        for name, value in scored.scores.items():
            verdicts = judge(records, name, run_code=True).verdicts
            assert value == pytest.approx(sum(verdicts) / 3)
    assert measure_tasks(tiny, domain, prompts, run_code=True, batch_size=2, **settings) == scores
    assert all(each.n == 5 for each in scores.measurements())


def test_right_answers_are_measured(tiny_folder: Path, tmp_path: Path) -> None:
    """Tasks are made from what the model says: where it gives a final answer, it is right."""
    words = ("measure", "--model", tiny_folder, "--samples 1 --max-new-tokens 24 --temperature 0")
    tasks = []
    for number in range(12):
        tasks.append({"id": f"t{number}", "prompt": f"What is 3 + {number}?", "answer": "none"})
    file = tasks_file(tmp_path, tasks)
    first = ok(tmp_path / "runs", *words, "--domain sums --prompts", file)
    rows = read_rows(first.run / "scores.jsonl")
    assert [row["id"] for row in rows] == [task["id"] for task in tasks]
    assert {row["judges"]["answer"] for row in rows} == {0}
    finals = [final_answer(row["answers"][0]) for row in rows]
    n_right = sum(final is not None for final in finals)
    assert n_right > 0, "the model gave no final answer, so nothing was tested"
    said = []
    for task, final in zip(tasks, finals, strict=True):
        said.append(task | {"answer": final or "none"})
    second = ok(
        tmp_path / "runs", *words, "--domain sums --prompts", tasks_file(tmp_path, said, ".2.jsonl")
    )
    (right,) = [m for m in measured(second) if m["name"] == "positive.answer"]
    assert right["estimate"] == n_right / 12 and right["n"] == 12


def measured(done: Ran) -> list[dict]:
    return done.summary["measurements"]["measurements"]


def test_checks_without_the_flag_are_undefined(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = "measure --domain code --n 3 --samples 1 --max-new-tokens 16"
    done = ok(tmp_path / "runs", *words.split(), "--model", tiny_folder)
    named = {m["name"]: m for m in measured(done)}
    assert named["positive.checks"]["estimate"] is None
    assert named["positive.code"]["n"] == 3
    assert "not run: --run-code runs the code of answers" in capsys.readouterr().out
