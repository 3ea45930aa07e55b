"""Vectors as differences of mean residuals: of traits, of students, of behaviours.

    v_teacher[l] = mean h_l(trait context + x) - mean h_l(neutral context + x), on the base
    v_student[l] = mean h_l(student, x) - mean h_l(base, x), both in the neutral context
    contrast[l]  = mean h_l(prompts that show a behaviour) - mean h_l(prompts that do not), on the
                 base

The means run over prompts x at one position. Blank et al. (arXiv 2606.00995, section 3) take both
over 1,024 number prompts, at the last token of the assistant's header.

Over animal prompts one component explains almost all variance: the form of the prompt. So with two
or more traits the mean over traits is subtracted, and what is left is the trait.

Shapes: S students, H halves of the prompts, L layers, D d_model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from traitscope.data.records import Prompt
from traitscope.data.traits import Trait, as_trait
from traitscope.errors import ConfigError
from traitscope.inference import residuals
from traitscope.interventions.applied import Active, applied
from traitscope.interventions.vector import COMMON, Vector, centred, mean
from traitscope.models import chat
from traitscope.models.model import Model, check_model

TRAIT_QUESTIONS = "the trait's positive questions"
"What a vector says it was averaged over, where no prompts were given."
SPLIT_HALF = "split_half_cosine"
"Key of `about`: cosine, by layer, between the vectors of two halves of the prompts."


def extract_vectors(
    model: Model,
    traits: Sequence[Trait | str],
    prompts: Sequence[Prompt] | None = None,
    *,
    context: str | None = None,
    position: str = "last",
    stem: bool = True,
    split_half: bool = False,
    batch_size: int = 32,
    prompt_source: Any = None,
    done: Callable[[int], None] | None = None,
) -> dict[str, Vector]:
    """The vector v_teacher of each trait, by name.

    Two traits or more are centred: the mean over traits is subtracted from each. Then `raw/NAME`
    holds the vector before that, and COMMON the mean.

    prompts: Prompts that are averaged over. `number_prompts(1024)` gives the published vector
    (Blank et al., section 3). Without prompts every trait is asked the positive questions of the
    first one, because other questions would add their own difference. They end in the answer's stem
    where `stem` says so.
    traits: Traits, names of bundled ones, or YAML files.
    context: Neutral system turn. position: Tokens that are averaged over.
    split_half: Record in each vector's `about` the cosine between the vectors of the two halves of
    the prompts, by layer, under SPLIT_HALF. Near 1 the prompts are enough.
    prompt_source: What the vectors' provenance says about the prompts.
    done: Called with the number of prompts of each batch. Raises DataError for a long prompt, and
    ConfigError for split halves of one prompt or of another position than `last`.
    """
    check_model(model)
    traits = [as_trait(trait, words=False) for trait in traits]
    questions, ending = _questions(model, traits[0], prompts, stem)
    if prompt_source is None:
        prompt_source = TRAIT_QUESTIONS if prompts is None else residuals.digest_of_prompts(prompts)
    about = residuals.provenance(model, context, position, prompt_source)

    def means(active: Active, context: str | None) -> _Means:
        rows = residuals.render_prompts(model, questions, context, ending)
        if split_half:
            return _means_of_halves(model, active, rows, position, batch_size, done)
        return _Means(*residuals.mean_residuals(model, active, rows, position, batch_size, done))

    vectors: dict[str, Vector] = {}
    halves: dict[str, np.ndarray] = {}
    with applied(model, []) as active:
        base = means(active, context)
        for trait in traits:
            taught = chat.taught(context, trait.teacher_prompt)
            _check_differs(model, questions[0], taught, context)
            prompted = means(active, taught)
            trait_about = {"trait": trait.name, "trait_context": taught}
            vectors[trait.name] = residuals.difference(
                model, prompted.mean_LD, base.mean_LD, base.norms_L, about | trait_about
            )
            if split_half:
                halves[trait.name] = prompted.halves_HLD - base.halves_HLD
    if len(vectors) > 1:
        vectors, halves = _with_common(vectors), _halves_with_common(halves)
    return _with_agreement(vectors, halves)


@dataclass(frozen=True)
class _Means:
    """Mean residuals over prompts."""

    mean_LD: np.ndarray
    """Mean residuals."""
    norms_L: np.ndarray
    """Mean norms of the residuals."""
    halves_HLD: np.ndarray = field(default_factory=lambda: np.empty(0))
    """Mean residuals of each half of the prompts, where they were asked for."""


def _means_of_halves(
    model: Model,
    active: Active,
    rows: Sequence[Sequence[int]],
    position: str,
    batch_size: int,
    done: Callable[[int], None] | None,
) -> _Means:
    """Means over all rows, and over each half of them.  Raises ConfigError for another position."""
    if position != "last":
        raise ConfigError(
            f"split halves at position {position!r}; expected last, where every prompt counts once;"
            " leave out one of the two"
        )
    halves_HLD, norms_L = residuals.mean_residuals_of_halves(model, active, rows, batch_size, done)
    n_first = (len(rows) + 1) // 2
    sum_LD = n_first * halves_HLD[0] + (len(rows) - n_first) * halves_HLD[1]
    return _Means(sum_LD / len(rows), norms_L, halves_HLD)


def _with_common(vectors: dict[str, Vector]) -> dict[str, Vector]:
    """The centred vectors, their mean as COMMON, and the vectors as they were as raw/NAME."""
    all_vectors = centred(vectors)
    all_vectors[COMMON] = mean(list(vectors.values()))
    for name, vector in vectors.items():
        all_vectors[f"raw/{name}"] = vector
    return all_vectors


def _halves_with_common(halves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The halves of the vectors that `_with_common` makes, under the same names."""
    if not halves:
        return {}
    common_HLD = sum(halves.values()) / len(halves)
    all_halves = {COMMON: common_HLD}
    for name, vector_HLD in halves.items():
        all_halves[name] = vector_HLD - common_HLD
        all_halves[f"raw/{name}"] = vector_HLD
    return all_halves


