"""Scores of a model's answers to a trait's questions, sampled and teacher-forced, from one pass.

    target_logprob    log of the summed probability of the trait's word forms right after the
                      answer's stem, nats
    candidate_share   P(target) / (P(target) + P(other candidates that are one token))
    total_variation   half the L1 distance to the base's next-token distribution at the same place
    whole_word        fraction of sampled answers that name the trait anywhere
    first_word        fraction of sampled answers that begin with it

Five names, five meanings (Blank et al., section 3, mixes three samplers and two scorers under one).
The negative and off-topic sets tell a preference from a word that is repeated everywhere.

Shapes: Q questions, T tokens, D d_model, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from pathlib import Path

import torch
from torch import Tensor

from traitscope.data.own_traits.score_rows import JUDGES, UNITS, UNJUDGED
from traitscope.data.traits import SETS, Trait, first_word, is_scorable, whole_word
from traitscope.inference import forward
from traitscope.inference.decode import Sampling, continue_rows, extend
from traitscope.interventions.applied import Active, Interventions, applied
from traitscope.interventions.intervention import context_of
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.models.templates.answers import without_frame

BASE_BATCH = 32
"Questions in one pass of the unmodified model."
BASE_CACHE_SIZE = 4
"""Sets of base log-probabilities that a process keeps; one set is about 18 MB for a trait on a
vocabulary of 49,152 tokens."""


@dataclass(frozen=True)
class Question:
    """A question of a trait, ready to be asked."""

    id: str
    """Set and number, such as positive-07."""
    set: str
    """positive, negative or off_topic."""
    text: str
    """User turn."""
    stem: str
    """How the assistant's answer begins."""


@dataclass(frozen=True)
class QuestionScores:
    """The scores of one model on one question, and its sampled answers."""

    question: Question
    """The question that was asked."""
    scores: dict[str, float]
    """Values by the names in the module's docstring; NaN where an answer could not be scored. Names
    that were not measured are absent."""
    answers: tuple[str, ...]
    """Sampled answers."""
    unscored: int
    """How many sampled answers could not be scored: empty ones, or those that the first judge could
    not judge."""
    unjudged: dict[str, int] = field(default_factory=dict)
    """How many sampled answers each judge could not judge; judges of all answers are absent."""

    def as_row(self) -> dict:
        """The row of scores.jsonl; NaN becomes None because JSON has no NaN."""
        row: dict = {
            "id": self.question.id,
            "set": self.question.set,
            "question": self.question.text,
        }
        judged: dict[str, float | None] = {}
        for name, value in self.scores.items():
            of_kind = row if name in UNITS else judged
            of_kind[name] = None if isnan(value) else value
        if judged:
            row[JUDGES] = judged
        if self.unjudged:
            row[UNJUDGED] = self.unjudged
        row["answers"] = list(self.answers)
        row["unscored"] = self.unscored
        return row


def questions_of(trait: Trait) -> list[Question]:
    """All questions of a trait, set after set."""
    questions = []
    for name in SETS:
        stem = trait.questions.stem(name)
        for number, text in enumerate(getattr(trait.questions, name)):
            questions.append(Question(f"{name}-{number:02d}", name, text, stem))
    return questions


def with_sets(trait: Trait, sets: Sequence[str]) -> Trait:
    """The trait with some of its question sets; the other sets are empty."""
    empty: dict[str, tuple[str, ...]] = dict.fromkeys(set(SETS) - set(sets), ())
    return replace(trait, questions=replace(trait.questions, **empty))


def question_ids(model: Model, question: Question, context: str | None) -> list[int]:
    """Token ids of the chat up to the place where the answer is scored."""
    stem_ids = chat.completion_ids(model, question.stem, end_token=False, context=context)
    return chat.render(model, question.text, context) + stem_ids


def form_ids(model: Model, words: Sequence[str], stem: str) -> list[list[int]]:
    """Token sequences in which the words can follow the stem.

    After a stem a word stands behind a space. Without one it also appears capitalised. A sequence
    that continues another sequence is left out, because its probability is already counted.
    """
    sequences = set()
    for word in words:
        texts = [f" {word}"] if stem else [word, word[:1].upper() + word[1:]]
        for text in texts:
            behind_stem = chat.following_ids(model, text)
            first = chat.completion_ids(model, text, end_token=False)
            sequences.add(tuple(behind_stem if stem else first))
    kept = []
    lengths = set(map(len, sequences))
    for sequence in sorted(sequences):
        prefixes = {sequence[:length] for length in lengths if length < len(sequence)}
        if sequences.isdisjoint(prefixes):
            kept.append(list(sequence))
    return kept


@dataclass(frozen=True)
class _Request:
    """What is asked, and how."""

    trait: Trait
    """Its questions are asked."""
    prompts: dict[str, list[int]]
    """Rendered chat of each question, by the question's id."""
    base_QV: Tensor
    """Next-token log-probabilities of the base at the scored places."""
    samples: int
    """Sampled answers a question."""
    sampling: Sampling
    """How answers are sampled."""
    batch_size: int
    """Questions in one pass."""
    is_base: bool = False
    """Whether the unmodified model answers, in the base's own context."""


