"""Transfer ratios from teacher to student, and tests for a threshold in the student's response.

    tau(alpha) = [student(alpha) - control] / [teacher(alpha) - base]

All four are rates over the prompts of an evaluation set. The control is the student of the
unmodified teacher, or in the simpler variant the base. The ratio is undefined where the teacher's
own change is within noise. Source: König et al. 2026 (arXiv 2606.11270).

Three shapes of student(alpha) are compared: a line, a hinge, and a logistic step from a floor. A
hinge is flat up to a threshold, and then a line. The log-likelihood of held-out prompts compares
the shapes. A simulation gives the power of that comparison for a shape that is named beforehand.

Arrays: P prompts, S seeds, A strengths. Outcomes are 0 or 1 by seed and prompt, NaN where unscored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from traitscope.errors import ConfigError, DataError
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement
from traitscope.stats.tails import ResampledTail

EDGE = 0.005
"Fitted rates stay this far from 0 and 1, so that one unlikely answer does not cost everything."
FOLDS = 5
"parts of the prompts, each held out once"
LOWEST_SCALE, LARGEST_EXPONENT = 1e-3, 50
"limits of the logistic curve, against overflow"


def transfer_ratio(
    name: str,
    student_SP: np.ndarray,
    control_SP: np.ndarray,
    teacher_P: np.ndarray,
    base_P: np.ndarray,
    draws: int = 2000,
    seed: int = 0,
) -> Measurement:
    """Return tau with a 95 % percentile interval over prompts and seeds.

    student_SP and control_SP hold outcomes by seed and prompt, teacher_P and base_P by prompt.
    Prompts are drawn together for students and teacher. A prompt that is unscored anywhere is left
    out and counted. Where the interval of the teacher's change holds zero, tau is NaN and
    `interval` says why.

    Raises DataError for arrays that do not fit together, ConfigError with fewer than two seeds:
    their spread is part of the interval.
    """
    student_SP, control_SP = np.asarray(student_SP, float), np.asarray(control_SP, float)
    teacher_P, base_P = np.asarray(teacher_P, float), np.asarray(base_P, float)
    _check_shapes(name, student_SP, control_SP, teacher_P, base_P)
    check_seeds(range(len(student_SP)))
    gained_SP, moved_P = student_SP - control_SP, teacher_P - base_P
    is_scored_P = np.isfinite(gained_SP).all(0) & np.isfinite(moved_P)
    gained_SP, moved_P = gained_SP[:, is_scored_P], moved_P[is_scored_P]
    n_seeds, n_prompts = gained_SP.shape
    n_unscored = int((~is_scored_P).sum())
    if n_prompts == 0:
        reason = "no prompt is scored everywhere"
        return Measurement.undefined(name, "ratio", reason, 0, n_seeds, n_unscored)
    rng = np.random.default_rng(seed)
    prompts_NP = _resampling_weights(n_prompts, draws, rng)
    seeds_NS = _resampling_weights(n_seeds, draws, rng)
    moved_N = prompts_NP @ moved_P
    low, high = np.quantile(moved_N, [0.025, 0.975])
    if low <= 0 <= high:
        reason = (
            f"undefined: the teacher's change {moved_P.mean():+.3f} [{low:.3f}, {high:.3f}] is"
            " within noise"
        )
        return Measurement.undefined(name, "ratio", reason, n_prompts, n_seeds, n_unscored)
    gained_N = np.einsum("ns,sp,np->n", seeds_NS, gained_SP, prompts_NP, optimize=True)
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw may leave the teacher unmoved
        ratios_N = gained_N / moved_N
    ratios_N = ratios_N[np.isfinite(ratios_N)]
    low, high = np.quantile(ratios_N, [0.025, 0.975])
    return Measurement(
        name=name,
        estimate=float(gained_SP.mean() / moved_P.mean()),
        low=float(low),
        high=float(high),
        n=n_prompts,
        n_clusters=n_seeds,
        n_unscored=n_unscored,
        unit="ratio",
        interval=f"bootstrap over {n_seeds} seeds and {n_prompts} prompts",
        counted="seeds",
        tail=ResampledTail(ratios_N),
    )


def _check_shapes(
    name: str,
    student_SP: np.ndarray,
    control_SP: np.ndarray,
    teacher_P: np.ndarray,
    base_P: np.ndarray,
) -> None:
    students_fit = student_SP.ndim == 2 and student_SP.shape == control_SP.shape
    teacher_fits = teacher_P.shape == base_P.shape == student_SP.shape[1:]
    if not (students_fit and teacher_fits):
        shapes = [student_SP.shape, control_SP.shape, teacher_P.shape, base_P.shape]
        raise DataError(
            f"{name}: shapes {shapes}; expected students [seeds, prompts] twice and teacher and"
            " base [prompts]; align them"
        )


def _resampling_weights(n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """The weight [draws, n] of every unit in every resample; each row sums to 1."""
    return rng.multinomial(n, np.full(n, 1 / n), draws) / n


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ConfigError for fewer than two seeds."""
    if len(seeds) < 2:
        raise ConfigError(
            f"an interval over seeds was asked for with {len(seeds)} seed; expected two or more;"
            " train more students"
        )


