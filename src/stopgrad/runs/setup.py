"""What a run needs before its first step: the images to learn from, those to watch, its card."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stopgrad.config import Config
from stopgrad.errors import ConfigError, DataError
from stopgrad.images import (
    KNOWN,
    Changed,
    Dataset,
    Images,
    Normalization,
    Track,
    load_dataset,
    no_progress,
    normalization,
    split_validation,
)
from stopgrad.method import size_problems
from stopgrad.runs.info import RunData, RunInfo
from stopgrad.runs.machine import describe_environment

log = logging.getLogger(__name__)

WATCHED = 0.2  # share of the labelled images that is watched where there is no test split


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

    Data without a test split are learned from whole; a fifth of them is watched against the
    rest, the same images that `evaluate` scores.

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
    if watch is None and train.labels is not None:
        split = split_validation(train, fraction=WATCHED, seed=config.seed)
        bank, watch = split.train, split.validation
    if watch is None or bank.labels is None or watch.labels is None:
        return TrainingImages(train)
    return TrainingImages(train, bank, watch)


def spec_to_keep(spec: str) -> str:
    """A spec as a run notes it: names as they are, paths so that they hold from anywhere."""
    if spec in KNOWN or spec.startswith(("hf:", "arrays:")):
        return spec
    return str(Path(spec).expanduser().resolve())


def check_sizes(images: Images, config: Config) -> None:
    """Refuses a backbone that cannot take images of the sizes at hand, before anything is made.

    Our own ResNets take every size; only a backbone of timm is built to be asked.

    Raises:
        ConfigError: For a name that is none, or with what the backbone said.
    """
    view = (config.views.size, config.views.size)
    of_view, of_whole = size_problems(config.encoder, (view, images.whole_size))
    if of_view:
        raise ConfigError(
            _does_not_take(config, view, of_view),
            expected="a backbone that takes views.size",
            hint="set views.size to what the backbone takes, or use another",
        )
    if of_whole:
        raise ConfigError(
            _does_not_take(config, images.whole_size, of_whole),
            expected=f"whole images that it takes, of views.size ({view[1]} x {view[0]} px) for "
            "instance",
            hint="resize the images to that",
        )
    return


def _does_not_take(config: Config, size: tuple[int, int], reason: str) -> str:
    height, width = size
    return f"{config.encoder.name} at {width} x {height} px ({reason})"


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
        small = _seen_at(dataset, config.views.size)
        check_sizes(small.train, config)
        height, width = small.train.whole_size
        log.warning("%s: whole images are seen at %d x %d px", error.found, width, height)
        return small
    return dataset


def load_images(
    spec: str, config: Config, *, changed: Changed = "fail", track: Track = no_progress
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
    dataset = load_dataset(
        spec,
        side=config.image_side,
        bad_images=config.bad_images,
        changed=changed,
        track=track,
    )
    return fit_sizes(dataset, config)


def _seen_at(dataset: Dataset, side: int) -> Dataset:
    test = dataset.test and replace(dataset.test, whole_side=side)
    return dataset._replace(train=replace(dataset.train, whole_side=side), test=test)


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
    if init:
        data["init"] = {"from": init["from"], "sha256": init["sha256"]}
    return RunInfo(config, data, images.normalization, describe_environment(config))
