"""Files that are either whole or absent, by one writer; other people's JSON, read with care.

Writing: to a temporary file of unpredictable name, fsync, rename, fsync of the directory, under a
lock that the kernel releases when the process ends. Reading, see `reading`: JSON by the letter of
its standard, its values by the types of a class.
"""

from __future__ import annotations

import functools
import glob
import json
import math
import os
import re
import secrets
import shutil
import socket
import stat
import time
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, TypeVar

from stopgrad.errors import ConfigError, LockedError, StorageError
from stopgrad.storage.inside import place_of, remove_file
from stopgrad.storage.locks import WINDOWS, lock_file, open_folder
from stopgrad.storage.reading import open_regular, read_file
from stopgrad.storage.text import in_short

LARGEST_JSON = 16 << 20  # bytes; parsed, it may take some twenty times as much
LARGEST_NUMBER = 1e100  # the square of a sum of such numbers is still finite
SETTLE = 0.1  # s; the holder of a lock has written its name by then
T = TypeVar("T")


class Finding(NamedTuple):
    """The result of checking one file."""

    file: str  # its path in the folder that was checked
    ok: bool
    note: str  # what is wrong, or what is worth knowing


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path as a user writes it; a `~` that leads to no home stays as it is."""
    return Path(os.path.expanduser(text))


def check_ending(path: Path, *endings: str, option: str = "--out", else_by: str = "") -> None:
    """Refuses a name that promises a file of another format, before anything is computed.

    Args:
        path: A file to write.
        endings: Those of the formats that can be written, in lower case.
        option: How the file was named.
        else_by: How another format is written; may be left out.

    Raises:
        ConfigError: With an example; also for a folder.
    """
    if path.suffix.lower() not in endings or path.is_dir():
        example = f"for example {option} {path.stem or 'file'}{endings[0]}"
        raise ConfigError(
            f"{option} {path}",
            expected=f"a file name that ends in {', '.join(endings)}",
            hint="; ".join(filter(None, (example, else_by))),
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file by these bytes or leaves the old one; a StorageError when it cannot."""
    with storage_errors(path, needed=len(data)):
        replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """As `write_atomically`, but an OSError when the disk refuses; nothing new is left then."""
    with appearing(path) as file:
        file.write(data)


