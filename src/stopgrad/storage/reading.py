"""Other people's files, read with care: regular ones only, and a failing read is tried again.

In: paths. Out: bytes, descriptors and names, or an error that tells a wrong file from one that
could not be read. No link is followed and no pipe waited for.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from stopgrad.errors import DataError, StopgradError, UnreadableError, no_memory
from stopgrad.storage.inside import OddFileError, place_of
from stopgrad.storage.locks import CAREFUL

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # s between the tries of a read
ANSWERS = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL),
    *(errno.ENXIO, errno.ENODEV, errno.EEXIST),
)
"""Errors that describe the path itself; any other means that reading failed and may be retried."""

SOLID = 1 << 28  # bytes that a file may have, however few are stored
MOST_TIMES = 200  # the stored bytes, beyond that; some file systems compress

log = logging.getLogger(__name__)

T = TypeVar("T")


def read_patiently(path: Path, read: Callable[[], T]) -> T:
    """The result of `read`. A disk error is not an answer: after a pause it is called again.

    Args:
        path: What is read, for messages.
        read: May be called several times.

    Raises:
        UnreadableError: When it still fails after some 30 s.
        NoMemoryError: When memory ran out and `read` took that for damage.
        OSError: When it describes the path itself, see `ANSWERS`.
        Exception: Whatever else `read` raises.
    """
    for pause in (*PAUSES, None):
        try:
            return read()
        except Exception as error:
            # An absurd size in a damaged file is a MemoryError, and damage.
            cause = error.__cause__
            if cause and not isinstance(cause, MemoryError) and (lack := no_memory(cause)):
                raise lack from error
            failed = of_disk(error)
            ours = isinstance(error, StopgradError) and not isinstance(error, DataError)
            if failed is None or ours:  # such as a full disk's
                raise
            named = failed.filename or path
            if pause is None:
                raise UnreadableError(
                    f"{named} could not be read ({failed.strerror}), tried {len(PAUSES) + 1} times",
                    expected="a disk or a server that can be read",
                    hint="nothing was changed; when it can be read again, repeat the command",
                ) from error
            log.warning("%s: %s; reading it again in %g s", named, failed.strerror, pause)
        time.sleep(pause)
    raise AssertionError


def of_disk(error: BaseException | None) -> OSError | None:
    """The disk error that an error is, or was raised from; None if there is none."""
    while error is not None:
        if isinstance(error, OSError) and error.errno and error.errno not in ANSWERS:
            return error
        error = error.__cause__
    return None


_PASSING = frozenset(os.strerror(number) for number in errno.errorcode if number not in ANSWERS)


def is_passing(reason: str) -> bool:
    """Whether a reason is that of a failed read, which says nothing about the file."""
    return reason in _PASSING


def is_there(path: Path) -> bool:
    """Whether something has this name; errors as for `read_patiently`."""
    try:
        read_patiently(path, path.lstat)
    except OSError:
        return False
    return True


def names_in(folder: Path) -> list[str]:
    """The names in a folder, [] if there is no folder; errors as for `read_patiently`."""
    try:
        return read_patiently(folder, lambda: os.listdir(folder))
    except OSError:
        return []


def read_file(path: Path, *, most: int) -> bytes:
    """The bytes of a regular file: no link is followed, no pipe is waited for.

    Raises:
        OddFileError: When it is something else, or has more than `most` bytes.
        OSError: When it is not there.
        UnreadableError: When it cannot be read, see `read_patiently`.
    """

    def read() -> bytes:
        with open(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise OddFileError(f"{path.name} has {size:,} bytes, more than {most:,}")
            return file.read()

    return read_patiently(path, read)


def refuse_holes(path: Path) -> None:
    """Refuses a large file of lines that takes next to no room on the disk: lines have no holes.

    Raises:
        OddFileError: With both sizes.
        OSError: When it is not there.
    """
    found = read_patiently(path, path.lstat)
    stored = 512 * getattr(found, "st_blocks", sys.maxsize)  # Windows does not say
    if found.st_size > max(SOLID, MOST_TIMES * stored):
        raise OddFileError(f"{path.name} has {found.st_size:,} bytes, {stored:,} of them stored")


def read_start(path: Path, count: int) -> bytes:
    """The first bytes of a regular file, fewer if it is shorter; as `read_file`."""

    def read() -> bytes:
        with open(open_regular(path), "rb") as file:
            return file.read(count)

    return read_patiently(path, read)


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file; with O_CREAT it is made if it is missing.

    No link is followed, no pipe waited for, and nothing truncated before its kind is known.

    Raises:
        OddFileError: When it is something else.
        OSError: When it cannot be opened.
    """
    try:
        with place_of(path) as (name, folder):
            descriptor = os.open(name, flags | CAREFUL, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _odd(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _odd(path)
    return descriptor


def _odd(path: Path) -> OddFileError:
    return OddFileError(f"{path.name} is a link or not a regular file")


def odd_entry(folder: Path, wanted: Mapping[str, str]) -> Path | None:
    """The first entry in a folder or below that is a link, a pipe or otherwise not as wanted.

    Args:
        folder: Somebody else's.
        wanted: "file" or "folder" by name; other names are not looked at.
    """
    for name in sorted(wanted.keys() & {*names_in(folder)}):
        kind = _kind(folder / name)
        if kind not in (wanted[name], "none"):
            return folder / name
        for here, folders, files in os.walk(folder / name):
            for entry in (Path(here, name) for name in (*folders, *files)):
                if _kind(entry) == "odd":
                    return entry
    return None


def _kind(path: Path) -> str:
    """The kind of an entry; "none" also for one that was just removed."""
    try:
        mode = read_patiently(path, path.lstat).st_mode
    except OSError:
        return "none"
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "odd"
