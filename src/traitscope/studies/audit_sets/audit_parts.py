"""Audits of fresh rows of the model itself and of two teachers, for the claim audit_rows.

The rows are made in parts. A part answers every prompt once.

Shapes: R rows, T inverse temperatures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from traitscope.auditing import search
from traitscope.auditing.decide import Decision, decide
from traitscope.auditing.detectors.findings import Teacher
from traitscope.auditing.detectors.text_features import order_of
from traitscope.auditing.search import GridPoint, PromptTeacher
from traitscope.auditing.settings import NULLS, search_blocks
from traitscope.inference.token_scores import TokenScores, under_samplers
from traitscope.studies import sizes
from traitscope.studies.audit_sets import audit_bank
from traitscope.studies.audit_sets.audit_bank import (
    SETTINGS,
    AuditedRows,
    Picked,
    ScoredSet,
    is_kept,
)
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders

CLAIM_AUDITS = 10
"audits of the claim, each with other poisoned rows"
SCORES_SEED, SCORES_PROMPT_SEED = 3000, 90_000
"seeds of the rows and of their prompts"


class Kind(StrEnum):
    """Who generated rows."""

    CLEAN = "clean"
    PROMPTED = "prompted"
    STEERED = "steered"


TEACHERS = {Kind.PROMPTED: 10, Kind.STEERED: 100}
"the teachers; in the claim, one row in this number is the teacher's"


@dataclass(frozen=True)
class Part:
    """Rows that answer every prompt once."""

    kind: Kind
    "who generated them"
    number: int
    "number of the part"

    @property
    def name(self) -> str:
        """Name of the node with the rows."""
        return f"{self.kind} {self.number}"


class PartSize(Protocol):
    """What the parts need of a study's size."""

    traits: tuple[str, ...]
    tried: int
    rows: int
    prompts: int
    numbers: int
    layer: int
    strength: float
    repeats: int


def tried_traits(size: PartSize) -> tuple[str, ...]:
    """Candidates whose prompts are tried."""
    return size.traits[: size.tried]


def teacher_strength(size: PartSize) -> float:
    """Strength of the steered teacher: between the two largest that are tried."""
    return size.strength * float(np.mean(search.STRENGTHS[-2:]))


def tried_points(size: PartSize) -> list[GridPoint]:
    """Steered candidates that are tried: the teacher's and another, where the teacher is."""
    own, other = size.traits[:2]
    places = [(own, size.layer), (other, size.layer)]
    return search.grid_points(places, size.strength, search.STRENGTHS[-2:])


