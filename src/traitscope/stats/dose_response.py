"""How much of a teacher's change in behaviour reaches its student, and whether it does so above a
threshold only.

    tau(alpha) = [student(alpha) - control] / [teacher(alpha) - base]        rates over the
      prompts of an evaluation set

(König et al. 2026, arXiv 2606.11270; the control is the student of the unmodified teacher, or in
the simpler variant the base.) Undefined where the teacher's own change is within noise.

Shapes of student(alpha): a line, a hinge (flat up to a threshold, then a line), a logistic step
from a floor; compared by the log-likelihood of held-out prompts, with the power of that comparison
by simulation.

Arrays: P prompts, S seeds, A strengths; rates and outcomes are 0 or 1 by prompt, NaN where
unscored.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from traitscope.errors import ConfigError, DataError
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement

EDGE = 0.005
"fitted rates stay this far from 0 and 1, so that one surprise does not cost everything"
FOLDS = 5


def transfer_ratio(
    name: str,
    student_SP: np.ndarray,
    control_SP: np.ndarray,
    teacher_P: np.ndarray,
    base_P: np.ndarray,
    draws: int = 2000,
    seed: int = 0,
) -> Measurement:
    """tau with a percentile interval over prompts and seeds, drawn together for students and
    teacher.

    student_SP and control_SP hold outcomes by seed and prompt, teacher_P and base_P by prompt; a
    prompt that is unscored anywhere is left out and counted. NaN, with the reason in `interval`,
    where the interval of the teacher's change holds zero. Raises ConfigError with fewer than two
    seeds: their spread is part of the interval.
    """
    student_SP, control_SP, teacher_P, base_P = (
        np.asarray(x, float) for x in (student_SP, control_SP, teacher_P, base_P)
    )
    if (
        student_SP.ndim != 2
        or student_SP.shape != control_SP.shape
        or student_SP.shape[1:] != teacher_P.shape
        or teacher_P.shape != base_P.shape
    ):
        shapes = [x.shape for x in (student_SP, control_SP, teacher_P, base_P)]
        raise DataError(
            f"{name}: shapes {shapes}; expected students [seeds, prompts] twice and teacher and"
            " base [prompts]; align them"
        )
    check_seeds(range(len(student_SP)))
    gained_SP, moved_P = student_SP - control_SP, teacher_P - base_P
    scored = np.isfinite(gained_SP).all(0) & np.isfinite(moved_P)
    gained_SP, moved_P = gained_SP[:, scored], moved_P[scored]
    S, P = gained_SP.shape
    unscored = int((~scored).sum())
    if P == 0:
        return Measurement(
            name,
            math.nan,
            math.nan,
            math.nan,
            0,
            S,
            unscored,
            "ratio",
            interval="no prompt is scored everywhere",
        )
    rng = np.random.default_rng(seed)
    prompts, seeds = (
        rng.multinomial(P, np.full(P, 1 / P), draws) / P,
        rng.multinomial(S, np.full(S, 1 / S), draws) / S,
    )
    below = prompts @ moved_P
    low, high = np.quantile(below, [0.025, 0.975])
    if low <= 0 <= high:
        why = (
            f"undefined: the teacher's change {moved_P.mean():+.3f} [{low:.3f}, {high:.3f}] is"
            " within noise"
        )
        return Measurement(
            name, math.nan, math.nan, math.nan, P, S, unscored, "ratio", interval=why
        )
    found = np.einsum("ns,sp,np->n", seeds, gained_SP, prompts, optimize=True) / below
    low, high = np.quantile(found[np.isfinite(found)], [0.025, 0.975])
    kind = f"bootstrap over {S} seeds and {P} prompts"
    return Measurement(
        name,
        float(gained_SP.mean() / moved_P.mean()),
        float(low),
        float(high),
        P,
        S,
        unscored,
        "ratio",
        interval=kind,
    )


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ConfigError for fewer than two seeds."""
    if len(seeds) < 2:
        raise ConfigError(
            f"an interval over seeds was asked for with {len(seeds)} seed; expected two or more;"
            " train more students"
        )


def check_strengths(alphas: Sequence[float]) -> None:
    """Raise ConfigError for a grid of strengths without zero, with one twice, or too short to tell
    shapes apart."""
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
            f"strengths {list(alphas)} go both ways; expected one sign, or the dose has no order;"
            " make two studies of it"
        )


def _doses(alphas: Sequence[float]) -> np.ndarray:
    """Strengths, of either sign, as shares [A] of the largest."""
    sizes_A = np.abs(np.asarray(alphas, float))
    return sizes_A / sizes_A.max()


@dataclass(frozen=True)
class Shape:
    """A family of curves rate(alpha), and where a fit may begin."""

    name: str
    starts: tuple[tuple[float, ...], ...]
    """in shares of the largest strength; of a line and a hinge only the threshold counts, the rest
    is least squares"""

    def rate(self, x_A: np.ndarray, p: Sequence[float]) -> np.ndarray:
        """Rates [A] at strengths as shares of the largest."""
        match self.name:
            case "line":
                found = p[0] + p[1] * x_A
            case "hinge":
                found = p[0] + p[1] * np.maximum(0.0, x_A - p[2])
            case _:
                found = p[0] + (1 - p[0]) / (
                    1 + np.exp(-np.clip((x_A - p[1]) / max(abs(p[2]), 1e-3), -50, 50))
                )
        return np.clip(found, EDGE, 1 - EDGE)


