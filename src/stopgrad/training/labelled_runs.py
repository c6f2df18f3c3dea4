"""A training with a fraction of the labels as a run directory: its card, its place, its record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from stopgrad.config import Config, Task, config_to_dict
from stopgrad.evaluation import Record, read, scored
from stopgrad.images import Normalization
from stopgrad.method import training_flops
from stopgrad.runs import (
    RunData,
    RunInfo,
    RunWriter,
    check_changes,
    describe_environment,
    read_run,
    read_status,
    spec_to_keep,
)
from stopgrad.training.labelled import LabelledEpoch
from stopgrad.training.recipe import LabelledImages


def describe_fraction(
    images: LabelledImages,
    config: Config,
    *,
    task: Task,
    normalization: Normalization,
    data: Mapping[str, Any],
) -> RunInfo:
    """The card of a training with labels.

    Args:
        images: To learn from, and the test images.
        config: Every knob.
        task: From scratch, or from a pretrained encoder.
        normalization: Of the images that go in.
        data: spec, name and fingerprint of the whole training set, and what else decides the
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

    Args:
        info: Its card, from `describe_fraction`.
        epoch: Its last epoch, with the score.
        split: Name of the images that were scored.
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
    """The record of a training with labels that is finished; None when there is work left.

    Args:
        records: A file of records, which may be missing.
        run: The training's own directory, which may be missing.
        info: The card of what would be trained there.
        split: Name of the images that would be scored.

    Raises:
        ConfigError: When it was finished with other settings.
        DataError: When it was finished with other images, or the records are damaged.
        CheckpointError: When its card cannot be read.
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
