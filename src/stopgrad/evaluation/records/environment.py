"""The machine and the code behind a number; none of the packages named is imported."""

from __future__ import annotations

import functools
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import NamedTuple


class Environment(NamedTuple):
    """What a record says of the machine and the code; the names are those of its keys."""

    code: str
    versions: dict[str, str]
    device: str
    device_name: str
    threads: int
    time: str


def environment(*, device: str, threads: int) -> Environment:
    """The code, the versions and the time of now: `Record(..., **environment(...)._asdict())`.

    Args:
        device: Where the work was done, as a reader knows it.
        threads: CPU threads in use.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Environment(code_version(), versions(), device, device_name(device), threads, now)


@functools.cache
def device_name(device: str) -> str:
    """The processor behind "cpu", the card behind "cuda" or "cuda:1"; else the name as it is."""
    if device.startswith("cuda"):
        import torch  # a record of a GPU is made by a process that has it already

        return torch.cuda.get_device_name(device)
    return _processor() if device == "cpu" else device


def _processor() -> str:
    """The name in /proc/cpuinfo, else what the operating system calls it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names and names[0] else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of python and of the packages that decide a number; none of them is imported."""
    packages = ("torch", "numpy", "stopgrad")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


@functools.cache
def code_version() -> str:
    """The version of stopgrad; from a checkout followed by "+git." and the commit.

    "-dirty" ends it when tracked files differ from the commit.
    """
    commit = _commit(Path(__file__).resolve().parents[1])
    return _version("stopgrad") + (f"+git.{commit}" if commit else "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit(package: Path) -> str | None:
    """The commit of the checkout that holds this package as src/stopgrad, None elsewhere.

    A package that is installed below somebody's own repository has no commit of ours.
    """
    root = package.parent.parent
    if package.parent.name != "src" or not (root / ".git").exists():
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
