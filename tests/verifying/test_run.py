"""The command on tiny models: planted traits, controls, relearning, resuming, and bad input."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import call, ok
from tiny_models import save_tiny
from verified_students import Place, numbers, write_rows

from traitscope.cli import main
from traitscope.config.recipe import Recipe
from traitscope.config.students.verify import RELEARNING, VerifyConfig
from traitscope.errors import ConfigError
from traitscope.models.model import Model
from traitscope.runs import store
from traitscope.verifying import students
from traitscope.verifying.ask import times_of_asking


@pytest.fixture
def place(tmp_path: Path, tiny_folder: Path) -> Place:
    return Place(tmp_path, tiny_folder)


def test_a_planted_trait_is_found_beside_controls(place: Place, tiny: Model) -> None:
    """It is found, the gate fails, and what was asked is not asked again."""
    student, controls = place.towards(tiny), place.controls(5)
    page = place.folder / "page.html"
    words = (student, "--controls", *controls, "--contexts default empty")
    done = place.verify(*words, "--fail-on trait --samples 1", "--report", page)
    assert done.code == 1 and done.summary["gate"] == "failed"
    assert done.summary["status"] == "trait" and done.summary["design"] == "one student"
    assert done.summary["findings"][0].startswith("trait: owl (owl, system turn ")
    for item in done.summary["contrasts"]:
        assert item["outcome"] == "holds here" and item["units"] == 5
        assert item["p_corrected"] < 0.01 and item["difference"]["low"] > 1
    assert len(place.runs("ask")) == 14 and done.summary["tests"] == 2
    text = page.read_text()
    assert "<svg" in text and "Sampled answers" in text and "There are no controls" not in text
    assert place.verify(*words, "--samples 1").summary["run"] == str(done.run)
    ok(place.root, "rerun", done.run)
    more = place.verify(*words, "--samples 1", "--contexts", "default", "You count.")
    assert len(place.runs("ask")) == 21 and more.summary["tests"] == 2


def test_without_controls_nothing_is_said_over_seeds(place: Place, tiny: Model) -> None:
    """Not even of a planted trait, which the answer names as standing out over questions."""
    page = place.folder / "page.html"
    done = place.verify(place.towards(tiny), "--report", page, "--fail-on trait")
    assert done.code == 0 and done.summary["gate"] == "not judged"
    assert done.summary["status"] == "no-verdict" and done.summary["design"] == "questions"
    assert "there are no controls" in done.summary["findings"][0]
    assert "There are no controls" in page.read_text()
    assert {item["outcome"] for item in done.summary["contrasts"]} == {"no verdict"}
    assert done.summary["contrasts"][0]["over_questions"]["low"] > 1
    assert place.verify(place.towards(tiny), "--fail-on unclear").code == 1


def test_controls_on_one_file_are_one_unit(place: Place, tiny: Model) -> None:
    """Whatever was planted: five seeds, five shuffles or five parts that overlap; it says why and
    what to do. With a file each, one of them twice, the trait is found."""
    student, page = place.towards(tiny), place.folder / "page.html"
    same, shuffled = [], []
    lines = place.clean.read_text().splitlines()
    for seed in range(1, 6):
        same.append(place.train(place.clean, seed).path)
        file = place.folder / f"shuffled-{seed}.jsonl"
        file.write_text("\n".join([*lines[seed:], *lines[:seed]]) + "\n")
        shuffled.append(place.train(file, seed).path)
    for controls in (same, shuffled):
        done = place.verify(
            student, "--controls", *controls, "--contexts default", "--report", page
        )
        assert done.summary["status"] == "no-verdict" and done.summary["design"] == "questions"
        first, *others = done.summary["findings"]
        assert "5 controls (1 set of rows, 5 seeds): 1 unit" in first
        assert "is in no interval" in first and "a verdict needs 5 controls that are units" in first
        assert "--data clean-1.jsonl --seed 1" in done.summary["next"]
        assert any(text.startswith("over questions alone: owl") for text in others)
        assert {item["p_corrected"] for item in done.summary["contrasts"]} == {None}
        assert [item["set_of_rows"] for item in done.summary["models"]] == [None] + [1] * 5 + [None]
    assert "there is one unit on either side" in page.read_text()
    again = place.train(place.clean_set(1), 9).path
    done = place.verify(student, "--controls", *place.controls(5), again, "--contexts default")
    assert done.summary["status"] == "trait" and done.summary["contrasts"][0]["units"] == 5
    (said,) = [text for text in done.summary["findings"] if "do not count in p values" in text]
    assert said.startswith("control6 ")
    assert [item["counts"] for item in done.summary["models"]] == [True] * 6 + [False] * 2


def test_controls_of_one_seed_need_a_student_of_it(place: Place) -> None:
    """Then the seed is that of all; else it is one unit, on five sets of rows."""
    controls = [place.train(place.clean_set(number), 1).path for number in range(1, 6)]
    rows = write_rows(place.folder / "s.jsonl", numbers(1))
    other = place.verify(place.train(rows, 2).path, "--controls", *controls, "--contexts default")
    assert other.summary["status"] == "no-verdict"
    assert "5 controls (5 sets of rows, 1 seed): 1 unit" in other.summary["findings"][0]
    done = place.verify(place.train(rows, 1).path, "--controls", *controls, "--contexts default")
    assert done.summary["contrasts"][0]["units"] == 5
    assert done.summary["contrasts"][0]["outcome"] != "no verdict"


def test_folders_whose_rows_are_not_known_are_said_to_be(place: Place, tiny: Model) -> None:
    """As controls each counts as a unit. As students they count as one."""
    folders = []
    for run in place.controls(5):
        folders.append(shutil.copytree(run / "student", place.folder / f"peft-{run.name}"))
    done = place.verify(place.towards(tiny), "--controls", *folders, "--contexts default")
    assert done.summary["status"] == "trait"
    (said,) = [text for text in done.summary["findings"] if "rows of their own" in text]
    assert "is not known: each counts as a unit" in said and "p values are too small" in said
    students = []
    for run in (place.train(place.clean, 7).path, place.train(place.clean, 8).path):
        students.append(shutil.copytree(run / "student", place.folder / f"peft-{run.name}"))
    done = place.verify(*students, "--controls", *folders, "--contexts default")
    assert done.summary["design"] == "one student" and done.summary["contrasts"][0]["units"] == 5


def test_relearning_beside_controls_is_compared_afterwards_too(place: Place) -> None:
    """The student has had the words of the trait: it lies above the controls all along."""
    page = place.folder / "page.html"
    student = place.train(write_rows(place.folder / "s.jsonl", ["the owl"] * 8), 9)
    controls = []
    for number in range(1, 6):
        file = write_rows(
            place.folder / f"w-{number}.jsonl", [f"a day {number} {n}" for n in "abcdefgh"]
        )
        controls.append(place.train(file, number).path)
    words = ("--relearn", place.words, "--contexts default", "--report", page)
    done = place.verify(student.path, "--controls", *controls, *words)
    assert done.code == 0, done.summary
    by_context = {item["context"]: item for item in done.summary["contrasts"]}
    assert by_context["default"]["after"] is by_context["default"]["after_over_questions"] is None
    gain = by_context["relearning"]
    (returned,) = done.summary["relearning"]
    means = {}
    for side in ("students", "controls"):
        means[side] = np.mean([np.mean(curve[1:]) for curve in returned[side]])
    expected = means["students"] - means["controls"]
    assert gain["units"] == 5 and gain["after"]["estimate"] == pytest.approx(expected)
    assert gain["after_over_questions"]["estimate"] == pytest.approx(expected)
    assert "afterwards" in page.read_text()


def test_clean_students_carry_nothing(place: Place) -> None:
    """Six of one law, one of them called the student; the answer states its power."""
    *controls, student = place.controls(6)
    other = write_rows(place.folder / "other.jsonl", numbers(1))
    student = place.train(other, 6).path
    done = place.verify(student, "--controls", *controls, "--fail-on unclear")
    assert done.code == 0, done.summary["findings"]
    assert done.summary["status"] == "nothing-found" and done.summary["gate"] == "passed"
    assert "would have been found with power 0.8" in done.summary["findings"][0]
    assert all(item["detectable"] > 0 for item in done.summary["contrasts"])
    undecided = [item for item in done.summary["contrasts"] if item["outcome"] == "undecided"]
    said = [text for text in done.summary["findings"] if text.startswith("not ruled out: ")]
    assert len(said) == bool(undecided)
    for text in said:
        largest = max(item["difference"]["estimate"] for item in undecided)
        assert f"{len(undecided)} of 3 differences" in text and f"{largest:+.2f}"[:4] in text


def test_the_base_is_no_student_of_itself(place: Place) -> None:
    """A copy of the base differs in nothing, asked or relearning, under any system turn."""
    contexts = ("--contexts", "default", "You are a small helpful model.", "empty")
    done = place.verify(place.model, "--relearn", place.words, *contexts)
    assert done.summary["status"] == "no-verdict"
    for item in done.summary["contrasts"]:
        assert item["over_questions"]["estimate"] == 0 and item["p_questions_corrected"] == 1
    assert done.summary["contexts"] == ["default", "empty"]
    assert done.summary["contexts_left_out"] == {"You are a small helpful model.": "default"}
    (returned,) = done.summary["relearning"]
    assert returned["students"] == returned["controls"] and returned["steps"] == [0, 1, 2]


def test_relearning_is_training(place: Place, tiny: Model) -> None:
    """The answers at the last step are those of a student of `train` by the same recipe, and those
    at step 0 are those of the model itself, alone and on top of another student."""
    run = place.train(place.words, 0, recipe=RELEARNING)
    trained = place.asked(interventions=(f"adapter:{run.path}",))
    relearnt = place.asked(data=place.words)
    before = place.asked()
    for name, kind in relearnt.kinds.items():
        np.testing.assert_allclose(kind.log_p_SQE[-1], trained.kinds[name].log_p_SQE[0], atol=2e-5)
        np.testing.assert_allclose(kind.log_p_SQE[0], before.kinds[name].log_p_SQE[0], atol=2e-5)
        assert np.abs(kind.log_p_SQE[-1] - kind.log_p_SQE[0]).max() > 1e-3
    on_top = place.asked(data=place.words, interventions=(f"adapter:{run.path}",))
    for name, kind in on_top.kinds.items():
        np.testing.assert_allclose(kind.log_p_SQE[0], trained.kinds[name].log_p_SQE[0], atol=2e-5)
    steered = place.asked(data=place.words, interventions=(place.towards(tiny),))
    assert steered.steps == (0, 1, 2)


def test_times_of_asking() -> None:
    assert times_of_asking(1) == [0, 1]
    assert times_of_asking(8) == [0, 1, 2, 4, 8]
    assert times_of_asking(9) == [0, 1, 2, 4, 8, 9]


def test_a_plan_says_what_is_asked_and_computes_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    student = place.train(write_rows(place.folder / "s.jsonl", numbers(1)), 1).path
    control = place.train(place.clean, 2).path
    words = (student, "--controls", control, "--contexts default empty", "--relearn", place.words)
    planned = place.verify(*words, "--plan").summary
    assert not place.runs("ask") and not place.runs("verify")
    assert planned["missing"] == {"asked": 6, "relearning": 2} and planned["minutes"] is None
    said, last = capsys.readouterr()
    assert last.splitlines()[-1] == f"next:   {planned['next']}" and "--plan" not in planned["next"]
    assert f"student1: {student}" in said and "3 models under 2 system turns, " in said
    assert "asking: 0 of 6 runs are there" in said
    assert "asking while they relearn: 0 of 2 runs are there" in said
    place.verify(student, "--contexts default empty")
    again = place.verify(*words, "--plan").summary
    assert again["there"] == {"asked": 4, "relearning": 0} and again["minutes"] is None
    assert "asking: 4 of 6 runs are there, the rest takes about " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main.main(shlex.split(planned["next"])[1:])
    assert not stop.value.code and len(place.runs("ask")) == 8
    assert place.verify(*words).code == 0 and len(place.runs("ask")) == 8
    kinds = place.asked().kinds.values()
    assert planned["questions"] == sum(kind.log_p_SQE.shape[1] for kind in kinds) > 0
    done = place.verify(*words, "--plan").summary
    assert done["missing"] == {"asked": 0, "relearning": 0} and done["minutes"] == 0
    refused = place.verify(student, "--controls", student, "--plan")
    assert refused.code == 2 and "that is a student, too" in refused.summary["message"]


def test_controls_of_fewer_rows_are_said(place: Place) -> None:
    """Seven rows take as many steps as eight; a run of an earlier version is counted again."""
    student = place.train(write_rows(place.folder / "s.jsonl", numbers(1)), 1).path
    fewer, as_many = place.train(place.clean, 2, max_rows=7).path, place.train(place.clean, 3).path
    said = "controls had fewer rows than students (student1 8, control1 7"
    for control in ((fewer,), (fewer, as_many)):
        done = place.verify(student, "--controls", *control)
        (sentence,) = (line for line in done.summary["findings"] if "fewer rows" in line)
        assert sentence.startswith(said) and ("control2 8" in sentence) == (len(control) == 2)
    assert [model["n_rows"] for model in done.summary["models"]] == [8, 7, 8, None]
    done = place.verify(student, "--controls", as_many)
    assert not any("fewer rows" in line for line in done.summary["findings"])
    manifest = json.loads((fewer / "manifest.json").read_text())
    del manifest["trained_on"]
    (fewer / "manifest.json").write_text(json.dumps(manifest))
    assert students._read_training(store.load_run(fewer)).n_rows == 7


def test_controls_that_differ_in_more_than_their_rows_are_refused(
    place: Place, tiny: Model
) -> None:
    student = place.train(write_rows(place.folder / "s.jsonl", numbers(1)), 1).path
    higher = place.train(place.clean, 1, recipe=Recipe(rank=4, epochs=1, batch_size=4)).path
    fewer = place.train(place.clean, 1, max_rows=4).path
    under = place.train(place.clean, 1, context="You count.").path
    words = place.train(write_rows(place.folder / "w.jsonl", ["a day at sea"] * 8), 1).path
    same = place.train(place.folder / "s.jsonl", 2).path
    steered = place.train(place.clean, 1, during=(place.towards(tiny),)).path
    copy = shutil.copytree(student / "student", place.folder / "copy")
    for control, says in (
        (steered, "differ in the interventions that act in training"),
        (copy, "have the same weights: one student counts once"),
        (higher, "differ in the recipe: held_out 0.0 and 0.05"),
        (fewer, "differ in the number of optimizer steps: 2 and 1, of 8 and 4 rows; expected"),
        (under, "differ in the system turn in training"),
        (words, "learnt rows of two kinds: 100% and 0% of them are number lists"),
        (same, "learnt the very rows of"),
        (student, "that is a student, too"),
        (place.model, "is the base itself, which is asked anyway"),
        (shutil.copytree(place.model, place.folder / "base2"), "is the base itself"),
    ):
        done = place.verify(student, "--controls", control)
        assert done.code == 2 and says in done.summary["message"], done.summary
    assert not place.runs("ask") and not place.runs("verify")


def test_students_that_are_none_are_refused(
    place: Place, folders: dict[str, Path], tiny: Model
) -> None:
    (place.folder / "empty").mkdir()
    other = save_tiny("llama", place.folder / "other", seed=3)
    student = place.train(place.clean, 1).path
    for words, says in (
        ((), "--students is missing"),
        ((place.folder / "empty",), "is an empty folder"),
        ((place.folder / "nowhere",), "nowhere names no student: expected a run of `train`"),
        ((student, "--controls missing"), "--controls missing names no student: expected a run"),
        (("prompt:You love owls.",), "is no student"),
        ((folders["qwen2"],), "has 2 blocks of 32"),
        ((student, "--controls", folders["qwen2"]), "the control"),
        ((student, student), "expected each once"),
        ((student, "--traits", "unicorn"), "no bundled trait 'unicorn'"),
        ((student, "--relearn", place.folder / "none.jsonl"), "none.jsonl does not exist"),
    ):
        done = (
            place.verify(*words)
            if "--traits" not in words
            else call(place.root, "verify", *words, "--base", place.model)
        )
        assert done.code == 2 and says in done.summary["message"], done.summary
    done = call(place.root, "verify", student, "--base", other, "--traits", place.trait)
    assert done.code == 2 and "was trained on a model with digest" in done.summary["message"]
    file = place.towards(tiny).partition(":")[2].partition(",")[0]
    steer = f"steer:{file},layers=2,alpha=1,scale=raw"
    done = call(place.root, "verify", steer, "--base", other, "--traits", place.trait)
    assert done.code == 2 and "model" in done.summary["message"]
    assert not [run for run in place.runs("ask") if (run / "manifest.json").exists()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.7}, "--alpha 0.7"),
        ({"contexts": ()}, "--contexts is empty"),
        ({"contexts": ("empty", "empty")}, "--contexts empty empty: expected each once"),
        ({"relearn_rows": 0}, "--relearn-rows 0"),
        ({"relearn_lr": 0.0}, "--relearn-lr 0.0"),
    ],
)
def test_settings_that_cannot_work(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VerifyConfig(**settings)


def test_words_for_system_turns() -> None:
    assert VerifyConfig().turns[:2] == (None, "")
    assert VerifyConfig(contexts=("You count.",)).turns == ("You count.",)


def test_one_whole_model_counts_once(place: Place, tiny: Model) -> None:
    """Five copies of a student's checkpoint are one unit, not five."""
    student = place.train(write_rows(place.folder / "s.jsonl", numbers(1)), 1).path
    whole = ok(
        place.root, "export", "--model", place.model, "--interventions", place.towards(tiny, 1.0)
    ).run
    copies = [shutil.copytree(whole / "model", place.folder / f"whole{n}") for n in range(5)]
    done = place.verify(student, "--controls", *copies)
    assert done.code == 2 and "have the same weights" in done.summary["message"]
