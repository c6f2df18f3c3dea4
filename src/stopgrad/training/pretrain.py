"""The loop: views, forward, loss, backward, step, record. Paper: Algorithm 1."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from stopgrad.config import Config
from stopgrad.images import Track, no_progress
from stopgrad.method import Layers, LearningRates, SimSiam, Spectra, Verdict, compile_errors, judge
from stopgrad.runs import RunWriter, TrainingImages
from stopgrad.training.keeper import Keeper
from stopgrad.training.learner import Training, start_training
from stopgrad.training.watch import measure_layers, measure_spectra, watched_knn

MOMENTS = 16  # how often the spectra are taken


class Epoch(NamedTuple):
    """What one epoch ended with."""

    number: int  # epochs finished
    step: int  # steps taken
    loss: float  # mean over the epoch's steps
    rates: LearningRates  # of its last step
    layers: Layers | None  # when they were measured
    verdict: Verdict | None  # on them
    knn: float | None  # accuracy, when it was scored
    views_per_s: float  # in this process; 0 when all its steps were taken before
    model: SimSiam  # the living model, not a copy
    spectra: Spectra | None = None  # at some sixteen moments of the run


def pretrain_epochs(
    images: TrainingImages,
    config: Config,
    *,
    writer: RunWriter | None = None,
    track: Track = no_progress,
    init: Mapping[str, Tensor] | None = None,
) -> Iterator[Epoch]:
    """Trains SimSiam on the images and yields at the end of each epoch.

    Args:
        images: The images to learn from, and those that kNN is scored on; see `prepare`.
        config: Every knob of the run.
        writer: The open run directory; the run goes on from its checkpoint. None: write nothing.
        track: Wraps the batches of an epoch, to show progress.
        init: What the encoder starts from, see `weights`; None: random weights.

    Raises:
        ConfigError: When torch.compile fails here.
        DivergedError: When the loss is not finite; the bad step is not taken.
        CollapsedError: When the config asks to stop on collapse.
        InterruptedRunError: After a signal, when the state is saved.
        StorageError: When the disk refuses a checkpoint.
    """
    training = start_training(images.train, config, normalization=images.normalization, init=init)
    keeper = Keeper(training, writer)
    keeper.begin()
    while training.epoch < config.epochs:
        left, began = training.steps_left, time.perf_counter()
        for batch in track(training.batches(), f"epoch {training.epoch + 1}/{config.epochs}", left):
            with compile_errors():
                training.advance(batch)
            keeper.after_step()
        keeper.read_losses()
        views_per_s = 2 * config.batch * left / (time.perf_counter() - began)
        epoch = _finish_epoch(training, images, keeper, views_per_s=views_per_s)
        keeper.after_epoch(_row(epoch))
        yield epoch
        keeper.stop_if_collapsed()


def _finish_epoch(
    training: Training, images: TrainingImages, keeper: Keeper, *, views_per_s: float
) -> Epoch:
    """Measures the epoch whose steps are done, and only then counts it as finished."""
    config, number = training.config, training.epoch + 1
    measured = _is_turn(number, every=config.measure_every, last=config.epochs)
    drawn = measured and _is_moment(number, every=config.measure_every, last=config.epochs)
    layers = measure_layers(training, track=keeper.track) if measured else None
    verdict = judge(layers, steps=training.step) if layers is not None else None
    scored = _is_turn(number, every=config.knn_every, last=config.epochs)
    scored = scored and (verdict is None or verdict.state != "diverged")
    knn = watched_knn(training, images, track=keeper.track) if scored else None
    finite = verdict is not None and verdict.state != "diverged"
    spectra = measure_spectra(training, track=keeper.track) if drawn and finite else None
    loss = sum(training.losses) / len(training.losses)
    training.epoch, training.losses = number, []
    if verdict is not None:
        # A run starts with few directions, so the first verdicts may say collapse of a healthy one.
        counts = "collapse" in verdict.state and number > config.epochs / 10
        training.collapsed = training.collapsed + 1 if counts else 0
    rates = training.learning_rates(training.step)
    model = training.model
    return Epoch(
        number, training.step, loss, rates, layers, verdict, knn, views_per_s, model, spectra
    )


def _is_turn(number: int, *, every: int, last: int) -> bool:
    return every > 0 and (number % every == 0 or number == last)


def _is_moment(number: int, *, every: int, last: int) -> bool:
    """Whether a sixteenth of the epochs has passed since the last measurement."""
    return number * MOMENTS // last > (number - every) * MOMENTS // last


def _row(epoch: Epoch) -> dict[str, Any]:
    """The epoch as a line of metrics; numbers that are not finite become null."""
    row: dict[str, Any] = {
        "kind": "epoch",
        "epoch": epoch.number,
        "step": epoch.step,
        "loss": epoch.loss,
        **epoch.rates._asdict(),
        "knn": epoch.knn,
        "views_per_s": epoch.views_per_s,
    }
    if epoch.layers is None or epoch.verdict is None:
        return row
    layers = {
        name: {key: value if value == value else None for key, value in layer._asdict().items()}
        for name, layer in epoch.layers._asdict().items()
    }
    row |= {"measures": layers, "verdict": epoch.verdict._asdict()}
    return row if epoch.spectra is None else row | {"spectra": epoch.spectra._asdict()}
