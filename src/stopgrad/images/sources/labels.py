"""Labels as found in the data, numbers, text or none -> 0..C-1, with names.

The signs of a missing label are defined here for all kinds of data.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.images.types import UNLABELLED, Labels, Notes, Unused
from stopgrad.storage import few

Label = int | str | None  # as found in the data

MISSING = frozenset(
    {"", "nan", "null", "<na>", "na", "n/a", "#na", "#n/a", "none", "?", "-"}
    | {"unlabeled", "unlabelled"}
)
"""Text that marks a missing label, in lower case; more than pandas recognises."""


def said(texts: Sequence[str | None]) -> list[str | None]:
    """Texts without spaces around them, None for one that marks a missing label."""
    found = _known(texts)
    none = no_classes({text for text in found if text})
    return [None if text in none else text for text in found]


def _known(texts: Sequence[str | None]) -> list[str | None]:
    stripped = (text and text.strip() for text in texts)
    return [None if text is None or text.lower() in MISSING else text for text in stripped]


def words_for_none(texts: Iterable[str | None]) -> tuple[str, ...]:
    """The different words among texts that say there is no label, and might be meant as a class."""
    stripped = (text.strip() for text in texts if text)
    return tuple(dict.fromkeys(text for text in stripped if text and text.lower() in MISSING))


def labels_of_texts(texts: Sequence[str | None]) -> list[Label]:
    """Whole numbers if all texts are (2.0 is 2), else texts; None for a missing label."""
    found = _known(texts)
    if all(text is None or re.fullmatch(r"[+-]?\d{1,18}(\.0*)?", text) for text in found):
        return [None if text is None else int(text.partition(".")[0]) for text in found]
    return [*said(found)]


def fraction_among(labels: Iterable[Label]) -> str:
    """A number with a fraction, if all labels are numbers: measures, not classes; else ""."""
    texts = [str(label) for label in labels if label is not None]
    if not all(
        re.fullmatch(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", text, re.IGNORECASE) for text in texts
    ):
        return ""
    return next((text for text in texts if not float(text).is_integer()), "")


def no_classes(distinct: Collection[int | str]) -> set[int | str]:
    """The labels that mark a missing one: -1 and -100, unless others are negative too.

    -1 is a class if the labels are two numbers and it is one of them, as in -1 and 1.
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


def labels_of_rows(array: npt.NDArray[Any], named: str) -> list[Label] | str:
    """The labels in an array (N, 1) or one-hot (N, C), or why it holds none."""
    if array.shape[1] == 1:
        return as_labels(array[:, 0], named)
    places = one_hot(array) if array.dtype.kind in "buif" else None
    return places or f"{named} holds several labels for each image, which are not used"


def one_hot(array: npt.NDArray[Any]) -> list[Label] | None:
    """The index of the single 1 in each row (C,) of numbers, None for a row of zeros.

    None for the whole if a row has another value or several 1s, or most rows have no 1.
    """
    ones = array.sum(axis=1)
    if not (
        ((array == 0) | (array == 1)).all() and (ones <= 1).all() and 2 * ones.sum() >= len(ones)
    ):
        return None
    return [
        int(place) if one else None for place, one in zip(array.argmax(axis=1), ones, strict=True)
    ]


def as_labels(array: npt.NDArray[Any], named: str) -> list[Label] | str:
    """An array as whole numbers or text, None for NaN; or why it cannot be labels."""
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


def texts_in(array: npt.NDArray[Any]) -> list[str | None]:
    """The values of an array of text, of bytes of text or of None."""
    values = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in array.tolist()]
    return [None if value is None else str(value) for value in values]


class RawLabels(NamedTuple):
    """The labels of a split as found in the data."""

    split: str  # as the data call it
    values: Sequence[Label]  # (N,), None for a missing one
    name_of: Callable[[int], str]  # of the image in a row, for messages

    @property
    def known(self) -> list[int | str]:
        """The labels that are not missing."""
        found = [value for value in self.values if value is not None and value != ""]
        none = {value for value in no_classes({*found}) if isinstance(value, int)}
        return [value for value in found if value not in none]


class NumberedLabels(NamedTuple):
    """C class names, labels (N,) int64 of each split or None, and notes on the unused ones."""

    class_names: tuple[str, ...]
    train: Labels | None
    test: Labels | None
    notes: Notes


