"""R6: a full or read-only disk is one clear line; what was saved stays, and the run goes on later.

The disks are small tmpfs, mounted for the test, of sizes from a few pages to just too small.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.promises import state
from tests.promises.lab import Lab
from tests.promises.outcome import Control, NotRunError, Outcome, control
from tests.promises.process import Done

PAGE = 4096
CHECKPOINTS = 3  # what a run needs at its fullest: two kept and one being written
STORAGE = 5
LINE = re.compile(r"(?P<path>/\S+) .*bytes free; expected ([1-9][\d,]* bytes|a place to write)")


def check(lab: Lab, tries: int) -> Outcome:
    """Runs on disks of so many sizes, and on one that is read-only."""
    failures, before = [], []
    for size in _sizes(lab, tries - 1):
        with _disk(lab, size) as disk:
            run = disk / "run"
            failures += _fill(lab, run, size=size)
            before.append(state.newest_step(run))
            _remount(disk, "size=64m")
            failures += lab.finish(run)
    failures += _read_only(lab)
    measured = {"steps_saved_before_the_disk_was_full": before}
    return Outcome(tries, tuple(failures), (_silent(lab),), measured)


def _sizes(lab: Lab, count: int) -> list[int]:
    """So many sizes in bytes, all too small for the run."""
    one = sum(path.stat().st_size for path in state.newest(lab.reference.run).iterdir())
    most = CHECKPOINTS * one - PAGE
    steps = max(1, count - 1)
    return [PAGE + (most - PAGE) * number // steps // PAGE * PAGE for number in range(count)]


def _fill(lab: Lab, run: Path, *, size: int, sabotage: str = "") -> list[str]:
    """Pretrains until the disk is full; what is wrong then."""
    done = lab.run(*lab.pretraining(run), sabotage=sabotage)
    return [f"disk of {size} bytes: {line}" for line in _wrong(run, done)]


def _wrong(run: Path, done: Done) -> Iterator[str]:
    if done.crashed or done.code != STORAGE:
        yield done.crashed or f"exit code {done.code}: {done.last_line}"
    line = LINE.search(done.last_line)
    if line is None or not line["path"].startswith(str(run)):
        yield f"path, needed or free is not said: {done.last_line}"
    saved = state.newest_step(run)
    if saved > 0 and not _intact(run):
        yield f"the checkpoint of step {saved} is damaged"


def _intact(run: Path) -> bool:
    """Whether the newest checkpoint is as its manifest says."""
    folder = state.newest(run)
    try:
        return state.sums(folder) == state.promised_sums(folder)
    except FileNotFoundError:
        return False


def _read_only(lab: Lab) -> list[str]:
    """A run whose disk becomes read-only, before it begins and between two parts of it."""
    failures = []
    for base in (None, lab.halfway):
        with _disk(lab, 64 << 20) as disk:
            run = disk / "run"
            if base is not None:
                subprocess.run(["cp", "-a", base, run], check=True)
            words = lab.going_on(run)
            _remount(disk, "ro")
            done = lab.run(*words)
            failures += [f"read-only: {line}" for line in _wrong(run, done)]
            _remount(disk, "rw")
            failures += lab.finish(run)
    return failures


@contextmanager
def _disk(lab: Lab, size: int) -> Iterator[Path]:
    """A tmpfs of so many bytes.

    Raises:
        NotRunError: Where mounting is not allowed.
    """
    place = lab.place("disk")
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "stopgrad-test", str(place)]
    if os.geteuid() != 0:
        raise NotRunError("mounting a small tmpfs needs root")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotRunError(f"a small tmpfs cannot be mounted ({done.stderr.strip()})")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def _silent(lab: Lab) -> Control:
    size = _sizes(lab, 3)[1]
    with _disk(lab, size) as disk:
        found = _fill(lab, disk / "run", size=size, sabotage="silent_disk")
    return control("errors of the disk passed over", found, sees="exit code 0")
