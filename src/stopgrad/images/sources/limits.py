"""Limits on unpacking: a few bytes must not fill the memory, the disk or the day."""

from __future__ import annotations

from stopgrad.errors import DataError

ALWAYS = 1 << 28  # bytes that anything may unpack to
MOST_TIMES = 200  # the packed size beyond that; images and arrays of them rarely pass 20


def bomb(unpacked: int, packed: int) -> str:
    """Why something that would unpack to this many bytes is refused; "" if it is not."""
    if unpacked <= max(ALWAYS, MOST_TIMES * packed):
        return ""
    return f"{packed:,} bytes that unpack to {unpacked:,}, more than {MOST_TIMES} times as many"


def refuse_bomb(unpacked: int, packed: int, *, where: str) -> None:
    """Refuses what would unpack to far more than its size.

    Raises:
        DataError: With both sizes.
    """
    if reason := bomb(unpacked, packed):
        raise DataError(
            f"{where}: {reason}",
            expected="images, which compress far less than this",
            hint="unpack it yourself if you trust it, and name its folder",
        )
