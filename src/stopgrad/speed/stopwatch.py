"""Work -> seconds, and several measurements -> their median and spread; memory and start-up.

A GPU works asynchronously, so every reading of the clock waits for it first.
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
    """Waits until a GPU has finished its work; returns at once for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def per_call(
    work: Callable[[int], object], *, device: torch.device, at_least: float = 0.0
) -> float:
    """Seconds per call, from 1, 2, 4, ... calls in a row until `at_least` has passed.

    Args:
        work: Does its work a given number of times; may return before the device has finished.
        device: To wait for before and after each row.
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
    """Work in the form that `per_call` takes."""

    def repeat(count: int) -> None:
        for _ in range(count):
            work()

    return repeat


IMPORT = "from stopgrad.training import pretrain_epochs"  # what a command imports to train


class StartUp(NamedTuple):
    """Seconds that fresh processes take."""

    help_s: Spread  # `stopgrad --help`
    import_s: Spread  # `IMPORT`


def measure_start_up(repeats: int) -> StartUp:
    """Times both; leaves out the first of several repeats, which reads the files from disk."""
    return StartUp(
        help_s=_started("-m", "stopgrad.cli", "--help", repeats=repeats),
        import_s=_started("-c", IMPORT, repeats=repeats),
    )


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: of this process, or of its tensors on a GPU."""
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
