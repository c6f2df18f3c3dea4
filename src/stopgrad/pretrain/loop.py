"""The loop: views, forward, loss, backward, step, record. Paper: Algorithm 1."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from stopgrad.checkpoint import RunWriter
from stopgrad.collapse import Layers, Verdict, judge
from stopgrad.config import Config
from stopgrad.errors import DivergedError, InterruptedRunError
from stopgrad.images import Track, no_progress, normalization
from stopgrad.optimizer import LearningRates
from stopgrad.pretrain.setup import TrainingImages
from stopgrad.pretrain.training import Training, start_training
from stopgrad.pretrain.watch import measure_layers, watched_knn
from stopgrad.simsiam import SimSiam


class Epoch(NamedTuple):
    """What one epoch ended with."""

    number: int  # epochs finished
    step: int  # steps taken
    loss: float  # mean over the epoch's steps
    rates: LearningRates  # of its last step
    layers: Layers
    verdict: Verdict
    knn: float | None  # accuracy, when it was scored
    views_per_s: float
    model: SimSiam  # the living model, not a copy


def pretrain(
    images: TrainingImages,
    config: Config,
    *,
    writer: RunWriter | None = None,
    track: Track = no_progress,
) -> Iterator[Epoch]:
    """Trains SimSiam on the images and yields at the end of each epoch.

    Args:
        images: The images to learn from, and those that kNN is scored on; see `prepare`.
        config: Every knob of the run.
        writer: The open run directory; the run goes on from its checkpoint. None: write nothing.
        track: Wraps the batches of an epoch, to show progress.

    Raises:
        DivergedError: When the loss is not finite; the bad step is not taken.
        InterruptedRunError: After a signal, when the state is saved.
        StorageError: When the disk refuses a checkpoint.
    """
    training = start_training(images.train, config, normalization=normalization(images.train))
    if writer is not None:
        _continue(training, writer)
    rows: list[dict[str, Any]] = []
    while training.epoch < config.epochs:
        left = training.steps_per_epoch - training.step % training.steps_per_epoch
        description = f"epoch {training.epoch + 1}/{config.epochs}"
        rates, began = training.learning_rates, time.perf_counter()
        for batch in track(training.batches(), description, left):
            views, rates = training.views(batch), training.learning_rates
            try:
                loss = training.take_step(views)
            except DivergedError as error:
                if writer is not None:
                    writer.append(rows)
                    _stop_diverged(training, writer, error=error)
                raise
            if writer is not None:
                step_row = {"kind": "step", "step": training.step, "loss": loss}
                rows.append(step_row | rates._asdict())
                if _is_due(training, writer):
                    _save(training, writer, rows=rows)
        views_per_s = 2 * config.batch * left / (time.perf_counter() - began)
        epoch = _finish_epoch(training, images, rates=rates, views_per_s=views_per_s)
        if writer is not None:
            rows.append(_row(epoch))
            _save(training, writer, rows=rows)
            _report(writer, epoch, finished=training.epoch == config.epochs)
        yield epoch


def _continue(training: Training, writer: RunWriter) -> None:
    """Goes on from the run's checkpoint, or writes the one of step 0."""
    checkpoint = writer.begin()
    if checkpoint is not None:
        training.restore(checkpoint)
    else:
        writer.save(training.snapshot())
    # A kill between the last checkpoint and its status leaves nothing to do but the status.
    done = training.epoch == training.config.epochs
    writer.set_status("finished" if done else "running", step=training.step, epoch=training.epoch)


def _is_due(training: Training, writer: RunWriter) -> bool:
    """A checkpoint is due inside an epoch; its end has one in any case."""
    within = training.step % training.steps_per_epoch != 0
    every = training.config.checkpoint_every
    return within and (writer.stop_signal is not None or (every > 0 and training.step % every == 0))


def _save(training: Training, writer: RunWriter, *, rows: list[dict[str, Any]]) -> None:
    """Metrics, then the checkpoint that makes them count; then stops if a signal asked for it."""
    writer.append(rows)
    rows.clear()
    writer.save(training.snapshot())
    finished = training.epoch == training.config.epochs
    if writer.stop_signal is not None and not finished:
        writer.set_status("interrupted", step=training.step, epoch=training.epoch)
        raise InterruptedRunError(
            signal.Signals(writer.stop_signal), step=training.step, run=str(writer.path)
        )


def _finish_epoch(
    training: Training, images: TrainingImages, *, rates: LearningRates, views_per_s: float
) -> Epoch:
    """Measures the epoch that has just ended, and starts the next one's list of losses."""
    layers = measure_layers(training)
    every, last = training.config.knn_every, training.epoch == training.config.epochs
    scored = every > 0 and (training.epoch % every == 0 or last)
    loss = sum(training.losses) / len(training.losses)
    verdict = judge(layers)
    training.losses = []
    return Epoch(
        number=training.epoch,
        step=training.step,
        loss=loss,
        rates=rates,
        layers=layers,
        verdict=verdict,
        knn=watched_knn(training, images) if scored and verdict.state != "diverged" else None,
        views_per_s=views_per_s,
        model=training.model,
    )


def _row(epoch: Epoch) -> dict[str, Any]:
    """The epoch as a line of metrics; numbers that are not finite become null."""
    layers = {
        name: {key: value if value == value else None for key, value in layer._asdict().items()}
        for name, layer in epoch.layers._asdict().items()
    }
    return {
        "kind": "epoch",
        "epoch": epoch.number,
        "step": epoch.step,
        "loss": epoch.loss,
        **epoch.rates._asdict(),
        "measures": layers,
        "verdict": epoch.verdict._asdict(),
        "knn": epoch.knn,
        "views_per_s": epoch.views_per_s,
    }


def _report(writer: RunWriter, epoch: Epoch, *, finished: bool) -> None:
    writer.set_status(
        "finished" if finished else "running",
        step=epoch.step,
        epoch=epoch.number,
        verdict=epoch.verdict._asdict(),
    )


def _stop_diverged(training: Training, writer: RunWriter, *, error: DivergedError) -> None:
    writer.set_status("diverged", step=training.step, epoch=training.epoch, reason=error.found)
