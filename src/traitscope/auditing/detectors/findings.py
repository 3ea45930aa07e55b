"""What detectors read and what they answer.

Every detector is a function of an `AuditData` and returns a `Finding`. All statistics have one
sign: positive means towards the trait.

Shapes: R rows, K rows a prompt (the audited one first, then its placebos), L blocks, T traits,
J kinds of projection, D d_model.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import ClassVar

import numpy as np

from traitscope.auditing.detectors.row_gradients import RowGradients
from traitscope.data.traits import Trait
from traitscope.inference.token_scores import Scores
from traitscope.interventions.vector import Vector
from traitscope.stats.permutation import Maximum

KINDS = ("raw", "whitened")
"kinds of projection on a trait's vector: as it is, or whitened by the clean rows' covariance"
NO_BOUND = inf
"critical value of a detector that has none"
Teacher = Hashable
"a teacher that is tried as an explanation of the rows; its text says how it was made"
ByTeacher = Mapping[str, Mapping[Teacher, np.ndarray]]
"log-likelihoods [R, T] of the scored rows, by candidate trait and teacher"


@dataclass(frozen=True)
class Place:
    """Where a trait's vector and the rows' gradients agree most."""

    layer: int
    "block of the model"
    kind: str
    "kind of projection, one of KINDS"

    def __str__(self) -> str:
        return f"block {self.layer}, {self.kind}"


@dataclass(frozen=True)
class Null:
    """Somebody who may have written the rows without any trait."""

    log_p_RT: np.ndarray
    "log-likelihoods of the scored rows"
    system_prompt: str | None = None
    "the plain system prompt that the model was under, if that is the null"


def writers_of(model_RT: np.ndarray, model_RS: np.ndarray, nulls: Sequence[Null]) -> np.ndarray:
    """Log-likelihoods [K, R] of rows under all nulls, first the model itself at BETAS."""
    writers = [*model_RT.T, *model_RS.T]
    for null in nulls:
        writers += [*null.log_p_RT.T]
    return np.array(writers)


@dataclass(frozen=True)
class Likelihoods:
    """How likely the scored rows are under the model, under candidate teachers and under nulls.

    T is the number of inverse temperatures, S that of samplers.
    """

    model_RT: np.ndarray
    "log-likelihoods of the scored rows under the model itself"
    model_RS: np.ndarray
    "log-likelihoods [R, S] of the scored rows under the model with other samplers (SAMPLERS)"
    teachers: ByTeacher
    "log-likelihoods of the scored rows under every teacher that was tried"
    nulls: Sequence[Null]
    "the nulls besides the model itself"
    prior: Mapping[Teacher, float]
    "weight of every teacher in the e-value, set before the rows were seen"
    orders_R: np.ndarray
    "how the numbers of every scored row are sorted (text_features.order_of)"
    placebo_orders_N: np.ndarray
    "how the numbers of the placebos are sorted"
    fit_scores: Scores
    "token scores under the model itself of all audited rows, for the goodness-of-fit test"
    model_scores: Scores | None
    "token scores under the model itself of the scored rows; None if no teacher was tried"
    teacher_scores: Mapping[tuple[str, Teacher], Scores]
    "token scores of the scored rows under every teacher, by (candidate, teacher)"
    reference_gains: ByTeacher = field(default_factory=dict)
    """log-likelihood [R, K] that a teacher adds to rows that were scored on both sides: an audited
    row first, then its reference row; empty without a reference"""

    @property
    def writers_KR(self) -> np.ndarray:
        """Log-likelihoods of the rows under all nulls, first the model itself at BETAS."""
        return writers_of(self.model_RT, self.model_RS, self.nulls)


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row without its tokens, which would take most of the memory."""

    id: str
    prompt: str
    completion: str


