"""What lineages keep of a trait: rises and EAS by generation, shares of a step, and drift."""

import math
from collections.abc import Sequence
from dataclasses import replace

from traitscope.information import summary
from traitscope.information.teachers import BASE as UNCHANGED
from traitscope.information.teachers import GIVEN
from traitscope.reporting.tables import Table
from traitscope.stats.contrasts.ratios import ratio_of_means
from traitscope.stats.estimates import mean_over_units
from traitscope.stats.measurement import Measurement
from traitscope.studies import readings
from traitscope.studies.lineages.graph import (
    RANDOM,
    TREATED,
    UNMODIFIED,
    Size,
    answers_name,
    digits_name,
    student_name,
    students_of,
)
from traitscope.studies.shared_nodes import BASE
from traitscope.workflow.graph import Folders


def rise(size: Size, folders: Folders, generation: int, other: str = RANDOM) -> Measurement:
    """Return log P(trait) of a generation, treated minus another lineage, in nats over seeds."""
    pairs = []
    for seed in size.seeds:
        treated = answers_name(TREATED, generation, seed)
        pairs.append((seed, treated, answers_name(other, generation, seed)))
    return readings.rise(folders, f"generation {generation}, treated minus {other}", pairs)


def rise_by_seed(size: Size, folders: Folders, generation: int) -> list[float]:
    """Return log P(trait) of a generation, treated minus random lineage, in nats by seed."""
    rises = []
    for seed in size.seeds:
        one_seed = replace(size, seeds=(seed,))
        rises.append(rise(one_seed, folders, generation).estimate)
    return rises


def specific_eas(size: Size, folders: Folders, generation: int) -> list[float]:
    """Return EAS beyond that with other traits' vectors, treated minus random lineage, by seed.

    It is taken at the block behind which first teachers are steered.
    """
    differences = []
    for seed in size.seeds:
        treated = _eas_beyond_others(size, folders, TREATED, generation, seed)
        differences.append(treated - _eas_beyond_others(size, folders, RANDOM, generation, seed))
    return differences


def _eas_beyond_others(
    size: Size, folders: Folders, lineage: str, generation: int, seed: int
) -> float:
    student = student_name(lineage, generation, seed)
    return readings.eas_beyond_others(folders, student, size.layer)


def generations(size: Size, folders: Folders) -> Table:
    """Return what is left of the trait in each generation."""
    rows = []
    for generation in size.each_generation:
        eas = mean_over_units("EAS", specific_eas(size, folders, generation), "cosine")
        of_random = rise(size, folders, generation)
        of_unmodified = rise(size, folders, generation, UNMODIFIED)
        rows.append((generation, of_random, of_unmodified, eas))
    return Table(
        "generations",
        "What is left of the trait by generation",
        "Log-probability of the trait's word, treated minus another lineage, nats. EAS beyond that"
        f" with other traits' vectors at block {size.layer}, treated minus random.",
        ("generation", "minus random", "minus unmodified", "EAS minus random"),
        tuple(rows),
        ("generation", "minus random", "minus unmodified"),
    )


def retention(size: Size, folders: Folders) -> Table:
    """Return what each step keeps, and what all steps keep together."""
    rises, eas = {}, {}
    for generation in size.each_generation:
        rises[generation] = rise_by_seed(size, folders, generation)
        eas[generation] = specific_eas(size, folders, generation)
    steps = [(generation - 1, generation) for generation in size.each_generation[1:]]
    rows = []
    for before, after in (*steps, (1, size.generations)):
        kept = ratio_of_means("of the rise", rises[after], rises[before])
        kept_eas = ratio_of_means("of EAS", eas[after], eas[before])
        why = _undefined((kept, kept_eas))
        rows.append((f"{before} to {after}", kept, kept_eas, why))
    return Table(
        "retention",
        "What a step keeps",
        "A generation's mean over that of an earlier one, both treated minus random. Fieller's"
        " interval over seeds. A published step keeps 0.86 to 0.93 of the behaviour.",
        ("generations", "of the rise", "of EAS", "undefined because"),
        tuple(rows),
    )


def _undefined(shares: Sequence[Measurement]) -> str:
    """Return why shares have no estimate; empty where all have one."""
    reasons = []
    for share in shares:
        if math.isnan(share.estimate):
            reasons.append(f"{share.name}: {share.interval}")
    return "; ".join(reasons)


def drift(size: Size, folders: Folders) -> Table:
    """Return how far the students of every lineage and generation are from the base."""
    by_student = _divergences(size, folders)
    rows = []
    for lineage, generation in students_of(size):
        pairs, perplexities, nats, eas = [], [], [], []
        for seed in size.seeds:
            asked = answers_name(lineage, generation, seed)
            pairs.append((seed, asked, BASE))
            perplexities.append(readings.perplexity(folders, asked))
            nats.append(by_student[lineage, generation, seed])
            eas.append(_eas_beyond_others(size, folders, lineage, generation, seed))
        rows.append(
            (
                lineage,
                generation,
                readings.rise(folders, "minus base", pairs),
                mean_over_units("EAS", eas, "cosine"),
                mean_over_units("perplexity", perplexities, ""),
                mean_over_units("digits", nats, "nats a row"),
            )
        )
    return Table(
        "drift",
        "How far every lineage has drifted",
        "Log-probability of the trait's word minus the base's, nats. EAS beyond other traits'."
        f" Perplexity of plain text; the base has {readings.perplexity(folders, BASE):.2f}. Digits:"
        " KL of a row that the student writes from the base's, nats; the next generation learns"
        " such rows.",
        ("lineage", "generation", "minus base", "EAS", "perplexity", "digits"),
        tuple(rows),
    )


def _divergences(size: Size, folders: Folders) -> dict[tuple[str, int, int], float]:
    """Return KL of a row from the base's over digits, by lineage, generation and seed."""
    by_student = {}
    for seed in size.seeds:
        teachers = summary.read(folders[digits_name(seed)])["teachers"]
        given = [about["against"] for about in teachers if about["kind"] == GIVEN]
        for (lineage, generation), against in zip(students_of(size), given, strict=True):
            by_student[lineage, generation, seed] = against[UNCHANGED]["estimate"]
    return by_student
