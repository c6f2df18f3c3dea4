"""The set-up of a process: how it is asked to end, where it writes, how it waits.

Signals ask it to save what it has and to end: SIGTERM and SIGINT; SIGHUP, when a terminal is
closed; SIGUSR1, SIGUSR2 and SIGXCPU, by which batch systems say that a job's time is nearly over.
Output may be lost while the work continues. How OpenMP threads wait for each other is read once,
when torch is loaded; on which cores they run is up to Linux, unless they are pinned.
"""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ALWAYS = (signal.SIGINT, signal.SIGTERM)
OTHERS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # which Windows lacks
STOP_SIGNALS = (*ALWAYS, *(getattr(signal, name) for name in OTHERS if hasattr(signal, name)))
WAITING = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")  # set by a user who decides
SPINS = "20000"  # GNU's OpenMP, in torch's wheels for Linux; 100,000 take about 1 ms
BLOCKTIME = "1"  # ms; LLVM's and Intel's, in those for macOS and in conda
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def stop_signals(ask: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Calls `ask` for each stop signal that comes in here; only the main thread can catch them.

    Signals outside `ALWAYS` already ignored or handled stay so, such as SIGHUP under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: found
        for number in STOP_SIGNALS
        if (found := signal.getsignal(number)) is signal.SIG_DFL or number in ALWAYS
    }
    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_with(parent: int, number: int = signal.SIGTERM) -> Callable[[], None]:
    """A function for a child to run first: it gets a signal when its parent ends, however it ends.

    Only Linux does so.
    """
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def ask() -> None:
        if prctl is None:
            return
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # the parent ended before this request
            os._exit(128 + number)

    return ask


class _Remarks(io.FileIO):
    """A stream that drops output when the disk is full or the reader has gone."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def outlive(name: str) -> None:
    """Lets this process continue when `stdout` or `stderr` fails; any text can be written."""
    stream = getattr(sys, f"__{name}__")
    if stream is None or getattr(sys, name) is not stream:
        return
    raw = _Remarks(stream.fileno(), "w", closefd=False)
    writer = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
    setattr(sys, name, writer)


def wait_briefly(environment: MutableMapping[str, str]) -> None:
    """Lets threads with nothing to do sleep soon, which leaves the core to other programs.

    By default they spin for 3 ms (GNU) or 200 ms (LLVM, Intel): next to other programs, those
    that still work then get no core. Changes no bit of a result, and nothing if one of `WAITING`
    is set.
    """
    if not any(name in environment for name in WAITING):
        environment.update(GOMP_SPINCOUNT=SPINS, KMP_BLOCKTIME=BLOCKTIME)


def keep_apart(threads: int, *, openmp: Path) -> None:
    """Pins the OpenMP threads of this thread, one to a core, if there is a core for each.

    Next to other programs Linux may leave them all on one core, where they spin waiting for each
    other: two trainings with two threads each on two cores took 15 times as long. This thread is
    not pinned, since whatever it starts would inherit that. Changes no bit of a result.

    Args:
        threads: The number that torch computes with, this one included.
        openmp: The library of GNU's OpenMP that torch has loaded.
    """
    cores = _cores()
    if threads < 2 or len(cores) != threads:
        return
    library = ctypes.CDLL(str(openmp))

    def place(_: object) -> None:
        number = library.omp_get_thread_num()
        with suppress(OSError):  # the cores of this process have changed
            if number > 0:
                os.sched_setaffinity(0, cores[number])

    library.GOMP_parallel(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(place), None, threads, 0)


def has_ended(process: int) -> bool:
    """Whether no process of this machine has this number; False on Windows, which cannot say."""
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's
    return False


def heartbeat() -> str:
    """A sign of life: s since 1970, this process's number, and where that number is valid."""
    return f"{time.time()} {os.getpid()} {_numbering()}"


def is_gone(beat: str) -> bool:
    """Whether a heartbeat is of a process that is known here to have ended; only on Linux."""
    where = _numbering()
    if not where or not beat.endswith(f" {where}"):
        return False
    return has_ended(int(beat.split()[1]))


def _numbering() -> str:
    """Identifies, on Linux, where a process number is valid: this boot and this container.

    Host names would not do: containers may have that of their machine, and other numbers.
    """
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{start} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # macOS and Windows lack it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cores() -> list[set[int]]:
    """The CPU numbers of each core that this process may use; hyper-threads share a set."""
    cores: dict[str, set[int]] = {}
    for number in sorted(os.sched_getaffinity(0)):
        topology = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        try:
            core = topology.read_text()
        except OSError:
            core = str(number)
        cores.setdefault(core, set()).add(number)
    return list(cores.values())
