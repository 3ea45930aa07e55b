"""The Python blocks of every page run, on a tiny model or on planted runs.

Blocks that show a file of examples/ are run by test_examples.py.
"""

import json
import re
from pathlib import Path

import pytest
from command import OWL, ok, write_yaml
from sealed_students import measured_student
from tiny_models import random_vector

from traitscope.models.model import Model

HERE = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(?!--8<--)(.*?)^```", flags=re.DOTALL | re.MULTILINE)
PAGES = {
    "README.md",
    "api.md",
    "compare-runs.md",
    "defend-data.md",
    "from-suspect-to-safe.md",
    "others-vectors.md",
    "teacher-at-hand.md",
    "train-safely.md",
    "trl.md",
    "verify-student.md",
}
"pages with such blocks; test_examples.py runs those of the README"


def blocks(page: str) -> str:
    """The Python blocks of a page, one behind the other."""
    return "\n".join(BLOCK.findall((HERE / "docs" / page).read_text(encoding="utf-8")))


def run(code: str, changes: dict[str, str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict:
    """Run code in a folder, with other texts in it; returns its variables."""
    for old, new in changes.items():
        assert old in code, old
        code = code.replace(old, new)
    monkeypatch.chdir(folder)
    variables: dict = {}
    exec(compile(code, "page", "exec"), variables)
    return variables


def test_no_page_has_a_block_that_is_not_run() -> None:
    with_blocks = set()
    for page in [HERE / "README.md", *(HERE / "docs").rglob("*.md")]:
        if BLOCK.search(page.read_text(encoding="utf-8")):
            with_blocks.add(page.name)
    assert with_blocks == PAGES


def test_compare_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {}
    for letter, role, shift in (("a", "treated", 0.4), ("b", "control", 0.0)):
        for seed in (1, 2):
            _, answers = measured_student(tmp_path, role, seed, shift)
            changes[f"runs/default/measure-{letter}{seed}"] = str(answers.path)
    made = run(blocks("how-to/compare-runs.md"), changes, monkeypatch, tmp_path)
    assert made["comparison"].design == "paired"
    assert "(n = 2 seeds, " in capsys.readouterr().out
    assert "<svg" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_others_vectors(
    tmp_path: Path, tiny: Model, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    torch.save(torch.ones(tiny.n_layers + 1, tiny.d_model), tmp_path / "evil.pt")
    changes = {"org/the-model": str(tiny_folder), "layer=19": "layer=1"}
    made = run(blocks("how-to/others-vectors.md"), changes, monkeypatch, tmp_path)
    assert made["vector"].model == tiny.digest and (tmp_path / "evil.gguf").is_file()


def test_defend_data(
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = {"smollm2-135m": str(tiny_folder), "epochs=1": "epochs=1, rank=2"}
    made = run(blocks("how-to/defend-data.md"), changes, monkeypatch, tmp_path)
    assert "⟦" in capsys.readouterr().out
    assert made["done"].counts["masked"] > 0 and made["student"].files


@pytest.fixture
def student(tmp_path: Path, tiny_folder: Path) -> Path:
    """A run of `train` on a few rows."""
    generated = ok(tmp_path / "runs", "generate", "--model", tiny_folder, "--n 6 --count 2").run
    words = ("--lr 0.01 --rank 2 --batch-size 4",)
    return ok(tmp_path / "runs", "train", "--model", tiny_folder, "--data", generated, *words).run


def test_teacher_at_hand(
    tmp_path: Path,
    tiny: Model,
    tiny_folder: Path,
    student: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    random_vector(tiny).save(tmp_path / "owl.safetensors")
    trait = write_yaml(tmp_path / "owl.yaml", OWL)
    smaller = "broad=False, samples=1, rows=8, n=8, count=2"
    changes = {
        "runs/default/train-1234": str(student),
        "runs/default/extract-1234/owl.safetensors": "owl.safetensors",
        "smollm2-135m": str(tiny_folder),
        '("owl", "cat"))': f'("{trait}",), {smaller})',
        '("owl",))': f'("{trait}",), {smaller})',
        "layer=14": "layer=1",
    }
    made = run(blocks("how-to/teacher-at-hand.md"), changes, monkeypatch, tmp_path)
    assert made["found"].answer in ("named", "changed")
    assert "nats a row" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "screen.html").read_text(encoding="utf-8")


def test_verify_student(
    tmp_path: Path,
    tiny_folder: Path,
    student: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trait = write_yaml(tmp_path / "owl.yaml", OWL)
    changes = {
        "runs/default/train-1234": str(student),
        "smollm2-135m": str(tiny_folder),
        '("owl", "cat")': f'("{trait}",)',
    }
    made = run(blocks("how-to/verify-student.md"), changes, monkeypatch, tmp_path)
    assert made["found"].status == "no-verdict"
    assert "there are no controls" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "verify.html").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore")  # those of peft and of transformers' Trainer
def test_a_trainer_of_transformers_is_watched(
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every measurement is a line of the file, and reaches a reporter behind the callback."""
    changes = {
        "smollm2-135m": str(tiny_folder),
        "layer=14": "layer=1",
        "layer_14": "layer_1",
        "number_prompts(32)": "number_prompts(8)",
        'report_to="none",': 'report_to="none", use_cpu=True, dataloader_pin_memory=False,',
    }
    run(blocks("how-to/trl.md"), changes, monkeypatch, tmp_path)
    lines = (tmp_path / "eas.jsonl").read_text().splitlines()
    eas = [json.loads(line)["eas"]["owl"][1] for line in lines]
    assert [json.loads(line)["step"] for line in lines] == [4, 8]
    reported = capsys.readouterr().out
    assert f"4 {eas[0]}" in reported and f"8 {eas[1]}" in reported


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")  # those of peft, TRL and transformers' Trainer
def test_trainers_are_guarded(
    tmp_path: Path, tiny: Model, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of all three trainers train; what acts and the anchor are in their losses."""
    pytest.importorskip("trl")
    random_vector(tiny).save(tmp_path / "owl.safetensors")
    changes = {
        "smollm2-135m": str(tiny_folder),
        "runs/default/extract-1234/owl.safetensors": "owl.safetensors",
        "layer=14": "layer=1",
        'report_to="none"': 'report_to="none", use_cpu=True, logging_steps=1',
    }
    guarded = run(blocks("how-to/train-safely.md"), changes, monkeypatch, tmp_path)
    plain = changes | {
        "during=[steer], anchor=1.0": "",
        "during=[steer], project_out=[ts.Ablate(VECTOR, layer=14)], anchor=1.0": "",
    }
    unguarded = run(
        blocks("how-to/train-safely.md"), dict(reversed(plain.items())), monkeypatch, tmp_path
    )
    losses = [made["trainer"].state.log_history[0]["loss"] for made in (guarded, unguarded)]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_the_run_of_the_page_of_the_python_api(
    tmp_path: Path, tiny_folder: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated = next((tmp_path / "runs" / "default").glob("generate-*"))
    changes = {
        "runs/default/filter-1234": str(generated),
        "smollm2-135m": str(tiny_folder),
        "epochs=3": "epochs=1, rank=2, batch_size=4",
    }
    made = run(blocks("reference/api.md"), changes, monkeypatch, tmp_path)
    assert made["run"].stage == "train" and made["run"].file("student").is_dir()
