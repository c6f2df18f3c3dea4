"""How a run stands, from its folder: waiting, at work, done, or ended and why."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stopgrad.errors import DataError
from stopgrad.runs import Status, check_row, read_status
from stopgrad.storage import append_lines, fits, read_lines_as, strict_json
from stopgrad.studies.directory import RunFolder

Phase = Literal["waiting", "running", "interrupted", "trained", "collapsed", "diverged", "failed"]

STOPPED = (130, 143, -2, -15)
"""Exit codes of a command that was asked to stop: nothing is wrong with its run."""

PASSING = (5, 6, 130, 143)
"""Exit codes of a cause that may pass: storage, a lock, a signal. Negative ones are signals."""

TAIL = 1 << 16  # bytes of a file that are looked at from its end


class Attempt(NamedTuple):
    """A command that ended."""

    stage: str
    exit_code: int
    reason: str  # the last thing it said, where it failed
    began: str  # ISO 8601, UTC
    wall_s: float
    words: list[str]
    process: int  # of the runner that saw it end

    @property
    def may_pass(self) -> bool:
        """Whether the same command may succeed another time."""
        return self.exit_code < 0 or self.exit_code in PASSING


class RunState(NamedTuple):
    """A run as its folder shows it; whether somebody works on it is not among that."""

    phase: Phase
    epoch: int  # epochs finished
    knn: float | None  # the newest accuracy that the run was watched by
    verdict: str | None  # of its newest measurement
    reason: str  # of a failure


def read_attempts(folder: RunFolder) -> list[Attempt]:
    """Every command of a run that ended, in order.

    Raises:
        DataError: When the file is damaged.
    """
    hint = "remove the line, or the file; the run goes on where it stood"
    return read_lines_as(folder.attempts, Attempt, what="an attempt", hint=hint)


def keep_attempt(folder: RunFolder, attempt: Attempt) -> None:
    """Adds a line to a run's attempts.

    Raises:
        StorageError: When the disk refuses.
    """
    append_lines(folder.attempts, [attempt._asdict()])


def attempt_ended(
    folder: RunFolder, *, stage: str, words: tuple[str, ...], exit_code: int, wall_s: float
) -> Attempt:
    """A command that has just ended, with the last line of the log where it failed."""
    began = datetime.now(UTC).timestamp() - wall_s
    return Attempt(
        stage=stage,
        exit_code=exit_code,
        reason=last_words(folder.log) if exit_code else "",
        began=datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        wall_s=round(wall_s, 3),
        words=list(words),
        process=os.getpid(),
    )


def failure(folder: RunFolder) -> Attempt | None:
    """The newest attempt, when it failed.

    Raises:
        DataError: When the file is damaged.
    """
    attempts = read_attempts(folder)
    return attempts[-1] if attempts and attempts[-1].exit_code else None


def run_state(folder: RunFolder) -> RunState:
    """How a run stands. Never raises: a damaged file is a failure with its reason."""
    trained = _trained_in(folder.run)
    status, row = read_status(trained), newest_epoch(trained)
    said = [status.get("epoch", 0), row.get("epoch", 0)]
    epochs = [n for n in said if fits(n, int) and n > 0]
    judged = [row.get("verdict", {}), status.get("verdict", {})]
    verdicts = [v["state"] for v in judged if fits(v, dict[str, str]) and "state" in v]
    verdict = verdicts[0] if verdicts else None
    try:
        failed, broken = failure(folder), ""
    except DataError as error:
        failed, broken = None, str(error)
    return RunState(
        phase="failed" if broken else _phase(trained, status, failed),
        epoch=epochs[0] if epochs else 0,
        knn=row.get("newest_knn"),
        verdict=verdict,
        reason=broken or (f"exit code {failed.exit_code}: {failed.reason}" if failed else ""),
    )


def _trained_in(run: Path) -> Path:
    """Where a training keeps its status: one with labels in the folder of its share."""
    shares = sorted((run / "supervised").glob("share-*"))
    return shares[0] if shares and not (run / "config.json").exists() else run


def _phase(trained: Path, status: Status, failed: Attempt | None) -> Phase:
    if failed is not None and failed.exit_code not in STOPPED:
        stopped: Phase = "collapsed" if status.get("state") == "collapsed" else "diverged"
        return stopped if failed.exit_code == 4 else "failed"
    if status.get("state") == "finished":
        return "trained"
    return "interrupted" if (trained / "config.json").exists() else "waiting"


def newest_epoch(run: Path) -> dict[str, Any]:
    """The newest epoch's row of a run's metrics, with the newest kNN; empty before the first."""
    found: dict[str, Any] = {}
    for line in reversed(_tail(run / "metrics.jsonl")):
        try:
            row = strict_json(line)
            check_row(row)
        except (ValueError, KeyError, TypeError):
            continue  # torn by a kill, cut by the tail, or changed from outside
        if row.get("kind") != "epoch":
            continue
        found = found or row
        if row.get("knn") is not None:
            return found | {"newest_knn": row["knn"]}
    return found


def last_words(log: Path) -> str:
    """What the last line of a log found, without the name of the program and its advice."""
    lines = [line.strip() for line in _tail(log) if line.strip()]
    text = lines[-1].decode(errors="replace") if lines else "no output"
    return text.removeprefix("stopgrad: ").split("; expected ")[0][:500]


def _tail(path: Path) -> list[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read().split(b"\n")
    except OSError:
        return []