def check_strengths(alphas: Sequence[float]) -> None:
    """Raise ConfigError for a grid of strengths that cannot show a shape.

    The grid needs zero, three strengths or more, each once, and all of one sign.
    """
    if 0.0 not in alphas:
        raise ConfigError(
            f"strengths {list(alphas)} have no 0; expected it among them: the unmodified teacher is"
            " the control; add 0"
        )
    if len(set(alphas)) != len(alphas) or len(alphas) < 3:
        raise ConfigError(
            f"strengths {list(alphas)}; expected three or more, each once; change the grid"
        )
    if min(alphas) < 0 < max(alphas):
        raise ConfigError(
            f"strengths {list(alphas)} go both ways; expected one sign, or the response has no"
            " order; split them into two studies"
        )


def _relative_strengths(alphas: Sequence[float]) -> np.ndarray:
    """Strengths, of either sign, as fractions [A] of the largest."""
    sizes_A = np.abs(np.asarray(alphas, float))
    return sizes_A / sizes_A.max()


@dataclass(frozen=True)
class Shape:
    """A family of curves rate(alpha), and where a fit may begin."""

    name: str
    """line, hinge or logistic."""
    starts: tuple[tuple[float, ...], ...]
    """Parameters from which fits begin, in fractions of the largest strength. For a line and a
    hinge only the threshold is given; floor and slope are found by least squares."""

    def rate(self, x_A: np.ndarray, parameters: Sequence[float]) -> np.ndarray:
        """Return rates [A] at strengths given as fractions of the largest."""
        match self.name:
            case "line":
                floor, slope = parameters
                rate_A = floor + slope * x_A
            case "hinge":
                floor, slope, threshold = parameters
                rate_A = floor + slope * np.maximum(0.0, x_A - threshold)
            case _:
                floor, middle, scale = parameters
                steps_A = (x_A - middle) / max(abs(scale), LOWEST_SCALE)
                exponents_A = np.clip(steps_A, -LARGEST_EXPONENT, LARGEST_EXPONENT)
                rate_A = floor + (1 - floor) / (1 + np.exp(-exponents_A))
        return np.clip(rate_A, EDGE, 1 - EDGE)


LINE = Shape("line", ((0.0,),))
HINGE = Shape("hinge", tuple((step / 20,) for step in range(1, 19)))
LOGISTIC = Shape("logistic", tuple((0.1, middle, 0.2) for middle in (0.3, 0.7, 1.0, 1.5)))
SHAPES = (LINE, HINGE, LOGISTIC)


