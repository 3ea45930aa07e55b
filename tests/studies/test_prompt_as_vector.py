"""Prompts as vectors on planted runs: shares of the teacher's gain, and the gates of steering."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from concluded import (
    COMMON,
    HOLDS,
    NEGLIGIBLE,
    OPPOSITE,
    SILENT,
    concluded,
    estimates,
    outcomes,
    unmet,
)
from planted_runs import PlantedRuns

from traitscope.reporting.verdict import HAS_TRAIT
from traitscope.studies.claims import prompt_as_vector

SIZE = replace(
    prompt_as_vector.SIZES["smoke"],
    traits=("cat", "owl", "fox", "wolf", "otter"),
    steer_layers=(1, 2, 3),
    steer_alphas=(1.0, 2.0),
)
DAMAGED, REPEATING = (1, 1.0), (1, 2.0)
"grid points where text is broken, and where the trait is named among dislikes"
WEAK, BEST = (2, 1.0), (2, 2.0)
"grid points that pass: with little effect, and the best"
OFF_TOPIC = ((3, 1.0), (3, 2.0))
"grid points where the trait is named among facts"
SHARES = {"own": 0.7, "tiled": 0.4, "other": 0.2, "centred": 0.3, "common": 0.1, "trained": 0.9}
"planted shares of KL"


def planted(root: Path, **shares: float) -> dict[str, Path]:
    """Runs in which vectors recover these shares, of base KLs that differ from trait to trait."""
    runs = PlantedRuns(root)
    for number, trait in enumerate(SIZE.traits):
        for subject in prompt_as_vector.SUBJECTS:
            recovered(runs, f"{subject}.{trait}", 0.1 * 10**number, SHARES | shares)
        answers(runs, f"base.{trait}", positive=0.01)
        answers(runs, f"prompted.{trait}", positive=0.8 - 0.02 * number)
        answers(runs, point(trait, DAMAGED), positive=0.95, perplexity=20.1)
        answers(runs, point(trait, REPEATING), positive=0.9, negative=0.11)
        for grid_point in OFF_TOPIC:
            answers(runs, point(trait, grid_point), positive=0.9, off_topic=0.11)
        answers(runs, point(trait, WEAK), positive=0.2, off_topic=0.09)
        answers(runs, point(trait, BEST), positive=0.6, negative=0.09, perplexity=19.9)
    return runs.folders


def recovered(runs: PlantedRuns, node: str, kl: float, shares: dict[str, float]) -> None:
    """Write what `recover` does: the gain is half the share of KL, to tell the two apart."""
    base_kl = [kl, 3 * kl]
    kinds = {}
    for kind, share in shares.items():
        noisy = share + 0.01 * float(runs.planted(f"{node} {kind}", (1,))[0])
        kinds[kind] = {
            "layer": 1,
            "alpha": 2.0,
            "position": "all",
            "gain": [0.5 * share * each for each in base_kl],
            "kl": [(1 - noisy) * each for each in base_kl],
        }
    summary = {"base_kl": base_kl, "teacher": {"gain": base_kl}, "kinds": kinds}
    runs.json(node, "summary.json", summary)


def point(trait: str, grid_point: tuple[int, float]) -> str:
    return prompt_as_vector._steered_name(trait, *grid_point)


def answers(
    runs: PlantedRuns,
    node: str,
    positive: float,
    negative: float = 0.0,
    off_topic: float = 0.0,
    perplexity: float = 10.0,
) -> None:
    """Write the rate of every question set as two questions around it."""
    rows = []
    sets = {"positive": positive, "negative": negative, "off_topic": off_topic}
    for name, rate in sets.items():
        for number, each in enumerate((0.5 * rate, 1.5 * rate)):
            log_p = math.log(max(each, 1e-9))
            rows.append({"id": f"{name}/{number}", "set": name, "target_logprob": log_p})
    runs.json_lines(node, "scores.jsonl", rows)
    runs.json(node, "measurements.json", {"perplexity": perplexity})


def test_planted_shares_come_back(tmp_path: Path) -> None:
    findings = concluded(prompt_as_vector, SIZE, planted(tmp_path))
    assert estimates(findings) == pytest.approx([0.5, 0.7, 0.9] * 2, abs=0.03)
    assert set(outcomes(findings)) == {HOLDS}
    by_name = {each.name: each for each in findings.measurements}
    for kind, share in SHARES.items():
        assert by_name[f"numbers.share of KL.{kind}"].estimate == pytest.approx(share, abs=0.03)
        gain = by_name[f"numbers.share of gain.{kind}"]
        assert gain.estimate == pytest.approx(0.5 * share)
        assert gain.interval == "bootstrap over 5 traits"


def test_a_vector_that_does_little_has_other_outcomes(tmp_path: Path) -> None:
    """The trained vector does most of it still, and the trait's own no more than another's."""
    findings = concluded(prompt_as_vector, SIZE, planted(tmp_path, own=0.2, other=0.2))
    assert estimates(findings) == pytest.approx([0.0, 0.2, 0.9] * 2, abs=0.03)
    assert outcomes(findings) == [NEGLIGIBLE, OPPOSITE, HOLDS] * 2


def test_the_table_says_where_the_vector_was_added(tmp_path: Path) -> None:
    table = concluded(prompt_as_vector, SIZE, planted(tmp_path)).tables[0]
    row = table.rows[0]
    assert row[0] == "cat" and row[1] == pytest.approx(0.2)
    assert row[-1] == "block 1, 2, all"


def test_number_rows_are_compared_in_full_precision_and_apart() -> None:
    """Every trait has prompts of its own, and its neighbour as control."""
    common = COMMON | {"dtype": "bf16"}
    nodes = {node.name: node for node in prompt_as_vector.nodes(SIZE, common)}
    folders = {name: Path(name) for name in nodes}
    rows = [nodes[f"rows.{trait}"].config(folders) for trait in SIZE.traits]
    assert len({config.prompt_seed for config in rows}) == len(SIZE.traits)
    assert {config.dtype for config in rows} == {"fp32"}
    scored = nodes["numbers.otter"].config(folders)
    assert (scored.dtype, scored.search_dtype, scored.other) == ("fp32", "bf16", "cat")
    assert scored.digits and not nodes["questions.otter"].config(folders).digits
    vectors = nodes["vectors"].config(folders)
    assert (vectors.prompt_set, vectors.n, vectors.position) == ("numbers", 4, "last")


def test_the_best_grid_point_passes_the_gates(tmp_path: Path) -> None:
    folders = planted(tmp_path)
    peak = prompt_as_vector.clean_peak(SIZE, folders, "cat")
    assert peak.rate == pytest.approx(0.6)
    assert (peak.place, peak.n_passed) == ("block 2, 2", 2)
    table = concluded(prompt_as_vector, SIZE, folders).tables[-1]
    assert table.rows[0] == pytest.approx(("cat", 0.01, 0.8, 0.6, "block 2, 2", 2))


def test_without_a_grid_point_that_passes_there_is_no_rate(tmp_path: Path) -> None:
    size = replace(SIZE, steer_layers=(1,))
    peak = prompt_as_vector.clean_peak(size, planted(tmp_path), "cat")
    assert math.isnan(peak.rate)
    assert (peak.place, peak.n_passed) == ("none", 0)


def test_prompts_without_the_trait_decide_nothing(tmp_path: Path) -> None:
    folders = planted(tmp_path)
    for trait in SIZE.traits:
        folders[f"prompted.{trait}"] = folders[f"base.{trait}"]
    findings = concluded(prompt_as_vector, SIZE, folders)
    assert set(outcomes(findings)) == {SILENT} and unmet(findings) == {HAS_TRAIT}