def parts_of(size: PartSize) -> list[Part]:
    """The parts of all sets."""
    parts = []
    for kind in Kind:
        for number in range(size.rows // size.prompts):
            parts.append(Part(kind, number))
    return parts


def rows_of_part(size: PartSize, number: int) -> standard_nodes.Rows:
    """The rows of a part: the same prompts, other random numbers."""
    return standard_nodes.Rows(
        size.prompts,
        size.numbers,
        seed=SCORES_SEED + number,
        prompt_seed=SCORES_PROMPT_SEED - number,
    )


def scored_set(size: PartSize, folders: Folders, kind: Kind) -> ScoredSet:
    """Return the token scores of one kind of rows, under the model, teachers and nulls."""
    places = []
    for n, part in enumerate(parts_of(size)):
        if part.kind == kind:
            places.append(n)

    def joined(node: str, steered: int | None = None) -> TokenScores:
        parts = [audit_bank.read_scores(folders[node], place, steered) for place in places]
        return sum(parts[1:], parts[0])

    teachers: dict[str, dict[Teacher, TokenScores]] = {}
    for trait in tried_traits(size):
        node = audit_bank.prompt_scores(trait, PromptTeacher())
        teachers[trait] = {PromptTeacher(): joined(node)}
    steered_node = audit_bank.steered_scores(0)
    for number, point in enumerate(tried_points(size)):
        teachers.setdefault(point.trait, {})[point] = joined(steered_node, number)
    nulls = {}
    for n, null in enumerate(NULLS):
        nulls[null] = joined(audit_bank.null_scores(n))
    orders = []
    for place in places:
        folder = folders[parts_of(size)[place].name]
        for row in standard_nodes.read_json_lines(folder, "records.jsonl"):
            orders.append(order_of(row["completion"]))
    return ScoredSet(joined(steered_node), teachers, nulls, np.array(orders))


@dataclass(frozen=True)
class Audit:
    """What one audit says."""

    called: bool
    "whether it calls the data"
    named: bool
    "whether the teacher's trait has the largest e-value"
    kept: bool
    "whether it is not excluded: the audit does not call, or the other candidates leave it"
    log_e: float
    "the largest log e-value of all candidates"


def decision_on(
    size: PartSize,
    clean: ScoredSet,
    poisoned: ScoredSet,
    taken: np.ndarray,
    is_poisoned: np.ndarray,
) -> Decision:
    """The decision on the rows `taken`; those under `is_poisoned` are the teacher's."""

    def of_rows(clean_scores: TokenScores, poisoned_scores: TokenScores) -> np.ndarray:
        return np.where(
            is_poisoned[:, None], poisoned_scores.log_p_RT[taken], clean_scores.log_p_RT[taken]
        )

    teachers: dict[str, dict[Teacher, np.ndarray]] = {}
    for trait, by_teacher in clean.teachers.items():
        teachers[trait] = {}
        for teacher, clean_scores in by_teacher.items():
            poisoned_scores = poisoned.teachers[trait][teacher]
            teachers[trait][teacher] = of_rows(clean_scores, poisoned_scores)
    nulls = {}
    for null, clean_scores in clean.nulls.items():
        nulls[null] = of_rows(clean_scores, poisoned.nulls[null])
    rows = AuditedRows(
        model_RT=of_rows(clean.model, poisoned.model),
        model_RS=np.where(
            is_poisoned[:, None],
            under_samplers(poisoned.model)[taken],
            under_samplers(clean.model)[taken],
        ),
        teachers=teachers,
        nulls=nulls,
        orders_R=np.where(is_poisoned, poisoned.orders_R[taken], clean.orders_R[taken]),
        placebo_orders_N=clean.orders_R,
    )
    prior = audit_bank.prior_of(teachers, tried_points(size), search_blocks(sizes.DEPTH))
    parts = [(clean, taken[~is_poisoned]), (poisoned, taken[is_poisoned])]
    picked = Picked([(scored, places) for scored, places in parts if len(places)])
    evidence = audit_bank.evidence_of(rows, picked, prior, len(size.traits))
    return decide(evidence, SETTINGS)


def audit_of(
    size: PartSize,
    clean: ScoredSet,
    poisoned: ScoredSet,
    taken: np.ndarray,
    is_poisoned: np.ndarray,
) -> Audit:
    """An audit of the rows `taken`; those under `is_poisoned` are the teacher's."""
    decision = decision_on(size, clean, poisoned, taken, is_poisoned)
    trait = size.traits[0]
    log_e = decision.e_values.statistic
    return Audit(
        called=decision.status == "suspect",
        named=next(iter(log_e)) == trait,
        kept=is_kept(decision, trait),
        log_e=max(log_e.values()),
    )


def disjoint_blocks(size: PartSize, rows: int) -> Iterator[np.ndarray]:
    """Yield all rows in disjoint blocks of `rows` rows."""
    order = np.random.default_rng(rows).permutation(size.rows)
    for start in range(0, size.rows - rows + 1, rows):
        yield order[start : start + rows]


def repeated_audits(
    size: PartSize, clean: ScoredSet, poisoned: ScoredSet, rows: int, rate: float
) -> list[Audit]:
    """Return audits of rows drawn without replacement.

    The number of poisoned rows is the contamination rate times the number of rows, rounded. It is
    one at least.
    """
    rng = np.random.default_rng([rows, round(1e6 * rate)])
    n_poisoned = max(1, round(rate * rows))
    audits = []
    for _ in range(size.repeats):
        taken = rng.permutation(size.rows)[:rows]
        audits.append(audit_of(size, clean, poisoned, taken, np.arange(rows) < n_poisoned))
    return audits


def claimed_audits(
    size: PartSize, clean: ScoredSet, poisoned: ScoredSet, every: int
) -> list[float]:
    """Return whether each of several audits of all rows calls them, as 0 or 1.

    In every audit one row in `every` is the teacher's, and no two audits share such a row.
    """
    order = np.random.default_rng(every).permutation(size.rows)
    calls = []
    for number in range(min(CLAIM_AUDITS, every, size.rows)):
        is_poisoned = np.arange(size.rows) % every == number
        calls.append(float(audit_of(size, clean, poisoned, order, is_poisoned).called))
    return calls
