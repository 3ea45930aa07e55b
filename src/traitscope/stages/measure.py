"""Measure: what a model answers to a trait's questions, sampled and teacher-forced, from one pass
over the prompts.

    target_logprob    log of the summed probability of the trait's word forms right after the
                      answer's stem, nats
    candidate_share   P(target) / (P(target) + P(other candidates that are one token))
    total_variation   half the L1 distance to the base's next-token distribution at the same place
    whole_word        share of sampled answers that name the trait anywhere
    first_word        share of sampled answers that begin with it

Five names, five meanings (Blank et al., section 3, mixes three samplers and two scorers under one).
The negative and off-topic sets tell a preference from a word that is repeated everywhere.

Shapes: Q questions, D d_model, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import exp, isnan, nan
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.stages import MeasureConfig
from traitscope.data.package_files import bundled_file
from traitscope.data.traits import SETS, Trait, first_word, is_scorable, load_trait, whole_word
from traitscope.inference import forward, losses, vllm_engine
from traitscope.inference.decode import Sampling, continue_rows, extend
from traitscope.interventions import multi_lora
from traitscope.interventions.intervention import Active, Intervention, applied, context_of
from traitscope.models import chat
from traitscope.models.loading import outline
from traitscope.models.model import Model
from traitscope.runs import stage, store
from traitscope.runs.progress import progress
from traitscope.stats.estimates import measure
from traitscope.stats.measurement import Measurement

UNITS = {
    "target_logprob": "nats",
    "candidate_share": "probability",
    "total_variation": "probability",
    "whole_word": "rate",
    "first_word": "rate",
}


@dataclass(frozen=True)
class Question:
    """A question of a trait, ready to be put."""

    id: str
    """Set and number, such as positive-07."""
    set: str
    """positive, negative or off_topic."""
    text: str
    """User turn."""
    stem: str
    """How the assistant's answer begins."""


def questions_of(trait: Trait) -> list[Question]:
    """All questions of a trait, set after set."""
    sets = {name: getattr(trait.questions, name) for name in SETS}
    return [
        Question(f"{name}-{i:02d}", name, text, trait.questions.stem(name))
        for name, texts in sets.items()
        for i, text in enumerate(texts)
    ]


def only(trait: Trait, sets: Sequence[str]) -> Trait:
    """The trait with some of its question sets; the others are empty."""
    empty: dict[str, tuple[str, ...]] = {name: () for name in SETS if name not in sets}
    return replace(trait, questions=replace(trait.questions, **empty))


def question_ids(model: Model, question: Question, context: str | None) -> list[int]:
    """Token ids of the chat up to the place where the answer is scored."""
    return chat.render(model, question.text, context) + model.tokenizer.encode(
        question.stem, add_special_tokens=False
    )


def form_ids(model: Model, words: Sequence[str], stem: str) -> list[list[int]]:
    """Token sequences in which words can appear after a stem: behind a space, or capitalised and
    not at the start.

    A sequence that continues another one is left out, because its probability is already counted.
    """
    texts = (
        [f" {w}" for w in words] if stem else [v for w in words for v in (w, w[:1].upper() + w[1:])]
    )
    found = {tuple(model.tokenizer.encode(text, add_special_tokens=False)) for text in texts}
    return [list(f) for f in sorted(found) if not any(f != g and f[: len(g)] == g for g in found)]


@torch.inference_mode()
def score(
    model: Model,
    trait: Trait,
    interventions: Sequence[Intervention],
    context: str | None,
    samples: int,
    sampling: Sampling,
    batch_size: int = 64,
    done: Callable[[int], None] | None = None,
) -> list[dict]:
    """One dict a question: its id, set and text, the scores, and the sampled answers.

    A question set is put in batches that share a stem. NaN marks an answer that could not be
    scored.
    """
    neutral = told = _rendered(model, trait, context, sampling)
    if (other := context_of(interventions, context)) != context:
        told = _rendered(model, trait, other, sampling)
    asked = Asked(told, _base_logprobs(model, neutral), samples, sampling, batch_size)
    with applied(model, interventions) as active:
        return _scored(model, active, trait, asked, done)


