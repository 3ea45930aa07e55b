"""The words of a command line that name a model: those that are not the usual ones.

What a command says of the next one has to run as it stands, on the same model.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from traitscope.config.common import OnModel
from traitscope.config.fields import flag_of
from traitscope.models.hardware import default_dtype, resolve_device

KEPT = ("model", "device", "dtype", "template", "control_tokens", "same_as")
"settings of a model that a following command takes over"
CONTEXT = "context"


def model_words(settings: Mapping[str, Any], with_context: bool = True) -> list[str]:
    """The words that name the model of some settings, as far as they are not the usual ones.

    settings: Values by field, of a config (vars) or as a run recorded them. Device and dtype that
    `auto` stands for on this machine are left out. with_context: Whether the neutral context is
    named, too; without a template it always is.
    """
    words: list[str] = []
    for name in KEPT:
        value, usual = settings.get(name), getattr(OnModel, name)
        if value is None or value in (usual, _automatic(settings, name)):
            continue
        if isinstance(value, list | tuple):
            words += [flag_of(name), *map(str, value)] if value else []
        else:
            words += [flag_of(name), str(value)]
    context = settings.get(CONTEXT)
    if context is not None and (with_context or str(context).startswith("@none")):
        words += [flag_of(CONTEXT), str(context)]
    return words


def _automatic(settings: Mapping[str, Any], name: str) -> Any:
    """What `auto` stands for on this machine; None for a setting that has no such value."""
    if name == "device":
        return resolve_device("auto")
    device = settings.get("device", "auto")
    return default_dtype(resolve_device(device)) if name == "dtype" else None


def joined(words: list[str]) -> str:
    """The words behind a command; empty for none."""
    return f" {shlex.join(words)}" if words else ""
