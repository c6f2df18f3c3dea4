"""Work -> seconds, several measurements -> their spread; the rate of a large matrix product.

Also peak memory, and how long a process takes to start. A GPU works asynchronously, so every
reading of the clock waits for it first.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import torch_generator
from stopgrad.method import Arithmetic

DTYPES: dict[Arithmetic, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}


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
    elif device.type == "mps":
        torch.mps.synchronize()


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
    """Turns work into the form that `per_call` takes."""

    def repeat(count: int) -> None:
        for _ in range(count):
            work()

    return repeat


def rate(
    work: Callable[[], object],
    count: int,
    *,
    device: torch.device,
    repeats: int,
    at_least: float = 0.0,
) -> Spread:
    """Things per second of work that handles `count` of them, after one call to warm up."""
    per_call(times(work), device=device)
    seconds = [per_call(times(work), device=device, at_least=at_least) for _ in range(repeats)]
    return spread([count / second for second in seconds])


def time_process(*arguments: str, repeats: int) -> Spread:
    """Seconds of a fresh Python; leaves out the first of several, which reads files from disk."""

    def start(_: int) -> None:
        subprocess.run([sys.executable, "-P", *arguments], check=True, stdout=subprocess.DEVNULL)

    seconds = [per_call(start, device=torch.device("cpu")) for _ in range(repeats)]
    return spread(seconds[1:] or seconds)


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: of this process, or of its tensors on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, kB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class MatrixRates(NamedTuple):
    """Floating-point operations per second, measured one right after the other."""

    bf16: float
    fp32: float

    def of(self, precision: Arithmetic) -> float:
        """The rate at a precision."""
        return self.bf16 if precision == "bf16" else self.fp32


class MatrixProduct:
    """A product of S x S matrices in each precision, to be timed repeatedly: the machine's limit.

    Attributes:
        measured: All rates so far, oldest first.

    Args:
        side: S. On two cores the rate in bf16 differs by 7 % between 1024 and 4096.
        device: Where to compute it.
        at_least: Seconds of each measurement.
    """

    def __init__(self, side: int, *, device: torch.device, at_least: float) -> None:
        self.side, self.device, self.at_least = side, device, at_least
        self._matrices = {name: _matrices(side, dtype, device) for name, dtype in DTYPES.items()}
        self.measured: list[MatrixRates] = []
        self.rates()  # warms up: the first product also chooses and builds its kernel
        self.measured.clear()

    def rates(self) -> MatrixRates:
        """Measures the rates, and adds them to `measured`. A product takes 2 S^3 operations."""
        self.measured.append(MatrixRates(self._rate("bf16"), self._rate("fp32")))
        return self.measured[-1]

    def _rate(self, precision: Arithmetic) -> float:
        left, right, product = self._matrices[precision]
        multiply = times(lambda: torch.mm(left, right, out=product))
        return 2 * self.side**3 / per_call(multiply, device=self.device, at_least=self.at_least)


def _matrices(side: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Two factors and the memory for their product, (S, S) each."""
    generator = torch_generator(0, "speed", "matrices", device=device)
    left, right = (
        torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2)
    )
    return [left, right, torch.empty_like(left)]
