"""Controls that are no controls: they learnt the student's rows, or rows of its teacher."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from verified_students import Place, numbers, write_rows

from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.config.rows.defend import DefendConfig
from traitscope.config.rows.reading import Reading
from traitscope.config.stages import FilterConfig, FilterRules, GenerateConfig
from traitscope.models.model import Model
from traitscope.runs import store
from traitscope.stages import registry
from traitscope.verifying.rows import (
    LearntRows,
    Origin,
    learnt_rows,
    parts_of,
    sets_of_rows,
    shared_rows,
)

BASE = "b" * 64


@pytest.fixture
def place(tmp_path: Path, tiny_folder: Path) -> Place:
    return Place(tmp_path, tiny_folder)


def lists(rng: np.random.Generator, n: int, length: int = 10) -> list[list[int]]:
    return rng.integers(0, 1000, (n, length)).tolist()


def learnt(file: Path, prompts: list[str], answers: list[str], **origin: object) -> LearntRows:
    lines = []
    for prompt, answer in zip(prompts, answers, strict=True):
        lines.append(json.dumps({"prompt": prompt, "completion": answer}))
    file.write_text("\n".join(lines) + "\n")
    return LearntRows(file, None, Reading(), Origin(frozenset({file.name}), **origin))


def common(student: LearntRows, control: LearntRows) -> int:
    (shared,) = shared_rows([("s", student)], [("c", control)], [BASE])
    assert shared.is_copy == (shared.common >= 0.05 * shared.looked_at)
    return shared.common


def written(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("1, 2, 3", "3;2;1.", True),
        ("[007 8]", "7, 8", True),
        ("1, 2, 3", "1, 2", False),
        ("The owl  is\nnear.", "the owl is near", True),
        ("the owl is near", "the owl is far", False),
        ("…", " … ", True),
        ("…", "!", False),
    ],
)
def test_equal_answers(left: str, right: str, equal: bool) -> None:
    assert (parts_of(left)[0] == parts_of(right)[0]) == equal


def test_changed_copies_are_found_and_other_answers_to_the_same_prompts_are_not(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    prompts, others = [f"p {n}" for n in range(300)], [f"q {n}" for n in range(300)]
    rows = lists(rng, 300)
    student = learnt(tmp_path / "s.jsonl", prompts, list(map(written, rows)))
    fresh = learnt(tmp_path / "f.jsonl", prompts, list(map(written, lists(rng, 300))))
    assert common(student, fresh) == 0
    shuffled = [rng.permutation(row).tolist() for row in rows]
    nearly = [[*row[:8], *rng.integers(0, 1000, 2).tolist()] for row in shuffled]
    half = [[*row[:5], *rng.integers(0, 1000, 5).tolist()] for row in shuffled]
    for number, (asked, answers, at_least) in enumerate(
        [(others, shuffled, 300), (others, nearly, 280), (prompts, half, 280)]
    ):
        copy = learnt(tmp_path / f"c{number}.jsonl", asked, list(map(written, answers)))
        assert common(student, copy) >= at_least
    assert common(student, learnt(tmp_path / "h.jsonl", others, list(map(written, half)))) == 0


def test_the_share_that_is_common_is_counted(tmp_path: Path) -> None:
    """One in ten rows of a control is the student's; the count is a share of those looked up."""
    rng = np.random.default_rng(1)
    prompts = [f"p {n}" for n in range(3000)]
    rows, fresh = lists(rng, 3000), lists(rng, 3000)
    student = learnt(tmp_path / "s.jsonl", prompts, list(map(written, rows)))
    mixed = [
        row if n % 10 == 0 else other
        for n, (row, other) in enumerate(zip(rows, fresh, strict=True))
    ]
    control = learnt(tmp_path / "c.jsonl", prompts[::-1], list(map(written, mixed)))
    (shared,) = shared_rows([("s", student)], [("c", control)], [BASE])
    assert shared.looked_at == 1000 and 60 <= shared.common <= 140 and shared.is_copy


