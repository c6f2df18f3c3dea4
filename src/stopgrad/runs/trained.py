"""What an evaluation starts from: the model of a run, its images, its draws of labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stopgrad.config import Config, SplitName
from stopgrad.errors import CheckpointError, ConfigError, DataError
from stopgrad.images import Dataset, Images, label_subset, split_validation
from stopgrad.method import Compute, SimSiam, build_simsiam, compute_for
from stopgrad.runs.checkpoint import load_checkpoint
from stopgrad.runs.info import RunInfo, read_run
from stopgrad.runs.setup import WATCHED
from stopgrad.storage import storage_errors, write_json

log = logging.getLogger(__name__)


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
    steps_per_epoch = info.data["images"] // info.config.batch
    epoch = checkpoint.step // steps_per_epoch
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

    Data without a test split give a seeded, stratified fifth of their images, named
    "validation". A validation share of the config is left out of the training images.

    Args:
        dataset: The images of the run.
        config: Of the run.
        name: What is scored; auto: the test split where there is one.

    Raises:
        DataError: When the images have no labels, or no split of this name.
    """
    train, test = dataset.train, dataset.test
    if train.labels is None or (test is not None and test.labels is None):
        raise DataError(
            f"{dataset.name} without labels",
            expected="labels on training and test images",
            hint="evaluation needs labels; pretraining, embedding and neighbours do not",
        )
    held_out = name == "validation" or (name == "auto" and test is None)
    share = config.validation or (WATCHED if test is None else 0.0)
    if share == 0:
        return EvaluationSplit(train, _there(None if held_out else test, dataset), "test")
    split = split_validation(train, fraction=share, seed=config.seed)
    if held_out:
        return EvaluationSplit(split.train, split.validation, "validation")
    return EvaluationSplit(split.train, _there(test, dataset), "test")


def _there(images: Images | None, dataset: Dataset) -> Images:
    if images is None:
        raise DataError(
            f"no images of {dataset.name} to score in this split",
            expected="a test split, or images held out by the run's validation share",
            hint="choose the other --split",
        )
    return images


def keep_label_draws(path: Path, dataset: Dataset, *, labels: Sequence[float]) -> None:
    """Writes the indices of each share of the labels into a run, `labels/share-0.1-seed-0.json`.

    The indices count the run's training images, in their order.

    Raises:
        ConfigError: For a share that is not above 0 and at most 1.
        DataError: When the images have no labels.
        StorageError: When the disk refuses.
    """
    check_fractions(labels)
    config = read_run(path).config
    train = evaluation_split(dataset, config).train
    for share in (share for share in labels if share < 1):
        file = path / "labels" / f"share-{share:g}-seed-{config.seed}.json"
        with storage_errors(file, needed=0):
            file.parent.mkdir(exist_ok=True)
        write_json(file, label_subset(train, fraction=share, seed=config.seed).tolist())


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
