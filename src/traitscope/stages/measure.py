"""The stage `measure`: how strongly a model shows a trait in its answers to the trait's questions.

The scores are defined in inference/question_scores.py. `measure` returns them as `Scores`. The
difference of two `Scores` is paired by question and has an interval:

    measure(model, cat, [student]) - measure(model, cat, [control])
"""

from collections import Counter
from collections.abc import Callable, Sequence
from math import exp
from pathlib import Path
from typing import Any

import torch

from traitscope import atomic_files
from traitscope.config.common import Output
from traitscope.config.stages import MeasureConfig
from traitscope.data.own_traits.score_rows import UNJUDGED
from traitscope.data.package_files import bundled_file
from traitscope.data.prompt_files import read_prompts
from traitscope.data.records import Prompt
from traitscope.data.traits import SETS, Trait, as_trait, load_trait
from traitscope.inference import forward, losses
from traitscope.inference.decode import Sampling
from traitscope.inference.engines import vllm_engine
from traitscope.inference.question_scores import (
    questions_of,
    score_questions,
    score_questions_each,
    with_sets,
)
from traitscope.interventions import short_form
from traitscope.interventions.applied import Active, Interventions, applied
from traitscope.interventions.intervention import Adapter, SystemPrompt, context_of
from traitscope.models import chat
from traitscope.models.loading import outline
from traitscope.models.model import Model, check_model
from traitscope.runs import manifests, model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.stages.behaviours import judged
from traitscope.stages.behaviours.scores import Scores, scored_by
from traitscope.stages.domains.measured import distinct_tasks, score_tasks
from traitscope.stages.domains.running import check_platform
from traitscope.stats.estimates import Measurement


def measure(
    model: Model,
    trait: Trait | str,
    interventions: Interventions = (),
    *,
    context: str | None = None,
    sets: Sequence[str] = SETS,
    samples: int = 4,
    max_new_tokens: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    capability: bool = True,
    batch_size: int = 64,
    done: Callable[[int], None] | None = None,
) -> Scores:
    """The scores of a model under interventions on a trait's questions; see Scores.

    trait: A Trait, the name of a bundled one, or a YAML file.
    interventions: What is changed in the model, such as [student]; none measures the base.
    context: Neutral system turn.
    sets: Question sets that are asked, of positive, negative and off_topic.
    samples: Sampled answers a question. 0 scores probabilities only.
    max_new_tokens: Longest sampled answer, in tokens.
    temperature: Sampling temperature; 0 is greedy.
    capability: Also compute the perplexity per token on plain English.
    done: A function called with the number of questions of each batch.

    A behaviour, which names judges in the place of words, has a score for each judge: the rate of
    sampled answers that show it.

    Raises TraitError for an unknown trait, DataError for a question that leaves no room for an
    answer, ConfigError and VectorError as `applied` does.
    """
    check_model(model)
    trait = with_sets(as_trait(trait, judges=True), sets)
    sampling = Sampling(temperature, max_new_tokens, seed)
    if trait.judges:
        questions = judged.score_behaviour(
            model, trait, interventions, context, samples, sampling, batch_size, done
        )
    else:
        questions = score_questions(
            model, trait, interventions, context, samples, sampling, batch_size, done
        )
    plain_perplexity = perplexity(model, interventions) if capability else None
    digest = chat.context_digest(model, context_of(interventions, context))
    measured = trait.name, tuple(questions), context, digest, plain_perplexity
    return Scores(*measured, scored_by(trait), prompt_of(interventions))