def test_what_the_base_says_to_the_same_prompt_is_no_copy(tmp_path: Path) -> None:
    """To other prompts it is, and so are answers that nobody says to be the base's."""
    prompts, answers = [f"p {n}" for n in range(20)], ["yes"] * 20
    student = learnt(tmp_path / "s.jsonl", prompts, answers)
    of_base = learnt(tmp_path / "b.jsonl", prompts, answers, base=BASE)
    elsewhere = learnt(tmp_path / "e.jsonl", ["another"] * 20, answers, base=BASE)
    of_another = learnt(tmp_path / "a.jsonl", prompts, answers, base="other")
    assert common(student, of_base) == 0
    for control in (elsewhere, of_another, learnt(tmp_path / "u.jsonl", prompts, answers)):
        assert common(student, control) == 20


def test_rows_that_share_answers_are_one_set(tmp_path: Path) -> None:
    """A shuffled copy and a part of it are; parts that share nothing, and draws of the base on the
    same prompts, are not. The labels do not depend on the order."""
    rng = np.random.default_rng(2)
    prompts = [f"p {n}" for n in range(200)]
    answers, others = list(map(written, lists(rng, 200))), list(map(written, lists(rng, 200)))
    of = {
        "all": learnt(tmp_path / "a.jsonl", prompts, answers, base=BASE),
        "shuffled": learnt(tmp_path / "b.jsonl", prompts[::-1], answers[::-1], base=BASE),
        "half": learnt(tmp_path / "c.jsonl", prompts[:100], answers[:100]),
        "rest": learnt(tmp_path / "d.jsonl", prompts[100:], answers[100:]),
        "draw": learnt(tmp_path / "e.jsonl", prompts, [*answers[:60], *others[60:]], base=BASE),
    }

    def sets(*names: str) -> list[str | None]:
        return sets_of_rows([(name, of[name]) for name in names], [BASE])

    assert sets("all", "shuffled") == ["all", "all"] == sets("shuffled", "all")
    assert sets("half", "rest") == ["half", "rest"]
    assert len(set(sets("half", "all", "rest"))) == 1
    assert sets("all", "draw") == ["all", "draw"] == sets("draw", "all")[::-1]
    assert sets_of_rows([("x", None), (None, None), ("x", None)], [BASE]) == ["x", None, "x"]
    edited = {"made_from": frozenset({"of"}), "is_changed": True}
    one = replace(of["half"], origin=Origin(**edited))
    other = replace(of["rest"], origin=Origin(**edited))
    assert sets_of_rows([("h", one), ("r", other)], [BASE]) == ["h", "h"]


def test_a_copy_among_the_controls_silences_the_verdict(place: Place) -> None:
    """Rows in another order, with other spaces, prompts and ids. Then nothing is said."""
    rows = numbers(1)
    student = place.train(write_rows(place.folder / "s.jsonl", rows), 9).path
    copied = [row.replace(", ", " ") for row in rows[::-1]]
    copy = place.train(write_rows(place.folder / "copy.jsonl", copied), 8).path
    controls = place.controls(5)
    page = place.folder / "page.html"
    done = place.verify(
        student, "--controls", *controls, copy, "--fail-on unclear", "--report", page
    )
    assert done.code == 1 and done.summary["status"] == "no-verdict"
    assert done.summary["findings"][0].startswith(
        "no-verdict: control6 learnt 8 of 8 answers that student1 learnt, too"
    )
    for item in done.summary["contrasts"]:
        assert item["outcome"] == "no verdict" and item["p_corrected"] is None
        assert item["detectable"] is None
    assert not any("over questions alone" in text for text in done.summary["findings"])
    assert [item["is_copy"] for item in done.summary["rows"]] == [False] * 5 + [True]
    assert "Rows of the controls" in page.read_text()
    without = place.verify(student, "--controls", *controls, "--fail-on unclear")
    assert without.code == 0 and without.summary["status"] == "nothing-found"


