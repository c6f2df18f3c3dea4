"""One run of a study, read from its folder: what it is, how far it has come, its numbers, its cost.

runs/ID/
    card.json         what the run is: method, config, data, fraction of the labels
    run/              the run directory that `stopgrad pretrain` makes
    task.json         the newest task
    settings.json     the config alone, for `stopgrad pretrain --config`
    failure.json      what went wrong in the newest task, where it failed
    log               what the processes of its tasks printed
    attempts.jsonl    one line per task that ended: exit code, reason, time
    claim             held (flock) by whoever works on the run, its processes included
    job-N.json, ...   claims and jobs of an engine, see `stopgrad.studies.claims`
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from stopgrad.errors import DataError
from stopgrad.evaluation import (
    FINETUNE,
    RECORDS,
    Costs,
    Energy,
    Key,
    Record,
    energy,
    newest,
    read_costs,
    records_of,
)
from stopgrad.runs import Status, check_row, newest_step, read_status
from stopgrad.storage import (
    STOP_SIGNALS,
    append_lines,
    lock_file,
    make_folder,
    open_regular,
    read_json,
    read_lines_as,
    refuse_holes,
    storage_errors,
    strict_json,
    typed,
    write_json,
)
from stopgrad.studies.claims import open_claim
from stopgrad.studies.definition import Method

EpochRow = Mapping[str, Any]
Phase = Literal["waiting", "running", "interrupted", "trained", "collapsed", "diverged", "failed"]

STOPPED = (*(128 + number for number in STOP_SIGNALS), *(-number for number in STOP_SIGNALS))
"""Exit codes of a task that was asked to stop: nothing is wrong with its run."""

PASSING = (5, 6, *STOPPED)
"""Exit codes whose cause may pass: storage, a lock, a signal. Negative ones are signals."""

EPOCH = b'{"kind": "epoch"'  # how `stopgrad.runs` begins the line of an epoch
TAIL = 1 << 16  # bytes at the end of the metrics that are searched for the newest epoch

log = logging.getLogger(__name__)


class RunCard(NamedTuple):
    """What a run is, as it was written when its study began."""

    method: Method
    labels: float | None  # fraction that a supervised network learns from
    data: str  # fingerprint of the training images
    epochs: int
    config: dict[str, Any]


class RunAttempt(NamedTuple):
    """A task that ended; a line of attempts.jsonl."""

    stage: str
    exit_code: int
    reason: str  # what went wrong, where it failed
    began: str  # ISO 8601, UTC
    wall_s: float
    words: list[str]  # the command that does the same
    process: int  # of the runner that saw it end

    @property
    def may_pass(self) -> bool:
        """Whether the same task may succeed another time."""
        return not 0 <= self.exit_code <= 128 or self.exit_code in PASSING


class RunState(NamedTuple):
    """How far a run has come; this does not include whether somebody works on it."""

    phase: Phase
    epoch: int  # epochs finished
    knn: float | None  # the newest accuracy that the run was watched by
    verdict: str | None  # of its newest measurement
    reason: str  # of a failure


class StudyRun(NamedTuple):
    """Everything known about a run, read from its folder or from what was kept of it."""

    card: RunCard | None  # None where it is damaged
    state: RunState
    claimed: bool  # somebody works on it
    numbers: Mapping[Key, Record]
    attempts: list[RunAttempt]
    costs: Costs | None
    damage: DataError | None = None

    @property
    def wall_s(self) -> float:
        """The wall time of all its commands, s."""
        return sum(attempt.wall_s for attempt in self.attempts)

    @property
    def train_s(self) -> float | None:
        """The wall time of its trainings, also those with labels, s."""
        return self.costs.wall_s if self.costs else None

    @property
    def energy(self) -> Energy | None:
        """The energy of its trainings."""
        return energy(self.costs) if self.costs else None

    @property
    def views(self) -> int:
        """Views that its trainings processed, fine-tuning included."""
        return int(self._spent("views"))

    @property
    def flops(self) -> float:
        """Floating-point operations of its trainings."""
        return self._spent("flops")

    def _spent(self, what: Literal["views", "flops"]) -> float:
        """The sum over the pretraining and a fine-tuning for each fraction of the labels."""
        records = self.numbers.values()
        tuned = {r.labels: float(r.protocol.get(what, 0)) for r in records if r.metric == FINETUNE}
        return max((getattr(r, what) or 0.0 for r in records), default=0.0) + sum(tuned.values())


class RunFolder(NamedTuple):
    """The folder of one run in a study directory."""

    path: Path

    @property
    def run(self) -> Path:
        """The run directory itself."""
        return self.path / "run"

    @property
    def card_file(self) -> Path:
        """The file that says what the run is."""
        return self.path / "card.json"

    @property
    def log(self) -> Path:
        """What the processes of its tasks printed."""
        return self.path / "log"

    def open_log(self) -> IO[bytes]:
        """The log, to add to; StorageError when the disk refuses, or for a link or a pipe."""
        with storage_errors(self.log, needed=0):
            return open(open_regular(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")

    def last_error(self) -> str:
        """The error line of the newest command in the log; "" without one."""
        for line in reversed(_tail(self.log)):
            if line.startswith(b"$ "):  # where it began
                break
            if line.startswith(b"stopgrad: "):
                return line.removeprefix(b"stopgrad: ").decode(errors="replace")
        return ""

    def read(self) -> StudyRun:
        """Everything known about the run; a damaged file is a failure with its reason."""
        run = StudyRun(None, self.state(), self.is_claimed(), {}, [], None)
        try:
            run = run._replace(card=self.card())
        except DataError as error:
            run = run._replace(damage=error)
        try:
            numbers, attempts, costs = self.numbers(), self.attempts(), self.costs()
        except DataError as error:
            broken = run.state._replace(phase="failed", reason=str(error))
            return run._replace(state=broken, damage=error)
        return run._replace(numbers=numbers, attempts=attempts, costs=costs)

    def claim(self) -> int | None:
        """A descriptor that holds the claim on the run until it is closed; None: somebody has it.

        Whoever inherits the descriptor holds the claim too.
        """
        path = self.path / "claim"
        with storage_errors(path, needed=0):
            descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        try:
            lock_file(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    @property
    def study(self) -> Path:
        """The directory of its study."""
        return self.path.absolute().parents[1]

    def is_claimed(self) -> bool:
        """Whether somebody works on the run now, or has a job in a queue for it."""
        return self.is_locked() or open_claim(self.path) is not None

    def is_locked(self) -> bool:
        """Whether a process of this machine works on the run now."""
        try:
            with open(open_regular(self.path / "claim"), "rb") as file:
                lock_file(file.fileno(), shared=True)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def card(self) -> RunCard:
        """What the run is; DataError when the card is missing or damaged."""
        try:
            return typed(RunCard, read_json(self.card_file))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self.card_file} is damaged ({error})",
                expected="the card that was written when the study began",
                hint=f"remove {self.path} to train that run again",
            ) from error

    def keep_card(self, card: RunCard) -> None:
        """Writes the card, and the folder around it; StorageError when the disk refuses."""
        with storage_errors(self.card_file, needed=0):
            make_folder(self.path)
        write_json(self.card_file, card._asdict())

    def attempts(self) -> list[RunAttempt]:
        """Every task of the run that ended, in order; DataError when the file is damaged."""
        hint = "remove the line, or the file; the run continues from where it was"
        return read_lines_as(self.path / "attempts.jsonl", RunAttempt, what="an attempt", hint=hint)

    def keep_attempt(self, attempt: RunAttempt) -> None:
        """Adds an attempt; StorageError when the disk refuses."""
        append_lines(self.path / "attempts.jsonl", [attempt._asdict()])

    def failure(self) -> RunAttempt | None:
        """The newest attempt, when it failed; DataError when the file is damaged."""
        attempts = self.attempts()
        return attempts[-1] if attempts and attempts[-1].exit_code else None

    def numbers(self) -> Mapping[Key, Record]:
        """The newest record of each number that the run has; DataError when one is damaged.

        Those of an encoder that had not come to the end are left out.
        """
        status = read_status(self.run)
        trains, last = status.get("state") in ("running", "interrupted"), status.get("epoch", 0)
        return newest(
            record
            for record in records_of(self.run)
            if record.of != "encoder" or (not trains and (record.epoch or last) >= last)
        )

    def progress(self) -> int:
        """A number that grows with every step that is saved, and with every record."""
        trained = (self.run, *sorted(self.run.glob("*/share-*")))
        lines = self.run / RECORDS
        return sum(map(newest_step, trained)) + (lines.stat().st_size if lines.exists() else 0)

    def costs(self) -> Costs | None:
        """The cost of its trainings, those with labels included; None where nothing is known."""
        return read_costs(self.run, *sorted(self.run.glob("*/share-*")))

    def state(self) -> RunState:
        """How far the run has come. Never raises: a damaged file is a failure with its reason."""
        trained = _trained_in(self.run)
        status, row = read_status(trained), _newest_epoch(trained / "metrics.jsonl")
        judged = [verdict or {} for verdict in (row.get("verdict"), status.get("verdict"))]
        try:
            failed, broken = self.failure(), ""
        except DataError as error:
            failed, broken = None, str(error)
        return RunState(
            phase="failed" if broken else _phase(trained, status, failed),
            epoch=max(0, status.get("epoch", 0)) or row.get("epoch", 0),
            knn=status.get("knn", row.get("newest_knn")),
            verdict=judged[0].get("state") or judged[1].get("state"),
            reason=broken or (f"exit code {failed.exit_code}: {failed.reason}" if failed else ""),
        )

    def epoch_rows(self) -> list[EpochRow]:
        """The finished epochs of a pretraining.

        A metrics file holds a line per step, millions in a study, so only those of epochs are
        decoded. One that was changed from outside is skipped with a warning: only a point of a
        curve is lost.
        """
        path = self.run / "metrics.jsonl"
        try:
            refuse_holes(path)
            with open(open_regular(path), "rb") as file:
                return [row for n, line in enumerate(file, 1) if (row := _epoch_row(line, path, n))]
        except OSError:
            return []


def _epoch_row(line: bytes, path: Path, number: int) -> EpochRow | None:
    if not line.startswith(EPOCH):
        return None
    try:
        return check_row(strict_json(line))
    except (ValueError, KeyError, TypeError) as error:
        if line.endswith(b"\n"):  # else it was torn by a kill
            log.warning("%s, line %d, is passed over (%s)", path, number, error)
        return None


def _trained_in(run: Path) -> Path:
    """Where a training keeps its status: one with labels in the folder of its fraction."""
    fractions = sorted((run / "supervised").glob("share-*"))
    return fractions[0] if fractions and not (run / "config.json").exists() else run


def _phase(trained: Path, status: Status, failed: RunAttempt | None) -> Phase:
    if failed is not None and failed.exit_code not in STOPPED:
        stopped: Phase = "collapsed" if status.get("state") == "collapsed" else "diverged"
        return stopped if failed.exit_code == 4 else "failed"
    if status.get("state") == "finished":
        return "trained"
    return "interrupted" if (trained / "config.json").exists() else "waiting"


def _newest_epoch(metrics: Path) -> EpochRow:
    """The row of the newest epoch, with the newest kNN; empty before the first."""
    found: EpochRow = {}
    for line in reversed(_tail(metrics)):
        try:
            row = check_row(strict_json(line))
        except (ValueError, KeyError, TypeError):
            continue  # torn by a kill, cut by the tail, or changed from outside
        if row.get("kind") != "epoch":
            continue
        found = found or row
        if row.get("knn") is not None:
            return {**found, "newest_knn": row["knn"]}
    return found


def _tail(path: Path) -> list[bytes]:
    try:
        with open(open_regular(path), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read().split(b"\n")
    except OSError:
        return []
