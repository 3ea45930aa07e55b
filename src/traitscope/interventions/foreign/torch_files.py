"""Steering vectors in `.pt` files, read by `torch.load(weights_only=True)` and never unpickled.

Sources, read at the commits named in docs/reference/file-formats.md: `activation_steer.py` of
persona_vectors, `vectors.py` of agu18dec/steering-vector-distillation, `steering_vector.py` of
steering-vectors, and `models/hf_steered.py` of lm-evaluation-harness.

Shapes: L layers, D d_model.
"""

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from traitscope.errors import VectorError
from traitscope.interventions.foreign import arrays, layer_rows
from traitscope.interventions.foreign.layer_rows import LayerRows

PERSONA_NAME = re.compile(r"(prompt_avg|response_avg|prompt_last)_diff$")
"how the file names of persona_vectors end"
HOOKPOINT = re.compile(r"(?:^|\.)(?:layers|h|blocks|layer)\.(\d+)$")
"a hookpoint that is the output of a whole block"
AGU_KEYS = {"raw", "unit", "norm"}


def content_of(path: Path) -> Any:
    """Tensors in plain containers. Raises VectorError for anything that would have to be run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of the pickles that it does not run
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises many types for damaged files
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise VectorError(
                f"{path} holds Python objects beside tensors, which could run code; expected"
                " tensors, or a dictionary of them; save these alone where the file was made, such"
                " as torch.save(vector.layer_activations, FILE)"
            ) from None
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise VectorError(
            f"{path} is no file of torch.save ({reason}); expected tensors; copy the file again"
        ) from None


def format_of(path: Path, content: Any) -> str:
    """The format of a `.pt` file by what it holds; empty where that does not tell."""
    if _is_list(content):
        return "tensor"
    if isinstance(content, Tensor):
        return "persona_vectors" if PERSONA_NAME.search(path.stem) else "tensor"
    if not isinstance(content, dict) or not content:
        return ""
    if AGU_KEYS <= content.keys():
        return "agu18dec"
    values = list(content.values())
    if all(isinstance(value, dict) and "steering_vector" in value for value in values):
        return "lm-eval"
    kinds = {type(key) for key in content}
    are_alike = kinds in ({int}, {str})
    return "tensor" if are_alike and all(isinstance(value, Tensor) for value in values) else ""


def rows_of(path: Path, content: Any, kind: str) -> LayerRows:
    """The rows of a `.pt` file of a format. Raises VectorError for another content."""
    where = str(path)
    if kind == "agu18dec":
        raw = content.get("raw") if isinstance(content, dict) else None
        return layer_rows.stack(_array(raw, f"{where}, raw"), f"{where}, raw", "hidden-states")
    if kind == "lm-eval":
        return _lm_eval(content, where)
    counting = {"persona_vectors": "hidden-states", "steering-vectors": "blocks"}.get(kind, "")
    if _is_list(content):
        content = dict(enumerate(content))
        rows = layer_rows.by_number(_numbered(content, where), where, counting)
        return layer_rows.stack(np.stack(list(rows.rows.values())), where, counting)
    is_named = isinstance(content, dict) and {type(key) for key in content} == {str}
    if is_named and kind != "persona_vectors":
        named = {}
        for name, value in content.items():
            named[name] = _array(value, f"{where}, {name[:60]!r}")
        return replace(arrays.by_name(named, where), counting=counting)
    if isinstance(content, dict) and kind != "persona_vectors":
        return layer_rows.by_number(_numbered(content, where), where, counting)
    return layer_rows.stack(_array(content, where), where, counting)


def _is_list(content: Any) -> bool:
    """Whether a file holds a list of tensors, one a layer from the first one on."""
    is_list = isinstance(content, list | tuple) and len(content) > 0
    return is_list and all(isinstance(value, Tensor) and value.ndim == 1 for value in content)


def _array(value: Any, where: str) -> np.ndarray:
    """A tensor as an array. Raises VectorError for anything else, and for other numbers."""
    if not isinstance(value, Tensor):
        raise VectorError(
            f"{where} is a {type(value).__name__}; expected a tensor; name its format with --from,"
            " or save the tensor alone"
        )
    kind = str(value.dtype).removeprefix("torch.")
    if kind not in layer_rows.FLOATS or value.layout != torch.strided or value.is_meta:
        layout = "without numbers" if value.is_meta else value.layout
        raise VectorError(
            f"{where} is {kind} ({layout}); expected one of {', '.join(layer_rows.FLOATS)}, dense;"
            " convert it to float32"
        )
    value = value.detach()
    return (value.float() if kind == "bfloat16" else value).numpy()


def _numbered(content: Mapping[Any, Any], where: str) -> dict[int, np.ndarray]:
    """The tensors of a dictionary by layer."""
    numbered: dict[int, np.ndarray] = {}
    for key, value in content.items():
        if type(key) is not int:
            raise VectorError(
                f"{where} has the key {str(key)[:60]!r}; expected layers as whole numbers; name its"
                " format with --from, or save a dictionary of layer and tensor"
            )
        numbered[key] = _array(value, f"{where}, layer {key}")
    if not numbered:
        raise VectorError(f"{where} holds no tensor; expected one a layer; save the vector again")
    return numbered


def _lm_eval(content: Any, where: str) -> LayerRows:
    """The rows of a file of lm-evaluation-harness, times their coefficients.

    The tool adds coefficient times vector at every token. Its other action, clamp, sets a component
    and is no vector.
    """
    if not isinstance(content, dict) or not content:
        raise VectorError(
            f"{where} is a {type(content).__name__}; expected settings by hookpoint; name another"
            " format with --from"
        )
    by_block: dict[int, np.ndarray] = {}
    coefficients: dict[str, float] = {}
    names: dict[int, str] = {}
    for hookpoint, settings in content.items():
        number, factor = _hookpoint(hookpoint, settings, where)
        array = _array(settings["steering_vector"], f"{where}, {hookpoint}")
        row_D = array.astype(np.float64) * factor
        layer_rows.put(by_block, names, number, str(hookpoint), row_D, where)
        coefficients[str(number)] = factor
    file = layer_rows.by_number(by_block, where, "blocks")
    return LayerRows(file.rows, "blocks", about={"coefficients": coefficients})


def _hookpoint(hookpoint: Any, settings: Any, where: str) -> tuple[int, float]:
    """The block of a hookpoint, and its coefficient."""
    match = HOOKPOINT.search(str(hookpoint))
    if match is None:
        raise VectorError(
            f"{where}: hookpoint {str(hookpoint)[:80]!r} is no whole block; expected one such as"
            " layers.3; only vectors on the residual stream leaving a block are read, so name a"
            " file of these"
        )
    action = settings.get("action") if isinstance(settings, dict) else None
    if action != "add" or settings.get("head_index") is not None:
        head = settings.get("head_index") if isinstance(settings, dict) else None
        raise VectorError(
            f"{where}: {hookpoint} has the action {_word(action)} and the head {_word(head)};"
            " expected add on all heads; anything else is no vector, so leave that hookpoint out"
        )
    factor = settings.get("steering_coefficient", 1.0)
    if (
        type(factor) not in (int, float)
        or not abs(factor) < 1e30
        or "steering_vector" not in settings
    ):
        raise VectorError(
            f"{where}: {hookpoint} has the coefficient {_word(factor)} and keys"
            f" {', '.join(map(str, settings))}; expected a finite number and steering_vector;"
            " correct the file"
        )
    return int(match[1]), float(factor)


def _word(value: Any) -> str:
    """A value as a message shows it: on one line, and short."""
    return " ".join(repr(value).split())[:40]


def bytes_of(value: Any) -> bytes:
    """What `torch.save` writes for tensors in plain containers."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()
