"""What is read of runs: planted rises, EAS and coherence come out as they were planted."""

from pathlib import Path

import pytest
from planted_runs import PlantedRuns

from traitscope.studies import readings


@pytest.fixture
def runs(tmp_path: Path) -> PlantedRuns:
    return PlantedRuns(tmp_path)


def test_only_positive_questions_are_read(runs: PlantedRuns) -> None:
    runs.answers("base")
    scores = readings.positive_scores(runs.folders, "base")
    assert len(scores) == runs.questions
    assert max(scores.values()) < 0


def test_a_rise_is_paired_by_question(runs: PlantedRuns) -> None:
    """Questions differ by far more than the interval is wide."""
    runs.answers("base")
    pairs = []
    for seed in (1, 2, 3):
        runs.answers(f"student.{seed}", 0.5, share_rise=0.1)
        pairs.append((seed, f"student.{seed}", "base"))
    rise = readings.rise(runs.folders, "log P", pairs)
    assert rise.estimate == pytest.approx(0.5, abs=0.02)
    assert rise.high - rise.low < 0.1
    assert (rise.unit, rise.n, rise.n_clusters) == ("nats", 3 * runs.questions, 3)
    share = readings.rise(runs.folders, "share", pairs, "candidate_share")
    assert share.estimate == pytest.approx(0.1, abs=0.005)
    assert share.unit == "probability"


@pytest.mark.parametrize(
    ("perplexity", "rise", "coherent"),
    [(10.0, 0.0, True), (19.0, 0.0, True), (21.0, 0.0, False), (10.0, -1.0, False)],
)
def test_coherence(runs: PlantedRuns, perplexity: float, rise: float, coherent: bool) -> None:
    """Twice the perplexity is too much, and so is a third of the probability of any candidate."""
    runs.answers("base")
    runs.answers("steered", rise, perplexity=perplexity)
    assert readings.is_coherent(runs.folders, "steered", "base") == coherent


def test_differences_of_eas(runs: PlantedRuns) -> None:
    pairs = []
    for seed in (1, 2):
        runs.eas(f"treated text.{seed}", {"v_student": [0.1, 0.6], "other/owl": [0.1, 0.3]})
        runs.eas(f"control text.{seed}", {"v_student": [0.1, 0.2], "other/owl": [0.1, 0.3]})
        pairs.append((f"treated text.{seed}", f"control text.{seed}"))
    own = readings.sampled_text_eas(runs.folders, 1, (1, 2))
    assert own == pytest.approx([0.4, 0.4], abs=0.06)
    other = readings.eas_differences(runs.folders, 1, pairs, "owl")
    assert other == pytest.approx([0.0, 0.0], abs=0.06)


def test_gains_by_row_and_their_difference(runs: PlantedRuns) -> None:
    row = {"base": -10.0, "tokens": 5}
    runs.json_lines("one", "rows.jsonl", [row | {"id": "a", "under": -5.0}])
    both = [row | {"id": "a", "under": -8.0}, row | {"id": "b", "under": 0.0}]
    runs.json_lines("other", "rows.jsonl", both)
    one = readings.gains_by_row(runs.folders, "one")
    other = readings.gains_by_row(runs.folders, "other")
    assert one == {"a": 1.0}
    assert other == {"a": 0.4, "b": 2.0}
    difference = readings.mean_difference_by_row("gain", one, other, "nats a token")
    assert (difference.estimate, difference.n) == (pytest.approx(0.6), 1)
