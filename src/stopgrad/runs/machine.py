"""The machine and the code behind a run or a number.

Versions are read without importing a package, so that a record takes no torch.
"""

from __future__ import annotations

import functools
import platform
import re
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, Required, TypedDict

from stopgrad.config import Config


class RunEnvironment(TypedDict, total=False):
    """Where a run is computed, as `config.json` has it."""

    threads: Required[int]
    processes: int  # that train together; absent: one
    device: str
    precision: str
    gpu: str
    machine: str
    cpu: str
    cpu_capability: str
    python: str
    torch: str
    numpy: str
    timm: str  # only if it builds the encoder
    stopgrad: str


class Environment(NamedTuple):
    """The machine and the code, as a record states them; the names are those of its keys."""

    code: str
    versions: dict[str, str]
    device: str
    device_name: str
    threads: int
    time: str


def environment(*, device: str, threads: int) -> Environment:
    """The code, the versions and the time now: `Record(..., **environment(...)._asdict())`.

    Args:
        device: Where the work was done: cpu, cuda or cuda:N.
        threads: CPU threads in use.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Environment(code_version(), versions(), device, device_name(device), threads, now)


def describe_environment(config: Config) -> RunEnvironment:
    """Where a run is computed, as far as it decides bits; a ConfigError for an unknown device."""
    import torch

    from stopgrad.method import compute_for, process_count

    compute = compute_for(config)
    found: RunEnvironment = {
        "threads": torch.get_num_threads(),
        "device": str(compute.device),
        "precision": compute.precision,
    }
    if process_count() > 1:
        found["processes"] = process_count()
    if compute.device.type == "cuda":
        found["gpu"] = device_name(found["device"])
    if config.encoder.is_timm:
        found["timm"] = _version("timm")
    return {
        **found,
        "machine": platform.machine(),
        "cpu": device_name("cpu"),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": _version("numpy"),
        "stopgrad": _version("stopgrad"),
    }


@functools.cache
def device_name(device: str) -> str:
    """The processor behind "cpu", the card behind "cuda" or "cuda:1"; else the name as it is."""
    if device.startswith("cuda"):
        import torch  # a process that records a GPU has torch already

        return torch.cuda.get_device_name(device)
    if device != "cpu":
        return device
    named = None
    with suppress(OSError):
        named = re.search(r"^model name.*?:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return (named[1].strip() if named else "") or platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of python and of the packages that decide a number; none of them is imported."""
    packages = ("torch", "numpy", "stopgrad")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


@functools.cache
def code_version() -> str:
    """The version of stopgrad; from a checkout "+git." and the commit, "-dirty" when changed."""
    commit = _commit(Path(__file__).resolve().parents[1])
    return _version("stopgrad") + (f"+git.{commit}" if commit else "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit(package: Path) -> str | None:
    """The commit of our own checkout; None where the package is installed elsewhere."""
    root = package.parent.parent
    if package.parent.name != "src" or not (root / ".git").exists():
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
