"""Where a run is computed, as far as it decides bits, and what can be promised about them."""

from __future__ import annotations

import functools
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stopgrad.config import Config

# Another one of these and the steps stay the same, the last bits of their numbers may not.
ROUNDING = ("torch", "numpy", "stopgrad", "machine", "cpu", "cpu_capability", "gpu")


def describe_environment(config: Config) -> dict[str, Any]:
    """The device that a config asks for, the machine, threads in use and versions.

    Raises:
        ConfigError: When the device is unknown or not there.
    """
    import torch

    from stopgrad.method import compute_for

    compute = compute_for(config)
    device = compute.device
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "threads": torch.get_num_threads(),
        "device": str(device),
        "precision": compute.precision,
        **gpu,
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "stopgrad": _own_version(),
    }


def _own_version() -> str:
    """The version, or what says that stopgrad runs from a checkout without an install."""
    try:
        return version("stopgrad")
    except PackageNotFoundError:
        return "not installed"


@functools.cache
def _cpu_name() -> str:
    """The model of the processor; two of one name round alike."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