@dataclass(frozen=True)
class PairedRows:
    """Audited rows with their placebos, prompt by prompt."""

    records: Sequence[TextRow]
    "the audited rows that have a placebo in every set"
    texts_RK: Sequence[Sequence[str]]
    "the audited row's answer to each prompt, then the placebos'"
    gradients: Sequence[RowGradients]
    "row gradients of the audited rows, then of every placebo set"
    pairs: Sequence[Sequence[int]]
    "indices [R, K] of a prompt's rows in each of `gradients`"

    def index_of_set(self, k: int) -> list[int]:
        """Indices [R] of the rows in the k-th of `gradients`."""
        return [pair[k] for pair in self.pairs]

    @property
    def prompts(self) -> list[str]:
        """The prompts of the rows."""
        return [record.prompt for record in self.records]

    def without_data(self) -> "PairedRows":
        """The first placebo set in the place of the audited rows, beside the other sets."""
        return replace(self, gradients=self.gradients[1:], pairs=[pair[1:] for pair in self.pairs])

    def random_half(self, rng: np.random.Generator) -> "PairedRows":
        """A random half of the prompts."""
        order = rng.permutation(len(self.pairs))
        records, texts_RK, pairs = [], [], []
        for i in np.sort(order[: max(1, len(self.pairs) // 2)]):
            records.append(self.records[i])
            texts_RK.append(self.texts_RK[i])
            pairs.append(self.pairs[i])
        return PairedRows(records, texts_RK, self.gradients, pairs)


@dataclass(frozen=True)
class AuditData:
    """The audited rows and all that the detectors know of them."""

    traits: Sequence[Trait]
    "candidate traits"
    rows: PairedRows
    "the audited rows with their placebos"
    vectors: Mapping[str, Vector]
    "vectors of the candidates and of other traits, by name"
    directions_LTJD: np.ndarray
    "unit directions of `vectors` at every block, of every kind"
    canary_scores: Mapping[str, Sequence[tuple[Mapping[str, float], Mapping[str, float]]]]
    "log P of a trait by question, of students of the data and of a placebo, by trait and seed"
    error_share: float
    "error rate of each deciding detector"
    seed: int
    "seed of permutations and of the order of rows"


@dataclass(frozen=True)
class Finding:
    """What one detector says of one data set."""

    detector: ClassVar[str]
    "name of the detector"
    statistic: dict[str, float]
    "by trait or feature, strongest first: z against permuted data, or the log e-value"
    p: dict[str, float]
    "p-values, corrected over everything that this detector looked at"
    where: dict[str, Hashable]
    "where or by whom the strongest sign of each was found"
    critical: float
    "statistic that clean data exceed with the detector's share of the error rate"


@dataclass(frozen=True)
class WordingFinding(Finding):
    """Rows that name a trait."""

    detector: ClassVar[str] = "wording"
    named_rows: dict[str, list[int]]
    "number of rows that name each trait: in the data, then in every placebo set"


@dataclass(frozen=True)
class GradientFinding(Finding):
    """Directions of the rows' gradients along trait vectors."""

    detector: ClassVar[str] = "gradients"
    beyond_surface: dict[str, float]
    "z of every trait after what features of the text explain was taken away"
    genomic_control: dict[str, list[float]]
    "by kind of projection and block: how much wider than noise the z of all traits are"
    random_directions: list[float] = field(default_factory=list)
    "root mean square z of random directions, by block"


@dataclass(frozen=True)
class Fit:
    """How well the model explains the choice of tokens in the rows (fit_test.py)."""

    p: float
    "p of the goodness-of-fit test at the temperature that fits best"
    temperature: float
    "the temperature that fits best"
    excess_surprisal: float
    "nats a token by which the rows surprise the model more than its own rows do"
    excess_chi_square: float
    "chi-square a token above its expectation"
    differs_in: tuple[str, ...]
    "in what the rows differ from the model's own: which tokens, or where in the row"
    off_model: bool
    "whether the rows count as not generated by this model"


@dataclass(frozen=True)
class EValueFinding(Finding):
    """Likelihood ratios of candidate teachers against the model and the nulls."""

    detector: ClassVar[str] = "e_values"
    scored_rows: int
    "number of rows that were scored under the teachers"
    candidates: int
    "number of candidates that the correction counts, tried or not"
    teachers: int
    "number of teachers that were tried"
    fit: Fit
    "the goodness-of-fit test of all audited rows"
    nats_per_row: dict[str, float]
    "log-likelihood that each candidate's best teacher adds to a row, in nats"
    joint_log_e: float
    "log of the mean e-value of all candidates, which says that some candidate wrote rows"
    joint_p: float
    "bound on the p-value of that mean"
    sorted_rows: int
    "number of scored rows that are sorted"
    sorted_by_model: float
    "share of sorted rows among the model's own"
    benign: dict[str, float]
    "nats that each kind of null explains of the rows, beyond the model at its best temperature"
    context: str | None
    "plain system prompt under which the rows fit the model better than without, if there is one"
    not_excluded: tuple[str, ...] = ()
    "candidates that the others do not exclude, likeliest first, if the mean e-value is called"
    explained: dict[str, float] | None = None
    "fraction of the excess chi-square that each candidate's best teacher explains, if tested"
    set_aside: tuple[str, ...] = ()
    "candidates that a call would rest on, but that do not explain rows of another model"
    reference_z: dict[str, float] | None = None
    "z of every candidate against the reference rows, where these decide"


@dataclass(frozen=True)
class PredictionFinding(Finding):
    """How well learners predicted the rows, each before it learnt it."""

    detector: ClassVar[str] = "predictions"
    predicted_rows: int
    "number of rows that were predicted"
    learners: int
    "number of learners"
    curve: list[tuple[int, float]]
    "log e-value after so many rows"
    learnt: dict[str, float]
    """nats a row that the best learner gains in the later half of the rows, with the bounds of a
    95 % interval over rows"""
    explained: float
    """fraction of how the later half differs from the model that the best learner of the earlier
    half explains"""


@dataclass(frozen=True)
class GivenTeacherFinding(Finding):
    """Whether a teacher that somebody has wrote some of the rows (given_teacher.py)."""

    detector: ClassVar[str] = "given_teacher"
    scored_rows: int
    "number of rows that were scored under the teacher"
    nats_per_row: dict[str, float]
    """nats a row that predictions gain where the teacher is among the possible writers, with the
    bounds of a 95 % interval over rows; empty for too few rows"""
    share: dict[str, float]
    """share of the rows that the teacher explains better than every null, with the bounds of a 95 %
    interval that any number of rows keeps"""
    temperature: float | None
    "temperature at which the teacher explains them; None where its share is 0"
    fit: Fit | None
    "the goodness-of-fit test of the rows under the teacher; None where it was not tested"
    explained: float | None
    """fraction of how the rows differ from the model that the teacher explains; None where they fit
    the model, or where it was not tested"""
    explains: bool
    "whether that is enough for a call; true where nothing has to be explained"


@dataclass(frozen=True)
class BaselineFinding(Finding):
    """Features of the text, the loss and the gradient norm."""

    detector: ClassVar[str] = "baselines"
    words_auroc: float
    "how well a bag of words tells the data from the placebos; 0.5 is chance"


@dataclass(frozen=True)
class CanaryFinding(Finding):
    """Canary students of the data and of a placebo."""

    detector: ClassVar[str] = "canary"
    unit: str = "nats"
    "unit of the statistic"


@dataclass(frozen=True)
class FeatureFinding(Finding):
    """Blind naming by mean features of the rows (Data2Behavior, arXiv 2602.04735)."""

    detector: ClassVar[str] = "features"


def ranked_by_permutation(
    names: Sequence[str], maximum: Maximum
) -> tuple[dict[str, float], dict[str, float]]:
    """Statistics and corrected p-values of a permutation test by name, largest statistic first."""
    statistic, p = {}, {}
    for n in np.argsort(-maximum.z_F, kind="stable"):
        statistic[names[n]] = float(maximum.z_F[n])
        p[names[n]] = float(maximum.p_F[n])
    return statistic, p
