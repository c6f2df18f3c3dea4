"""Tasks as jobs of an engine that outlives the runner: a queue of Slurm, actors of Ray.

A runner that comes back, or a second one, finds the claims of all jobs in the folders of their
runs, follows those that are at work and records those that have ended in the meantime.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from stopgrad.errors import ConfigError
from stopgrad.studies.claims import (
    JobClaim,
    create_claim,
    give_back,
    newest_attempt,
    newest_beat,
    newest_claim,
    read_begin,
    read_claim,
    read_exit,
    write_claim,
)
from stopgrad.studies.executors import Adopted
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.task import StudyTask, read_task

ASK_S = 1.0  # between two questions to the engine, and two looks at the files of a job
SUBMIT_S = 15.0  # between two tries to submit a job that the engine does not take now
GONE_S = 5.0  # a job without an exit code that its engine has not known for this long is dead
SILENT_S = 180.0  # a job at work that is silent for this long is cancelled: its machine is stuck
STALE_S = 60.0  # a claim from another machine is void if no job is submitted for this long

HELD = "HELD"  # a job that its engine could not start and will not try again
RUNNING = ("RUNNING", "", HELD)  # a job that may be at work; HELD if it was held after it began
MISSING = -signal.SIGKILL  # exit code of a job that died with its machine
NEVER_BEGUN = -signal.SIGTERM  # exit code of a job that was cancelled in the queue


class Queued(NamedTuple):
    """What an engine reports about a job that has not ended."""

    job: str  # its id
    state: str  # in the words of the engine
    node: str
    left: str  # of its time limit


class Engine(Protocol):
    """Carries out jobs on other machines; its answers may soon be out of date."""

    name: str

    def submit(self, folder: RunFolder, claim: JobClaim) -> str | None:
        """Starts the job of a claim; its id, or None when the engine did not answer.

        Raises:
            ConfigError: When the engine refuses such jobs, in its own words.
        """

    def queue(self) -> Mapping[str, Queued] | None:
        """All jobs that have not ended, by name; None when the engine did not answer."""

    def stop(self, claim: JobClaim, *, begun: bool) -> bool:
        """Asks a job to save and end, or cancels one that has not begun; whether it was asked."""


class Snapshot(NamedTuple):
    """An answer of the engine, and when it was asked."""

    jobs: Mapping[str, Queued]
    asked: float


class Cluster:
    """Carries out tasks by an engine, under claims that are files."""

    ends_jobs = True

    def __init__(self, engine: Engine, *, jobs: int, devices: int = 1) -> None:
        self.slots = jobs
        self.engine, self._devices = engine, devices
        self._snapshot: Snapshot | None = None
        self._ask_at = 0.0
        self.unsent: set[tuple[Path, int]] = set()  # claims whose job was not submitted yet
        self._seen: dict[str, float] = {}  # claims without a job, by name: since when

    def snapshot(self) -> Snapshot | None:
        """The newest answer of the engine; None before the first one."""
        now = time.monotonic()
        if now >= self._ask_at:
            jobs = self.engine.queue()
            if jobs is not None:
                self._snapshot = Snapshot(jobs, now)
            self._ask_at = time.monotonic() + ASK_S
        return self._snapshot

    def claim(self, folder: RunFolder) -> int | None:
        """The number of a claim that was created; None: another runner holds the newest one."""
        if folder.is_locked():
            return None
        newest = newest_attempt(folder.path)
        claim = read_claim(folder.path, newest)
        if newest and (claim is None or not (claim.ended or self._is_void(claim))):
            return None
        return self._create(folder, newest + 1)

    def _is_void(self, claim: JobClaim) -> bool:
        """Whether its runner died before it submitted the job."""
        if claim.job:
            return False
        since = self._seen.setdefault(claim.name, time.monotonic())
        if not claim.is_dead and time.monotonic() < since + STALE_S:
            return False
        found = self.snapshot()
        return found is not None and found.asked > since and claim.name not in found.jobs

    def _create(self, folder: RunFolder, attempt: int) -> int | None:
        made = create_claim(
            folder.path, attempt=attempt, engine=self.engine.name, devices=self._devices
        )
        return attempt if made else None

    def release(self, folder: RunFolder, claim: int) -> None:
        """Gives a claim back."""
        give_back(folder.path, claim)

    def adopt(self, folder: RunFolder) -> Adopted | None:
        """The job of the newest claim, where one was submitted."""
        claim, found = newest_claim(folder.path), self.snapshot()
        if claim is None or claim.ended or claim.engine != self.engine.name or found is None:
            return None
        if not claim.job and claim.name not in found.jobs:
            return None
        job = ClusterJob(self, folder, claim, submitted=True)
        return Adopted(job, read_task(folder.path / "task.json"), claim.attempt)

    def take_note(self, folder: RunFolder, claim: int) -> int | None:
        """The next claim, which only one runner gets; the same one if no job was submitted."""
        if (folder.path, claim) in self.unsent:
            return claim
        return self._create(folder, claim + 1)

    def worked_s(self, folder: RunFolder, claim: int) -> float | None:
        """The time that the job recorded, else from its begin to its last beat; never queueing."""
        end, begin = read_exit(folder.path, claim), read_begin(folder.path, claim)
        if end is not None:
            return end.wall_s
        return max(0.0, newest_beat(folder.path, claim) / 1e9 - begin.began) if begin else 0.0

    def final_code(self, folder: RunFolder, claim: int, code: int) -> int:
        """The code that the job wrote, if a network file system shows it only now; else `code`."""
        end = read_exit(folder.path, claim)
        return code if end is None else end.exit_code

    def start(self, task: StudyTask, *, slot: int, claim: int) -> ClusterJob:
        """A job that is submitted as soon as the engine answers."""
        folder = RunFolder(Path(task.folder))
        found = read_claim(folder.path, claim)
        assert found is not None
        self.unsent.add((folder.path, claim))
        return ClusterJob(self, folder, found, submitted=False)


class ClusterJob:
    """A job under a claim."""

    def __init__(
        self, cluster: Cluster, folder: RunFolder, claim: JobClaim, *, submitted: bool
    ) -> None:
        self._cluster, self._folder, self._claim = cluster, folder, claim
        self._submitted, self._tried, self._told = submitted, False, False
        self._stopping = self._refused = False
        self._gone_since: float | None = None
        self._look_at = self._submitted_at = 0.0
        self._beat, self._heard = 0, time.monotonic()

    def poll(self) -> int | None:
        """Its exit code; None while it is queued or at work, or nothing is known of it."""
        now = time.monotonic()
        if now < self._look_at:
            return None
        self._look_at = now + ASK_S
        if not self._submitted:
            if self._refused or (self._stopping and not self._tried):
                return NEVER_BEGUN
            self._submit()
            if not self._submitted:
                self._look_at = now + SUBMIT_S
            return None
        end = read_exit(self._folder.path, self._claim.attempt)
        if end is not None:
            if end.exit_code:  # one that was requeued would wait there for nothing
                self._cluster.engine.stop(self._claim, begun=False)
            return end.exit_code
        if newest_attempt(self._folder.path) != self._claim.attempt:
            return MISSING  # somebody else has recorded its end
        if self._stopping and not self._told:
            self._told = self._cluster.engine.stop(self._claim, begun=self._has_begun())
        return self._code_if_gone()

    def terminate(self) -> None:
        """Asks it to save and end as soon as the engine answers."""
        self._stopping, self._look_at = True, 0.0

    def _submit(self) -> None:
        """Submits the job, unless an earlier submission without an answer has queued it already."""
        engine, job = self._cluster.engine, None
        if self._tried:
            found = engine.queue()
            if found is None:
                return
            job = found[self._claim.name].job if self._claim.name in found else None
            if job is None and self._stopping:
                self._refused = True
                return
        self._tried = True
        try:
            job = job or engine.submit(self._folder, self._claim)
        except ConfigError:
            self._refused = True
            raise
        if job is not None:
            self._submitted, self._submitted_at = True, time.monotonic()
            self._cluster.unsent.discard((self._folder.path, self._claim.attempt))
            self._claim = self._claim._replace(job=job)
            write_claim(self._folder.path, self._claim)

    def _has_begun(self) -> bool:
        return read_begin(self._folder.path, self._claim.attempt) is not None

    def _is_dead(self, found: Queued) -> bool:
        """Whether it will never begin, or is silent although its engine takes it for alive."""
        if found.state == HELD and not self._has_begun():
            return True
        now, date = time.monotonic(), newest_beat(self._folder.path, self._claim.attempt)
        if date != self._beat or not date or found.state not in RUNNING:
            self._beat, self._heard = date, now
        return now > self._heard + SILENT_S

    def _code_if_gone(self) -> int | None:
        found = self._cluster.snapshot()
        if found is None or found.asked <= self._submitted_at:
            return None
        if self._claim.name in found.jobs:
            self._gone_since = None
            if self._is_dead(found.jobs[self._claim.name]):
                self._cluster.engine.stop(self._claim, begun=False)
            return None
        if self._gone_since is None:
            self._gone_since = found.asked
        if found.asked < self._gone_since + GONE_S:
            return None
        return MISSING if self._has_begun() else NEVER_BEGUN
