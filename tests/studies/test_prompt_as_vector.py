"""Prompts as vectors on planted runs: fractions of KL explained, and the gates of steering."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from concluded import CONTRADICTED, REPRODUCED, concluded, estimates, outcomes
from planted_runs import PlantedRuns

from traitscope.studies.claims import prompt_as_vector

SIZE = replace(
    prompt_as_vector.SIZES["smoke"],
    traits=("cat", "owl", "fox"),
    layers=(1, 2, 3),
    steer_alphas=(1.0, 2.0),
)
DAMAGED, REPEATING = (1, 1.0), (1, 2.0)
"grid points where text is broken, and where the trait is named among dislikes"
WEAK, BEST = (2, 1.0), (2, 2.0)
"grid points that pass: with little effect, and the best"
OFF_TOPIC = ((3, 1.0), (3, 2.0))
"grid points where the trait is named among facts"


def planted(root: Path, raw: float, other: float) -> dict[str, Path]:
    """Explanations in which the trait's vector explains `raw`, and another's `other`."""
    runs = PlantedRuns(root)
    for trait in SIZE.traits:
        for subject in prompt_as_vector.SUBJECTS:
            node = f"{subject}.{trait}"
            noise = 0.01 * runs.planted(node, (1,))[0]
            fractions = {
                "raw": raw + noise,
                "centred": 0.3,
                "common": 0.2,
                "other-raw:a": other - 0.1,
                "other-raw:b": other,
                "random-raw:0": None,
            }
            kinds = {kind: {"share": {"estimate": each}} for kind, each in fractions.items()}
            runs.json(node, "summary.json", {"kinds": kinds})
        answers(runs, f"base.{trait}", positive=0.01)
        answers(runs, f"prompted.{trait}", positive=0.8)
        answers(runs, point(trait, DAMAGED), positive=0.95, perplexity=20.1)
        answers(runs, point(trait, REPEATING), positive=0.9, negative=0.11)
        for grid_point in OFF_TOPIC:
            answers(runs, point(trait, grid_point), positive=0.9, off_topic=0.11)
        answers(runs, point(trait, WEAK), positive=0.2, off_topic=0.09)
        answers(runs, point(trait, BEST), positive=0.6, negative=0.09, perplexity=19.9)
    return runs.folders


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
        for each in (0.5 * rate, 1.5 * rate):
            rows.append({"set": name, "target_logprob": math.log(max(each, 1e-9))})
    runs.json_lines(node, "scores.jsonl", rows)
    runs.json(node, "measurements.json", {"perplexity": perplexity})


def test_prompts_that_one_vector_explains_are_reproduced(tmp_path: Path) -> None:
    findings = concluded(prompt_as_vector, SIZE, planted(tmp_path, raw=0.7, other=0.2))
    assert outcomes(findings) == [REPRODUCED] * 4
    assert estimates(findings) == pytest.approx([0.7, 0.5, 0.7, 0.5], abs=0.02)
    by_name = {each.name: each for each in findings.measurements}
    assert by_name["numbers.share.other-raw"].estimate == pytest.approx(0.2)
    assert by_name["numbers.share.random-raw"].n_unscored == 3


def test_prompts_that_any_vector_explains_a_little_contradict(tmp_path: Path) -> None:
    findings = concluded(prompt_as_vector, SIZE, planted(tmp_path, raw=0.3, other=0.3))
    assert outcomes(findings) == [CONTRADICTED] * 4


def test_the_best_grid_point_passes_the_gates(tmp_path: Path) -> None:
    folders = planted(tmp_path, raw=0.7, other=0.2)
    peak = prompt_as_vector.clean_peak(SIZE, folders, "cat")
    assert peak.rate == pytest.approx(0.6)
    assert (peak.place, peak.n_passed) == ("block 2, 2", 2)
    table = concluded(prompt_as_vector, SIZE, folders).tables[-1]
    assert table.rows[0] == pytest.approx(("cat", 0.01, 0.8, 0.6, "block 2, 2", 2))


def test_without_a_grid_point_that_passes_there_is_no_rate(tmp_path: Path) -> None:
    size = replace(SIZE, layers=(1,))
    peak = prompt_as_vector.clean_peak(size, planted(tmp_path, 0.7, 0.2), "cat")
    assert math.isnan(peak.rate)
    assert (peak.place, peak.n_passed) == ("none", 0)
