"""What every training shares: its state, its step, an exact snapshot, and what is kept on disk.

Pretraining (`pretrain`) and training with labels (`labelled`) say what a batch is and how its loss
is computed; all else is here. A step never waits for the device: its loss stays there until
`read_losses`, which also refuses a step that is not finite and all that follow it. A `Keeper`
writes rows of metrics, checkpoints when they are due, and the status of the run.
"""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from stopgrad.config import Config, torch_generator
from stopgrad.errors import CollapsedError, DivergedError, InterruptedRunError
from stopgrad.images import Normalization, Packed
from stopgrad.method import (
    Compute,
    Optimizer,
    Processes,
    Verdict,
    drops,
    keep_threads_apart,
    seeded,
)
from stopgrad.runs import Checkpoint, RunPhase, RunWriter, TrainingState, load_model, read_status

Model = TypeVar("Model", bound=nn.Module)
Batch = TypeVar("Batch")
T = TypeVar("T")

UNREAD = 100
"""Losses that may wait on a GPU before the host reads them; a CPU's are read at once."""

UNREAD_TOGETHER = 16
"""As `UNREAD`, for several processes, whose steps are slow or stuck when one of them is lost."""

SAVING_TIME = 0.01
"""Share of the time that checkpoints at epochs' ends may take, if no interval is set."""


