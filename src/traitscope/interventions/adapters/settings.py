"""The settings file of a peft folder, and whose the adapter is; read without torch."""

from pathlib import Path
from typing import Any

from traitscope.errors import VectorError
from traitscope.interventions.adapters import meaning
from traitscope.models.identity import pickled
from traitscope.plain_values import from_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"files of a peft folder"
DIGEST = "traitscope_base_digest"
"key of the base's digest, in the metadata of the weights; earlier versions wrote it to the config"


def config_and_digest(folder: Path) -> tuple[dict[str, Any], Any]:
    """The settings in a peft folder, and the digest of the base, where it says one.

    Raises VectorError for a missing or damaged file, and for an adapter of another kind.
    """
    from safetensors import SafetensorError, safe_open

    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing and (said := pickled.in_adapter(folder)):
        raise VectorError(said)
    if missing:
        raise VectorError(
            f"{folder} is no adapter folder: {' and '.join(missing)} missing; expected both"
            f" {CONFIG} and {WEIGHTS}; name a run of `train`, or a peft folder"
        )
    try:
        config = from_json((folder / CONFIG).read_bytes())
        if isinstance(config, dict) and "peft_type" in config:
            meaning.check_kind(str(folder), config)
        _check_config(config)
        with safe_open(folder / WEIGHTS, framework="np") as file:
            metadata = file.metadata() or {}
    except VectorError:
        raise
    except (ValueError, OSError, SafetensorError) as error:
        raise damaged(folder, error) from error
    return config, metadata.get(DIGEST, config.get(DIGEST))


def damaged(folder: Path, error: Exception) -> VectorError:
    """The error for an adapter that cannot be read."""
    return VectorError(f"{folder} holds a damaged adapter: {error}; copy or train it again")


def _check_config(config: Any) -> None:
    """Raise ValueError unless a peft config holds rank and alpha."""
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} holds a {type(config).__name__}, expected settings by name")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise ValueError(f"r is {rank!r} in {CONFIG}, expected a whole number of 1 or more")
    if type(alpha) not in (int, float) or not 0 < alpha <= meaning.LARGEST_ALPHA:
        raise ValueError(f"lora_alpha is {alpha!r} in {CONFIG}, expected a number above 0")
