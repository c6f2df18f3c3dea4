"""Names of folders and files -> the split that they mean; one table for every kind of source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from stopgrad.errors import ConfigError, did_you_mean

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


def meanings(names: Iterable[str]) -> dict[str, SplitOf | None]:
    """What each of the splits of a data set means.

    A longer name that mentions a split, as in `mnist-train` or `train_extra`, is that split where
    no other name says so by itself.
    """
    found = {name: split_of(name) for name in names}
    said = set(found.values())
    mentioned = {name: _mentioned(name) for name in found}
    return {
        name: split or (None if mentioned[name] in said else mentioned[name])
        for name, split in found.items()
    }


def _mentioned(name: str) -> SplitOf | None:
    found = {SPLITS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLITS}
    return found.pop() if len(found) == 1 else None


def to_score(splits: Mapping[str, SplitOf | None], wanted: str = "") -> list[str]:
    """The splits of a data set that may be scored: the first of them with usable labels is.

    Args:
        splits: By their names in the data, with their `meanings`.
        wanted: One of them by its name, or `test` or `validation` for those of that meaning, if
            there are any; "": all that have one of the two, test first.

    Raises:
        ConfigError: For a split that is not there, or that is learned from.
    """
    scored = [name for name, split in splits.items() if split in SCORED]
    scored.sort(key=lambda name: (SCORED.index(splits[name] or "test"), name))
    if not wanted:
        return scored
    if splits.get(wanted, "train") != "train":
        return [wanted]
    if wanted in SCORED:
        return [name for name in scored if splits[name] == wanted] or scored
    own = sorted({name for name, split in splits.items() if split != "train"} - {*SCORED})
    known = ["auto", *SCORED, *own]
    why = ", which is learned from" if wanted in splits else did_you_mean(wanted, known)
    raise ConfigError(f"split = {wanted!r}{why}", expected=f"one of {', '.join(known)}")


def scored_as(name: str, splits: Mapping[str, SplitOf | None], wanted: str = "") -> str:
    """What results call a split: the name that was asked for, else its meaning; "" for test."""
    called = name if wanted == name else splits[name] or name
    return "" if called == "test" else called
