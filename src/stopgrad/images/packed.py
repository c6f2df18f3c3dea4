"""Pixels that stay on disk: files mapped into memory.

One file (n, H, W, 3) uint8 is an array. Several are a `Packed`, read by row in any order and
copied: nothing else stays in the memory of the process; the system keeps what it likes of the
files, and gives it back when memory is short.
"""

from __future__ import annotations

import errno
import mmap
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


class MappedFile(NamedTuple):
    """A file of pixels that is mapped into memory."""

    pixels: Pixels  # (n, H, W, 3)
    pages: mmap.mmap


def map_file(path: Path, shape: tuple[int, ...], *, writable: bool = False) -> MappedFile:
    """A file of pixels, mapped.

    Args:
        path: The file.
        shape: (n, H, W, 3), as many bytes as the file has.
        writable: Whether the array may be written to. The file never changes by it.

    Raises:
        OSError, ValueError: When it cannot be mapped, or has fewer bytes.
    """
    access = mmap.ACCESS_COPY if writable else mmap.ACCESS_READ
    try:
        pages = _pages(path, access)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        _allow_more_files()
        pages = _pages(path, access)
    return MappedFile(np.frombuffer(pages, np.uint8).reshape(shape), pages)


def _pages(path: Path, access: int) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=access)


def _allow_more_files() -> None:
    """A map keeps its file open, and a large store has more shards than a process may at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Packed:
    """(N, H, W, 3) uint8 on disk, which reads like an array of NumPy.

    Args:
        shards: At least one.
        rows: (N,) which images these are, counted over all shards; None: all of them.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, shards: Sequence[MappedFile], rows: Indices | None = None) -> None:
        self._shards = tuple(shards)
        self._ends = np.cumsum([len(shard.pixels) for shard in shards])
        self._rows = np.arange(self._ends[-1]) if rows is None else rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return (len(self._rows), *self._shards[0].pixels.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes that all rows would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | slice | Indices) -> Pixels:
        """Rows in the order asked for, in new memory.

        They are read in the order in which they lie on disk, and copied by shard, not by image.
        """
        rows = np.atleast_1d(self._rows[index])
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        bounds = np.searchsorted(ascending, self._ends)
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        start = 0
        for shard, end, stop in zip(self._shards, self._ends, bounds, strict=True):
            if start < stop:
                first = end - len(shard.pixels)
                pixels[order[start:stop]] = shard.pixels[ascending[start:stop] - first]
                shard.pages.madvise(mmap.MADV_DONTNEED)  # else the process grows by what it reads
            start = stop
        return pixels[0] if isinstance(index, int | np.integer) else pixels

    def take(self, indices: Indices) -> Packed:
        """Some of the rows, still on disk."""
        return Packed(self._shards, self._rows[indices])
