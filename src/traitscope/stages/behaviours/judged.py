"""Scores of a behaviour: the rate of sampled answers in which each of its judges sees it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

from traitscope.data.answer_rules import JudgeVerdict
from traitscope.data.own_traits import needs
from traitscope.data.records import Prompt, Record
from traitscope.data.traits import Trait
from traitscope.errors import ConfigError
from traitscope.inference.decode import Sampling
from traitscope.inference.question_scores import Question, QuestionScores, questions_of
from traitscope.interventions.applied import Interventions
from traitscope.interventions.intervention import Adapter
from traitscope.models.model import Model
from traitscope.stages.generate import generate
from traitscope.stages.judge import judge


def score_behaviour_each(
    model: Model, trait: Trait, folders: Sequence[Path], *asked: Any
) -> list[list[QuestionScores]]:
    """Return what `score_behaviour` does for each LoRA student in these folders."""
    scored = []
    for folder in folders:
        scored.append(score_behaviour(model, trait, [Adapter(folder)], *asked))
    return scored


def score_behaviour(
    model: Model,
    trait: Trait,
    interventions: Interventions,
    context: str | None,
    samples: int,
    sampling: Sampling,
    batch_size: int,
    done: Callable[[int], None] | None = None,
) -> list[QuestionScores]:
    """Return a score for each judge, by its name, question by question; NaN is unscored.

    Answers are whole: stems are not used. A judge that asks a model asks the unmodified one. `done`
    is called with the number of questions of each batch, which need not be whole.

    Raises TraitError for a judge that is unknown or lacks its question, ConfigError without answers
    to judge.
    """
    needs.check([trait], "scores")
    if samples < 1:
        raise ConfigError(
            f"--samples {samples} with the behaviour {trait.name}: its judges read sampled answers;"
            " expected 1 or more; give such a number"
        )
    questions = questions_of(trait)
    prompts = [Prompt(question.id, question.text) for question in questions]
    records = sampled_answers(
        model, prompts, interventions, context, samples, sampling, batch_size, done
    )
    verdicts = {}
    for name in trait.judges:
        verdicts[name] = judge(records, name, model=model, question=trait.judge_question).verdicts
    return by_question(questions, records, verdicts, samples)


def sampled_answers(
    model: Model,
    prompts: Sequence[Prompt],
    interventions: Interventions,
    context: str | None,
    samples: int,
    sampling: Sampling,
    batch_size: int,
    done: Callable[[int], None] | None = None,
) -> list[Record]:
    """Return `samples` answers to each prompt, those of one prompt next to each other.

    done: A function called with the number of prompts of each batch, which need not be whole.
    """
    repeated = []
    for prompt in prompts:
        for number in range(samples):
            repeated.append(replace(prompt, id=f"{prompt.id}/{number}"))
    return generate(
        model,
        repeated,
        interventions,
        context=context,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        seed=sampling.seed,
        batch_size=batch_size,
        done=None if done is None else lambda rows: done(rows / samples),  # type: ignore[arg-type]
    )


def by_question(
    questions: Sequence[Question],
    records: Sequence[Record],
    verdicts: dict[str, Sequence[JudgeVerdict]],
    samples: int,
) -> list[QuestionScores]:
    """Return the rate of each judge, question by question, from `samples` answers to each.

    verdicts: What each judge says of every record; None is unscored.
    """
    scored = []
    first, *_ = verdicts.values()
    for place, question in enumerate(questions):
        part = slice(place * samples, (place + 1) * samples)
        scores, unjudged = {}, {}
        answers = tuple(record.completion for record in records[part])
        for name, of_judge in verdicts.items():
            known = [verdict for verdict in of_judge[part] if verdict is not None]
            scores[name] = sum(known) / len(known) if known else nan
            if len(known) < samples:
                unjudged[name] = samples - len(known)
        unscored = sum(verdict is None for verdict in first[part])
        scored.append(QuestionScores(question, scores, answers, unscored, unjudged))
    return scored