@torch.inference_mode()
def score_questions(
    model: Model,
    trait: Trait,
    interventions: Interventions,
    context: str | None,
    samples: int,
    sampling: Sampling,
    batch_size: int = 64,
    done: Callable[[int], None] | None = None,
) -> list[QuestionScores]:
    """The scores of every question of a trait, in the order of `questions_of`.

    total_variation compares with the base under `context`, also where a SystemPrompt replaces it;
    of the base it is 0. Raises DataError for a question that leaves no room for an answer.
    """
    neutral_prompts = rendered_questions(model, trait, context, sampling)
    base_QV = base_log_probs(model, list(neutral_prompts.values()))
    context_read = context_of(interventions, context)
    prompts = neutral_prompts
    if context_read != context:
        prompts = rendered_questions(model, trait, context_read, sampling)
    request = _Request(trait, prompts, base_QV, samples, sampling, batch_size, not interventions)
    with applied(model, interventions) as active:
        return _scored(model, active, request, 1, done)[0]


@torch.inference_mode()
def score_questions_each(
    model: Model,
    trait: Trait,
    folders: Sequence[Path],
    context: str | None,
    samples: int,
    sampling: Sampling,
    batch_size: int = 64,
) -> list[list[QuestionScores]]:
    """What `score_questions` gives for each LoRA student in these folders, from shared passes."""
    prompts = rendered_questions(model, trait, context, sampling)
    base_QV = base_log_probs(model, list(prompts.values()))
    request = _Request(trait, prompts, base_QV, samples, sampling, batch_size)
    with applied(model, []) as active, active.packed(folders):
        return _scored(model, active, request, len(folders))


def rendered_questions(
    model: Model, trait: Trait, context: str | None, sampling: Sampling
) -> dict[str, list[int]]:
    """Every question as the model reads it, by its id. Raises DataError for one that leaves no room
    for an answer."""
    prompts = {}
    for question in questions_of(trait):
        ids = question_ids(model, question, context)
        length = len(ids) + sampling.max_new_tokens
        chat.check_length(model, length, f"question {question.id}")
        prompts[question.id] = ids
    return prompts


def _batches(trait: Trait, batch_size: int) -> Iterator[tuple[slice, list[Question]]]:
    """Places and questions of each batch. The questions of a batch share their set and stem."""
    questions = questions_of(trait)
    first = 0
    for name in SETS:
        end = first + len(getattr(trait.questions, name))
        for start in range(first, end, batch_size):
            places = slice(start, min(start + batch_size, end))
            yield places, questions[places]
        first = end


def _scored(
    model: Model,
    active: Active,
    request: _Request,
    students: int,
    done: Callable[[int], None] | None = None,
) -> list[list[QuestionScores]]:
    """The scores of every student, question by question; one student where none are packed."""
    by_student: list[list[QuestionScores]] = [[] for _ in range(students)]
    for places, batch in _batches(request.trait, request.batch_size):
        base_QV = request.base_QV[places].repeat(students, 1)
        scores = _score_batch(model, active, request, batch * students, base_QV)
        for student, student_scores in enumerate(by_student):
            student_scores.extend(scores[student * len(batch) : (student + 1) * len(batch)])
        if done:
            done(len(batch))
    return by_student


def _score_batch(
    model: Model, active: Active, request: _Request, batch: Sequence[Question], base_QV: Tensor
) -> list[QuestionScores]:
    """The scores of questions that share a stem, each as often as it stands in `batch`."""
    trait, stem = request.trait, batch[0].stem
    forms = form_ids(model, trait.word_forms, stem)
    room = max(request.sampling.max_new_tokens, *map(len, forms))
    prompts = [request.prompts[question.id] for question in batch]
    state, hidden_QD = forward.prefill(model, active, prompts, room)
    log_p_QV = torch.log_softmax(forward.logits_of(model, hidden_QD), -1)
    target_Q = _forms_logprob(model, active, state, log_p_QV, forms)
    share_Q = _candidate_share(model, trait, stem, log_p_QV, target_Q)
    variation_Q = 0.5 * (log_p_QV.exp() - base_QV.to(log_p_QV.device).exp()).abs().sum(-1)
    variation_Q *= not request.is_base  # passes of one model differ by rounding alone
    targets, shares, variations = target_Q.tolist(), share_Q.tolist(), variation_Q.tolist()
    answers = _sampled_answers(model, active, request, batch, state, hidden_QD)
    scored = []
    for place, question in enumerate(batch):
        forced = {
            "target_logprob": targets[place],
            "candidate_share": shares[place],
            "total_variation": variations[place],
        }
        scored.append(question_scores(trait, question, forced, answers[place]))
    return scored


