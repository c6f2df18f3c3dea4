"""Labels as they stand in files or folder names -> 0..C-1 and the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stopgrad.errors import DataError
from stopgrad.images.types import Labels, check_labels

# N labels as they stand. Lists, not arrays: NumPy gives each string the room of the longest one
# and drops zero bytes at its end.
RawLabels = list[int] | list[str]


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
