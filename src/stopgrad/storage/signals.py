"""Signals that ask a process to save what it has and to end.

SIGTERM and SIGINT; SIGHUP, when a terminal is closed; SIGUSR1, SIGUSR2 and SIGXCPU, by which batch
systems say that a job's time is nearly over.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ALWAYS = (signal.SIGINT, signal.SIGTERM)
OTHERS = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # which Windows lacks
STOP_SIGNALS = (*ALWAYS, *(getattr(signal, name) for name in OTHERS if hasattr(signal, name)))


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
