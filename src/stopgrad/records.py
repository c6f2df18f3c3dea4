"""One JSON line per result: the number, its protocol, and all that is needed to trust it.

In: a `Record`. Out: a line of `records.jsonl`, appended whole or not at all, and read back.
A line is committed by its newline. JSON is strict: NaN becomes null. No torch.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import functools
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stopgrad.errors import DataError
from stopgrad.files import storage_errors, sync_directory

Subject = Literal["encoder", "untrained", "pixels", "supervised"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One result, in the order of its JSON keys.

    Attributes:
        metric: Name of the number, "knn_accuracy" or "linear_accuracy" for instance.
        value: The number; accuracies are fractions.
        top5: Top-5 accuracy, or None where it has no meaning.
        per_class: Accuracy of each class, None for a class without images.
        labels: Share of the training labels that was used.
        label_draw: Seed of the draw of those labels, None when all were used.
        of: What was evaluated.
        split: Name of the images it was scored on, "test" or "validation".
        images_scored: Number of those images.
        protocol: All that defines the number (k, T, learning rate, ...).
        config: The run's settings, None where no run stands behind the number.
        seed: The run's seed.
        epoch: The run's epoch at which it was scored.
        data: {"name", "fingerprint"} of the training images.
        code: Version of stopgrad, with the commit when it runs from a checkout.
        versions: Of python, torch, numpy and stopgrad.
        device: Where it was computed.
        threads: CPU threads that were used.
        wall_s: Wall time of the evaluation, s.
        views: Views that pretraining had processed.
        flops: Floating-point operations of that pretraining.
        time: When it was made, ISO 8601, UTC.
    """

    metric: str
    value: float
    top5: float | None = None
    per_class: tuple[float | None, ...] = ()
    labels: float = 1.0
    label_draw: int | None = None
    of: Subject
    split: str
    images_scored: int
    protocol: dict[str, Any]
    config: dict[str, Any] | None = None
    seed: int | None = None
    epoch: int | None = None
    data: dict[str, str]
    code: str
    versions: dict[str, str]
    device: str
    threads: int
    wall_s: float
    views: int | None = None
    flops: float | None = None
    time: str

    def __post_init__(self) -> None:
        """Brings per_class to a tuple with None for NaN, so that a record equals its copy."""
        clean = tuple(None if x is None or math.isnan(x) else float(x) for x in self.per_class)
        object.__setattr__(self, "per_class", clean)


class Environment(NamedTuple):
    """What a record says of the machine and the code; the names are those of its keys."""

    code: str
    versions: dict[str, str]
    device: str
    threads: int
    time: str


def environment(*, device: str, threads: int) -> Environment:
    """The code, the versions and the time of now: `Record(..., **environment(...)._asdict())`.

    Args:
        device: Where the work was done, as a reader knows it.
        threads: CPU threads in use.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Environment(code_version(), versions(), device, threads, now)


def versions() -> dict[str, str]:
    """Versions of python and of the packages that decide a number; none of them is imported."""
    packages = ("torch", "numpy", "stopgrad")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


@functools.cache
def code_version() -> str:
    """The version of stopgrad; from a checkout followed by "+git." and the commit.

    "-dirty" ends it when tracked files differ from the commit.
    """
    commit = _commit(Path(__file__).resolve().parent)
    return _version("stopgrad") + (f"+git.{commit}" if commit else "")


def to_line(record: Record) -> str:
    """A record as one line of strict ASCII JSON, without the newline.

    Raises:
        ValueError: When a number other than those of per_class is not finite.
    """
    return json.dumps(dataclasses.asdict(record), allow_nan=False)


def from_line(line: str) -> Record:
    """The record of a line.

    Raises:
        ValueError: When it is not JSON.
        TypeError: When it is not an object with the keys of a record.
    """
    values = json.loads(line)
    if not isinstance(values, dict):
        raise TypeError(f"a JSON object expected, not {type(values).__name__}")
    return Record(**values)


def append(path: Path, record: Record) -> None:
    """Adds a record at the end of a file, durably, whole or not at all.

    One write under a lock. What a crash has left behind the last newline goes first.

    Raises:
        StorageError: When the disk refuses; the file is as before.
    """
    line = to_line(record).encode() + b"\n"
    with storage_errors(path, needed=len(line)), _locked(path) as descriptor:
        _write_whole(descriptor, _mend(descriptor) + line)


def read(path: Path) -> list[Record]:
    """All records of a file, in order; a last line torn by a crash is left out.

    Raises:
        DataError: When there is no such file, or another line is no record.
    """
    try:
        *lines, last = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})",
            expected="a file of records",
            hint="make one with: stopgrad evaluate RUN",
        ) from error
    if last and not _is_torn(last):
        lines.append(last)
    return [_decode(line, path, number=number) for number, line in enumerate(lines, start=1)]


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
    except ValueError:
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


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit(package: Path) -> str | None:
    """The commit of the checkout that holds this package as src/stopgrad, None elsewhere.

    A package that is installed below somebody's own repository has no commit of ours.
    """
    root = package.parent.parent
    if package.parent.name != "src" or not (root / ".git").exists():
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
