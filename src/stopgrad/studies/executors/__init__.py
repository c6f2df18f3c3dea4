"""Where the tasks of a study are carried out: what the runner asks of such a place, and no more.

    local       processes of this machine

The runner decides what is done next and holds the claim on a run. A process of this machine, a job
in the queue of a cluster or an actor on another machine all look the same to it.
"""

from __future__ import annotations

from typing import Protocol

from stopgrad.studies.task import StudyTask


class Job(Protocol):
    """A task that was started."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it works."""

    def stop(self) -> None:
        """Asks it to save and end, as SIGTERM does."""


class Executor(Protocol):
    """Carries out tasks."""

    @property
    def slots(self) -> int:
        """How many tasks may be at work at once."""

    def start(self, task: StudyTask, *, slot: int, claim: int) -> Job:
        """Starts a task that was written into its folder.

        Args:
            task: The task; what it prints is added to the log of its folder.
            slot: A free one, 0 to slots - 1.
            claim: Descriptor of the claim on the run, held until whoever has it open has ended.
        """
