"""Names of folders and files -> the split that they mean; one table for every kind of source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeVar

SplitOf = Literal["train", "validation", "test"]
SPLITS: dict[str, SplitOf] = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "trainval": "train",
    "trainset": "train",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "testset": "test",
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
# What a name of a split may say besides: train2017, train_images, Test-Set, validation_data.
FILLERS = frozenset(
    {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "set", "split"}
    | {"data", "dataset", "folder", "full", "all"}
)
SCORED: tuple[SplitOf, ...] = ("test", "validation")  # the first of these is scored

T = TypeVar("T")


def split_of(name: str) -> SplitOf | None:
    """The split that a name means, None for any other: `Training`, `val2017`, `test_images`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # TrainImages
    words = [word for word in re.split(r"[^a-z]+", spaced.lower()) if word]
    telling = [word for word in words if word not in FILLERS]
    if telling == ["train", "val"]:
        return "train"
    return SPLITS.get(telling[0]) if len(telling) == 1 else None


def first_scored(found: Mapping[str, T]) -> list[tuple[str, T]]:
    """The splits to score, by their names in the data, those that are taken first at the front."""
    order = {split: rank for rank, split in enumerate(SCORED)}
    scored = [(name, what) for name, what in found.items() if split_of(name) in order]
    return sorted(scored, key=lambda each: (order[split_of(each[0]) or "test"], each[0]))
