"""Damaged pictures: how they are named, and when they are an error.

One rule for training and for checking: `fail` refuses any damaged picture and names all of them;
`skip` leaves them out and refuses only when they are more than `MOST_DAMAGED` of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from stopgrad.config import BadImages
from stopgrad.errors import DataError
from stopgrad.images.types import LeftOut

MOST_DAMAGED = 0.05  # share of all pictures that may be left out
NAMED = 10  # damaged pictures that a message names


class DamagedImagesError(DataError):
    """Damaged pictures that a data set may not have.

    Args:
        damaged: All of them, in order.
        found: As for every error; so are `expected` and `hint`.
    """

    def __init__(self, damaged: Sequence[LeftOut], *, found: str, expected: str, hint: str) -> None:
        self.damaged = tuple(damaged)
        super().__init__(found, expected=expected, hint=hint)


def refusal(
    damaged: Sequence[LeftOut], *, count: int, bad_images: BadImages
) -> DamagedImagesError | None:
    """The error that these damaged pictures of `count` are by this policy; None: they are none."""
    too_many = len(damaged) > MOST_DAMAGED * count
    match bad_images:
        case "fail":
            if not damaged:
                return None
            expected = "pictures that can be read to their end"
            hint = "replace or remove them" + (
                "" if too_many else ", or leave them out with --bad-images skip"
            )
        case "skip":
            if not too_many:
                return None
            expected = f"at most {100 * MOST_DAMAGED:.0f} % of them to be left out"
            hint = "repair the data set; it may have been copied or downloaded in part"
        case _:
            assert_never(bad_images)
    noun = "picture" if len(damaged) == 1 else "pictures"
    found = f"{len(damaged)} damaged {noun} among {count}: {in_words(damaged)}"
    return DamagedImagesError(damaged, found=found, expected=expected, hint=hint)


def unreadable_split(split: str, damaged: Sequence[LeftOut]) -> DamagedImagesError:
    """The error for a split in which no picture can be read."""
    return DamagedImagesError(
        damaged,
        found=f"no picture of the {split} split can be read: {in_words(damaged)}",
        expected="at least one picture that can be read to its end",
        hint="repair the data set; it may have been copied or downloaded in part",
    )


def in_words(damaged: Sequence[LeftOut]) -> str:
    """The first ten with their reasons, and how many more there are."""
    named = [f"{_place(picture)} ({picture.reason})" for picture in damaged[:NAMED]]
    more = f" and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
    return ", ".join(named) + more


def _place(picture: LeftOut) -> str:
    return (
        repr(picture.name) if picture.split == "train" else f"{picture.name!r} of {picture.split}"
    )
