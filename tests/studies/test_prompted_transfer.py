"""Prompted transfer on planted banks: what is shown, what is excluded, and what silences both."""

from dataclasses import replace
from itertools import product
from math import exp, log
from pathlib import Path

import numpy as np
import pytest
from concluded import HOLDS, NEGLIGIBLE, SILENT, concluded, estimates, outcomes, unmet
from planted_runs import PlantedRuns

from traitscope.auditing import score_files
from traitscope.auditing.steps.teacher_scores import other_set_folder
from traitscope.errors import ConfigError
from traitscope.inference.token_bins import BETAS, WAYS
from traitscope.inference.token_scores import TokenScores
from traitscope.reporting.verdict import has_trait_name
from traitscope.studies.bank import graph
from traitscope.studies.bank.graph import PROMPTED, SCREEN, STEERED, Writer
from traitscope.studies.claims import prompted_transfer
from traitscope.studies.teachers import positive_control

SIZE = replace(
    prompted_transfer.SIZES["smoke"],
    traits=("pirate", "chef", "knight", "happiness", "anger", "poet", "astronaut", "sadness"),
    others=("cat", "dog", "owl", "octopus", "elephant"),
    n_steered=5,
)
BASE = log(0.2 / 0.8)
"logit of a trait in planted answers"
OWN = {PROMPTED: 0.3, STEERED: 0.5}
"what students say more of their own teacher's trait, in nats"


def share_rise(nats: float) -> float:
    """What the share rises by where the logit do by so many nats."""
    return 1 / (1 + exp(-BASE - nats)) - 0.2


def plant_scores(folder: Path, log_p: float) -> None:
    empty = np.zeros((len(WAYS), 1))
    scores = TokenScores(
        log_p_RT=np.full((2, len(BETAS)), log_p),
        tokens_R=np.ones(2, int),
        excess_surprisal=0.0,
        taken_PK=empty,
        expected_TPK=np.zeros((len(BETAS), len(WAYS), 1)),
        covariance_TPKK=np.zeros((len(BETAS), len(WAYS), 1, 1)),
    )
    score_files.write_token_scores(folder, ["a", "b"], scores)


def planted(
    root: Path,
    own: dict[str, float],
    imitation: float = 0.2,
    has_trait: float = 2.0,
    by_trait: dict[str, float] | None = None,
) -> dict[str, Path]:
    """A bank in which students differ by row, by column, and by what is planted on the diagonal."""
    runs = PlantedRuns(root)
    traits = graph.all_traits(SIZE)
    nats = []
    for number, trait in enumerate(traits):
        against = {"other traits": {"estimate": 0.01 * (1 + number)}}
        nats.append({"name": trait, "against": against})
        runs.answers(positive_control.base_name(trait))
        runs.answers(positive_control.teacher_name(PROMPTED, trait), has_trait)
    runs.json(SCREEN, "summary.json", {"teachers": nats})
    for trait in SIZE.steered:
        runs.answers(positive_control.teacher_name(STEERED, trait), has_trait)
    for (row, writer), seed in product(enumerate(graph.writers(SIZE)), SIZE.seeds):
        for column, asked in enumerate(traits):
            rise = 0.1 * row - 0.05 * column
            if asked == writer.trait:
                rise += (by_trait or {}).get(asked, own[writer.kind])
            runs.answers(writer.answers(asked, seed), 0.0, share_rise(rise))
        if writer.trait:
            for place, other in enumerate(graph.of_kind(SIZE, writer.kind)):
                run = runs.folder(writer.imitation(seed))
                folder = other_set_folder(run, place - 1) if place else run
                noise = 0.01 * runs.planted(f"{writer.name} {other.name}", (1,))[0]
                likely = -40.0 + row - 2 * place + noise
                plant_scores(folder, likely + (imitation if other == writer else 0.0))
    return runs.folders


def test_what_was_planted_is_found(tmp_path: Path) -> None:
    findings = concluded(prompted_transfer, SIZE, planted(tmp_path, OWN))
    assert outcomes(findings)[:5] == [HOLDS] * 5
    expected = [0.3, 0.3, 0.2, 0.5, 0.2]
    assert estimates(findings)[:5] == pytest.approx(expected, abs=0.03)
    units = [verdict.decided_by.n_clusters for verdict in findings.verdicts]
    assert units == [8, 5, 8, 5, 5, 13]
    effects, said, imitated, drift = findings.tables
    pirate = effects.rows[0]
    assert pirate[:2] == ("pirate", 0.01)
    assert pirate[2:] == pytest.approx((0.3, 0.2, 0.5), abs=0.05)
    assert effects.rows[-1][3:] == ("", "")
    assert len(said.rows) == len(imitated.rows) == 8 and len(drift.rows) == 13


