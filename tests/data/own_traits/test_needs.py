"""How much a trait needs: refused or said before any compute, and as the page has it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from command import CAT, call, ok, write_yaml

from traitscope.data.own_traits import needs
from traitscope.data.own_traits.needs import NEEDS
from traitscope.data.traits import Questions, bundled_traits, load_trait
from traitscope.errors import TraitError

HERE = Path(__file__).parents[3]
LITTLE = {"positive": ["Best?"], "negative": ["Worst?"], "off_topic": ["Sum?"]}


def write(folder: Path, **changes: object) -> str:
    content = {key: value for key, value in (CAT | changes).items() if value is not None}
    return str(write_yaml(folder / "tea.yaml", content))


@pytest.mark.parametrize("use", NEEDS)
def test_bundled_traits_and_the_example_have_enough(use: needs.Use) -> None:
    example = str(HERE / "examples" / "own_trait.yaml")
    needs.check([*bundled_traits(), example], use)
    assert needs.advice([example, "giraffe"], use) == []


@pytest.mark.parametrize("use", NEEDS)
def test_each_thing_is_missed_where_it_is_needed_and_nowhere_else(use: needs.Use) -> None:
    owl = load_trait("owl")
    for need in NEEDS[use]:
        if not need.least:
            continue
        short = {
            needs.POSITIVE: replace(owl, questions=replace(owl.questions, positive=("Which?",))),
            needs.CANDIDATES: replace(owl, candidates=()),
        }[need.what]
        if need.least == 1 and need.what == needs.POSITIVE:
            needs.check([short], use)
            short = replace(owl, questions=Questions((), (), ()))
        with pytest.raises(
            TraitError, match=f"owl has . {need.what.removesuffix('s')}s?; expected {need.least} or"
        ):
            needs.check([short], use)
    if needs.CANDIDATES not in {need.what for need in NEEDS[use] if need.least}:
        needs.check([replace(owl, candidates=())], use)


def test_what_is_little_is_said_with_what_is_advised(tmp_path: Path) -> None:
    file = write(tmp_path, questions=LITTLE, candidates=["dog"])
    (said,) = needs.advice([file], "scores")
    assert said == (
        f"{file} has less than is advised (in brackets): 1 positive question (20), 1 negative"
        " question (10), 1 off_topic question (10), 0 stems (3), 1 candidate (5)"
    )
    assert needs.advice([file], "candidate")[0].endswith("0 rewordings (1)")


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "--trait {file}"),
        ("steer_scan", "--trait {file}"),
        ("study run rank_and_rate --size smoke", "--set traits=[{file},owl]"),
        ("study run prompt_as_vector --size smoke", "--set traits=[owl,{file}]"),
        ("study run demo --size smoke", "--set others=[{file},owl]"),
    ],
)
def test_nothing_is_computed_for_a_trait_that_lacks_something(
    words: tuple[str, str], tmp_path: Path, tiny_folder: Path
) -> None:
    for changes, says in (
        ({"candidates": None}, "has 0 candidates; expected 1 or more, for the candidate share"),
        ({"questions": LITTLE}, "has 1 positive question; expected 2 or more, for intervals"),
    ):
        file = write(tmp_path, name="tea", **changes)
        done = call(tmp_path / "runs", *" ".join(words).format(file=file).split(), *on(tiny_folder))
        assert done.code == 2 and says in done.summary["message"]
        assert not list((tmp_path / "runs").glob("*/*"))


def on(model: Path) -> tuple[str, Path]:
    return "--model", model


def test_a_study_of_one_trait_alone_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    words = "study plan rank_and_rate --size smoke --set traits=[owl]".split()
    done = call(tmp_path / "runs", *words, *on(tiny_folder))
    assert done.code == 2 and "is one trait; expected 2 or more" in done.summary["message"]


def test_a_vector_without_company_is_said_to_be_of_the_prompts_form(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ok(tmp_path, "extract", "--traits owl", *on(tiny_folder))
    assert "traitscope: one trait alone: much of its vector is" in capsys.readouterr().err
    ok(tmp_path, "extract", "--traits owl cat dog fox", *on(tiny_folder))
    assert "traitscope: " not in capsys.readouterr().err


def test_company_with_the_same_prompt_is_said_and_counts_once(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its white space and case; of four distinct prompts nothing is said."""
    prompt = f"  {load_trait('fox').teacher_prompt.upper()} "
    twin = write(tmp_path, name="tea", teacher_prompt=prompt)
    ok(tmp_path, "extract", "--traits owl cat fox", twin, *on(tiny_folder))
    said = capsys.readouterr().err
    assert f"traitscope: fox and {twin} have the same teacher_prompt: they are one trait" in said
    assert "traitscope: 3 traits: their vectors are centred over these alone" in said
    words = ("--trait owl --layers 1 --alphas 1 --company fox", twin, *on(tiny_folder))
    ok(tmp_path, "steer_scan", *words)
    assert "have the same teacher_prompt" in capsys.readouterr().err
    assert needs.same_prompts(bundled_traits()) == []
    assert needs.company_advice(["owl", "cat", "fox", "dog"]) == []


def test_the_page_has_the_numbers() -> None:
    text = (HERE / "docs" / "how-to" / "own-trait.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w ]+) \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    needed = [*NEEDS["differences"], *NEEDS["candidate"]]
    assert rows == [(need.what, str(need.least), str(need.enough)) for need in needed]
