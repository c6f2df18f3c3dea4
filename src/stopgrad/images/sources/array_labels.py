"""Arrays of labels -> labels as found in the data: numbers, text or none.

The signs of a missing label are defined here for all kinds of data.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from stopgrad.images.sources.array_files import StoredArray
from stopgrad.images.sources.array_images import AnyArray

Label = int | str | None  # as found in the data

MOST_CLASSES = 10_000  # columns of one-hot labels
NAMED = 5  # arrays that a message names
MISSING = frozenset(
    {"", "nan", "null", "<na>", "na", "n/a", "#na", "#n/a", "none", "?", "-"}
    | {"unlabeled", "unlabelled"}
)
"""Text that stands where there is no label, in small letters; more than pandas takes for it."""


def said(texts: Sequence[str | None]) -> list[str | None]:
    """Texts without spaces around them, None where one says that there is no label."""
    found = _known(texts)
    none = no_classes({text for text in found if text})
    return [None if text in none else text for text in found]


def _known(texts: Sequence[str | None]) -> list[str | None]:
    stripped = (text and text.strip() for text in texts)
    return [None if text is None or text.lower() in MISSING else text for text in stripped]


def labels_of_texts(texts: Sequence[str | None]) -> list[Label]:
    """Whole numbers where all texts are (2.0 is 2), else texts; None where there is no label."""
    found = _known(texts)
    if all(text is None or re.fullmatch(r"[+-]?\d{1,18}(\.0*)?", text) for text in found):
        return [None if text is None else int(text.partition(".")[0]) for text in found]
    return [*said(found)]


def fraction_among(labels: Iterable[Label]) -> str:
    """A number with a fraction, where all labels are numbers: measures, no classes; else ""."""
    texts = [str(label) for label in labels if label is not None]
    if not all(
        re.fullmatch(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", text, re.IGNORECASE) for text in texts
    ):
        return ""
    return next((text for text in texts if not float(text).is_integer()), "")


def no_classes(distinct: Collection[int | str]) -> set[int | str]:
    """Those of the labels that say there is none: -1 and -100, where no others are negative.

    -1 is a class where labels are two numbers of which it is one, as in -1 and 1.
    """
    numbers = {value for value in distinct if re.fullmatch(r"-?\d+", str(value))}
    negative = {value for value in numbers if str(value).startswith("-")}
    signs = {value for value in negative if str(value) in ("-1", "-100")}
    classes = {value for value in distinct if str(value) != "-100"}
    if negative > signs:
        return set()
    if len(classes) == 2 and classes <= numbers:
        return {value for value in signs if str(value) == "-100"}
    return signs


def labels_in(arrays: Sequence[StoredArray], *, count: int) -> list[Label] | str:
    """The labels in the parts of an array, or why they cannot label this number of images."""
    named = ", ".join(repr(array.name) for array in arrays[:NAMED])
    rows = sum(array.shape[0] for array in arrays)
    if rows != count:
        return f"the labels in {named} are not used: {rows:,} for {count:,} images"
    if any(array.dtype.kind in "OV" for array in arrays):
        how = "save them as numbers or text, such as np.asarray(labels, dtype=str)"
        return f"the labels in {named} are not used: they are objects, structs or cells; {how}"
    shapes = {array.shape[1:] for array in arrays}
    if max(map(np.prod, shapes)) > MOST_CLASSES:
        return f"{named} cannot be labels of images: its shape is {arrays[0].shape}"
    array = np.concatenate([array.read() for array in arrays]).reshape(count, -1)
    return labels_of_rows(array, named)


def labels_of_rows(array: AnyArray, named: str) -> list[Label] | str:
    """The labels in an array (N, 1) or one-hot (N, C), or why they are none."""
    if array.shape[1] == 1:
        return as_labels(array[:, 0], named)
    places = one_hot(array) if array.dtype.kind in "buif" else None
    return places or f"{named} holds several labels for each image, which are not used"


def one_hot(array: AnyArray) -> list[Label] | None:
    """The place of the single 1 in each row (C,) of numbers, None where a row is all 0.

    None for all where a row has another value or several 1s, or most rows have no 1.
    """
    ones = array.sum(axis=1)
    if not (
        ((array == 0) | (array == 1)).all() and (ones <= 1).all() and 2 * ones.sum() >= len(ones)
    ):
        return None
    return [
        int(place) if one else None for place, one in zip(array.argmax(axis=1), ones, strict=True)
    ]


def as_labels(array: AnyArray, named: str) -> list[Label] | str:
    """Whole numbers and text; a float that is no number is no label."""
    unfit = f"{named} holds values that cannot be classes ({array.dtype}), which are not used"
    if array.dtype.kind == "f":
        missing = np.isnan(array)
        whole = np.where(missing, 0, array)
        if not (np.isfinite(whole).all() and (whole == np.rint(whole)).all()):
            return unfit
        return [None if no else int(v) for v, no in zip(whole, missing, strict=True)]
    if array.dtype.kind in "bui":
        return [int(value) for value in array]
    if array.dtype.kind not in "SUO":
        return unfit
    return [*said(texts_in(array))]


def texts_in(array: AnyArray) -> list[str | None]:
    """The values of an array of text, of bytes of text or of None."""
    values = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in array.tolist()]
    return [None if value is None else str(value) for value in values]
