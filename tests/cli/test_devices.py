"""Claims about `--devices` and torchrun, from outside: real processes that train on the CPU."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import stopgrad
from stopgrad.runs import newest_step, read_run, read_status
from stopgrad.runs.info import Change
from tests.factories import write_digits
from tests.promises.process import Running, order_in, run_forked, start_forked

FULL = os.environ.get("STOPGRAD_FULL") == "1"
full = pytest.mark.skipif(not FULL, reason="the full set: STOPGRAD_FULL=1")
COUNTS = [2, pytest.param(3, marks=full), pytest.param(4, marks=full)]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
TIMEOUT = 20  # s that a process waits for the others
KNOBS = (
    *("--preset", "tiny", "--epochs", "3", "--checkpoint_every", "7", "--knn_every", "0"),
    *("--device", "cpu", "--precision", "fp32", "--process_timeout", str(TIMEOUT)),
)


def _pretrain(run: Path, images: Path, *, devices: int) -> tuple[object, ...]:
    return ("pretrain", "--data", images, *KNOBS, "--out", run, "--devices", devices)


def _start(run: Path, images: Path, *, devices: int) -> Running:
    """The command is a fork; the processes that it starts, which train, are plain new ones."""
    return start_forked(order_in(run.parent, *_pretrain(run, images, devices=devices)))


def _resume(run: Path, *, devices: int) -> None:
    done = run_forked("resume", run, "--devices", devices)
    assert done.code == 0, done.err


def _weights(run: Path) -> str:
    """sha256 of the newest checkpoint's weights and optimizer state."""
    newest = max((run / "checkpoints").iterdir())
    files = (newest / name for name in ("model.safetensors", "optimizer.safetensors"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """320 real digits: 10 steps an epoch."""
    return write_digits(tmp_path_factory.mktemp("digits"), train=320, test=40)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The weights of a run that nothing has stopped, by the number of its processes."""

    class Runs(dict[int, str]):
        def __missing__(self, devices: int) -> str:
            run = tmp_path_factory.mktemp("whole") / "run"
            done = _start(run, images, devices=devices).wait()
            assert done.code == 0, done.err
            self[devices] = _weights(run)
            return self[devices]

    return Runs()


def _workers(process: Running | subprocess.Popen[str]) -> dict[int, int]:
    """The process of each rank, by what the system knows of them."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = re.search(r"PPid:\s+(\d+)", (folder / "status").read_text())
            rank = re.search(rb"\0RANK=(\d+)\0", (folder / "environ").read_bytes())
            if parent and rank and int(parent[1]) == process.pid:
                found[int(rank[1])] = int(folder.name)
    return found


def _wait_for_steps(run: Path, running: Callable[[], bool], *, steps: int) -> None:
    """Until so many steps are on disk, in the middle of an epoch of 10."""
    metrics = run / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= steps):
        assert running()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "whom", "code", "said"),
    [
        (signal.SIGKILL, 1, 137, "was killed by SIGKILL"),
        pytest.param(signal.SIGTERM, "command", 143, "saved at step", marks=full),
        pytest.param(signal.SIGTERM, 1, 143, "saved at step", marks=full),
        pytest.param(signal.SIGSTOP, 1, 1, "not heard from", marks=full),
        pytest.param(signal.SIGKILL, 0, 137, "was killed by SIGKILL", marks=full),
    ],
)
@pytest.mark.parametrize("devices", COUNTS)
def test_a_process_that_is_stopped_ends_all_and_the_run_goes_on_bit_for_bit(
    tmp_path: Path,
    images: Path,
    whole: dict[int, str],
    devices: int,
    number: int,
    whom: int | str,
    code: int,
    said: str,
) -> None:
    run = tmp_path / "run"
    process = _start(run, images, devices=devices)
    _wait_for_steps(run, process.is_running, steps=12)
    workers = _workers(process)
    os.kill(process.pid if whom == "command" else workers[int(whom)], number)
    began = time.monotonic()
    done = process.wait(6 * TIMEOUT)
    assert done.code == code, done.err
    assert time.monotonic() - began < TIMEOUT + 60
    assert said in done.err
    assert not [pid for pid in workers.values() if Path(f"/proc/{pid}").exists()]
    _resume(run, devices=devices)
    assert _weights(run) == whole[devices]


