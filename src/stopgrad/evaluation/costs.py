"""What a training costs: wall time and energy, read off the machine's counters or estimated.

RUN/costs.jsonl holds a line per epoch that was really computed, and one for the part of an epoch
before a stop; an epoch that a kill made the run repeat is counted twice, because it was paid for
twice. Counters are RAPL's for processors and NVML's for a graphics card; only differences between
two readings mean anything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from stopgrad.errors import CollapsedError, DivergedError, InterruptedRunError
from stopgrad.evaluation.records import Energy
from stopgrad.storage import append_lines, read_lines_as

WATTS_PER_THREAD = 10.0  # a busy core with its share of the machine, a rough figure
WATTS_PER_GPU = 205.0  # report: 266.5 kWh in 1,300 hours on a V100
KG_CO2_PER_KWH = 0.15  # report: 40 kg for 266.5 kWh
JOULES_PER_KWH = 3.6e6
MOST_WATTS = 500.0  # of a processor package
POWERCAP = Path("/sys/class/powercap")


class Counter(NamedTuple):
    """A counter of energy, by the name that a record gives it."""

    name: str
    joules: Callable[[], float]  # since an arbitrary moment
    most_s: float = math.inf  # it may undercount a longer stretch


class Spent(NamedTuple):
    """The cost of a stretch of work; a line of costs.jsonl."""

    wall_s: float
    joules: float | None  # None: no counter could be read
    source: str  # the counters, "nvml + rapl" for instance
    device: str
    threads: int
    processes: int = 1  # that took part, each with this device and number of threads


class Costs(NamedTuple):
    """The total cost of a run."""

    wall_s: float
    joules: float | None  # None where a part of it was not counted
    source: str
    watts: float  # of the estimate, averaged over the time


class Meter:
    """Measures wall time and energy from one reading to the next."""

    def __init__(
        self, *, device: str, threads: int, processes: int, found: Sequence[Counter]
    ) -> None:
        self._where, self._counters = (device, threads, processes), found
        self._time, self._joules = time.perf_counter(), self._read()

    def spent(self) -> Spent:
        """The cost since the last reading."""
        now, joules = time.perf_counter(), self._read()
        wall_s, self._time = now - self._time, now
        used = None if joules is None or self._joules is None else joules - self._joules
        if any(wall_s > counter.most_s for counter in self._counters):
            used = None
        self._joules = joules
        source = " + ".join(counter.name for counter in self._counters)
        return Spent(wall_s, used, source, *self._where)

    def _read(self) -> float | None:
        try:
            return sum(counter.joules() for counter in self._counters) if self._counters else None
        except (OSError, ValueError):
            return None


def counters(device: str) -> list[Counter]:
    """The counters that can be read for work on a device: its card's, and the processors'."""
    card = None
    if device.startswith("cuda"):
        import torch

        # Identifies a card, whatever number CUDA_VISIBLE_DEVICES gives it.
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        card = nvml(f"GPU-{uuid.removeprefix('GPU-')}")
    return [counter for counter in (card, rapl()) if counter is not None]


def start_meter(
    *,
    device: str,
    threads: int,
    processes: int = 1,
    find: Callable[[str], Sequence[Counter]] = counters,
) -> Meter:
    """A meter that begins now, with the counters that `find` gives for "cpu" or "cuda:0".

    The energy of several processes is estimated: the counters of one do not see the others' cards.
    """
    found = find(device) if processes == 1 else ()
    return Meter(device=device, threads=threads, processes=processes, found=found)


def append_cost(run: Path, spent: Spent) -> None:
    """Adds a line to a run's costs; a StorageError when the disk refuses."""
    append_lines(run / "costs.jsonl", [spent._asdict()])


@contextmanager
def also_when_stopped(keep: Callable[[], None]) -> Iterator[None]:
    """Keeps the cost since the last epoch too when a training stops on its way to the next one."""
    try:
        yield
    except (CollapsedError, DivergedError, InterruptedRunError):
        keep()
        raise


def read_costs(*runs: Path) -> Costs | None:
    """The total cost of trainings so far; None if none was recorded, as in old runs."""
    hint, parts = "remove the line, or the file; the run does not need it", list[Spent]()
    for run in runs:
        parts += read_lines_as(run / "costs.jsonl", Spent, what="a cost", hint=hint)
    if not parts:
        return None
    wall_s = sum(part.wall_s for part in parts)
    counted = [part.joules for part in parts if part.joules is not None]
    estimated = sum(_watts(part) * part.wall_s for part in parts)
    return Costs(
        wall_s=wall_s,
        joules=sum(counted) if len(counted) == len(parts) else None,
        source=" and ".join(dict.fromkeys(part.source for part in parts)),
        watts=estimated / wall_s if wall_s else 0.0,
    )


def energy(costs: Costs) -> Energy:
    """Energy as counted, else the time multiplied by an assumed power."""
    if costs.joules is not None:
        joules, source, watts = costs.joules, costs.source, None
    else:
        joules, source, watts = costs.watts * costs.wall_s, "estimate", costs.watts
    kwh = joules / JOULES_PER_KWH
    return Energy(kwh, kwh * KG_CO2_PER_KWH, source, watts, KG_CO2_PER_KWH)


def _watts(part: Spent) -> float:
    on_gpu = part.device.startswith("cuda")
    return part.processes * (WATTS_PER_GPU if on_gpu else WATTS_PER_THREAD * part.threads)


def rapl(root: Path = POWERCAP) -> Counter | None:
    """The sum of all processor packages; None where there are none or reading is forbidden.

    Source: Linux, Documentation/power/powercap/powercap.rst. It counts what all processes use.
    """
    try:
        packages = [
            _Package(folder)
            for folder in sorted(root.glob("intel-rapl:*"))
            if (folder / "name").read_text().startswith("package")
        ]
    except (OSError, ValueError):
        return None
    if not packages:
        return None
    most_s = min(package.range for package in packages) / 1e6 / MOST_WATTS
    return Counter("rapl", lambda: sum(package.joules() for package in packages), most_s)


class _Package:
    """One processor package, whose counter wraps to 0 when it is full.

    One wrap between two readings is accounted for; within `most_s` there cannot be more.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self.range = int((folder / "max_energy_range_uj").read_text())
        self._last = self._read()
        self._rounds = 0

    def joules(self) -> float:
        now = self._read()
        self._rounds += now < self._last
        self._last = now
        return (now + self._rounds * self.range) / 1e6

    def _read(self) -> int:
        return int(self._file.read_text())


def nvml(uuid: str) -> Counter | None:
    """The counter of the card with this UUID; None where it or NVML cannot be read.

    Source: NVML API reference, nvmlDeviceGetTotalEnergyConsumption, in mJ.
    """
    import pynvml

    def joules() -> float:
        try:
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(card)) / 1e3
        except pynvml.NVMLError as error:
            raise OSError(str(error)) from error

    try:
        pynvml.nvmlInit()
        card = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        joules()
    except (OSError, pynvml.NVMLError):
        return None
    return Counter("nvml", joules)
