"""The numbers that a reader should see first."""

from __future__ import annotations

from typing import NamedTuple


class Tile(NamedTuple):
    """One number with its name and what is to be said under it."""

    name: str
    value: str
    note: str
    tone: str = ""
