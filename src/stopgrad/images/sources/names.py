"""Names -> the split that a folder or a file means, and whether a column holds labels.

One table of words for every kind of source.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from shlex import quote
from typing import Literal

from stopgrad.errors import ConfigError, did_you_mean

SplitOf = Literal["train", "validation", "test"]
SPLITS: dict[str, SplitOf] = {  # within one meaning, the preferred words first
    "train": "train",
    "training": "train",
    "trn": "train",
    "trainval": "train",
    "trainset": "train",
    "labeled": "train",  # next to UNLABELED
    "labelled": "train",
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
SHORT: dict[str, SplitOf] = {"tr": "train", "te": "test", "va": "validation"}  # if no others
# Further words that the name of a split may have: train2017, train_images, Test-Set,
# validation_data. Single letters are ignored too: trainA.
FILLERS = frozenset(
    {"image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "set", "split"}
    | {"data", "dataset", "folder", "full", "all", "public", "private"}
)
COLUMNS = (  # of tables, that hold the split of each row
    *("split", "set", "subset", "dataset", "partition", "fold", "usage"),
    *("istrain", "istraining", "istest", "isval", "isvalidation", "istrainingimage"),
)
# Names of labels, the best first. Some kinds of source know more words.
LABEL_WORDS = (
    *("label", "labels", "class", "classes", "category", "categories", "target", "targets", "cls"),
    *("species", "diagnosis"),
)
LABEL_COLUMNS = (*LABEL_WORDS, "gt", "y")
# An array called classes may hold their names: the others come before it.
ARRAY_LABELS = ("labels", "label", "y", "targets", "target", *LABEL_WORDS)
# Further words that the name of a column of labels may have.
LABEL_FILLERS = frozenset(
    {"id", "idx", "index", "name", "number", "code", "text", "fine", "image", "img", "true"}
)
COARSE = frozenset({"coarse", "super"})  # such labels are taken last
UNLABELED = ("unlabeled", "unlabelled")
SCORED: tuple[SplitOf, ...] = ("test", "validation")  # the first of these is scored


def split_of(name: str) -> SplitOf | None:
    """The split that a name means, None for any other: `Training`, `val2017`, `test_images`."""
    words = _words(name)
    if words == ["train", "val"]:
        return "train"
    return SPLITS.get(words[0]) if len(words) == 1 else None


def splits_among(names: Iterable[str]) -> dict[str, SplitOf]:
    """The splits among names in the same place.

    If none alone means a training split, names that differ only in the word for the split are
    splits too: `seg_train` and `seg_test`; so are `tr` and `te` if there are no other names.
    """
    names = list(names)
    short = {name: SHORT.get(name.lower()) for name in names}
    if len(names) > 1 and "train" in short.values() and None not in short.values():
        return {name: split for name, split in short.items() if split}
    found = {name: split for name in names if (split := split_of(name))}
    if "train" in found.values():
        return found
    alike: dict[tuple[str, ...], dict[str, SplitOf]] = {}
    for name in names:
        words = _words(name)
        splits = [word for word in words if word in SPLITS]
        if len(splits) == 1:
            rest = tuple(word for word in words if word != splits[0])
            alike.setdefault(rest, {})[name] = SPLITS[splits[0]]
    for group in alike.values():
        if "train" in group.values() and len(set(group.values())) > 1:
            found |= group
    return found


def meanings(names: Iterable[str]) -> dict[str, SplitOf | None]:
    """The meaning of each split of a data set.

    A longer name that mentions a split, as in `mnist-train` or `train_extra`, is that split if no
    other name is.
    """
    names = list(names)
    found: dict[str, SplitOf | None] = {**splits_among(names)}
    said = set(found.values())
    for name in names:
        mentioned = {SPLITS[word] for word in _words(name) if word in SPLITS} - said
        found.setdefault(name, mentioned.pop() if len(mentioned) == 1 else None)
    return {name: found[name] for name in names}


def to_score(splits: Mapping[str, SplitOf | None], wanted: str = "") -> list[str]:
    """The splits of a data set that may be scored; the first one with usable labels is.

    Args:
        splits: By their names in the data, with their `meanings`.
        wanted: One of them by its name, or `test` or `validation` for those of that meaning, if
            there are any; "": all that have one of the two, test first.

    Raises:
        ConfigError: For a split that is not there, or that is trained on.
    """
    order = {split: rank for rank, split in enumerate(SCORED)}
    scored = [name for name, split in splits.items() if split in order]
    scored.sort(key=lambda name: (order[splits[name] or "test"], _rank(name), name))
    if not wanted:
        return scored
    if splits.get(wanted, "train") != "train":
        return [wanted]
    if wanted not in splits and (meaning := split_of(wanted)) in order:
        return [name for name in scored if splits[name] == meaning] or scored
    own = sorted({name for name, split in splits.items() if split != "train"} - {*SCORED})
    known = ["auto", *SCORED, *own]
    why = ", which is trained on" if wanted in splits else did_you_mean(wanted, known)
    raise ConfigError(f"split = {wanted!r}{why}", expected=f"one of {', '.join(known)}")


def scored_as(name: str, splits: Mapping[str, SplitOf | None], wanted: str = "") -> str:
    """The name of a split in results: the one asked for, else its meaning; "" for test."""
    called = name if wanted == name else splits[name] or name
    return "" if called == "test" else called


def split_in(path: str) -> str:
    """The word for a split in the last part of a path that has exactly one; "" for none."""
    parts = (words_of(part) for part in reversed(path.split("/")))
    found = ({word for word in words if is_split(word)} for words in parts)
    return next((min(words) for words in found if len(words) == 1), "")


def words_of(name: str) -> list[str]:
    """The words of a name: x and train of `X_train`, `trainX`, `xtrain`; test of MNIST's t10k."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("t10k", "test"))
    found = re.findall(r"[a-z]+", spaced.lower())
    split_up = ((w[0], w[1:]) if w[0] in "xy" and w[1:] in SPLITS else (w,) for w in found)
    return [word for words in split_up for word in words]


