"""Labelled images: those of the package, MNIST's four files, or one .npz; scaled to [-1, 1].

The package holds images of Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747; MIT licence). They
are averaged to 8x8 pixels with 16 grey levels: 2,000 for training and 1,000 held out.

Shapes: N images, D pixels.
"""

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from traitscope import array_files
from traitscope.data.package_files import bundled_file
from traitscope.errors import DataError, StoreError
from traitscope.studies.toy_nets.nets import CLASSES

EMBEDDED = ("fashion_mnist", "8x8.npz")
PARTS = ("x_train", "y_train", "x_test", "y_test")
"arrays of an .npz file"
IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
"names of MNIST's files, with or without .gz, in the order of PARTS"
EXPECTED = (
    f"expected an .npz with {', '.join(PARTS)}, or a folder with {', '.join(IDX)} (.gz or not)"
)
MNIST_START = (5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5, 3, 6, 1, 7, 2, 8, 6, 9)
"first labels of MNIST's training images"
MNIST_IMAGES = 60_000


@dataclass(frozen=True)
class Images:
    """Images for training and held-out ones, with their classes."""

    train_ND: Tensor
    """Pixels in [-1, 1], float32."""
    train_labels_N: Tensor
    """Classes 0 to 9, int64."""
    test_ND: Tensor
    """Pixels of held-out images."""
    test_labels_N: Tensor
    """Their classes."""

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return self.train_ND.shape[1]


def files_of(data: Path | None) -> tuple[Path, ...]:
    """Return the files behind a setting `data`: none, one .npz, or four idx files in order.

    Raises DataError for anything else.
    """
    if data is None:
        return ()
    if data.is_file() and data.suffix == ".npz":
        return (data,)
    if not data.is_dir():
        what = f"{data} is a file" if data.exists() else f"{data} does not exist"
        raise DataError(f"data: {what}; {EXPECTED}; name one")
    files = []
    for name in IDX:
        present = [path for path in (data / name, data / f"{name}.gz") if path.is_file()]
        if not present:
            raise DataError(f"data: {data} has no {name}; {EXPECTED}; add it")
        files.append(present[0])
    return tuple(files)


def read(files: tuple[Path, ...]) -> Images:
    """Return the images of an .npz, of four idx files, or without any those of the package.

    Raises DataError for files that are damaged or do not fit together.
    """
    if not files:
        files = (bundled_file(*EMBEDDED),)
    if len(files) == 1:
        arrays = _of_npz(files[0])
    elif len(files) == len(IDX):
        arrays = dict(zip(PARTS, map(_of_idx, files), strict=True))
    else:
        raise DataError(f"data: {len(files)} files; {EXPECTED}; name one or four")
    where = str(files[0])
    for part in ("train", "test"):
        _check(arrays[f"x_{part}"], arrays[f"y_{part}"], f"{where}, {part}")
    top = float(arrays["x_train"].max())
    train, test = (_scaled(arrays[name], top) for name in ("x_train", "x_test"))
    if train.shape[1] != test.shape[1]:
        raise DataError(
            f"data: {where} has training images of {train.shape[1]} pixels and test images of"
            f" {test.shape[1]}; expected the same; correct them"
        )
    labels = (torch.from_numpy(arrays[name].astype(np.int64)) for name in ("y_train", "y_test"))
    return Images(train, next(labels), test, next(labels))


def is_mnist(files: tuple[Path, ...]) -> bool:
    """Return whether these are MNIST's training images, by their number and first labels."""
    if not files:
        return False
    labels = _of_npz(files[0])["y_train"] if len(files) == 1 else _of_idx(files[1])
    return len(labels) == MNIST_IMAGES and tuple(labels[: len(MNIST_START)]) == MNIST_START


def _scaled(images: np.ndarray, top: float) -> Tensor:
    """Return pixels in [-1, 1]; `top` is the value of white."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    return torch.from_numpy(flat / np.float32(top) * 2 - 1)


def _of_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = array_files.read_arrays(path)
    except StoreError as error:
        raise DataError(f"data: {error}; {EXPECTED}; pickled arrays are not read") from error
    missing = [name for name in PARTS if name not in arrays]
    if missing:
        raise DataError(f"data: {path} has no {', '.join(missing)}; {EXPECTED}; add it")
    return arrays


def _of_idx(path: Path) -> np.ndarray:
    """Return the bytes of an idx file in their shape."""
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as stream:
            content = stream.read()
        zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        if zeros or kind != 8:
            raise ValueError(f"type {kind} of numbers instead of bytes")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError(
            f"data: {path} is no idx file of bytes ({error}); expected one of MNIST's form; get it"
            " again"
        ) from error


def _check(images: np.ndarray, labels: np.ndarray, where: str) -> None:
    """Raise DataError for images and labels that do not fit together or hold other values."""
    if images.ndim not in (2, 3) or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(
            f"data: {where} has images of shape {images.shape} and labels of shape {labels.shape};"
            " expected one label for each image of one or two dimensions; correct them"
        )
    if not len(images):
        raise DataError(f"data: {where} has no image; expected some; add them")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= CLASSES:
        raise DataError(
            f"data: {where} has labels of type {labels.dtype} from {labels.min()} to"
            f" {labels.max()}; expected whole numbers from 0 to {CLASSES - 1}; correct them"
        )
    if images.dtype.kind not in "iuf" or not np.isfinite(images).all():
        raise DataError(
            f"data: {where} has pixels of type {images.dtype}; expected finite numbers; correct"
            " them"
        )
    if images.min() < 0 or images.max() <= 0:
        raise DataError(
            f"data: {where} has pixels from {images.min()} to {images.max()}; expected 0 for black"
            " and a positive number for white; shift them"
        )
