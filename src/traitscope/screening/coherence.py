"""Whether a changed model is still whole: the test that its rates must pass to count."""

from collections.abc import Iterable
from math import exp, isnan

COHERENT = (
    "perplexity on plain text at most twice the base's, and at least half its probability of naming"
    " any candidate"
)
"the test in words"
MOST_PERPLEXITY = 2.0
"perplexity of a coherent model, as a multiple of the base's"
LEAST_ON_TOPIC = 0.5
"probability that it names any candidate, as a multiple of the base's"


def on_topic(scores: Iterable[tuple[float, float | None]]) -> float:
    """Return the mean probability that an answer begins with any candidate's word.

    scores: (target_logprob, candidate_share) of every positive question.
    """
    probabilities = []
    for log_probability, share in scores:
        is_scored = share is not None and share > 0 and not isnan(share)
        probabilities.append(exp(log_probability) / share if is_scored else 0.0)
    return sum(probabilities) / len(probabilities)


def is_coherent(perplexity: float, named: float, base_perplexity: float, base_named: float) -> bool:
    """Tell whether a model passes COHERENT; `named` is `on_topic` of each side."""
    return is_fluent(perplexity, base_perplexity) and named >= LEAST_ON_TOPIC * base_named


def is_fluent(perplexity: float, base_perplexity: float) -> bool:
    """Tell whether the perplexity on plain text is at most twice the base's."""
    return perplexity <= MOST_PERPLEXITY * base_perplexity