def test_no_effect_is_excluded_where_steered_teachers_show_theirs(tmp_path: Path) -> None:
    findings = concluded(prompted_transfer, SIZE, planted(tmp_path, OWN | {PROMPTED: 0.0}))
    assert outcomes(findings)[:2] == [NEGLIGIBLE, NEGLIGIBLE]


def test_no_effect_is_nothing_where_steered_teachers_show_none(tmp_path: Path) -> None:
    folders = planted(tmp_path, {PROMPTED: 0.0, STEERED: -0.1})
    findings = concluded(prompted_transfer, SIZE, folders)
    assert outcomes(findings)[0] == SILENT
    assert unmet(findings) == {"students of steered teachers at equal KL take their traits on"}


def test_a_small_effect_is_negligible_only_where_steered_teachers_show_theirs(
    tmp_path: Path,
) -> None:
    """An interval above zero within the margin is excluded by the same rule as one around zero."""
    shown = dict.fromkeys(SIZE.traits[SIZE.n_steered :], 0.05)
    folders = planted(tmp_path / "shown", {PROMPTED: 0.04, STEERED: 0.5}, by_trait=shown)
    findings = concluded(prompted_transfer, SIZE, folders)
    assert findings.verdicts[0].decided_by.low > 0
    assert outcomes(findings)[0] == NEGLIGIBLE
    folders = planted(tmp_path / "none", {PROMPTED: 0.04, STEERED: -0.1}, by_trait=shown)
    findings = concluded(prompted_transfer, SIZE, folders)
    assert outcomes(findings)[0] == SILENT
    assert unmet(findings) == {"students of steered teachers at equal KL take their traits on"}


def test_students_that_learnt_nothing_have_no_verdict(tmp_path: Path) -> None:
    findings = concluded(prompted_transfer, SIZE, planted(tmp_path, OWN, imitation=0.0))
    assert outcomes(findings)[0] == SILENT
    assert unmet(findings) == {"students expect their own teacher's rows"}


def test_teachers_without_their_traits_have_no_verdict(tmp_path: Path) -> None:
    findings = concluded(prompted_transfer, SIZE, planted(tmp_path, OWN, has_trait=-0.5))
    assert outcomes(findings) == [SILENT, SILENT, HOLDS, SILENT, SILENT, SILENT]
    assert unmet(findings) == {has_trait_name(PROMPTED), has_trait_name(STEERED)}


def test_an_effect_that_grows_with_the_divergence_is_a_law(tmp_path: Path) -> None:
    traits = graph.all_traits(SIZE)
    rising = {trait: 0.05 * number for number, trait in enumerate(traits)}
    findings = concluded(prompted_transfer, SIZE, planted(tmp_path, OWN, by_trait=rising))
    law = findings.verdicts[-1]
    assert law.outcome == HOLDS and law.decided_by.estimate > 0.8


def test_rows_and_start_are_shared_by_all_students_of_a_seed() -> None:
    """Sampling, prompts, order and start depend on the seed alone, not on the teacher."""
    common = {"model": "smollm2-135m", "device": "cpu", "dtype": "fp32"}
    made = {node.name: node for node in graph.nodes(SIZE, common)}
    folders = {name: Path("sealed") / name for name in made}
    settings = set()
    for writer in (Writer(PROMPTED, "pirate"), Writer(PROMPTED, "cat"), Writer("unmodified")):
        rows = made[writer.rows(1)].config(folders)
        student = made[writer.student(1)].config(folders)
        settings.add((rows.seed, rows.prompt_seed, rows.n, student.seed, student.recipe))
    assert len(settings) == 1


def test_two_traits_are_too_few_for_a_table() -> None:
    with pytest.raises(ConfigError, match="8 traits, 5 of them steered, and 2 others; expected 3"):
        prompted_transfer.nodes(replace(SIZE, others=("cat", "dog")), {})


def test_a_trait_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="cat among traits and others more than once"):
        prompted_transfer.nodes(replace(SIZE, traits=(*SIZE.traits, "cat")), {})
