"""Pixels that stay on disk: shards in memory maps, read by row, in any order.

In: the shards of a split, each (n, H, W, 3) uint8. Out: rows of them, copied; nothing else is ever
in memory, apart from what the system keeps of files and gives back when memory is short.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from stopgrad.images.types import Indices, Pixels


class Packed:
    """(N, H, W, 3) uint8 on disk, which reads like an array of NumPy.

    Args:
        shards: At least one memory map, (n, H, W, 3) each.
        rows: (N,) which pictures these are, counted over all shards; None: all of them.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, shards: Sequence[Pixels], rows: Indices | None = None) -> None:
        self._shards = tuple(shards)
        self._ends = np.cumsum([len(shard) for shard in shards])
        self._rows = np.arange(self._ends[-1]) if rows is None else rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, 3)."""
        return (len(self._rows), *self._shards[0].shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes that all rows would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int | slice | Indices) -> Pixels:
        """Rows in the order asked for, in new memory.

        They are read in the order in which they lie on disk, and copied by shard, not by picture.
        """
        rows = np.atleast_1d(self._rows[index])
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        bounds = np.searchsorted(ascending, self._ends)
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        start = 0
        for shard, end, stop in zip(self._shards, self._ends, bounds, strict=True):
            if start < stop:
                pixels[order[start:stop]] = shard[ascending[start:stop] - (end - len(shard))]
            start = stop
        return pixels[0] if isinstance(index, int | np.integer) else pixels

    def take(self, indices: Indices) -> Packed:
        """Some of the rows, still on disk."""
        return Packed(self._shards, self._rows[indices])
