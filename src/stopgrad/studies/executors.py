"""Where the tasks of a study are carried out: what the runner needs of an executor, and one.

The runner decides what is done next and holds the claim on a run. A process of this machine, a job
in the queue of a cluster or an actor on another machine all look the same to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from stopgrad.storage import usable_cores
from stopgrad.studies.claims import open_claim
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.task import StudyTask
from stopgrad.studies.warm import FORKS, WarmParent


class Job(Protocol):
    """A task that was started; a `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it works."""

    def terminate(self) -> None:
        """Asks it to save and end, as SIGTERM does."""


class Adopted(NamedTuple):
    """A job that is at work, or that has ended without anybody recording it."""

    job: Job
    task: StudyTask
    claim: int


class Executor(Protocol):
    """Carries out tasks, one at a time per run, under a claim on the run, which is a number."""

    @property
    def slots(self) -> int:
        """How many tasks may be at work at once."""

    @property
    def ends_jobs(self) -> bool:
        """Whether jobs have a time limit: one that ends after some progress has not failed."""

    def claim(self, folder: RunFolder) -> int | None:
        """A claim on a run; None: somebody else has it."""

    def release(self, folder: RunFolder, claim: int) -> None:
        """Gives a claim back."""

    def adopt(self, folder: RunFolder) -> Adopted | None:
        """The job that somebody else has started for a run, if it can be followed from here."""

    def take_note(self, folder: RunFolder, claim: int) -> int | None:
        """The claim under which to record how a job ended; None: somebody else records it."""

    def worked_s(self, folder: RunFolder, claim: int) -> float | None:
        """How long an ended job ran, s; None: as long as it was followed."""

    def final_code(self, folder: RunFolder, claim: int, code: int) -> int:
        """The exit code of an ended job, for which its engine gave `code`."""

    def start(self, task: StudyTask, *, slot: int, claim: int) -> Job:
        """Starts a task that was written into its folder.

        Args:
            task: The task; what it prints is added to the log of its folder.
            slot: A free one, 0 to slots - 1.
            claim: The claim on the run.
        """


class FileLocks:
    """Claims by file locks: descriptors, held until every process that has them open has ended."""

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

    def final_code(self, folder: RunFolder, claim: int, code: int) -> int:
        """The same code."""
        return code


class LocalProcesses(FileLocks):
    """One process per task, each on its part of the cores or on its own GPU.

    On Linux a process is asked to save and end when the runner dies, and what all of them import
    is imported once. On other systems it continues and keeps its claim, so no other runner touches
    its run before it has ended.
    """

    def __init__(self, jobs: int, *, threads: int, gpus: Sequence[str] = ()) -> None:
        self.slots = jobs
        self._threads, self._gpus = threads, gpus
        self._parent: WarmParent | None = None

    def start(self, task: StudyTask, *, slot: int, claim: int) -> Job:
        """Starts a process; what it prints goes to the log of the run."""
        with RunFolder(Path(task.folder)).open_log() as log:
            if FORKS:
                own, number = self.variables(slot), log.fileno()
                return self._warm_parent().start(task.file, own, claim=claim, log=number)
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "stopgrad.studies.task", str(task.file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(claim,),
                env=self.environment(os.environ) | self.variables(slot),
            )

    def _warm_parent(self) -> WarmParent:
        """The warm process; a new one if there is none, or if somebody has killed it."""
        if self._parent is None or not self._parent.is_there:
            self._parent = WarmParent(self.environment(os.environ))
        return self._parent

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """The environment of all processes: their threads, unless the user has set them."""
        return {"OMP_NUM_THREADS": str(self._threads)} | dict(inherited)

    def variables(self, slot: int) -> dict[str, str]:
        """The environment variables of a slot: its GPU."""
        gpus = self._gpus
        return {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}


def local_processes(*, jobs: int | None, device: str) -> LocalProcesses:
    """As many processes as asked for; by default one per GPU, or two on a machine without.

    With the device "cpu" in their config, runs leave GPUs alone.
    """
    gpus = _gpus() if device in ("auto", "cuda") else []
    cores = usable_cores()
    jobs = jobs or len(gpus) or min(2, cores)
    return LocalProcesses(jobs, threads=max(1, cores // jobs), gpus=gpus)


def _gpus() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    names = allowed.split(",") if allowed else [str(number) for number in range(count)]
    return names[:count]
