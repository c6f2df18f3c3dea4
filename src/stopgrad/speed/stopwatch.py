"""Work -> seconds, and several measurements -> their median and spread; memory and start-up.

A GPU works behind the program's back, so every reading of the clock waits for it first.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch


class Spread(NamedTuple):
    """Several measurements of one thing."""

    median: float
    low: float
    high: float
    repeats: int


def spread(values: Sequence[float]) -> Spread:
    """The median, the smallest and the largest of at least one measurement."""
    return Spread(median(values), min(values), max(values), len(values))


def wait_for(device: torch.device) -> None:
    """Returns when the device has done all that it was given; at once on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def per_call(
    work: Callable[[int], object], *, device: torch.device, at_least: float = 0.0
) -> float:
    """Seconds that one call takes, from calls in rows of 1, 2, 4, ... until the time is reached.

    Args:
        work: Does its work so many times, and may leave before the device has finished.
        device: Is waited for before and after each row.
        at_least: Total time, s; 0: one call.
    """
    calls, passed, row = 0, 0.0, 1
    while calls == 0 or passed < at_least:
        wait_for(device)
        began = time.perf_counter()
        work(row)
        wait_for(device)
        passed += time.perf_counter() - began
        calls += row
        row *= 2
    return passed / calls


def times(work: Callable[[], object]) -> Callable[[int], None]:
    """Work as `per_call` wants it: repeated so many times."""

    def repeat(count: int) -> None:
        for _ in range(count):
            work()

    return repeat


class StartUp(NamedTuple):
    """Seconds from nothing to an answer, in a fresh process each time."""

    help_s: Spread  # `stopgrad --help`
    import_s: Spread  # `python -c "import stopgrad.training"`


def measure_start_up(repeats: int) -> StartUp:
    """Times both. Of several the first, which reads the files into memory, is left out."""
    return StartUp(
        help_s=_started("-m", "stopgrad.cli", "--help", repeats=repeats),
        import_s=_started("-c", "import stopgrad.training", repeats=repeats),
    )


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: by this process, or on a GPU by its tensors there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, kB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _started(*arguments: str, repeats: int) -> Spread:
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    return spread(seconds[1:] or seconds)