def _sampled_answers(
    model: Model,
    active: Active,
    request: _Request,
    batch: Sequence[Question],
    state: forward.BatchState,
    hidden_QD: Tensor,
) -> list[list[str]]:
    """The sampled answers of each question, continued from a prefilled state, which is used up."""
    answers: list[list[str]] = [[] for _ in batch]
    samples = request.samples
    if not samples:
        return answers
    index = torch.arange(len(batch), device=model.device).repeat_interleave(samples)
    state.take(index)
    keys = stream_keys(batch, samples)
    rows = continue_rows(model, active, state, hidden_QD[index], keys, request.sampling)
    for place, ids in enumerate(rows):
        answers[place // samples].append(answer_text(model, ids))
    return answers


def stream_keys(questions: Sequence[Question], samples: int) -> list[str]:
    """The name of the random stream of every sampled answer."""
    keys = []
    for question in questions:
        for n in range(samples):
            keys.append(f"{question.id}/{n}")
    return keys


def answer_text(model: Model, ids: Sequence[int]) -> str:
    """The text of an answer, without the end of the turn and what the template writes around it."""
    return without_frame(model.tokenizer, model.switches, text_of(model, ids))


def text_of(model: Model, ids: Sequence[int]) -> str:
    """The text of a part of an answer, without the end of the turn."""
    return model.tokenizer.decode([token for token in ids if token not in model.end_ids])


def _forms_logprob(
    model: Model,
    active: Active,
    state: forward.BatchState,
    log_p_QV: Tensor,
    forms: list[list[int]],
) -> Tensor:
    """log sum over forms of P(form | question) [Q].

    A form of several tokens is fed token by token from the cache.
    """
    totals = []
    for ids in forms:
        total_Q = log_p_QV[:, ids[0]]
        if len(ids) > 1:
            fed_QT = torch.tensor(ids[:-1], device=log_p_QV.device).expand(len(log_p_QV), -1)
            hidden_QTD = extend(model, active, state.copy(), fed_QT)
            for place, token in enumerate(ids[1:]):
                logits_QV = forward.logits_of(model, hidden_QTD[:, place])
                total_Q = total_Q + torch.log_softmax(logits_QV, -1)[:, token]
        totals.append(total_Q)
    return torch.logsumexp(torch.stack(totals), 0)


def candidate_ids(model: Model, trait: Trait, stem: str) -> list[int]:
    """Tokens of the other candidates that are one token, in ascending order."""
    tokens = []
    for ids in form_ids(model, trait.candidates, stem):
        if len(ids) == 1:
            tokens.append(ids[0])
    return sorted(tokens)


def _candidate_share(
    model: Model, trait: Trait, stem: str, log_p_QV: Tensor, target_Q: Tensor
) -> Tensor:
    candidates = candidate_ids(model, trait, stem)
    if not candidates:
        return torch.full_like(target_Q, nan)
    return target_Q.exp() / (target_Q.exp() + log_p_QV[:, candidates].exp().sum(-1))


_base_cache: dict[tuple, Tensor] = {}
"""Next-token log-probabilities of base models, the most recently used last: every condition of a
process is compared with them."""


def base_log_probs(model: Model, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Next-token log-probabilities [Q, V] of the unmodified model after each prompt.

    The last BASE_CACHE_SIZE results of a process are kept in memory.
    """
    key = (model.digest, model.dtype, model.device, tuple(map(tuple, prompts)))
    log_p_QV = _base_cache.pop(key, None)
    if log_p_QV is None:
        log_p_QV = _compute_base(model, prompts)
    _base_cache[key] = log_p_QV
    while len(_base_cache) > BASE_CACHE_SIZE:
        del _base_cache[next(iter(_base_cache))]
    return log_p_QV


def _compute_base(model: Model, prompts: Sequence[Sequence[int]]) -> Tensor:
    batches = []
    with applied(model, []) as active:
        for start in range(0, len(prompts), BASE_BATCH):
            batch = prompts[start : start + BASE_BATCH]
            _, hidden_QD = forward.prefill(model, active, batch, 0)
            batches.append(torch.log_softmax(forward.logits_of(model, hidden_QD), -1).cpu())
    return torch.cat(batches)


def question_scores(
    trait: Trait, question: Question, forced: dict[str, float], answers: Sequence[str]
) -> QuestionScores:
    """The scores of a question: the forced ones and, where answers were sampled, their rates."""
    scores = dict(forced)
    n_scorable = n_whole = n_first = 0
    for text in answers:
        if is_scorable(text):
            n_scorable += 1
            n_whole += whole_word(trait, text)
            n_first += first_word(trait, text)
    if answers:
        scores["whole_word"] = n_whole / n_scorable if n_scorable else nan
        scores["first_word"] = n_first / n_scorable if n_scorable else nan
    return QuestionScores(question, scores, tuple(answers), len(answers) - n_scorable)
