"""Rows of scores.jsonl: which keys are scores, of a word or of judges."""

from collections.abc import Mapping
from typing import Any

UNITS = {
    "target_logprob": "nats",
    "candidate_share": "probability",
    "total_variation": "probability",
    "whole_word": "rate",
    "first_word": "rate",
}
"scores of a trait with a word, with their units; all others are rates of judges"
JUDGES = "judges"
"key of a row of scores that holds the rates of judges, whose names a user chooses"
UNJUDGED = "unjudged"
"key that holds how many answers each judge could not judge, where there are any"
BESIDE = ("id", "set", "question", "answers", "unscored", JUDGES, UNJUDGED)
"keys of a row of scores that are no scores"


def scores_of_row(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The scores of a row of scores.jsonl by name, in their order; None is unscored.

    Rows of earlier versions hold rates of judges beside all else.
    """
    scores = {name: value for name, value in row.items() if name not in BESIDE}
    return scores | row.get(JUDGES, {})
