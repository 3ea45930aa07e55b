"""Audits drawn from a bank of scored rows.

Every audit takes one row a prompt. The row is from a clean set or, at the contamination rate of the
audit, from a teacher's set. Its placebos are from other clean sets.

Shapes: R rows, K rows a prompt (the audited one first), L blocks of the model, T traits.
Further shapes: J kinds of projection, N clean rows, F features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from traitscope.auditing import search
from traitscope.auditing.decide import Decision, decide
from traitscope.auditing.detectors import gradients
from traitscope.auditing.detectors.e_values import likeliest_candidates, log_e_over_model
from traitscope.auditing.detectors.findings import Teacher
from traitscope.auditing.detectors.row_gradients import RowGradients, read_row_gradients
from traitscope.auditing.detectors.text_features import FEATURES, features, order_of
from traitscope.auditing.search import GridPoint, PromptTeacher
from traitscope.auditing.settings import NULLS, NullModel
from traitscope.inference.token_bins import PLAIN
from traitscope.inference.token_scores import TokenScores, under_samplers
from traitscope.interventions.vector import load_vector
from traitscope.stats import permutation
from traitscope.studies.audit_sets import audit_bank, audit_sources
from traitscope.studies.audit_sets.audit_bank import SETTINGS, AuditedRows, Picked, ScoredSet
from traitscope.studies.audit_sets.audit_sources import PLACEBOS, Source, SourceSize, names_of
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders

PERMUTATIONS = 1999
"permutations of the gradients' test, which decides nothing"
LIKELIHOOD = "likelihood under the model"
"what rows are selected by, besides the features of their text"
SELECTED = (2, 5)
"one row in this number is selected"
CLEAN_GRADIENTS = 1024
"most clean rows that a covariance is taken from"
RowOfSet = tuple[str, int]
"name of a set, and the number of a row in it"


@dataclass(frozen=True)
class SearchSpace:
    """What may be tried, and what the correction counts."""

    traits: tuple[str, ...]
    "candidates that the correction counts"
    tried: tuple[str, ...]
    "candidates whose teachers are scored"
    blocks: tuple[int, ...]
    "blocks at which candidates are steered"
    strength: float
    "largest strength of the search, in mean residual norms"

    @property
    def points(self) -> list[GridPoint]:
        """All steered teachers that may be tried."""
        places = []
        for block in self.blocks:
            for trait in self.tried:
                places.append((trait, block))
        return search.grid_points(places, self.strength)


@dataclass(frozen=True)
class Bank:
    """Everything that audits are drawn from."""

    space: SearchSpace
    "what may be tried"
    rows: int
    "rows of every set"
    along: Mapping[str, np.ndarray]
    "gradients of every set, also of placebos, along the traits' vectors, [R, L, T, J]"
    sets: Mapping[str, ScoredSet]
    "token scores of every set"
    orders: Mapping[str, np.ndarray]
    "how the numbers of every row are sorted [R], also of placebos"


@dataclass(frozen=True)
class Audit:
    """What one audit says."""

    gradients_call: bool
    "whether the gradients' test would call a trait; it decides nothing"
    decision: Decision
    "the decision"

    @property
    def called(self) -> bool:
        """Whether the data are called."""
        return self.decision.status == "suspect"

    @property
    def off_model(self) -> bool:
        """Whether the answer would be that the model did not generate the rows."""
        return self.decision.off_model

    @property
    def stopped(self) -> bool:
        """Whether the data are called or off-model."""
        return self.called or self.off_model

    @property
    def first(self) -> str:
        """The candidate with the largest e-value."""
        return next(iter(self.decision.e_values.statistic))


@dataclass(frozen=True)
class Draw:
    """What an audit is of."""

    source: str
    "name of the set that poisoned rows are from"
    clean: Sequence[str]
    "names of the sets that clean rows and placebos are from"
    rate: float
    "contamination rate"
    rows: int
    "number of audited rows"


def all_prompt_teachers(space: SearchSpace) -> list[tuple[str, PromptTeacher]]:
    """The prompts of all candidates that are tried."""
    pairs = []
    for trait in space.tried:
        for teacher in audit_bank.prompt_teachers(trait):
            pairs.append((trait, teacher))
    return pairs


def gradients_of(name: str) -> str:
    """Name of the node with the row gradients of a set."""
    return f"{name} gradients"


def bank_of(space: SearchSpace, size: SourceSize, folders: Folders) -> Bank:
    """The bank that audits are drawn from."""
    sets = names_of(audit_sources.all_sets(size))
    placebos = names_of(audit_sources.format_placebos(size))
    stored = {}
    orders = {}
    for name in sets + placebos:
        stored[name] = read_row_gradients(folders[gradients_of(name)])
        rows = standard_nodes.read_json_lines(folders[name], "records.jsonl")
        orders[name] = np.array([order_of(row["completion"]) for row in rows])
    scored = {}
    for number, name in enumerate(sets):
        scored[name] = _scored_set(space, folders, number, orders[name])
    clean = names_of(audit_sources.clean_sets(size))
    along = _along(space, folders, stored, clean)
    return Bank(space, size.rows, along, scored, orders)


def _scored_set(
    space: SearchSpace, folders: Folders, number: int, orders_R: np.ndarray
) -> ScoredSet:
    """The scores of one set; those of the model itself stand beside those of steered teachers."""
    model = audit_bank.read_scores(folders[audit_bank.steered_scores(0)], number)
    teachers: dict[str, dict[Teacher, TokenScores]] = {}
    for trait, teacher in all_prompt_teachers(space):
        run = folders[audit_bank.prompt_scores(trait, teacher)]
        teachers.setdefault(trait, {})[teacher] = audit_bank.read_scores(run, number)
    for batch, points in enumerate(search.batched(space.points)):
        run = folders[audit_bank.steered_scores(batch)]
        for place, point in enumerate(points):
            teachers[point.trait][point] = audit_bank.read_scores(run, number, place)
    nulls = {}
    for n, null in enumerate(NULLS):
        nulls[null] = audit_bank.read_scores(folders[audit_bank.null_scores(n)], number)
    return ScoredSet(model, teachers, nulls, orders_R)


def _along(
    space: SearchSpace, folders: Folders, stored: Mapping[str, RowGradients], clean: Sequence[str]
) -> dict[str, np.ndarray]:
    """Gradients of every set along the traits' vectors."""
    rows = {}
    for name, row_gradients in stored.items():
        rows[name] = row_gradients.rows(range(len(row_gradients.ids)))
    clean_rows = [rows[name] for name in clean]
    clean_NLD = np.concatenate(clean_rows)[:CLEAN_GRADIENTS]
    vectors = {}
    for trait in space.traits:
        vectors[trait] = load_vector(standard_nodes.vector_of(folders, trait))
    directions = gradients.unit_directions(vectors, clean_NLD)
    along = {}
    for name, rows_RLD in rows.items():
        values = gradients.projected(rows_RLD[:, None], directions)[:, 0]
        along[name] = values.astype(np.float32)
    return along


