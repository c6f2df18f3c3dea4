"""Names of folders and files -> the split that they mean; one table for every kind of source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

SplitOf = Literal["train", "validation", "test"]
SPLITS: dict[str, SplitOf] = {  # of one meaning, those that are preferred first
    "train": "train",
    "training": "train",
    "trn": "train",
    "trainval": "train",
    "trainset": "train",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "testset": "test",
    "holdout": "test",
    "validation": "validation",
    "validate": "validation",
    "validating": "validation",
    "valid": "validation",
    "val": "validation",
    "valset": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
}
# What a name of a split may say besides: train2017, train_images, Test-Set, validation_data. Single
# letters say nothing either: trainA.
FILLERS = frozenset(
    {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "set", "split"}
    | {"data", "dataset", "folder", "full", "all", "public", "private"}
)
SCORED: tuple[SplitOf, ...] = ("test", "validation")  # the first of these is scored

T = TypeVar("T")


def split_of(name: str) -> SplitOf | None:
    """The split that a name means, None for any other: `Training`, `val2017`, `test_images`."""
    telling = _words(name)
    if telling == ["train", "val"]:
        return "train"
    return SPLITS.get(telling[0]) if len(telling) == 1 else None


def splits_among(names: Iterable[str]) -> dict[str, SplitOf]:
    """The splits among names that stand side by side.

    Where none means a training split by itself, names that differ in the word for the split alone
    are splits too: `seg_train` and `seg_test`.
    """
    names = list(names)
    found = {name: split for name in names if (split := split_of(name))}
    if "train" in found.values():
        return found
    alike: dict[tuple[str, ...], dict[str, SplitOf]] = {}
    for name in names:
        words = _words(name)
        told = [word for word in words if word in SPLITS]
        if len(told) == 1:
            rest = tuple(word for word in words if word != told[0])
            alike.setdefault(rest, {})[name] = SPLITS[told[0]]
    for group in alike.values():
        if "train" in group.values() and len(set(group.values())) > 1:
            found |= group
    return found


def first_scored(found: Mapping[str, T]) -> list[tuple[str, T]]:
    """The splits to score, by their names in the data, those that are taken first at the front."""
    order = {split: rank for rank, split in enumerate(SCORED)}
    splits = splits_among(found)
    scored = [(name, what) for name, what in found.items() if splits.get(name) in order]
    return sorted(scored, key=lambda each: (order[splits[each[0]]], _rank(each[0]), each[0]))


def _rank(name: str) -> int:
    return next((rank for rank, word in enumerate(SPLITS) if word in _words(name)), len(SPLITS))


def _words(name: str) -> list[str]:
    """The words of a name that may tell its split."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # TrainImages
    words = re.findall(r"[a-z]+", spaced.lower())
    return [word for word in words if word not in FILLERS and len(word) > 1]
