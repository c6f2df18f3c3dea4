"""A run directory, read by anyone and written by one process at a time: status and metrics."""

from __future__ import annotations

import logging
import math
import os
import typing
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from types import FrameType, TracebackType
from typing import IO, Literal, Self, TypedDict

from stopgrad.config import Config
from stopgrad.errors import (
    CheckpointError,
    CollapsedError,
    ConfigError,
    DivergedError,
    InterruptedRunError,
    StorageError,
    no_memory,
)
from stopgrad.runs.changes import cannot_promise, check_changes
from stopgrad.runs.checkpoint import (
    Checkpoint,
    checkpoint_folders,
    load_checkpoint,
    remove_after,
    save_checkpoint,
)
from stopgrad.runs.info import Change, RunInfo, info_to_dict, mapping, read_run, whole_number
from stopgrad.runs.machine import describe_environment
from stopgrad.storage import (
    Lines,
    append_lines,
    check_types,
    fits,
    is_still_at,
    is_there,
    lock,
    make_folder,
    read_json,
    read_lines,
    refuse_links,
    remove_temporaries,
    replace_lines,
    stop_signals,
    storage_errors,
    write_json,
)

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
RunPhase = Literal["running", "finished", "interrupted", "diverged", "collapsed", "failed"]


class Status(TypedDict, total=False):
    """Where a run stands; `status.json`."""

    state: RunPhase
    step: int
    epoch: int
    verdict: dict[str, str]  # the newest
    knn: float  # the newest
    reason: str  # why it diverged or failed
    pid: int
    updated: str  # ISO 8601, UTC


KINDS = typing.get_type_hints(Status)


def read_status(path: Path) -> Status:
    """The status of a run, without values of another type; empty when there is none."""
    try:
        status = mapping(read_json(path / "status.json"))
    except (OSError, ValueError, TypeError):
        return {}
    known = {key: status[key] for key in KINDS if key in status and fits(status[key], KINDS[key])}
    return typing.cast(Status, known)


def load_last(run: Path, *, older: bool = False) -> Checkpoint:
    """The checkpoint that stands for a run: for a finished one, that of its last step.

    Args:
        run: The run directory.
        older: Whether to take an older one if that is damaged or gone.

    Raises:
        CheckpointError: For an older one without `older`; else as `load_checkpoint`.
    """
    found, status = load_checkpoint(run), read_status(run)
    if status.get("state") == "finished" and found.step < status.get("step", 0) and not older:
        lost = "; ".join(found.damaged) or f"the checkpoint of step {status['step']} is gone"
        raise CheckpointError(
            f"{lost}; the newest good one of this finished run is of step {found.step}",
            expected="the last step of a finished run",
            hint=f"repeat the lost steps with: stopgrad resume {quote(str(run))}, or use the older "
            "one with --older, an option of evaluate, embed and export",
        )
    return found


class MetricsRow(TypedDict, total=False):
    """A row of metrics; which keys it has depends on what was trained and measured."""

    kind: str  # "step" or "epoch"
    step: int
    epoch: int
    loss: float | None
    lr: float | None
    predictor_lr: float | None
    knn: float | None
    knn_balanced: float  # if classes are uneven, as in `Balance`
    knn_majority: float
    views_per_s: float | None
    seconds: float
    measures: dict[str, dict[str, float | None]] | None  # by layer
    measured: int  # images whose views were measured; older rows do not say
    clean: dict[str, float | None] | None  # z on images without augmentation, at the last epoch
    clean_images: int
    verdict: dict[str, str] | None
    spectra: dict[str, list[float]] | None


MOST_EPOCHS = 1_000_000  # as for the knob
ROW = typing.get_type_hints(MetricsRow)


def read_metrics(run: Path) -> list[MetricsRow]:
    """All rows of a run, in order, except a last one torn by a crash; errors as for `read_rows`."""
    return read_rows(run).rows


def read_rows(run: Path) -> Lines[MetricsRow]:
    """The rows of a run, and what a crash left of the last one.

    Raises:
        CheckpointError: When the file cannot be read, or `check_row` refuses a line.
    """
    if not is_there(run / METRICS):
        return Lines([], b"")
    return read_lines(
        run / METRICS,
        check_row,
        what="a row of metrics",
        hint="something else changed the file; restore it or start a new run",
        error=CheckpointError,
        doubt_last=True,
    )