def audit_of(bank: Bank, rng: np.random.Generator, draw: Draw) -> Audit:
    """An audit of data of which a fraction is the source's."""
    picked = rng.permutation(bank.rows)[: draw.rows]
    groups = _sets_by_prompt(rng, draw, len(picked))
    values = gathered(bank, groups, picked)
    audited = []
    for names, row in zip(groups, picked, strict=True):
        audited.append((names[0], int(row)))
    traits = bank.space.traits
    blocks = permutation.in_blocks(values)
    along = gradients.along_traits(traits, traits, blocks, None, SETTINGS.error_share, PERMUTATIONS)
    gradients_call = min(along.p.values()) <= SETTINGS.error_share
    return Audit(gradients_call, decision_on(bank, audited, draw, values))


def _sets_by_prompt(rng: np.random.Generator, draw: Draw, n_prompts: int) -> list[list[str]]:
    """Draw for every prompt the set of its audited row, then the sets of its placebos."""
    orders = []
    for _ in range(n_prompts):
        orders.append(rng.permutation(len(draw.clean))[: PLACEBOS + 1])
    is_poisoned = rng.random(n_prompts) < draw.rate
    groups = []
    for order, poisoned in zip(orders, is_poisoned, strict=True):
        names = [draw.clean[place] for place in order]
        if poisoned:
            names[0] = draw.source
        groups.append(names)
    return groups


