"""Training steps while other programs compute -> views/s alone and beside them, in one process.

The other programs are loops that never wait. Alone and beside follow each other in groups, and a
ratio compares the two of one group: whatever else the machine does widens the spread.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from stopgrad.config import Config
from stopgrad.speed.steps import WARM_UP, Effort, start_on_random_pixels, take_steps
from stopgrad.speed.stopwatch import Spread, per_call, spread

LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent: sum(range(100_000))
"""


class Beside(NamedTuple):
    """How fast a network trains alone and beside other programs, with a number of threads."""

    encoder: str
    threads: int
    loops: int  # other programs
    alone_views_per_s: Spread
    beside_views_per_s: Spread
    kept: Spread  # beside / alone, of the same group


def measure_beside(config: Config, effort: Effort, *, loops: int) -> tuple[Beside, ...]:
    """Trains on random pixels, alternating between one thread and PyTorch's present number.

    Args:
        config: On a CPU.
        effort: How many groups, and how long each measurement of one is.
        loops: Other programs, each of which could use a core.
    """
    training = start_on_random_pixels(config, images=effort.images)
    device, before = training.compute.device, torch.get_num_threads()
    counts = sorted({1, before})
    rates: dict[int, list[tuple[float, float]]] = {threads: [] for threads in counts}

    def views_per_s() -> float:
        take_steps(training, WARM_UP)
        seconds = per_call(
            lambda count: take_steps(training, count), device=device, at_least=effort.seconds
        )
        return 2 * config.batch / seconds

    try:
        for _ in range(effort.repeats):
            for threads in counts:
                torch.set_num_threads(threads)
                alone = views_per_s()
                with busy(loops):
                    rates[threads].append((alone, views_per_s()))
    finally:
        torch.set_num_threads(before)
    name = config.encoder.name
    return tuple(_found(name, threads, loops, rates=found) for threads, found in rates.items())


def _found(name: str, threads: int, loops: int, *, rates: Sequence[tuple[float, float]]) -> Beside:
    return Beside(
        encoder=name,
        threads=threads,
        loops=loops,
        alone_views_per_s=spread([alone for alone, _ in rates]),
        beside_views_per_s=spread([beside for _, beside in rates]),
        kept=spread([beside / alone for alone, beside in rates]),
    )


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Runs this many busy programs in here; they also end with this process, however it ends."""
    started = [subprocess.Popen([sys.executable, "-P", "-c", LOOP]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
