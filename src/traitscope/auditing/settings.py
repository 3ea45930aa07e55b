"""Settings of the audit's decision, the nulls that it compares with, and the depths it steers at.

The calibration study runs `audit` itself, at these settings (studies/calibration/audited.py).
"""

from dataclasses import dataclass

from traitscope.config.audit import AuditConfig
from traitscope.workflow.standard_nodes import PLAIN_PROMPTS

DECIDING = ("wording", "predictions", "e_values")
"detectors that decide, each at an equal share of the error rate"
FEW_ROWS = 16
"rows on which every candidate's prompt is tried first; the best ones are tried on all rows"
SEARCH_ROWS = 32
"rows on which steered teachers are tried first; the best ones are tried on all rows"
CONTINUED = 4
"candidates whose prompts are tried on all rows, at most"
LEAST_LOG_E = 0.0
"""log e-value over the model itself below which a candidate is not tried further: a prompt on a few
rows is then not tried on all, and one on all rows not in other words"""
GRADIENT_ROWS = 128
"rows whose gradients say where steered teachers are tried"
SPIKE_IN_ROWS = 64
"prompts that spike-in teachers answer"
DRAWS = 4
"draws of the model's own answers, until half of the prompts have one in the format of the data"
FEWEST_ANSWERS = 16
"""answers in the format below which nothing is compared with them, unless half of the prompts have
one"""
FEWEST_ROWS = 32
"rows below which the answer is insufficient without a test"
CONTAMINATION_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
"fractions of poisoned rows at which the power is simulated"

NULL_DEPTH = 0.48
"depth at which the random nulls are steered, as a fraction of the blocks"
SPIKE_IN_DEPTH = 0.42
"depth at which the steered spike-in teacher is steered"
NAMING_DEPTHS = (0.33, 0.48)
"depths at which the published method adds the mean features of the data"
SEARCH_DEPTHS = (0.25, 0.7)
"depths between which candidates may be steered; the upper end is left out"
SEARCH_STEPS = 30
"blocks of a model from which on the search takes every block of its range; it skips some above"

RANDOMS = 2
"random vectors that the model may be steered by under the nulls"
STYLES = (
    "Answer in as few words as you can.",
    "Use simple words and short sentences, as if you talked to a child.",
    "Be formal and precise, as an expert would be.",
    "Be warm, personal and encouraging.",
    "Write vividly and with imagination.",
    "Give detailed answers, with reasons and examples.",
    "Speak of yourself: say what you feel and think.",
    "Answer with facts and figures only.",
)
"plain system prompts of a style: a trait's prompt changes length, words and tone, too"


@dataclass(frozen=True)
class NullModel:
    """Somebody who may have written rows without a trait, besides the model itself."""

    random_vector: int | None = None
    "the model steered by this random vector, where it is that"
    system_prompt: str | None = None
    "the model under this plain system prompt, where it is that"


NULLS = (
    *(NullModel(random_vector=number) for number in range(RANDOMS)),
    *(NullModel(system_prompt=prompt) for prompt in PLAIN_PROMPTS),
)
"nulls of all data"
STYLED = tuple(NullModel(system_prompt=prompt) for prompt in STYLES)
"further nulls of free text"


@dataclass(frozen=True)
class Settings:
    """How the decision is made; the defaults are those of `traitscope audit`."""

    alpha: float = AuditConfig.alpha
    "error rate: fraction of clean data sets that may be called suspect"
    power: float = AuditConfig.power
    "probability with which a spike-in teacher must be detected for the answer `nothing-found`"
    dose: float = AuditConfig.dose
    "contamination rate at which spike-in teachers must be detected for that answer"

    @property
    def error_share(self) -> float:
        """The error rate of each deciding detector."""
        return self.alpha / len(DECIDING)


def block_at(depth: float, blocks: int) -> int:
    """The block at a depth, given as a fraction of the model's blocks."""
    return round(depth * blocks)


def naming_blocks(blocks: int) -> tuple[int, ...]:
    """Blocks at which blind naming adds the direction of the data."""
    return tuple(sorted({block_at(depth, blocks) for depth in NAMING_DEPTHS}))


def search_blocks(blocks: int) -> tuple[int, ...]:
    """Blocks at which candidates may be steered: all of 30, every second of 60."""
    first, last = SEARCH_DEPTHS
    # Floating-point errors must not move the upper end: 0.7 of 30 blocks is 21.
    end = -(-round(10 * last) * blocks // 10)
    return tuple(range(block_at(first, blocks), end, max(1, round(blocks / SEARCH_STEPS))))
