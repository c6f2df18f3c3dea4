"""The starting point of a training or an evaluation: images, their splits, the card, the model.

In: a data set and a config, or the path of a run. Out: `TrainingImages` and a `RunInfo`, or a
`TrainedRun`.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from stopgrad.config import ALL_BANDS, Config, Reading, are_colours, bands_as_text, read_bands
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.images import (
    KNOWN,
    Changed,
    Dataset,
    DataSource,
    Images,
    Normalization,
    Track,
    load_dataset,
    no_progress,
    normalization,
    spec_of_several,
    specs_of,
    split_validation,
)
from stopgrad.method import (
    Compute,
    SimSiam,
    build_simsiam,
    compute_for,
    on_this_machine,
    size_problems,
)
from stopgrad.runs.directory import load_last
from stopgrad.runs.info import RunData, RunInfo, read_run
from stopgrad.runs.machine import describe_environment
from stopgrad.runs.scoring import WATCHED
from stopgrad.storage import user_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingImages:
    """The images to learn from, and those of the kNN that watches the run, where labels exist."""

    train: Images
    bank: Images | None = None  # whose labels vote
    watch: Images | None = None  # that are scored
    channels: int = 3  # that the encoder takes
    known: Normalization | None = None  # of a run that is resumed: other CPUs round it otherwise

    @functools.cached_property
    def normalization(self) -> Normalization:
        """Mean and std of the images to learn from, all of which are read for it, once."""
        return self.known or normalization(self.train, channels=self.channels)


def prepare(dataset: Dataset, config: Config) -> TrainingImages:
    """Splits off the validation images, or takes the test split to watch.

    Without a labelled test split all images are trained on; a fifth of those with labels is
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
            f"{len(train)} image{'s' * (len(train) != 1)} to train on with batch = {config.batch}",
            expected="at least one batch of images",
            hint="give more images or a smaller batch",
        )
    bank = train
    if (watch is None or watch.labels is None) and train.labels is not None:
        split = split_validation(train.labelled(), fraction=WATCHED, seed=config.seed)
        bank, watch = split.train, split.validation
    if watch is None or bank.labels is None or watch.labels is None:
        return TrainingImages(train, channels=config.encoder.channels)
    return TrainingImages(train, bank.labelled(), watch.labelled(), config.encoder.channels)


def spec_to_keep(spec: str) -> str:
    """A spec as a run records it: names unchanged, paths made valid from anywhere."""
    kept = [
        each
        if each in KNOWN or each.startswith(("hf:", "arrays:"))
        else str(user_path(each).resolve())
        for each in specs_of(spec)
    ]
    return spec_of_several(kept)


def check_sizes(images: Images, config: Config) -> None:
    """Refuses a backbone that does not take images of the sizes at hand.

    Args:
        images: As they are stored; whole images are seen at their `whole_size`.
        config: Its encoder, and the side of its views.

    Raises:
        ConfigError: With the size that is refused and what the backbone says about it.
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


def check_channels(channels: int, config: Config) -> None:
    """Refuses images of other channels than the encoder takes; one of gray also takes colours.

    Raises:
        ConfigError: With both numbers.
    """
    taken = config.encoder.channels
    if taken == channels or (taken, channels) == (1, 3):
        return
    raise ConfigError(
        f"images of {channels} channels for encoder.channels = {taken}",
        expected="as many as the encoder takes",
        hint="choose that many with --bands, or leave --encoder.channels out"
        if channels == 3
        else f"add --encoder.channels {channels}, or choose three bands, as --bands 3,2,1",
    )


def fit_sizes(dataset: Dataset, config: Config) -> Dataset:
    """The data set with whole images at a size that the backbone takes, once channels fit.

    The size is their own, or that of `load_dataset`; if the backbone does not take it, views.size.
    Views are cut from the images as they are.

    Args:
        dataset: The images, of one size over both splits.
        config: Of the run whose encoder sees them.

    Raises:
        ConfigError: As `check_sizes`, when the backbone takes neither size, and `check_channels`.
    """
    check_channels(dataset.train.channels, config)
    if not (config.encoder.is_timm or config.encoder.is_given):
        return dataset
    try:
        check_sizes(dataset.train, config)
        return dataset
    except ConfigError as error:
        side, test = config.views.size, dataset.test
        train = replace(dataset.train, whole_side=side)
        check_sizes(train, config)
        height, width = train.whole_size
        log.warning("%s: whole images are seen at %d x %d px", error.found, width, height)
        return dataset._replace(train=train, test=test and replace(test, whole_side=side))


def load_images(
    spec: str | DataSource,
    config: Config,
    *,
    split: str = "auto",
    like: RunData | None = None,
    changed: Changed = "fail",
    track: Track = no_progress,
) -> Dataset:
    """The images of a spec, stored as a config asks, seen whole at a size that its encoder takes.

    Args:
        spec: As for `load_dataset`.
        config: Its `image_side`, `bad_images`, `reading` and `encoder` decide.
        split: The split that is scored, as `evaluation_split` takes it.
        like: The images of a run, whose size, bands and levels these are to have; None: their own.
        changed: What to do with a store whose folder has changed since it was packed. A run that
            exists says "warn": its own fingerprint guards it.
        track: Shows progress.

    Raises:
        DataError: As `load_dataset`.
        ConfigError: As `fit_sizes`.
    """
    if not are_colours(config.reading.bands) and config.reading.bands != ALL_BANDS:
        check_channels(len(config.reading.bands), config)  # before hours of decoding
    how: dict[str, Any] = {"bad_images": config.bad_images, "changed": changed, "track": track}
    side, reading = side_of(config, like=like), reading_of(config, split=split, like=like)
    # A run's own images lie in the cache as they were read for it.
    own = like is not None and isinstance(spec, str) and spec_to_keep(spec) == like["spec"]
    first = config.image_side if own else side
    dataset = load_dataset(spec, side=first, reading=reading, **how)
    if not has_size_of(like, dataset, side=side):
        dataset = load_dataset(spec, side=side, reading=reading._replace(square=True), **how)
    return fit_sizes(dataset, config)


def side_of(config: Config, *, like: RunData | None = None) -> int:
    """px. The side at which images are stored: that of a run's, if they were smaller squares.

    Squares of an array in memory keep their side, also a larger one. `like` as for `load_images`:
    an image of that size keeps it, whatever lies next to it.
    """
    if like is None or not are_squares(like):
        return config.image_side
    kept = like["spec"].startswith("arrays:")
    return like["size"][0] if kept else min(like["size"][0], config.image_side)


def has_size_of(like: RunData | None, dataset: Dataset, *, side: int) -> bool:
    """Whether whole images are seen at the run's size: `side`, px, if its images are squares."""
    packed = dataset.train.whole_side > 0  # a store has one size
    return packed or not are_squares(like) or dataset.train.whole_size == (side, side)


