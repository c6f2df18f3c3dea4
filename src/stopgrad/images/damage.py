"""Damaged images: how they are named, and when they are an error.

One rule for training and for checking: `fail` refuses any damaged image and names all of them;
`skip` leaves them out and refuses only when they are more than `MOST_DAMAGED` of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from stopgrad.config import BadImages
from stopgrad.errors import DataError
from stopgrad.images.types import DamagedImage

MOST_DAMAGED = 0.05  # of all images may be skipped
NAMED = 10  # damaged images that a message names


class DamagedImagesError(DataError):
    """Damaged images that a data set may not have.

    Args:
        damaged: All of them, in order.
        found: As for every error; so are `expected` and `hint`.
    """

    def __init__(
        self, damaged: Sequence[DamagedImage], *, found: str, expected: str, hint: str
    ) -> None:
        self.damaged = tuple(damaged)
        super().__init__(found, expected=expected, hint=hint)


def refusal(
    damaged: Sequence[DamagedImage], *, count: int, bad_images: BadImages
) -> DamagedImagesError | None:
    """The error for these damaged images among `count`; None where the policy allows them."""
    too_many = len(damaged) > MOST_DAMAGED * count
    match bad_images:
        case "fail":
            if not damaged:
                return None
            expected = "images that can be read to their end"
            hint = "replace or remove them" + (
                "" if too_many else ", or leave them out with --bad-images skip"
            )
        case "skip":
            if not too_many:
                return None
            expected = f"at most {100 * MOST_DAMAGED:.0f} % damaged images"
            hint = "repair the data set; it may have been copied or downloaded only in part"
        case _:
            assert_never(bad_images)
    noun = "image" if len(damaged) == 1 else "images"
    found = f"{len(damaged)} damaged {noun} among {count}: {name_damaged(damaged)}"
    return DamagedImagesError(damaged, found=found, expected=expected, hint=hint)


def unreadable_split(split: str, damaged: Sequence[DamagedImage]) -> DamagedImagesError:
    """The error for a split in which no image can be read."""
    return DamagedImagesError(
        damaged,
        found=f"no image of the {split} split can be read: {name_damaged(damaged)}",
        expected="at least one image that can be read to its end",
        hint="repair the data set; it may have been copied or downloaded only in part",
    )


def name_damaged(damaged: Sequence[DamagedImage]) -> str:
    """The first ten with their reasons, and how many more there are."""
    named = [
        f"{name!r}{'' if split == 'train' else f' of {split}'} ({reason})"
        for split, name, reason in damaged[:NAMED]
    ]
    more = f" and {len(damaged) - NAMED} more" if len(damaged) > NAMED else ""
    return ", ".join(named) + more
