"""The stage `match_kl`: how strongly another vector must steer to change rows as much as a teacher.

    KL of a row = sum over sampled places t of KL(p_teacher(. | allowed) || p_base(. | allowed))

Its mean over rows that the teacher writes is the KL divergence between the two models as writers
of such rows. It is what a row says on average for the teacher and against the base, in nats. A
student of a random vector at the same KL shows what distilling any such change does.

The strength is found between two that enclose it, where log KL is taken to be linear in the
logarithm of the strength. Every strength writes rows of its own, with the same random numbers.

Shapes: R rows, N completion tokens, K allowed tokens.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from traitscope import atomic_files
from traitscope.config.analysis import MatchKLConfig
from traitscope.config.common import Output
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt
from traitscope.errors import ConfigError
from traitscope.inference.token_rows import rows_from, teacher_hidden
from traitscope.interventions import short_form
from traitscope.interventions.applied import Interventions
from traitscope.interventions.checks.vectors import check_vector
from traitscope.interventions.intervention import Steer
from traitscope.interventions.vector import Vector, load_vector
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import generate, registry
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement
from traitscope.training.soft_targets import AllowedTargets, allowed_targets

STRENGTH = "strength.json"
"file of the strength that was found, and of both KLs"
FIRST = 0.5
"strength that is tried first, in mean residual norms"
LARGEST = 16.0
"strength beyond which a vector is given up"
SMALLEST = 1e-3
"strength below which a teacher counts as unmodified"
EDGE = 0.15
"share of the enclosing interval that a new strength keeps from both ends, so that it shrinks"
MOST_TRIES = 12
"strengths that are tried at most"


@dataclass(frozen=True)
class Try:
    """A strength, and the KL of every row that it writes."""

    alpha: float
    kl_R: np.ndarray

    @property
    def kl(self) -> float:
        """Mean KL of a row, in nats."""
        return float(self.kl_R.mean())


@dataclass(frozen=True)
class Matched:
    """The strength at which a vector has a teacher's KL."""

    best: Try
    """The strength whose KL is nearest."""
    teacher_kl_R: np.ndarray
    """KL of every row of the teacher."""
    tries: tuple[Try, ...]
    """Every strength that was tried, in order."""

    def measurements(self, prompts: Sequence[str]) -> list[Measurement]:
        """Mean KL of a row of both, with intervals over prompts."""
        unit = "nats a row"
        return [
            measure("KL of the teacher", self.teacher_kl_R, questions=prompts, unit=unit),
            measure("KL of the vector", self.best.kl_R, questions=prompts, unit=unit),
        ]


@dataclass(frozen=True)
class KLMeter:
    """Measures how far a teacher's number rows are from the unmodified model's."""

    model: Model
    prompts: Sequence[Prompt]
    count: int
    separator: str
    context: str | None = None
    seed: int = 0
    batch_size: int = 16

    def kl(self, teacher: Interventions) -> np.ndarray:
        """KL [R] of every row that the teacher writes, one a prompt, in nats."""
        constraint = generate.number_constraint(
            self.model, self.count, self.separator, True, 1, self.context
        )
        records = generate.generate(
            self.model,
            self.prompts,
            teacher,
            context=self.context,
            seed=self.seed,
            constraint=constraint,
            batch_size=self.batch_size,
        )
        distributions = []
        for interventions in (teacher, ()):
            rows = rows_from(self.model, records, self.context, interventions=interventions)
            prompts = [row.prompt_ids for row in rows]
            states = teacher_hidden(self.model, interventions, rows, prompts, self.batch_size)
            targets = []
            for states_ND in states:
                targets.append(allowed_targets(self.model, states_ND, constraint, 1.0))
            distributions.append(targets)
        return np.array(list(map(_kl, *distributions)))


def _kl(left: AllowedTargets, right: AllowedTargets) -> float:
    """KL of one row, summed over its tokens."""
    left_NK, right_NK = left.p_NK.double(), right.p_NK.double()
    least = torch.finfo(torch.float32).tiny
    cross_NK = torch.special.xlogy(left_NK, right_NK.clamp(min=least))
    return float((torch.special.xlogy(left_NK, left_NK) - cross_NK).sum())


