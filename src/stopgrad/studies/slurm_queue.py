"""Jobs in a queue of Slurm, submitted through submitit.

How a job fared is read from squeue and from the files that the job writes, because sacct and
submitit know nothing of a job where accounting is off.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path

from stopgrad.errors import ConfigError
from stopgrad.studies.claims import JobClaim
from stopgrad.studies.cluster import HELD, Queued
from stopgrad.studies.folder import RunFolder
from stopgrad.studies.node import carry_out_job

SIGNAL = "USR2@90"  # this many seconds before the end of the time limit
ANSWER_S = 60.0
FIELDS = "%j|%i|%T|%N|%L|%r"
LEFT_ALONE = ("launch failed requeued held", "JobHoldMaxRequeue")  # reasons of jobs held by Slurm
PASSING = (
    "unable to contact",
    "timed out",
    "connection refused",
    "connection failure",
    "try again",
    "temporarily",
    "zero bytes",
    "standby mode",
    "maxsubmit",  # of jobs that an account may have in the queue
)


class SlurmQueue:
    """A queue of Slurm; options of sbatch say which, and what a job gets.

    Raises:
        ConfigError: Where Slurm's programs or submitit are missing.
    """

    name = "slurm"

    def __init__(self, study: Path, options: Mapping[str, str]) -> None:
        if shutil.which("sbatch") is None or find_spec("submitit") is None:
            raise ConfigError(
                "--on slurm without sbatch or submitit",
                expected="a machine that submits jobs, with both",
                hint="pip install 'stopgrad[slurm]' there",
            )
        self._folder = study.absolute() / "slurm"
        self._options = {"signal": SIGNAL} | dict(options)

    def submit(self, folder: RunFolder, claim: JobClaim) -> str | None:
        """Runs sbatch; the id of the job, or None when slurmctld did not answer.

        Raises:
            ConfigError: When Slurm refuses the job.
        """
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError

        queue = SlurmExecutor(folder=self._folder)
        queue.update_parameters(
            job_name=claim.name,
            time=None,
            wckey=None,
            stderr_to_stdout=True,
            additional_parameters=self._options,
        )
        try:
            with redirect_stderr(io.StringIO()):  # its words are in the error
                path = str(folder.path.absolute())
                return str(queue.submit(carry_out_job, path, claim.attempt).job_id)
        except FailedJobError as error:
            if any(words in str(error).lower() for words in PASSING):
                return None
            raise _refused(str(error)) from error

    def queue(self) -> Mapping[str, Queued] | None:
        """Runs squeue."""
        text = _answer(["squeue", "--noheader", "--me", "--all", f"--format={FIELDS}"])
        if text is None:
            return None
        lines = (line.split("|") for line in text.splitlines())
        return {words[0]: _queued(*words[1:]) for words in lines if len(words) == 6}

    def stop(self, claim: JobClaim, *, begun: bool) -> bool:
        """Runs scancel by name, which is used only once."""
        gently = ["--signal=TERM"] if begun else []
        return _answer(["scancel", *gently, "--me", f"--name={claim.name}"]) is not None


def _queued(job: str, state: str, node: str, left: str, reason: str) -> Queued:
    return Queued(job, HELD if reason in LEFT_ALONE else state, node, left)


def _answer(words: list[str]) -> str | None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None


def _refused(text: str) -> ConfigError:
    lines = [line.split("error: ", 1)[-1] for line in text.splitlines()]
    return ConfigError(
        f"Slurm refuses the job: {'; '.join(filter(None, lines))}",
        expected="options that sbatch takes",
        hint="correct --slurm",
    )
