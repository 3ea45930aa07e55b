"""The stage `extract`: steering vectors of traits and of students.

    v_teacher[l] = mean h_l(trait context + x) - mean h_l(neutral context + x), on the base
    v_student[l] = mean h_l(student, x) - mean h_l(base, x), both in the neutral context
    EAS_l        = cos(v_student[l], v_teacher[l])
    contrast[l]  = mean h_l(prompts that show a behaviour) - mean h_l(prompts that do not), on the
                 base

The means run over prompts x at one position (Blank et al., arXiv 2606.00995, section 3).

Over animal prompts one component explains almost all variance: the form of the prompt. So with two
or more traits the mean over traits is subtracted, and what is left is the trait.

Shapes: S students, L layers, D d_model.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from traitscope import atomic_files
from traitscope.config.analysis import ExtractConfig
from traitscope.config.common import Output
from traitscope.data.prompt_files import read_prompts
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt
from traitscope.data.traits import Trait, as_trait, load_trait
from traitscope.errors import ConfigError
from traitscope.inference import residuals
from traitscope.interventions import short_form
from traitscope.interventions.applied import applied
from traitscope.interventions.vector import (
    COMMON,
    Vector,
    centred,
    check_vector,
    load_vector,
    mean,
    random_like,
    vector_bytes,
)
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.training.eas import eas

TRAIT_QUESTIONS = "the trait's positive questions"
"What a vector says it was averaged over, where no prompts were given."


def extract_vectors(
    model: Model,
    traits: Sequence[Trait | str],
    prompts: Sequence[Prompt] | None = None,
    *,
    context: str | None = None,
    position: str = "last",
    stem: bool = True,
    batch_size: int = 32,
    prompt_source: Any = None,
    done: Callable[[int], None] | None = None,
) -> dict[str, Vector]:
    """The vector v_teacher of each trait, by name.

    Two traits or more are centred: the mean over traits is subtracted from each. Then `raw/NAME`
    holds the vector before that, and COMMON the mean.

    Without prompts every trait is asked the positive questions of the first one, because other
    questions would add their own difference. They end in the answer's stem where `stem` says so.

    traits: Traits, names of bundled ones, or YAML files.
    context: Neutral system turn. position: Tokens that are averaged over.
    prompt_source: What the vectors' provenance says about the prompts.
    done: Called with the number of prompts of each batch. Raises DataError for a long prompt.
    """
    traits = list(map(as_trait, traits))
    questions, ending = _questions(model, traits[0], prompts, stem)
    if prompt_source is None:
        prompt_source = TRAIT_QUESTIONS
        if prompts is not None:
            prompt_source = residuals.digest_of_prompts(prompts)
    about = residuals.provenance(model, context, position, prompt_source)

    vectors: dict[str, Vector] = {}
    with applied(model, []) as active:
        base_rows = residuals.render_prompts(model, questions, context, ending)
        base_LD, norms_L = residuals.mean_residuals(
            model, active, base_rows, position, batch_size, done
        )
        for trait in traits:
            rows = residuals.render_prompts(model, questions, trait.teacher_prompt, ending)
            trait_LD, _ = residuals.mean_residuals(model, active, rows, position, batch_size, done)
            trait_about = {"trait": trait.name, "trait_context": trait.teacher_prompt}
            vectors[trait.name] = residuals.difference(
                model, trait_LD, base_LD, norms_L, about | trait_about
            )
    return vectors if len(vectors) == 1 else _with_common(vectors)


def _with_common(vectors: dict[str, Vector]) -> dict[str, Vector]:
    """The centred vectors, their mean as COMMON, and the vectors as they were as raw/NAME."""
    all_vectors = centred(vectors)
    all_vectors[COMMON] = mean(list(vectors.values()))
    for name, vector in vectors.items():
        all_vectors[f"raw/{name}"] = vector
    return all_vectors


def _questions(
    model: Model, trait: Trait, prompts: Sequence[Prompt] | None, stem: bool
) -> tuple[Sequence[Prompt | str], list[int]]:
    """The user turns that are averaged over, and the token ids with which the answer begins."""
    if prompts is not None:
        return prompts, []
    beginning = trait.questions.stem("positive") if stem else ""
    return trait.questions.positive, model.tokenizer.encode(beginning, add_special_tokens=False)


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
        component_about = {"component": number, "share of variance": fractions}
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


def _file_digest(path: Path) -> str:
    """The first 16 hex digits of a file's sha256: the same content gives the same provenance."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def run_extract(config: ExtractConfig, out: Output) -> store.Run:
    """Return the sealed run with one file a vector and, with a reference, `eas.json`.

    Where traits are centred, `common/mean.safetensors` holds what they share, and `raw/` the
    vectors with it. Raises ConfigError unless the config asks for one kind of vector.
    """
    config = opening.settled(config)
    _check_kind(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            model = model_cache.model_of(config)
            write_vectors(run, model, _vectors(model, config), config)
    return run


def _check_kind(config: ExtractConfig) -> None:
    kinds = [config.traits, config.interventions, config.like, config.components, config.contrast]
    asked = sum(map(bool, kinds))
    if asked != 1:
        raise ConfigError(
            f"extract was asked for {asked} kinds of vectors; it takes one of --traits (v_teacher),"
            " --interventions (v_student), --contrast (a behaviour), --like (random vectors) and"
            " --components (principal ones)"
        )


def write_vectors(
    run: store.Run, model: Model, vectors: dict[str, Vector], config: ExtractConfig
) -> None:
    """Write the vectors' files, orthogonal to what the config says, and `eas.json`."""
    if config.orthogonal_to:
        removed = _checked_vector(config.orthogonal_to, model)
        vectors = {name: vector.project_out(removed) for name, vector in vectors.items()}
    for name, vector in vectors.items():
        atomic_files.write_bytes(run.file(f"{name}.safetensors"), vector_bytes(vector))
    if config.reference:
        reference = _checked_vector(config.reference, model)
        eas_by_name = {}
        for name, vector in vectors.items():
            if "/" not in name:
                eas_by_name[name] = eas(vector, reference).tolist()
        atomic_files.write_json(run.file("eas.json"), eas_by_name)


def _checked_vector(path: Path, model: Model) -> Vector:
    """The vector of a file, or the only one of a run. Raises VectorError for another model's."""
    vector = load_vector(short_form.vector_file(path))
    check_vector(vector, model)
    return vector


def _vectors(model: Model, config: ExtractConfig) -> dict[str, Vector]:
    """The vectors that a config asks for, by the names of their files."""
    settings = core_settings(config)
    if config.like:
        pattern = _checked_vector(config.like, model)
        seeds = range(config.seed, config.seed + config.randoms)
        return {f"random-{n}": random_like(pattern, seed) for n, seed in enumerate(seeds)}
    if config.contrast:
        return {"contrast": _contrast(model, config)}
    if config.traits:
        return _trait_vectors(model, config)
    prompts = prompts_of(config)
    if config.components:
        return component_vectors(model, prompts, config.components, **settings)
    interventions = short_form.parse_all(config.interventions)
    with progress("v_student", 2 * len(prompts), "prompts") as advance:
        vector = residuals.intervention_vector(
            model, interventions, prompts, **settings, done=advance
        )
    return {"v_student": vector}


def core_settings(config: ExtractConfig) -> dict[str, Any]:
    """The settings of a config that all functions which extract vectors take as arguments."""
    if config.prompts:
        prompt_source = f"prompts of a file, sha256 {_file_digest(config.prompts)}"
    elif config.traits:
        prompt_source = TRAIT_QUESTIONS
    else:
        prompt_source = f"{config.n} number prompts, seed {config.prompt_seed}"
    return {
        "context": config.context,
        "position": config.position,
        "batch_size": config.batch_size,
        "prompt_source": prompt_source,
    }


def prompts_of(config: ExtractConfig) -> list[Prompt]:
    """The prompts of a config: those of its file, or number prompts."""
    if config.prompts:
        return read_prompts(config.prompts)
    return number_prompts(config.n, config.prompt_seed)


def _contrast(model: Model, config: ExtractConfig) -> Vector:
    shown, hidden = read_prompts(config.contrast), read_prompts(config.against)
    settings = core_settings(config)
    settings["prompt_source"] = {
        "contrast": _file_digest(config.contrast),
        "against": _file_digest(config.against),
    }
    with progress("contrast", len(shown) + len(hidden), "prompts") as advance:
        return contrast_vector(model, shown, hidden, **settings, done=advance)


def _trait_vectors(model: Model, config: ExtractConfig) -> dict[str, Vector]:
    traits = list(map(load_trait, config.traits))
    prompts = read_prompts(config.prompts) if config.prompts else None
    asked = len(traits[0].questions.positive) if prompts is None else len(prompts)
    with progress("v_teacher", (len(traits) + 1) * asked, "prompts") as advance:
        settings = core_settings(config) | {"stem": config.stem, "done": advance}
        return extract_vectors(model, traits, prompts, **settings)