def fit(shape: Shape, x_A: np.ndarray, hits_A: np.ndarray, n_A: np.ndarray) -> np.ndarray:
    """Return the parameters of greatest likelihood for `hits` of `n` outcomes at each strength.

    The search begins at the likeliest of the shape's starts.
    """
    from scipy.optimize import minimize

    def loss(parameters: Sequence[float]) -> float:
        rate_A = shape.rate(x_A, parameters)
        return -float((hits_A * np.log(rate_A) + (n_A - hits_A) * np.log1p(-rate_A)).sum())

    starts = shape.starts
    if shape.name != "logistic":
        starts = [_least_squares(shape, start, x_A, hits_A, n_A) for (start,) in shape.starts]
    options = {"maxiter": 400, "xatol": 1e-4, "fatol": 1e-5}
    return minimize(loss, min(starts, key=loss), method="Nelder-Mead", options=options).x


def _least_squares(
    shape: Shape, threshold: float, x_A: np.ndarray, hits_A: np.ndarray, n_A: np.ndarray
) -> tuple[float, ...]:
    """Return floor and slope of a line, or floor, slope and threshold of a hinge.

    Floor and slope are least squares weighted with the number of outcomes.
    """
    root_A = np.sqrt(n_A)
    slope_A = x_A if shape.name == "line" else np.maximum(0.0, x_A - threshold)
    design = np.stack([root_A, root_A * slope_A], axis=1)
    floor, slope = np.linalg.lstsq(design, root_A * hits_A / np.maximum(n_A, 1), rcond=None)[0]
    return (floor, slope) if shape.name == "line" else (floor, slope, threshold)


@dataclass(frozen=True)
class Counts:
    """How often a behaviour was shown, by prompt and strength."""

    hits_PA: np.ndarray
    """Number of outcomes 1."""
    n_PA: np.ndarray
    """Number of scored outcomes."""


def counts_of(outcomes_SPA: np.ndarray) -> Counts:
    """Return the counts of outcomes [S, P, A] by seed, prompt and strength; NaN is unscored.

    A strength that was measured once, such as a base that serves all seeds, has NaN for the other
    seeds. Raises DataError for another number of axes and for outcomes besides 0, 1 and NaN.
    """
    outcomes_SPA = np.asarray(outcomes_SPA, float)
    is_scored_SPA = ~np.isnan(outcomes_SPA)
    if outcomes_SPA.ndim != 3 or not np.isin(outcomes_SPA[is_scored_SPA], [0, 1]).all():
        raise DataError(
            f"outcomes of shape {outcomes_SPA.shape}; expected [seeds, prompts, strengths] of 0, 1,"
            " or NaN where unscored; pass single outcomes, not their means"
        )
    hits_PA = np.where(is_scored_SPA, outcomes_SPA, 0.0).sum(0)
    return Counts(hits_PA, is_scored_SPA.sum(0))


