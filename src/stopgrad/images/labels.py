"""Labels as they stand in files or folder names -> 0..C-1 and the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.errors import DataError
from stopgrad.images.types import Labels, check_labels

RawLabels = npt.NDArray[Any]  # (N,) integers or strings


class NumberedLabels(NamedTuple):
    """C class names, and labels (N,) int64 of each split, or None."""

    class_names: tuple[str, ...]
    train: Labels | None
    test: Labels | None


def number_labels(
    train: RawLabels | None, test: RawLabels | None, *, class_names: Sequence[str] = ()
) -> NumberedLabels:
    """Labels of both splits by the classes of the training split.

    Integers are taken as they are; strings are numbered in their sorted order (by code point,
    so that no locale changes it). Labels of a test split count only beside those of a train split.

    Raises:
        DataError: For labels out of range, and for classes that only the test split has.
    """
    if train is None:
        return NumberedLabels((), None, None)
    if train.dtype.kind == "U":
        class_names = sorted(set(train.tolist()))
        train = _positions(train, class_names)
        test = None if test is None else _positions(test, class_names)
    named = check_labels(train, class_names=class_names, count=len(train), where=" of train")
    if test is None:
        return NumberedLabels(named.class_names, named.labels, None)
    checked = check_labels(
        test, class_names=named.class_names, count=len(test), where=" of the test split"
    )
    return NumberedLabels(named.class_names, named.labels, checked.labels)


def _positions(labels: RawLabels, class_names: Sequence[str]) -> Labels:
    position = {name: index for index, name in enumerate(class_names)}
    names = [str(label) for label in labels.tolist()]
    unknown = sorted(set(names) - set(class_names))
    if unknown:
        raise other_classes(unknown, class_names)
    return np.array([position[name] for name in names], np.int64)


def other_classes(test: Sequence[str], train: Sequence[str]) -> DataError:
    """The error for a test split whose classes are not those of the train split."""
    return DataError(
        f"classes {_few(test)} in the test split",
        expected=f"those of the train split, {_few(train)}",
        hint="give both splits the same classes, under the same names",
    )


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "(none)"
