"""What the studies of the audit share.

It holds the nulls and the candidates, nodes that score all sets of rows under one teacher, and the
evidence of rows of several sets. Error rate, candidates, nulls and the decision are imported from
`traitscope audit`, so the studies test the audit itself.

Shapes: R rows, T inverse temperatures.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from traitscope.auditing import search
from traitscope.auditing.decide import Decision, Evidence
from traitscope.auditing.detectors.findings import ByTeacher, Likelihoods, Null, Teacher
from traitscope.auditing.search import GridPoint, PromptTeacher
from traitscope.auditing.settings import NULLS, RANDOMS, NullModel, Settings
from traitscope.auditing.steps import teacher_scores
from traitscope.config.audit import DEFAULT_TRAITS, TeacherScoresConfig
from traitscope.data.traits import load_trait
from traitscope.inference import token_scores
from traitscope.inference.token_scores import Scores, TokenScores
from traitscope.studies import shared_nodes
from traitscope.workflow import standard_nodes
from traitscope.workflow.graph import Folders, Node
from traitscope.workflow.standard_nodes import NUMBER_TOKENS, PROMPT_TOKENS, VECTORS

SETTINGS = Settings()
"how the audit decides, at its own error rate"
CANDIDATES = DEFAULT_TRAITS
"the audit's candidate traits"
NEEDED = 0.95
"""fraction of clean audits that must not be called

The expectation is 0.99, which 200 audits are too few to show.
"""
RANDOM_VECTORS = "random vectors"
"name of the node with the vectors of the random nulls"
BATCH_SIZE = 32
"rows that are scored side by side"


def random_vectors(common: dict, trait: str) -> Node:
    """Build the node of the nulls' random vectors, as long as the trait's vector at every block."""

    like = partial(standard_nodes.vector_of, trait=trait)
    return shared_nodes.random_vectors_like(common, RANDOM_VECTORS, VECTORS, like, RANDOMS)


def prompt_teachers(trait: str) -> tuple[PromptTeacher, ...]:
    """Return the prompts of a candidate. The audit tries a paraphrase of likely candidates only."""
    if load_trait(trait).paraphrases:
        return (PromptTeacher(), PromptTeacher(0))
    return (PromptTeacher(),)


def null_intervention(null: NullModel, folders: Folders, layer: int, strength: float) -> str:
    """Return the intervention of a null.

    A random vector acts at block `layer`, with half of the search's largest strength.
    """
    if null.system_prompt is not None:
        return f"prompt:{null.system_prompt}"
    vector = folders[RANDOM_VECTORS] / f"random-{null.random_vector}.safetensors"
    return standard_nodes.steered(vector, layer, strength * search.HALF)


def steered_interventions(points: Sequence[GridPoint], folders: Folders) -> tuple[str, ...]:
    """The interventions of steered teachers."""
    interventions = []
    for point in points:
        teacher = standard_nodes.steered_by(point.trait, point.layer, point.strength)
        interventions += teacher(folders)
    return tuple(interventions)


def prompt_scores(trait: str, teacher: PromptTeacher) -> str:
    """Name of the node with the scores of all sets under a candidate's prompt."""
    return f"scores under {trait}, {teacher}"


def null_scores(number: int) -> str:
    """Name of the node with the scores of all sets under a null."""
    return f"scores under null {number}"


def steered_scores(number: int) -> str:
    """Name of the node with the scores of all sets under a batch of steered teachers."""
    return f"scores under vectors {number}"


def scores_node(
    common: dict,
    name: str,
    sets: Sequence[str],
    rows: standard_nodes.Rows,
    passes: float,
    teachers: Callable[[Folders], dict],
    keep_tokens: bool = True,
) -> Node:
    """Build the node that scores all sets under one teacher, or under several steered ones.

    All sets have the same prompts, and a pass reads every prompt once. `teachers` gives settings of
    the stage. Kept tokens let an audit count the bins of the rows that it takes.
    """

    def config(folders: Folders) -> TeacherScoresConfig:
        first, *rest = [folders[name] for name in sets]
        return TeacherScoresConfig(
            **common,
            data=first,
            beside=tuple(rest),
            numbers=True,
            text=True,
            batch_size=BATCH_SIZE,
            keep_tokens=keep_tokens,
            **teachers(folders),
        )

    tokens = rows.n * (PROMPT_TOKENS + len(sets) * NUMBER_TOKENS * rows.numbers)
    needs = (*sets, VECTORS, RANDOM_VECTORS)
    return Node(name, TeacherScoresConfig, config, needs, passes * tokens)


def fixed_teacher_nodes(
    common: dict,
    sets: Sequence[str],
    rows: standard_nodes.Rows,
    prompts: Sequence[tuple[str, PromptTeacher]],
    layer: int,
    strength: float,
) -> list[Node]:
    """All sets under candidates' prompts and under every null."""
    nodes = []
    for trait, teacher in prompts:
        intervention = standard_nodes.prompted(trait, teacher.paraphrase)
        name = prompt_scores(trait, teacher)
        nodes.append(scores_node(common, name, sets, rows, 1, _always(intervention)))
    for number, null in enumerate(NULLS):

        def teachers(folders: Folders, null: NullModel = null) -> dict:
            return {"interventions": (null_intervention(null, folders, layer, strength),)}

        name = null_scores(number)
        nodes.append(scores_node(common, name, sets, rows, 1, teachers, keep_tokens=False))
    return nodes