def gathered(bank: Bank, groups: Sequence[Sequence[str]], rows: Sequence[int]) -> np.ndarray:
    """Projections [R, K, L, T, J] of rows, given the sets that a prompt's rows are from."""
    values = []
    for names, row in zip(groups, rows, strict=True):
        values.append(np.stack([bank.along[name][row] for name in names]))
    return np.stack(values)


def decision_on(
    bank: Bank, audited: Sequence[RowOfSet], draw: Draw, values_RKLTJ: np.ndarray
) -> Decision:
    """The decision on rows, after the search that `traitscope audit` makes."""
    space = bank.space
    any_set = next(iter(bank.sets.values()))
    model_RT = _log_likelihoods(bank, audited, lambda scored: scored.model)
    teachers: dict[str, dict[Teacher, np.ndarray]] = {}
    for trait, by_teacher in any_set.teachers.items():
        teachers[trait] = {}
        for teacher in by_teacher:
            scores_of = partial(_under_teacher, trait, teacher)
            teachers[trait][teacher] = _log_likelihoods(bank, audited, scores_of)
    nulls = {}
    for null in any_set.nulls:
        nulls[null] = _log_likelihoods(bank, audited, partial(_under_null, null))
    usual_orders = [bank.orders[name] for name in draw.clean]
    by_sampler = []
    for name, row in audited:
        by_sampler.append(under_samplers(bank.sets[name].model)[row])
    rows = AuditedRows(
        model_RT=model_RT,
        model_RS=np.stack(by_sampler),
        teachers=_tried(space, model_RT, teachers, values_RKLTJ),
        nulls=nulls,
        orders_R=np.array([bank.orders[name][row] for name, row in audited]),
        placebo_orders_N=np.concatenate(usual_orders),
    )
    prior = audit_bank.prior_of(teachers, space.points, space.blocks)
    evidence = audit_bank.evidence_of(rows, _picked(bank, audited), prior, len(space.traits))
    return decide(evidence, SETTINGS)


def _picked(bank: Bank, audited: Sequence[RowOfSet]) -> Picked:
    """The audited rows, set by set."""
    rows_of_sets: dict[str, list[int]] = {}
    for name, row in audited:
        rows_of_sets.setdefault(name, []).append(row)
    return Picked([(bank.sets[name], np.array(rows)) for name, rows in rows_of_sets.items()])


def _under_teacher(trait: str, teacher: Teacher, scored: ScoredSet) -> TokenScores:
    return scored.teachers[trait][teacher]


def _under_null(null: NullModel, scored: ScoredSet) -> TokenScores:
    return scored.nulls[null]


def _log_likelihoods(
    bank: Bank, audited: Sequence[RowOfSet], scores_of: Callable[[ScoredSet], TokenScores]
) -> np.ndarray:
    """Return the log-likelihoods [R, T] of rows under what `scores_of` takes from their sets."""
    rows = []
    for name, row in audited:
        rows.append(scores_of(bank.sets[name]).log_p_RT[row])
    return np.stack(rows)


