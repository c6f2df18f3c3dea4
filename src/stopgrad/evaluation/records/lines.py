"""Lines of a file of records: appended whole or not at all, read back without a torn last one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from stopgrad.errors import DataError
from stopgrad.evaluation.records.record import Record, from_line, to_line
from stopgrad.storage import storage_errors, strict_json, sync_directory, typed

T = TypeVar("T")


def append(path: Path, record: Record) -> None:
    """Adds a record at the end of a file, durably, whole or not at all.

    One write under a lock. What a crash has left behind the last newline goes first.

    Raises:
        StorageError: When the disk refuses; the file is as before.
    """
    append_line(path, to_line(record))


def append_line(path: Path, text: str) -> None:
    """Adds a line of JSON, given without its newline, as `append` does.

    Raises:
        StorageError: When the disk refuses; the file is as before.
    """
    line = text.encode() + b"\n"
    with storage_errors(path, needed=len(line)), _locked(path) as descriptor:
        _write_whole(descriptor, _mend(descriptor) + line)


def read(path: Path) -> list[Record]:
    """All records of a file, in order; a last line torn by a crash is left out.

    Raises:
        DataError: When there is no such file, or another line is no record.
    """
    lines = _whole_lines(path)
    return [_decode(line, path, number=number) for number, line in enumerate(lines, start=1)]


def read_as(path: Path, kind: type[T], *, hint: str) -> list[T]:
    """The lines of a file that `append_line` wrote, each as a `kind`; none when there is no file.

    Args:
        path: The file.
        kind: A class whose fields have types, see `stopgrad.storage.files.typed`.
        hint: The next step when a line is something else.

    Raises:
        DataError: When it cannot be read, or a line before the last is no such object.
    """
    found = []
    for number, line in enumerate(_whole_lines(path) if path.exists() else [], start=1):
        try:
            found.append(typed(kind, _object(line)))
        except (ValueError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}, is no {kind.__name__.lower()} ({error})",
                expected=f"one JSON object a line, with {', '.join(kind.__annotations__)}",
                hint=hint,
            ) from error
    return found


def _whole_lines(path: Path) -> list[bytes]:
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})",
            expected="a file of records",
            hint="make one with: stopgrad evaluate RUN",
        ) from error
    return [*lines, last] if last and not _is_torn(last) else lines


def _object(line: bytes) -> dict[str, Any]:
    values = strict_json(line)
    if isinstance(values, dict):
        return values
    raise TypeError("no JSON object")


def _decode(line: bytes, path: Path, *, number: int) -> Record:
    try:
        return from_line(line.decode())
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path}, line {number}, is no record ({error})",
            expected="one record a line, as stopgrad evaluate writes them",
            hint="restore the file, or remove the line",
        ) from error


def _is_torn(last: bytes) -> bool:
    """Whether bytes without a newline are a part of a line: no part of a JSON object is JSON."""
    try:
        json.loads(last)
    except (ValueError, RecursionError):
        return True
    return False


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """A descriptor of the file, made if need be, that no other process appends to meanwhile."""
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)
    if new:
        sync_directory(path.parent)


def _mend(descriptor: int) -> bytes:
    """Cuts off a torn last line; returns the newline that a whole last line may lack."""
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    last = data[data.rfind(b"\n") + 1 :]
    if last and _is_torn(last):
        os.ftruncate(descriptor, len(data) - len(last))
        return b""
    return b"\n" if last else b""


def _write_whole(descriptor: int, data: bytes) -> None:
    """One write and its way to the disk; what was written of it goes again if it fails."""
    size = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
