"""Claims on a run where an engine carries out its tasks: numbered files, created exclusively.

File locks do not hold on every shared file system. Here, whoever creates the next file first has
the run. A job is declared over in the same way, so that only one runner records it. Only the
creator of a file writes to it again, and no file that a job has seen is removed.

FOLDER/
    job-1.json         engine, name and id of the job, attempt, host and process of the runner
    job-1.begun.json   the machine that the job is on, since when; its date is renewed
    job-1.exit.json    its exit code; absent when it died with its machine
"""

from __future__ import annotations

import json
import os
import re
import socket
import uuid
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from stopgrad.storage import (
    appearing,
    has_ended,
    names_in,
    open_regular,
    read_json,
    remove_file,
    storage_errors,
    typed,
    write_json,
)

T = TypeVar("T")

NAME = re.compile(r"job-(\d+)\.json")


class JobClaim(NamedTuple):
    """A claim, and the job that was submitted under it; job-N.json."""

    engine: str
    name: str  # of the job, used once
    attempt: int  # N
    host: str  # of the runner
    process: int
    devices: int = 1  # processes of a pretraining
    job: str = ""  # id that the engine gave
    ended: bool = False  # given back

    @property
    def may_have_job(self) -> bool:
        """Whether a job was, or still may be, submitted under it."""
        return bool(self.job) or not self.is_dead

    @property
    def is_dead(self) -> bool:
        """Whether its runner has ended; False where that cannot be known from here."""
        return self.host == socket.gethostname() and has_ended(self.process)


class JobBegin(NamedTuple):
    """Where and when a job began; job-N.begun.json."""

    node: str
    began: float  # seconds since 1970


class JobExit(NamedTuple):
    """How a job ended; job-N.exit.json."""

    exit_code: int
    wall_s: float


def newest_attempt(folder: Path) -> int:
    """The highest number of a claim; 0 where there is none."""
    return max((int(n[1]) for name in names_in(folder) if (n := NAME.fullmatch(name))), default=0)


def newest_claim(folder: Path) -> JobClaim | None:
    """The newest claim on a run; None where there is none."""
    return read_claim(folder, newest_attempt(folder))


def open_claim(folder: Path) -> JobClaim | None:
    """The newest claim, unless it was given back."""
    claim = newest_claim(folder)
    return None if claim is None or claim.ended else claim


def read_claim(folder: Path, attempt: int) -> JobClaim | None:
    """A claim by its number."""
    return _read(folder / f"job-{attempt}.json", JobClaim)


def create_claim(folder: Path, *, attempt: int, engine: str, devices: int) -> bool:
    """Creates a claim; False when somebody else has this number.

    Raises:
        StorageError: When the disk refuses.
    """
    name = f"stopgrad-{folder.name}-{attempt}-{uuid.uuid4().hex[:8]}"
    claim = JobClaim(engine, name, attempt, socket.gethostname(), os.getpid(), devices)
    path = folder / f"job-{attempt}.json"
    with storage_errors(path, needed=0):
        try:
            with appearing(path, publish=os.link) as file:  # which is exclusive on NFS too
                file.write(json.dumps(claim._asdict()).encode())
        except FileExistsError:
            return False
    return True


def write_claim(folder: Path, claim: JobClaim) -> None:
    """Writes one's own claim again; StorageError when the disk refuses."""
    write_json(folder / f"job-{claim.attempt}.json", claim._asdict())


def give_back(folder: Path, attempt: int) -> None:
    """Gives one's own claim back; its file is removed when no job was ever part of it."""
    claim, before = read_claim(folder, attempt), read_claim(folder, attempt - 1)
    if claim is None:
        return
    if not claim.job and (before is None or before.ended):
        remove_file(folder / f"job-{attempt}.json")
    else:
        write_claim(folder, claim._replace(ended=True))


def read_begin(folder: Path, attempt: int) -> JobBegin | None:
    """Where a job began; None before."""
    return _read(folder / f"job-{attempt}.begun.json", JobBegin)


def write_begin(folder: Path, attempt: int, begin: JobBegin) -> None:
    """Records where and when a job began; called by the job."""
    write_json(folder / f"job-{attempt}.begun.json", begin._asdict())


def beat(folder: Path, attempt: int) -> None:
    """Renews the date of the job's begin, to say that it is at work; called by the job."""
    path = folder / f"job-{attempt}.begun.json"
    with suppress(OSError), open(open_regular(path), "rb") as file:
        os.utime(file.fileno())


def newest_beat(folder: Path, attempt: int) -> int:
    """The date of the newest `beat`, in ns of a clock that is not ours; 0 before the job began."""
    with suppress(OSError):
        return (folder / f"job-{attempt}.begun.json").stat().st_mtime_ns
    return 0


def read_exit(folder: Path, attempt: int) -> JobExit | None:
    """How a job ended; None before, and for ever when it died with its machine."""
    return _read(folder / f"job-{attempt}.exit.json", JobExit)


def write_exit(folder: Path, attempt: int, end: JobExit) -> None:
    """Records how a job ended; called by the job."""
    write_json(folder / f"job-{attempt}.exit.json", end._asdict())


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return typed(kind, read_json(path))
    except (OSError, ValueError, TypeError, AttributeError):
        return None
