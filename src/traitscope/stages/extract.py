"""The stage `extract`: steering vectors of traits, of students and of behaviours, in files.

vectors/means.py says what they are.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from traitscope import atomic_files
from traitscope.config.analysis import ExtractConfig
from traitscope.config.common import Output
from traitscope.data.prompts import number_prompts
from traitscope.data.records import Prompt
from traitscope.data.traits import load_trait
from traitscope.errors import ConfigError, VectorError
from traitscope.inference import residuals
from traitscope.interventions import short_form
from traitscope.interventions.checks.vectors import check_vector
from traitscope.interventions.vector import (
    Vector,
    load_vector,
    random_like,
    vector_bytes,
)
from traitscope.models.model import Model
from traitscope.runs import model_cache, opening, row_intake, store
from traitscope.runs.progress import progress
from traitscope.stages import registry
from traitscope.training.eas import UNMOVED, eas, is_unmoved
from traitscope.vectors import means

SPLIT_HALF = "split_half.json"
"file of the cosines between the vectors of two halves of the prompts, by vector and layer"
LEFT_BY_ROUNDING = 1e-5
"share of a vector's norm that is left where a direction is taken out of itself, in float32"


def _file_digest(path: Path) -> str:
    """The first 16 hex digits of a file's sha256: the same content gives the same provenance."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def run_extract(config: ExtractConfig, out: Output) -> store.Run:
    """Return the sealed run with one file a vector and, with a reference, `eas.json`.

    Where traits are centred, `common/mean.safetensors` holds what they share, and `raw/` the
    vectors with it. Number prompts leave `split_half.json`. Raises ConfigError unless the config
    asks for one kind of vector.
    """
    config = opening.settled(config)
    _check_kind(config)
    with registry.opened(config, out) as run:
        if not run.sealed:
            model = model_cache.model_of(config)
            write_vectors(run, model, _vectors(model, config, run), config)
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
        vectors = {name: _without(vector, removed, name) for name, vector in vectors.items()}
    _check_zero(vectors, is_student=bool(config.interventions))
    for name, vector in vectors.items():
        atomic_files.write_bytes(run.file(f"{name}.safetensors"), vector_bytes(vector))
    if config.reference:
        reference = _checked_vector(config.reference, model)
        eas_by_name = {}
        for name, vector in vectors.items():
            if "/" not in name:
                eas_by_name[name] = eas(vector, reference).tolist()
        atomic_files.write_json(run.file("eas.json"), eas_by_name)
    split_half = {}
    for name, vector in vectors.items():
        if means.SPLIT_HALF in vector.about:
            split_half[name] = vector.about[means.SPLIT_HALF]
    if split_half:
        atomic_files.write_json(run.file(SPLIT_HALF), split_half)


def _check_zero(vectors: dict[str, Vector], is_student: bool) -> None:
    """Raise VectorError for a vector that is zero; of a student, say so.

    A student's vector says how far it was moved. What all traits share may be zero.
    """
    for name, vector in vectors.items():
        if is_student and is_unmoved(vector):
            print(f"traitscope: {name} is zero: {UNMOVED}", file=sys.stderr)
        elif is_unmoved(vector) and "/" not in name:
            raise VectorError(
                f"the vector {name} would be zero at every layer, because both sides of its"
                " difference are the same; expected two that differ; name other prompts or traits"
            )


def _without(vector: Vector, removed: Vector, name: str) -> Vector:
    """A vector without its component along another one.

    Raises VectorError where nothing but rounding is left of a trait's own vector, which has no /
    in its name.
    """
    rest = vector.project_out(removed)
    is_gone = bool((rest.norms_L <= LEFT_BY_ROUNDING * vector.norms_L).all())
    if is_gone and "/" not in name and not is_unmoved(vector):
        raise VectorError(
            f"--orthogonal-to: {name} lies along that vector at every layer, so nothing is left of"
            " it; expected two directions; name another vector, or leave the flag out"
        )
    return rest


def _checked_vector(path: Path, model: Model) -> Vector:
    """The vector of a file, or the only one of a run. Raises VectorError for another model's."""
    return check_vector(load_vector(short_form.vector_file(path)), model, str(path))


def _vectors(model: Model, config: ExtractConfig, run: store.Run) -> dict[str, Vector]:
    """The vectors that a config asks for, by the names of their files.

    What was read of files of prompts is written into the run.
    """
    settings = core_settings(config)
    if config.like:
        pattern = _checked_vector(config.like, model)
        seeds = range(config.seed, config.seed + config.randoms)
        return {f"random-{n}": random_like(pattern, seed) for n, seed in enumerate(seeds)}
    if config.contrast:
        return {"contrast": _contrast(model, config, run)}
    if config.traits:
        return _trait_vectors(model, config, run)
    prompts = prompts_of(config, [run])
    if config.components:
        return means.component_vectors(model, prompts, config.components, **settings)
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
    elif config.traits and config.prompt_set == "questions":
        prompt_source = means.TRAIT_QUESTIONS
    else:
        prompt_source = f"{config.n} number prompts, seed {config.prompt_seed}"
    return {
        "context": config.context,
        "position": config.position,
        "batch_size": config.batch_size,
        "prompt_source": prompt_source,
    }


def prompts_of(config: ExtractConfig, runs: Sequence[store.Run]) -> list[Prompt]:
    """The prompts of a config: those of its file, or number prompts.

    What was read of the file is written into the runs.
    """
    if config.prompts:
        return row_intake.prompts(config, runs)
    return number_prompts(config.n, config.prompt_seed)


def _contrast(model: Model, config: ExtractConfig, run: store.Run) -> Vector:
    shown = row_intake.prompts(config, [run], "contrast")
    hidden = row_intake.prompts(config, [run], "against")
    settings = core_settings(config)
    settings["prompt_source"] = {
        "contrast": _file_digest(config.contrast),
        "against": _file_digest(config.against),
    }
    with progress("contrast", len(shown) + len(hidden), "prompts") as advance:
        return means.contrast_vector(model, shown, hidden, **settings, done=advance)


def _trait_vectors(model: Model, config: ExtractConfig, run: store.Run) -> dict[str, Vector]:
    traits = [load_trait(name, words=False) for name in config.traits]
    asks_questions = config.prompt_set == "questions" and not config.prompts
    prompts = None if asks_questions else prompts_of(config, [run])
    n_prompts = len(traits[0].questions.positive) if prompts is None else len(prompts)
    with progress("v_teacher", (len(traits) + 1) * n_prompts, "prompts") as advance:
        settings = core_settings(config) | {"stem": config.stem, "done": advance}
        halves = config.prompt_set == "numbers" and config.position == "last"
        return means.extract_vectors(model, traits, prompts, **settings, split_half=halves)
