"""What a run keeps on disk: rows of metrics, checkpoints when they are due, its status."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stopgrad.errors import CollapsedError, DivergedError, InterruptedRunError
from stopgrad.method import Verdict
from stopgrad.runs import RunWriter, State, read_status
from stopgrad.training.learner import Learner

T = TypeVar("T")

SAVING_TIME = 0.01
"""Part of the time that checkpoints at epochs' ends may take, when no interval was asked for."""


@dataclass
class Keeper:
    """Keeps a training on disk through a writer; without one it only reads the losses."""

    training: Learner[Any, Any]
    writer: RunWriter | None
    hint: str = ""  # how an interrupted training goes on; empty: by `stopgrad resume`
    rows: list[dict[str, object]] = field(default_factory=list)  # not yet on disk
    saved: float = 0.0  # when the newest checkpoint was complete, s
    cost: float = 0.0  # what it took, s
    verdict: dict[str, str] | None = None  # the newest

    def begin(self) -> None:
        """Goes on from the run's checkpoint, or writes the one of step 0.

        Raises:
            CheckpointError: When the checkpoint is not one of this training.
            StorageError: When the disk refuses.
        """
        if self.writer is None:
            return
        checkpoint = self.writer.begin()
        if checkpoint is not None:
            self.training.restore(checkpoint)
            self.verdict = read_status(self.writer.path).get("verdict")
        else:
            self._save(self.writer)
        self.report()

    def after_step(self) -> None:
        """Reads losses that have waited long enough, and saves when that is due.

        Raises:
            DivergedError: When a step was not finite.
            InterruptedRunError: After a signal within an epoch, when the state is saved.
        """
        training, every = self.training, self.training.config.checkpoint_every
        within = training.steps_left > 0
        due = within and every > 0 and training.step % every == 0
        stopping = within and self.writer is not None and self.writer.stop_signal is not None
        if due or stopping or len(training.unread) >= training.most_unread:
            self.read_losses()
        if due and not stopping and self.writer is not None:
            self._save(self.writer)
        if within:
            self.stop_if_asked()

    def read_losses(self) -> None:
        """Turns the losses of the newest steps into rows.

        Raises:
            DivergedError: When a step was not finite; the status says so.
        """
        before = self.training.step - len(self.training.unread)
        try:
            self.training.read_losses()
        except DivergedError as error:
            self._add_steps(before)
            if self.writer is not None:
                self._write_rows(self.writer)
            self._set_status("diverged", reason=error.found)
            raise
        self._add_steps(before)

    def after_epoch(self, row: dict[str, object], *, verdict: Verdict | None = None) -> None:
        """Writes the epoch's rows, and a checkpoint when it is due.

        Raises:
            InterruptedRunError: After a signal, when the state is saved.
        """
        if self.writer is None:
            return
        self.rows.append(row)
        if verdict is not None:
            self.verdict = verdict._asdict()
        is_last = self.training.epoch == self.training.epochs
        due = time.monotonic() - self.saved >= self.cost / SAVING_TIME
        if due or is_last or self.training.config.checkpoint_every > 0:
            self._save(self.writer)
        else:
            self._write_rows(self.writer)
        self.report()
        self.stop_if_asked()

    def report(self) -> None:
        """Writes the status of a training that goes on, or has nothing left to do."""
        self._set_status("finished" if self.training.is_finished else "running")

    def stop_if_asked(self) -> None:
        """Saves and stops when a signal has come; a run that is finished just ends.

        Raises:
            InterruptedRunError: When the state is saved.
        """
        if self.writer is None or self.writer.stop_signal is None or self.training.is_finished:
            return
        self.read_losses()  # the signal may have come since the last look
        self._save(self.writer)
        self._set_status("interrupted")
        number, path = signal.Signals(self.writer.stop_signal), str(self.writer.path)
        raise InterruptedRunError(number, step=self.training.step, run=path, hint=self.hint)

    def stop_if_collapsed(self, verdicts: int) -> None:
        """Ends a run that wants to end at its second verdict of collapse in a row.

        Args:
            verdicts: Verdicts of collapse in a row.

        Raises:
            CollapsedError: When it does; the state is saved.
        """
        training, verdict = self.training, self.verdict
        if not training.config.stop_on_collapse or verdicts < 2 or verdict is None:
            return
        if self.writer is not None:
            self._save(self.writer)
        self._set_status("collapsed")
        raise CollapsedError(
            f"{verdict['state']} at epoch {training.epoch}: {verdict['reason']}",
            expected="a healthy representation, as stop_on_collapse asks",
            hint=verdict["advice"],
        )

    def track(self, items: Iterable[T], description: str, total: int, /) -> Iterator[T]:
        """Passes items on; between two of them a signal can stop a long measurement.

        Raises:
            InterruptedRunError: After a signal, when the state is saved.
        """
        for item in items:
            self.stop_if_asked()
            yield item

    def _add_steps(self, before: int) -> None:
        """Rows of the steps after `before`."""
        training = self.training
        count = training.step - before
        if self.writer is None or count == 0:
            return
        for step, loss in enumerate(training.losses[-count:], start=before + 1):
            self.rows.append(training.row(step, loss))

    def _save(self, writer: RunWriter) -> None:
        """Metrics, then the checkpoint that makes them count."""
        began = time.monotonic()
        self._write_rows(writer)
        writer.save(self.training.snapshot())
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def _write_rows(self, writer: RunWriter) -> None:
        writer.append(self.rows)
        self.rows = []

    def _set_status(self, state: State, **values: object) -> None:
        if self.writer is not None:
            training = self.training
            known = {} if self.verdict is None else {"verdict": self.verdict}
            self.writer.set_status(
                state, step=training.step, epoch=training.epoch, **known, **values
            )
