"""What the rest of the house sees of images: arrays, names and a fingerprint.

In: arrays. Out: `Images` (N, H, W, 3) uint8 with labels (N,) int64 or none, and the named tuples
that hold them. NumPy only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from stopgrad.errors import DataError
from stopgrad.images.packed import Packed

T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
Rows = Pixels | Packed  # (N, H, W, 3) uint8, read by row


class Track(Protocol):
    """How a caller shows progress: the same items come back, one by one."""

    def __call__(self, items: Iterable[T], description: str, total: int, /) -> Iterable[T]:
        """Pass through `total` items under a description."""
        ...


def no_progress(items: Iterable[T], description: str, total: int, /) -> Iterable[T]:
    """Show nothing."""
    return items


@dataclass(frozen=True)
class Images:
    """Pictures of one size, with their labels where there are any.

    Attributes:
        pixels: (N, H, W, 3) uint8: a C-contiguous array, which may be a memory map, or `Packed`.
        labels: (N,) int64 in 0..C-1, or None.
        class_names: C names, () when there are no labels.
        fingerprint: sha256 in hex of pixels, labels and class names, in order.
        sources: Where each picture came from (a path relative to the data, `file:row` in
            Parquet), or ().
        whole_side: px. A whole picture goes through an encoder with its short side brought down
            to this; views are cut from the pixels as they are. 0: as they are, always.
    """

    pixels: Rows
    labels: Labels | None
    class_names: tuple[str, ...]
    fingerprint: str
    sources: tuple[str, ...] = ()
    whole_side: int = 0

    def __post_init__(self) -> None:
        assert len(self.pixels.shape) == 4, self.pixels.shape
        assert self.pixels.shape[3] == 3, self.pixels.shape
        assert self.pixels.dtype == np.uint8, self.pixels.dtype
        assert isinstance(self.pixels, Packed) or self.pixels.flags.c_contiguous
        assert self.labels is None or self.labels.shape == (len(self.pixels),)
        assert not self.sources or len(self.sources) == len(self.pixels)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def whole_size(self) -> tuple[int, int]:
        """Height and width, px, of a picture that goes through an encoder whole."""
        height, width = self.pixels.shape[1:3]
        short = min(height, width)
        if not 0 < self.whole_side < short:
            return height, width
        return round(height * self.whole_side / short), round(width * self.whole_side / short)

    def take(self, indices: Indices) -> Images:
        """The pictures at these indices (M,), in their order: copied, or still on disk.

        The fingerprint is derived from the parent's and the indices, so it needs no second pass.
        """
        indices = np.asarray(indices, dtype=np.int64)
        derived = hashlib.sha256(self.fingerprint.encode() + indices.astype("<i8").tobytes())
        return Images(
            pixels=_rows_at(self.pixels, indices),
            labels=None if self.labels is None else self.labels[indices],
            class_names=self.class_names,
            fingerprint=derived.hexdigest(),
            sources=tuple(self.sources[i] for i in indices) if self.sources else (),
            whole_side=self.whole_side,
        )


def _rows_at(pixels: Rows, indices: Indices) -> Rows:
    if isinstance(pixels, Packed):
        return pixels.take(indices)
    return np.ascontiguousarray(pixels[indices])


class LeftOut(NamedTuple):
    """A picture that cannot be read: its split ("train", "test"), its name there, and why."""

    split: str
    name: str
    reason: str


class Dataset(NamedTuple):
    """A data set by name; `test` is its own test split, if it has one."""

    name: str
    train: Images
    test: Images | None
    left_out: tuple[LeftOut, ...] = ()  # damaged pictures that are in neither split

    @property
    def pictures(self) -> int:
        """How many pictures there are, damaged ones included."""
        return len(self.train) + len(self.test or ()) + len(self.left_out)


class Normalization(NamedTuple):
    """Mean and standard deviation of pixels / 255, by channel (R, G, B)."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Split(NamedTuple):
    """A training set cut in two; `validation_indices` (M,) refer to the whole, ascending."""

    train: Images
    validation: Images
    validation_indices: Indices


def images_from_arrays(
    pixels: Pixels,
    *,
    labels: Labels | None = None,
    class_names: Sequence[str] = (),
    sources: Sequence[str] = (),
) -> Images:
    """Images from arrays in memory, checked and fingerprinted.

    Args:
        pixels: (N, H, W, 3) uint8.
        labels: (N,) integers in 0..C-1, or None.
        class_names: C names; left out, the classes are called "0", "1", ...
        sources: N names of where the pictures came from, or nothing.

    Raises:
        DataError: For another shape or type, or labels out of range.
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(
            f"pixels of shape {pixels.shape} and type {pixels.dtype}",
            expected="at least one picture, shape (N, H, W, 3), type uint8",
            hint="bring the array to this layout",
        )
    pixels = np.ascontiguousarray(pixels)
    if labels is None:
        names: tuple[str, ...] = ()
    else:
        names, labels = check_labels(labels, class_names=class_names, count=len(pixels))
    mark = fingerprint([pixels], shape=pixels.shape, labels=labels, class_names=names)
    return Images(pixels, labels, names, mark, tuple(sources))


class CheckedLabels(NamedTuple):
    """C class names and labels (N,) int64 in 0..C-1."""

    class_names: tuple[str, ...]
    labels: Labels


def check_labels(
    labels: npt.NDArray[Any], *, class_names: Sequence[str], count: int, where: str = ""
) -> CheckedLabels:
    """Labels as int64 in 0..C-1, with a name for each class.

    Without names C is the largest label + 1, which may not exceed the number of pictures: a
    column of identifiers is no label. `where` completes the message.

    Raises:
        DataError: For labels out of range or as many as there are no pictures.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels{where} of shape {labels.shape} and type {labels.dtype}",
            expected=f"shape ({count},), integers",
            hint="give one label for each picture, or none at all",
        )
    classes = len(class_names) or max(1, min(int(labels.max()) + 1, count))
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"label {labels[wrong[0]]} at picture {wrong[0]}{where} ({len(wrong)} out of range)",
            expected=f"labels from 0 to {classes - 1}",
            hint="correct the labels or the list of class names",
        )
    names = tuple(class_names) or tuple(str(label) for label in range(classes))
    return CheckedLabels(names, np.ascontiguousarray(labels, dtype=np.int64))


def fingerprint(
    chunks: Iterable[Pixels],
    *,
    shape: tuple[int, ...],
    labels: Labels | None,
    class_names: Sequence[str],
) -> str:
    """sha256 in hex of what is seen and nothing else: no paths, no dates, no file format.

    Args:
        chunks: The pixels in order, in pieces of any size.
        shape: (N, H, W, 3) of all of them.
        labels: (N,) or None.
        class_names: C names.
    """
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk.data)
    return seal_fingerprint(digest, shape=shape, labels=labels, class_names=class_names)


def seal_fingerprint(
    digest: hashlib._Hash,
    *,
    shape: tuple[int, ...],
    labels: Labels | None,
    class_names: Sequence[str],
) -> str:
    """The fingerprint, given a digest that has already taken in the pixels."""
    header = json.dumps([list(shape), labels is not None, list(class_names)])
    digest.update(header.encode())
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()