def are_squares(like: RunData | None) -> bool:
    """Whether a run's images are known to be squares; other images are then made squares too."""
    height, width = like.get("size", (0, 1)) if like else (0, 1)
    return height == width


def reading_of(config: Config, *, split: str, like: RunData | None = None) -> Reading:
    """How a run reads its data, where a split of them is scored or its own held-out images.

    `like` as for `load_images`: one image gets the same pixels, whatever lies next to it.
    """
    own = split == "auto" or (split == "validation" and config.validation > 0)
    reading = config.reading._replace(split="" if own else split)
    if like is None:
        return reading
    levels = tuple((str(depth), black, white) for depth, black, white in like.get("levels", []))
    bands = reading.bands or read_bands(like.get("bands", "auto"))
    return reading._replace(levels=levels, bands=bands)


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
        "size": list(dataset.train.pixels.shape[1:3]),
    }
    if skipped := skipped_in_views(config):
        data["views"] = skipped
    if unused := _counts_of_unused(dataset):
        data["unused"] = unused
    if dataset.notes.levels:
        data["levels"] = [list(of) for of in dataset.notes.levels]
    if dataset.notes.bands:
        data["bands"] = bands_as_text(dataset.notes.bands)
    if init:
        data["init"] = {"from": init["from"], "sha256": init["sha256"]}
    return RunInfo(config, data, images.normalization, describe_environment(config))


def skipped_in_views(config: Config) -> str:
    """A remark on what views skip because their channels are not colours; else ""."""
    channels, steps = config.encoder.channels, config.views.jitter or config.views.grayscale
    if channels in (1, 3) or not steps:
        return ""
    return f"views of {channels} channels skip colour jitter and grayscale"


def _counts_of_unused(dataset: Dataset) -> dict[str, int]:
    """How many files, images and labels are not used, by reason, which several kinds may share."""
    found = Counter[str]()
    for group in dataset.notes.unused:
        found[group.reason] += len(group.names)
    return dict(found)


class TrainedRun(NamedTuple):
    """A run at its newest checkpoint."""

    info: RunInfo
    model: SimSiam  # on the device, in eval mode
    compute: Compute
    step: int
    epoch: int
    damaged: tuple[str, ...]  # a line for each checkpoint that was passed over
    path: Path


def read_pretraining(path: Path) -> RunInfo:
    """The info of a run; a CheckpointError for a network that was trained with labels."""
    info = read_run(path)
    if info.task != "pretrain":
        raise CheckpointError(
            f"{path} is a network trained with labels ({info.task})",
            expected="a run of `stopgrad pretrain`",
            hint="its score is in the records of the command that made it",
        )
    return info


def load_run(path: Path, *, older: bool = False) -> TrainedRun:
    """The model of a run at its newest good checkpoint, see `load_last`.

    Raises:
        CheckpointError: When there is none, for an older one of a finished run without `older`,
            and for a network that was trained with labels.
    """
    info = read_pretraining(path)
    checkpoint, config = load_last(path, older=older), on_this_machine(info.config)
    if config != info.config:
        made = info.config.device
        log.warning(
            "the run was made with device = %s, which is not available here; using auto", made
        )
    compute, model = compute_for(config), build_simsiam(config)
    load_model(model, checkpoint.model)
    compute.place(model).eval()
    epoch = checkpoint.step // info.steps_per_epoch
    return TrainedRun(info, model, compute, checkpoint.step, epoch, checkpoint.damaged, path)


def load_model(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Fills a model with the tensors of a checkpoint.

    Raises:
        CheckpointError: When they do not fit.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"the checkpoint does not fit the model ({' '.join(str(error).split())[:200]})",
            expected="the tensors of the run's own config",
            hint="do not mix files of different runs",
        ) from error


def check_same_data(info: RunInfo, dataset: Dataset) -> None:
    """Refuses images other than those that a run was trained on.

    Raises:
        DataError: With both fingerprints.
    """
    if not info.learned_from(dataset.train):
        raise DataError(
            f"training images with fingerprint {dataset.train.fingerprint[:12]}",
            expected=f"those of the run, {info.data['fingerprint'][:12]} ({info.data['spec']})",
            hint="name the run's own images with --data (finetune takes others with --out DIR)",
        )
