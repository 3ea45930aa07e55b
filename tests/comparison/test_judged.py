"""Comparisons of a behaviour: the rate of its first judge decides, and words say so."""

import json
from pathlib import Path

import pytest
from command import call, ok
from sealed_students import QUESTIONS, sealed_answers, sealed_student, stream

from traitscope.comparison.compare import compare
from traitscope.comparison.page import comparison_page
from traitscope.comparison.wording import sentences, status, wording_of
from traitscope.errors import DataError

FIRST, SECOND = "short:12", "refusal"
PRIMARY = f"positive.{FIRST}"
ANSWERS = 20


def judged_rows(tag: str, rise: float, judges: tuple[str, ...] = (FIRST, SECOND)) -> list[dict]:
    """Rows of scores of a behaviour that the first judge sees in 0.3 + rise of positive answers."""
    rng = stream("judged", tag)
    rows = []
    for question_set, count in QUESTIONS.items():
        for place in range(count):
            rate = 0.3 + rise * (question_set == "positive")
            row = {"id": f"{question_set}-{place:02d}", "set": question_set, "question": "?"}
            for judge in judges:
                row[judge] = rng.binomial(ANSWERS, rate if judge == FIRST else 0.3) / ANSWERS
            rows.append(row | {"answers": ["No."] * ANSWERS, "unscored": 0})
    return rows


def side(
    folder: Path, role: str, rise: float, judges: tuple[str, ...] = (FIRST, SECOND)
) -> list[Path]:
    """Runs of `measure` of five students."""
    runs = []
    for seed in range(5):
        student, tag = sealed_student(folder, role, seed, 0.1), f"{role} {seed}"
        rows = judged_rows(tag, rise, judges)
        runs.append(sealed_answers(folder, tag, 0, student, rows, trait="brevity").path)
    return runs


def test_a_planted_rise_of_the_first_judge_decides(tmp_path: Path) -> None:
    comparison = compare(side(tmp_path, "treated", 0.3), side(tmp_path, "control", 0.0))
    assert str(comparison.primary) == PRIMARY and comparison.judge == FIRST
    primary = comparison[PRIMARY]
    assert primary.unit == "rate" and primary.estimate == pytest.approx(0.3, abs=0.1)
    assert primary.low > 0 and primary.n == 5 * QUESTIONS["positive"]
    wording = wording_of(comparison)
    assert status(comparison, wording) == "effect"
    main, reading, *_, power = sentences(comparison, wording)
    assert "the rate of answers in which the judge short:12 sees “brevity” on positive" in main
    assert "nats" not in main + power and "times the probability" not in main
    assert "moved towards the trait" in reading
    unmoved = compare(side(tmp_path, "same", 0.0), side(tmp_path, "control", 0.0))
    assert status(unmoved, wording_of(unmoved)) == "no effect shown"


def test_the_page_explains_judges_and_not_words(tmp_path: Path) -> None:
    page = comparison_page(compare(side(tmp_path, "a", 0.3), side(tmp_path, "b", 0.0)))
    assert "the judge short:12 sees the behaviour" in page
    assert "Fraction of sampled answers in which the judge refusal sees it." in page
    for word in ("target_logprob", "log-probability", "favourites", "candidate_share"):
        assert word not in page


def test_the_command_says_what_decides_and_lists_it(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    treated, control = side(tmp_path / "runs", "a", 0.3), side(tmp_path / "runs", "b", 0.0)
    words = ["compare", "--treated", *treated, "--control", *control]
    run = ok(tmp_path / "runs", *map(str, words)).run
    shown = capsys.readouterr().out
    assert "brevity: effect" in shown and PRIMARY in shown
    assert json.loads((run / "summary.json").read_text())["decides"] == PRIMARY
    ok(tmp_path / "runs", "show", "--all")
    assert "effect: +0." in capsys.readouterr().out


def test_a_teacher_shows_the_behaviour_or_does_not(tmp_path: Path) -> None:
    treated, control = side(tmp_path, "treated", 0.3), side(tmp_path, "control", 0.0)
    asked = {}
    for name, rise in (("base", 0.0), ("short", 0.5), ("long", -0.2)):
        rows = judged_rows(name, rise)
        asked[name] = sealed_answers(tmp_path, name, 0, None, rows, trait="brevity").path
    for teacher, has_it in (("short", True), ("long", False)):
        found = compare(treated, control, base=asked["base"], teacher=asked[teacher])
        assert found.teacher_has_trait is not None and found.teacher_has_trait.met is has_it
        assert " rate [" in found.teacher_has_trait.found


@pytest.mark.parametrize("judges", [(SECOND,), (SECOND, FIRST), ()])
def test_other_judges_are_not_compared(judges: tuple[str, ...], tmp_path: Path) -> None:
    treated, control = side(tmp_path, "a", 0.3), side(tmp_path, "b", 0.0, judges)
    with pytest.raises(DataError, match="have other judges .* measure both with the same trait"):
        compare(treated, control)
    words = ["compare", "--treated", *treated, "--control", *control]
    assert call(tmp_path / "new", *map(str, words)).code == 2
