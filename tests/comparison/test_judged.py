"""Comparisons of a behaviour: the rate of its first judge decides, and words say so."""

import json
import re
from pathlib import Path

import pytest
from command import CAT, call, ok, read_rows, write_yaml
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


def test_a_judge_may_be_called_as_a_key_of_the_rows(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    """The judge `question` overwrote the text of the question, and was compared by nobody."""
    content = {key: CAT[key] for key in ("teacher_prompt", "questions")}
    file = write_yaml(
        tmp_path / "asking.yaml", content | {"name": "asking", "judges": ["question"]}
    )
    words = ("measure", f"--model {tiny_folder} --sets positive --samples 2 --trait", file)
    runs = [ok(tmp_path / "runs", *words, f"--seed {seed}").run for seed in (0, 1)]
    row = read_rows(runs[0] / "scores.jsonl")[0]
    assert row["question"] == CAT["questions"]["positive"][0] and list(row["judges"]) == [
        "question"
    ]
    compared = ok(tmp_path / "runs", "compare", "--treated", runs[0], "--control", runs[1])
    assert "positive.question" in str(compared.summary)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"judges": ["short:3", "refusal"]}, "words, judges or questions of the trait's file"),
        ({"judge_question": "Is it so?"}, "words, judges or questions of the trait's file"),
        ({"questions": "stems"}, "words, judges or questions of the trait's file"),
        ({"questions": "text"}, "words, judges or questions of the trait's file"),
        ({"teacher_prompt": "Be brief."}, ""),
        ({"--max-new-tokens": 5}, "the runs differ in the sampling of answers"),
        ({"--temperature": 0.5}, "the runs differ in the sampling of answers"),
        ({"--samples": 3}, ""),
    ],
)
def test_what_was_scored_otherwise_is_not_compared(
    changed: dict, says: str, tmp_path: Path, tiny_folder: Path
) -> None:
    """A trait's file that was edited under the same name gave a difference of 28 nats."""
    content = {key: CAT[key] for key in ("teacher_prompt", "questions")}
    content |= {"name": "brevity", "judges": ["short:3"]}
    flags = {"--max-new-tokens": 4, "--temperature": 1.0, "--samples": 2}
    other, other_flags = dict(content), dict(flags)
    for key, value in changed.items():
        if key in flags:
            other_flags[key] = value
        elif value == "stems":
            other["questions"] = content["questions"] | {"stems": {"positive": "I say"}}
        elif value == "text":
            asked = ["What else?", *content["questions"]["positive"][1:]]
            other["questions"] = content["questions"] | {"positive": asked}
        else:
            other[key] = value
    runs = []
    for place, (trait, given) in enumerate(((content, flags), (other, other_flags))):
        file = write_yaml(tmp_path / f"trait-{place}.yaml", trait)
        words = [f"{flag} {value}" for flag, value in given.items()]
        asked = (f"--model {tiny_folder} --sets positive --seed {place}", *words, "--trait", file)
        runs.append(ok(tmp_path / "runs", "measure", *asked).run)
    compared = call(tmp_path / "runs", "compare", "--treated", runs[0], "--control", runs[1])
    if not says:
        assert compared.code == 0
        return
    assert compared.code == 2 and says in compared.summary["message"]


def test_a_long_list_of_words_leaves_room_for_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = "words:" + "|".join(["wonderful", "amazing", "great", "brilliant", "delighted"])
    rows = [side(tmp_path / "runs", role, rise, (words,)) for role, rise in (("a", 0.3), ("b", 0))]
    ok(tmp_path / "runs", "compare", "--treated", *rows[0], "--control", *rows[1])
    table = capsys.readouterr().out
    assert (
        f"{'positive.' + words:.27}…" in table and words not in table.split("In brackets")[0][:400]
    )
    line = next(each for each in table.splitlines() if each.startswith("positive."))
    assert re.search(r"\[.?\d\.\d\d,", line), "an interval was torn apart"