def test_a_restart_by_torchrun_goes_on_bit_for_bit(
    tmp_path: Path, images: Path, whole: dict[int, str]
) -> None:
    run, torchrun = tmp_path / "run", (sys.executable, "-m", "torch.distributed.run")
    how = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1", "-m", "stopgrad")
    process = subprocess.Popen(
        [*torchrun, *how, "pretrain", "--data", images, *KNOBS, "--out", run],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    _wait_for_steps(run, lambda: process.poll() is None, steps=12)
    os.kill(_workers(process)[1], signal.SIGKILL)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert _weights(run) == whole[2]


@full
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, which only root may")
def test_a_full_disk_under_the_first_process_ends_all_with_its_code_and_loses_no_bit(
    tmp_path: Path, images: Path, whole: dict[int, str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], check=True)
    try:
        words, began = _pretrain(disk / "run", images, devices=2), time.monotonic()
        done = run_forked(*words, longest=6 * TIMEOUT)
        assert done.code == 5, done.err
        assert time.monotonic() - began < 6 * TIMEOUT
        assert "No space left on device" in done.err
        assert done.err.count("stopgrad: ") == 1, done.err
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        _resume(disk / "run", devices=2)
        assert _weights(disk / "run") == whole[2]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@full
def test_a_run_goes_on_with_more_processes_and_the_threads_of_torchrun_and_notes_it(
    tmp_path: Path, images: Path
) -> None:
    run, free = tmp_path / "run", {k: v for k, v in os.environ.items() if k not in THREADS}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "stopgrad"),
            *map(str, _pretrain(run, images, devices=1)),
            *("--threads", "0"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | dict.fromkeys(THREADS, "2"),
    )
    _wait_for_steps(run, lambda: process.poll() is None, steps=12)
    process.terminate()
    _, error = process.communicate()
    assert process.returncode == 143, error
    step = newest_step(run)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "-m", "stopgrad", "resume", run],
        capture_output=True,
        text=True,
        env=free,
    )
    assert done.returncode == 0, done.stderr
    assert "Setting OMP_NUM_THREADS environment variable for each process to be 1" in done.stderr
    said = "bit-identical results are not guaranteed: environment.processes: 1 -> 2"
    assert done.stderr.count(said) == 1, done.stderr
    info = read_run(run)
    assert info.changes == (Change(step, "environment.processes", 1, 2),)
    assert info.environment["threads"] == 2
    assert read_status(run).get("state") == "finished"


@full
@pytest.mark.parametrize(("bad_images", "code"), [("fail", 3), ("skip", 0)])
def test_two_processes_say_what_one_says_of_a_bad_image(
    tmp_path: Path, images: Path, bad_images: str, code: int
) -> None:
    """The first process finds it while it decodes, the second one in the cache or not at all."""
    folder = shutil.copytree(images, tmp_path / "images")
    bad = min((folder / "train").rglob("*.png"))
    bad.write_bytes(bad.read_bytes()[:50])
    said = []
    for devices in (1, 2):
        run, cache = tmp_path / f"run-{devices}", str(tmp_path / f"cache-{devices}")
        words = (
            *_pretrain(run, folder, devices=devices),
            "--epochs",
            1,
            "--bad_images",
            bad_images,
        )
        done = run_forked(*words, environment=(("STOPGRAD_CACHE", cache),))
        assert done.code == code, done.err
        assert run.exists() == (code == 0)
        lines = done.err.replace(" (exit code 3)", "").splitlines()
        said.append([line for line in lines if "damaged" in line])
    assert said[0]
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--devices", "0"), "--devices 0"),
        (("--devices", "3", "--batch", "2", "--device", "cpu"), "3 processes for batch = 2"),
    ],
)
def test_processes_that_cannot_train_together_are_one_line_and_nothing_is_written(
    tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    run = tmp_path / "run"
    done = run_forked("pretrain", "--data", "mnist5k", *KNOBS, *words, "--out", run)
    assert done.code == 2, done.err
    assert named in done.err
    assert done.err.count("\n") == 1, done.err
    assert not (tmp_path / "run").exists()


def test_devices_inside_torchrun_are_refused(tmp_path: Path) -> None:
    words = _pretrain(tmp_path / "run", Path("mnist5k"), devices=2)
    done = run_forked(*words, environment=(("WORLD_SIZE", "2"),))
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "in a process of torchrun" in done.err  # the folder of this test has that word too
    assert done.err.endswith("(exit code 2)\n")  # torchrun itself ends with 1


def test_no_process_that_is_started_takes_modules_from_the_working_directory() -> None:
    """By -P: a folder of somebody else may hold a torch.py."""
    trees = [ast.parse(path.read_text()) for path in Path(stopgrad.__path__[0]).rglob("*.py")]
    lists = [node.elts for tree in trees for node in ast.walk(tree) if isinstance(node, ast.List)]
    words = [[e.value for e in elts if isinstance(e, ast.Constant)] for elts in lists]
    started = [found for found in words if {"-m", "-c"} & {*map(str, found)}]
    assert len(started) >= 7
    assert [found for found in started if not {"-P", "-I"} & {*found}] == []
