"""Pixels and labels in memory, checked -> `Images`; labels of any kind -> 0..C-1, with names."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.errors import DataError
from stopgrad.images.pixels import Pixels
from stopgrad.images.sources.array_labels import Label, no_classes
from stopgrad.images.types import UNLABELLED, Images, Labels, Notes, Unused, seal_fingerprint
from stopgrad.storage import few


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
        class_names: C names; left out, the classes are called "0", "1", ...
        sources: N names of where the images came from, or nothing.
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


class RawLabels(NamedTuple):
    """The labels of a split as found in the data."""

    split: str  # as the data call it
    values: Sequence[Label]  # (N,), None where there is none
    name_of: Callable[[int], str]  # of the image in a row, for messages

    @property
    def known(self) -> list[int | str]:
        """The labels that say something."""
        found = [value for value in self.values if value is not None and value != ""]
        none = {value for value in no_classes({*found}) if isinstance(value, int)}
        return [value for value in found if value not in none]


class NumberedLabels(NamedTuple):
    """C class names, labels (N,) int64 of each split or None, and what became of the others."""

    class_names: tuple[str, ...]
    train: Labels | None
    test: Labels | None
    notes: Notes


def number_labels(
    train: RawLabels | None, test: RawLabels | None, *, class_names: Sequence[str] = ()
) -> NumberedLabels:
    """Number the labels of both splits by the classes of the training split; refuses nothing.

    Null, an empty text, -1 and -100 are the signs of no label; see `no_classes`. Whole numbers from
    0 on are taken as they are while at least half of them occur; all other labels are numbered in
    their sorted order (text by code point, so that no locale changes it). Labels of a test split
    count only beside those of
    a train split, and where they are of its classes; what does not count is noted. Names are
    compared as `composed`.

    Args:
        train: Of the training split; None where the data have no labels at all.
        test: Of the split that is scored.
        class_names: C names, where the data give them; integers are places among them.
    """
    if train is None or not train.known:
        return NumberedLabels((), None, None, _without_train_labels(train, test))
    names = tuple(class_names)
    places = {composed(name): place for place, name in enumerate(names)}
    places |= {str(place): place for place in range(len(names))}
    if not names:
        names = _class_names(train)
        places = {composed(name): place for place, name in enumerate(names)}
    numbered, notes = _numbered(train, places, "is none of the class names")
    if not class_names and (remark := _renumbered(train, names)):
        notes = Notes((remark,)).and_those(notes)
    if test is None:
        return NumberedLabels(names, numbered, None, notes)
    scored, more = _numbered(test, places, f"is not in {train.split}")
    return NumberedLabels(names, numbered, scored, notes.and_those(more))


def composed(text: str) -> str:
    """One form of text that Unicode writes in several: macOS stores an accent behind its letter."""
    return unicodedata.normalize("NFC", text)


def _class_names(raw: RawLabels) -> tuple[str, ...]:
    distinct = set(raw.known)
    numbers = [value for value in distinct if isinstance(value, int)]
    if len(numbers) < len(distinct):
        texts = sorted(map(str, distinct), reverse=True)
        return tuple(sorted({composed(text): text for text in texts}.values()))
    if min(numbers) == 0 and 2 * len(numbers) > max(numbers):
        return tuple(map(str, range(max(numbers) + 1)))
    return tuple(map(str, sorted(numbers)))


def _renumbered(raw: RawLabels, names: tuple[str, ...]) -> str:
    """What a reader should know of numbers that are no places from 0 on, and of joined classes."""
    if any(isinstance(value, str) for value in raw.known):
        parts = {name: re.split(r"[|;, ]+", name) for name in names}
        joined = [name for name, of in parts.items() if len(of) > 1 and {*of} <= {*names}]
        how = f"{len(joined):,} of {len(names):,} classes are several in one, such as "
        return f"{how}{joined[0]!r}" if joined else ""
    if names[0] == "0":
        return ""
    return f"the labels {names[0]} to {names[-1]} are {len(names):,} classes, in this order"


def _numbered(raw: RawLabels, places: dict[str, int], unfit: str) -> tuple[Labels | None, Notes]:
    """Labels (N,), None where none can be used; and what cannot."""
    none = {None, "", *(sign for sign in (-1, -100) if str(sign) not in places)}
    numbers = [UNLABELLED if v in none else places.get(composed(str(v))) for v in raw.values]
    strange: dict[str, list[str]] = {}
    for row, number in enumerate(numbers):
        if number is None:
            strange.setdefault(str(raw.values[row]), []).append(raw.name_of(row))
    unused = [
        Unused("label", f"{name[:80]!r} {unfit}", tuple(images)) for name, images in strange.items()
    ]
    labels = np.array([UNLABELLED if n is None else n for n in numbers], np.int64)
    missing, fit = sum(v in none for v in raw.values), int((labels != UNLABELLED).sum())
    remarks = []
    if missing == len(raw.values):
        remarks.append(f"the labels of {raw.split} are all hidden (-1, -100 or null)")
    elif missing:
        remarks.append(f"{missing:,} of {len(raw.values):,} images of {raw.split} have no label")
    if not fit and strange:
        named = few([name[:80] for name in sorted(strange)])
        remarks.append(f"no label of {raw.split} is of a known class ({named})")
    return (labels if fit else None), Notes(tuple(remarks), tuple(unused))


def _without_train_labels(train: RawLabels | None, test: RawLabels | None) -> Notes:
    notes = Notes()
    if train is not None:
        notes = Notes((f"the labels of {train.split} are all hidden (-1, -100 or null)",))
    if test is None or not test.known:
        return notes
    names = tuple(test.name_of(row) for row in range(len(test.values)))
    unused = Unused("label", "the images to train on have none", names)
    remark = f"{test.split} has labels, the images to train on have none"
    return notes.and_those(Notes((remark,), (unused,)))
