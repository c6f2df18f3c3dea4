"""Counters of energy that the machine offers: RAPL for processors, NVML for a graphics card.

A counter is a function that gives joules since some moment; only differences mean anything.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

POWERCAP = Path("/sys/class/powercap")


class Counter(NamedTuple):
    """One counter, by the name that a record gives it."""

    name: str
    joules: Callable[[], float]


def counters(device: str) -> list[Counter]:
    """The counters that can be read for work on a device: its card's, and the processors'."""
    found = [nvml(device), rapl()]
    return [counter for counter in found if counter is not None]


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
    return Counter("rapl", lambda: sum(package.joules() for package in packages))


class _Package:
    """One processor package. Its counter starts again at 0 when it is full."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = self._read()
        self._rounds = 0

    def joules(self) -> float:
        now = self._read()
        self._rounds += now < self._last
        self._last = now
        return (now + self._rounds * self._range) / 1e6

    def _read(self) -> int:
        return int(self._file.read_text())


def nvml(device: str) -> Counter | None:
    """The counter of the card behind "cuda" or "cuda:1"; None elsewhere, or when it has none.

    Source: NVML API reference, nvmlDeviceGetTotalEnergyConsumption, in mJ.
    """
    if not device.startswith("cuda"):
        return None
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle = _card(library, uuid=_uuid(device))
    if handle is None or _millijoules(library, handle) is None:
        return None
    return Counter("nvml", lambda: (_millijoules(library, handle) or 0) / 1e3)


def _uuid(device: str) -> bytes:
    """What tells a card from the others, whatever CUDA_VISIBLE_DEVICES makes of its number."""
    import torch

    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return f"GPU-{uuid.removeprefix('GPU-')}".encode()


def _card(library: Any, *, uuid: bytes) -> ctypes.c_void_p | None:
    handle = ctypes.c_void_p()
    if library.nvmlInit_v2():
        return None
    failed = library.nvmlDeviceGetHandleByUUID(ctypes.c_char_p(uuid), ctypes.byref(handle))
    return None if failed else handle


def _millijoules(library: Any, handle: ctypes.c_void_p) -> int | None:
    value = ctypes.c_ulonglong()
    failed = library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value))
    return None if failed else value.value
