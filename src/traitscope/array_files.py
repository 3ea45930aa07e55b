"""Arrays and tensors in files: read without pickles, written so that a crash leaves no half.

`.npy` and `.npz` files belong to runs. `.safetensors` files may come from anybody.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.npyio import NpzFile

from traitscope import atomic_files
from traitscope.errors import StoreError

if TYPE_CHECKING:
    from torch import Tensor

RESTORE = "restore it, or move the run's directory away and run the command again"
"what to do about an array that cannot be read"
FLOATS = ("float16", "bfloat16", "float32", "float64")
"types of numbers that weights may have"
LETTERS = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint"}
"begins the name of a type of numbers, by what begins it in `.safetensors` files"
LARGEST = float(np.finfo(np.float32).max)
LFS_POINTER = b"version https://git-lfs"
"begins the text that a repository holds in the place of a large file"


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """The array in a `.npy` file; `mapped` leaves it on disk until it is used.

    Raises StoreError for a missing, damaged or shortened file, and for one with Python objects.
    """
    with _whole(path):
        if mapped:
            return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)


def read_arrays(path: Path, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of a `.npz` file by name, by default all. Raises StoreError as read_array does."""
    arrays = {}
    with _whole(path), path.open("rb") as stream, NpzFile(stream, allow_pickle=False) as archive:
        for name in names or archive.files:
            arrays[name] = archive[name]
            if not isinstance(arrays[name], np.ndarray):
                raise ValueError(f"{name} is no array")
    return arrays


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Turn what numpy raises for a file that is not what was written into a StoreError."""
    try:
        yield
    except Exception as error:  # numpy and zipfile raise many types for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        broken = StoreError(
            f"{path} cannot be read ({reason}); expected an array as it was written; {RESTORE}"
        )
        raise atomic_files.exhausted(error) or broken from error


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file in one step. Raises StoreError."""
    atomic_files.write_bytes(path, array_bytes(array))


def array_bytes(array: np.ndarray) -> bytes:
    """The content of a `.npy` file."""
    stream = BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a `.npz` file in one step. Raises StoreError."""
    atomic_files.write_bytes(path, arrays_bytes(arrays))


def arrays_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of a `.npz` file."""
    stream = BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def write_rows(path: Path, shape: Sequence[int], dtype: np.dtype, parts: Iterable) -> None:
    """Write a `.npy` file of this shape in one step, from parts that follow along the first axis.

    One part is in memory at a time. Raises StoreError.
    """

    def pieces() -> Iterator[bytes]:
        header = BytesIO()
        about = {"shape": tuple(shape), "fortran_order": False}
        about["descr"] = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(header, about)
        yield header.getvalue()
        for part in parts:
            yield np.ascontiguousarray(part, dtype).tobytes()

    atomic_files.write_pieces(path, pieces())


def why_unreadable(path: Path, otherwise: str) -> str:
    """Why a file of tensors cannot be read, on one line: that it was not fetched, or `otherwise`.

    Of a large file that was not fetched, a repository holds a pointer, which is text.
    """
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        is_pointer = False
    if is_pointer:
        return "it is a pointer of Git LFS, not the file itself; fetch it with: git lfs pull"
    return otherwise


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Tensors of a `.safetensors` file by name, all of them finite floating-point numbers.

    Raises ValueError for any other file; the message says on one line what is wrong.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        broken = ValueError(f"{path.name} cannot be read: {why_unreadable(path, str(error))}")
        raise atomic_files.exhausted(error) or broken from error
    for name, tensor in tensors.items():
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in FLOATS:
            raise ValueError(
                f"{name} in {path.name} is {kind}, expected one of {', '.join(FLOATS)}"
            )
        if tensor.numel() and not is_finite(tensor):
            raise _not_finite(f"{name} in {path.name}", tensor.double().numpy())
    return tensors


def read_rows(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a `.safetensors` file by name, as float32; torch is not imported.

    Meant for vectors: the file is read whole. Raises ValueError as read_tensors does.
    """
    from safetensors import SafetensorError, deserialize

    try:
        stored_tensors = deserialize(path.read_bytes())
    except (SafetensorError, OSError) as error:
        broken = ValueError(f"{path.name} cannot be read: {why_unreadable(path, str(error))}")
        raise atomic_files.exhausted(error) or broken from error
    rows = {}
    for name, about in stored_tensors:
        rows[name] = _as_float32(f"{name} in {path.name}", about)
    return rows


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a `.safetensors` file; empty where it has none or cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


class NotFiniteError(ValueError):
    """A file of tensors holds NaN, infinity, or a number that float32 cannot hold."""


def _not_finite(what: str, values: np.ndarray) -> NotFiniteError:
    """The error for an array [rows, ...] with numbers that are not finite."""
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(values.astype(np.float32))
    place = f", the first in row {int(np.argwhere(wrong)[0][0])}" if values.ndim > 1 else ""
    return NotFiniteError(
        f"{what} holds numbers that are not finite in float32: {int(wrong.sum())} of"
        f" {values.size}{place}"
    )


def _as_float32(what: str, about: Mapping[str, Any]) -> np.ndarray:
    """A tensor of a file as float32. Raises ValueError for other numbers than finite floats."""
    letters = about["dtype"].rstrip("0123456789")
    kind = LETTERS.get(letters, letters.lower()) + about["dtype"].removeprefix(letters)
    if kind not in FLOATS:
        raise ValueError(f"{what} is {kind}, expected one of {', '.join(FLOATS)}")
    if kind == "bfloat16":  # the upper half of a float32
        values = np.frombuffer(about["data"], "<u2").astype(np.uint32) << 16
        array = values.view(np.float32)
    else:
        array = np.frombuffer(about["data"], np.dtype(kind).newbyteorder("<"))
    if array.size and not -LARGEST <= float(array.min()) <= float(array.max()) <= LARGEST:
        raise _not_finite(what, array.reshape(about["shape"]))
    return array.astype(np.float32).reshape(about["shape"])


def tensor_bytes(tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str]) -> bytes:
    """The content of a `.safetensors` file; the same bytes for the same tensors and metadata."""
    from safetensors.torch import save

    return with_sorted_header(save(dict(tensors), metadata=dict(metadata)))


def with_sorted_header(written: bytes) -> bytes:
    """A `.safetensors` file with its header in order, because safetensors shuffles metadata."""
    end = 8 + int.from_bytes(written[:8], "little")
    header = json.dumps(json.loads(written[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + written[end:]


def is_finite(tensor: "Tensor") -> bool:
    """Whether float32 has all the numbers of a tensor that is not empty.

    It takes no memory, as Tensor.isfinite does.
    """
    least, most = tensor.aminmax()  # a NaN anywhere is in both
    return -LARGEST <= float(least) and float(most) <= LARGEST