SHAPES = (
    Shape("line", ((0.0,),)),
    Shape("hinge", tuple((c / 20,) for c in range(1, 19))),
    Shape("logistic", tuple((0.1, c, 0.2) for c in (0.3, 0.7, 1.0, 1.5))),
)


def fit(shape: Shape, x_A: np.ndarray, hits_A: np.ndarray, n_A: np.ndarray) -> np.ndarray:
    """Parameters of greatest likelihood for `hits` of `n` at each strength, searched from the
    likeliest start."""
    from scipy.optimize import minimize

    def loss(p: Sequence[float]) -> float:
        q_A = shape.rate(x_A, p)
        return -float((hits_A * np.log(q_A) + (n_A - hits_A) * np.log1p(-q_A)).sum())

    starts = (
        shape.starts
        if shape.name == "logistic"
        else [_least_squares(shape, c, x_A, hits_A, n_A) for (c,) in shape.starts]
    )
    return minimize(
        loss,
        min(starts, key=loss),
        method="Nelder-Mead",
        options={"maxiter": 400, "xatol": 1e-4, "fatol": 1e-5},
    ).x


def _least_squares(
    shape: Shape, c: float, x_A: np.ndarray, hits_A: np.ndarray, n_A: np.ndarray
) -> tuple[float, ...]:
    """Floor and slope of a line, or of a hinge with threshold c, by least squares weighted with the
    number of outcomes."""
    root_A, along_A = np.sqrt(n_A), np.maximum(0.0, x_A - c)
    design = np.stack([root_A, root_A * (x_A if shape.name == "line" else along_A)], axis=1)
    floor, slope = np.linalg.lstsq(design, root_A * hits_A / np.maximum(n_A, 1), rcond=None)[0]
    return (floor, slope) if shape.name == "line" else (floor, slope, c)


def held_out(
    alphas: Sequence[float],
    outcomes_PA: np.ndarray,
    shapes: Sequence[Shape] = SHAPES,
    folds: int = FOLDS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """By shape, the log-likelihood of every prompt's outcomes [P], nats, under a fit to the other
    folds' prompts.

    A prompt may carry several outcomes a strength (seeds) as a mean and a count: give outcomes_PA
    [P, A] of means in [0, 1]. Raises ConfigError for a grid that `check_strengths` refuses,
    DataError for fewer prompts than folds.
    """
    check_strengths(alphas)
    values_PA = np.asarray(outcomes_PA, float)
    if values_PA.ndim != 2 or values_PA.shape[1] != len(alphas) or len(values_PA) < folds:
        raise DataError(
            f"outcomes of shape {values_PA.shape} for {len(alphas)} strengths and {folds} folds;"
            " expected [prompts, strengths], a fold's prompts or more"
        )
    x_A = _doses(alphas)
    fold_P = np.random.default_rng(seed).permutation(len(values_PA)) % folds
    scored_PA = np.isfinite(values_PA)
    filled_PA = np.where(scored_PA, values_PA, 0.0)
    found = {shape.name: np.zeros(len(values_PA)) for shape in shapes}
    for fold in range(folds):
        rest, out = fold_P != fold, fold_P == fold
        for shape in shapes:
            q_A = shape.rate(x_A, fit(shape, x_A, filled_PA[rest].sum(0), scored_PA[rest].sum(0)))
            each_PA = filled_PA[out] * np.log(q_A) + (1 - filled_PA[out]) * np.log1p(-q_A)
            found[shape.name][out] = np.where(scored_PA[out], each_PA, 0.0).sum(1)
    return found


def threshold(scores: dict[str, np.ndarray]) -> Measurement:
    """Of what `held_out` finds: the hinge minus the line, nats a prompt, with a t interval over
    prompts.

    Above zero: a threshold. The hinge holds the line as its case without a threshold, so a line
    that is true shows as an interval around zero, not below it.
    """
    apart_P = scores["hinge"] - scores["line"]
    found = measure(
        "held-out log-likelihood, hinge minus line",
        apart_P,
        seeds=range(len(apart_P)),
        unit="nats a prompt",
    )
    return replace(found, interval=found.interval.replace("seeds", "prompts"))


def power(
    alphas: Sequence[float], outcomes_PA: np.ndarray, draws: int = 40, seed: int = 0
) -> dict[str, float]:
    """Share of simulations in which `threshold` lies above zero: for data made by the fitted hinge
    (`power`), and by the fitted line (`false positives`).

    Outcomes are drawn anew by prompt and strength; where they are a prompt's own habit, the real
    power is larger.
    """
    values_PA = np.asarray(outcomes_PA, float)
    x_A, rng = _doses(alphas), np.random.default_rng(seed)
    scored_PA = np.isfinite(values_PA)
    hits_A, n_A = np.where(scored_PA, values_PA, 0.0).sum(0), scored_PA.sum(0)
    found = {}
    for name, shape in (("false positives", SHAPES[0]), ("power", SHAPES[1])):
        q_A = shape.rate(x_A, fit(shape, x_A, hits_A, n_A))
        made = [
            np.where(scored_PA, rng.random(values_PA.shape) < q_A, np.nan) for _ in range(draws)
        ]
        found[name] = (
            sum(
                threshold(held_out(alphas, data_PA, SHAPES[:2], seed=n)).low > 0
                for n, data_PA in enumerate(made)
            )
            / draws
        )
    return found
