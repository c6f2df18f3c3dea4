"""5,000 real MNIST digits inside this package: 500 of each digit from MNIST's training set.

There is no test split, so a fixed one is made here: every fifth image of each digit, which needs no
random numbers and is always the same. `mnist5k.LICENSE.txt` says where the file comes from.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stopgrad.errors import DataError
from stopgrad.images.pixels import Indices, Pixels
from stopgrad.images.types import Contents, DataSource, Encoded, Labels, SplitReader, stamp

FILE = Path(__file__).parents[1] / "mnist5k.npz"
SIDE = 28  # px
TEST_EVERY = 5


def mnist5k() -> DataSource:
    """The embedded digits: 4,000 training and 1,000 test images, 28 x 28, gray."""
    return DataSource("mnist5k", str(FILE.parent), (stamp(FILE, name=FILE.name),), _open)


def _open() -> Contents:
    pixels, labels = _read(FILE)
    test = _rank(labels) % TEST_EVERY == TEST_EVERY - 1
    return Contents(
        class_names=tuple(str(digit) for digit in range(10)),
        train=_reader(np.flatnonzero(~test), pixels, labels),
        test=_reader(np.flatnonzero(test), pixels, labels),
    )


def _read(path: Path) -> tuple[Pixels, Labels]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return arrays["pixels"], arrays["labels"].astype(np.int64)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f"the embedded digits in {path} cannot be read ({error})",
            expected="the file that comes with stopgrad",
            hint="install stopgrad again",
        ) from error


def _rank(labels: Labels) -> Indices:
    """(N,): how many images of the same digit come before each."""
    rank = np.empty_like(labels)
    for digit in np.unique(labels):
        mine = np.flatnonzero(labels == digit)
        rank[mine] = np.arange(len(mine))
    return rank


def _reader(indices: Indices, pixels: Pixels, labels: Labels) -> SplitReader:
    return SplitReader(len(indices), labels[indices], functools.partial(_items, indices, pixels))


def _items(indices: Indices, pixels: Pixels) -> Iterator[Encoded]:
    # Binary PGM: a header and the raw values, so that digits are decoded as all images are.
    header = f"P5 {SIDE} {SIDE} 255\n".encode()
    for index in indices:
        yield Encoded(f"mnist5k:{index}", header + pixels[index].tobytes())