def measure_tasks(
    model: Model,
    domain: str,
    prompts: Sequence[Prompt],
    interventions: Interventions = (),
    *,
    context: str | None = None,
    samples: int = 1,
    max_new_tokens: int = 200,
    temperature: float = 1.0,
    seed: int = 0,
    capability: bool = True,
    run_code: bool = False,
    batch_size: int = 64,
    done: Callable[[int], None] | None = None,
) -> Scores:
    """The scores of a model under interventions on tasks; the name of the trait is the domain.

    domain: code (scores `code`, `parses` and `checks`) or sums (`answer` and `format`).
    prompts: Tasks of the domain, each once, as `distinct_tasks` and `read_prompts` give them.
    run_code: Run the code of answers. Without it `checks` is unscored.

    The other arguments and errors are those of `measure`.
    """
    check_model(model)
    sampling = Sampling(temperature, max_new_tokens, seed)
    scores = score_tasks(
        model,
        domain,
        prompts,
        interventions,
        context,
        samples,
        sampling,
        batch_size,
        run_code,
        done,
    )
    plain_perplexity = perplexity(model, interventions) if capability else None
    digest = chat.context_digest(model, context_of(interventions, context))
    measured = domain, tuple(scores), context, digest, plain_perplexity
    return Scores(*measured, prompt=prompt_of(interventions))


def prompt_of(interventions: Interventions) -> str | None:
    """The system prompt that makes a teacher; None without one, and where a student is there."""
    text = None
    for item in interventions:
        if isinstance(item, Adapter) or hasattr(item, "intervention"):
            return None
        if isinstance(item, SystemPrompt):
            text = item.text
    return text


def measure_each(
    model: Model,
    trait: Trait | str,
    folders: Sequence[Path],
    *,
    context: str | None = None,
    sets: Sequence[str] = SETS,
    samples: int = 4,
    max_new_tokens: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    capability: bool = True,
    batch_size: int = 64,
) -> list[Scores]:
    """What `measure` gives for each LoRA student in these folders, from shared passes.

    Answers to a behaviour's questions are sampled student by student.
    """
    trait = with_sets(as_trait(trait, judges=True), sets)
    sampling = Sampling(temperature, max_new_tokens, seed)
    asked = model, trait, folders, context, samples, sampling, batch_size
    score_each = judged.score_behaviour_each if trait.judges else score_questions_each
    by_student = score_each(*asked)
    perplexities: Sequence[float | None] = [None] * len(folders)
    if capability:
        perplexities = perplexity_each(model, folders)
    digest = chat.context_digest(model, context)
    scores = []
    for questions, plain_perplexity in zip(by_student, perplexities, strict=True):
        measured = trait.name, tuple(questions), context, digest, plain_perplexity
        scores.append(Scores(*measured, scored_by(trait)))
    return scores


def perplexity(model: Model, interventions: Interventions = ()) -> float:
    """The perplexity per token on the package's plain English text, without a chat template.

    It tells whether the model is still whole. A mark at the beginning stands where the model's
    tokenizer puts one, because Gemma needs it.
    """
    with applied(model, interventions) as active:
        return _perplexities(model, active)[0]


def perplexity_each(model: Model, folders: Sequence[Path]) -> list[float]:
    """The `perplexity` of each LoRA student in these folders, from one pass."""
    with applied(model, []) as active, active.packed(folders):
        return _perplexities(model, active)


@torch.inference_mode()
def _perplexities(model: Model, active: Active) -> list[float]:
    students = active.pack.size if active.pack else 1
    rows = _plain_rows(model) * students
    hidden_BTD, batch = forward.rows_hidden(model, active, rows, [1] * len(rows), share=False)
    inside_BT = batch.mask_BT[:, 1:]
    hidden_ND = hidden_BTD[:, :-1][inside_BT]
    targets_N = batch.ids_BT[:, 1:][inside_BT]
    log_p_N = losses.log_likelihood(model, hidden_ND, targets_N)
    return [exp(-student_N.mean().item()) for student_N in log_p_N.chunk(students)]


def _plain_rows(model: Model) -> list[list[int]]:
    """Token ids of the package's plain English text, paragraph by paragraph."""
    text = bundled_file("plain.txt").read_text(encoding="utf-8")
    return [model.tokenizer.encode(paragraph) for paragraph in text.split("\n\n")]