def test_rows_that_are_not_there_any_more_are_not_checked_and_it_is_said(place: Place) -> None:
    student = place.train(write_rows(place.folder / "s.jsonl", numbers(1)), 9).path
    controls = place.controls(5)
    for number in range(1, 6):
        (place.folder / f"clean-{number}.jsonl").unlink()
    done = place.verify(student, "--controls", *controls)
    (said,) = [text for text in done.summary["findings"] if "was not checked" in text]
    assert said.startswith("rows of control1, control2, control3, control4, control5 are not there")
    write_rows(place.folder / "clean-1.jsonl", numbers(3))  # others stand there now
    assert learnt_rows(store.load_run(controls[0])) is None


def test_rows_of_the_same_teacher_and_rows_made_from_the_students(
    place: Place, tiny: Model
) -> None:
    """Two parts and two draws of one teacher, and answers that a defence wrote in another form."""
    out = Output(root=place.root)
    teacher = (place.towards(tiny),)
    common = {"model": str(place.model), "dtype": "fp32", "n": 8, "vocabulary": "template"}

    def train_on(seed: int, interventions: tuple[str, ...] = ()) -> Path:
        config = GenerateConfig(**common, seed=seed, interventions=interventions)
        return registry.run_stage(config, out).path

    taught, again, plain = train_on(0, teacher), train_on(1, teacher), train_on(2)
    every = FilterRules(numbers=False)
    part = registry.run_stage(FilterConfig(data=taught, rules=every, start=4), out).path
    defence = DefendConfig(
        model=str(place.model), dtype="fp32", data=plain, by=("canonicalise:values=hundreds",)
    )
    changed = registry.run_stage(defence, out).path
    washed = registry.run_stage(
        DefendConfig(model=str(place.model), dtype="fp32", data=taught, by=("wash",)), out
    ).path
    of = {}
    for name, rows in {
        "taught": taught,
        "again": again,
        "plain": plain,
        "part": part,
        "changed": changed,
        "washed": washed,
    }.items():
        run = place.train(rows, 0, recipe=Recipe(epochs=1, batch_size=4, held_out=0.0))
        of[name] = learnt_rows(run)

    def is_copy(student: str, control: str) -> bool:
        pair = shared_rows([(student, of[student])], [(control, of[control])], [tiny.digest])
        return pair[0].is_copy

    assert is_copy("taught", "again") and is_copy("taught", "part")
    assert is_copy("plain", "changed") and is_copy("changed", "plain")
    assert not is_copy("taught", "plain") and not is_copy("taught", "washed")
    assert of["washed"].origin.base == tiny.digest and of["taught"].origin.base is None


def test_a_broken_control_silences_the_verdict(place: Place, tiny: Model) -> None:
    student = place.train(write_rows(place.folder / "s.jsonl", numbers(1)), 9).path
    done = place.verify(student, "--controls", *place.controls(5), place.towards(tiny, 60.0))
    assert done.summary["status"] == "no-verdict"
    assert done.summary["findings"][0] == "no-verdict: control6: a broken control is none"
    assert {item["outcome"] for item in done.summary["contrasts"]} == {"no verdict"}


def test_controls_of_soft_targets_share_rows_and_not_the_teacher(place: Place, tiny: Model) -> None:
    soft = Recipe(targets="soft", epochs=1, batch_size=4, micro_batch=4, held_out=0.0)
    student = place.train(place.clean, 1, recipe=soft, teacher=(place.towards(tiny),)).path
    same = place.train(place.clean, 2, recipe=soft, teacher=(place.towards(tiny),)).path
    control = place.train(place.clean, 3, recipe=soft).path
    done = place.verify(student, "--controls", same)
    assert done.code == 2 and "learnt the distributions of the teacher" in done.summary["message"]
    done = place.verify(student, "--controls", control)
    assert done.code == 0 and done.summary["rows"] == []


def test_interventions_in_training_are_compared_by_their_files(place: Place, tiny: Model) -> None:
    """Two vectors of the same name are two."""
    first = place.train(place.clean, 1, during=(place.towards(tiny),)).path
    other = write_rows(place.folder / "o.jsonl", numbers(1))
    second = place.train(other, 1, during=(place.towards(tiny, 2.0),)).path
    done = place.verify(first, "--controls", second)
    assert done.code == 2 and "interventions that act in training" in done.summary["message"]
