"""Pixels and labels in memory, checked -> `Images`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.errors import DataError
from stopgrad.images.pixels import Pixels
from stopgrad.images.types import Images, Labels, seal_fingerprint


def images_from_arrays(
    pixels: Pixels,
    *,
    labels: Labels | None = None,
    class_names: Sequence[str] = (),
    sources: Sequence[str] = (),
    channels: int = 3,
) -> Images:
    """Images from arrays in memory, checked and fingerprinted.

    Args:
        pixels: (N, H, W, C) uint8.
        labels: (N,) integers in 0..C-1, or None.
        class_names: C names; by default "0", "1", ...
        sources: N names of where the images came from, or ().
        channels: C; 3 for colours and gray.

    Raises:
        DataError: For another shape or type, or labels out of range.
    """
    fit = pixels.ndim == 4 and pixels.shape[3] == channels and pixels.dtype == np.uint8
    if not fit or not pixels.size:
        raise DataError(
            f"pixels of shape {pixels.shape} and type {pixels.dtype}",
            expected=f"at least one image, shape (N, H, W, {channels}), type uint8",
            hint="convert the array to this layout",
        )
    pixels = np.ascontiguousarray(pixels)
    if labels is None:
        names: tuple[str, ...] = ()
    else:
        names, labels = _checked(labels, class_names=class_names, count=len(pixels))
    digest = hashlib.sha256(pixels.data)
    mark = seal_fingerprint(digest, shape=pixels.shape, labels=labels, class_names=names)
    return Images(pixels, labels, names, mark, tuple(sources))


class _Checked(NamedTuple):
    """C class names and labels (N,) int64 in 0..C-1."""

    class_names: tuple[str, ...]
    labels: Labels


def _checked(labels: npt.NDArray[Any], *, class_names: Sequence[str], count: int) -> _Checked:
    """Labels as int64 in 0..C-1, with a name for each class.

    Without names C is the largest label + 1, which may not exceed the number of images:
    identifiers are not labels.

    Raises:
        DataError: For labels out of range, or another number of them than of images.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels of shape {labels.shape} and type {labels.dtype}",
            expected=f"shape ({count},), integers",
            hint="give one label for each image, or none at all",
        )
    classes = len(class_names) or max(1, min(int(labels.max()) + 1, count))
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"label {labels[wrong[0]]} at image {wrong[0]} ({len(wrong)} out of range)",
            expected=f"labels from 0 to {classes - 1}",
            hint="correct the labels or the list of class names",
        )
    names = tuple(class_names) or tuple(str(label) for label in range(classes))
    return _Checked(names, np.ascontiguousarray(labels, dtype=np.int64))