def is_split(word: str) -> bool:
    """Whether a word is one for a split."""
    return word in SPLITS or word in UNLABELED


def is_split_column(column: str) -> bool:
    """Whether the name of a column says that it holds the split of each row."""
    return re.sub(r"[^a-z0-9]", "", column.lower()) in COLUMNS


def is_place(column: str, columns: Iterable[str]) -> bool:
    """Whether a column is the y beside an x: where a tile lies, not what it shows."""
    return column.lower() == "y" and any(other.lower() == "x" for other in columns)


@functools.lru_cache(64)
def called_as_labels(names: tuple[str, ...]) -> list[str]:
    """The columns with a name for labels, the best first."""
    ranks = {name: rank for name in names if (rank := label_rank(name))}
    return sorted(ranks, key=lambda name: ranks[name])


def label_rank(name: str, *, known: bool = False) -> tuple[int, ...] | None:
    """Sort key of a column with a name for labels, or known to be labels; None for others.

    Such a name has one of `LABEL_COLUMNS`, and otherwise only fillers.
    """
    words = words_of(name)
    ranks = [LABEL_COLUMNS.index(word) for word in words if word in LABEL_COLUMNS]
    called = bool(ranks) and {*words} <= {*LABEL_COLUMNS, *LABEL_FILLERS, *COARSE}
    if not called:
        return (2,) if known else None
    coarse = not COARSE.isdisjoint(words)
    strength = 0 if known else 1 if min(ranks) < 2 else 3
    return strength, coarse, min(ranks), len(words)


def why_unread(split: str) -> str:
    """Why the images of a split are not used."""
    called = f"split {split!r}" if split else "no split"
    how = f"; evaluate scores it with --split {quote(split)}" if split else ""
    return f"in {called}, which is neither trained on nor scored{how}"


def _rank(name: str) -> int:
    return next((rank for rank, word in enumerate(SPLITS) if word in _words(name)), len(SPLITS))


def _words(name: str) -> list[str]:
    """The words of a name that may name its split."""
    return [word for word in words_of(name) if word not in FILLERS and len(word) > 1]
