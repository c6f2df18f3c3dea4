"""Files that are either whole or absent, and files of others, read with care.

Written: to a temporary file, fsync, rename, fsync of the directory. Read: regular files only, with
a bound on their size, JSON by the letter of its standard, and its values by the types of a class.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import stat
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn, TypeVar

from stopgrad.errors import ConfigError, StorageError

LARGEST_JSON = 16 << 20  # bytes; parsed, it may take some twenty times as much
LARGEST_NUMBER = 1e100  # the square of a sum of such numbers is still finite

T = TypeVar("T")


class Finding(NamedTuple):
    """What is to be said of one file that was checked."""

    file: str  # its path in the folder that was checked
    ok: bool
    note: str  # what is wrong, or what is worth knowing


class OddFileError(OSError):
    """A link, a pipe, a device or a folder where a file should be, or a file that is too large."""


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
    """Replaces a file by these bytes; a crash leaves the old file or the new one.

    Raises:
        StorageError: When the disk refuses, with the bytes needed and the bytes free.
    """
    with storage_errors(path, needed=len(data)):
        replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """As `write_atomically`, for a caller who knows what else is needed.

    Raises:
        OSError: When the disk refuses; nothing of the new file is left then.
    """
    temporary = path.parent / f".{path.name}.tmp"
    # Never through a link that somebody has put there.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        with open(os.open(temporary, flags, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_directory(path.parent)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Replaces a file by a value as strict, readable JSON; a path may hold any bytes."""
    text = json.dumps(value, indent=2, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def read_file(path: Path, *, most: int) -> bytes:
    """The bytes of a regular file: no link is followed, no pipe is waited for.

    Args:
        path: The file.
        most: The most bytes that it may have.

    Raises:
        OddFileError: When it is something else, or larger.
        OSError: When it cannot be read.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OddFileError(f"{path.name} has {size:,} bytes, more than {most:,}")
        return file.read()


def read_start(path: Path, count: int) -> bytes:
    """The first bytes of a regular file, fewer where it is shorter; as `read_file`."""
    with _open_regular(path) as file:
        return file.read(count)


def _open_regular(path: Path) -> IO[bytes]:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OddFileError(f"{path.name} is a link or no regular file")
    return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: When it cannot be read.
        ValueError: When it is not strict JSON.
    """
    return strict_json(read_file(path, most=LARGEST_JSON))


def strict_json(text: bytes) -> Any:
    """A value from JSON, which may hold neither NaN, nor infinities, nor a key twice.

    Raises:
        ValueError: Also for JSON that is nested too deep.
    """
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
    """An object of a class whose fields have types, from the values that JSON gave for them.

    Args:
        kind: A NamedTuple or a dataclass.
        values: By field; a field with a default may be missing.

    Raises:
        TypeError: Naming the first value of another type, or a field that is missing or unknown.
    """
    check_types(values, _fields(typing.cast(typing.Hashable, kind)))
    return kind(**values)


@functools.cache
def _fields(kind: Any) -> dict[str, object]:
    """The types of a class's fields, kept: to find them takes longer than to check a line."""
    return typing.get_type_hints(kind)


def check_types(values: Mapping[str, object], kinds: Mapping[str, object]) -> None:
    """Checks the values that have a type; see `fits`.

    Raises:
        TypeError: Naming the first value of another type, with what was wanted.
    """
    for name, value in values.items():
        kind = kinds.get(name, Any)
        if not fits(value, kind):
            found, wanted = repr(value), kind.__name__ if isinstance(kind, type) else str(kind)
            found = found if len(found) <= 60 else f"{found[:60]}..."
            raise TypeError(f"{name} is {found}, not {wanted}")


def fits(value: object, kind: Any) -> bool:
    """Whether a value of JSON is of a type: numbers are finite, true and false are no numbers."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is typing.Literal:
        return value in parts
    if origin is dict:
        return isinstance(value, dict) and all(fits(part, parts[1]) for part in value.values())
    if origin in (list, tuple):
        return isinstance(value, list) and all(fits(part, parts[0]) for part in value)
    if kind in (int, float):
        return _is_number(value) and (kind is float or isinstance(value, int))
    return kind is Any or isinstance(value, kind)


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -LARGEST_NUMBER <= value <= LARGEST_NUMBER  # type: ignore[operator]


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
