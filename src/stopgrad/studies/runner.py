"""The runs of a study, one after the other on each slot of an executor, until none is left.

Two runners on one directory share the work: each takes the runs whose claim it gets. A runner
that is killed leaves nothing but its children, which hold their claims until they have ended.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple, Protocol

from stopgrad.config import config_to_dict
from stopgrad.errors import DataError, InterruptedStudyError
from stopgrad.evaluation import Key
from stopgrad.storage import storage_errors, write_json
from stopgrad.studies.directory import RunFolder, StudyDirectory
from stopgrad.studies.executor import Executor, Job, Order
from stopgrad.studies.plan import Plan, PlannedRun
from stopgrad.studies.states import Attempt, attempt_ended, failure, keep_attempt
from stopgrad.studies.steps import Step, next_step, unbrought

TRIES = 3  # of a command whose failure may pass, such as a process that was killed
POLL_S = 0.1
ASK_AGAIN_S = 1.0  # after a run was found claimed by somebody else
BROKEN = 1  # exit code of a command that ended well without what it was asked for


class Watch(Protocol):
    """Who follows a study while it runs."""

    def event(self, run: str, text: str) -> None:
        """Something happened to a run."""
        ...

    def tick(self) -> None:
        """Time has passed; called some ten times a second."""
        ...


class Task(NamedTuple):
    """A run, and the numbers that are wanted of it."""

    run: PlannedRun
    folder: RunFolder
    wanted: frozenset[Key]


@dataclass
class Active:
    """A run that is being worked on in a slot."""

    task: Task
    claim: int
    step: Step
    job: Job
    began: float
    stopped: bool = False


class Runner:
    """Works through tasks. `failed` are the runs that ended without all their numbers."""

    def __init__(
        self, directory: StudyDirectory, executor: Executor, *, spec: str, watch: Watch, retry: bool
    ) -> None:
        self.directory, self.executor, self.watch = directory, executor, watch
        self.spec, self.retry = spec, retry
        self.failed: dict[str, str] = {}
        self._tries: dict[str, int] = {}
        self._asked: dict[str, float] = {}
        self._slots: dict[int, Active] = {}
        self._stop_signal: int | None = None

    def work(self, tasks: list[Task]) -> None:
        """Ends when every task is done or has failed, by this runner or another.

        Raises:
            InterruptedStudyError: After SIGINT or SIGTERM, when every child has saved and ended.
            StorageError: When the directory cannot be written; the children are stopped first.
        """
        left = list(tasks)
        with self._signals(), self._children():
            while left or self._slots:
                self._reap()
                if self._stop_signal is None:
                    left = self._fill(left)
                else:
                    self._stop_children(self._stop_signal)
                self.watch.tick()
                time.sleep(POLL_S)

    def _stop_children(self, number: int) -> None:
        """Asks each child once to save and end; the end of the study when none is left."""
        if not self._slots:
            raise InterruptedStudyError(number, study=str(self.directory.path))
        for active in self._slots.values():
            if not active.stopped:
                active.stopped = True
                active.job.stop()

    def _fill(self, left: list[Task]) -> list[Task]:
        """Gives work to free slots; the tasks that are still to be looked at."""
        busy = [active.task.run.id for active in self._slots.values()]
        waiting = [task for task in left if task.run.id not in busy]
        settled = set[str]()
        for task in waiting:
            free = [n for n in range(self.executor.slots) if n not in self._slots]
            if not free:
                break
            if self._is_settled(task, slot=free[0]):
                settled.add(task.run.id)
        return [task for task in left if task.run.id not in settled]

    def _is_settled(self, task: Task, *, slot: int) -> bool:
        """Whether a task needs nothing more; else its next command is started if it can be."""
        run = task.run.id
        if run in self.failed:
            return True
        if time.monotonic() < self._asked.get(run, 0.0):
            return False
        claim = self.directory.claim(run)
        if claim is None:
            self._asked[run] = time.monotonic() + ASK_AGAIN_S
            return False
        started = False
        try:
            started = self._start(task, claim, slot=slot)
        finally:
            if not started:
                os.close(claim)
        return not started

    def _start(self, task: Task, claim: int, *, slot: int) -> bool:
        """Starts the next command of a claimed run; False when there is none, or no sense in it."""
        run = task.run.id
        step = self._next(task)
        if step is None:
            return False
        if step.stage in ("pretrain", "supervised"):
            write_json(task.folder.path / "settings.json", config_to_dict(task.run.config))
        self._tries.setdefault(run, 0)
        _say(task.folder, f"$ stopgrad {' '.join(step.words)}")
        job = self.executor.start(Order(step.words, task.folder.log, claim), slot=slot)
        self._slots[slot] = Active(task, claim, step, job, time.monotonic())
        self.watch.event(run, f"{step.stage} begins")
        return True

    def _next(self, task: Task) -> Step | None:
        """The next command of a run; None when it is done, or has failed for good."""
        try:
            old = failure(task.folder)
            again = self.retry and task.run.id not in self._tries
            if old is None or old.may_pass or again:
                return next_step(task.folder, task.run, wanted=task.wanted, spec=self.spec)
        except DataError as error:
            self.failed[task.run.id] = str(error)
            _say(task.folder, f"stopgrad: {error}")  # no command ran that could
            self.watch.event(task.run.id, f"failed, {error}")
            return None
        self._give_up(task, old)
        return None

    def _reap(self) -> None:
        """Takes note of commands that have ended, and goes on with their runs."""
        for slot, active in list(self._slots.items()):
            exit_code = active.job.poll()
            if exit_code is None:
                continue
            del self._slots[slot]
            try:
                goes_on = self._ended(active, exit_code) and self._stop_signal is None
                if not (goes_on and self._start(active.task, active.claim, slot=slot)):
                    os.close(active.claim)
            except BaseException:
                os.close(active.claim)
                raise

    def _ended(self, active: Active, exit_code: int) -> bool:
        """Notes how a command ended; whether its run may go on."""
        folder, step = active.task.folder, active.step
        attempt = attempt_ended(
            folder,
            stage=step.stage,
            words=step.words,
            exit_code=exit_code,
            wall_s=time.monotonic() - active.began,
        )
        if exit_code == 0 and (lacking := unbrought(folder, step)):
            attempt = attempt._replace(exit_code=BROKEN, reason=f"it did not bring {lacking}")
        keep_attempt(folder, attempt)
        if attempt.exit_code == 0:
            self._tries[active.task.run.id] = 0
            self.watch.event(active.task.run.id, f"{step.stage} done in {attempt.wall_s:.0f} s")
            return True
        return self._may_try_again(active.task, attempt)

    def _may_try_again(self, task: Task, attempt: Attempt) -> bool:
        if self._stop_signal is not None:
            self.watch.event(task.run.id, f"{attempt.stage} stopped")
            return False
        self._tries[task.run.id] += 1
        if attempt.may_pass and attempt.exit_code != 5 and self._tries[task.run.id] < TRIES:
            self.watch.event(task.run.id, f"exit code {attempt.exit_code}, tried again")
            return True
        self._give_up(task, attempt)
        return False

    def _give_up(self, task: Task, attempt: Attempt) -> None:
        self.failed[task.run.id] = f"exit code {attempt.exit_code}: {attempt.reason}"
        self.watch.event(task.run.id, f"failed, {self.failed[task.run.id]}; see {task.folder.log}")

    @contextmanager
    def _children(self) -> Iterator[None]:
        """However this ends, no child is left at work: each is asked to save and waited for."""
        try:
            yield
        finally:
            for active in self._slots.values():
                active.job.stop()
            for active in self._slots.values():
                while active.job.poll() is None:
                    time.sleep(POLL_S)
                os.close(active.claim)
            self._slots.clear()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask every child to save and end, then end the study."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {n: signal.signal(n, self._request_stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_signal = self._stop_signal or number


def _say(folder: RunFolder, text: str) -> None:
    """A line of our own in the log of a run."""
    with storage_errors(folder.log, needed=len(text)), folder.log.open("a") as log:
        log.write(text + "\n")


def tasks_of(
    plan: Plan, directory: StudyDirectory, wanted: Mapping[str, frozenset[Key]]
) -> list[Task]:
    """The tasks of a plan in its order, each run once."""
    return [Task(run, directory.folder(run.id), wanted[run.id]) for run in plan.runs.values()]