@torch.inference_mode()
def score_each(
    model: Model,
    trait: Trait,
    folders: Sequence[Path],
    context: str | None,
    samples: int,
    sampling: Sampling,
    batch_size: int = 64,
) -> list[list[dict]]:
    """What `score` gives for every one of LoRA students, by their folders, from passes that they
    share (packing.py)."""
    prompts = _rendered(model, trait, context, sampling)
    asked = Asked(prompts, _base_logprobs(model, prompts), samples, sampling, batch_size)
    with applied(model, []) as active, multi_lora.mounted(model, folders) as active.pack:
        rows = _scored(model, active, trait, asked)
    return [rows[s :: len(folders)] for s in range(len(folders))]


@dataclass(frozen=True)
class Asked:
    """How questions are put."""

    prompts: dict[str, list[int]]
    "by question, its rendered chat"
    base_QV: Tensor
    "what the base answers next, as log-probabilities"
    samples: int
    sampling: Sampling
    batch_size: int


def _rendered(
    model: Model, trait: Trait, context: str | None, sampling: Sampling
) -> dict[str, list[int]]:
    """Every question as the model reads it, by its id. Raises DataError for one that leaves no room
    for an answer."""
    found = {
        question.id: question_ids(model, question, context) for question in questions_of(trait)
    }
    for name, ids in found.items():
        chat.check_length(model, len(ids) + sampling.max_new_tokens, f"question {name}")
    return found


def _scored(
    model: Model,
    active: Active,
    trait: Trait,
    asked: Asked,
    done: Callable[[int], None] | None = None,
) -> list[dict]:
    """A dict a question; where students are packed one a question and student, the students of a
    question together."""
    rows, questions, students = [], questions_of(trait), active.pack.size if active.pack else 1
    for name in SETS:
        part = [(i, q) for i, q in enumerate(questions) if q.set == name]
        for start in range(0, len(part), asked.batch_size):
            index, batch = zip(*part[start : start + asked.batch_size], strict=True)
            forced, texts = _score_batch(
                model,
                active,
                trait,
                batch * students,
                asked,
                asked.base_QV[list(index)].repeat(students, 1),
            )
            found = [
                _row(trait, *parts) for parts in zip(batch * students, forced, texts, strict=True)
            ]
            rows += [found[s * len(batch) + i] for i in range(len(batch)) for s in range(students)]
            if done:
                done(len(batch))
    return rows


def _score_batch(
    model: Model,
    active: Active,
    trait: Trait,
    batch: Sequence[Question],
    asked: Asked,
    base_QV: Tensor,
) -> tuple[list[dict[str, float]], list[list[str]]]:
    samples, sampling = asked.samples, asked.sampling
    prompts = [asked.prompts[q.id] for q in batch]
    stem = batch[0].stem
    longest = max(len(f) for f in form_ids(model, trait.word_forms, stem))
    state, hidden_QD = forward.prefill(
        model, active, prompts, max(longest, sampling.max_new_tokens)
    )
    log_p_QV = torch.log_softmax(forward.logits_of(model, hidden_QD), -1)
    target_Q = _forms_logprob(
        model, active, state, log_p_QV, form_ids(model, trait.word_forms, stem)
    )
    share_Q = _candidate_share(model, trait, stem, log_p_QV, target_Q)
    variation_Q = 0.5 * (log_p_QV.exp() - base_QV.to(log_p_QV.device).exp()).abs().sum(-1)
    forced = [
        {"target_logprob": t, "candidate_share": s, "total_variation": v}
        for t, s, v in zip(target_Q.tolist(), share_Q.tolist(), variation_Q.tolist(), strict=True)
    ]
    if not samples:
        return forced, [[] for _ in batch]
    index = torch.arange(len(batch), device=model.device).repeat_interleave(samples)
    state.take(index)
    keys = [f"{q.id}/{n}" for q in batch for n in range(samples)]
    answers = continue_rows(model, active, state, hidden_QD[index], keys, sampling)
    texts = [model.tokenizer.decode([t for t in ids if t not in model.end_ids]) for ids in answers]
    return forced, [texts[i : i + samples] for i in range(0, len(texts), samples)]


def _forms_logprob(
    model: Model, active: Active, state: forward.State, log_p_QV: Tensor, forms: list[list[int]]
) -> Tensor:
    """log sum over forms of P(form | question) [Q]; a form of several tokens is fed token by token
    from the cache."""
    found = []
    for ids in forms:
        total_Q = log_p_QV[:, ids[0]]
        if len(ids) > 1:
            fed = torch.tensor(ids[:-1], device=log_p_QV.device).expand(len(log_p_QV), -1)
            hidden_QTD = extend(model, active, state.copy(), fed)
            for place, token in enumerate(ids[1:]):
                total_Q = (
                    total_Q
                    + torch.log_softmax(forward.logits_of(model, hidden_QTD[:, place]), -1)[
                        :, token
                    ]
                )
        found.append(total_Q)
    return torch.logsumexp(torch.stack(found), 0)


