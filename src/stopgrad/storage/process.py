"""What a process sets up for its work: how it is asked to end, where it writes, how it waits.

Signals ask it to save what it has and to end: SIGTERM and SIGINT; SIGHUP, when a terminal is
closed; SIGUSR1, SIGUSR2 and SIGXCPU, by which batch systems say that a job's time is nearly over.
Output may be lost while the work goes on. How the threads of OpenMP wait for each other is read
once, when torch is loaded; how soon they get a core again, they take from this one. No torch.
"""

from __future__ import annotations

import ctypes
import io
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

ALWAYS = (signal.SIGINT, signal.SIGTERM)
OTHERS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # which Windows lacks
STOP_SIGNALS = (*ALWAYS, *(getattr(signal, name) for name in OTHERS if hasattr(signal, name)))
WAITING = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")  # by which a user decides
SPINS = "20000"  # GNU's OpenMP, in torch's wheels for Linux; 100,000 take about 1 ms
BLOCKTIME = "1"  # ms; LLVM's and Intel's, in those for macOS and in conda
SHORT = 100_000  # ns, the shortest turn that Linux gives; the usual one is 0.7 to 3 ms
SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}  # number of the call sched_setattr(2)


@contextmanager
def stop_signals(ask: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Calls `ask` for each stop signal that comes in here; only the main thread can catch them.

    What somebody else ignores or handles stays theirs, such as SIGHUP under nohup.
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


class _Remarks(io.FileIO):
    """What cannot be written, on a full disk or to a reader that is gone, is lost."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def outlive(name: str) -> None:
    """Lets this process go on when `stdout` or `stderr` cannot be written; it takes any text."""
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

    By default they wait awake for 3 ms (GNU) or 200 ms (LLVM, Intel): beside other programs those
    that still work are then not given a core. Changes no bit of a result, and nothing where one of
    `WAITING` is set.
    """
    if not any(name in environment for name in WAITING):
        environment.update(GOMP_SPINCOUNT=SPINS, KMP_BLOCKTIME=BLOCKTIME)


def take_turns(nanoseconds: int = SHORT) -> None:
    """Asks for a core for so long at a time, in all threads that start from here on; 0: as usual.

    With short turns a thread that another one wakes gets a core at once, where another program
    would otherwise end its own turn first: at every operation that two threads share. The part of
    a core that a program gets stays the same, and so do nice values and other ways of scheduling.
    Linux 6.12 and later; nothing happens elsewhere.
    """
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    number = SET_ATTRIBUTES.get(os.uname().machine)
    if number is None:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period
    attributes = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, 0, nice, 0, nanoseconds, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, attributes, 0)  # refused: all stays as it is
