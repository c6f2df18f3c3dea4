"""Claims about studies on Slurm, with slurmctld and two slurmd that the tests start here.

The suite asks for what takes seconds; STOPGRAD_FULL=1 trains a study under each fault.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from stopgrad.studies import StudyDirectory
from stopgrad.studies.claims import create_claim, read_begin, read_claim, read_exit
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.slurm_queue import SlurmQueue
from stopgrad.studies.task import StudyTask, write_task
from tests.studies.engines import Slurm, running_slurm, wait_for
from tests.studies.faults import (
    check,
    folders,
    is_training,
    no_runner_stays,
    place,
    start,
    undisturbed,
)

__all__ = ["no_runner_stays", "place", "undisturbed"]  # fixtures

FULL = os.environ.get("STOPGRAD_FULL") == "1"
full = pytest.mark.skipif(not FULL, reason="the full set: STOPGRAD_FULL=1")
pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("sbatch") and Path("/usr/sbin/slurmctld").exists()),
        reason="no Slurm here: apt-get install slurm-wlm",
    ),
    pytest.mark.skipif(
        find_spec("submitit") is None, reason="no submitit here: pip install 'stopgrad[slurm]'"
    ),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(running_slurm(tmp_path_factory.mktemp("slurm")))
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"Slurm is installed but does not start here: {error}")
        yield found


def test_slurm_refuses_a_partition_in_its_own_words_and_nothing_stays(
    slurm: Slurm, place: Path, tmp_path: Path
) -> None:
    process = start(
        slurm.env, place, tmp_path / "s", "--on", "slurm", "--slurm", "partition=nowhere"
    )
    assert process.wait(120) == 2
    text = Path(f"{tmp_path / 's'}.log").read_text()
    assert text.count("invalid partition specified: nowhere") == 1
    assert "Traceback" not in text
    assert not list(tmp_path.glob("s/runs/*/job-*.json"))
    assert not slurm.ids()


def test_a_job_on_a_node_leaves_its_exit_code_and_is_in_the_queue_until_then(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    write_task(StudyTask(stage="evaluate", folder=str(tmp_path), spec="nowhere"))
    assert create_claim(tmp_path, attempt=1, engine="slurm", devices=1)
    claim, queue = read_claim(tmp_path, 1), SlurmQueue(tmp_path, {"partition": "cpu"})
    assert claim is not None
    job = queue.submit(RunFolder(tmp_path), claim)
    jobs = queue.queue()
    assert job is not None
    assert jobs is not None
    assert jobs[claim.name].job == job
    wait_for(lambda: read_exit(tmp_path, 1))
    end, begin = read_exit(tmp_path, 1), read_begin(tmp_path, 1)
    assert end is not None
    assert begin is not None
    assert (end.exit_code, begin.node) == (7, socket.gethostname())
    wait_for(lambda: queue.queue() == {})


def on_slurm(slurm: Slurm, place: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    return start(slurm.env, place, out, "--on", "slurm", "--slurm", "partition=cpu", *more)


def kill_runner(slurm: Slurm, runner: subprocess.Popen[str], out: Path) -> None:
    runner.kill()
    runner.wait()
    assert len(slurm.ids()) == 2  # the jobs go on


def cancel_one(slurm: Slurm, runner: subprocess.Popen[str], out: Path) -> None:
    slurm.ask("scancel", slurm.ids()[0])


def requeue_one(slurm: Slurm, runner: subprocess.Popen[str], out: Path) -> None:
    assert not slurm.ask("scontrol", "requeue", slurm.ids()[0])


def kill_steps(slurm: Slurm, runner: subprocess.Popen[str], out: Path) -> None:
    """The daemons of all steps on the machine, and the processes of their jobs."""
    steps = slurm.steps()
    assert len(steps) >= 6
    for process in steps:
        os.kill(process, signal.SIGKILL)


def controller_away(slurm: Slurm, runner: subprocess.Popen[str], out: Path) -> None:
    """Killed when it has written down the jobs that it started, which it does every few seconds."""
    began, saved = time.time(), slurm.folder / "state" / "job_state"
    wait_for(lambda: saved.exists() and saved.stat().st_mtime > began, 60)
    slurm.kill("slurmctld")
    time.sleep(30)
    slurm.start("slurmctld")


def controller_forgets(slurm: Slurm, runner: subprocess.Popen[str], out: Path) -> None:
    """Killed at once: it drains the nodes for jobs that it knows nothing of, until told not to."""
    slurm.kill("slurmctld")
    time.sleep(30)
    slurm.start("slurmctld")

    def ends() -> bool:
        if "drain" in slurm.ask("sinfo", "--noheader", "--format=%T"):
            slurm.ask("scontrol", "update", "nodename=n1,n2", "state=resume")
        return runner.poll() is not None

    wait_for(ends, 600)
    assert runner.poll() == 0  # by itself, without a second one


def interrupt(slurm: Slurm, runner: subprocess.Popen[str], out: Path) -> None:
    runner.send_signal(signal.SIGINT)
    assert runner.wait(120) == 128 + signal.SIGINT
    wait_for(lambda: not slurm.ids(), 10)
    assert {a.exit_code for folder in folders(out) for a in folder.attempts()} == {143}


FAULTS = [
    *(kill_runner, interrupt, cancel_one, requeue_one, kill_steps),
    *(controller_away, controller_forgets),
]


@full
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_the_table_of_an_undisturbed_study(
    slurm: Slurm,
    place: Path,
    tmp_path: Path,
    undisturbed: StudyDirectory,
    fault: Callable[[Slurm, subprocess.Popen[str], Path], None],
) -> None:
    out = tmp_path / "s"
    runner = on_slurm(slurm, place, out)
    wait_for(lambda: is_training(out) or runner.poll() is not None)
    fault(slurm, runner, out)
    if runner.poll() is not None:
        runner = on_slurm(slurm, place, out)
    assert runner.wait(600) == 0
    check(out, undisturbed)


@full
def test_two_runners_share_the_jobs_of_a_study(
    slurm: Slurm, place: Path, tmp_path: Path, undisturbed: StudyDirectory
) -> None:
    out = tmp_path / "s"
    runners = [on_slurm(slurm, place, out) for _ in range(2)]
    assert [runner.wait(600) for runner in runners] == [0, 0]
    check(out, undisturbed)


@full
def test_a_run_that_is_longer_than_its_time_limit_saves_and_goes_on(
    slurm: Slurm, place: Path, tmp_path: Path
) -> None:
    long = ("--epochs", "100")
    here = start(os.environ, place, tmp_path / "here", "--on", "local", *long)
    assert here.wait(800) == 0
    out = tmp_path / "s"
    runner = on_slurm(slurm, place, out, "time=1", "signal=USR2@20", *long)
    assert runner.wait(800) == 0
    stopped = [a.exit_code for folder in folders(out) for a in folder.attempts() if a.exit_code]
    assert len(stopped) >= 2
    assert set(stopped) == {128 + signal.SIGTERM}
    check(out, StudyDirectory(tmp_path / "here"))
