"""Where the tasks of a study are carried out: what the runner asks of such a place, and one.

The runner decides what is done next and holds the claim on a run. A process of this machine, a job
in the queue of a cluster or an actor on another machine all look the same to it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from stopgrad.studies.claims import open_claim
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.task import StudyTask

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Job(Protocol):
    """A task that was started; a `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it works."""

    def terminate(self) -> None:
        """Asks it to save and end, as SIGTERM does."""


class Adopted(NamedTuple):
    """A job that is at work, or has ended and nobody has taken note of it."""

    job: Job
    task: StudyTask
    claim: int


class Executor(Protocol):
    """Carries out tasks, one at a time of a run: that on which it has a claim, a number."""

    @property
    def slots(self) -> int:
        """How many tasks may be at work at once."""

    @property
    def ends_jobs(self) -> bool:
        """Whether jobs are ended by their time limit: one that came further is no failure."""

    def claim(self, folder: RunFolder) -> int | None:
        """A claim on a run; None: somebody else has it."""

    def release(self, folder: RunFolder, claim: int) -> None:
        """Gives a claim back."""

    def adopt(self, folder: RunFolder) -> Adopted | None:
        """The job that somebody else has started of a run, where it can be followed from here."""

    def take_note(self, folder: RunFolder, claim: int) -> int | None:
        """The claim of the one who writes down how a job ended; None: somebody else does."""

    def worked_s(self, folder: RunFolder, claim: int) -> float | None:
        """How long an ended job was at work; None: for as long as it was followed."""

    def start(self, task: StudyTask, *, slot: int, claim: int) -> Job:
        """Starts a task that was written into its folder.

        Args:
            task: The task; what it prints is added to the log of its folder.
            slot: A free one, 0 to slots - 1.
            claim: The claim on the run.
        """


class FileLocks:
    """Claims by file locks: descriptors, held until whoever has them open has ended."""

    ends_jobs = False

    def claim(self, folder: RunFolder) -> int | None:
        """A descriptor that holds the claim."""
        found = open_claim(folder.path)
        return None if found is not None and found.may_have_job else folder.claim()

    def release(self, folder: RunFolder, claim: int) -> None:
        """Closes it."""
        os.close(claim)

    def adopt(self, folder: RunFolder) -> Adopted | None:
        """None: a process belongs to the runner that started it."""
        return None

    def take_note(self, folder: RunFolder, claim: int) -> int | None:
        """The same claim."""
        return claim

    def worked_s(self, folder: RunFolder, claim: int) -> float | None:
        """None: there is no queue to wait in."""
        return None


class LocalProcesses(FileLocks):
    """One process per task, each on its part of the cores or on its own GPU.

    On Linux a process is asked to save and end when the runner dies. On other systems it goes on
    and keeps its claim, so no other runner touches its run before it has ended.
    """

    def __init__(self, jobs: int, *, threads: int, gpus: Sequence[str] = ()) -> None:
        self.slots = jobs
        self._threads, self._gpus = threads, gpus

    def start(self, task: StudyTask, *, slot: int, claim: int) -> Job:
        """Starts a process; what it prints goes to the log of the run."""
        with RunFolder(Path(task.folder)).open_log() as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "stopgrad.studies.task", str(task.file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(claim,),
                env=self.environment(slot, os.environ),
                preexec_fn=die_with(os.getpid()),
            )

    def environment(self, slot: int, inherited: Mapping[str, str]) -> dict[str, str]:
        """The variables of a slot: its GPU, and its threads unless the user has set them."""
        own = {"OMP_NUM_THREADS": str(self._threads)} | dict(inherited)
        if self._gpus:
            own["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        return own


def local_processes(*, jobs: int | None, device: str) -> LocalProcesses:
    """As many processes as asked for; by default one per GPU, or two on a machine without.

    With the device "cpu" in their config, runs leave GPUs alone.
    """
    gpus = _gpus() if device in ("auto", "cuda") else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    jobs = jobs or len(gpus) or min(2, cores or 1)
    return LocalProcesses(jobs, threads=max(1, (cores or 1) // jobs), gpus=gpus)


def _gpus() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    names = allowed.split(",") if allowed else [str(number) for number in range(count)]
    return names[:count]


def die_with(parent: int) -> Callable[[], None] | None:
    """Runs in the child before anything else: SIGTERM when its parent ends, however it ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before it was asked about
            os._exit(128 + signal.SIGTERM)

    return ask