def match_kl(
    meter: KLMeter,
    teacher: Interventions,
    vector: Vector,
    layer: int,
    tolerance: float = 0.03,
    done: Callable[[Try], None] | None = None,
) -> Matched:
    """The strength of a vector behind one block at which its rows have the KL of the teacher's.

    tolerance: Largest difference, as a share of the teacher's KL.
    done: A function called with every strength that was tried.

    Raises VectorError for another model's vector. Raises ConfigError for a teacher without effect,
    and where no strength has its KL.
    """
    vector = check_vector(vector, meter.model)
    teacher_kl_R = meter.kl(teacher)
    target = float(teacher_kl_R.mean())
    if not target > 0:
        raise ConfigError(
            f"the teacher's rows have a KL of {target:g} nats from the unmodified model's; expected"
            " more than 0; name a teacher that changes the model"
        )

    tries: list[Try] = []

    def attempt(alpha: float) -> float:
        """How far the KL at a strength is above the target, as a difference of logarithms."""
        steer = Steer(vector, (layer,), float(f"{alpha:.6g}"))
        tries.append(Try(steer.alpha, meter.kl([steer])))
        if done is not None:
            done(tries[-1])
        return math.log(max(tries[-1].kl, 1e-12) / target)

    search(attempt, math.log1p(tolerance))
    best = min(tries, key=lambda tried: abs(math.log(max(tried.kl, 1e-12) / target)))
    if abs(best.kl / target - 1) > 2 * tolerance:
        raise ConfigError(
            f"no strength of the vector has the teacher's KL of {target:.3g} nats a row; the"
            f" nearest is {best.kl:.3g} at {best.alpha:g}; take another vector or block, or raise"
            " --tolerance"
        )
    return Matched(best, teacher_kl_R, tuple(tries))


def search(excess: Callable[[float], float], tolerance: float) -> None:
    """Call `excess` with strengths until it is within the tolerance of 0, or tries run out.

    Strengths are doubled or halved until two enclose the zero. Between these, the next one lies
    where a line through both crosses zero, in the logarithm of the strength.
    """
    low = high = math.log(FIRST)
    low_excess = high_excess = excess(FIRST)
    tries = 1
    while abs(low_excess) > tolerance and low_excess > 0 and low > math.log(SMALLEST):
        high, high_excess = low, low_excess
        low -= math.log(2)
        low_excess = excess(math.exp(low))
        tries += 1
    while abs(high_excess) > tolerance and high_excess < 0 and high < math.log(LARGEST):
        low, low_excess = high, high_excess
        high += math.log(2)
        high_excess = excess(math.exp(high))
        tries += 1
    last = min(abs(low_excess), abs(high_excess))
    encloses = low_excess < 0 < high_excess
    while encloses and last > tolerance and tries < MOST_TRIES:
        share = -low_excess / (high_excess - low_excess)
        middle = low + min(max(share, EDGE), 1 - EDGE) * (high - low)
        middle_excess = excess(math.exp(middle))
        last = abs(middle_excess)
        tries += 1
        if middle_excess < 0:
            low, low_excess = middle, middle_excess
        else:
            high, high_excess = middle, middle_excess


def run_match_kl(config: MatchKLConfig, out: Output) -> store.Run:
    """Return the sealed run with `strength.json` (strength, and both KLs with intervals) and
    `tries.jsonl` (KL by row of every strength that was tried)."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            _match_into(run, config, config.vector)
    return run


def _match_into(run: store.Run, config: MatchKLConfig, vector_file: Path) -> None:
    prompts = number_prompts(config.n, config.prompt_seed, config.count)
    meter = KLMeter(
        model_cache.model_of(config),
        prompts,
        config.count,
        config.separator,
        config.context,
        config.seed,
        config.batch_size,
    )
    with progress("match KL", MOST_TRIES, "strengths") as advance:

        def write(tried: Try) -> None:
            row = {"alpha": tried.alpha, "kl": tried.kl_R.round(6).tolist()}
            atomic_files.append_jsonl(run.file("tries.jsonl"), row)
            advance(1)

        matched = match_kl(
            meter,
            short_form.parse_all(config.teacher),
            load_vector(vector_file),
            config.layer,
            config.tolerance,
            write,
        )
    measurements = matched.measurements([prompt.id for prompt in prompts])
    summary = {
        "alpha": matched.best.alpha,
        "layer": config.layer,
        "tries": len(matched.tries),
        "measurements": list(map(Measurement.as_dict, measurements)),
    }
    atomic_files.write_json(run.file(STRENGTH), summary)
