"""What a process costs besides its work: peak memory, and the time until it is ready."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from typing import NamedTuple

import torch

from stopgrad.speed.stopwatch import Spread, spread


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