def check_row(row: object) -> MetricsRow:
    """The row, if readers can count and draw it; else a KeyError, ValueError or TypeError.

    It has a step, an epoch's row has its number, and a chart can show its spectra.
    """
    if not isinstance(row, dict):
        raise TypeError("no object")
    check_types(row, ROW)
    whole_number(row["step"])
    if row.get("kind") == "epoch" and not 1 <= whole_number(row["epoch"]) <= MOST_EPOCHS:
        raise ValueError(f"epoch {row['epoch']}, of epochs that count from 1")
    if row.get("spectra") is not None:
        weights = row["spectra"]["representation"]
        sizes = {len(values) for values in row["spectra"].values()}
        sizes |= {len(row["spectra"][name]) for name in ("ranks", "predictor")}
        if len(sizes) > 1 or not all(weight > 0 for weight in weights):
            raise ValueError("spectra with lists of several lengths, or weights not above 0")
    return typing.cast(MetricsRow, row)


class RunWriter:
    """The one process that writes to a run directory; a context manager.

    It holds the lock, and turns requests to stop into `stop_signal`, which the training loop
    checks between two steps. `RunWriter.create` starts a run, `RunWriter.resume` resumes one.
    """

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info
        self.stop_signal: int | None = None
        self._is_new = False
        self._has_begun = False  # before that, errors leave the run as it was
        self._lock: IO[str] | None = None
        self._signals = ExitStack()

    @classmethod
    def create(cls, path: Path, info: RunInfo) -> RunWriter:
        """A new run, see `check_new`."""
        check_new(path)
        writer = cls(path, _here(info))
        writer._is_new = True
        return writer

    @classmethod
    def resume(cls, path: Path, now: RunInfo | None = None) -> RunWriter:
        """A run that resumes from its newest good checkpoint.

        `now` is the info for the images and settings at hand, which `check_changes` compares with
        that of the run; None: the run's own config.json.
        """
        begun = read_run(path)
        info = _here(now or begun)
        return cls(path, info._replace(changes=info.changes or begun.changes))

    def __enter__(self) -> Self:
        """Catches the signals; nothing is written before `begin`."""
        self._catch_signals()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Records what broke the run, restores the signals and releases the lock."""
        expected = (InterruptedRunError, DivergedError, CollapsedError, GeneratorExit)
        if error is not None and self._has_begun and not isinstance(error, expected):
            kept, cause = ("step", "epoch", "verdict"), no_memory(error) or error
            with suppress(StorageError):
                status = read_status(self.path)
                where = {key: value for key, value in status.items() if key in kept}
                self._write_status("failed", **where, reason=f"{type(cause).__name__}: {cause}")
        self._signals.close()
        if self._lock is not None:
            self._lock.close()

    def begin(self) -> Checkpoint | None:
        """Makes and locks the directory; the checkpoint to resume from, None for a new run.

        Raises:
            LockedError: When another process writes to this run.
            StorageError: When the directory cannot be written.
            ConfigError: When another process has begun a run here meanwhile.
            StopgradError: As `load_checkpoint`, when there is nothing to resume from.
        """
        refuse_links(self.path)
        with storage_errors(self.path / "lock", needed=0):
            make_folder(self.path)
            self._lock = lock(self.path)
            remove_temporaries(self.path)
        checkpoint = None
        if not has_begun(self.path):
            if not self._is_new:  # a run that never took a step may still not change
                check_changes(read_run(self.path), self.info)
            write_json(self.path / "config.json", info_to_dict(self.info))
        elif self._is_new:
            raise _exists(self.path)
        else:
            checkpoint = self._go_on()
        self._has_begun = True
        return checkpoint

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Appends rows to the metrics, durably; a StorageError when the disk refuses."""
        self._check_place()
        append_lines(self.path / METRICS, rows)

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, durably.

        Raises:
            DivergedError: When a tensor is not finite; the checkpoints before are kept.
            StorageError: When the disk refuses.
        """
        self._check_place()
        try:
            save_checkpoint(self.path, checkpoint._replace(info=self.info))
        except DivergedError as error:
            self._write_status("diverged", step=checkpoint.step, reason=error.found)
            raise

    def agree(self, step: int, *, last: bool) -> None:
        """Asks other processes for their signals; alone there are none to ask."""

    def decide(self, due: bool) -> bool:
        """A decision by the clock, shared by all processes; alone it is one's own."""
        return due

    def set_status(self, state: RunPhase, **values: object) -> None:
        """Replaces the status; a StorageError when the disk refuses."""
        self._write_status(state, **values)

    def _write_status(self, state: RunPhase, **values: object) -> None:
        """As `set_status`; also while an error ends this process alone."""
        self._check_place()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        status = {"state": state, **values, "pid": os.getpid(), "updated": now}
        write_json(self.path / "status.json", status)

    def _check_place(self) -> None:
        """A StorageError where the directory is not there, or another process has begun it anew."""
        if self._lock is not None and not is_still_at(self._lock, self.path / "lock"):
            raise StorageError(
                f"{self.path} was removed or replaced while this process trained",
                expected="the directory that it had locked",
                hint="begin the run again, or move the directory back and resume it",
            )

    def _go_on(self) -> Checkpoint:
        """Takes the directory back to its newest good checkpoint."""
        checkpoint = load_checkpoint(self.path, now=self.info)
        for line in checkpoint.damaged:
            log.warning("passed over: %s", line)
        self._note_changes(checkpoint)
        remove_after(self.path, step=checkpoint.step)
        rows, torn = read_rows(self.path)
        # A signal may have saved it during an epoch's measurements, which are made again.
        ended = checkpoint.state.get("epoch", math.inf)
        kept = [r for r in rows if r["step"] <= checkpoint.step and r.get("epoch", 0) <= ended]
        if torn or len(kept) < len(rows):  # steps that will be taken again
            replace_lines(self.path / METRICS, kept)
        return checkpoint

    def _note_changes(self, checkpoint: Checkpoint) -> None:
        """Records in config.json what has changed since the run began, and warns of its cost."""
        assert checkpoint.info is not None
        found = check_changes(checkpoint.info, self.info)
        # Steps after a damaged checkpoint are taken anew, under the changes that came with them.
        noted = [c._replace(step=min(c.step, checkpoint.step)) for c in self.info.changes]
        changes = (*noted, *(Change(checkpoint.step, *difference) for difference in found))
        self.info = self.info._replace(changes=changes)
        described = info_to_dict(self.info)
        if described != read_json(self.path / "config.json"):
            write_json(self.path / "config.json", described)
        reason = cannot_promise(found, self.info)
        if reason:
            log.warning(
                "the run continues, but bit-identical results are not guaranteed: %s", reason
            )

    def _catch_signals(self) -> None:
        self._signals.enter_context(stop_signals(self._request_stop))

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = self.stop_signal or number


def check_new(path: Path) -> None:
    """Refuses a place for a new run that is not absent or empty, by a ConfigError."""
    names = [path.name] if path.exists() else []
    if path.is_dir():  # a run killed before its first file leaves these
        found = (entry.name for entry in path.iterdir())
        names = [name for name in found if name != "lock" and not name.endswith(".tmp")]
    if names:
        raise _exists(path)


def is_begun_run(path: Path, config: Config) -> bool:
    """Whether a run with just these settings lies there, with which a restart may go on."""
    return (path / "config.json").exists() and read_run(path).config == config


def _exists(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} exists",
        expected="a new run directory",
        hint=f"choose another --out, or go on with: stopgrad resume {quote(str(path))}",
    )


def has_begun(path: Path) -> bool:
    """Whether a run has reached its first checkpoint; until then, starting over is the same run.

    Rows prove that there was a checkpoint; an empty file is made before the first one.
    """
    metrics = path / METRICS
    return bool(checkpoint_folders(path)) or (is_there(metrics) and metrics.stat().st_size > 0)


def _here(info: RunInfo) -> RunInfo:
    """The info with the environment of this process."""
    return info._replace(environment=info.environment | describe_environment(info.config))
