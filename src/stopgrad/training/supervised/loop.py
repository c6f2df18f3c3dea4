"""The loop: crops, forward, cross-entropy, backward, step, record; at the end the test images."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from stopgrad.config import Config
from stopgrad.errors import DivergedError, InterruptedRunError
from stopgrad.evaluation import Score, embed, labelled, score
from stopgrad.images import Track, no_progress, normalization
from stopgrad.method import Classifier, build_classifier
from stopgrad.runs import RunWriter, State, read_metrics
from stopgrad.training.supervised.recipe import LabelledShare, protocol, supervised_recipe
from stopgrad.training.supervised.training import LabelledTraining, start_labelled_training

T = TypeVar("T")


class LabelledEpoch(NamedTuple):
    """What one epoch ended with."""

    number: int  # epochs finished
    step: int  # steps taken
    loss: float  # mean over the epoch's steps
    lr: float  # of the encoder, at its last step
    images_per_s: float  # over all steps so far
    seconds: float  # of all steps so far; with the scoring at the last epoch
    score: Score | None  # on the whole test set, at the last epoch alone
    model: Classifier  # the living model, not a copy


def supervised_epochs(
    images: LabelledShare,
    config: Config,
    *,
    writer: RunWriter | None = None,
    track: Track = no_progress,
) -> Iterator[LabelledEpoch]:
    """Trains the encoder and one linear layer from scratch; yields at the end of each epoch.

    The images are normalised by the mean and std of the share itself, so nothing of the others
    enters. The last epoch brings the score on the whole test set.

    Args:
        images: The share of labels to learn from, see `draw_share`, and the test images.
        config: Its `supervised`, `encoder` and `seed` decide the result.
        writer: The open run directory; the training goes on from its checkpoint, and yields its
            last epoch again if that was reached. None: write nothing.
        track: Wraps the batches of an epoch, to show progress.

    Raises:
        DataError: When there are fewer images than one batch.
        ConfigError: For a crop that does not fit the pictures.
        DivergedError: When the loss is not finite; the bad step is not taken.
        InterruptedRunError: After a signal, when the state is saved.
        StorageError: When the disk refuses a checkpoint.
    """
    classes = len(images.class_names)
    model = build_classifier(config.encoder, classes=classes, seed=config.seed)
    training = start_labelled_training(
        model,
        images,
        recipe=supervised_recipe(config),
        config=config,
        normalization=normalization(images.train),
    )
    yield from labelled_epochs(training, writer=writer, track=track)


def labelled_epochs(
    training: LabelledTraining, *, writer: RunWriter | None, track: Track
) -> Iterator[LabelledEpoch]:
    """Takes the steps that are left and yields at the end of each epoch; see `supervised`.

    The run is finished when its last epoch was taken in and the next one asked for, so that a
    result is never lost between the training and its record.
    """
    if writer is not None:
        _continue(training, writer)
    while not training.finished:
        _train_epoch(training, writer, track=track)
        if not training.finished:
            yield _epoch(training)
    began = time.perf_counter()
    result = _score(training, track=track if writer is None else _stopping(training, writer, track))
    last = _epoch(training, result)
    yield last._replace(seconds=last.seconds + time.perf_counter() - began)
    if writer is not None:
        _report(training, writer, state="finished")


def _train_epoch(training: LabelledTraining, writer: RunWriter | None, *, track: Track) -> None:
    done = training.step % training.steps_per_epoch
    if done == 0:
        training.losses = []
    rows: list[dict[str, Any]] = []
    description = f"epoch {training.epoch + 1}/{training.recipe.epochs}"
    for batch in track(training.batches(), description, training.steps_per_epoch - done):
        began, lr = time.perf_counter(), training.lr(training.step)
        try:
            loss = training.take_step(training.augmented(batch))
        except DivergedError as error:
            if writer is not None:
                writer.append(rows)
                _report(training, writer, state="diverged", reason=error.found)
            raise
        seconds = time.perf_counter() - began
        training.seconds += seconds
        row = {"kind": "step", "step": training.step, "loss": loss, "lr": lr, "seconds": seconds}
        rows.append(row)
        if writer is not None and _is_due(training, writer):
            _save(training, writer, rows=rows)
    if writer is not None:
        rows.append(_row(_epoch(training)))
        _save(training, writer, rows=rows)


def _continue(training: LabelledTraining, writer: RunWriter) -> None:
    """Goes on from the checkpoint of a run, or writes the one of step 0."""
    checkpoint = writer.begin()
    if checkpoint is not None:
        training.restore(checkpoint)
        steps = (row for row in read_metrics(writer.path) if row["kind"] == "step")
        training.seconds = sum(row["seconds"] for row in steps)
    else:
        writer.save(training.snapshot())
    _report(training, writer, state="running")


def _is_due(training: LabelledTraining, writer: RunWriter) -> bool:
    """A checkpoint is due inside an epoch; its end has one in any case."""
    within = training.step % training.steps_per_epoch != 0
    every = training.config.checkpoint_every
    return within and (writer.stop_signal is not None or (every > 0 and training.step % every == 0))


def _save(training: LabelledTraining, writer: RunWriter, *, rows: list[dict[str, Any]]) -> None:
    """Metrics, then the checkpoint that makes them count; then stops if a signal asked for it."""
    writer.append(rows)
    rows.clear()
    writer.save(training.snapshot())
    _stop_if_asked(training, writer)


def _stop_if_asked(training: LabelledTraining, writer: RunWriter) -> None:
    """Ends a training that is saved, with its code."""
    if writer.stop_signal is None:
        return
    _report(training, writer, state="interrupted")
    raise InterruptedRunError(
        signal.Signals(writer.stop_signal),
        step=training.step,
        run=str(writer.path),
        hint="go on with the same command",
    )


def _stopping(training: LabelledTraining, writer: RunWriter, track: Track) -> Track:
    """Progress through a scoring that a signal may end: the training itself is saved."""

    def stopping(items: Iterable[T], description: str, total: int, /) -> Iterator[T]:
        for item in track(items, description, total):
            _stop_if_asked(training, writer)
            yield item

    return stopping


def _score(training: LabelledTraining, *, track: Track) -> Score:
    """The network's accuracy on every test image; images are normalised, not augmented."""
    logits = embed(
        training.model,
        training.images.test,
        normalization=training.normalization,
        compute=training.compute,
        track=track,
    )
    values, labels = labelled(logits, role="test")
    how = protocol(training.recipe, training.images, training.config)
    return score(values, labels, protocol=how)


def _epoch(training: LabelledTraining, result: Score | None = None) -> LabelledEpoch:
    """The epoch that has just ended, from the state alone."""
    return LabelledEpoch(
        number=training.epoch,
        step=training.step,
        loss=sum(training.losses) / len(training.losses),
        lr=training.lr(training.step - 1),
        images_per_s=training.recipe.batch * training.step / training.seconds,
        seconds=training.seconds,
        score=result,
        model=training.model,
    )


def _row(epoch: LabelledEpoch) -> dict[str, Any]:
    """The epoch as a line of metrics."""
    names = ("step", "loss", "lr", "images_per_s", "seconds")
    return {"kind": "epoch", "epoch": epoch.number} | {n: getattr(epoch, n) for n in names}


def _report(training: LabelledTraining, writer: RunWriter, *, state: State, **values: Any) -> None:
    writer.set_status(state, step=training.step, epoch=training.epoch, **values)
