"""Training with labels, one fraction of them after the other, each in a run directory of its own.

In: a data set, and for fine-tuning a run. Out: the epochs, and with the last of each fraction its
record, which is on disk by then. A finished fraction is never repeated, and one that was killed
goes on where it stood.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from stopgrad.config import Config, Task, config_to_dict
from stopgrad.errors import InterruptedRunError
from stopgrad.evaluation import Record, append, append_cost, read, scored, start_meter
from stopgrad.images import Dataset, Normalization, Track, no_progress, normalization
from stopgrad.method import compute_for, training_flops, use_threads
from stopgrad.runs import (
    RunData,
    RunInfo,
    RunWriter,
    TrainedRun,
    check_changes,
    check_fractions,
    check_same_data,
    describe_environment,
    evaluation_split,
    keep_label_draws,
    read_run,
    read_status,
    spec_to_keep,
)
from stopgrad.training.labelled import LabelledEpoch, Start, labelled_epochs
from stopgrad.training.recipe import LabelledImages, draw_fraction


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
        StopgradError: While it trains, as `labelled_epochs`.
    """
    check_fractions(labels)
    if (out / "config.json").exists():
        check_same_data(read_run(out), dataset)
    card = _card(dataset, spec=spec)
    yield from _fractions(dataset, config, out, labels=labels, card=card, track=track)


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
        out: Where networks and records go; the run itself takes its own images alone.
        spec: As for `supervised_fractions`.
        labels: As for `supervised_fractions`.
        track: As for `supervised_fractions`.

    Raises:
        StopgradError: As `supervised_fractions`.
    """
    check_fractions(labels)
    if out.resolve() == run.path.resolve():
        check_same_data(run.info, dataset)
        keep_label_draws(run.path, dataset, labels=labels)
    card = _card(dataset, spec=spec) | {"from_step": run.step, "from_epoch": run.epoch}
    if "init" in run.info.data:
        card["init"] = run.info.data["init"]
    start = Start(run.model.encoder, run.info.normalization)
    yield from _fractions(dataset, config, out, labels=labels, card=card, start=start, track=track)


def _card(dataset: Dataset, *, spec: str) -> dict[str, object]:
    return {"spec": spec, "name": dataset.name, "fingerprint": dataset.train.fingerprint}


def _fractions(
    dataset: Dataset,
    config: Config,
    out: Path,
    *,
    labels: Sequence[float],
    card: Mapping[str, object],
    start: Start | None = None,
    track: Track,
) -> Iterator[FractionEpoch]:
    """Fine-tunes from a start, or trains from scratch, with each fraction."""
    task: Task = "supervised" if start is None else "finetune"
    split = evaluation_split(dataset, config)
    for fraction in labels:
        _use_threads(config, fraction_folder(out, task, fraction))
        images = draw_fraction(split.train, split.test, fraction=fraction, seed=config.seed)
        channels = config.encoder.channels
        known = start.normalization if start else None
        mean_std = known or normalization(images.train, channels=channels)
        info = describe_fraction(images, config, task=task, normalization=mean_std, data=card)
        epochs = functools.partial(labelled_epochs, images, config, start=start)
        yield from _finish(Fraction(out, info, dataset, split.name, epochs), track=track)


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


def describe_fraction(
    images: LabelledImages,
    config: Config,
    *,
    task: Task,
    normalization: Normalization,
    data: Mapping[str, object],
) -> RunInfo:
    """The card of a training with labels.

    `data` holds spec, name and fingerprint of the whole training set, and what else decides the
    result, such as the step of the encoder that is fine-tuned.
    """
    own = {
        "spec": spec_to_keep(str(data["spec"])),
        "images": images.full_size,
        "images_labelled": len(images.train),
        "class_names": list(images.class_names),
        "task": task,
        "labels": images.fraction,
        "label_draw": images.draw,
    }
    card = cast(RunData, dict(data) | own)
    return RunInfo(config, card, normalization, describe_environment(config))


def fraction_folder(out: Path, task: Task, fraction: float) -> Path:
    """Where a training with a fraction of the labels lives, `OUT/supervised/share-0.1`."""
    return out / task / f"share-{fraction:g}"


def open_fraction(path: Path, info: RunInfo) -> RunWriter:
    """A new training in this directory, or the one that was begun there.

    Its `begin` refuses to go on with other settings, another fraction or other images.

    Raises:
        ConfigError: When something else is there.
    """
    if (path / "config.json").exists():
        return RunWriter.resume(path, info)
    return RunWriter.create(path, info)


def trained_record(info: RunInfo, epoch: LabelledEpoch, *, split: str) -> Record:
    """The record of a training with labels, from scratch or fine-tuned, at its last epoch.

    What it cost stands in its protocol; the record's own views and FLOPs are, as for every
    evaluator, those that made the encoder: of the pretraining, or of the training from scratch.
    """
    config, data, score = info.config, info.data, epoch.score
    assert score is not None
    if data["task"] == "supervised":
        metric, of, number = "supervised_accuracy", "supervised", epoch.number
        views, flops = score.protocol["views"], score.protocol["flops"]
    else:
        metric, of, number = "finetune_accuracy", "encoder", data["from_epoch"]
        views = 2 * config.batch * data["from_step"]
        flops = training_flops(config) * views
    return scored(
        info,
        score,
        metric=metric,
        of=of,
        epoch=number,
        views=views,
        flops=flops,
        labels=data["labels"],
        name=data["name"],
        split=split,
        wall_s=epoch.seconds,
    )


def recorded(records: Path, run: Path, info: RunInfo, *, split: str) -> Record | None:
    """The record of a training that is finished; None when there is work left.

    Raises:
        ConfigError, DataError: When it was finished with other settings or other images.
    """
    if read_status(run).get("state") != "finished":
        return None
    begun = read_run(run)
    check_changes(begun, info)
    return newest_record(records, begun, split=split)


def newest_record(records: Path, info: RunInfo, *, split: str) -> Record | None:
    """The last record of the training that has this card."""
    found = read(records) if records.exists() else []
    return next((r for r in reversed(found) if _is_of(r, info, split=split)), None)


def _is_of(record: Record, info: RunInfo, *, split: str) -> bool:
    data, epoch = info.data, info.data.get("from_epoch", record.epoch)
    return (
        record.protocol.get("evaluator") == info.task
        and (record.labels, record.split, record.epoch) == (data["labels"], split, epoch)
        and record.data["fingerprint"] == data["fingerprint"]
        and record.config == config_to_dict(info.config)
    )
