"""Writes the images of the package from the four files of Fashion-MNIST:
python scripts/make_images.py FOLDER.

Xiao et al. 2017, arXiv 1708.07747, github.com/zalandoresearch/fashion-mnist, MIT licence. The first
images of both parts are padded to 32x32, averaged to 8x8, and rounded to 16 grey levels.
"""

import sys
from pathlib import Path

import numpy as np

from traitscope import array_files
from traitscope.data.package_files import bundled_file
from traitscope.studies.toy_nets import images

COUNTS = {"train": 2_000, "test": 1_000}
"images of each part"


def reduced(pictures: np.ndarray) -> np.ndarray:
    """8x8 pixels with grey levels 0 to 15, of images of 28x28 with levels 0 to 255."""
    padded = np.pad(pictures, ((0, 0), (2, 2), (2, 2))).astype(np.float64)
    means = padded.reshape(-1, 8, 4, 8, 4).mean((2, 4))
    return np.round(means / 17).astype(np.uint8)


def write(folder: Path) -> Path:
    """Write the file of the package."""
    arrays = dict(zip(images.PARTS, map(images._of_idx, images.files_of(folder)), strict=True))
    kept = {}
    for part, count in COUNTS.items():
        kept[f"x_{part}"] = reduced(arrays[f"x_{part}"][:count])
        kept[f"y_{part}"] = arrays[f"y_{part}"][:count]
    target = bundled_file(*images.EMBEDDED)
    array_files.write_arrays(target, kept)
    return target


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
