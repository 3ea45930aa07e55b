"""Whether two folders hold the same weights, whatever files they were saved in.

The bytes of each tensor are compared, and the first difference ends it. A head that is tied to the
embedding is saved by some versions of transformers and not by others.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from traitscope.errors import ModelError
from traitscope.models.identity.digest import weight_files, weights_identity

HEADS = {"lm_head.weight"}
"weights that one of two folders may lack"
PIECE = 2**24
"bytes that are compared at once"


class Stored(NamedTuple):
    """Where the bytes of a tensor lie."""

    file: Path
    begin: int
    end: int
    kind: tuple[str, tuple[int, ...]]
    "type of numbers, and shape"


def same_weights(left: Path, right: Path) -> bool:
    """Whether two models have equal weights. Raises ModelError for files that cannot be read."""
    if weights_identity(left) == weights_identity(right):
        return True
    try:
        ours, theirs = _tensors(left), _tensors(right)
        if not ours or not (ours.keys() ^ theirs.keys()) <= HEADS:
            return False
        for name in sorted(ours.keys() & theirs.keys()):
            if ours[name].kind != theirs[name].kind or not _equal(ours[name], theirs[name]):
                return False
        return True
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the weights in {left} and {right} cannot be compared ({type(error).__name__}:"
            f" {error}); expected whole *.safetensors files; fetch the models again"
        ) from error


def _tensors(folder: Path) -> dict[str, Stored]:
    """The tensors in the files of a model, by name."""
    tensors: dict[str, Stored] = {}
    for file in weight_files(folder):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
        for name, about in header.items():
            if name != "__metadata__":
                begin, end = about["data_offsets"]
                kind = (about["dtype"], tuple(about["shape"]))
                tensors[name] = Stored(file, 8 + length + begin, 8 + length + end, kind)
    return tensors


def _equal(left: Stored, right: Stored) -> bool:
    for ours, theirs in zip(_pieces(left), _pieces(right), strict=True):
        if ours != theirs:
            return False
    return True


def _pieces(stored: Stored) -> Iterator[bytes]:
    with stored.file.open("rb") as stream:
        stream.seek(stored.begin)
        left = stored.end - stored.begin
        while left > 0:
            piece = stream.read(min(left, PIECE))
            if len(piece) < min(left, PIECE):
                raise ValueError(f"{stored.file.name} is shorter than its header says")
            left -= len(piece)
            yield piece
