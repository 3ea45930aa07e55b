"""The weights of a model: the files that are loaded, and the tensors in them.

A tensor is its name, its type of numbers, its shape and its bytes. In which files tensors lie, in
which order, and what the files say beside them, makes no other weights. Files are read in pieces.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

from traitscope.errors import ModelError
from traitscope.models.identity.files import json_object, mark, unreadable

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
HEAD, EMBEDDING = "lm_head.weight", re.compile("emb|wte")
"a head that equals the embedding is saved by some versions of transformers and not by others"
PIECE = 2**24
"bytes that are read at once"


class WeightFile(NamedTuple):
    """What a safetensors file holds."""

    digest: str
    "sha256 of the whole file"
    tensors: dict[str, tuple[str, tuple[int, ...], str]]
    "type of numbers, shape and sha256 of the bytes, by name"


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights of a model that are loaded, by name. Raises ModelError."""
    try:
        if (folder / WHOLE).is_file():  # transformers looks for it first
            return [folder / WHOLE]
        index = json_object(folder / INDEX).get("weight_map")
    except OSError as error:
        raise unreadable(folder, error) from error
    if isinstance(index, dict):
        named = {folder / str(name) for name in index.values()}
        return sorted(path for path in named if path.is_file())
    return sorted(folder.glob("*.safetensors"))


def stored_types(folder: Path) -> dict[str, str]:
    """The type of numbers of every matrix of a model, by name, from the headers of its files.

    Files that cannot be read are left to whoever loads them.
    """
    from safetensors import SafetensorError, safe_open

    types = {}
    for file in weight_files(folder):
        with suppress(SafetensorError, OSError), safe_open(file, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                stored = tensors.get_slice(name)
                if len(stored.get_shape()) > 1:
                    types[name] = str(stored.get_dtype())
    return types


def weights_identity(folder: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """What the weights of a model are: type of numbers, shape and sha256 of the bytes, by name.

    Raises ModelError for files that cannot be read.
    """
    tensors: dict[str, tuple[str, tuple[int, ...], str]] = {}
    for file in weight_files(folder):
        tensors.update(read_weights(file).tensors)  # of two with one name the later one is loaded
    for name in [name for name in tensors if name.endswith(HEAD)]:
        others = [other for other in tensors if EMBEDDING.search(other) and other != name]
        if any(tensors[other] == tensors[name] for other in others):
            del tensors[name]
    return tensors


def same_weights(left: Path, right: Path) -> bool:
    """Whether two models have equal weights. Raises ModelError for files that cannot be read."""
    return weights_identity(left) == weights_identity(right)


def read_weights(file: Path) -> WeightFile:
    """What a safetensors file holds; kept for as long as the file stays as it is.

    Raises ModelError for a file that cannot be read, or is none.
    """
    try:
        return _read(*mark(file))
    except OSError as error:
        raise unreadable(file.parent, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        from traitscope.array_files import why_unreadable

        damaged = f"it is damaged ({type(error).__name__}: {error})"
        raise ModelError(
            f"{file} cannot be read; {why_unreadable(file, damaged)}; expected a whole"
            " *.safetensors file; fetch the model again"
        ) from error


@lru_cache(maxsize=1024)
def _read(path: str, changed: int, size: int) -> WeightFile:
    """One pass over a file. Raises ValueError, KeyError or TypeError for what is not whole."""
    whole = hashlib.sha256()
    tensors = {}
    with open(path, "rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise ValueError(f"its header does not fit into its {size} bytes")
        header = stream.read(length)
        whole.update(start + header)
        end_before = 0
        for name, begin, end, kind in _in_file_order(json.loads(header)):
            if begin != end_before or end < begin:
                raise ValueError(f"tensor {name} is at {begin} to {end}, expected {end_before}")
            digest = hashlib.sha256()
            for piece in _pieces(stream, end - begin):
                whole.update(piece)
                digest.update(piece)
            tensors[name] = (*kind, digest.hexdigest())
            end_before = end
        if stream.read(1):
            raise ValueError("it is longer than its header says")
    return WeightFile(whole.hexdigest(), tensors)


def _in_file_order(
    header: dict[str, Any],
) -> list[tuple[str, int, int, tuple[str, tuple[int, ...]]]]:
    """Name, begin and end of each tensor, with its type of numbers and its shape."""
    places = []
    for name, about in header.items():
        if name != "__metadata__":
            begin, end = about["data_offsets"]
            kind = (str(about["dtype"]), tuple(map(int, about["shape"])))
            places.append((name, int(begin), int(end), kind))
    return sorted(places, key=lambda place: place[1:3])


def _pieces(stream: IO[bytes], length: int) -> Iterator[bytes]:
    """The next bytes of a file, in pieces. Raises ValueError where it has fewer."""
    while length > 0:
        piece = stream.read(min(length, PIECE))
        if not piece:
            raise ValueError("it is shorter than its header says")
        length -= len(piece)
        yield piece
