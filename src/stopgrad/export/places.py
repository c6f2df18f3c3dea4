"""Where features may be written: checked before torch is loaded or a run is read."""

from __future__ import annotations

import os
from pathlib import Path

from stopgrad.errors import ConfigError
from stopgrad.storage import check_ending

SUFFIXES = (".parquet", ".csv", ".npy")


def check_out(out: Path) -> None:
    """Refuses an unsuitable file before anything is computed.

    Raises:
        ConfigError: For another kind of file, or a folder without write permission.
    """
    check_ending(out, *SUFFIXES)
    folder = nearest_folder(out)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"--out {out}: cannot write to {folder}",
            expected="a file in a folder with write permission",
            hint="choose another folder",
        )


def nearest_folder(out: Path) -> Path:
    """The nearest parent folder that exists."""
    return next(parent for parent in out.absolute().parents if parent.exists())
