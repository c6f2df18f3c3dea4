"""Pixels and labels in memory, checked -> `Images`; labels of any kind -> 0..C-1, with names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.errors import DataError
from stopgrad.images.types import Images, Labels, Pixels, seal_fingerprint

# N labels as they stand. Lists, not arrays: NumPy gives each string the room of the longest one
# and drops zero bytes at its end.
RawLabels = list[int] | list[str]


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
        sources: N names of where the images came from, or nothing.

    Raises:
        DataError: For another shape or type, or labels out of range.
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise DataError(
            f"pixels of shape {pixels.shape} and type {pixels.dtype}",
            expected="at least one image, shape (N, H, W, 3), type uint8",
            hint="convert the array to this layout",
        )
    pixels = np.ascontiguousarray(pixels)
    if labels is None:
        names: tuple[str, ...] = ()
    else:
        names, labels = check_labels(labels, class_names=class_names, count=len(pixels))
    digest = hashlib.sha256(pixels.data)
    mark = seal_fingerprint(digest, shape=pixels.shape, labels=labels, class_names=names)
    return Images(pixels, labels, names, mark, tuple(sources))


class CheckedLabels(NamedTuple):
    """C class names and labels (N,) int64 in 0..C-1."""

    class_names: tuple[str, ...]
    labels: Labels


def check_labels(
    labels: npt.NDArray[Any], *, class_names: Sequence[str], count: int, where: str = ""
) -> CheckedLabels:
    """Labels as int64 in 0..C-1, with a name for each class.

    Without names C is the largest label + 1, which may not exceed the number of images: a
    column of identifiers is no label. `where` completes the message.

    Raises:
        DataError: For labels out of range or not as many as there are images.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels{where} of shape {labels.shape} and type {labels.dtype}",
            expected=f"shape ({count},), integers",
            hint="give one label for each image, or none at all",
        )
    classes = len(class_names) or max(1, min(int(labels.max()) + 1, count))
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"label {labels[wrong[0]]} at image {wrong[0]}{where} ({len(wrong)} out of range)",
            expected=f"labels from 0 to {classes - 1}",
            hint="correct the labels or the list of class names",
        )
    names = tuple(class_names) or tuple(str(label) for label in range(classes))
    return CheckedLabels(names, np.ascontiguousarray(labels, dtype=np.int64))


class NumberedLabels(NamedTuple):
    """C class names, and labels (N,) int64 of each split, or None."""

    class_names: tuple[str, ...]
    train: Labels | None
    test: Labels | None


def number_labels(
    train: RawLabels | None, test: RawLabels | None, *, class_names: Sequence[str] = ()
) -> NumberedLabels:
    """Number the labels of both splits by the classes of the training split.

    Integers are taken as they are; strings are numbered in their sorted order (by code point,
    so that no locale changes it). Labels of a test split count only beside those of a train split.

    Raises:
        DataError: For labels out of range, and for classes that only the test split has.
    """
    if train is None:
        return NumberedLabels((), None, None)
    if isinstance(train[0], str):
        class_names = sorted(set(train))
        train = _positions(train, class_names)
        test = None if test is None else _positions(test, class_names)
    named = check_labels(
        np.array(train), class_names=class_names, count=len(train), where=" of train"
    )
    if test is None:
        return NumberedLabels(named.class_names, named.labels, None)
    if isinstance(test[0], str):
        raise other_classes(sorted(set(map(str, test))), named.class_names)
    checked = check_labels(
        np.array(test), class_names=named.class_names, count=len(test), where=" of the test split"
    )
    return NumberedLabels(named.class_names, named.labels, checked.labels)


def _positions(labels: RawLabels, class_names: Sequence[str]) -> list[int]:
    position: dict[int | str, int] = {name: index for index, name in enumerate(class_names)}
    unknown = sorted({str(label) for label in labels if label not in position})
    if unknown:
        raise other_classes(unknown, class_names)
    return [position[label] for label in labels]


def other_classes(test: Sequence[str], train: Sequence[str]) -> DataError:
    """The error for a test split whose classes are not those of the train split."""
    return DataError(
        f"classes {_few(test)} in the test split",
        expected=f"those of the train split, {_few(train)}",
        hint="give both splits the same classes, under the same names",
    )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:80]) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "(none)"
