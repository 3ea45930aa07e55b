"""Power in a sentence, and the rule from distance to bearing."""

from dataclasses import replace
from pathlib import Path

import pytest

from traitscope.config.commands import StudyConfig
from traitscope.config.common import Output
from traitscope.config.recipe import Recipe
from traitscope.reporting.study_page import write_study
from traitscope.reporting.tables import Table
from traitscope.reporting.verdict import Findings
from traitscope.stats.power import detection_power
from traitscope.studies import runner
from traitscope.studies.design import (
    BLANK,
    NO_TRAINING,
    OWN,
    SOFT,
    Design,
    Experiment,
    MeanPlan,
    RankPlan,
    bearing,
    over_seeds,
    rows_here,
    steps_of,
    students_here,
    untrained,
)

SAME = replace(BLANK, source="")


@pytest.mark.parametrize(
    ("changed", "answer", "because"),
    [
        ({}, "yes", "kinds and sizes agree"),
        ({"rows": 5_000, "steps": 1_000, "parameters": 4e9}, "yes", "kinds and sizes agree"),
        ({"rows": 4_999}, "partly", "less than half of the rows"),
        ({"parameters": 1.35e8}, "partly", "less than half of the model"),
        ({"parameters": 1e6}, "partly", "less than half of the model"),
        ({"rows": 99}, "no", "less than a hundredth of the rows"),
        ({"rows": 99, "steps": 12}, "no", "less than a hundredth of the rows and steps"),
        ({"teacher": "steered"}, "no", "another kind of teacher"),
        ({"targets": SOFT, "vector": "another"}, "no", "another kind of targets and vector"),
        ({"data": "code"}, "no", "another kind of data"),
        ({"rows": None, "steps": None}, "yes", "kinds and sizes agree"),
    ],
)
def test_the_rule_from_distance_to_bearing(changed: dict, answer: str, because: str) -> None:
    found = bearing(BLANK, replace(SAME, **changed))
    assert found.answer == answer
    assert because in str(found)
    assert [aspect.name for aspect in found.aspects][:2] == ["teacher", "data"]


def test_what_a_paper_does_not_state_does_not_count() -> None:
    published = replace(BLANK, vector="", steps=None)
    assert bearing(published, replace(SAME, vector="any", steps=3)).answer == "yes"


def test_a_claim_about_this_tool_needs_no_paper() -> None:
    here = Experiment("", "any", "any", NO_TRAINING, "")
    assert str(bearing(replace(here, source=OWN), here)) == (
        "There is no published protocol to compare with: it is made for this tool."
    )


def test_the_table_shows_both_values() -> None:
    table = bearing(BLANK, replace(SAME, rows=32, model="tiny", parameters=1e6)).table
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["rows"] == ("10,000", "32", "far smaller")
    assert rows["model"] == ("Qwen2.5-7B-Instruct", "tiny", "far smaller")


def test_steps_of_a_recipe() -> None:
    recipe = Recipe(epochs=3, batch_size=4, held_out=0.25)
    assert steps_of(recipe, 12) == 3 * 3
    here = students_here("steered", replace(recipe, targets="soft"), 12)
    assert (here.steps, here.targets, here.rows) == (9, SOFT, 12)
    assert rows_here("steered", 7).targets == untrained(BLANK, 3).targets == NO_TRAINING


def test_the_line_says_what_a_null_could_have_seen() -> None:
    """The level is that of Holm's first step: a twelfth of 5 % for twelve claims."""
    design = Design(12, over_seeds((1, 2, 3, 4, 5), (0.4, 0.1), "nats", "A pilot says so."), SAME)
    power = detection_power(0.4, 0.1, 5, alpha=0.05 / 12)
    assert f"With 5 seeds the power is {power:.2f}." in design.power_text
    expected = "the expected effect is 0.4 nats, with an sd of 0.1 between seeds. A pilot says so."
    assert expected in design.power_text
    assert design.power_text.endswith("The study tests 12 claims together.")


@pytest.mark.parametrize(
    ("primary", "says"),
    [
        (MeanPlan(0.4, 0.1, "nats", 3, "seeds", "X."), "A verdict needs 5 seeds."),
        (MeanPlan(0.4, 0.1, "nats", 1, "traits", "X."), "One of the traits alone has no power."),
        (RankPlan(0.77, 16, "traits", "X."), "correlation is 0.77. X. With 16 traits the power is"),
    ],
)
def test_lines_of_other_plans(primary: MeanPlan | RankPlan, says: str) -> None:
    assert says in Design(1, primary, SAME).power_text


@pytest.mark.parametrize(("name", "is_published"), [("defences", False), ("context_gate", True)])
def test_the_page_of_a_study_without_a_published_protocol_says_so(
    name: str, is_published: bool, tmp_path: Path
) -> None:
    """It has no table of a comparison that there is not, neither on the page nor as a file."""
    header = runner.request_of(StudyConfig(name=name, size="smoke"), Output()).header()
    findings = Findings(())
    runs = Table("runs", "Runs", "", ("run",), ())
    write_study(tmp_path, header, findings, runs)
    page = (tmp_path / "report.html").read_text()
    assert ("Distance from the published protocol" in page) == is_published
    assert (tmp_path / "protocol.csv").exists() == is_published
    assert ("There is no published protocol to compare with" in page) != is_published