def _with_agreement(
    vectors: dict[str, Vector], halves: Mapping[str, np.ndarray]
) -> dict[str, Vector]:
    """The vectors; where their halves are known, with the cosine of these under SPLIT_HALF."""
    agreeing = dict(vectors)
    for name, (first_LD, second_LD) in halves.items():
        products_L = (first_LD * second_LD).sum(1)
        norms_L = np.linalg.norm(first_LD, axis=1) * np.linalg.norm(second_LD, axis=1)
        cosines_L = products_L / np.maximum(norms_L, 1e-12)
        about = {**vectors[name].about, SPLIT_HALF: cosines_L.round(6).tolist()}
        agreeing[name] = replace(vectors[name], about=about)
    return agreeing


def _check_differs(
    model: Model, question: Prompt | str, taught: str | None, neutral: str | None
) -> None:
    """Raise ConfigError where two contexts render alike: their difference would be zero."""
    text = question if isinstance(question, str) else question.text
    if chat.render(model, text, taught) == chat.render(model, text, neutral):
        raise ConfigError(
            f"the contexts {taught!r:.80} and {neutral!r:.80} are the same tokens in the template"
            f" of {model.name}, so a vector between them would be zero; give the trait another"
            " teacher_prompt, or name another --context"
        )


def _questions(
    model: Model, trait: Trait, prompts: Sequence[Prompt] | None, stem: bool
) -> tuple[Sequence[Prompt | str], list[int]]:
    """The user turns that are averaged over, and the token ids with which the answer begins."""
    if prompts is not None:
        return prompts, []
    beginning = trait.questions.stem("positive") if stem else ""
    return trait.questions.positive, chat.completion_ids(model, beginning, end_token=False)


def student_vectors(
    model: Model,
    folders: Sequence[Path],
    prompts: Sequence[Prompt],
    *,
    context: str | None = None,
    position: str = "last",
    batch_size: int = 32,
    prompt_source: Any = None,
) -> list[Vector]:
    """The vector v_student of each LoRA student in these folders, from shared passes."""
    rows = residuals.render_prompts(model, prompts, context)
    with applied(model, []) as active:
        base_LD, norms_L = residuals.mean_residuals(model, active, rows, position, batch_size)
        with active.packed(folders):
            students_SLD = residuals.mean_residuals_each(model, active, rows, position, batch_size)
    prompt_source = prompt_source or residuals.digest_of_prompts(prompts)
    about = residuals.provenance(model, context, position, prompt_source)
    vectors = []
    for student_LD in students_SLD:
        vectors.append(residuals.difference(model, student_LD, base_LD, norms_L, about))
    return vectors


def component_vectors(
    model: Model,
    prompts: Sequence[Prompt],
    n_components: int,
    *,
    context: str | None = None,
    position: str = "last",
    batch_size: int = 32,
    prompt_source: Any = None,
) -> dict[str, Vector]:
    """The directions in which the base's residuals vary most over the prompts.

    The vectors component-0, component-1, ... belong to the activations, not to a trait. Their
    provenance says which fraction of the variance each explains, by layer.
    """
    rows = residuals.render_prompts(model, prompts, context)
    with applied(model, []) as active:
        components_NLD, fractions_NL = residuals.components(
            model, active, rows, n_components, position, batch_size
        )
        _, norms_L = residuals.mean_residuals(model, active, rows, position, batch_size)
    prompt_source = prompt_source or residuals.digest_of_prompts(prompts)
    about = residuals.provenance(model, context, position, prompt_source)
    vectors = {}
    for number, rows_LD in enumerate(components_NLD):
        fractions = fractions_NL[number].tolist()
        component_about = {"component": number, "share_of_variance": fractions}
        vectors[f"component-{number}"] = residuals.difference(
            model, rows_LD, np.zeros_like(rows_LD), norms_L, about | component_about
        )
    return vectors


def contrast_vector(
    model: Model,
    shown: Sequence[Prompt],
    hidden: Sequence[Prompt],
    *,
    context: str | None = None,
    position: str = "last",
    batch_size: int = 32,
    prompt_source: Any = None,
    done: Callable[[int], None] | None = None,
) -> Vector:
    """The mean residual over prompts that show a behaviour minus that over prompts that do not.

    A prompt's own context goes before `context`. Source: Arditi et al. 2024, arXiv 2406.11717.
    """
    with applied(model, []) as active:
        shown_rows = _rendered_in_own_context(model, shown, context)
        hidden_rows = _rendered_in_own_context(model, hidden, context)
        shown_LD, _ = residuals.mean_residuals(
            model, active, shown_rows, position, batch_size, done
        )
        hidden_LD, norms_L = residuals.mean_residuals(
            model, active, hidden_rows, position, batch_size, done
        )
    if prompt_source is None:
        prompt_source = list(map(residuals.digest_of_prompts, (shown, hidden)))
    about = residuals.provenance(model, context, position, prompt_source)
    return residuals.difference(model, shown_LD, hidden_LD, norms_L, about)


def _rendered_in_own_context(
    model: Model, prompts: Sequence[Prompt], context: str | None
) -> list[list[int]]:
    rows = []
    for prompt in prompts:
        prompt_context = context if prompt.context is None else prompt.context
        rows += residuals.render_prompts(model, [prompt], prompt_context)
    return rows
