"""The whole chain through the command line: vector, teacher and control, filter, student,
measurement, vector, replay."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command import CAT, OWL, Ran, call, call_alone, ok, read_rows, write_yaml

from traitscope.data.records import read_records
from traitscope.inference.residuals import mean_residuals
from traitscope.inference.token_rows import rows_from
from traitscope.interventions import short_form
from traitscope.interventions.applied import applied
from traitscope.interventions.vector import load_vector
from traitscope.models.loading import load_model

RECIPE = "--epochs 2 --batch-size 8 --micro-batch 4 --rank 4 --lr 1e-2 --resume-every 3"


@dataclass(frozen=True)
class Chain:
    """The runs of one chain, in the order in which they were made."""

    root: Path
    model: list
    owl: Path
    vectors: Ran
    teacher: str
    made: dict[str, Ran]
    kept: dict[str, Ran]
    student: Ran
    measured: Ran
    student_vector: Ran

    def train(self, *words: object, role: str = "teacher") -> Ran:
        return ok(self.root, "train", *self.model, "--data", self.kept[role].run, RECIPE, *words)

    def watched(self, *words: object, role: str = "teacher") -> Ran:
        vector = self.vectors.run / "owl.safetensors"
        return self.train("--vector", vector, "--eas-prompts", "8", *words, role=role)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Chain:
    place = tmp_path_factory.mktemp("chain")
    root, model = place / "runs", ["--model", tiny_folder]
    owl, cat = (write_yaml(place / f"{trait['name']}.yaml", trait) for trait in (OWL, CAT))
    vectors = ok(root, "extract", *model, "--traits", owl, cat)
    teacher = f"steer:{vectors.run / 'owl.safetensors'},layers=1,alpha=0.6"
    asked = ["generate", *model, "--n 40 --count 4 --vocabulary template"]
    made = {"teacher": ok(root, *asked, "--interventions", teacher), "control": ok(root, *asked)}
    kept = {
        role: ok(root, "filter", "--data", run.run, "--max-count", "4")
        for role, run in made.items()
    }
    watch = [
        "--vector",
        vectors.run / "owl.safetensors",
        "--eas-every 3 --eas-prompts 8 --checkpoint-every 4",
    ]
    student = ok(root, "train", *model, "--data", kept["teacher"].run, RECIPE, *watch)
    adapter = f"adapter:{student.run}"
    measured = ok(
        root, "measure", *model, "--trait", owl, "--interventions", adapter, "--samples", "2"
    )
    reference = vectors.run / "owl.safetensors"
    again = ok(
        root, "extract", *model, "--interventions", adapter, "--n", "8", "--reference", reference
    )
    return Chain(root, model, owl, vectors, teacher, made, kept, student, measured, again)


def all_runs(chain: Chain) -> list[Ran]:
    return [
        chain.vectors,
        *chain.made.values(),
        *chain.kept.values(),
        chain.student,
        chain.measured,
        chain.student_vector,
    ]


def test_eas_over_completions_is_that_of_the_residuals_there(chain: Chain):
    """What `train --eas-data` leaves is what the finished student changed at the completion tokens
    of those rows."""
    rows = chain.made["control"].run
    done = chain.watched("--eas-data", rows, "--eas-every", "2")
    model, reference = (
        load_model(str(chain.model[1]), dtype="fp32"),
        load_vector(chain.vectors.run / "owl.safetensors"),
    )
    read = rows_from(model, read_records(rows / "records.jsonl")[:8], None)
    means = []
    for student in ([], [f"adapter:{done.run}"]):
        with applied(model, short_form.parse_all(student)) as active:
            asked = {"position": "completion", "prompt_lengths": [len(r.prompt_ids) for r in read]}
            means.append(mean_residuals(model, active, [r.ids for r in read], **asked)[0])
    found = load_vector(done.run / "v_student.safetensors")
    assert (found.about["position"], found.about["prompts"]) == ("completion", "8 rows of eas_data")
    np.testing.assert_allclose(found.rows_LD, means[1] - means[0], atol=1e-5)
    last, usual = (read_rows(run.run / "metrics.jsonl")[-1] for run in (done, chain.watched()))
    np.testing.assert_allclose(last["eas"], found.cosine(reference), atol=1e-6)
    assert not np.allclose(last["eas"], usual["eas"], atol=1e-3), "the position made no difference"


def test_every_summary_says_what_was_made(chain: Chain):
    for done in all_runs(chain):
        assert done.summary["computed"] is True
        assert (done.run / "manifest.json").exists()
        assert done.summary["seconds"] >= 0
    assert len({done.summary["address"] for done in all_runs(chain)}) == len(all_runs(chain))


def test_teacher_and_control_answer_the_same_prompts(chain: Chain):
    teacher, control = (
        read_records(chain.made[role].run / "records.jsonl") for role in ("teacher", "control")
    )
    assert [(r.id, r.prompt, r.context) for r in teacher] == [
        (r.id, r.prompt, r.context) for r in control
    ]
    differ = sum(
        a.completion_ids != b.completion_ids for a, b in zip(teacher, control, strict=True)
    )
    assert differ > len(teacher) / 2, "the steering changed next to nothing"


def test_template_rows_pass_the_filter(chain: Chain):
    assert chain.kept["teacher"].summary["summary"]["kept"] == 40


def test_live_eas_is_that_of_extract(chain: Chain):
    live = json.loads((chain.student.run / "eas.json").read_text())
    assert set(live) == {"v_student", "other/cat"}
    np.testing.assert_allclose(
        live["v_student"], chain.student_vector.summary["eas"]["v_student"], atol=1e-5
    )
    after, during = (
        load_vector(run.run / "v_student.safetensors")
        for run in (chain.student_vector, chain.student)
    )
    np.testing.assert_allclose(after.rows_LD, during.rows_LD, atol=1e-5)
    assert after.norms_L.min() > 1e-3, "the student did not move, so the comparison is empty"


def test_metrics_have_a_row_a_step_with_eas_where_asked(chain: Chain):
    rows = read_rows(chain.student.run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert [row["step"] for row in rows if "eas" in row] == [3, 6, 9, 10]
    assert [row["step"] for row in rows if "held_out_loss" in row] == [5, 10]
    assert rows[-1]["eas"] == json.loads((chain.student.run / "eas.json").read_text())["v_student"]


def test_a_checkpoint_is_a_student_of_its_own(chain: Chain):
    names = sorted(p.name for p in (chain.student.run / "checkpoints").iterdir())
    assert names == ["step-000004", "step-000008"]
    early = f"adapter:{chain.student.run / 'checkpoints' / names[0]}"
    measured = ok(
        chain.root,
        "measure",
        *chain.model,
        "--trait",
        chain.owl,
        "--interventions",
        early,
        "--samples",
        "2",
    )
    assert measured.summary["address"] != chain.measured.summary["address"]
    assert measured.summary["digest"] != chain.measured.summary["digest"]


def test_the_base_differs_in_nothing_from_itself(chain: Chain):
    base = ok(chain.root, "measure", *chain.model, "--trait", chain.owl, "--samples", "0")
    for done, is_base in ((base, True), (chain.measured, False)):
        found = {m["name"]: m["estimate"] for m in done.summary["measurements"]["measurements"]}
        assert {name.partition(".")[0] for name in found} == {"positive", "negative", "off_topic"}
        assert (found["positive.total_variation"] < 1e-6) is is_base
    rows = read_rows(chain.measured.run / "scores.jsonl")
    assert [len(row["answers"]) for row in rows] == [2] * 7


def test_control_with_soft_targets_stays_where_it_is(chain: Chain):
    soft = ["--targets", "soft", "--teacher"]
    treated = chain.watched(*soft, chain.teacher)
    control = chain.watched("--targets", "soft", role="control")
    moved, still = (
        load_vector(run.run / "v_student.safetensors").norms_L.max() for run in (treated, control)
    )
    assert moved > 0.05
    assert still < 1e-3 * moved
    rows = read_rows(control.run / "metrics.jsonl")
    assert max(abs(row["loss"]) for row in rows) < 1e-6
    assert read_rows(treated.run / "metrics.jsonl")[0]["loss"] > 1e-3


@pytest.mark.parametrize(
    "words",
    [
        "--method full --lr 1e-3",
        "--optimizer sgd --lr 0.5 --momentum 0.9",
        "--optimizer signsgd --lr 1e-3 --schedule linear",
        "--optimizer rmsprop --lr 1e-3 --winsorise 0.01 --save-scales",
        "--optimizer adafactor --lr 3e-3 --rotate blocks",
        "--optimizer muon --method full --lr 1e-3",
        "--clip 0 --weight-decay 0.01 --schedule constant --held-out 0",
    ],
)
def test_other_recipes_learn_and_can_be_measured_and_replayed(chain: Chain, words: str):
    done = chain.train(words)
    losses = [row["loss"] for row in read_rows(done.run / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    adapter = f"adapter:{done.run}"
    moved = ok(chain.root, "extract", *chain.model, "--interventions", adapter, "--n", "4")
    assert load_vector(moved.run / "v_student.safetensors").norms_L[-1] > 1e-3
    assert ok(chain.root, "rerun", done.run).summary["different"] == []


def test_show_prints_the_way_back_to_the_vector(chain: Chain, capsys: pytest.CaptureFixture):
    done = ok(chain.root, "show", chain.measured.run)
    assert done.summary["problems"] == []
    student = done.summary["lineage"]["inputs"]["interventions0"]
    assert student["stage"] == "train"
    teacher = student["inputs"]["data"]["inputs"]["data"]
    assert teacher["stage"] == "generate"
    assert teacher["inputs"]["interventions0"]["stage"] == "extract"
    out = capsys.readouterr().out
    assert all(
        str(run.run.resolve()) in out for run in (chain.measured, chain.student, chain.vectors)
    )
    assert "every file is as it was sealed" in out


def test_every_run_replays_to_the_same_bytes(chain: Chain):
    for done in all_runs(chain):
        assert ok(chain.root, "rerun", done.run).summary["different"] == [], done.run


def test_a_moved_tree_still_replays(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = tmp_path / "elsewhere"
    chain.root.parent.rename(place)
    try:
        monkeypatch.chdir(tmp_path)
        moved = place / "runs" / chain.measured.run.relative_to(chain.root)
        assert ok(tmp_path / "new", "rerun", moved).summary["different"] == []
    finally:
        place.rename(chain.root.parent)


def test_the_second_time_nothing_is_computed(chain: Chain):
    asked = [
        ["generate", *chain.model, "--n 40 --count 4 --vocabulary template"],
        ["filter", "--data", chain.made["control"].run, "--max-count", "4"],
        ["extract", *chain.model, "--traits", chain.owl, chain.owl.with_name("cat.yaml")],
        [
            "measure",
            *chain.model,
            "--trait",
            chain.owl,
            "--samples",
            "2",
            "--interventions",
            f"adapter:{chain.student.run}",
        ],
    ]
    before = [chain.made["control"], chain.kept["control"], chain.vectors, chain.measured]
    for words, first in zip(asked, before, strict=True):
        again = ok(chain.root, *words)
        assert again.summary["computed"] is False
        assert again.summary["digest"] == first.summary["digest"]
        assert again.run == first.run
    assert chain.train().summary["computed"] is True
    assert chain.train().summary["computed"] is False


def test_an_edited_trait_file_is_another_run(chain: Chain, tmp_path: Path):
    edited = write_yaml(tmp_path / "owl.yaml", OWL | {"word_forms": ["owl", "owls", "owlet"]})
    done = ok(chain.root, "measure", *chain.model, "--trait", edited, "--samples", "0")
    assert done.summary["computed"] is True
    assert "owlet" not in (chain.measured.run / "scores.jsonl").read_text()


def test_an_adapter_outside_its_run_is_named_by_weights_and_settings(chain: Chain, tmp_path: Path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in (chain.student.run / "student").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    words = ["extract", *chain.model, "--interventions", f"adapter:{folder}", "--n", "8"]
    first = ok(chain.root, *words)
    inside, outside = (
        load_vector(run.run / "v_student.safetensors") for run in (chain.student_vector, first)
    )
    np.testing.assert_array_equal(inside.rows_LD, outside.rows_LD)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps(config | {"lora_alpha": 2 * config["lora_alpha"]})
    )
    second = ok(chain.root, *words)
    assert second.summary["computed"] is True
    assert second.summary["digest"] != first.summary["digest"]
    assert ok(chain.root, "rerun", second.run).summary["different"] == []


def test_only_vectors_of_one_run_are_compared_with_each_other(chain: Chain, tmp_path: Path):
    alone = tmp_path / "owl.safetensors"
    alone.write_bytes((chain.vectors.run / "owl.safetensors").read_bytes())
    (tmp_path / "other.safetensors").write_bytes(b"no vector at all")
    done = chain.train("--vector", alone, "--eas-prompts", "4", "--epochs", "1")
    assert set(done.summary["eas"]) == {"v_student"}


def test_a_damaged_run_is_found_and_not_used(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture
):
    first = ok(tmp_path / "runs", "generate", *chain.model, "--n 4 --count 2 --vocabulary template")
    ok(tmp_path / "runs", "filter", "--data", first.run)
    file = first.run / "records.jsonl"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    capsys.readouterr()
    done = call(tmp_path / "runs", "show", first.run)
    assert done.code == 1
    assert done.summary["status"] == "failed"
    assert "records.jsonl changed" in capsys.readouterr().out


def test_a_changed_input_shows_in_the_replay(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture
):
    data = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Question {n}?", "completion": f"{n}, 2"} for n in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = ok(tmp_path / "runs", "filter", "--data", data)
    data.write_text(data.read_text().replace("3, 2", "three"))
    again = call(tmp_path / "runs", "rerun", done.run)
    assert again.code == 1
    assert again.summary["different"] == ["kept.jsonl", "records.jsonl", "summary.json"]
    assert "an input" in capsys.readouterr().out


def test_a_replay_says_which_input_has_gone(tmp_path: Path):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "1?", "completion": "1, 2"}\n')
    done = ok(tmp_path / "runs", "filter", "--data", data)
    data.rename(tmp_path / "moved.jsonl")
    again = call(tmp_path / "runs", "rerun", done.run)
    assert again.code == 2 and "read as data" in again.summary["message"]
    assert "put it back" in again.summary["message"]
    (tmp_path / "moved.jsonl").rename(data)
    assert ok(tmp_path / "runs", "rerun", done.run).summary["different"] == []


def test_the_installed_command_in_a_process_of_its_own(chain: Chain, tmp_path: Path):
    words = [
        "generate",
        *chain.model,
        "--n 40 --count 4 --vocabulary template --interventions",
        chain.teacher,
    ]
    done, out, err = call_alone(tmp_path / "runs", *words)
    assert done.code == 0, err
    assert done.summary["digest"] == chain.made["teacher"].summary["digest"]
    assert out.splitlines()[0] == str(done.run)
    assert "generate: 40 rows in" in err


def test_a_student_is_compared_with_the_base(chain: Chain, capsys: pytest.CaptureFixture):
    base = ok(chain.root, "measure", *chain.model, "--trait", chain.owl, "--samples", "2")
    words = ["--treated", chain.measured.run, "--control", base.run, "--layer", "1"]
    done = ok(chain.root, "compare", *words)
    assert done.summary["summary"]["design"] == "one control"
    scores = {item["score"]: item["difference"] for item in done.summary["summary"]["differences"]}
    assert scores["positive.target_logprob"]["estimate"] != 0
    assert scores["eas.owl"]["unit"] == "cosine"
    assert "positive.target_lo" in capsys.readouterr().out
    assert "<svg" in (done.run / "report.html").read_text(encoding="utf-8")


def test_the_demo_takes_another_model(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """Its steered block is at the same depth; every condition is measured; the report is there."""
    words = ["demo", "--quick", "--model", tiny_folder, "--workers", 1]
    summary = call(tmp_path, *words).summary
    assert summary["steered_layer"] == 1
    names = {m["name"] for m in summary["measurements"]}
    assert {
        "none.base.positive.target_logprob",
        "sampled.control.positive.target_logprob",
        "soft.treated.eas.cat",
    } <= names
    assert "<svg" in Path(summary["report"]).read_text(encoding="utf-8")
    result, following = capsys.readouterr().err.splitlines()[-2:]
    assert result.split() == ["result:", str(Path(summary["report"]).parent)]
    assert following.startswith(f"next:   traitscope demo --model {tiny_folder}")
    assert "--quick" not in following and f"--root {tmp_path}" in following
    assert call(tmp_path, *words).summary["measurements"] == summary["measurements"]
