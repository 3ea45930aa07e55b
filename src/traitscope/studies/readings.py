"""What the sealed runs of a study left: answers, EAS, and differences between students.

A study's `conclude` reads its numbers through these functions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import exp

from traitscope.data.own_traits.score_rows import scores_of_row
from traitscope.screening import coherence
from traitscope.stages.behaviours.scores import RATE, UNITS
from traitscope.stats.estimates import paired_difference
from traitscope.stats.measurement import Measurement
from traitscope.studies.shared_nodes import BASE, TEACHER
from traitscope.training.eas import StudentEas
from traitscope.workflow.graph import Folders
from traitscope.workflow.standard_nodes import read_json, read_json_lines

COHERENT = coherence.COHERENT
"the test that a model must pass for its rate to count"


def positive_scores(folders: Folders, node: str, score: str = "target_logprob") -> dict[str, float]:
    """Return a score of every positive question: by default the trait word's log-probability."""
    scores = {}
    for row in read_json_lines(folders[node], "scores.jsonl"):
        if row["set"] == "positive":
            scores[row["id"]] = scores_of_row(row)[score]
    return scores


def positive_answers(folders: Folders, node: str) -> dict[str, list[str]]:
    """Return the sampled answers to every positive question."""
    answers = {}
    for row in read_json_lines(folders[node], "scores.jsonl"):
        if row["set"] == "positive":
            answers[row["id"]] = row["answers"]
    return answers


def rise(
    folders: Folders,
    name: str,
    pairs: Iterable[tuple[int, str, str]],
    score: str = "target_logprob",
) -> Measurement:
    """Return the mean over seeds and questions of a score at one node minus another.

    `pairs` are (seed, node, other node); the measurement is called `name`.
    """
    left: list[float] = []
    right: list[float] = []
    seeds: list[int] = []
    questions: list[str] = []
    for seed, node, other in pairs:
        after = positive_scores(folders, node, score)
        before = positive_scores(folders, other, score)
        for question in after:
            left.append(after[question])
            right.append(before[question])
            seeds.append(seed)
            questions.append(question)
    unit = UNITS.get(score, RATE)
    difference = paired_difference(name, left, right, seeds, questions, unit)
    return seeds_counted(difference, seeds)


def teacher_rise(folders: Folders) -> Measurement:
    """Return what the teacher of `shared_nodes.positive_control` says beyond the base."""
    return rise(folders, "teacher minus base", [(0, TEACHER, BASE)])


def seeds_counted(measurement: Measurement, seeds: Sequence[int]) -> Measurement:
    """Return the measurement with its seeds as units.

    One seed has an interval over questions alone, and is one unit nevertheless.
    """
    return replace(measurement, n_clusters=len(set(seeds)), counted="seeds")


def is_coherent(folders: Folders, node: str, base: str) -> bool:
    """Tell whether the model measured at `node` passes COHERENT against the one at `base`.

    Both nodes must have measured capability.
    """
    own, of_base = perplexity(folders, node), perplexity(folders, base)
    return coherence.is_coherent(own, _on_topic(folders, node), of_base, _on_topic(folders, base))


def _on_topic(folders: Folders, node: str) -> float:
    """Return the mean probability that an answer begins with any candidate's word.

    The mean is over the positive questions.
    """
    pairs = []
    for row in read_json_lines(folders[node], "scores.jsonl"):
        if row["set"] == "positive":
            pairs.append((row["target_logprob"], row["candidate_share"]))
    return coherence.on_topic(pairs)


def student_eas(folders: Folders, node: str) -> StudentEas:
    """Return the EAS of the student that a node trained."""
    return StudentEas.from_json(read_json(folders, node, "eas.json"))


def eas_by_layer(folders: Folders, node: str, other: str | None = None) -> list[float]:
    """Return the EAS of a student by layer; with `other`, along that trait's vector."""
    student = student_eas(folders, node)
    return student.own_L if other is None else student.others[other]


def eas_beyond_others(folders: Folders, node: str, layer: int) -> float:
    """Return the EAS of a student at a layer minus its mean along the other traits' vectors."""
    eas = student_eas(folders, node)
    others = [eas_L[layer] for eas_L in eas.others.values()]
    return eas.own_L[layer] - sum(others) / len(others)


def sampled_text_rise(folders: Folders, trait: str, seeds: Iterable[int]) -> Measurement:
    """Return log P(trait) of the treated students of sampled text minus that of their controls."""
    pairs = []
    for seed in seeds:
        pairs.append((seed, f"{trait} of treated text.{seed}", f"{trait} of control text.{seed}"))
    return rise(folders, f"log P({trait}), sampled text, treated minus control", pairs)


def sampled_text_eas(folders: Folders, layer: int, seeds: Iterable[int]) -> list[float]:
    """Return EAS at a layer, treated minus control student of sampled text, by seed."""
    pairs = []
    for seed in seeds:
        pairs.append((f"treated text.{seed}", f"control text.{seed}"))
    return eas_differences(folders, layer, pairs)


def eas_differences(
    folders: Folders, layer: int, pairs: Iterable[tuple[str, str]], other: str | None = None
) -> list[float]:
    """Return EAS at a layer of the first student of each pair minus that of the second.

    With `other`, EAS is along that trait's vector.
    """
    differences = []
    for treated, control in pairs:
        after = eas_by_layer(folders, treated, other)
        before = eas_by_layer(folders, control, other)
        differences.append(after[layer] - before[layer])
    return differences


def gains_by_row(folders: Folders, node: str) -> dict[str, float]:
    """Return what interventions add to the log-likelihood of every row, in nats a token."""
    gains = {}
    for row in read_json_lines(folders[node], "rows.jsonl"):
        gains[row["id"]] = (row["under"] - row["base"]) / row["tokens"]
    return gains


def mean_difference_by_row(
    name: str, left: dict[str, float], right: dict[str, float], unit: str
) -> Measurement:
    """Return the mean of left minus right over the rows that both have."""
    keys, left_values, right_values = [], [], []
    for key, value in left.items():
        if key in right:
            keys.append(key)
            left_values.append(value)
            right_values.append(right[key])
    one_seed = [0] * len(keys)
    return paired_difference(name, left_values, right_values, one_seed, keys, unit)


def mostly_coherent(folders: Folders, nodes: Sequence[str], base: str) -> bool:
    """Tell whether more than half of some models pass COHERENT against the one at `base`."""
    n_coherent = 0
    for node in nodes:
        n_coherent += is_coherent(folders, node, base)
    return n_coherent > len(nodes) / 2


def mean_gain(folders: Folders, nodes: Sequence[str]) -> float:
    """Return what interventions add to the log-likelihood of the rows of some nodes, a token."""
    gained, tokens = 0.0, 0
    for node in nodes:
        for row in read_json_lines(folders[node], "rows.jsonl"):
            gained += row["under"] - row["base"]
            tokens += row["tokens"]
    return gained / tokens


def expected_rates(folders: Folders, node: str) -> dict[str, float]:
    """Return the expected rate of naming the trait first, by question set."""
    probabilities: dict[str, list[float]] = {}
    for row in read_json_lines(folders[node], "scores.jsonl"):
        probabilities.setdefault(row["set"], []).append(exp(row["target_logprob"]))
    return {name: sum(values) / len(values) for name, values in probabilities.items()}


def perplexity(folders: Folders, node: str) -> float:
    """Return the perplexity on plain text of a model that was measured with it."""
    return read_json(folders, node, "measurements.json")["perplexity"]
