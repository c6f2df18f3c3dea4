"""Text of others made safe: for a terminal, for XML and UTF-8, for one line of a message."""

from __future__ import annotations

import re

LONGEST = 200  # characters of a value in a message

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Text that XML and UTF-8 can hold, and that no terminal obeys.

    Control characters and halves of pairs, which file names may have, are replaced; newlines and
    tabs stay.
    """
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def as_text(value: object) -> str:
    """Any value on one line of bounded length, without what a terminal would obey."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(str(value).split()))
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def in_short(error: Exception) -> str:
    """An error as a clause of another."""
    return as_text(error.strerror if isinstance(error, OSError) and error.strerror else error)