def _candidate_share(
    model: Model, trait: Trait, stem: str, log_p_QV: Tensor, target_Q: Tensor
) -> Tensor:
    others = [ids[0] for ids in form_ids(model, trait.candidates, stem) if len(ids) == 1]
    if not others:
        return torch.full_like(target_Q, nan)
    return target_Q.exp() / (target_Q.exp() + log_p_QV[:, sorted(others)].exp().sum(-1))


def score_vllm(
    model: Model,
    dtype: str,
    trait: Trait,
    interventions: Sequence[Intervention],
    context: str | None,
    samples: int,
    sampling: Sampling,
) -> list[dict]:
    """What `score` gives, by vLLM; without total_variation, which needs every token's probability.
    model: its outline is enough."""
    questions, prompts = (
        questions_of(trait),
        _rendered(model, trait, context_of(interventions, context), sampling),
    )
    forms = {stem: form_ids(model, trait.word_forms, stem) for stem in {q.stem for q in questions}}
    others = {
        stem: [ids for ids in form_ids(model, trait.candidates, stem) if len(ids) == 1]
        for stem in forms
    }
    asked = [(q, ids) for q in questions for ids in forms[q.stem] + others[q.stem]]
    each = iter(
        vllm_engine.log_likelihoods(
            model, dtype, [prompts[q.id] for q, _ in asked], [ids for _, ids in asked]
        )
    )
    keys = [(q.id, f"{q.id}/{n}") for q in questions for n in range(samples)]
    answers = (
        vllm_engine.decode(
            model, dtype, [prompts[name] for name, _ in keys], [key for _, key in keys], sampling
        )
        if keys
        else []
    )
    texts = iter(
        [model.tokenizer.decode([t for t in ids if t not in model.end_ids]) for ids in answers]
    )
    rows = []
    for question in questions:
        own, rest = (
            np.logaddexp.reduce(list(islice(each, len(known[question.stem]))))
            for known in (forms, others)
        )
        share = float(np.exp(own - np.logaddexp(own, rest))) if others[question.stem] else nan
        rows.append(
            _row(
                trait,
                question,
                {"target_logprob": float(own), "candidate_share": share},
                list(islice(texts, samples)),
            )
        )
    return rows


_BASE: dict[tuple, Tensor] = {}
"""next-token log-probabilities of base models met in this process: every condition is compared with
them"""


def _base_logprobs(model: Model, prompts: dict[str, list[int]]) -> Tensor:
    """Next-token log-probabilities [Q, V] of the unmodified model at the scored places."""
    rows = list(prompts.values())
    key = (model.digest, model.dtype, model.device, tuple(map(tuple, rows)))
    if key not in _BASE:
        found = []
        with applied(model, []) as active:
            for start in range(0, len(rows), 32):
                _, hidden_QD = forward.prefill(model, active, rows[start : start + 32], 0)
                found.append(torch.log_softmax(forward.logits_of(model, hidden_QD), -1).cpu())
        _BASE[key] = torch.cat(found)
    return _BASE[key]


def _row(trait: Trait, question: Question, forced: dict[str, float], texts: list[str]) -> dict:
    scored = [text for text in texts if is_scorable(text)]
    sampled = {
        "whole_word": sum(whole_word(trait, t) for t in scored) / len(scored) if scored else nan,
        "first_word": sum(first_word(trait, t) for t in scored) / len(scored) if scored else nan,
    }
    unscored = len(texts) - len(scored)
    about = {"id": question.id, "set": question.set, "question": question.text}
    return about | forced | (sampled if texts else {}) | {"answers": texts, "unscored": unscored}


def perplexity(model: Model, interventions: Sequence[Intervention]) -> float:
    """Perplexity per token on the package's plain English text, without a chat template: is the
    model still whole?

    A mark at the beginning stands where the model's tokenizer puts one: Gemma is lost without it.
    """
    with applied(model, interventions) as active:
        return _perplexities(model, active)[0]


