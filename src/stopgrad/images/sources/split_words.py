"""Names of files and arrays that mention a split among other words -> that split.

`names` tells what a name means that says nothing else; these say more: `imagenet1k-train-0001.tar`,
`camelyonpatch_level_2_split_valid_x.h5/x`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Protocol, TypeVar

from stopgrad.errors import DataError
from stopgrad.images.sources.names import SPLITS, first_scored, split_of

UNLABELED = ("unlabeled", "unlabelled")


class _SplitLike(Protocol):
    @property
    def word(self) -> str: ...

    @property
    def has_labels(self) -> bool: ...


S = TypeVar("S", bound=_SplitLike)


def words_of(name: str) -> list[str]:
    """`X_train`, `trainX` and `xtrain`: x and train. MNIST calls its test split t10k."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("t10k", "test"))
    found = re.findall(r"[a-z]+", spaced.lower())
    split_up = ((w[0], w[1:]) if w[0] in "xy" and w[1:] in SPLITS else (w,) for w in found)
    return [word for words in split_up for word in words]


def split_word(path: str) -> str:
    """The word for a split in a path, the last of its parts that has just one; "" for none."""
    parts = ({w for w in words_of(part) if is_split(w)} for part in reversed(path.split("/")))
    return next((min(of) for of in parts if len(of) == 1), "")


def is_split(word: str) -> bool:
    """Whether a word is one for a split."""
    return word in SPLITS or word in UNLABELED


def to_train_on(found: Collection[S]) -> S | None:
    """The split to learn from: that of the name, else what belongs to none."""
    named = [of for of in found if split_of(of.word) == "train"]
    others = [of for word in ("", *UNLABELED) for of in found if of.word == word]
    return next(iter((*named, *others)), None)


def to_score(found: Collection[S], asked: str) -> S | None:
    """The split to score: the one asked for, else the first with labels, else the first.

    Raises:
        DataError: Where there is none of the name that is asked for.
    """
    ordered = [of for _, of in first_scored({of.word: of for of in found})]
    if asked:
        same = [of for of in ordered if split_of(of.word) == split_of(asked)]
        ordered = [of for of in ordered if of.word == asked.lower()] or same
        if not ordered:
            raise DataError(
                f"no split {asked!r}",
                expected=f"one of {', '.join(of.word or '(none)' for of in found)}",
                hint="choose another --split",
            )
    return next((of for of in ordered if of.has_labels), next(iter(ordered), None))


def why_unread(word: str) -> str:
    """The reason why the images of a split are not used."""
    scored = split_of(word) in ("test", "validation")
    how = f"--split {word} scores it" if scored else "name it alone to learn from it"
    return f"of the split {word or 'without a name'!r}: {how}"
