"""R27: a read that fails is not damage: it is tried again, then ends the command; nothing changes.

strace injects the errors, into the calls on one file alone. What fails once is read after a pause,
and nothing tells the run from another; what fails for good ends in code 5 with the path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.promises import state
from tests.promises.lab import SMALL, Lab
from tests.promises.outcome import Control, NotRunError, Outcome, control
from tests.promises.process import Done
from tests.promises.strace import strace

STORAGE, UNTRUSTED = 5, 7
LONGEST = 240.0  # s: the pauses are 30 of them
AGAIN = "reading it again in"
READS = ("read", "pread64")
OPENS = ("openat",)


class Failing(NamedTuple):
    """Reads of one file that fail."""

    what: str
    error: str  # by its name in errno.h
    calls: tuple[str, ...]
    lasting: bool


FAILING = (
    Failing("a picture", "EIO", READS, lasting=False),
    Failing("a picture", "EACCES", OPENS, lasting=True),
    Failing("the newest checkpoint", "EIO", READS, lasting=True),
    Failing("the newest checkpoint", "ESTALE", OPENS, lasting=False),
    Failing("a picture", "ESTALE", OPENS, lasting=True),
    Failing("a picture", "EMFILE", OPENS, lasting=False),
    Failing("the newest checkpoint", "EACCES", OPENS, lasting=True),
    Failing("a table of labels", "EIO", READS, lasting=True),
)


def check(lab: Lab, tries: int) -> Outcome:
    """So many files that cannot be read, and a finished run whose last checkpoint is damaged."""
    failures: list[str] = []
    for number in lab.numbers(tries):
        case = FAILING[number % len(FAILING)]
        named = f"{case.what}, {case.error}{' for good' if case.lasting else ''}"
        failures += [f"{named}: {line}" for line in _meet(lab, case)]
    if lab.is_first:
        failures += _finished(lab)
    return Outcome(tries, tuple(failures), _controls(lab) if lab.is_first else ())


def _controls(lab: Lab) -> tuple[Control, ...]:
    found = _meet(lab, Failing("a picture", "EIO", READS, lasting=True), sabotage="impatient")
    return (control("what cannot be read is damaged", found, sees="exit code"),)


def _meet(lab: Lab, case: Failing, *, sabotage: str = "") -> list[str]:
    meets = {
        "a picture": _picture,
        "a table of labels": _table,
        "the newest checkpoint": _checkpoint,
    }
    return list(meets[case.what](lab, case, sabotage))


def _picture(lab: Lab, case: Failing, sabotage: str) -> Iterator[str]:
    """One picture of a folder; what is cached then, and what a later command makes of it."""
    folder = Path(shutil.copytree(lab.pictures, lab.place("pictures")))
    file = sorted(folder.glob("train/*/*.png"))[3]
    yield from _loaded(lab, case, folder, file, sabotage)


def _table(lab: Lab, case: Failing, sabotage: str) -> Iterator[str]:
    """The table that labels the pictures of a folder."""
    folder = lab.place("table")
    (folder / "images").mkdir(parents=True)
    names = [file.name for file in sorted(lab.pictures.glob("train/*/*.png"))[:40]]
    for file in lab.pictures.glob("train/*/*.png"):
        if file.name in names:
            shutil.copy(file, folder / "images" / file.name)
    rows = [f"images/{name},{'ab'[number % 2]}" for number, name in enumerate(names)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label", *rows, ""]))
    yield from _loaded(lab, case, folder, folder / "metadata.csv", sabotage)


def _loaded(lab: Lab, case: Failing, folder: Path, file: Path, sabotage: str) -> Iterator[str]:
    cache = {"STOPGRAD_CACHE": f"{folder}-cache"}
    words = ("views", "--data", folder, "--out", f"{folder}.png", "--count", 1, *SMALL)
    done = _failing(lab, case, file, words, cache, sabotage=sabotage)
    yield from _told(case, done, file)
    again = lab.run("check-data", folder, "--json", "--preset", "tiny", environment=cache)
    if again.code != 0 or '"damaged": []' not in again.out:
        yield f"afterwards: exit code {again.code}, {again.last_line or again.out[:200]}"
    again = lab.run(*words, environment=cache)
    if again.code != 0 or "damaged" in again.err:
        yield f"afterwards: exit code {again.code}: {again.last_line}"


def _checkpoint(lab: Lab, case: Failing, sabotage: str) -> Iterator[str]:
    """The newest checkpoint of a run that goes on, and of one that is used."""
    for command in ("resume", "export"):
        run = lab.copy(lab.halfway if command == "resume" else lab.reference.run, "unreadable")
        file = state.newest(run) / "model.safetensors"
        out = ("--format", "safetensors", "--out", f"{run}.safetensors")
        words = (command, run, *(out if command == "export" else ()))
        before = _sums(run)
        done = _failing(lab, case, file, words, {}, sabotage=sabotage)
        yield from (f"{command}: {line}" for line in _told(case, done, file))
        if case.lasting and _sums(run) != before:
            yield f"{command}: the run has changed"
        if case.lasting and Path(f"{run}.safetensors").exists():
            yield f"{command}: something was exported"
        if command == "resume":
            yield from lab.finish(run)


def _told(case: Failing, done: Done, file: Path) -> Iterator[str]:
    """What is wrong with what a command said, and with its end."""
    wanted = STORAGE if case.lasting else 0
    if done.crashed or done.code != wanted:
        yield done.crashed or f"exit code {done.code}: {done.last_line}"
    if AGAIN not in done.err:
        yield f"the pause is not said: {done.last_line}"
    if "damage" in done.err or "passed over" in done.err:
        yield f"taken for damage: {done.err[:300]}"
    if case.lasting and str(file) not in done.last_line:
        yield f"the path is not said: {done.last_line}"


def _failing(
    lab: Lab,
    case: Failing,
    file: Path,
    words: tuple[object, ...],
    environment: dict[str, str],
    *,
    sabotage: str,
) -> Done:
    """Runs a command whose reads of a file fail, all of them or the first."""
    when = "" if case.lasting else ":when=1"
    inject = [f"inject={call}:error={case.error}{when}" for call in case.calls]
    options = [word for each in inject for word in ("-e", each)]
    log = str(lab.place("strace"))
    trace = ("-e", f"trace={','.join(case.calls)}", "-P", str(file), "-P", file.name)
    under = (strace(), "-f", "-qq", "-o", log, *trace, *options)
    done = lab.run(*words, environment=environment, sabotage=sabotage, under=under, longest=LONGEST)
    if "PTRACE" in done.err:
        raise NotRunError(f"strace may not trace here ({done.last_line})")
    return done


def _sums(run: Path) -> dict[str, str]:
    """The sha256 of every file of a run but for the lock, which names who held it last."""
    files = (path for path in sorted(run.rglob("*")) if path.is_file() and path.name != "lock")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _finished(lab: Lab) -> Iterator[str]:
    """A finished run is used at its last step or not at all, unless an older one is asked for."""
    spoil: dict[str, Callable[[Path], object]] = {
        "damaged": lambda folder: os.truncate(folder / "model.safetensors", 1000),
        "gone": shutil.rmtree,
    }
    for what, do in spoil.items():
        run = lab.copy(lab.reference.run, "finished")
        do(state.newest(run))
        words = ("export", run, "--format", "safetensors", "--out", f"{run}.safetensors")
        done = lab.run(*words)
        if done.code != UNTRUSTED or done.crashed or Path(f"{run}.safetensors").exists():
            yield f"last checkpoint {what}, export: exit code {done.code}: {done.last_line}"
        done = lab.run(*words, "--older")
        if done.code != 0:
            yield f"last checkpoint {what}, --older: exit code {done.code}: {done.last_line}"
        yield from (f"last checkpoint {what}: {line}" for line in lab.finish(run))