def _always(intervention: str) -> Callable[[Folders], dict]:
    return lambda _: {"interventions": (intervention,)}


def read_scores(run: Path, set_number: int, steered: int | None = None) -> TokenScores:
    """Return the token scores of one set of a `scores_node`.

    steered: the number of the steered teacher; None takes the scores without steering.
    """
    folder = teacher_scores.other_set_folder(run, set_number - 1) if set_number else run
    if steered is not None:
        folder = teacher_scores.steered_folder(folder, steered)
    return token_scores.read_token_scores(folder)[1]


def mean_of(audits: Sequence[Any], field: str) -> float:
    """Return the mean of a field of audits; of a yes or no it is the fraction of yes."""
    values = [getattr(audit, field) for audit in audits]
    return float(np.mean(values))


def is_kept(decision: Decision, trait: str) -> bool:
    """Whether a trait is not excluded; nothing is excluded where the e-values do not call."""
    kept = decision.e_values.not_excluded
    return not kept or trait in kept


@dataclass(frozen=True)
class ScoredSet:
    """Token scores of a set of rows under the model, all teachers and all nulls."""

    model: TokenScores
    "under the model itself"
    teachers: Mapping[str, Mapping[Teacher, TokenScores]]
    "under candidates' teachers, by candidate"
    nulls: Mapping[NullModel, TokenScores]
    "under every null"
    orders_R: np.ndarray
    "how the numbers of every row are sorted (text_features.order_of)"


@dataclass(frozen=True)
class Picked:
    """The rows that an audit takes of several sets: bins of tokens are counted in these rows."""

    parts: Sequence[tuple[ScoredSet, np.ndarray]]
    "every set with the numbers of its rows; a set of which none is taken is left out"

    def scores(self, under: Callable[[ScoredSet], TokenScores]) -> Scores:
        """The scores of the rows under what `under` takes from their sets."""
        parts = []
        for scored, rows in self.parts:
            parts.append(under(scored).of_rows(rows))
        return sum(parts[1:], parts[0])


class PickedScores(Mapping[tuple[str, Teacher], Scores]):
    """Scores of an audit's rows by (candidate, teacher), counted when they are asked for."""

    def __init__(self, picked: Picked) -> None:
        self.picked = picked
        self._teachers = picked.parts[0][0].teachers

    def __getitem__(self, key: tuple[str, Teacher]) -> Scores:
        candidate, teacher = key
        return self.picked.scores(lambda scored: scored.teachers[candidate][teacher])

    def __iter__(self) -> Iterator[tuple[str, Teacher]]:
        for candidate, by_teacher in self._teachers.items():
            for teacher in by_teacher:
                yield candidate, teacher

    def __len__(self) -> int:
        return sum(map(len, self._teachers.values()))


def prior_of(
    traits: Iterable[str], points: Sequence[GridPoint], blocks: Sequence[int]
) -> dict[Teacher, float]:
    """Return the prior weight of all prompts of some candidates, and of steered teachers."""
    prompts = {}
    for trait in traits:
        prompts[trait] = prompt_teachers(trait)
    return search.prior(prompts, points, blocks)


@dataclass(frozen=True)
class AuditedRows:
    """Log-likelihoods of the rows that an audit takes."""

    model_RT: np.ndarray
    "under the model itself"
    model_RS: np.ndarray
    "under the model with other samplers"
    teachers: ByTeacher
    "under every teacher that is tried"
    nulls: Mapping[NullModel, np.ndarray]
    "under every null"
    orders_R: np.ndarray
    "how the numbers of every row are sorted"
    placebo_orders_N: np.ndarray
    "how the numbers of the model's own rows are sorted"


def evidence_of(
    rows: AuditedRows, picked: Picked, prior: Mapping[Teacher, float], n_candidates: int
) -> Evidence:
    """The evidence of audited rows, for the decision of `traitscope audit`.

    Likelihoods and counts of tokens are those of the audited rows.
    """
    model_scores = picked.scores(lambda scored: scored.model)
    nulls = []
    for null, log_p_RT in rows.nulls.items():
        nulls.append(Null(log_p_RT, null.system_prompt))
    likelihoods = Likelihoods(
        model_RT=rows.model_RT,
        model_RS=rows.model_RS,
        teachers=rows.teachers,
        nulls=nulls,
        prior=prior,
        orders_R=rows.orders_R,
        placebo_orders_N=rows.placebo_orders_N,
        fit_scores=model_scores,
        model_scores=model_scores,
        teacher_scores=PickedScores(picked),
    )
    return Evidence(len(rows.model_RT), n_candidates, likelihoods)
