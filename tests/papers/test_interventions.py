"""What was done to models stands in a report: every kind, by name, block, strength and scale."""

import csv
import io
import shutil
from pathlib import Path

import pytest
from command import ok
from paper_runs import run_named

from traitscope.papers.lineage import Made, behind
from traitscope.papers.wording import changes
from traitscope.runs.manifests import file_sha256
from traitscope.runs.store import load_run

PROMPT = "You love “owls”."


@pytest.fixture(scope="module")
def trait(root: Path) -> tuple[object, ...]:
    """Words of `measure` for the model and the trait of the shared runs."""
    base = Made(run_named(root, "llama-owl-base"))
    return ("--model", base.settings["model"], "--samples 1 --trait", base.inputs["trait0"])


@pytest.fixture
def evil(root: Path, tmp_path: Path) -> Path:
    """A vector that lies in no run."""
    vectors = run_named(root, "treated-1").manifest()["inputs"]["vector"]["path"]
    place = (run_named(root, "treated-1").path / vectors).resolve()
    return Path(shutil.copy(place, tmp_path / "evil.safetensors"))


def adapter(root: Path, student: str, folder: Path) -> Path:
    """A peft folder that lies in no run."""
    return Path(shutil.copytree(run_named(root, student).file("student"), folder))


def reported(root: Path, run: Path, folder: Path) -> tuple[str, list[dict[str, str]]]:
    """The paragraph of a report without marks of Markdown, and the rows of its table of runs."""
    ok(root, "report", run, "--for-paper", folder)
    rows = list(csv.DictReader(io.StringIO((folder / "tables/runs.csv").read_text())))
    return (folder / "methods.md").read_text().replace("\\", ""), rows


def digest(file: Path) -> str:
    return f"(digest {file_sha256(file)[:16]})"


def test_every_kind_stands_in_the_paragraph_and_the_table(
    root: Path, tmp_path: Path, evil: Path, trait: tuple[object, ...]
) -> None:
    mine = adapter(root, "treated-1", tmp_path / "my_lora")
    vector = f"the vector evil {digest(evil)}"
    kinds = {
        f"steer:{evil},layers=1,alpha=2,scale=raw": (
            f"{vector} added behind block 1 at all tokens with strength 2 times the vector"
        ),
        f"ablate:{evil},layers=0+1,position=last": (
            f"{vector} projected out behind blocks 0 and 1 at the last prompt token"
        ),
        f"adapter:{mine},cells=mlp,drop=1": (
            f"the adapter my_lora {digest(mine / 'adapter_model.safetensors')}, in the maps mlp,"
            " without its 1 largest singular directions,"
        ),
        f"prompt:{PROMPT}": f"the system prompt “{PROMPT}”",
        "noise:0.01,seed=3": (
            "weight noise of standard deviation 0.01 (of each matrix of attention and mlp, seed 3)"
        ),
    }
    for number, (short, words) in enumerate(kinds.items()):
        run = ok(root, "measure", *trait, "--interventions", short).run
        text, rows = reported(root, run, tmp_path / f"paper-{number}")
        assert f"Measured were the model under {words}." in text, text
        assert [row["interventions"] for row in rows] == [words]


def test_sides_of_a_comparison_say_how_models_were_changed(root: Path, tmp_path: Path) -> None:
    run = run_named(root, "llama-owl").path
    text, rows = reported(root, run, tmp_path / "paper")
    words = (
        "the vector owl added behind block 1 at all tokens with strength 0.8 mean residual norms"
    )
    assert f"Treated models (the model under {words}) were compared with base models" in text
    assert "base models (the unmodified model) (design: one control)" in text
    (vectors,) = [row["run"] for row in rows if row["stage"] == "extract"]
    by_side = {row["side"]: row["interventions"] for row in rows if row["side"]}
    assert by_side == {"treated": words.replace("owl", f"owl of {vectors}", 1), "control": ""}


def test_students_of_both_sides_are_named(root: Path, tmp_path: Path) -> None:
    text, rows = reported(root, run_named(root, "students").path, tmp_path / "paper")
    for side in ("treated", "control"):
        names = [f"the student {run_named(root, f'{side}-{seed}').path.name}" for seed in (1, 2)]
        changed = [row["interventions"] for row in rows if row["side"] == side]
        assert sorted(changed) == sorted(names)
        assert all(name in text for name in names)
    assert {row["run"] for row in rows} == {
        made.run.path.name for made in behind([run_named(root, "students")])
    }


def test_adapters_from_elsewhere_are_told_apart(
    root: Path, tmp_path: Path, trait: tuple[object, ...]
) -> None:
    """Teachers that write rows are named by folder and digest, also in the list of runs."""
    said = []
    students = {"treated-1": "one/lora", "treated-2": "two/lora", "control-1": "other"}
    for student, name in students.items():
        folder = adapter(root, student, tmp_path / name)
        words = ("--n 2 --count 2 --vocabulary template --interventions", f"adapter:{folder}")
        run = ok(root, "generate", *trait[:2], *words).run
        said.append(changes.changes(Made(load_run(run))))
        listed = ok(root, "show", "--stage generate").summary["listed"]
        assert [row["made_by"] for row in listed if row["run"] == str(run)] == [folder.name]
    assert [text.partition(" (")[0] for text in said] == [
        "the adapter lora",
        "the adapter lora",
        "the adapter other",
    ]
    assert len(set(said)) == 3


def test_what_acted_in_training_is_said(
    root: Path, tmp_path: Path, evil: Path, trait: tuple[object, ...]
) -> None:
    """Vectors that act while a student trains, and directions that its gradients lose."""
    rows = Made(run_named(root, "treated-1")).inputs["data"]
    recipe = ("train", *trait[:2], "--data", rows, "--epochs 1 --rank 2")
    during = ok(root, *recipe, "--during", f"steer:{evil},layers=1,alpha=0.5").run
    lost = ok(root, *recipe, "--project-out", f"ablate:{evil},layers=1").run
    vector = f"the vector evil {digest(evil)}"
    for run, text in (
        (during, f"there acted while the student trained: {vector} added behind block 1"),
        (lost, f"gradients of the residual stream lost {vector} projected out behind block 1"),
    ):
        said = " ".join(each.text for each in changes.elsewhere(behind([load_run(run)])))
        assert f"In the stage train, {text}" in said, said
        assert vector in changes.said_of(Made(load_run(run)))


def test_what_stands_in_the_weights_of_an_exported_model_is_said(
    root: Path, tmp_path: Path, evil: Path, trait: tuple[object, ...]
) -> None:
    """A model that `export` wrote brings the run that says what was done to it."""
    words = f"steer:{evil},layers=1,alpha=0.5"
    made = ok(root, "export", *trait[:2], "--interventions", words).run
    run = ok(root, "measure", "--model", made / "model", *trait[2:]).run
    text, rows = reported(root, run, tmp_path / "paper")
    said = f"the vector evil {digest(evil)} added behind block 1 at all tokens with strength 0.5"
    assert f"In the stage export, the model was under {said} mean residual norms." in text
    assert f"{made.name} (digest" in text
    assert [row["model"] for row in rows if row["stage"] == "measure"] == [made.name]
