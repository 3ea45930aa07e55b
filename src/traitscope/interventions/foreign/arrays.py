"""Steering vectors as plain arrays: `.safetensors`, `.npy`, `.npz`, and repeng's `.gguf`.

A GGUF control vector has float32 tensors `direction.K` of one length, each added to the output of
block K. llama.cpp refuses K = 0. Sources: `extract.py` of repeng; `common.cpp` of llama.cpp.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from traitscope import array_files
from traitscope.errors import StoreError, VectorError
from traitscope.interventions.foreign import layer_rows
from traitscope.interventions.foreign.layer_rows import BlockRows, LayerRows

LAST_NUMBER = re.compile(r"(\d+)(\D*)$")
NEGATIVE = re.compile(r"(?:^|[^A-Za-z0-9])-\d+\D*$")
"a name whose number is below 0, such as -1 or layer_-1, but not layer-1"
NAMES_A_LAYER = re.compile(
    r"(?:^|[^a-z])(?:layers?|blocks?|h|hidden_states?|direction)[^a-z0-9]*(\d{1,9})(?!.*\d)", re.I
)
"a name of one array that says which layer it belongs to, such as layer_2"
LAYERS_ARE = "layers_are"
"key of the metadata of a `.safetensors` file that says how it counts"
ARCHITECTURE = "controlvector"
DIRECTION = "direction."
UNKNOWN = "unknown"
"""family of the model in a control vector, where nobody said it: repeng reads no file without one,
and compares it where vectors are added"""


def read_safetensors(path: Path) -> LayerRows:
    """The rows of a `.safetensors` file. Raises VectorError."""
    try:
        tensors = array_files.read_rows(path)
    except ValueError as error:
        raise VectorError(
            f"{path} holds no vector: {error}; convert it to one tensor of float32"
        ) from None
    rows = by_name(tensors, str(path))
    said = array_files.metadata_of(path).get(LAYERS_ARE, "")
    return replace(rows, counting=said) if said in layer_rows.LAYERS_ARE else rows


def read_numpy(path: Path) -> LayerRows:
    """The rows of a `.npy` or `.npz` file, without pickles. Raises VectorError."""
    try:
        if path.suffix == ".npz":
            return by_name(array_files.read_arrays(path), str(path))
        return layer_rows.stack(array_files.read_array(path), str(path))
    except StoreError as error:
        reason = str(error.__cause__ or error)[:160]
        raise VectorError(
            f"{path} holds no array of numbers ({reason}); expected one of float32; save it with"
            " numpy.save, without Python objects"
        ) from None


def by_name(arrays: Mapping[str, np.ndarray], where: str) -> LayerRows:
    """One array, or one a layer, whose names differ in the layer's number alone.

    Raises VectorError for other names, and for a number below 0.
    """
    for name in arrays:
        if NEGATIVE.search(name):
            raise VectorError(
                f"{where} holds {_shown(name)}, a layer below 0; expected layers from 0 on; count"
                " them from the first one where the file was made"
            )
    if len(arrays) == 1:
        name, array = next(iter(arrays.items()))
        match = NAMES_A_LAYER.search(name)
        rows = layer_rows.stack(array, where)
        return rows if match is None else replace(rows, named=int(match[1]))
    numbered: dict[int, np.ndarray] = {}
    names: dict[int, str] = {}
    texts: dict[tuple[str, str], str] = {}
    for name, array in arrays.items():
        match = LAST_NUMBER.search(name)
        if match is None:
            raise VectorError(
                f"{where} holds {len(arrays)} arrays such as {name[:60]!r}; expected one array, or"
                " one a layer with its number at the end of the name; save the vector alone"
            )
        texts.setdefault((name[: match.start()], match[2]), name)
        if len(texts) > 1:
            raise VectorError(
                f"{where} holds the arrays {' and '.join(map(_shown, texts.values()))}, whose names"
                " differ in more than a number; expected one array, or one a layer of one vector;"
                " save each vector alone"
            )
        layer_rows.put(numbered, names, int(match[1][:9]), name, array, where)
    if not numbered:
        raise VectorError(f"{where} holds no array; expected one; save the vector again")
    return layer_rows.by_number(numbered, where)


def _shown(name: str) -> str:
    """A name as a message shows it."""
    return repr(name[:60])


def read_gguf(path: Path) -> LayerRows:
    """The rows of a GGUF control vector. Raises VectorError for any other file."""
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        field = reader.get_field("general.architecture")
        architecture = "none" if field is None else str(field.contents())
        field = reader.get_field(f"{ARCHITECTURE}.{layer_rows.MODEL_HINT}")
        hint = UNKNOWN if field is None else " ".join(str(field.contents()).split())[:60]
        tensors = list(reader.tensors)
    except Exception as error:  # the reader raises many types for damaged files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise VectorError(
            f"{path} is no whole GGUF file ({reason}); expected a control vector; copy it again"
        ) from None
    if architecture != ARCHITECTURE:
        raise VectorError(
            f"{path} has the architecture {architecture[:40]!r}; expected {ARCHITECTURE}, as repeng"
            " writes it; name a control vector"
        )
    arrays: dict[int, np.ndarray] = {}
    names: dict[int, str] = {}
    for tensor in tensors:
        number = tensor.name.removeprefix(DIRECTION)
        if not tensor.name.startswith(DIRECTION) or not number.isdecimal() or len(number) > 9:
            raise VectorError(
                f"{path} holds the tensor {tensor.name[:60]!r}; expected {DIRECTION}BLOCK only;"
                " name a control vector"
            )
        array = np.array(tensor.data)
        layer_rows.put(arrays, names, int(number), tensor.name, array, str(path))
    if not arrays:
        raise VectorError(
            f"{path} holds no tensor; expected {DIRECTION}BLOCK; export the vector again"
        )
    about = {} if hint == UNKNOWN else {layer_rows.MODEL_HINT: hint}
    return replace(layer_rows.by_number(arrays, str(path), "blocks"), about=about)


def gguf_bytes(blocks: BlockRows) -> bytes:
    """A GGUF control vector as llama.cpp and repeng read it, without block 0.

    Raises VectorError where block 0 alone has a row.
    """
    import gguf

    kept = {block: row for block, row in blocks.rows.items() if block > 0}
    if not kept:
        raise VectorError(
            "the vector has a row for block 0 alone, which llama.cpp refuses in GGUF; expected a"
            " row for a later block; choose another format with --to"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vector.gguf"
        writer = gguf.GGUFWriter(path, ARCHITECTURE)
        hint = str(blocks.about.get(layer_rows.MODEL_HINT) or UNKNOWN)
        writer.add_string(f"{ARCHITECTURE}.{layer_rows.MODEL_HINT}", hint)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(kept))
        for block, row_D in sorted(kept.items()):
            writer.add_tensor(f"{DIRECTION}{block}", np.ascontiguousarray(row_D, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def safetensors_bytes(rows_LD: np.ndarray) -> bytes:
    """One tensor `rows` [L, D] by block."""
    from safetensors.numpy import save

    metadata = {LAYERS_ARE: "blocks"}
    return save({"rows": rows_LD}, metadata=metadata)


def numpy_bytes(rows_LD: np.ndarray, zipped: bool) -> bytes:
    """One array [L, D] by block, as `.npz` or as `.npy`."""
    if zipped:
        return array_files.arrays_bytes({"rows": rows_LD})
    return array_files.array_bytes(rows_LD)