def number_labels(
    train: RawLabels | None, test: RawLabels | None, *, class_names: Sequence[str] = ()
) -> NumberedLabels:
    """Number the labels of both splits by the classes of the training split; refuses nothing.

    Null, an empty text, -1 and -100 mark a missing label; see `no_classes`. Whole numbers from 0 on
    are kept if at least half of them occur; all other labels are numbered in sorted order (text by
    code point, so that no locale changes it). Labels of a test split count only if the train split
    has labels too, and only for its classes; the others are noted. Names are compared by
    `composed`.

    Args:
        train: Of the training split; None where the data have no labels at all.
        test: Of the split that is scored.
        class_names: C names, if the data give them; integers are indices into them.
    """
    if train is None or not train.known:
        return NumberedLabels((), None, None, _without_train_labels(train, test))
    names = tuple(class_names) or _class_names(train)
    places = _places(names, train if class_names else None)
    numbered, notes = _numbered(train, places, "is none of the class names")
    if not class_names and (remark := _renumbered(train, names)):
        notes = Notes((remark,)).and_those(notes)
    if test is None:
        return NumberedLabels(names, numbered, None, notes)
    scored, more = _numbered(test, places, f"is not in {train.split}")
    return NumberedLabels(names, numbered, scored, notes.and_those(more))


class _Places(NamedTuple):
    """The class of a label, as text or as a whole number, by the text of either."""

    of_text: Mapping[str, int]
    of_number: Mapping[str, int]

    def of(self, label: Label) -> Mapping[str, int]:
        """The classes of labels of this kind."""
        return self.of_number if isinstance(label, int) else self.of_text


def _places(names: Sequence[str], given: RawLabels | None) -> _Places:
    """By names. Numbers are indices into names that the data give, or all of them are names."""
    by_name = {composed(name): place for place, name in enumerate(names)}
    if given is not None:
        indices = {str(place): place for place in range(len(names))}
        numbers = {str(value) for value in given.known if isinstance(value, int)}
        are_names = not numbers <= indices.keys() and numbers <= by_name.keys()
        return _Places(indices | by_name, by_name if are_names else indices)
    values = Counter(int(name) for name in names if name.isdecimal())
    alone = [name for name in names if name.isdecimal() and values[int(name)] == 1]
    by_name = {str(int(name)): by_name[name] for name in alone} | by_name  # 00012 is 12
    return _Places(by_name, by_name)


def composed(text: str) -> str:
    """Text in one of several forms of Unicode: macOS stores an accent after its letter."""
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
    """A remark on numbers that are not indices from 0 on, or on joined classes; else ""."""
    if any(isinstance(value, str) for value in raw.known):
        parts = {name: re.split(r"[|;, ]+", name) for name in names}
        joined = [name for name, of in parts.items() if len(of) > 1 and {*of} <= {*names}]
        how = f"{len(joined):,} of {len(names):,} classes join several others, such as "
        return f"{how}{joined[0]!r}" if joined else ""
    if names[0] == "0":
        return ""
    return f"the labels {names[0]} to {names[-1]} are {len(names):,} classes, in this order"


def _numbered(raw: RawLabels, places: _Places, unfit: str) -> tuple[Labels | None, Notes]:
    """Labels (N,), None if none can be used; and notes on what cannot."""
    none = {None, "", *(sign for sign in (-1, -100) if str(sign) not in places.of_number)}
    numbers = [UNLABELLED if v in none else places.of(v).get(composed(str(v))) for v in raw.values]
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
        remarks.append(_all_hidden(raw))
    elif missing:
        remarks.append(f"{missing:,} of {len(raw.values):,} images of {raw.split} have no label")
    if not fit and strange:
        named = few([name[:80] for name in sorted(strange)])
        remarks.append(f"no label of {raw.split} is of a known class ({named})")
    return (labels if fit else None), Notes(tuple(remarks), tuple(unused))


def _without_train_labels(train: RawLabels | None, test: RawLabels | None) -> Notes:
    notes = Notes() if train is None else Notes((_all_hidden(train),))
    if test is None or not test.known:
        return notes
    names = tuple(test.name_of(row) for row in range(len(test.values)))
    unused = Unused("label", "the images to train on have none", names)
    remark = f"{test.split} has labels, the images to train on have none"
    return notes.and_those(Notes((remark,), (unused,)))


def _all_hidden(raw: RawLabels) -> str:
    return f"the labels of {raw.split} are all hidden (-1, -100 or null)"