@dataclass(kw_only=True)
class Learner(ABC, Generic[Model, Batch]):
    """Everything that a step reads and changes. `Batch` is what one step learns from."""

    config: Config
    compute: Compute
    normalization: Normalization
    pixels: Tensor | Packed  # (N, H, W, 3) uint8, on the device where they fit
    model: Model
    optimizer: Optimizer
    epochs: int  # in total
    batch_size: int  # B, the images of a step
    steps_per_epoch: int  # whole batches; the images left over wait for another epoch's order
    advice: str  # what to do when the loss is not finite
    processes: Processes | None = None  # that take each step together, each with its part of B
    refused: Tensor = field(init=False)  # (), 1 from the first step that was not finite on
    draws: bool = field(init=False)  # layers may draw from PyTorch's global generators
    step: int = 0  # steps taken
    epoch: int = 0  # epochs finished, their measurements included
    losses: list[float] = field(default_factory=list)  # of the epoch so far, those that were read
    unread: list[Tensor] = field(default_factory=list)  # loss and refusal (2,) of the newest steps

    def __post_init__(self) -> None:
        self.refused = torch.zeros((), device=self.compute.device)
        self.draws = self.config.encoder.is_given or drops(self.model)
        if self.compute.device.type == "cpu":
            keep_threads_apart()

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.epoch == self.epochs

    @property
    def most_unread(self) -> int:
        """How many losses may wait on the device before they are read."""
        if self.compute.device.type == "cpu":
            return 1
        return UNREAD if self.processes is None else UNREAD_TOGETHER

    @abstractmethod
    def order(self) -> Tensor:
        """Indices of the images of this epoch, at least `steps_per_epoch` batches of them."""

    @abstractmethod
    def group_rates(self, step: int) -> Mapping[str, float]:
        """The learning rates of a step, counted from 1, by the name of a parameter group."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:  # -> ()
        """The forward pass and the loss."""

    @abstractmethod
    def advance(self, indices: Tensor) -> None:  # (B,)
        """Takes the next step, on these images; see `take_step`."""

    @abstractmethod
    def row(self, step: int, loss: float) -> dict[str, object]:
        """A step, counted from 1, as a line of metrics."""

    def state(self) -> TrainingState:
        """What a checkpoint keeps besides tensors."""
        return {"step": self.step, "losses": self.losses}

    @property
    def steps_left(self) -> int:
        """Steps to the end of the epoch; 0 when only its measurements are missing."""
        return (self.epoch + 1) * self.steps_per_epoch - self.step

    def batches(self) -> Iterator[Tensor]:  # each (B,) int64
        """The batches of indices that this epoch has left, in its own random order."""
        order, size = self.order(), self.batch_size
        for number in range(self.steps_per_epoch - self.steps_left, self.steps_per_epoch):
            yield order[number * size : (number + 1) * size]

    def take_step(self, batch: Batch) -> Tensor:  # -> ()
        """Forward, loss, backward, step; returns the loss, still on the device.

        When the loss or a gradient is not finite, this step and all that follow leave the weights
        as they are, and `read_losses` raises.
        """
        self.set_learning_rates()
        loss = self.backward(self.loss(batch))
        return self.count(self.update(loss))[0]

    def drawing(self, *position: str) -> AbstractContextManager[None]:
        """In here the seed and the step decide what layers draw, such as dropout."""
        if not self.draws:
            return nullcontext()
        seed = torch_generator(self.config.seed, *position, self.step).initial_seed()
        return seeded(seed, self.compute.device)

    def set_learning_rates(self) -> None:
        """Sets the learning rates of the next step."""
        self.optimizer.set_learning_rates(self.group_rates(self.step + 1))

    def backward(self, loss: Tensor) -> Tensor:  # () -> ()
        """Computes gradients, and checks them and the loss; returns the loss of the whole batch.

        Several processes add up their gradients and losses, each with the weight of its part.
        """
        self.optimizer.zero_grad()
        if self.processes is not None:
            part = self.processes.part(self.batch_size)
            loss = loss * ((part.stop - part.start) / self.batch_size)
        loss.backward()  # type: ignore[no-untyped-call]
        loss = loss.detach()
        if self.processes is not None:
            loss = self._sum_over(self.processes, loss)
        self._refuse_unless_finite(loss)
        return loss

    def _sum_over(self, processes: Processes, loss: Tensor) -> Tensor:
        """Adds up loss and gradients in one piece, so that their order never changes."""
        shared = [p.grad for p in self.model.parameters() if p.grad is not None]
        if self.config.batch_norm_over == "process":  # each has seen other statistics: their mean
            means = [b for b in self.model.buffers() if b.is_floating_point()]
            part = processes.part(self.batch_size)
            torch._foreach_mul_(means, (part.stop - part.start) / self.batch_size)
            shared += means
        flat = torch.cat([loss.to(shared[0].dtype).view(1), *[each.flatten() for each in shared]])
        processes.sum(flat)
        sums = torch.split(flat[1:], [each.numel() for each in shared])
        for each, total in zip(shared, sums, strict=True):
            each.copy_(total.view(each.shape))
        return flat[0].to(loss.dtype)

    def update(self, loss: Tensor) -> Tensor:  # () -> (2,)
        """Sets new weights, unless a step was refused; returns loss and refusal, for `count`."""
        self.optimizer.step(self.refused)
        return torch.stack([loss.detach().float(), self.refused])

    def count(self, result: Tensor) -> Tensor:  # (2,) -> (2,)
        """Counts the step with this loss and refusal; returns them."""
        self.unread.append(result)
        self.step += 1
        return result

    def _refuse_unless_finite(self, loss: Tensor) -> None:
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients))
        finite = torch.isfinite(loss) & torch.isfinite(norms).all()
        torch.maximum(self.refused, 1 - finite.float(), out=self.refused)

    def read_losses(self) -> list[float]:
        """The losses of the steps since the last call; waits for the device.

        Raises:
            DivergedError: When a step was refused. `step` is then the last one that was taken,
                and the weights are those after it.
        """
        if not self.unread:
            return []
        first = self.step - len(self.unread) + 1
        read = torch.stack(self.unread).tolist()
        losses = [loss for loss, refused in read if not refused]
        self.unread = []
        self.losses += losses
        if len(losses) < len(read):
            bad = first + len(losses)
            self.step = bad - 1
            loss, lr = read[len(losses)][0], self.group_rates(bad)["encoder"]
            raise DivergedError(
                f"the loss or a gradient is not finite at step {bad} "
                f"(loss {loss:g}, learning rate {lr:g})",
                expected="finite numbers; the step was not taken",
                hint=self.advice,
            )
        return losses

    def snapshot(self) -> Checkpoint:
        """The state as a checkpoint; tensors are shared with the model, not copied.

        All losses must have been read.
        """
        assert not self.unread, "losses that were not read"
        model, optimizer = dict(self.model.state_dict()), self.optimizer.state()
        return Checkpoint(self.step, model, optimizer, self.state())

    def restore(self, checkpoint: Checkpoint) -> None:
        """Loads a checkpoint, in our memory formats; a CheckpointError for another model's."""
        load_model(self.model, checkpoint.model)
        self.optimizer.restore(checkpoint.optimizer)
        self.step = checkpoint.step
        # Without "epoch" (training with labels, and version 0.1) an epoch ends with its last step.
        self.epoch = checkpoint.state.get("epoch", self.step // self.steps_per_epoch)
        self.losses = [float(loss) for loss in checkpoint.state["losses"]]


@dataclass
class Keeper:
    """Keeps a training on disk through a writer; without one it only reads the losses."""

    training: Learner[Any, Any]
    writer: RunWriter | None
    hint: str = ""  # how to continue an interrupted training; empty: by `stopgrad resume`
    rows: list[dict[str, object]] = field(default_factory=list)  # not yet on disk
    saved: float = 0.0  # when the newest checkpoint was complete, s
    cost: float = 0.0  # the time it took, s
    kept: int | None = None  # step of that checkpoint
    newest: dict[str, Any] = field(default_factory=dict)  # verdict and kNN

    def begin(self) -> None:
        """Resumes from the run's checkpoint, or writes the one of step 0; see `restore`."""
        if self.writer is None:
            return
        checkpoint = self.writer.begin()
        if checkpoint is not None:
            self.training.restore(checkpoint)
            self._note(read_status(self.writer.path))
            self.kept = self.training.step
        else:
            self._save()
        self.report()

    def after_step(self) -> None:
        """Reads losses that waited long enough, saves when due; stops as `stop_if_asked`."""
        training, every = self.training, self.training.config.checkpoint_every
        within = training.steps_left > 0
        if self.writer is not None:
            self.writer.agree(training.step, last=not within)
        due = within and every > 0 and training.step % every == 0
        stopping = within and self.writer is not None and self.writer.stop_signal is not None
        if due or stopping or len(training.unread) >= training.most_unread:
            self.read_losses()
        if due and not stopping:
            self._save()
        if within:
            self.stop_if_asked()

    def read_losses(self) -> None:
        """Turns the losses of the newest steps into rows; records a DivergedError in the status."""
        before = self.training.step - len(self.training.unread)
        try:
            self.training.read_losses()
        except DivergedError as error:
            self._add_steps(before)
            self._write_rows()
            self._set_status("diverged", reason=error.found)
            raise
        self._add_steps(before)

    def after_epoch(self, row: dict[str, object], *, verdict: Verdict | None = None) -> None:
        """Writes the epoch's rows, and a checkpoint when due; stops as `stop_if_asked`."""
        self.rows.append(row)
        self._note({"knn": row.get("knn"), "verdict": verdict and verdict._asdict()})
        is_last = self.training.epoch == self.training.epochs
        due = time.monotonic() - self.saved >= self.cost / SAVING_TIME
        if self.writer is not None:
            due = self.writer.decide(due)
        if due or is_last or self.training.config.checkpoint_every > 0:
            self._save()
        else:
            self._write_rows()
        self.report()
        self.stop_if_asked()

    def report(self) -> None:
        """Writes the status of a training that is running, or has nothing left to do."""
        self._set_status("finished" if self.training.is_finished else "running")

    def stop_if_asked(self) -> None:
        """Saves and raises InterruptedRunError when a signal has come; a finished run just ends."""
        if self.writer is None or self.writer.stop_signal is None or self.training.is_finished:
            return
        self.read_losses()  # the signal may have come since the last look
        self._save()
        self._set_status("interrupted")
        number, path = signal.Signals(self.writer.stop_signal), str(self.writer.path)
        raise InterruptedRunError(number, step=self.training.step, run=path, hint=self.hint)

    def stop_if_collapsed(self, verdicts: int) -> None:
        """Saves and raises CollapsedError at two such verdicts in a row, if the config asks so."""
        training, verdict = self.training, self.newest.get("verdict")
        if not training.config.stop_on_collapse or verdicts < 2 or verdict is None:
            return
        self._save()
        self._set_status("collapsed")
        raise CollapsedError(
            f"{verdict['state']} at epoch {training.epoch}: {verdict['reason']}",
            expected="a healthy representation, because stop_on_collapse is set",
            hint=verdict["advice"],
        )

    def track(self, items: Iterable[T], description: str, total: int, /) -> Iterator[T]:
        """Yields the items; between two of them a signal can stop, as `stop_if_asked`."""
        for item in items:
            self.stop_if_asked()
            yield item

    def _add_steps(self, before: int) -> None:
        """Rows of the steps after `before`."""
        training = self.training
        losses = training.losses[len(training.losses) - (training.step - before) :]
        self.rows += [training.row(n, loss) for n, loss in enumerate(losses, start=before + 1)]

    def _save(self) -> None:
        """Metrics, then the checkpoint that makes them count."""
        began = time.monotonic()
        self._write_rows()
        if self.training.step == self.kept:
            return  # saving a step again would remove it first; measuring again gives the same
        if self.writer is not None:
            self.writer.save(self.training.snapshot())
        self.saved, self.kept = time.monotonic(), self.training.step
        self.cost = self.saved - began

    def _write_rows(self) -> None:
        if self.writer is not None:
            self.writer.append(self.rows)
        self.rows = []

    def _set_status(self, state: RunPhase, **values: object) -> None:
        if self.writer is not None:
            where = {"step": self.training.step, "epoch": self.training.epoch}
            self.writer.set_status(state, **where, **self.newest, **values)

    def _note(self, found: Mapping[str, Any]) -> None:
        """Keeps the newest verdict and kNN that were measured."""
        for name in ("verdict", "knn"):
            if found.get(name) is not None:
                self.newest[name] = found[name]
