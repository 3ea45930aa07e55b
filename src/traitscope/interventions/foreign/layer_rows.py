"""Rows of a steering vector as a file holds them, and what its layer numbers mean.

    blocks           row k belongs to the residual stream leaving block k
    hidden-states    row k belongs to `hidden_states[k]` of transformers: row 0 to the embedding,
                     row k to the residual stream leaving block k - 1

The last hidden state of a model stands behind its final norm. So the last row of such a file is
no difference of residuals. It is kept, because its tool steers with it, and named.

Shapes: N rows of the file, L layers, D d_model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from traitscope import array_files
from traitscope.errors import ConfigError, VectorError
from traitscope.plurals import counted

Counting = Literal["", "blocks", "hidden-states"]
"how a file counts layers; empty where its format does not tell"
LAYERS_ARE = ("blocks", "hidden-states")
BEHIND_NORM = "behind_final_norm"
"key of provenance: the block whose row was taken behind the final norm"
MODEL_HINT = "model_hint"
"key of provenance: the family of the model that a control vector of repeng names"
FLOATS = array_files.FLOATS
MOST_LAYERS = 10_000


@dataclass(frozen=True)
class LayerRows:
    """Rows of a vector by the number that a file gives them."""

    rows: Mapping[int, np.ndarray]
    "float32 row [D] by number, as the file counts"
    counting: Counting = ""
    "how the file counts, where its format says so"
    is_stack: bool = False
    "whether the rows are one array, which has all layers of its model"
    is_single: bool = False
    "whether the file holds one row without a number"
    named: int | None = None
    "number of the layer in the name of a file's only array, where it has one"
    about: dict[str, Any] = field(default_factory=dict)
    "facts of the file for the provenance"


@dataclass(frozen=True)
class BlockRows:
    """Rows of a vector by block, as Traitscope counts."""

    rows: dict[int, np.ndarray]
    "float32 row [D] by block"
    n_layers: int | None
    "number of blocks of the model, where the file tells it"
    about: dict[str, Any]
    "provenance"

    @property
    def d_model(self) -> int:
        """Width of the rows."""
        return len(next(iter(self.rows.values())))

    def stacked(self, n_layers: int) -> np.ndarray:
        """The rows as one array [L, D]; a block without a row has zeros."""
        rows_LD = np.zeros((n_layers, self.d_model), dtype=np.float32)
        for block, row_D in self.rows.items():
            rows_LD[block] = row_D
        return rows_LD


def stack(array_ND: np.ndarray, where: str, counting: Counting = "") -> LayerRows:
    """One array [N, D] or [D] as rows. Raises VectorError for another shape."""
    array = checked(array_ND, where)
    if array.ndim == 1:
        return LayerRows({0: array}, counting, is_single=True)
    if array.ndim != 2 or not array.size or len(array) > MOST_LAYERS:
        raise VectorError(
            f"{where} has the shape {list(array.shape)}; expected [layers, d_model] or [d_model];"
            " save it in one of these shapes"
        )
    return LayerRows(dict(enumerate(array)), counting, is_stack=True)


def put(
    arrays: dict[int, np.ndarray],
    names: dict[int, str],
    number: int,
    name: str,
    array: np.ndarray,
    where: str,
) -> None:
    """Add the array of a layer. Raises VectorError where another name has the same layer."""
    if number in arrays:
        raise VectorError(
            f"{where} holds {names[number][:60]!r} and {name[:60]!r}, both of layer {number};"
            " expected one row a layer; save the one that is meant"
        )
    arrays[number], names[number] = array, name


def by_number(arrays: Mapping[int, np.ndarray], where: str, counting: Counting = "") -> LayerRows:
    """Arrays [D] or [1, D] by layer as rows.

    Raises VectorError for none, for another shape, for several widths, and for a negative layer.
    """
    rows: dict[int, np.ndarray] = {}
    for number, array in sorted(arrays.items()):
        row = checked(array, f"{where}, layer {number}")
        if row.ndim > 1 and row.size == row.shape[-1]:
            row = row.reshape(-1)
        if row.ndim != 1 or not row.size:
            raise VectorError(
                f"{where}: layer {number} has the shape {list(row.shape)}; expected [d_model]; save"
                " one row for each layer"
            )
        rows[number] = row
    widths = sorted({len(row) for row in rows.values()})
    if len(widths) != 1 or min(rows) < 0 or max(rows) > MOST_LAYERS:
        raise VectorError(
            f"{where} holds layers {list(rows)[:8]} of widths {widths}; expected layers from 0 on"
            " of one width; save the vector again"
        )
    return LayerRows(rows, counting)


def checked(array: np.ndarray, where: str) -> np.ndarray:
    """The array in float32. Raises VectorError for other kinds of numbers and for NaN."""
    kind = str(array.dtype)
    if kind not in FLOATS:
        raise VectorError(
            f"{where} is {kind[:40]}; expected one of {', '.join(FLOATS)}; convert it to float32"
        )
    with np.errstate(over="ignore"):
        row = np.array(array, dtype=np.float32)
    wrong = int((~np.isfinite(row)).sum())
    if wrong:
        raise VectorError(
            f"{where} holds {wrong} numbers that are not finite in float32; expected finite ones;"
            " make the vector again"
        )
    return row


def in_blocks(
    file: LayerRows, where: str, layers_are: str = "", layer: int | None = None
) -> BlockRows:
    """The rows of a file by block.

    `layers_are` says how the file counts, where its format does not. `layer` is the block of a file
    with one row, and the only block that is kept of another file. Raises ConfigError for settings
    that are missing or that contradict the format, VectorError for a row that is not there.
    """
    if layers_are not in ("", *LAYERS_ARE):
        raise ConfigError(
            f"layers are {layers_are!r}; expected {' or '.join(LAYERS_ARE)}; name one of the two"
        )
    is_row = file.is_single or (len(file.rows) == 1 and file.is_stack and not file.counting)
    if is_row and file.named is not None and layers_are:
        file = LayerRows({file.named: file.rows[0]}, about=file.about)
    elif file.is_single or (is_row and (layer is not None or not layers_are)):
        return _single(file, where, layers_are, layer)
    if file.counting and layers_are not in ("", file.counting):
        raise ConfigError(
            f"{where} counts {file.counting} by its format, and --layers-are says {layers_are};"
            " leave --layers-are out, or name another format with --from"
        )
    counting = file.counting or layers_are
    if not counting:
        tool = "" if file.is_stack else ", or --from steering-vectors if that tool wrote it"
        raise ConfigError(
            f"{where} has {counted(len(file.rows), 'row')} of {_width(file)} and does not say how"
            " it counts layers; expected --layers-are blocks (row 0 leaves block 0) or"
            f" hidden-states (row 0 is the embedding); name one{tool}"
        )
    shift = 1 if counting == "hidden-states" else 0
    rows = {number - shift: row for number, row in file.rows.items() if number >= shift}
    n_layers = len(file.rows) - shift if file.is_stack else None
    about = dict(file.about)
    if file.is_stack and shift:
        about[BEHIND_NORM] = len(file.rows) - 2
    if layer is not None:
        if layer not in rows:
            raise VectorError(
                f"{where} has no row for block {layer}; it has blocks {ranges(rows)}; name one of"
                " these with --layer"
            )
        rows = {layer: rows[layer]}
    if not rows:
        raise VectorError(
            f"{where} has no row but that of the embedding; expected one for each block; name a"
            " file with more rows, or --layers-are blocks"
        )
    return BlockRows(rows, n_layers, about)


def _single(file: LayerRows, where: str, layers_are: str, layer: int | None) -> BlockRows:
    """The row of a file with one, at the block that the user names."""
    if layers_are:
        raise ConfigError(
            f"{where} holds one row without a number, so --layers-are {layers_are} says nothing of"
            " it; expected --layer alone, the block whose output it is added to, counted from 0;"
            " leave --layers-are out"
        )
    if file.named is not None and layer is not None and layer != file.named:
        raise ConfigError(
            f"{where} names its row for layer {file.named}, and --layer is {layer}; expected the"
            f" same; give --layer {file.named}, or --layers-are hidden-states beside --layer"
            f" {max(0, file.named - 1)} where its tool counts the embedding as 0"
        )
    if layer is None or layer < 0:
        raise ConfigError(
            f"{where} holds one row of {_width(file)} and does not say where it belongs; expected"
            " the block whose output it is added to, counted from 0; name it with --layer"
        )
    return BlockRows({layer: file.rows[0]}, None, dict(file.about))


def _width(file: LayerRows) -> int:
    return len(next(iter(file.rows.values())))


def fitted(blocks: BlockRows, n_layers: int, d_model: int, model: str, where: str) -> np.ndarray:
    """The rows as one array [L, D] for a model. Raises VectorError where they do not fit it."""
    if blocks.d_model != d_model:
        raise VectorError(
            f"{where} has rows of {blocks.d_model}, and {model} has d_model {d_model}; name the"
            " model that the vector was made for"
        )
    if blocks.n_layers not in (None, n_layers) or max(blocks.rows) >= n_layers:
        count = blocks.n_layers or max(blocks.rows) + 1
        raise VectorError(
            f"{where} has rows for {count} blocks, and {model} has {n_layers}; name the model that"
            " the vector was made for, or correct --layers-are"
        )
    return blocks.stacked(n_layers)


def ranges(numbers: Mapping[int, Any]) -> str:
    """Numbers as text, the first and the last of a long list without gaps."""
    listed = sorted(numbers)
    if len(listed) > 4 and listed == list(range(listed[0], listed[-1] + 1)):
        return f"{listed[0]} to {listed[-1]}"
    return ", ".join(map(str, listed)) or "none"