def held_out(
    alphas: Sequence[float],
    counts: Counts,
    shapes: Sequence[Shape] = SHAPES,
    folds: int = FOLDS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Return by shape the log-likelihood of every prompt's outcomes [P], in nats.

    Every prompt is scored under a fit to the other folds' prompts. All outcomes of a prompt count,
    those of every seed. Raises ConfigError for a grid that `check_strengths` refuses, DataError for
    fewer prompts than folds.
    """
    check_strengths(alphas)
    shape_PA = counts.hits_PA.shape
    if shape_PA[1] != len(alphas) or shape_PA[0] < folds:
        raise DataError(
            f"counts of shape {shape_PA} for {len(alphas)} strengths and {folds} folds; expected"
            " [prompts, strengths] and as many prompts as folds; correct the counts, or ask for"
            " fewer folds"
        )
    x_A = _relative_strengths(alphas)
    fold_P = np.random.default_rng(seed).permutation(shape_PA[0]) % folds
    log_likelihoods = {shape.name: np.zeros(shape_PA[0]) for shape in shapes}
    for fold in range(folds):
        fitted, tested = fold_P != fold, fold_P == fold
        hits_A, n_A = counts.hits_PA[fitted].sum(0), counts.n_PA[fitted].sum(0)
        hits_PA, n_PA = counts.hits_PA[tested], counts.n_PA[tested]
        for shape in shapes:
            rate_A = shape.rate(x_A, fit(shape, x_A, hits_A, n_A))
            scores_PA = hits_PA * np.log(rate_A) + (n_PA - hits_PA) * np.log1p(-rate_A)
            log_likelihoods[shape.name][tested] = scores_PA.sum(1)
    return log_likelihoods


def threshold(scores: dict[str, np.ndarray]) -> Measurement:
    """Return the hinge's score minus the line's, in nats a prompt, with a t interval over prompts.

    `scores` are the log-likelihoods that `held_out` returns. Above zero means a threshold. The
    hinge contains the line as its case without a threshold. So a true line gives an interval around
    zero, not below it. The interval holds for these students: what differs between seeds is fitted
    as if it belonged to the strength.
    """
    advantage_P = scores["hinge"] - scores["line"]
    advantage = measure(
        "held-out log-likelihood, hinge minus line",
        advantage_P,
        seeds=range(len(advantage_P)),
        unit="nats a prompt",
    )
    interval = f"{advantage.interval.replace('seeds', 'prompts')} (holds for these students)"
    return replace(advantage, interval=interval, counted="prompts")


def threshold_rates(
    alphas: Sequence[float], teacher_A: Sequence[float], base: float, least: float, ratio: float
) -> np.ndarray:
    """Return the students' rates [A] if transfer has a threshold.

    Below the strength `least` they have the base's rate. From it on, `ratio` of the teacher's
    change reaches them. `teacher_A` are the teachers' rates.
    """
    is_above_A = np.abs(np.asarray(alphas, float)) >= least - 1e-9
    return base + ratio * is_above_A * (np.asarray(teacher_A, float) - base)


def line_rates(alphas: Sequence[float], counts: Counts) -> np.ndarray:
    """Return the rates [A] of the line that fits the counts best."""
    x_A = _relative_strengths(alphas)
    return LINE.rate(x_A, fit(LINE, x_A, counts.hits_PA.sum(0), counts.n_PA.sum(0)))


def student_sd(outcomes_SPA: np.ndarray) -> np.ndarray:
    """Return the standard deviation of the rate between students, by strength [A].

    It is what the rates of seeds differ by beyond chance in their outcomes; 0 for one seed.
    """
    sd_A = np.zeros(outcomes_SPA.shape[2])
    for place, outcomes_SP in enumerate(np.moveaxis(outcomes_SPA, 2, 0)):
        by_seed = [row_P[~np.isnan(row_P)] for row_P in outcomes_SP]
        scored = [values for values in by_seed if len(values) > 1]
        if len(scored) > 1:
            rates = [values.mean() for values in scored]
            by_chance = np.mean([values.var(ddof=1) / len(values) for values in scored])
            sd_A[place] = max(0.0, np.var(rates, ddof=1) - by_chance) ** 0.5
    return sd_A


def threshold_power(
    alphas: Sequence[float],
    rate_A: Sequence[float],
    n_PA: np.ndarray,
    sd_A: Sequence[float] | float = 0.0,
    draws: int = 40,
    seed: int = 0,
) -> float:
    """Return the fraction of simulations in which `threshold` lies above zero.

    The true rates by strength are `rate_A`; n_PA [P, A] outcomes are drawn a prompt and strength,
    as many as were scored. For rates with a threshold the result is the power of the test, for
    rates on a line its false positives. `sd_A` is the standard deviation of the rate between
    students of one strength, of whom there are as many as outcomes a prompt.
    """
    rng = np.random.default_rng(seed)
    error_A = np.broadcast_to(sd_A, len(rate_A)) / np.sqrt(np.maximum(n_PA.max(0), 1))
    n_called = 0
    for number in range(draws):
        drawn_A = np.clip(rng.normal(rate_A, error_A), EDGE, 1 - EDGE)
        simulated = Counts(rng.binomial(n_PA, drawn_A).astype(float), n_PA)
        scores = held_out(alphas, simulated, (LINE, HINGE), seed=number)
        n_called += threshold(scores).low > 0
    return n_called / draws
