"""The runs of a study, one after the other on each slot of an executor, until none is left.

Two runners on one directory share the work: each takes the runs whose claim it gets. A runner
that is killed leaves nothing but its jobs: processes, which hold their claims until they have
ended, or jobs of an engine, which the next runner adopts.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import NamedTuple, Protocol

from stopgrad.errors import DataError, InterruptedStudyError
from stopgrad.evaluation import Key
from stopgrad.storage import stop_signals
from stopgrad.studies.directory import StudyDirectory
from stopgrad.studies.executors import Adopted, Executor, Job
from stopgrad.studies.folder import RunAttempt, RunFolder
from stopgrad.studies.plan import PlannedRun, StudyPlan
from stopgrad.studies.task import FAULT, LONGEST, StudyTask, next_task, read_failure, write_task

TRIES = 3  # of a task whose failure may pass, such as a process that was killed
POLL_S = 0.1
ASK_AGAIN_S = 1.0  # after a run was found claimed by somebody else


class Watch(Protocol):
    """Follows a study while it runs."""

    def event(self, run: str, text: str) -> None:
        """Something happened to a run."""

    def tick(self) -> None:
        """Time has passed; called some ten times a second."""


class Goal(NamedTuple):
    """A run, and the numbers that are wanted of it."""

    run: PlannedRun
    folder: RunFolder
    wanted: frozenset[Key]


@dataclass
class Active:
    """A run that is being worked on in a slot."""

    goal: Goal
    claim: int
    task: StudyTask
    job: Job
    began: float
    progress: int  # of the run when the task began
    stopped: bool = False


class Runner:
    """Works towards goals. `failed` are the runs that ended without all their numbers."""

    def __init__(
        self, directory: StudyDirectory, executor: Executor, *, spec: str, watch: Watch, retry: bool
    ) -> None:
        self.directory, self.executor, self.watch = directory, executor, watch
        self.spec, self.retry = spec, retry
        self.failed: dict[str, str] = {}
        self._tries: dict[str, int] = {}
        self._ask_at: dict[str, float] = {}
        self._slots: dict[int, Active] = {}
        self._stop_signal: int | None = None

    def work(self, plan: StudyPlan, wanted: Mapping[str, frozenset[Key]]) -> None:
        """Takes the runs with wanted numbers in the order of the plan, until none lacks one.

        Ends when every goal is reached or has failed, by this runner or another.

        Raises:
            InterruptedStudyError: After a stop signal, when every job has saved and ended.
            StorageError: When the directory cannot be written; the jobs are stopped first.
        """
        runs = [run for name, run in plan.runs.items() if name in wanted]
        left = [Goal(run, self.directory.folder(run.id), wanted[run.id]) for run in runs]
        with stop_signals(self._request_stop), self._jobs():
            while left or self._slots:
                self._reap()
                if self._stop_signal is None:
                    self._fill(left)
                else:
                    self._stop_jobs(self._stop_signal)
                self.watch.tick()
                time.sleep(POLL_S)

    def _stop_jobs(self, number: int) -> None:
        """Asks each job once to save and end; raises InterruptedStudyError when none is left."""
        if not self._slots:
            raise InterruptedStudyError(number, study=str(self.directory.path))
        for active in self._slots.values():
            if not active.stopped:
                active.stopped = True
                active.job.terminate()

    def _fill(self, left: list[Goal]) -> None:
        """Gives work to free slots; takes out the goals that need not be looked at again."""
        busy = [active.goal.run.id for active in self._slots.values()]
        for goal in [goal for goal in left if goal.run.id not in busy]:
            free = [n for n in range(self.executor.slots) if n not in self._slots]
            if not free:
                break
            if self._is_settled(goal, slot=free[0]):
                left.remove(goal)

    def _is_settled(self, goal: Goal, *, slot: int) -> bool:
        """Whether a goal needs nothing more; else starts its next task if possible."""
        run = goal.run.id
        if run in self.failed:
            return True
        if time.monotonic() < self._ask_at.get(run, 0.0):
            return False
        claim = self.executor.claim(goal.folder)
        if claim is None:
            self._ask_at[run] = time.monotonic() + ASK_AGAIN_S
            self._adopt(goal, slot=slot)
            return False
        started = False
        try:
            started = self._start(goal, claim, slot=slot)
        finally:
            if not started:
                self.executor.release(goal.folder, claim)
        return not started

    def _adopt(self, goal: Goal, *, slot: int) -> None:
        """Follows the job that somebody else has started for a run, if that is possible."""
        found = self.executor.adopt(goal.folder)
        if found is not None:
            self._tries.setdefault(goal.run.id, 0)
            self._follow(goal, found, slot=slot)
            self.watch.event(goal.run.id, f"{found.task.stage} is already running")

    def _follow(self, goal: Goal, found: Adopted, *, slot: int) -> None:
        now, progress = time.monotonic(), goal.folder.progress()
        self._slots[slot] = Active(goal, found.claim, found.task, found.job, now, progress)

    def _start(self, goal: Goal, claim: int, *, slot: int) -> bool:
        """Starts the next task of a claimed run; False when there is none, or no use in it."""
        run = goal.run.id
        task = self._next(goal)
        if task is None:
            return False
        self._tries.setdefault(run, 0)
        write_task(task)
        _add_to_log(goal.folder, f"$ stopgrad {shlex.join(task.command())}")
        job = self.executor.start(task, slot=slot, claim=claim)
        self._follow(goal, Adopted(job, task, claim), slot=slot)
        self.watch.event(run, f"{task.stage} begins")
        return True

    def _next(self, goal: Goal) -> StudyTask | None:
        """The next task of a run; None when it is done, or has failed for good."""
        try:
            task = next_task(goal.folder, goal.run, wanted=goal.wanted, spec=self.spec)
            old = goal.folder.failure()
            again = self.retry and goal.run.id not in self._tries
            if task is None or old is None or old.may_pass or again:
                return task
        except DataError as error:
            self.failed[goal.run.id] = str(error)
            _add_to_log(goal.folder, f"stopgrad: {error}")  # no task ran that could
            self.watch.event(goal.run.id, f"failed, {error}")
            return None
        self._give_up(goal, old)
        return None

    def _reap(self) -> None:
        """Records the tasks that have ended, and continues their runs."""
        for slot, active in list(self._slots.items()):
            exit_code = active.job.poll()
            if exit_code is None:
                continue
            del self._slots[slot]
            claim = self.executor.take_note(active.goal.folder, active.claim)
            if claim is None:
                continue
            exit_code = self.executor.final_code(active.goal.folder, active.claim, exit_code)
            started = False
            try:
                goes_on = self._ended(active, exit_code) and self._stop_signal is None
                started = goes_on and self._start(active.goal, claim, slot=slot)
            finally:
                if not started:
                    self.executor.release(active.goal.folder, claim)

    def _ended(self, active: Active, exit_code: int) -> bool:
        """Records how a task ended; returns whether its run may continue."""
        goal = active.goal
        worked_s = self.executor.worked_s(goal.folder, active.claim)
        attempt = _attempt(active, exit_code, worked_s=worked_s)
        goal.folder.keep_attempt(attempt)
        if attempt.exit_code == 0:
            self._tries[goal.run.id] = 0
            self.watch.event(goal.run.id, f"{attempt.stage} done in {attempt.wall_s:.0f} s")
            return True
        if self._stop_signal is not None:
            self.watch.event(goal.run.id, f"{attempt.stage} stopped")
            return False
        further = self.executor.ends_jobs and goal.folder.progress() > active.progress
        self._tries[goal.run.id] += 1
        if attempt.may_pass and further:
            self._tries[goal.run.id] = 0
        if attempt.may_pass and attempt.exit_code != 5 and self._tries[goal.run.id] < TRIES:
            self.watch.event(goal.run.id, f"exit code {attempt.exit_code}, tried again")
            return True
        self._give_up(goal, attempt)
        return False

    def _give_up(self, goal: Goal, attempt: RunAttempt) -> None:
        self.failed[goal.run.id] = f"exit code {attempt.exit_code}: {attempt.reason}"
        self.watch.event(goal.run.id, f"failed, {self.failed[goal.run.id]}; see {goal.folder.log}")

    @contextmanager
    def _jobs(self) -> Iterator[None]:
        """Leaves no job at work, however this ends: asks each to save and waits for it."""
        try:
            yield
        finally:
            for active in self._slots.values():
                active.job.terminate()
            for active in self._slots.values():
                while active.job.poll() is None:
                    time.sleep(POLL_S)
                folder = active.goal.folder
                claim = self.executor.take_note(folder, active.claim)
                if claim is not None:
                    self.executor.release(folder, claim)
            self._slots.clear()

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        """Has every job save and end, then ends the study."""
        self._stop_signal = self._stop_signal or number


def _attempt(active: Active, exit_code: int, *, worked_s: float | None) -> RunAttempt:
    """A task that has just ended; one that ended well without all of its numbers has failed."""
    if exit_code:
        reason = _reason(active.task, exit_code)
    elif reason := _lacking(active):
        exit_code = FAULT
    wall_s = time.monotonic() - active.began if worked_s is None else worked_s
    return RunAttempt(
        stage=active.task.stage,
        exit_code=exit_code,
        reason=reason,
        began=(datetime.now(UTC) - timedelta(seconds=wall_s)).isoformat(timespec="seconds"),
        wall_s=round(wall_s, 3),
        words=active.task.command(),
        process=os.getpid(),
    )


def _reason(task: StudyTask, exit_code: int) -> str:
    """What a task wrote about its failure; a killed process wrote nothing."""
    failure = read_failure(task.folder)
    if failure is not None and failure.exit_code == exit_code:
        return failure.message
    if exit_code < 0:
        return f"killed by signal {-exit_code}"
    said = RunFolder(Path(task.folder)).last_error()  # as several processes write no failure
    return said[:LONGEST] or "no reason was written"


def _lacking(active: Active) -> str:
    """The numbers that a task which ended well did not give; empty when it gave them all."""
    promised = {key for key in active.goal.wanted if active.task.gives(key)}
    try:
        missing = sorted(promised - active.goal.folder.numbers().keys())
    except DataError as error:
        return str(error)
    names = ", ".join(f"{key.metric} at {key.labels:g}" for key in missing)
    return f"it ended without {names}" if names else ""


def _add_to_log(folder: RunFolder, text: str) -> None:
    """Adds a line, which is lost where the disk is full."""
    with suppress(OSError), folder.open_log() as log:
        log.write(f"{text}\n".encode())
