"""What a process asks of the system, seen and disturbed from outside with strace."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.promises.lab import Lab
from tests.promises.outcome import NotRunError
from tests.promises.process import Done

DURABLE = ("fsync", "fdatasync", "rename", "renameat", "renameat2")
REMOVING = ("unlink", "unlinkat", "rmdir")
ORDER = (*DURABLE, *REMOVING)
LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)")
BELOW = re.compile(r'<(/[^>]*)>, "(?!/)')  # an open folder, and a name in it
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|<(/[^>]*)>')


class Call(NamedTuple):
    """One system call that succeeded."""

    name: str
    number: int  # of the calls of this name, from 1
    paths: tuple[str, ...]


def traced(lab: Lab, words: Sequence[object], *, sabotage: str = "") -> tuple[Done, list[Call]]:
    """Runs a command under strace; its calls that make files durable or remove them.

    Raises:
        NotRunError: Where strace is missing or may not trace.
    """
    log = lab.place("strace")
    under = (strace(), "-f", "-y", "-qq", "-s", "4096", "-e", f"trace={','.join(ORDER)}")
    done = _run(lab, words, under=(*under, "-o", str(log)), sabotage=sabotage)
    if not log.exists() or "PTRACE" in done.err:
        raise NotRunError(f"strace may not trace here ({done.last_line})")
    return done, read_calls(log)


def killed_at(lab: Lab, words: Sequence[object], call: Call, *, sabotage: str = "") -> Done:
    """Runs a command that is killed (SIGKILL) on entering this call, before it takes effect."""
    inject = f"inject={call.name}:signal=SIGKILL:when={call.number}"
    under = (strace(), "-f", "-qq", "-o", str(lab.place("strace")), "-e", f"trace={call.name}")
    return _run(lab, words, under=(*under, "-e", inject), sabotage=sabotage)


def read_calls(log: Path) -> list[Call]:
    """The calls of a log, in order; those that failed had no effect and are left out."""
    counts: dict[str, int] = {}
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        found = LINE.match(line)
        if found is None or found[1] not in ORDER:
            continue
        counts[found[1]] = counts.get(found[1], 0) + 1
        whole = BELOW.sub(r'"\1/', found[2])
        paths = tuple(quoted or path for quoted, path in QUOTED.findall(whole))
        if int(found[3]) >= 0:
            calls.append(Call(found[1], counts[found[1]], paths))
    return calls


def strace() -> str:
    """The path of strace.

    Raises:
        NotRunError: Where there is none.
    """
    path = shutil.which("strace")
    if path is None:
        raise NotRunError("strace is not installed")
    return path


def _run(lab: Lab, words: Sequence[object], *, under: tuple[str, ...], sabotage: str) -> Done:
    return lab.start(*words, sabotage=sabotage, under=under).wait()
