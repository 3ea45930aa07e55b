"""The stage `ask`: what one model says to the traits' questions, also while it relearns.

The answers are those of `screen`: log-probabilities of the first tokens of all answers of a kind.
While it relearns, a fresh adapter is trained on top of the model, on a few rows. It is asked before
the first optimizer step, after 1, 2, 4, ... steps, and after the last one.

Shapes: S times of asking, Q questions, E answers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traitscope import array_files, atomic_files
from traitscope.config.common import Output
from traitscope.config.students.verify import AskConfig, VerifyConfig
from traitscope.data.records import Record
from traitscope.data.trait_files import trait_files, trait_names
from traitscope.inference.token_rows import row_check, rows_from
from traitscope.interventions import short_form
from traitscope.interventions.applied import Active, applied
from traitscope.interventions.intervention import context_of
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, row_intake, store
from traitscope.runs.progress import progress
from traitscope.screening import answers, questions
from traitscope.screening.answers import Asked
from traitscope.screening.questions import Kind
from traitscope.stages import measure, registry
from traitscope.training.loop import train_student
from traitscope.training.plan import plan_training
from traitscope.training.safeguards.acting import safeguards
from traitscope.training.step import Metrics
from traitscope.training.student import Student, new_student

FILE, ARRAYS = "asked.json", "log_p.npz"
"""Files of a run: what was asked, and the log-probabilities [S, Q, E] by kind."""


@dataclass(frozen=True)
class KindAnswers:
    """What a model says to the questions of a kind."""

    words: tuple[str, ...]
    """The answers that are compared."""
    traits: Mapping[str, str]
    """Word of each trait of the kind; a trait whose word is none of the answers cannot be asked."""
    log_p_SQE: np.ndarray
    """Log-probabilities of the answers' first tokens, nats."""
    texts: tuple[tuple[str, ...], ...]
    """Sampled answers to every question, where some were sampled."""


@dataclass(frozen=True)
class ModelAnswers:
    """What one model says, under one system turn."""

    kinds: Mapping[str, KindAnswers]
    """Answers by kind of question."""
    steps: tuple[int, ...]
    """Optimizer steps of relearning before each time of asking; the first is 0."""
    context_digest: str
    """Digest of the rendered system turn."""
    perplexity: float | None
    """Perplexity of plain text; None where the model relearnt."""


def inputs(config: AskConfig | VerifyConfig) -> dict[str, Path]:
    """The files behind the traits of a config, as inputs of its run."""
    return trait_files(trait_names(config.traits))


def run_ask(config: AskConfig, out: Output) -> store.Run:
    """Return the sealed run with `asked.json` and `log_p.npz`."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            records: list[Record] = []
            if config.data is not None:
                records = row_intake.kept_rows(run, config)
            model = model_cache.model_of(config)
            check = row_check(model, config.context)
            first = row_intake.first(config.max_rows)
            records = row_intake.readable(run, config, records, check, first)
            _write(run, config, model, records)
    return run


def question_count(model: Model, traits: Sequence[str]) -> int:
    """How many questions are asked about some traits; the model needs no weights."""
    return _count(questions.kinds_of(model, traits, False))


def read_answers(run: store.Run) -> ModelAnswers:
    """What a sealed run of `ask` holds. Raises StoreError for a damaged file."""
    content = json.loads(run.file(FILE).read_bytes())
    arrays = array_files.read_arrays(run.file(ARRAYS))
    kinds = {}
    for item in content["kinds"]:
        kinds[item["name"]] = KindAnswers(
            words=tuple(item["answers"]),
            traits=item["traits"],
            log_p_SQE=arrays[item["name"]],
            texts=tuple(map(tuple, item["texts"])),
        )
    return ModelAnswers(
        kinds, tuple(content["steps"]), content["context_digest"], content["perplexity"]
    )


def _write(run: store.Run, config: AskConfig, model: Model, records: Sequence[Record]) -> None:
    kinds = questions.kinds_of(model, config.traits, False)
    interventions = short_form.parse_all(config.interventions)
    perplexity = None
    if config.data is None:
        with (
            progress("questions", _count(kinds), "questions") as advance,
            applied(model, interventions) as active,
        ):
            asked = {0: _asked(active, kinds, config, advance)}
        perplexity = measure.perplexity(model, interventions)
    else:
        asked = _relearning(model, kinds, config, records)
    arrays = {}
    for place, kind in enumerate(kinds):
        arrays[kind.name] = np.stack([of_step[place].log_p_QE for of_step in asked.values()])
    array_files.write_arrays(run.file(ARRAYS), arrays)
    last = list(asked.values())[-1]
    content = {
        "steps": list(asked),
        "context_digest": chat.context_digest(model, context_of(interventions, config.context)),
        "perplexity": perplexity,
        "kinds": [_kind(kind, of_kind) for kind, of_kind in zip(kinds, last, strict=True)],
    }
    atomic_files.write_json(run.file(FILE), content)


def _kind(kind: Kind, asked: Asked) -> dict[str, Any]:
    return {
        "name": kind.name,
        "questions": list(kind.questions),
        "answers": list(kind.answers),
        "left_out": list(kind.left_out),
        "traits": {trait.name: trait.word_forms[0] for trait in kind.traits},
        "texts": list(map(list, asked.texts)),
    }


def _asked(
    active: Active, kinds: Sequence[Kind], config: AskConfig, done: answers.Done
) -> list[Asked]:
    """What a model says to the questions of all kinds."""
    asked = []
    for kind in kinds:
        asked.append(
            answers.ask_active(
                active, kind, config.context, config.samples, config.seed, config.pass_rows, done
            )
        )
    return asked


def _relearning(
    model: Model,
    kinds: Sequence[Kind],
    config: AskConfig,
    records: Sequence[Record],
) -> dict[int, list[Asked]]:
    """What a model says before and while a fresh adapter on top of it learns rows, by step."""
    guards = safeguards(short_form.parse_all(config.interventions))
    rows = rows_from(model, records, config.context)
    plan = plan_training(rows, config.recipe, config.seed)
    due = times_of_asking(plan.total_steps)
    asked: dict[int, list[Asked]] = {}
    with (
        progress("questions, relearning", len(due) * _count(kinds), "questions") as advance,
        new_student(model, config.recipe, config.seed, None, guards) as student,
    ):
        asked[0] = _asked(student.active, kinds, config, advance)

        def on_step(_: Metrics, student: Student) -> None:
            if student.step in due:
                asked[student.step] = _asked(student.active, kinds, config, advance)

        train_student(model, student, plan, on_step)
    return asked


def times_of_asking(total_steps: int) -> list[int]:
    """Optimizer steps after which a model is asked: 0, the powers of two, and the last one."""
    due, power = [0], 1
    while power < total_steps:
        due.append(power)
        power *= 2
    return [*due, total_steps]


def _count(kinds: Sequence[Kind]) -> int:
    return sum(len(kind.questions) for kind in kinds)
