"""What a training or an evaluation starts from: images and their splits, the card, the model.

In: a data set and a config, or the path of a run. Out: `TrainingImages` and a `RunInfo`, or a
`TrainedRun` and an `EvaluationSplit`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stopgrad.config import Config, SplitName
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.images import (
    KNOWN,
    Changed,
    Dataset,
    DataSource,
    Images,
    Normalization,
    Track,
    label_subset,
    load_dataset,
    no_progress,
    normalization,
    spec_of_several,
    specs_of,
    split_validation,
)
from stopgrad.method import Compute, SimSiam, build_simsiam, compute_for, size_problems
from stopgrad.runs.checkpoint import load_checkpoint
from stopgrad.runs.info import RunData, RunInfo, read_run
from stopgrad.runs.machine import describe_environment
from stopgrad.storage import storage_errors, write_json

log = logging.getLogger(__name__)

WATCHED = 0.2  # part of the labelled images that is watched where there is no test split


@dataclass(frozen=True)
class TrainingImages:
    """The images to learn from, and those of the kNN that watches the run, where labels exist."""

    train: Images
    bank: Images | None = None  # whose labels vote
    watch: Images | None = None  # that are scored

    @functools.cached_property
    def normalization(self) -> Normalization:
        """Of the images to learn from; all of them are read for it, once."""
        return normalization(self.train)


def prepare(dataset: Dataset, config: Config) -> TrainingImages:
    """Splits off the validation images, or takes the test split to watch.

    Data without a labelled test split are learned from whole; a fifth of those with labels is
    watched against the rest, the same images that `evaluate` scores.

    Raises:
        DataError: When there are fewer images than one batch.
    """
    train, watch = dataset.train, dataset.test
    if config.validation > 0:
        split = split_validation(train, fraction=config.validation, seed=config.seed)
        train, watch = split.train, split.validation
    if len(train) < config.batch:
        raise DataError(
            f"{len(train)} images to train on with batch = {config.batch}",
            expected="at least one batch of images",
            hint="give more images or a smaller batch",
        )
    bank = train
    if (watch is None or watch.labels is None) and train.labels is not None:
        split = split_validation(train.labelled(), fraction=WATCHED, seed=config.seed)
        bank, watch = split.train, split.validation
    if watch is None or bank.labels is None or watch.labels is None:
        return TrainingImages(train)
    return TrainingImages(train, bank.labelled(), watch.labelled())


def spec_to_keep(spec: str) -> str:
    """A spec as a run notes it: names as they are, paths so that they hold from anywhere."""
    kept = [
        each
        if each in KNOWN or each.startswith(("hf:", "arrays:"))
        else str(Path(each).expanduser().resolve())
        for each in specs_of(spec)
    ]
    return spec_of_several(kept)


def check_sizes(images: Images, config: Config) -> None:
    """Refuses a backbone that cannot take images of the sizes at hand, before anything is made.

    Our own ResNets take every size; only a backbone of timm is built to be asked.

    Raises:
        ConfigError: For a name that is none, or with what the backbone said.
    """
    side, (height, width) = config.views.size, images.whole_size
    of_view, of_whole = size_problems(config.encoder, ((side, side), images.whole_size))
    if of_view:
        raise ConfigError(
            f"{config.encoder.name} at {side} x {side} px ({of_view})",
            expected="a backbone that takes views.size",
            hint="set views.size to what the backbone takes, or use another",
        )
    if of_whole:
        raise ConfigError(
            f"{config.encoder.name} at {width} x {height} px ({of_whole})",
            expected=f"whole images that it takes, of views.size ({side} x {side} px) for instance",
            hint="resize the images to that",
        )


def fit_sizes(dataset: Dataset, config: Config) -> Dataset:
    """The data set with whole images at a size that the backbone takes.

    That is their own, or that of `load_dataset`; where the backbone does not take it, and images
    are not smaller than a view, it is views.size. Views are cut from the images as they are.

    Args:
        dataset: The images, of one size over both splits.
        config: Of the run whose encoder sees them.

    Raises:
        ConfigError: As `check_sizes`, when neither size is taken.
    """
    if not config.encoder.name.startswith("timm:"):
        return dataset
    try:
        check_sizes(dataset.train, config)
    except ConfigError as error:
        side = config.views.size
        train = replace(dataset.train, whole_side=side)
        check_sizes(train, config)
        test = dataset.test and replace(dataset.test, whole_side=side)
        height, width = train.whole_size
        log.warning("%s: whole images are seen at %d x %d px", error.found, width, height)
        return dataset._replace(train=train, test=test)
    return dataset


def load_images(
    spec: str | DataSource, config: Config, *, changed: Changed = "fail", track: Track = no_progress
) -> Dataset:
    """The images of a spec, stored as a config asks, whole at a size that its encoder takes.

    Args:
        spec: As for `load_dataset`.
        config: Its `image_side`, `bad_images` and `encoder` decide.
        changed: What to do with a store whose folder has changed since it was packed. A run that
            exists says "warn": its own fingerprint guards it.
        track: Shows progress.

    Raises:
        DataError: As `load_dataset`.
        ConfigError: As `fit_sizes`.
    """
    side, bad_images = config.image_side, config.bad_images
    dataset = load_dataset(spec, side=side, bad_images=bad_images, changed=changed, track=track)
    return fit_sizes(dataset, config)


def describe_run(
    dataset: Dataset,
    config: Config,
    *,
    spec: str,
    init: Mapping[str, str] | None = None,
    images: TrainingImages | None = None,
) -> RunInfo:
    """The card of a run: config, data, normalisation of its training images, environment.

    Args:
        dataset: The images.
        config: Every knob.
        spec: Where the images came from.
        init: The card of the weights that the encoder starts from; None: random.
        images: What `prepare` made of the data set; None: it is prepared here.

    Raises:
        ConfigError: As `check_sizes`.
        DataError: As `prepare`.
    """
    images = images or prepare(dataset, config)
    check_sizes(images.train, config)
    data: RunData = {
        "spec": spec_to_keep(spec),
        "name": dataset.name,
        "fingerprint": dataset.train.fingerprint,
        "images": len(images.train),
        "class_names": list(images.train.class_names),
    }
    if dataset.notes.unused:
        data["unused"] = {group.reason: len(group.names) for group in dataset.notes.unused}
    if init:
        data["init"] = {"from": init["from"], "sha256": init["sha256"]}
    return RunInfo(config, data, images.normalization, describe_environment(config))


class TrainedRun(NamedTuple):
    """A run at its newest checkpoint."""

    info: RunInfo
    model: SimSiam  # on the device, in eval mode
    compute: Compute
    step: int
    epoch: int
    damaged: tuple[str, ...]  # a line for each checkpoint that was passed over
    path: Path


class EvaluationSplit(NamedTuple):
    """The images whose labels train the evaluators, and those that are scored."""

    train: Images
    test: Images
    name: str  # "test", or "validation" where the data have no test split


def load_run(path: Path) -> TrainedRun:
    """The model of a run at its newest good checkpoint.

    Raises:
        CheckpointError: When there is none, or it does not fit the run's config.
    """
    info = read_run(path)
    if info.task != "pretrain":
        raise CheckpointError(
            f"{path} is a network trained with labels ({info.task})",
            expected="a run of `stopgrad pretrain`",
            hint="its score stands in the records of the command that made it",
        )
    checkpoint = load_checkpoint(path)
    compute = compute_for(_on_a_device_here(info.config))
    model = build_simsiam(info.config)
    load_model(model, checkpoint.model)
    compute.place(model).eval()
    epoch = checkpoint.step // info.steps_per_epoch
    return TrainedRun(info, model, compute, checkpoint.step, epoch, checkpoint.damaged, path)


def _on_a_device_here(config: Config) -> Config:
    """A run of a GPU is read by the CPU where there is none, and that is said."""
    if not config.device.startswith("cuda") or torch.cuda.is_available():
        return config
    log.warning("the run was made with device = %s; there is none here: auto", config.device)
    return replace(config, device="auto")


def load_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Fills a model with the tensors of a checkpoint.

    Raises:
        CheckpointError: When they are not those of this model.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint does not fit the model ({' '.join(str(error).split())[:200]})",
            expected="the tensors of the run's own config",
            hint="do not mix files of different runs",
        ) from error


def evaluation_split(
    dataset: Dataset, config: Config, *, name: SplitName = "auto"
) -> EvaluationSplit:
    """The training images of a run against the whole test split, or against its validation images.

    Data without a labelled test split give a seeded, stratified fifth of their labelled images,
    named "validation". Images without a label are in neither. The images that the config holds out
    are left out of the training images.

    Args:
        dataset: The images of the run.
        config: Of the run.
        name: What is scored; auto: the test split where there is one.

    Raises:
        DataError: When the images have no labels, or no split of this name.
    """
    train, test = dataset.train, dataset.test
    if train.labels is None:
        raise _without_labels("the images to train on", dataset)
    nothing_to_score = test is None or test.labels is None
    held_out = name == "validation" or (name == "auto" and nothing_to_score)
    fraction = config.validation or (WATCHED if nothing_to_score and held_out else 0.0)
    if fraction == 0:
        scored = _labelled(None if held_out else test, dataset)
        return EvaluationSplit(train.labelled(), scored, "test")
    # Without images held out for it, the same fifth of those with labels that watches a run.
    split = split_validation(
        train if config.validation else train.labelled(), fraction=fraction, seed=config.seed
    )
    if held_out:
        return EvaluationSplit(split.train.labelled(), split.validation.labelled(), "validation")
    return EvaluationSplit(split.train.labelled(), _labelled(test, dataset), "test")


def _labelled(images: Images | None, dataset: Dataset) -> Images:
    if images is None:
        raise DataError(
            f"no images of {dataset.name} to score in this split",
            expected="a test split, or images held out by the run's validation fraction",
            hint="choose the other --split",
        )
    if images.labels is None:
        raise _without_labels(f"the {dataset.notes.scored or 'test'} split", dataset)
    return images.labelled()


def _without_labels(which: str, dataset: Dataset) -> DataError:
    """The error for a split without labels, with what is known of them."""
    why = "; ".join(remark for remark in dataset.notes.remarks if "label" in remark)
    return DataError(
        f"{dataset.name} without labels on {which}{f' ({why})' if why else ''}",
        expected="labels on the images to train on and on those to score",
        hint="evaluation needs labels; pretraining, embedding and neighbours do not",
    )


def keep_label_draws(path: Path, dataset: Dataset, *, labels: Sequence[float]) -> None:
    """Writes the indices of each draw of labels into a run, `labels/share-0.1-seed-0.json`.

    The indices count the run's training images, in their order.

    Raises:
        ConfigError: As `check_fractions`.
        DataError: When the images have no labels.
        StorageError: When the disk refuses.
    """
    check_fractions(labels)
    config = read_run(path).config
    train = evaluation_split(dataset, config).train
    for fraction in (fraction for fraction in labels if fraction < 1):
        file = path / "labels" / f"share-{fraction:g}-seed-{config.seed}.json"
        with storage_errors(file, needed=0):
            file.parent.mkdir(exist_ok=True)
        write_json(file, label_subset(train, fraction=fraction, seed=config.seed).tolist())


def check_same_data(info: RunInfo, dataset: Dataset) -> None:
    """Refuses images other than those that a run was trained on.

    Raises:
        DataError: With both fingerprints.
    """
    was, now = info.data["fingerprint"], dataset.train.fingerprint
    if was != now:
        raise DataError(
            f"training images with fingerprint {now[:12]}",
            expected=f"those of the run, {was[:12]} ({info.data['spec']})",
            hint="name the run's own images with --data (finetune takes others with --out DIR)",
        )


def check_fractions(labels: Sequence[float]) -> None:
    """Refuses label fractions before any image is embedded, so that nothing is written in part.

    Raises:
        ConfigError: Naming those that are not above 0 and at most 1.
    """
    wrong = [fraction for fraction in labels if not 0 < fraction <= 1]
    if wrong:
        raise ConfigError(
            f"label fraction {', '.join(f'{fraction:g}' for fraction in wrong)}",
            expected="fractions above 0 and at most 1",
            hint="write 10 % as 0.1",
        )
