"""Files that are either whole or absent: write, fsync, rename, fsync the directory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stopgrad.errors import StorageError


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file by these bytes; a crash leaves the old file or the new one.

    Raises:
        StorageError: When the disk refuses, with the bytes needed and the bytes free.
    """
    temporary = path.parent / f".{path.name}.tmp"
    with storage_errors(path, needed=len(data)):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
            sync_directory(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Replaces a file by a value as strict, readable JSON."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path, *, needed: int) -> Iterator[None]:
    """Turns an OSError into a StorageError that says what was needed and what is free."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} could not be written ({error.strerror}), {_free_bytes(path):,} bytes free",
            expected=f"{needed:,} bytes that can be written there",
            hint="make room or choose another place, then repeat the command or resume the run",
        ) from error


def _free_bytes(path: Path) -> int:
    for parent in path.parents:
        if parent.exists():
            return shutil.disk_usage(parent).free
    return 0
