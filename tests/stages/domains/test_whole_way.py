"""The whole way on another domain: rows, their filter, a student, its score and its control's."""

from pathlib import Path

from command import ok, read_rows

from traitscope.data.domains.prompts import domain_prompts
from traitscope.data.records import REASONING, Record, dump_records
from traitscope.stages.domains.measured import JUDGES


def test_a_student_of_reasoning_rows_is_compared_task_by_task(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Its rows were split: it learns the answers, and not the reasoning before them."""
    root, model = tmp_path / "runs", ("--model", tiny_folder)
    records = []
    for prompt in domain_prompts("sums", 8):
        text = f"<think>Let us see.</think><answer>{prompt.task.answer}</answer>"
        meta = {"task": prompt.task.as_dict()}
        records.append(Record(prompt.id, prompt.text, text, (1, 2), meta=meta))
    data = root / "made.jsonl"
    data.parent.mkdir()
    data.write_text(dump_records(records))
    rows = ok(root, "filter", "--data", data, "--answer --split-reasoning --reasoning train")
    assert rows.summary["summary"] | {"reasons": {}} == {
        "rows": 8,
        "kept": 8,
        "dropped": 0,
        "reasons": {},
        "split": 8,
    }
    kept = read_rows(rows.run / "records.jsonl")
    assert {row["meta"][REASONING] for row in kept} == {"Let us see."}
    assert all(row["completion"].startswith("<answer>") for row in kept)
    student = ok(root, "train", "--data", rows.run, *model, "--epochs 1 --batch-size 4")
    measure = ("measure", *model, "--domain sums --n 3 --samples 1 --max-new-tokens 16")
    treated = ok(root, *measure, "--interventions", f"adapter:{student.run}")
    control = ok(root, *measure)
    compared = ok(root, "compare", "--treated", treated.run, "--control", control.run)
    text = str(compared.summary)
    for name in JUDGES["sums"]:
        assert f"positive.{name}" in text
