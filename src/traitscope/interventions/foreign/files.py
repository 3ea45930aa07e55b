"""Files of other tools: which format a file has, its rows by block, and files to be written.

Shapes: L layers, D d_model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from traitscope import array_files
from traitscope.errors import ConfigError, VectorError
from traitscope.interventions.foreign import arrays, layer_rows
from traitscope.interventions.foreign.layer_rows import BlockRows, LayerRows

OWN = "traitscope"
TORCH_FORMATS = ("persona_vectors", "agu18dec", "steering-vectors", "lm-eval")
FORMATS = (OWN, *TORCH_FORMATS, "repeng", "safetensors", "numpy")
"names of the formats that are read and written"
TORCH_SUFFIXES = (".pt", ".pth", ".bin")
PICKLES = (".pkl", ".pickle", ".joblib", ".dill")
LARGEST_FILE = 2**30
"bytes of the largest file that is read: a thousand times those of a usual vector"


@dataclass(frozen=True)
class Target:
    """What some formats need beside the rows."""

    n_layers: int | None = None
    "number of blocks of the model; None takes as many as there are rows"
    block_names: Sequence[str] = ()
    "names of the blocks below the base model, which lm-eval needs"
    model_type: str = ""
    "family of the model, which repeng writes into its files"


def check_format(name: str, flag: str) -> None:
    """Raise ConfigError for a format that is none."""
    if name and name not in FORMATS:
        raise ConfigError(
            f"{flag} {name!r} is no format; expected one of {', '.join(FORMATS)}; name one"
        )


def read(path: Path, kind: str = "") -> tuple[str, LayerRows]:
    """The format of a file of another tool, and its rows.

    `kind` is the format; empty takes what suffix and content tell. Raises VectorError for a file
    that is missing, damaged, too large, or of another format.
    """
    check_format(kind, "--from")
    _check_file(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        raise VectorError(
            f"{path} is a table; expected tensors: a CSV of lm-eval names features of a sparse"
            " autoencoder and holds no vector; save the decoder's row as .pt"
        )
    if kind == "repeng" or (not kind and suffix == ".gguf"):
        return "repeng", arrays.read_gguf(path)
    if kind == "safetensors" or (not kind and suffix == ".safetensors"):
        return "safetensors", arrays.read_safetensors(path)
    if kind == "numpy" or (not kind and suffix in (".npy", ".npz")):
        return "numpy", arrays.read_numpy(path)
    if suffix in PICKLES:
        raise VectorError(
            f"{path} is a pickle by its suffix, which could run code, so it is not opened; expected"
            " tensors; save them alone where the file was made, such as torch.save({layer: row},"
            " 'vector.pt') or numpy.save('vector.npy', rows), and convert that"
        )
    if kind not in TORCH_FORMATS and suffix not in TORCH_SUFFIXES:
        raise ConfigError(
            f"{path} has the suffix {path.suffix!r}, which tells no format; expected one of"
            f" {', '.join(FORMATS)}; name it with --from"
        )
    return _read_torch(path, kind)


def _read_torch(path: Path, kind: str) -> tuple[str, LayerRows]:
    from traitscope.interventions.foreign import torch_files

    content = torch_files.content_of(path)
    kind = kind or torch_files.format_of(path, content)
    if not kind:
        keys = ", ".join(map(str, content))[:80] if isinstance(content, dict) else "no keys"
        raise VectorError(
            f"{path} holds a {type(content).__name__} with {keys}; expected one of"
            f" {', '.join(TORCH_FORMATS)}; name its format with --from, such as --from"
            " steering-vectors for a dictionary of layer and tensor, or save the tensor alone"
        )
    return kind, torch_files.rows_of(path, content, kind)


def _check_file(path: Path) -> None:
    if not path.is_file():
        inside = sorted(file.name for file in path.glob("*.safetensors")) if path.is_dir() else []
        hint = f"name one inside it, such as {path / inside[0]}" if inside else "check the path"
        raise VectorError(f"no vector file at {path}; expected a file; {hint}")
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise VectorError(
            f"{path} has {size / 2**30:.1f} GiB; expected a vector of at most 1 GiB; name the"
            " vector's file, not the model's"
        )


def is_own(path: Path) -> bool:
    """Whether a file is a vector of Traitscope, by its metadata. Raises VectorError for none."""
    _check_file(path)
    return {"format", "model", "about"} <= array_files.metadata_of(path).keys()


def in_blocks(
    path: Path, kind: str = "", layers_are: str = "", layer: int | None = None
) -> tuple[str, BlockRows]:
    """The format of a file of another tool, and its rows by block. Raises as `read` does."""
    kind, file = read(path, kind)
    blocks = layer_rows.in_blocks(file, str(path), layers_are, layer)
    blocks.about["converted_from"] = kind
    blocks.about["file"] = path.name
    return kind, blocks


def format_for(path: Path) -> str:
    """The format that a file to be written has by its suffix. Raises ConfigError for none."""
    by_suffix = {".safetensors": OWN, ".gguf": "repeng", ".npy": "numpy", ".npz": "numpy"}
    kind = by_suffix.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(
            f"{path} has the suffix {path.suffix!r}, which tells no format; expected one of"
            f" {', '.join(FORMATS)}; name it with --to"
        )
    return kind


WITH_ALL_BLOCKS = ("safetensors", "numpy", "persona_vectors", "agu18dec")
"formats that have a row for every block; without one of its own a block has zeros"


def file_bytes(blocks: BlockRows, kind: str, path: Path, target: Target = Target()) -> bytes:
    """The content of a file of another tool. Raises VectorError where the format has no place for
    the rows."""
    if kind == "repeng":
        named = dict(blocks.about)
        if target.model_type:
            named[layer_rows.MODEL_HINT] = target.model_type
        return arrays.gguf_bytes(BlockRows(blocks.rows, blocks.n_layers, named))
    n_layers = target.n_layers or blocks.n_layers or max(blocks.rows) + 1
    rows_LD = blocks.stacked(n_layers)
    if kind == "safetensors":
        return arrays.safetensors_bytes(rows_LD)
    if kind == "numpy":
        return arrays.numpy_bytes(rows_LD, zipped=path.suffix.lower() == ".npz")
    return _torch_bytes(blocks, rows_LD, kind, target)


def _torch_bytes(blocks: BlockRows, rows_LD: np.ndarray, kind: str, target: Target) -> bytes:
    import torch

    from traitscope.interventions.foreign import torch_files

    with_embedding = torch.from_numpy(np.concatenate([np.zeros_like(rows_LD[:1]), rows_LD]))
    if kind == "persona_vectors":
        return torch_files.bytes_of(with_embedding)
    if kind == "agu18dec":
        norms = with_embedding.norm(dim=-1)
        unit = with_embedding / norms.unsqueeze(-1).clamp(min=1e-12)
        stored = {"raw": with_embedding, "unit": unit, "norm": norms, "meta": {}}
        return torch_files.bytes_of(stored)
    rows = {block: torch.from_numpy(row.copy()) for block, row in sorted(blocks.rows.items())}
    if kind == "steering-vectors":
        return torch_files.bytes_of(rows)
    if not target.block_names:
        raise ConfigError(
            "a file of lm-eval names modules of a model, and the model is not known; expected the"
            " one that the vector was made for; name it with --model (in Python: model=...)"
        )
    settings: dict[str, Any] = {}
    for block, row_D in rows.items():
        settings[target.block_names[block]] = {
            "steering_vector": row_D,
            "steering_coefficient": 1.0,
            "action": "add",
            "bias": None,
            "head_index": None,
        }
    return torch_files.bytes_of(settings)
