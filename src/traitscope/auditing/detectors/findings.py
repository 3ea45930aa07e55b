"""What detectors read and what they answer.

Every detector returns a `Finding`. All statistics have one sign: positive means towards the trait.

Shapes: R rows, K rows a prompt (the audited one first), T inverse temperatures.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar, Protocol

import numpy as np

from traitscope.inference.token_scores import Scores
from traitscope.stats.permutation import Maximum

NO_BOUND = inf
"critical value of a detector that has none"


class Teacher(Hashable, Protocol):
    """A teacher that is tried as an explanation of the rows; its text says how it was made."""

    @property
    def kind(self) -> Hashable:
        """How it was made, apart from the candidate: teachers of many candidates share it."""


ByTeacher = Mapping[str, Mapping[Teacher, np.ndarray]]
"log-likelihoods [R, T] of the scored rows, by candidate trait and teacher"


@dataclass(frozen=True)
class Null:
    """Somebody who may have written the rows without any trait."""

    log_p_RT: np.ndarray
    "log-likelihoods of the scored rows"
    system_prompt: str | None = None
    "the plain system prompt that the model was under, if that is the null"


@dataclass(frozen=True)
class RowsUnderNulls:
    """What the nulls say of rows, and how the rows are sorted.

    T is the number of inverse temperatures, S that of samplers.
    """

    model_RT: np.ndarray
    "log-likelihoods under the model itself at BETAS"
    model_RS: np.ndarray
    "log-likelihoods [R, S] under the model with other samplers (SAMPLERS)"
    nulls: Sequence[Null]
    "the nulls besides the model itself"
    orders_R: np.ndarray
    "how the numbers of every row are sorted (text_features.order_of)"
    placebo_orders_N: np.ndarray
    "how the numbers of the model's own rows are sorted"
    further_orders: Sequence[np.ndarray] = ()
    "the same of other sets of rows that are clean"

    @property
    def writers_KR(self) -> np.ndarray:
        """Log-likelihoods of the rows under all nulls, first the model itself at BETAS."""
        writers = [*self.model_RT.T, *self.model_RS.T]
        for null in self.nulls:
            writers += [*null.log_p_RT.T]
        return np.array(writers)

    @property
    def sorted_R(self) -> np.ndarray:
        """Whether each row is sorted."""
        return self.orders_R != 0

    @property
    def sorted_by_model(self) -> float:
        """The largest share of sorted rows that any set of clean rows has."""
        return max(map(sorted_share, (self.placebo_orders_N, *self.further_orders)))


def sorted_share(orders_N: np.ndarray) -> float:
    """The share of sorted rows among clean rows, one more than were seen; always less than 1."""
    is_sorted_N = np.asarray(orders_N) != 0
    counted = min(is_sorted_N.sum() + is_sorted_N.any(), len(is_sorted_N))
    return float(counted / (len(is_sorted_N) + 1))


@dataclass(frozen=True)
class Likelihoods:
    """How likely the scored rows are under the model, under candidate teachers and under nulls."""

    under_nulls: RowsUnderNulls
    "the scored rows under the model and the nulls"
    teachers: ByTeacher
    "log-likelihoods of the scored rows under every teacher that was tried"
    prior: Mapping[Teacher, float]
    "weight of every teacher in the e-value, set before the rows were seen"
    fit_scores: Scores
    "token scores of the rows under the model itself, for the goodness-of-fit test"
    teacher_scores: Mapping[tuple[str, Teacher], Scores]
    "token scores of the scored rows under every teacher, by (candidate, teacher)"
    reference_gains: ByTeacher = field(default_factory=dict)
    """log-likelihood [R, K] that a teacher adds to rows that were scored on both sides: an audited
    row first, then its reference row; empty without a reference"""
    few_log_e: Mapping[str, float] = field(default_factory=dict)
    """log e-values over the model itself of all candidates on a few of the rows, by which some of
    them are tried on all rows"""


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row without its tokens, which would take most of the memory."""

    id: str
    prompt: str
    completion: str
    context: str = ""
    reasoning: str = ""


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
    "number of rows that name each trait: in the data, then in the placebos where there are any"
    named_outside: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """of traits that are named outside of answers, and by place such as `system turns`: number of
    rows that name the trait there, and of rows that have such a text"""


@dataclass(frozen=True)
class Fit:
    """How well the model explains the choice of tokens in the rows (fit_test.py)."""

    p: float
    "p of the goodness-of-fit test at the temperature that fits best"
    temperature: float
    "the temperature that fits best"
    excess_surprisal: float
    "surprisal of a token above what the model expects of its own rows, in nats"
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
    "number of rows"
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
    "largest share of sorted rows in any set of clean rows"
    benign: dict[str, float]
    "nats that each kind of null explains of the rows, beyond the model at its best temperature"
    context: str | None
    "plain system prompt under which the rows fit the model better than without, if there is one"
    few_log_e: dict[str, float] = field(default_factory=dict)
    "log e-values of all candidates on a few of the rows, over the model itself, largest first"
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
    sorted_rows: int
    "number of these that are sorted, which `nats_per_row` and `share` leave out"
    nats_per_row: dict[str, float]
    """nats a row that predictions gain where the teacher is among the possible writers, with the
    bounds of a 95 % interval over rows; empty for too few rows"""
    share: dict[str, float]
    """share of the rows that are not sorted which the teacher explains better than every null, with
    the bounds of a 95 % interval that any number of rows keeps"""
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