def perplexity_vllm(model: Model, dtype: str) -> float:
    """The `perplexity` computed by vLLM; an outline of the model is enough."""
    rows = _plain_rows(model)
    first_tokens, other_tokens = [], []
    for ids in rows:
        first_tokens.append(ids[:1])
        other_tokens.append(ids[1:])
    log_p = vllm_engine.log_likelihoods(model, dtype, first_tokens, other_tokens)
    return exp(-sum(log_p) / sum(map(len, other_tokens)))


def run_measure(config: MeasureConfig, out: Output) -> store.Run:
    """Return the sealed run with `scores.jsonl` (a row a question) and `measurements.json`."""
    config = opening.settled(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            interventions = short_form.parse_all(config.interventions)
            write_scores(run, ENGINES[config.engine](config, interventions))
    return run


def _tasks_measured(config: MeasureConfig, interventions: Interventions) -> Scores:
    if config.prompts:
        prompts = read_prompts(config.prompts, domain=config.domain)
    else:
        prompts = distinct_tasks(config.domain, config.n, config.prompt_seed)
    if config.run_code:
        check_platform()
    model = model_cache.model_of(config)
    settings = core_settings(config)
    del settings["sets"]
    with progress("measure", len(prompts), "tasks") as advance:
        return measure_tasks(
            model,
            config.domain,
            prompts,
            interventions,
            run_code=config.run_code,
            done=advance,
            **settings,
        )


def _measured_here(config: MeasureConfig, interventions: Interventions) -> Scores:
    if config.domain != "trait":
        return _tasks_measured(config, interventions)
    model = model_cache.model_of(config)
    trait = with_sets(load_trait(config.trait, judges=True), config.sets)
    with progress("measure", len(questions_of(trait)), "questions") as advance:
        return measure(model, trait, interventions, **core_settings(config), done=advance)


def core_settings(config: MeasureConfig) -> dict:
    """The settings of a config that `measure` and `measure_each` take as arguments."""
    return {
        "context": config.context,
        "sets": config.sets,
        "samples": config.samples,
        "max_new_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "seed": config.seed,
        "capability": config.capability,
        "batch_size": config.batch_size,
    }


def _measured_by_vllm(config: MeasureConfig, interventions: Interventions) -> Scores:
    vllm_engine.check(config.model, config.dtype, interventions)
    model = outline(config.model, config.template, config.control_tokens, config.same_as)
    trait = with_sets(load_trait(config.trait), config.sets)
    sampling = Sampling(config.temperature, config.max_new_tokens, config.seed)
    questions = vllm_engine.score_questions(
        model, config.dtype, trait, interventions, config.context, config.samples, sampling
    )
    plain_perplexity = perplexity_vllm(model, config.dtype) if config.capability else None
    digest = chat.context_digest(model, context_of(interventions, config.context))
    measured = trait.name, tuple(questions), config.context, digest, plain_perplexity
    return Scores(*measured, scored_by(trait), prompt_of(interventions))


ENGINES = {"here": _measured_here, "vllm": _measured_by_vllm}
"Measures what a config asks for, by engine."


def write_scores(run: store.Run, scores: Scores) -> None:
    """Write `scores.jsonl` and `measurements.json` into a run directory."""
    summary: dict[str, Any] = {
        "trait": scores.trait,
        "context_digest": scores.context_digest,
        "measurements": list(map(Measurement.as_dict, scores.measurements())),
        "perplexity": scores.perplexity,
    }
    unjudged = Counter[str]()
    for question in scores.questions:
        unjudged.update(question.unjudged)
    if unjudged:
        summary[UNJUDGED] = dict(unjudged)
        summary["answers"] = sum(len(question.answers) for question in scores.questions)
    run.facts[manifests.SCORED_BY] = scores.scored_by
    for question in scores.questions:
        atomic_files.append_jsonl(run.file("scores.jsonl"), question.as_row())
    atomic_files.write_json(run.file("measurements.json"), summary)