@contextmanager
def appearing(path: Path, *, publish: Callable[..., object] = os.replace) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is complete on the disk, and vanishes after an error.

    Until then its name is unpredictable, so that no link waits there.

    Args:
        path: Its final name.
        publish: How it gets that name; `os.link` refuses one that is taken.

    Raises:
        OSError: When the disk refuses.
    """
    with place_of(path) as (name, folder):
        temporary = name.with_name(f".{_in_short(path.name)}.{secrets.token_hex(8)}.tmp")

        def create(_: str, flags: int) -> int:
            return os.open(temporary, flags, 0o666, dir_fd=folder)

        try:
            # Exclusive, which follows no link either.
            with open(path.with_name(temporary.name), "xb", opener=create) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            publish(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            sync_directory(path.parent)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)


def _in_short(name: str) -> str:
    """The start of a name, short enough to be extended within the 255 bytes of a file name."""
    return os.fsdecode(os.fsencode(name)[:200])


def remove_temporaries(folder: Path, name: str = "") -> None:
    """Removes what `appearing` left after a kill, all or of one name; nobody may be writing."""
    for path in folder.glob(f".{glob.escape(_in_short(name))}.*.tmp" if name else ".*.tmp"):
        if stat.S_ISREG(path.lstat().st_mode):
            remove_file(path)


def write_json(path: Path, value: object) -> None:
    """Replaces a file by a value as strict, readable JSON; a path may hold any bytes."""
    write_atomically(path, json_bytes(value))


def json_bytes(value: object) -> bytes:
    """A value as `write_json` writes it."""
    return f"{json.dumps(value, indent=2, allow_nan=False)}\n".encode()


def read_json(path: Path) -> Any:
    """The value of a JSON file; an OSError when it cannot be read, and as `strict_json`."""
    return strict_json(read_file(path, most=LARGEST_JSON))


def strict_json(text: bytes) -> Any:
    """A value from JSON; a ValueError for NaN, infinities, a key twice, or nesting too deep."""
    try:
        return json.loads(
            text.decode(),
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("JSON with a key that occurs twice")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON with {name}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("JSON with a number that is too large")
    return value


def typed(kind: type[T], values: Mapping[str, object]) -> T:
    """A NamedTuple or dataclass from the values that JSON gave for its fields.

    Raises:
        TypeError: Naming the first value of another type, or a field that is missing or unknown.
    """
    check_types(values, _fields(typing.cast(typing.Hashable, kind)))
    return kind(**values)


# Cached, because finding the types of a class's fields takes longer than checking a line.
_fields = functools.cache(typing.get_type_hints)


def check_types(values: Mapping[str, object], kinds: Mapping[str, object]) -> None:
    """Checks the values that have a type, see `fits`; a TypeError names the first that is wrong."""
    for name, value in values.items():
        kind = kinds.get(name, Any)
        if not fits(value, kind):
            found, wanted = repr(value), kind.__name__ if isinstance(kind, type) else str(kind)
            found = found if len(found) <= 60 else f"{found[:60]}..."
            raise TypeError(f"{name} is {found}, not {wanted}")


def fits(value: object, kind: Any) -> bool:
    """Whether a JSON value has this type; numbers must be finite, and booleans are not numbers."""
    return _check_of(kind)(value)


@functools.cache
def _check_of(kind: Any) -> Callable[[object], bool]:
    """The check of a type, cached: taking a type apart takes longer than checking a value."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        checks = [_check_of(part) for part in parts]
        return lambda value: any(check(value) for check in checks)
    if origin is typing.Literal:
        return lambda value: value in parts
    if origin is dict:
        inner = _check_of(parts[1])
        return lambda value: isinstance(value, dict) and all(map(inner, value.values()))
    if origin in (list, tuple):
        inner = _check_of(parts[0])
        return lambda value: isinstance(value, list) and all(map(inner, value))
    if kind in (int, float):
        return _is_float if kind is float else lambda v: _is_float(v) and isinstance(v, int)
    return lambda value: kind is Any or isinstance(value, kind)


def _is_float(value: object) -> bool:
    if type(value) is float:  # nearly all are
        return -LARGEST_NUMBER <= value <= LARGEST_NUMBER
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= LARGEST_NUMBER


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable; Windows does so by itself."""
    if WINDOWS:
        return
    descriptor = open_folder(path)
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
        there = next((parent for parent in path.parents if parent.exists()), None)
        free = 0 if there is None else shutil.disk_usage(there).free
        raise StorageError(
            f"{path} could not be written ({in_short(error)}), {free:,} bytes free",
            expected=f"{needed:,} bytes that can be written there"
            if needed
            else "a place to write",
            hint="make room or choose another place, then repeat the command or resume the run",
        ) from error


def lock(path: Path) -> IO[str]:
    """Locks a run directory until the file is closed or the process ends.

    Raises:
        LockedError: When another process holds it, with its id, its host and since when.
        OSError: When the file cannot be made, or is a link.
    """
    file = os.fdopen(open_regular(path / "lock", os.O_RDWR | os.O_CREAT), "r+")
    try:
        lock_file(file.fileno())
    except BlockingIOError as error:
        time.sleep(SETTLE)
        text = ""
        with file, suppress(PermissionError):  # Windows lets nobody read what is locked
            text = file.read(1000)
        ours = re.fullmatch(r"process \d+ on [\w.-]+ since [\dT:+-]+\n", text, re.ASCII)
        raise LockedError(
            f"{path} is being written by {text.strip() if ours else 'an unknown process'}",
            expected="one writer",
            hint="wait for it, or stop it",
        ) from error
    since = datetime.now(UTC).isoformat(timespec="seconds")
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
    file.flush()
    return file


def is_still_at(file: IO[str], path: Path) -> bool:
    """Whether an open lock is still the one at a path, and was neither removed nor replaced.

    Some network file systems give a file another number later; then its date decides.
    """
    try:
        there = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # nobody could look
    own = os.fstat(file.fileno())
    return os.path.samestat(own, there) or own.st_mtime_ns == there.st_mtime_ns
