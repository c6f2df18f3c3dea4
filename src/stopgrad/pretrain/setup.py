"""What a run needs before its first step: the images to learn from, those to watch, its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from stopgrad.checkpoint import RunInfo, describe_environment
from stopgrad.config import Config
from stopgrad.encoder import build_encoder
from stopgrad.errors import ConfigError, DataError
from stopgrad.images import Dataset, Images, normalization, split_validation
from stopgrad.images.load import KNOWN
from stopgrad.randomness import torch_generator

WATCHED = 0.2  # share of the labelled images that is watched where there is no test split


class TrainingImages(NamedTuple):
    """The images to learn from, and those of the kNN that watches the run, where labels exist."""

    train: Images
    bank: Images | None  # whose labels vote
    watch: Images | None  # that are scored


def prepare(dataset: Dataset, config: Config) -> TrainingImages:
    """Splits off the validation images, or takes the test split to watch.

    Data without a test split are learned from whole; a fifth of them is watched against the
    rest, the same images that `evaluate` scores.

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
    bank = train
    if watch is None and train.labels is not None:
        split = split_validation(train, share=WATCHED, seed=config.seed)
        bank, watch = split.train, split.validation
    if watch is None or bank.labels is None or watch.labels is None:
        return TrainingImages(train, None, None)
    return TrainingImages(train, bank, watch)


def spec_to_keep(spec: str) -> str:
    """A spec as a run notes it: names as they are, paths so that they hold from anywhere."""
    if spec in KNOWN or spec.startswith("hf:"):
        return spec
    return str(Path(spec).expanduser().resolve())


def check_sizes(images: Images, config: Config) -> None:
    """Refuses a backbone that cannot take images of the sizes at hand, before anything is made.

    Raises:
        ConfigError: For a name that is none, or with the backbone's own words.
    """
    encoder = build_encoder(config.encoder, torch_generator(config.seed, "encoder")).eval()
    if not config.encoder.name.startswith("timm:"):
        return  # ours take every size
    for height, width in ((config.views.size, config.views.size), images.whole_size):
        try:
            with torch.inference_mode():
                encoder(torch.zeros(1, 3, height, width))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{config.encoder.name} at {height} x {width} px ({' '.join(str(error).split())})",
                expected="a backbone that takes views.size and the stored pictures",
                hint="set views.size and image_size to what the backbone takes, or use another",
            ) from error


def describe_run(
    dataset: Dataset, config: Config, *, spec: str, init: Mapping[str, str] | None = None
) -> RunInfo:
    """The card of a run: config, data, normalisation of its training images, environment.

    Args:
        dataset: The images.
        config: Every knob.
        spec: Where the images came from.
        init: The card of the weights that the encoder starts from; None: random.
    """
    train = prepare(dataset, config).train
    check_sizes(train, config)
    return RunInfo(
        config=config,
        data={
            "spec": spec_to_keep(spec),
            "name": dataset.name,
            "fingerprint": dataset.train.fingerprint,
            "images": len(train),
            "class_names": list(train.class_names),
            **({"init": dict(init)} if init else {}),
        },
        normalization=normalization(train),
        environment=describe_environment(config),
    )
