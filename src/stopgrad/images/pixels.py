"""Files of pixels, mapped into memory: one as a NumPy array, several as a `Packed`.

In: files of (n, H, W, C) uint8, without a header. Out: rows, copied when they are asked for.
"""

from __future__ import annotations

import errno
import functools
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.errors import StorageError
from stopgrad.storage import as_text, open_regular, read_patiently

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


class MappedFile(NamedTuple):
    """A file of pixels that is mapped into memory."""

    pixels: Pixels  # (n, H, W, C)
    pages: mmap.mmap


def map_file(path: Path, shape: tuple[int, ...], *, writable: bool = False) -> MappedFile:
    """A file of pixels, mapped. A writable array is a private copy: the file never changes.

    Args:
        path: The file.
        shape: (n, H, W, C), as many bytes as the file has.
        writable: Whether the array may be written to.

    Raises:
        OSError, ValueError: When it cannot be mapped, or has fewer bytes.
    """
    access = mmap.ACCESS_COPY if writable else mmap.ACCESS_READ
    try:
        pages = _pages(path, access)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        import resource  # Windows, which lacks it, has no such limit

        # A map keeps its file open, and a large store has more shards than the default limit.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        pages = _pages(path, access)
    return MappedFile(np.frombuffer(pages, np.uint8).reshape(shape), pages)


def _pages(path: Path, access: int) -> mmap.mmap:
    with open(open_regular(path), "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=access)


@dataclass
class PixelFile:
    """A file of pixels that is mapped when it is first read; it must not change before that."""

    path: Path
    shape: tuple[int, ...]  # (n, H, W, C)
    modified: int  # ns, when the store was opened

    @functools.cached_property
    def mapped(self) -> MappedFile:
        """The file in memory, opened once.

        Raises:
            StorageError: When it has changed, or is gone.
            UnreadableError: When it cannot be read.
        """
        try:
            return read_patiently(self.path, self._map)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{as_text(self.path)} has changed since its store was opened",
                expected="the store as it was",
                hint="verify the store, then repeat the command or resume the run",
            ) from error

    def _map(self) -> MappedFile:
        found = self.path.lstat()
        if (found.st_size, found.st_mtime_ns) != (math.prod(self.shape), self.modified):
            raise ValueError("another size or date")
        return map_file(self.path, self.shape)


class Packed:
    """(N, H, W, C) uint8 in several files, read like a NumPy array.

    Only the rows asked for are copied into the memory of the process; the system caches the files
    as it can. A file is not opened until a row of it is asked for.

    Args:
        shards: At least one.
        rows: (N,) indices of these images, counted over all shards; None: all of them.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, shards: Sequence[PixelFile], rows: Indices | None = None) -> None:
        self._shards = tuple(shards)
        self._ends = np.cumsum([shard.shape[0] for shard in shards])
        self._rows = np.arange(self._ends[-1]) if rows is None else rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""
        return (len(self._rows), *self._shards[0].shape[1:])

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
                mapped, first = shard.mapped, end - shard.shape[0]
                pixels[order[start:stop]] = mapped.pixels[ascending[start:stop] - first]
                if hasattr(mapped.pages, "madvise"):  # else the process grows by what it reads
                    mapped.pages.madvise(mmap.MADV_DONTNEED)
            start = stop
        return pixels[0] if isinstance(index, int | np.integer) else pixels

    def take(self, indices: Indices) -> Packed:
        """Some of the rows, still on disk."""
        return Packed(self._shards, self._rows[indices])
