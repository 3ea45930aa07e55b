"""The model that an adapter was trained on, and the tokenizer that it was trained with.

    digest in the weights    that of the model in use, or the adapter is refused
    name in the settings     a model that is here: equal weights, or the adapter is refused
                             a model that is not here: a note, because names prove nothing
    tokenizer, template      a note where the folder carries others than the model's
    weights                  a note where they change nothing (effect.py)

peft writes the name, and many programs save tokenizer and chat template beside the adapter. Both
are compared by content. Nothing is fetched. Notes go to the terminal and into the run's manifest.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from traitscope.errors import ModelError, VectorError
from traitscope.interventions.adapters.effect import no_effect
from traitscope.interventions.adapters.settings import CONFIG, config_and_digest
from traitscope.models import weight_noise
from traitscope.models.bundled import WHEELS
from traitscope.models.identity import digest as identity
from traitscope.models.identity.finding import DIGEST, find_model, local_folder
from traitscope.models.identity.tensors import same_weights

BASE = "base_model_name_or_path"
"key of the name of the base in a peft config"
LONGEST = 100
"characters of a name that are shown"


def notes_on(folder: Path, name: str, digests: Sequence[str]) -> tuple[str, ...]:
    """What whoever uses an adapter on model `name` should know; nothing where all fits.

    `digests` are those by which the model is known. Raises VectorError for an adapter of another
    model, and for a missing or damaged file.
    """
    folder = Path(folder)
    config, digest = config_and_digest(folder)
    if digest is not None:
        check_digest(str(folder), digest, config.get(BASE), name, digests)
        return no_effect(folder)
    changed = (_times(folder), _times(folder / CONFIG))
    said = _notes(
        str(folder), _text(config.get(BASE)), _revision(config), name, tuple(digests), changed
    )
    return (*said, *no_effect(folder))


def check_digest(where: str, digest: Any, base: Any, name: str, digests: Sequence[str]) -> None:
    """Raise VectorError where a student's base is not the model `name`, by its digest.

    `base` is the name of the base, as the student says it.
    """
    if digest in digests:
        return
    shown = str(digest)[:LONGEST]
    vouch = ""
    if DIGEST.fullmatch(shown):
        vouch = f", or vouch that {name} is a copy of it: --same-as {shown}"
    trained_on = f"{_text(base)}, " if _text(base) else ""
    raise VectorError(
        f"{where} was trained on {trained_on}a model with digest {shown}, but {name} has"
        f" {digests[0]}; name that model with --model, or train again on this one{vouch}"
    )


def _times(path: Path) -> tuple[int, int]:
    """What changes where a file or a folder changes."""
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def _text(value: Any) -> str:
    """A name from a file on one line; empty where it is none."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def _revision(config: dict[str, Any]) -> str | None:
    return config["revision"] if isinstance(config.get("revision"), str) else None


@lru_cache(maxsize=256)
def _notes(
    where: str,
    base: str,
    revision: str | None,
    name: str,
    digests: tuple[str, ...],
    changed: tuple[tuple[int, int], ...],
) -> tuple[str, ...]:
    """The notes on a peft folder without a digest."""
    try:
        model_folder = find_model(name)
    except ModelError:  # a model in memory whose folder has gone
        return ()
    said = [_base_note(where, base, revision, name, model_folder, digests)]
    said += _tokenizer_notes(Path(where), name, model_folder)
    return tuple(filter(None, said))


def _base_note(
    where: str,
    base: str,
    revision: str | None,
    name: str,
    model_folder: Path,
    digests: tuple[str, ...],
) -> str:
    """What to say of the base that a peft config names. Raises VectorError for another model."""
    shown = base[:LONGEST]
    plain, _ = weight_noise.split_name(name)
    if not base:
        return (
            f"{where} does not say which model it was trained on ({BASE} is missing in {CONFIG});"
            f" it fits {name} by names and shapes, and nothing else was compared"
        )
    if base in (name, plain):
        return ""
    if plain in WHEELS and base == WHEELS[plain].hub:
        return (
            f"{where} was trained on {shown}, and {plain} holds the weights of that model in 4"
            " bits; it is used on these"
        )
    base_folder = local_folder(base, revision)
    if base_folder is None:
        return (
            f"{where} was trained on {shown}, which is not on this machine, and is used on {name};"
            " they were not compared beyond names and shapes; make sure that they are one model"
        )
    theirs = {identity.folder_digest(base_folder), *identity.former_digests(base_folder)}
    if theirs & set(digests) or same_weights(base_folder, model_folder):
        return ""
    raise VectorError(
        f"{where} was trained on {shown}, whose weights are not those of {name}; expected an"
        f" adapter of {name}; name its base: --model {shown}, or vouch that {name} is a copy:"
        f" --same-as {shown}"
    )


def _tokenizer_notes(folder: Path, name: str, model_folder: Path) -> list[str]:
    """What to say of tokenizer and chat template in a peft folder."""
    theirs, ours = identity.texts_identity(folder), identity.texts_identity(model_folder)
    differing = []
    if theirs.template is not None and theirs.template != ours.template:
        differing.append("chat template")
    if theirs.tokenizer is not None and theirs.tokenizer != ours.tokenizer:
        differing.append("tokenizer")
    if not differing:
        return []
    what = " and ".join(differing)
    return [
        f"{folder} carries a {what} of its own, and {name} has another; that of {name} is used; to"
        f" use the adapter's, put its files into a copy of {model_folder}, and name that copy with"
        " --model"
    ]
