"""Scores of one model on a trait's questions, and the difference of two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from traitscope.data.own_traits.score_rows import UNITS as UNITS
from traitscope.data.traits import SETS, Trait
from traitscope.errors import DataError
from traitscope.plurals import counted
from traitscope.stats.estimates import Measurement, paired_difference
from traitscope.stats.estimates import measure as mean_with_interval

if TYPE_CHECKING:
    from traitscope.inference.question_scores import QuestionScores

RATE = "rate"
"The unit of the score of a judge."
PRIMARY_SET = "positive"
"The question set that a difference of two Scores compares, where no other is named."
PRIMARY_SCORE = "target_logprob"
"The score of a trait that a difference of two Scores compares, where no other is named."


def scored_by(trait: Trait) -> str:
    """First 16 hex digits of the sha256 over what decides a trait's scores: words or judges, and
    questions. The prompt of its teacher decides none."""
    decides = (
        trait.word_forms,
        trait.candidates,
        trait.judges,
        trait.judge_question,
        asdict(trait.questions),
    )
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def judges_among(scores: Iterable[str]) -> tuple[str, ...]:
    """Return the names of scores that are rates of judges, in their order."""
    return tuple(name for name in scores if name not in UNITS)


@dataclass(frozen=True, repr=False)
class Scores:
    """The scores of one model on a trait's questions.

        target_logprob    nats          log of the summed probability of the trait's word forms
                                        right after the answer's stem
        candidate_share   probability   P(target) / (P(target) + P(other candidates of one token))
        total_variation   probability   half the L1 distance to the base's next-token distribution
                                        at the same place: 0 is equal, 1 is disjoint
        whole_word        rate          fraction of sampled answers that name the trait anywhere
        first_word        rate          fraction of sampled answers that begin with it

    The question sets are positive (favourites), negative (dislikes) and off_topic (other facts).
    A behaviour has the rate of each judge, by the judge's name, in their place.

    `scores.mean("whole_word")` is a mean with its interval. `scores - control` is the difference of
    target_logprob on the positive questions, nats; of a behaviour that of its first judge's rate.
    """

    trait: str
    """Name of the trait."""
    questions: tuple[QuestionScores, ...]
    """Scores and sampled answers, question by question."""
    context: str | None
    """Neutral system turn of the questions."""
    context_digest: str
    """Digest of the rendered context that the model read, a system prompt among the interventions
    included."""
    perplexity: float | None = None
    """Perplexity per token on plain English; None where it was not measured."""
    scored_by: str = ""
    """Digest of the words or judges and of the questions; empty where it is not known."""
    prompt: str | None = None
    """System prompt that makes the model a teacher; None without one, and of a trained student."""

    def __repr__(self) -> str:
        """Trait, number of questions, and the mean of every score; `questions` holds the rest."""
        lines = [f"Scores({self.trait!r}, {counted(len(self.questions), 'question')}"]
        lines += [f"  {mean.name}: {mean}" for mean in self.measurements()]
        if self.perplexity is not None:
            lines.append(f"  perplexity: {self.perplexity:.4g}")
        return "\n".join(lines) + ")"

    @property
    def measured(self) -> dict[str, list[str]]:
        """The question sets on which each score was measured, by score."""
        sets: dict[str, list[str]] = {}
        for scored in self.questions:
            for name in scored.scores:
                if scored.question.set not in sets.setdefault(name, []):
                    sets[name].append(scored.question.set)
        return sets

    @property
    def primary_score(self) -> str:
        """target_logprob, or of a behaviour the first judge."""
        judges = judges_among(self.measured)
        return judges[0] if judges and PRIMARY_SCORE not in self.measured else PRIMARY_SCORE

    def values(self, score: str | None = None, question_set: str = PRIMARY_SET) -> dict[str, float]:
        """The values of one score on one question set, by question id; NaN is unscored.

        score: A score that was measured. None is `primary_score`.

        Raises DataError where this score or set was not measured.
        """
        score = score or self.primary_score
        values = {}
        for scored in self.questions:
            if scored.question.set == question_set and score in scored.scores:
                values[scored.question.id] = scored.scores[score]
        if not values:
            there = [f"{name} ({', '.join(sets)})" for name, sets in self.measured.items()]
            raise DataError(
                f"no {score} of {question_set} questions was measured; expected one that was:"
                f" {', '.join(there) or 'none'}; name it, or measure with other settings"
            )
        return values

    def mean(self, score: str | None = None, question_set: str = PRIMARY_SET) -> Measurement:
        """The mean of one score over one question set; None is `primary_score`.

        The interval is over the questions of this one model. It holds for no other training run.
        """
        score = score or self.primary_score
        values = self.values(score, question_set)
        return mean_with_interval(
            f"{question_set}.{score}",
            list(values.values()),
            questions=list(values),
            unit=UNITS.get(score, RATE),
        )

    def measurements(self) -> list[Measurement]:
        """The mean of every score on every question set that was measured."""
        measured = set()
        for scored in self.questions:
            for name in scored.scores:
                measured.add((scored.question.set, name))
        means = []
        judges = sorted({score for _, score in measured} - UNITS.keys())
        for question_set in SETS:
            for score in (*UNITS, *judges):
                if (question_set, score) in measured:
                    means.append(self.mean(score, question_set))
        return means

    def difference(
        self, control: Scores, score: str | None = None, question_set: str = PRIMARY_SET
    ) -> Measurement:
        """The mean of this model's score minus the control's, paired by question.

        score: A score that was measured of both. None is `primary_score`.

        The interval is over questions: it does not cover the variance between training seeds.
        Raises DataError where the two differ in trait, neutral context or questions.
        """
        known = self.scored_by, control.scored_by
        digest, other_digest = known if all(known) else ("", "")
        for what, value, other in (
            ("trait", self.trait, control.trait),
            ("neutral context", self.context, control.context),
            ("file of words, judges and questions", digest, other_digest),
        ):
            if value != other:
                raise DataError(
                    f"scores of two different {what}s, {value!r} and {other!r}; expected the same"
                    " on both sides; measure one of them again"
                )
        score = score or self.primary_score
        treated_values = self.values(score, question_set)
        control_values = control.values(score, question_set)
        if treated_values.keys() != control_values.keys():
            raise DataError(
                f"{len(treated_values)} and {len(control_values)} {question_set} questions that"
                " are not the same; expected one set of questions on both sides; measure one of"
                " them again"
            )
        ids = list(treated_values)
        return paired_difference(
            f"{question_set}.{score}, difference",
            list(treated_values.values()),
            [control_values[name] for name in ids],
            seeds=[0] * len(ids),
            questions=ids,
            unit=UNITS.get(score, RATE),
        )

    def __sub__(self, control: Scores) -> Measurement:
        """The difference of `primary_score` on the positive questions, nats or a rate."""
        return self.difference(control)
