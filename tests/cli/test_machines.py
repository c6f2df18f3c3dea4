"""Claims about one training on two machines: two network namespaces, joined by a cable.

Real processes under torchrun, on the CPU. The machines see the same files, as on a cluster; each
has its own address, its own copy of the program where a claim needs one, and its own cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import stopgrad

FULL = os.environ.get("STOPGRAD_FULL") == "1"
full = pytest.mark.skipif(not FULL, reason="the full set: STOPGRAD_FULL=1")
TIMEOUT = 10  # s that a process waits for the others
ADDRESSES = ("10.77.0.1", "10.77.0.2")
KNOBS = (
    *("--preset", "tiny", "--epochs", "3", "--knn_every", "0"),
    *("--checkpoint_every", "20", "--device", "cpu", "--process_timeout", str(TIMEOUT)),
)


def _system(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kills a process and all that it has started."""
    for pid in _family(process.pid):
        os.kill(pid, signal.SIGKILL)


def _family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    children = [int(line) for line in found.stdout.split()]
    return [pid, *(each for child in children for each in _family(child))]


class Machines:
    """Two machines that a cable joins."""

    def __init__(self) -> None:
        self.names = [f"sg{os.getpid()}-{number}" for number in (0, 1)]
        self.started: list[subprocess.Popen[str]] = []

    def build(self) -> None:
        """Makes the namespaces and the cable."""
        for name in self.names:
            _system("ip", "netns", "add", name)
        first, second = (("eth", "netns", name) for name in self.names)
        _system("ip", "link", "add", *first, "type", "veth", "peer", *second)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            _system("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth")
            for device in ("lo", "eth"):
                _system("ip", "-n", name, "link", "set", device, "up")

    def remove(self) -> None:
        """Takes them away again, with what still runs there."""
        for process in self.started:
            if process.poll() is None:
                _kill(process)
                process.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def unplug(self) -> None:
        """Pulls the cable out of the second machine."""
        _system("ip", "-n", self.names[1], "link", "set", "eth", "down")

    def start(self, number: int, run: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
        """Starts torchrun on one of them."""
        torchrun = (
            *("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
            *("--node-rank", str(number), "--master-addr", ADDRESSES[0], "--master-port", "29511"),
        )
        command = ["ip", "netns", "exec", self.names[number], sys.executable, *torchrun]
        command += [
            "-m",
            "stopgrad",
            *(words or ("pretrain", "--data", "mnist5k", *KNOBS, "--out", str(run))),
        ]
        ours = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth"}
        process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=os.environ | ours | variables
        )
        self.started.append(process)
        return process


@pytest.fixture
def machines() -> Iterator[Machines]:
    """Two machines, gone after the test."""
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("network namespaces need ip and root")
    both = Machines()
    try:
        both.build()
    except subprocess.CalledProcessError as error:
        both.remove()
        pytest.skip(f"no network namespace here: {error.stderr.strip()}")
    yield both
    both.remove()
    for process in both.started:
        process.communicate()  # closes its pipe


def _ended(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What each has said, when all have ended."""
    return [process.communicate(timeout=12 * TIMEOUT)[1] for process in processes]


def _weights(run: Path) -> str:
    """sha256 of the newest checkpoint's weights and optimizer state."""
    newest = max((run / "checkpoints").iterdir())
    files = (newest / name for name in ("model.safetensors", "optimizer.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _wait_for_steps(run: Path, *, steps: int) -> None:
    metrics, began = run / "metrics.jsonl", time.monotonic()
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= steps):
        assert time.monotonic() - began < 12 * TIMEOUT
        time.sleep(0.05)


@full
def test_a_cable_that_is_pulled_ends_both_and_the_run_goes_on_bit_for_bit(
    machines: Machines, tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    undisturbed = [machines.start(number, whole) for number in (0, 1)]
    said = _ended(undisturbed)
    assert [process.returncode for process in undisturbed] == [0, 0], said
    pair = [machines.start(number, run) for number in (0, 1)]
    _wait_for_steps(run, steps=80)
    trainers = [_family(process.pid)[-1] for process in pair]
    machines.unplug()
    began = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() for pid in trainers):
        assert time.monotonic() - began < 6 * TIMEOUT
        time.sleep(0.1)
    machines.remove()  # torchrun itself waits for the other machine for minutes
    assert "process 1 (" in (said := _ended(pair))[0], said
    silent = f"the machine of process 0, {ADDRESSES[0]}, does not answer"
    assert silent in said[1], said[1]
    machines.build()
    again = [machines.start(number, run, "resume", str(run)) for number in (0, 1)]
    said = _ended(again)
    assert [process.returncode for process in again] == [0, 0], said
    assert _weights(run) == _weights(whole)


@full
def test_a_machine_that_dies_ends_the_other_in_time(machines: Machines, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pair = [machines.start(number, run) for number in (0, 1)]
    _wait_for_steps(run, steps=30)
    began = time.monotonic()
    _kill(pair[1])
    said = _ended(pair)
    assert pair[0].returncode == 1, said
    assert time.monotonic() - began < 6 * TIMEOUT


@pytest.mark.parametrize("other", ["images", pytest.param("stopgrad", marks=full)])
def test_machines_with_another_program_or_other_images_are_refused_before_the_first_step(
    machines: Machines, tmp_path: Path, other: str
) -> None:
    data, variables = [tmp_path / f"{number}.npy" for number in (0, 1)], {}
    pixels = np.random.default_rng(0).integers(0, 256, (200, 12, 12, 3), dtype=np.uint8)
    for path in data:
        np.save(path, pixels)
        pixels[7, 3, 3, 0] ^= other == "images"
    if other == "stopgrad":
        shutil.copytree(Path(stopgrad.__file__).parent, tmp_path / "stopgrad")
        variables["PYTHONPATH"] = str(tmp_path)
    run = tmp_path / "run"
    words = ("pretrain", *KNOBS, "--batch", "32", "--out", str(run))
    pair = [
        machines.start(0, run, *words, "--data", str(data[0])),
        machines.start(1, run, *words, "--data", str(data[1]), **variables),
    ]
    said = _ended(pair)
    assert all(process.returncode == 1 for process in pair), said
    assert f"process 1 has other {other} than process 0" in said[0]
    assert not run.exists()
