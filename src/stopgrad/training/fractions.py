"""Training with labels, one fraction of them after the other, each in a run directory of its own.

In: a data set, and for fine-tuning a run. Out: the epochs, and with the last of each fraction its
record, which is on disk by then. A finished fraction is never repeated, and one that was killed
continues where it stopped.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from stopgrad.config import Config, Task
from stopgrad.errors import InterruptedRunError
from stopgrad.evaluation import (
    RECORDS,
    Record,
    also_when_stopped,
    append,
    append_cost,
    is_by,
    is_scored_on,
    records_of,
    scored,
    start_meter,
)
from stopgrad.images import Dataset, Normalization, Track, no_progress, normalization
from stopgrad.method import compute_for, training_flops, use_threads
from stopgrad.runs import (
    EvaluationSplit,
    RunData,
    RunInfo,
    RunWriter,
    TrainedRun,
    check_changes,
    check_fractions,
    check_same_data,
    config_of,
    describe_environment,
    evaluation_split,
    keep_label_draws,
    read_run,
    read_status,
    spec_to_keep,
)
from stopgrad.storage import refuse_links
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
    split: EvaluationSplit

    @property
    def labels(self) -> float:
        """The fraction itself, above 0 and at most 1."""
        return float(self.info.data["labels"])

    @property
    def path(self) -> Path:
        """Its own run directory."""
        return _folder(self.out, self.info.task, self.labels)

    def newest_record(self, info: RunInfo) -> Record | None:
        """The last record of the training that has this card."""
        found = reversed(records_of(self.out))
        mine = (record for record in found if _is_of(record, info, split=self.split))
        return next(mine, None)


def _folder(out: Path, task: Task, fraction: float) -> Path:
    return out / task / f"share-{fraction:g}"


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
    card, split = _card(dataset, spec=spec), evaluation_split(dataset, config)
    yield from _fractions(config, out, split, labels=labels, card=card, track=track)


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
    """Fine-tunes the encoder of a run; other arguments and errors as `supervised_fractions`.

    `dataset` holds the run's own images, or others with an `out` of their own: the run itself takes
    its own images alone. `config` is that of the run; its `finetune` may differ.
    """
    check_fractions(labels)
    inside = out.resolve() == run.path.resolve()
    if inside:
        check_same_data(run.info, dataset)
    split = evaluation_split(dataset, config_of(run.info, dataset))
    if inside:
        keep_label_draws(run.path, split.train, labels=labels, seed=config.seed)
    card = _card(dataset, spec=spec) | {"from_step": run.step, "from_epoch": run.epoch}
    if "init" in run.info.data:
        card["init"] = run.info.data["init"]
    if not run.info.learned_from(dataset.train):
        card["pretrained_on"] = run.info.data["fingerprint"]
    start = Start(run.model.encoder, run.info.normalization)
    yield from _fractions(config, out, split, labels=labels, card=card, start=start, track=track)


def _card(dataset: Dataset, *, spec: str) -> dict[str, object]:
    return {"spec": spec, "name": dataset.name, "fingerprint": dataset.train.fingerprint}


def _fractions(
    config: Config,
    out: Path,
    split: EvaluationSplit,
    *,
    labels: Sequence[float],
    card: Mapping[str, object],
    start: Start | None = None,
    track: Track,
) -> Iterator[FractionEpoch]:
    """Fine-tunes from a start, or trains from scratch, with each fraction."""
    task: Task = "supervised" if start is None else "finetune"
    refuse_links(out)
    usual = use_threads(config.threads)
    for share in labels:
        path = _folder(out, task, share)
        # The number of threads that it was begun with, as others round differently.
        begun = read_run(path) if (path / "config.json").exists() else None
        use_threads(config.threads or (begun.environment["threads"] if begun else usual))
        images = draw_fraction(split.train, split.test, fraction=share, seed=config.seed)
        known = start or begun  # other CPUs round it otherwise
        channels = config.encoder.channels
        mean_std = known.normalization if known else normalization(images.train, channels=channels)
        info = describe_fraction(images, config, task=task, normalization=mean_std, data=card)
        epochs = functools.partial(labelled_epochs, images, config, start=start, track=track)
        yield from _finish(Fraction(out, info, split), epochs)


def _finish(
    fraction: Fraction, epochs: Callable[..., Iterator[LabelledEpoch]]
) -> Iterator[FractionEpoch]:
    """Trains to the last epoch, unless that was done before, with the same settings and images."""
    labels, path, info = fraction.labels, fraction.path, fraction.info
    if read_status(path).get("state") == "finished":
        begun = read_run(path)
        check_changes(begun, info)
        done = fraction.newest_record(begun)
        if done is not None:
            yield FractionEpoch(labels, None, done)
            return
    meter = start_meter(device=str(compute_for(info.config).device), threads=use_threads(0))

    def keep_cost() -> None:
        append_cost(path, meter.spent())

    with open_fraction(path, info) as writer, also_when_stopped(keep_cost):
        for epoch in epochs(writer=writer):
            keep_cost()
            record = None if epoch.score is None else _keep(fraction, writer, epoch)
            yield FractionEpoch(labels, epoch, record)
        if writer.stop_signal is not None:
            raise InterruptedRunError(
                signal.Signals(writer.stop_signal),
                step=epoch.step,
                run=str(path),
                hint="continue with the same command",
            )


def _keep(fraction: Fraction, writer: RunWriter, epoch: LabelledEpoch) -> Record:
    """Adds the record, unless that was done before a kill."""
    known = fraction.newest_record(writer.info)
    if known is not None:
        return known
    seed = writer.info.config.seed
    keep_label_draws(fraction.path, fraction.split.train, labels=[fraction.labels], seed=seed)
    record = trained_record(writer.info, epoch, split=fraction.split)
    append(fraction.out / RECORDS, record)
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


def open_fraction(path: Path, info: RunInfo) -> RunWriter:
    """A new training in this directory, or the one that was begun there.

    Its `begin` refuses to continue with other settings, another fraction or other images.
    """
    if (path / "config.json").exists():
        return RunWriter.resume(path, info)
    return RunWriter.create(path, info)


def trained_record(info: RunInfo, epoch: LabelledEpoch, *, split: EvaluationSplit) -> Record:
    """The record of a training with labels, from scratch or fine-tuned, at its last epoch.

    Its own cost is in its protocol; the record's views and FLOPs are, as for every
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
        split=split.name,
        scored=split.test.fingerprint,
        wall_s=epoch.seconds,
    )


def _is_of(record: Record, info: RunInfo, *, split: EvaluationSplit) -> bool:
    data, epoch = info.data, info.data.get("from_epoch", record.epoch)
    return (
        record.protocol.get("evaluator") == info.task
        and (record.labels, record.split, record.epoch) == (data["labels"], split.name, epoch)
        and is_scored_on(record, split.test)
        and record.data["fingerprint"] == data["fingerprint"]
        and is_by(record, info.config)
    )
