"""A job on its node: carries out the task of a run under a claim, and writes down how it ended.

In: the folder of a run and the number of a claim. Out: what the task writes, and job-N.begun.json
and job-N.exit.json beside it. A job whose claim was overtaken does nothing, or stops.

    python -m stopgrad.studies.node FOLDER N
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from stopgrad.storage import STOP_SIGNALS, die_with, refuse_links
from stopgrad.studies.claims import (
    JobBegin,
    JobClaim,
    JobExit,
    beat,
    newest_attempt,
    read_begin,
    read_claim,
    read_exit,
    write_begin,
    write_exit,
)
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.task import StudyTask, read_task, write_task

LOOK_S = 5.0  # between two looks at whether the claim was overtaken
POLL_S = 0.1
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # that the time limit is near


def carry_out_job(folder: str, attempt: int) -> int:
    """Carries out the task of a run, unless its claim is over; returns its exit code.

    Args:
        folder: The run's, in the study directory.
        attempt: The number of the claim.

    Raises:
        DataError: When the task cannot be read.
        StorageError: When the disk refuses.
    """
    path = Path(folder)
    refuse_links(RunFolder(path).study)
    claim = read_claim(path, attempt)
    over = claim is None or claim.ended or read_exit(path, attempt) is not None
    if claim is None or over or not _has_run(path, attempt):
        return 0
    stopped = list[int]()
    for number in STOP_SIGNALS:
        signal.signal(number, _note(stopped))
    _let_others_end(path, attempt)
    began = time.time()
    write_begin(path, attempt, JobBegin(socket.gethostname(), began))
    exit_code = _work(path, claim, stopped)
    if _has_run(path, attempt):
        write_exit(path, attempt, JobExit(exit_code, round(time.time() - began, 3)))
    return exit_code


def _has_run(folder: Path, attempt: int) -> bool:
    return newest_attempt(folder) == attempt


def _note(stopped: list[int]) -> Callable[[int, FrameType | None], None]:
    def note(number: int, frame: FrameType | None) -> None:
        stopped.append(number)

    return note


def _let_others_end(folder: Path, attempt: int) -> None:
    """Gives an earlier job without an exit code, which may be at work unseen, time to notice."""
    before = attempt - 1
    if read_begin(folder, before) is not None and read_exit(folder, before) is None:
        time.sleep(2 * LOOK_S)


def _work(folder: Path, claim: JobClaim, stopped: Sequence[int]) -> int:
    """Runs the task in a process of its own, and makes it save and end when asked to."""
    task = _begun(read_task(folder / "task.json"))
    with RunFolder(folder).open_log() as log:
        process = subprocess.Popen(
            _command(task, devices=claim.devices),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=_without_warnings(die_with(os.getpid())),
        )
    asked, look = False, time.monotonic() + LOOK_S
    while (exit_code := process.poll()) is None:
        overtaken = False
        if time.monotonic() > look:
            overtaken = not _has_run(folder, claim.attempt)
            beat(folder, claim.attempt)
            look = time.monotonic() + LOOK_S
        if not asked and (overtaken or _must_stop(task, stopped)):
            process.terminate()
            asked = True
        time.sleep(POLL_S)
    return exit_code


def _without_warnings(also: Callable[[], None]) -> Callable[[], None]:
    """For the child, to ignore warnings: Slurm sends them to all, but only this process acts."""

    def prepare() -> None:
        for number in WARNINGS:
            signal.signal(number, signal.SIG_IGN)
        also()

    return prepare


def _must_stop(task: StudyTask, stopped: Sequence[int]) -> bool:
    """Whether a task must end now: an evaluation has nothing to save, and may finish in time."""
    return any(number not in WARNINGS or task.stage != "evaluate" for number in stopped)


def _begun(task: StudyTask) -> StudyTask:
    """The task, or its resumption if the engine started this job before and its run has begun."""
    if task.stage != "pretrain" or not (task.run / "config.json").exists():
        return task
    again = replace(task, stage="resume", config=None)
    write_task(again)
    return again


def _command(task: StudyTask, *, devices: int) -> list[str]:
    if devices > 1 and task.stage in ("pretrain", "resume"):
        words = ["stopgrad", *task.command(), "--devices", str(devices)]
    else:
        words = ["stopgrad.studies.task", str(task.file)]
    return [sys.executable, "-P", "-m", *words]


def main() -> int:
    """Carries out the job of a folder and a number; returns the exit code."""
    return carry_out_job(sys.argv[1], int(sys.argv[2]))


if __name__ == "__main__":
    sys.exit(main())