def perplexity_each(model: Model, folders: Sequence[Path]) -> list[float]:
    """`perplexity` of every one of LoRA students, from one pass."""
    with applied(model, []) as active, multi_lora.mounted(model, folders) as active.pack:
        return _perplexities(model, active)


@torch.inference_mode()
def _perplexities(model: Model, active: Active) -> list[float]:
    rows = _plain(model) * (students := active.pack.size if active.pack else 1)
    hidden_BTD, batch = forward.rows_hidden(model, active, rows, [1] * len(rows), share=False)
    inside = batch.mask_BT[:, 1:]
    log_p_N = losses.log_likelihood(model, hidden_BTD[:, :-1][inside], batch.ids_BT[:, 1:][inside])
    return [exp(-part.mean().item()) for part in log_p_N.chunk(students)]


def _plain(model: Model) -> list[list[int]]:
    """The package's plain English text, paragraph by paragraph."""
    text = bundled_file("plain.txt").read_text(encoding="utf-8")
    return [model.tokenizer.encode(part) for part in text.split("\n\n")]


def perplexity_vllm(model: Model, dtype: str) -> float:
    """`perplexity` by vLLM; model: its outline is enough."""
    rows = _plain(model)
    total = sum(
        vllm_engine.log_likelihoods(
            model, dtype, [row[:1] for row in rows], [row[1:] for row in rows]
        )
    )
    return exp(-total / sum(len(row) - 1 for row in rows))


def summarise(rows: Sequence[dict]) -> list[Measurement]:
    """One Measurement per score and question set; the interval is over questions of this one
    model."""
    found = []
    for name in SETS:
        part = [row for row in rows if row["set"] == name]
        for key, unit in UNITS.items():
            if part and key in part[0]:
                values = [row[key] for row in part]
                ids = [row["id"] for row in part]
                found.append(measure(f"{name}.{key}", values, questions=ids, unit=unit))
    return found


def _without_nan(row: dict) -> dict:
    return {k: None if isinstance(v, float) and isnan(v) else v for k, v in row.items()}


def run_measure(config: MeasureConfig, out: Output) -> store.Run:
    """The sealed run with `scores.jsonl` (a row a question) and `measurements.json`."""
    config = stage.settled(config)
    inputs = stage.trait_inputs([config.trait])
    with stage.opened("measure", config, out, inputs=inputs) as run:
        if not run.sealed:
            trait, told = (
                only(load_trait(config.trait), config.sets),
                stage.parse_all(config.interventions),
            )
            measured = _by_vllm if config.engine == "vllm" else _here
            model, rows, whole = measured(config, trait, told)
            write_scores(run, model, trait, context_of(told, config.context), rows, whole)
    return run


def _here(
    config: MeasureConfig, trait: Trait, told: Sequence[Intervention]
) -> tuple[Model, list[dict], float | None]:
    model, sampling = (
        stage.model_of(config),
        Sampling(config.temperature, config.max_new_tokens, config.seed),
    )
    with progress("measure", len(questions_of(trait)), "questions") as advance:
        rows = score(
            model, trait, told, config.context, config.samples, sampling, config.batch_size, advance
        )
    return model, rows, perplexity(model, told) if config.capability else None


def _by_vllm(
    config: MeasureConfig, trait: Trait, told: Sequence[Intervention]
) -> tuple[Model, list[dict], float | None]:
    vllm_engine.check(config.model, config.dtype, told)
    model, sampling = (
        outline(config.model),
        Sampling(config.temperature, config.max_new_tokens, config.seed),
    )
    rows = score_vllm(model, config.dtype, trait, told, config.context, config.samples, sampling)
    return model, rows, perplexity_vllm(model, config.dtype) if config.capability else None


def write_scores(
    run: store.Run,
    model: Model,
    trait: Trait,
    context: str | None,
    rows: Sequence[dict],
    whole: float | None,
) -> None:
    """`scores.jsonl` and `measurements.json`; `whole` is the perplexity, None where it was not
    asked for."""
    summary = {
        "trait": trait.name,
        "context_digest": chat.context_digest(model, context),
        "measurements": [m.as_dict() for m in summarise(rows)],
        "perplexity": whole,
    }
    for row in rows:
        atomic_files.append_jsonl(run.file("scores.jsonl"), _without_nan(row))
    atomic_files.write_json(run.file("measurements.json"), summary)
