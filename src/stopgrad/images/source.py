"""What a kind of data set must offer: a stamp that is cheap, and pictures that are not.

A `Source` is made by looking at names, sizes and dates only. Its `open` reads labels and
schemas; the items of a `Reader` stream the encoded pictures, in a fixed order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from stopgrad.images.types import Labels


class Encoded(NamedTuple):
    """One picture before decoding: a name for messages, and its file's content or path."""

    name: str
    data: bytes | Path | None  # None: the source has no bytes for it


class Reader(NamedTuple):
    """One split: how many pictures, their labels (N,) or None, and a stream of them."""

    length: int
    labels: Labels | None
    items: Callable[[], Iterator[Encoded]]


class Contents(NamedTuple):
    """The splits of a data set and the C names of its classes, () without labels."""

    class_names: tuple[str, ...]
    train: Reader
    test: Reader | None


class FileStamp(NamedTuple):
    """What tells a file from a changed one: path, bytes, date in ns."""

    path: str
    size: int
    modified: int


class Source(NamedTuple):
    """A data set that was found but not yet read; `root` and `stamps` key the cache."""

    name: str
    root: str
    stamps: tuple[FileStamp, ...]
    open: Callable[[], Contents]
    store: Path | None = None  # where its pictures lie decoded, if it is a packed store


def stamp(path: Path | str, *, name: str) -> FileStamp:
    """The stamp of a file (or of what it links to), under a name."""
    try:
        found = os.stat(path)
    except OSError:  # a broken link: decoding will name it
        return FileStamp(name, -1, -1)
    return FileStamp(name, found.st_size, found.st_mtime_ns)
