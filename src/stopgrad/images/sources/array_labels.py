"""Arrays of labels -> labels as they stand in the data: numbers, text or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stopgrad.images.sources.array_files import StoredArray
from stopgrad.images.sources.array_images import AnyArray

MOST_CLASSES = 10_000  # columns of one-hot labels
NAMED = 5  # arrays that a message names
MISSING = frozenset({"", "nan", "null", "<na>", "na", "n/a", "#n/a", "none"})
"""Text that stands where there is no label, in small letters; as pandas reads it."""


def labels_in(arrays: Sequence[StoredArray], *, count: int) -> list[int | str | None] | str:
    """The labels in the parts of an array, or why they are none of so many images."""
    named = ", ".join(repr(array.name) for array in arrays[:NAMED])
    rows = sum(array.shape[0] for array in arrays if array.shape)
    if rows != count:
        return f"the labels in {named} are not used: {rows:,} for {count:,} images"
    shapes = {array.shape[1:] for array in arrays}
    if max(map(np.prod, shapes)) > MOST_CLASSES:
        return f"{named} holds no labels of images: its shape is {arrays[0].shape}"
    array = np.concatenate([array.read() for array in arrays]).reshape(count, -1)
    return labels_of_rows(array, named)


def labels_of_rows(array: AnyArray, named: str) -> list[int | str | None] | str:
    """The labels in an array (N, 1) or one-hot (N, C), or why they are none."""
    if array.shape[1] > 1:
        if array.dtype.kind not in "buif" or not is_one_hot(array):
            return f"{named} holds several labels for each image, which are not used"
        array = array.argmax(axis=1)[:, None]
    return as_labels(array[:, 0], named)


def is_one_hot(array: AnyArray) -> bool:
    """Whether each row (C,) of numbers is a single 1 among 0s."""
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())


def as_labels(array: AnyArray, named: str) -> list[int | str | None] | str:
    """Whole numbers and text; a float that is no number is no label."""
    if array.dtype.kind == "f":
        missing = np.isnan(array)
        whole = np.where(missing, 0, array)
        if not (np.isfinite(whole).all() and (whole == np.rint(whole)).all()):
            return f"{named} holds values that are no classes ({array.dtype}), which are not used"
        return [None if no else int(v) for v, no in zip(whole, missing, strict=True)]
    if array.dtype.kind in "bui":
        return [int(value) for value in array]
    values = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in array.tolist()]
    texts = (None if value is None else str(value) for value in values)
    return [None if text is None or text.strip().lower() in MISSING else text for text in texts]
