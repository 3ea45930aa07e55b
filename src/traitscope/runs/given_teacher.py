"""A teacher that somebody has: another model, or the model to be trained with a change.

It is named by one text:

    org/name, folder              a model of its own
    RUN, folder, file             a peft adapter, or a student of `train`, on the model
    adapter:... steer:... prompt:...   an intervention on the model in short form (short_form.py)
    [{"kind": ...}, ...]          several interventions, as a JSON list of objects

`text_of` gives that text for interventions in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitscope import atomic_files
from traitscope.config.common import OnModel
from traitscope.data import trait_files
from traitscope.errors import ConfigError, VectorError
from traitscope.interventions import intervention, short_form
from traitscope.interventions.checks.vectors import check_direction
from traitscope.interventions.intervention import (
    Adapter,
    HasIntervention,
    Intervention,
    Interventions,
    as_intervention,
)
from traitscope.interventions.vector import Vector, load_vector, vector_bytes
from traitscope.models import chat
from traitscope.models.identity import pickled
from traitscope.models.identity.digest import deciding_files
from traitscope.models.identity.finding import find_model
from traitscope.models.weight_noise import split_name
from traitscope.plain_values import NotPlainError, from_json
from traitscope.plurals import counted
from traitscope.runs import model_cache, store
from traitscope.runs.opening import WEIGHT_FILES

if TYPE_CHECKING:
    from traitscope.models.model import Model

Teacher = str | Path | Intervention | HasIntervention | Interventions
"""How a Python function takes a teacher: the text that names it, a path, a student of `train`, or
interventions on the model."""
PROBES = (
    "The owl's 3 eggs: 123, 456\n789;  1,000!",
    "Ünïcödé  and\ttabs 42",
)
"texts that two tokenizers must turn into the same tokens, the end of the turn included"


@dataclass(frozen=True)
class GivenTeacher:
    """What a teacher is made of."""

    model: str
    """Name of the model that it runs on."""
    interventions: tuple[Intervention, ...] = ()
    """What is changed in that model."""
    files: tuple[Path | store.Run, ...] = ()
    """Files and runs that its interventions are read from."""

    @property
    def short_forms(self) -> tuple[str, ...]:
        """Its interventions as settings hold them."""
        return tuple(map(short_form.to_short, self.interventions))

    def loaded(self, config: OnModel) -> Model:
        """The model that it runs on, read as a stage reads its own; no intervention is applied."""
        return model_cache.model_of(replace(config, model=self.model, same_as=None))


def given_teacher(name: str, model: str) -> GivenTeacher:
    """The teacher that a text names, on the model that is to be trained where it needs one.

    Raises ConfigError for an empty text and for a broken intervention, VectorError for one whose
    file does not exist.
    """
    if not name.strip():
        raise ConfigError(
            "--teacher is empty; expected a hub id, a folder of a model, a peft adapter's folder,"
            " or an intervention such as steer:FILE,layers=14,alpha=0.6; name one"
        )
    if name.lstrip().startswith("["):
        return _of_interventions(model, _listed(name))
    if name.partition(":")[0] in short_form.EXAMPLES or name.lstrip().startswith("{"):
        return _of_interventions(model, (short_form.parse(name),))
    folder = short_form.student_folder(Path(name))
    if folder.is_dir() and any((folder / file).is_file() for file in WEIGHT_FILES):
        return _of_interventions(model, (Adapter(str(folder)),))
    return GivenTeacher(name)


def _listed(text: str) -> list[Intervention]:
    """The interventions of a JSON list."""
    try:
        objects = from_json(text)
    except NotPlainError as error:
        raise ConfigError(
            f"--teacher {text} is no JSON ({error}); expected a list of interventions, such as"
            ' [{"kind": "SystemPrompt", "text": "You love owls."}]; correct it'
        ) from error
    return short_form.parse_all(list(map(json.dumps, objects)))


def text_of(teacher: Teacher, folder: Path) -> str:
    """The text that names a teacher.

    Vectors in memory are written into `folder`, under the digest of their content. Raises
    ConfigError for an empty list of interventions.
    """
    if isinstance(teacher, str | Path):
        return str(teacher)
    given = teacher if isinstance(teacher, Sequence) else (teacher,)
    if not given:
        raise ConfigError(
            "the teacher is an empty list of interventions; expected one or more; the unmodified"
            " model is no teacher"
        )
    named = [_with_file(as_intervention(item), folder) for item in given]
    if len(named) == 1:
        return short_form.to_short(named[0])
    return json.dumps(list(map(intervention.to_json, named)))


def _with_file(item: Intervention, folder: Path) -> Intervention:
    """An intervention whose vector lies in a file."""
    vector = getattr(item, "vector", None)
    if not isinstance(vector, Vector):
        return item
    content = vector_bytes(vector)
    file = folder / f"vector-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    atomic_files.write_bytes(file, content)
    return replace(item, vector=str(file))


def _of_interventions(model: str, interventions: Sequence[Intervention]) -> GivenTeacher:
    files: list[Path | store.Run] = []
    for item in interventions:
        files += _files_of(item)
    return GivenTeacher(model, tuple(interventions), tuple(files))


def _files_of(item: Intervention) -> list[Path | store.Run]:
    """The files and runs that an intervention is read from."""
    vector = getattr(item, "vector", None)
    if isinstance(vector, str):
        if not Path(vector).is_file():
            raise VectorError(f"no vector file at {vector}; make one with: traitscope extract")
        return [Path(vector)]
    if not isinstance(item, Adapter):
        return []
    folder = Path(item.folder)
    run = store.run_folder(folder)
    if run is not None and folder.is_dir():
        return [store.source_at(run)]
    weights = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not weights:
        raise VectorError(
            pickled.in_adapter(folder)
            or f"{folder} holds no student: expected a run of `train`, or a folder with"
            " adapter_model.safetensors; name one"
        )
    config = folder / "adapter_config.json"
    return [*weights, config] if config.is_file() else [*weights]


def inputs(config: Any) -> dict[str, Path | store.Run]:
    """The files behind the teacher of a config, as inputs of its run."""
    return inputs_of(given_teacher(config.teacher, config.model))


def inputs_with_traits(config: Any) -> dict[str, Path | store.Run]:
    """The files behind the traits and the teacher of a config, as inputs of its run."""
    files: dict[str, Path | store.Run] = {}
    files.update(trait_files.trait_files(trait_files.trait_names(config.traits)))
    files.update(inputs(config))
    return files


def inputs_of(teacher: GivenTeacher) -> dict[str, Path | store.Run]:
    """The files behind a teacher, by the names of inputs."""
    files: list[Path | store.Run] = list(teacher.files)
    if not teacher.interventions:
        folder = find_model(split_name(teacher.model)[0])
        files += deciding_files(folder)
    return {f"teacher{place}": file for place, file in enumerate(files)}


def check_readable(
    teacher: GivenTeacher, model: str, template: tuple[str, ...] = (), role: str = "teacher"
) -> None:
    """Raise ConfigError unless teacher and model read and write the same tokens.

    Likelihoods of one row under both are compared token by token. `role` is what the message calls
    the teacher. Raises VectorError for a teacher whose vector is zero.
    """
    for item in teacher.interventions:
        vector = getattr(item, "vector", None)
        if isinstance(vector, str):
            check_direction(load_vector(Path(vector)), vector, getattr(item, "layers", ()))
    if teacher.model == model:
        return
    from traitscope.models.loading import outline

    ours, theirs = outline(model, template), outline(teacher.model, template)
    differing = _differing_tokens(ours.tokenizer.get_vocab(), theirs.tokenizer.get_vocab())
    if differing:
        raise ConfigError(
            f"the {role} {teacher.model} has another tokenizer than {model}:"
            f" {counted(differing, 'token of the latter has', 'tokens of the latter have')} another"
            " id there, or none; expected the same tokens, because"
            f" likelihoods are compared token by token; name a {role} of the same family, or go"
            f" without this {role}"
        )
    for text in PROBES:
        if chat.completion_ids(ours, text) != chat.completion_ids(theirs, text):
            raise ConfigError(
                f"the {role} {teacher.model} splits {text!r} into other tokens than {model}, or"
                f" ends its answers with another one; expected the same; name a {role} with the"
                f" same tokenizer, or go without this {role}"
            )


def _differing_tokens(ours: dict[str, int], theirs: dict[str, int]) -> int:
    """Number of our tokens that have another id there; tokens that only they have do no harm."""
    differing = 0
    for token, place in ours.items():
        differing += theirs.get(token) != place
    return differing


def same_shape(left: Model, right: Model) -> bool:
    """Whether residuals of two models can be subtracted, block by block."""
    return (left.n_layers, left.d_model) == (right.n_layers, right.d_model)
