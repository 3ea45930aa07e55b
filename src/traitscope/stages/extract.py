"""Extract: steering vectors.

    v_teacher[l] = mean h_l(trait context + x) - mean h_l(neutral context + x), on the base
    v_student[l] = mean h_l(student, x) - mean h_l(base, x), both in the neutral context
    EAS_l        = cos(v_student[l], v_teacher[l])
    contrast[l]  = mean h_l(prompts that show a behaviour) - mean h_l(prompts that do not), on the
                 base

(Blank et al., arXiv 2606.00995, section 3; means over prompts x at one position, here the last
prompt token.)

Over animal prompts one component explains almost all variance: the form of the prompt. So with two
or more traits the mean over traits is subtracted, and what is left is the trait.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from traitscope import atomic_files
from traitscope.config.analysis import ExtractConfig
from traitscope.config.common import Output
from traitscope.data.prompt_files import read_prompts
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt
from traitscope.data.traits import Trait, load_trait
from traitscope.errors import ConfigError
from traitscope.inference import residuals
from traitscope.interventions import multi_lora, short_form
from traitscope.interventions.intervention import Intervention, applied, context_of
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
from traitscope.models import chat
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, store
from traitscope.runs.progress import progress
from traitscope.stages import registry


def teacher_vectors(
    model: Model, traits: Sequence[Trait], prompts: Sequence[Prompt] | None, config: ExtractConfig
) -> dict[str, Vector]:
    """v_teacher of each trait by name. Two traits or more are centred over all of them; then
    `raw/NAME` holds the vector as it was, and COMMON their mean.

    Without prompts each trait is asked the positive questions of the first one, answered from its
    stem where `config.stem` says so; the same questions for all, or the difference would be the
    questions'.
    """
    asked = _asked(model, traits[0], prompts, config)
    with (
        progress("v_teacher", (len(traits) + 1) * len(asked(None)), "prompts") as advance,
        applied(model, []) as active,
    ):
        base_LD, norms_L = residuals.mean_residuals(
            model, active, asked(config.context), config.position, config.batch_size, advance
        )
        found = {}
        for trait in traits:
            with_LD, _ = residuals.mean_residuals(
                model,
                active,
                asked(trait.teacher_prompt),
                config.position,
                config.batch_size,
                advance,
            )
            about = _about(model, config) | {
                "trait": trait.name,
                "trait_context": trait.teacher_prompt,
            }
            found[trait.name] = residuals.difference(model, with_LD, base_LD, norms_L, about)
    if len(found) == 1:
        return found
    return (
        centred(found)
        | {COMMON: mean(list(found.values()))}
        | {f"raw/{name}": v for name, v in found.items()}
    )


def _asked(
    model: Model, trait: Trait, prompts: Sequence[Prompt] | None, config: ExtractConfig
) -> Callable[[str | None], list[list[int]]]:
    """A function from context to rendered prompts."""
    stem = trait.questions.stem("positive") if config.stem and prompts is None else ""
    end = model.tokenizer.encode(stem, add_special_tokens=False)
    texts = trait.questions.positive if prompts is None else [p.text for p in prompts]
    return lambda context: [_rendered(model, text, context) + end for text in texts]


def _rendered(model: Model, text: str, context: str | None) -> list[int]:
    ids = chat.render(model, text, context)
    chat.check_length(model, len(ids), f"prompt {text[:40]!r}")
    return ids


def student_vector(
    model: Model, student: Sequence[Intervention], prompts: Sequence[Prompt], config: ExtractConfig
) -> Vector:
    """v_student of any list of interventions (a steered teacher's too), on the same prompts as the
    base."""
    before = [_rendered(model, p.text, config.context) for p in prompts]
    after = [_rendered(model, p.text, context_of(student, config.context)) for p in prompts]
    with progress("v_student", 2 * len(prompts), "prompts") as advance:
        with applied(model, []) as active:
            base_LD, norms_L = residuals.mean_residuals(
                model, active, before, config.position, config.batch_size, advance
            )
        with applied(model, student) as active:
            now_LD, _ = residuals.mean_residuals(
                model, active, after, config.position, config.batch_size, advance
            )
    return residuals.difference(model, now_LD, base_LD, norms_L, _about(model, config))


def student_vectors(
    model: Model, folders: Sequence[Path], prompts: Sequence[Prompt], config: ExtractConfig
) -> list[Vector]:
    """v_student of every LoRA student in these folders, from passes that they share
    (packing.py)."""
    rows = [_rendered(model, p.text, config.context) for p in prompts]
    with applied(model, []) as active:
        base_LD, norms_L = residuals.mean_residuals(
            model, active, rows, config.position, config.batch_size
        )
        with multi_lora.mounted(model, folders) as active.pack:
            now_SLD = residuals.mean_residuals_each(
                model, active, rows, config.position, config.batch_size
            )
    return [
        residuals.difference(model, now_LD, base_LD, norms_L, _about(model, config))
        for now_LD in now_SLD
    ]


def component_vectors(
    model: Model, prompts: Sequence[Prompt], config: ExtractConfig
) -> dict[str, Vector]:
    """The directions in which the base's residuals vary most over the prompts: vectors of
    activations, not of a trait."""
    rows = [_rendered(model, p.text, config.context) for p in prompts]
    with applied(model, []) as active:
        found_NLD, share_NL = residuals.components(
            model, active, rows, config.components, config.position, config.batch_size
        )
        _, norms_L = residuals.mean_residuals(
            model, active, rows, config.position, config.batch_size
        )
    made = {}
    for i, (rows_LD, share_L) in enumerate(zip(found_NLD, share_NL, strict=True)):
        about = _about(model, config) | {
            "component": i,
            "share of variance": [float(s) for s in share_L],
        }
        made[f"component-{i}"] = residuals.difference(model, rows_LD, 0.0 * rows_LD, norms_L, about)
    return made


def contrast_vector(
    model: Model, shown: Sequence[Prompt], hidden: Sequence[Prompt], config: ExtractConfig
) -> Vector:
    """Mean residual over prompts that show a behaviour minus that over prompts that do not (Arditi
    et al. 2024, arXiv 2406.11717)."""
    with (
        progress("contrast", len(shown) + len(hidden), "prompts") as advance,
        applied(model, []) as active,
    ):
        sides = [
            [
                _rendered(model, p.text, config.context if p.context is None else p.context)
                for p in side
            ]
            for side in (shown, hidden)
        ]
        (with_LD, _), (without_LD, norms_L) = (
            residuals.mean_residuals(
                model, active, rows, config.position, config.batch_size, advance
            )
            for rows in sides
        )
    digests = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for name, path in (("contrast", config.contrast), ("against", config.against))
    }
    return residuals.difference(
        model, with_LD, without_LD, norms_L, _about(model, config) | {"prompts": digests}
    )


def _about(model: Model, config: ExtractConfig) -> dict:
    return {
        "position": config.position,
        "context": config.context,
        "context_digest": chat.context_digest(model, config.context),
        "prompts": _prompts_named(config),
    }


def _prompts_named(config: ExtractConfig) -> str:
    """What was averaged over; of a file its content's digest, since the same content gives the same
    bytes anywhere."""
    if config.prompts:
        return (
            "prompts of a file, sha256"
            f" {hashlib.sha256(config.prompts.read_bytes()).hexdigest()[:16]}"
        )
    return (
        "the trait's positive questions"
        if config.traits
        else f"{config.n} number prompts, seed {config.prompt_seed}"
    )


def run_extract(config: ExtractConfig, out: Output) -> store.Run:
    """The sealed run with one vector file per trait, or `v_student.safetensors`; with a reference,
    `eas.json`, too.

    Where traits are centred, what they share lies in `common/mean.safetensors`, the vectors with it
    in `raw/`.
    """
    config = opening.settled(config)
    if (
        sum(
            map(
                bool,
                (
                    config.traits,
                    config.interventions,
                    config.like,
                    config.components,
                    config.contrast,
                ),
            )
        )
        != 1
    ):
        kinds = (
            "--traits (v_teacher), --interventions (v_student), --contrast (a behaviour), --like"
            " (random vectors) and --components (principal ones)"
        )
        raise ConfigError(f"extract takes one of {kinds}")
    with registry.opened(config, out) as run:
        if not run.sealed:
            model = model_cache.model_of(config)
            write_vectors(run, model, _vectors(model, config), config)
    return run


def write_vectors(
    run: store.Run, model: Model, vectors: dict[str, Vector], config: ExtractConfig
) -> None:
    """The vectors' files, orthogonal to what the config says, and `eas.json`."""
    if config.orthogonal_to:
        away = load_vector(short_form.vector_file(config.orthogonal_to))
        check_vector(away, model)
        vectors = {name: vector.project_out(away) for name, vector in vectors.items()}
    for name, vector in vectors.items():
        atomic_files.write_bytes(run.file(f"{name}.safetensors"), vector_bytes(vector))
    if config.reference:
        atomic_files.write_json(run.file("eas.json"), _compared(model, vectors, config.reference))


def _vectors(model: Model, config: ExtractConfig) -> dict[str, Vector]:
    if config.like:
        pattern = load_vector(short_form.vector_file(config.like))
        check_vector(pattern, model)
        return {f"random-{i}": random_like(pattern, config.seed + i) for i in range(config.randoms)}
    if config.contrast:
        return {
            "contrast": contrast_vector(
                model, read_prompts(config.contrast), read_prompts(config.against), config
            )
        }
    prompts = read_prompts(config.prompts) if config.prompts else None
    if config.traits:
        return teacher_vectors(model, [load_trait(t) for t in config.traits], prompts, config)
    prompts = prompts or number_prompts(config.n, config.prompt_seed)
    if config.components:
        return component_vectors(model, prompts, config)
    return {
        "v_student": student_vector(
            model, short_form.parse_all(config.interventions), prompts, config
        )
    }


def _compared(model: Model, vectors: dict[str, Vector], reference: Path) -> dict[str, list[float]]:
    """EAS per layer of each vector against the reference."""
    target = load_vector(short_form.vector_file(reference))
    check_vector(target, model)
    return {
        name: [float(c) for c in vector.cosine(target)]
        for name, vector in vectors.items()
        if "/" not in name
    }
