"""Files of JSON lines: appended whole or not at all, read back without a torn last line.

A line is committed by its newline. What a crash leaves after the last newline is recognised,
because the start of a JSON object is not JSON; readers leave it out, and the next writer cuts it
off. JSON is strict: no NaN.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from stopgrad.errors import DataError, StopgradError
from stopgrad.storage.files import (
    storage_errors,
    strict_json,
    sync_directory,
    typed,
    write_atomically,
)
from stopgrad.storage.locks import lock_file
from stopgrad.storage.reading import is_there, open_regular, read_file, refuse_holes
from stopgrad.storage.text import as_text, in_short

LARGEST = 1 << 40  # bytes: in effect, all that were written
BLOCK = 1 << 14  # bytes that are read to find the last newline

T = TypeVar("T")


class Lines(NamedTuple, Generic[T]):
    """The content of a file of JSON lines."""

    rows: list[T]
    torn: bytes  # the part of a last line that a crash left behind


def append_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Adds rows at the end of a file, durably, all or none: one write under a lock.

    A torn last line is removed first.

    Raises:
        StorageError: When the disk refuses; the file is as before.
        ValueError: When a number is not finite; the file is as before.
    """
    data = _encode(rows)
    with storage_errors(path, needed=len(data)), _locked(path) as descriptor:
        _write_whole(descriptor, _end_last_line(descriptor) + data)


def replace_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Replaces a file by these rows, atomically; a StorageError when the disk refuses."""
    write_atomically(path, _encode(rows))


def read_lines(
    path: Path,
    decode: Callable[[dict[str, object]], T],
    *,
    what: str,
    hint: str,
    error: type[StopgradError] = DataError,
    doubt_last: bool = False,
) -> Lines[T]:
    """The rows of a file; a torn last line is left out.

    Args:
        path: A regular file.
        decode: Makes a row of a JSON object; a KeyError, TypeError or ValueError refuses it.
        what: What a row is, "a record", for the error.
        hint: The next step when a line is something else.
        error: The class to raise when the file cannot be read or a line is not such a row.
        doubt_last: Whether a last line is torn when it lacks its newline or is not JSON, in a file
            whose writer repeats such a line; else it is torn only when it lacks both.
    """
    try:
        refuse_holes(path)
        data = read_file(path, most=LARGEST)
    except OSError as failed:
        raise error(
            f"{as_text(path)} cannot be read ({in_short(failed)})",
            expected=f"a file with {what} on each line",
            hint=hint,
        ) from failed
    lines, torn = _split(data, doubt_last=doubt_last)
    rows = list[T]()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(decode(_object(line)))
        except (KeyError, TypeError, ValueError) as failed:
            missing = isinstance(failed, KeyError)
            reason = f"no {failed.args[0]!r}" if missing else in_short(failed)
            raise error(
                f"{as_text(path)}, line {number}, is not {what} ({reason})",
                expected=f"{what} on each line, as strict JSON",
                hint=hint,
            ) from failed
    return Lines(rows, torn)


def read_lines_as(path: Path, kind: type[T], *, what: str, hint: str) -> list[T]:
    """The rows as objects of a class with typed fields, as `read_lines`; none without a file."""
    if not is_there(path):
        return []
    return read_lines(path, lambda row: typed(kind, row), what=what, hint=hint).rows


def read_lines_after(
    path: Path, size: int, decode: Callable[[dict[str, object]], T]
) -> tuple[list[T], int]:
    """The whole rows appended since a file had this size, and the offset of the next one.

    A row that begins before `size` and ends after it is left out: a writer may have replaced its
    start. A ValueError or TypeError for a line that is not a JSON object, and what `decode`
    raises.
    """
    with open(open_regular(path), "rb") as file:
        start = file.seek(max(0, size - 1))
        data = file.read()
    first, end = data.find(b"\n") + 1 if size else 0, data.rfind(b"\n") + 1
    return [
        decode(_object(line)) for line in data[first:end].split(b"\n")[:-1]
    ], start + end if end else size


def _object(line: bytes) -> dict[str, object]:
    values = strict_json(line)
    if not isinstance(values, dict):
        raise TypeError("no JSON object")
    return values


def _encode(rows: Iterable[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()


def _split(data: bytes, *, doubt_last: bool) -> Lines[bytes]:
    *lines, last = data.split(b"\n")
    if last and (doubt_last or not _is_json(last)):
        return Lines(lines, torn=last)
    if last:
        return Lines([*lines, last], torn=b"")
    if doubt_last and lines and not _is_json(lines[-1]):
        return Lines(lines[:-1], torn=lines[-1] + b"\n")
    return Lines(lines, torn=b"")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """A descriptor of the file, made if needed, to which no other process appends meanwhile."""
    new = not path.exists()
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        lock_file(descriptor, wait=True)
        yield descriptor
    finally:
        os.close(descriptor)
    if new:
        sync_directory(path.parent)


def _end_last_line(descriptor: int) -> bytes:
    """Cuts off a torn last line; returns the newline that a whole last line lacks."""
    size, count = os.fstat(descriptor).st_size, BLOCK
    while b"\n" not in (tail := _read_at(descriptor, count, max(0, size - count))) and count < size:
        count *= 16
    last = tail[tail.rfind(b"\n") + 1 :]
    if last and not _is_json(last):
        os.ftruncate(descriptor, size - len(last))
        return b""
    return b"\n" if last else b""


def _read_at(descriptor: int, count: int, start: int) -> bytes:
    """As os.pread, which Windows lacks; writes go to the end, wherever the position is."""
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, count)


def _write_whole(descriptor: int, data: bytes) -> None:
    """One write, synced to the disk; if it fails, what was written of it is cut off again."""
    size = os.fstat(descriptor).st_size
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
