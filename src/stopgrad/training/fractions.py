"""Training with labels, one fraction of them after the other, each in a run directory of its own.

In: a data set, and for fine-tuning a run. Out: the epochs, and with the last of each fraction its
record, which is on disk by then. A finished fraction is never repeated, and one that was killed
goes on where it stood.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.config import Config
from stopgrad.errors import InterruptedRunError
from stopgrad.evaluation import Record, append, append_cost, start_meter
from stopgrad.images import Dataset, Track, no_progress, normalization
from stopgrad.method import compute_for, use_threads
from stopgrad.runs import (
    RunInfo,
    RunWriter,
    TrainedRun,
    check_fractions,
    check_same_data,
    evaluation_split,
    keep_label_draws,
    read_run,
)
from stopgrad.training.labelled import LabelledEpoch, Start, finetune_epochs, supervised_epochs
from stopgrad.training.labelled_runs import (
    describe_fraction,
    fraction_folder,
    newest_record,
    open_fraction,
    recorded,
    trained_record,
)
from stopgrad.training.recipe import draw_fraction


class FractionEpoch(NamedTuple):
    """An epoch of a training with a fraction of the labels."""

    labels: float
    epoch: LabelledEpoch | None  # None: the fraction was finished before
    record: Record | None  # with its last epoch, or alone


class Fraction(NamedTuple):
    """A fraction of the labels, to be trained with."""

    out: Path  # where the records go
    info: RunInfo
    dataset: Dataset
    split: str  # name of the images that are scored
    epochs: Callable[..., Iterator[LabelledEpoch]]  # by writer and track

    @property
    def labels(self) -> float:
        """The fraction itself, above 0 and at most 1."""
        return float(self.info.data["labels"])

    @property
    def path(self) -> Path:
        """Its own run directory."""
        return fraction_folder(self.out, self.info.task, self.labels)

    @property
    def records(self) -> Path:
        """The file that its record goes to."""
        return self.out / "records.jsonl"


def supervised_fractions(
    dataset: Dataset,
    config: Config,
    out: Path,
    *,
    spec: str,
    labels: Sequence[float],
    track: Track = no_progress,
) -> Iterator[FractionEpoch]:
    """Trains the baseline from scratch.

    Args:
        dataset: The images, with labels.
        config: Its `supervised`, `encoder` and `seed` decide the result.
        out: A directory of its own, or that of a pretraining on the same images.
        spec: Where the images came from.
        labels: Fractions of the training labels, above 0 and at most 1.
        track: Shows the progress of each epoch.

    Raises:
        ConfigError: For a fraction out of range, or one that was begun with other settings.
        DataError: When there are no labels, or the images are not those of the pretraining.
        InterruptedRunError: After a signal, when the state is saved.
        StopgradError: While it trains, as `supervised_epochs`.
    """
    check_fractions(labels)
    if (out / "config.json").exists():
        check_same_data(read_run(out), dataset)
    split = evaluation_split(dataset, config)
    for fraction in labels:
        _use_threads(config, fraction_folder(out, "supervised", fraction))
        images = draw_fraction(split.train, split.test, fraction=fraction, seed=config.seed)
        info = describe_fraction(
            images,
            config,
            task="supervised",
            normalization=normalization(images.train),
            data=_card(dataset, spec=spec),
        )
        epochs = functools.partial(supervised_epochs, images, config)
        yield from _finish(Fraction(out, info, dataset, split.name, epochs), track=track)


def finetune_fractions(
    run: TrainedRun,
    dataset: Dataset,
    config: Config,
    out: Path,
    *,
    spec: str,
    labels: Sequence[float],
    track: Track = no_progress,
) -> Iterator[FractionEpoch]:
    """Fine-tunes the encoder of a run.

    Args:
        run: The run, from `load_run`.
        dataset: Images with labels: the run's own, or others with an `out` of their own.
        config: That of the run; its `finetune` may differ.
        out: Where networks and records go.
        spec: Where the images came from.
        labels: Fractions of the training labels, above 0 and at most 1.
        track: Shows the progress of each epoch.

    Raises:
        ConfigError: For a fraction out of range, or one that was begun with other settings.
        DataError: When there are no labels, or for other images than the run's in the run itself.
        InterruptedRunError: After a signal, when the state is saved.
        StopgradError: While it trains, as `finetune_epochs`.
    """
    check_fractions(labels)
    if out.resolve() == run.path.resolve():
        check_same_data(run.info, dataset)
        keep_label_draws(run.path, dataset, labels=labels)
    split = evaluation_split(dataset, config)
    start = Start(run.model.encoder, run.info.normalization)
    for fraction in labels:
        _use_threads(config, fraction_folder(out, "finetune", fraction))
        images = draw_fraction(split.train, split.test, fraction=fraction, seed=config.seed)
        info = describe_fraction(
            images,
            config,
            task="finetune",
            normalization=start.normalization,
            data=_card(dataset, spec=spec) | _origin(run),
        )
        epochs = functools.partial(finetune_epochs, images, config, start=start)
        yield from _finish(Fraction(out, info, dataset, split.name, epochs), track=track)


def _card(dataset: Dataset, *, spec: str) -> dict[str, Any]:
    return {"spec": spec, "name": dataset.name, "fingerprint": dataset.train.fingerprint}


def _origin(run: TrainedRun) -> dict[str, Any]:
    """What decides the encoder that is fine-tuned."""
    init = {key: run.info.data[key] for key in ("init",) if key in run.info.data}
    return {"from_step": run.step, "from_epoch": run.epoch} | init


def _use_threads(config: Config, path: Path) -> None:
    """The threads that a training was begun with, as other numbers round otherwise."""
    begun = read_run(path).environment["threads"] if (path / "config.json").exists() else 0
    use_threads(config.threads or begun)


def _finish(fraction: Fraction, *, track: Track) -> Iterator[FractionEpoch]:
    """Trains to the last epoch, unless that was done before."""
    done = recorded(fraction.records, fraction.path, fraction.info, split=fraction.split)
    if done is not None:
        yield FractionEpoch(fraction.labels, None, done)
        return
    config, path = fraction.info.config, fraction.path
    meter = start_meter(device=str(compute_for(config).device), threads=use_threads(0))
    with open_fraction(path, fraction.info) as writer:
        for epoch in fraction.epochs(writer=writer, track=track):
            append_cost(path, meter.spent())
            record = None if epoch.score is None else _keep(fraction, writer, epoch)
            yield FractionEpoch(fraction.labels, epoch, record)
        if writer.stop_signal is not None:
            raise InterruptedRunError(
                signal.Signals(writer.stop_signal),
                step=epoch.step,
                run=str(path),
                hint="go on with the same command",
            )


def _keep(fraction: Fraction, writer: RunWriter, epoch: LabelledEpoch) -> Record:
    """Adds the record, unless a kill came after that was done."""
    known = newest_record(fraction.records, writer.info, split=fraction.split)
    if known is not None:
        return known
    keep_label_draws(fraction.path, fraction.dataset, labels=[fraction.labels])
    record = trained_record(writer.info, epoch, split=fraction.split)
    append(fraction.records, record)
    return record
