"""What a run needs before its first step: the images to learn from, those to watch, its card."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

from stopgrad.checkpoint import RunInfo
from stopgrad.compute import compute_for
from stopgrad.config import Config
from stopgrad.errors import DataError
from stopgrad.images import Dataset, Images, normalization, split_validation


class TrainingImages(NamedTuple):
    """The images to learn from, and the labelled ones that kNN is scored on, if any."""

    train: Images
    watch: Images | None


def prepare(dataset: Dataset, config: Config) -> TrainingImages:
    """Splits off the validation images, or takes the test split to watch.

    Raises:
        DataError: When there are fewer images than one batch.
    """
    train, watch = dataset.train, dataset.test
    if config.validation > 0:
        split = split_validation(train, share=config.validation, seed=config.seed)
        train, watch = split.train, split.validation
    if len(train) < config.batch:
        raise DataError(
            f"{len(train)} images to train on with batch = {config.batch}",
            expected="at least one batch of images",
            hint="give more images or a smaller batch",
        )
    labelled = train.labels is not None and watch is not None and watch.labels is not None
    return TrainingImages(train, watch if labelled else None)


def describe_run(dataset: Dataset, config: Config, *, spec: str) -> RunInfo:
    """The card of a run: config, data, normalisation of its training images, environment."""
    train = prepare(dataset, config).train
    return RunInfo(
        config=config,
        data={
            "spec": str(Path(spec).resolve()) if Path(spec).exists() else spec,
            "name": dataset.name,
            "fingerprint": dataset.train.fingerprint,
            "images": len(train),
            "class_names": list(train.class_names),
        },
        normalization=normalization(train),
        environment={
            "threads": torch.get_num_threads(),
            "device": str(compute_for(config).device),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "stopgrad": version("stopgrad"),
        },
    )