def _tried(
    space: SearchSpace,
    model_RT: np.ndarray,
    teachers: Mapping[str, Mapping[Teacher, np.ndarray]],
    values_RKLTJ: np.ndarray,
) -> dict[str, dict[Teacher, np.ndarray]]:
    """Return the teachers that `traitscope audit` would try.

    These are all prompts, the paraphrases of the likeliest candidates, and the steered teachers
    that the search comes to.
    """

    def log_e_of(trait: str, teacher: Teacher) -> float:
        return log_e_over_model(model_RT, teachers[trait][teacher])

    log_e = {}
    for trait in teachers:
        log_e[trait] = log_e_of(trait, PromptTeacher())
    paraphrased = likeliest_candidates(log_e)
    z = search.gradient_z(
        space.traits, space.traits, permutation.in_blocks(values_RKLTJ), space.blocks
    )
    first = [point for point in search.first_round(z, space.strength) if point.trait in teachers]
    points = search.search(
        first, lambda point: log_e_of(point.trait, point), space.blocks, space.strength
    )
    tried: dict[str, dict[Teacher, np.ndarray]] = {}
    for trait, by_teacher in teachers.items():
        tried[trait] = {}
        for teacher, log_p_RT in by_teacher.items():
            is_prompt = teacher == PromptTeacher()
            is_paraphrase = isinstance(teacher, PromptTeacher) and trait in paraphrased
            if is_prompt or is_paraphrase or teacher in points:
                tried[trait][teacher] = log_p_RT
    return tried


class Bench:
    """Audits of one size, drawn from one bank and one stream of random numbers."""

    def __init__(self, space: SearchSpace, size: SourceSize, folders: Folders) -> None:
        self.size = size
        self.bank = bank_of(space, size, folders)
        self.rng = np.random.default_rng(0)
        self.clean = names_of(audit_sources.clean_sets(size))

    def audit(self, source: Source, rate: float, rows: int) -> Audit:
        """An audit of data of which a fraction `rate` is the source's."""
        placebos = names_of(audit_sources.placebo_sets(self.size, source))
        draw = Draw(source.name, placebos, rate, rows)
        return audit_of(self.bank, self.rng, draw)

    def audits(self, source: Source, rate: float, rows: int, repeats: int) -> list[Audit]:
        """Audits of one contamination rate."""
        return [self.audit(source, rate, rows) for _ in range(repeats)]


def selected_rows(bench: Bench, folders: Folders) -> Iterator[tuple]:
    """Yield audits of clean rows that were selected: those with most, or least, of a feature.

    An audit is (what was selected, the largest log e-value by the fraction kept, number of calls).
    """
    seen_NF = _seen(bench.bank, bench.clean, folders)
    for column, feature in enumerate((*FEATURES, LIKELIHOOD)):
        if np.ptp(seen_NF[:, column]) == 0:
            continue
        for end, sign in (("most", -1), ("least", 1)):
            # Rows that are alike come in any order.
            ranked = np.lexsort((bench.rng.random(len(seen_NF)), sign * seen_NF[:, column]))
            log_e, calls = [], 0
            for every in SELECTED:
                called, largest = _audit_selected(bench, ranked[: len(ranked) // every])
                log_e.append(largest)
                calls += called
            yield f"{end}: {feature}", *log_e, calls


def _audit_selected(bench: Bench, rows: np.ndarray) -> tuple[bool, float]:
    """Return whether selected clean rows are called, and the largest log e-value."""
    clean, n = bench.clean, bench.size.rows
    audited = []
    for row in bench.rng.permutation(rows)[:n]:
        audited.append((clean[row // n], int(row % n)))
    groups = []
    for name, _ in audited:
        others = [other for other in clean if other != name]
        groups.append([name, *bench.rng.permutation(others)[:PLACEBOS]])
    rows_of_sets = [row for _, row in audited]
    values = gathered(bench.bank, groups, rows_of_sets)
    draw = Draw(clean[0], clean, 0.0, n)
    decision = decision_on(bench.bank, audited, draw, values)
    return decision.status == "suspect", max(decision.e_values.statistic.values())


def _seen(bank: Bank, clean: Sequence[str], folders: Folders) -> np.ndarray:
    """Return what can be seen of every clean row [N, F]: features of its text, its likelihood."""
    seen = []
    for name in clean:
        rows = standard_nodes.read_json_lines(folders[name], "records.jsonl")
        for row, log_p in zip(rows, bank.sets[name].model.log_p_RT[:, PLAIN], strict=True):
            seen.append((*features(row["prompt"], row["completion"]), log_p))
    return np.array(seen)
