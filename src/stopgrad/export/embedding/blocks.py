"""Blocks of features on disk, each whole or absent: `000012.npy`, (rows, F) float32."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stopgrad.storage import write_atomically

Values = npt.NDArray[np.float32]


class Blocks:
    """The blocks of one folder."""

    def __init__(self, folder: Path, *, width: int) -> None:
        self.folder, self.width = folder, width

    @property
    def bytes(self) -> int:
        """Bytes of all blocks that are there."""
        return sum(path.stat().st_size for path in self.folder.glob("*.npy"))

    def has(self, number: int, *, rows: int) -> bool:
        """Whether a block is there with all of its rows."""
        try:
            self.read(number, rows=rows)
        except (OSError, ValueError):
            return False
        return True

    def read(self, number: int, *, rows: int) -> Values:  # (rows, F)
        """A block.

        Raises:
            OSError: When it is not there.
            ValueError: When it is not of this shape.
        """
        values: Values = np.load(self._path(number), allow_pickle=False)
        if values.shape != (rows, self.width) or values.dtype != np.float32:
            raise ValueError(f"{self._path(number).name} is of shape {values.shape}")
        return values

    def write(self, number: int, values: Values) -> None:
        """Writes a block, durably.

        Raises:
            StorageError: When the disk refuses.
        """
        file = io.BytesIO()
        np.save(file, values)
        write_atomically(self._path(number), file.getvalue())

    def clear(self) -> None:
        """Removes all blocks."""
        for path in self.folder.glob("*.npy"):
            path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"
