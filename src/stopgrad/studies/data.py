"""Whether a study can be made with its images: labels, splits, batches, sizes; checked first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stopgrad.config import Config
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluation import ACCURACIES
from stopgrad.images import Dataset, Track, load_dataset, no_progress
from stopgrad.studies.definition import Study, metrics_of


class StudyData(NamedTuple):
    """The images of a study, by what identifies them."""

    spec: str  # that is right from any directory
    name: str
    classes: int
    fingerprints: dict[str, str]  # of the training images that each arm sees


def check_data(
    study: Study, configs: Mapping[str, Config], *, spec: str, track: Track = no_progress
) -> StudyData:
    """Reads the images and tries what each arm would do with them, without a step of training.

    Args:
        study: The study.
        configs: Of its arms.
        spec: A name or a path, as `load_dataset` takes it.
        track: Shows the progress of decoding.

    Raises:
        DataError: When labels, the test split or a batch of images are missing.
        ConfigError: For an encoder that does not exist or cannot take images of these sizes.
    """
    from stopgrad.runs import spec_to_keep

    seen: dict[tuple[int, str], Dataset] = {}
    for arm in study.arms:
        config = configs[arm.name]
        key = (config.image_side, config.bad_images)
        if key not in seen:
            seen[key] = load_dataset(spec, side=key[0], bad_images=key[1], track=track)
            _check_labels(study, seen[key])
        try:
            _try_arm(study, arm.name, config, seen[key])
        except (ConfigError, DataError) as error:
            found = f"arm {arm.name!r}: {error.found}"
            raise type(error)(found, expected=error.expected, hint=error.hint) from error
    first = next(iter(seen.values()))
    fingerprints = {
        name: seen[config.image_side, config.bad_images].train.fingerprint
        for name, config in configs.items()
    }
    classes = len(first.train.class_names)
    return StudyData(spec_to_keep(spec), first.name, classes, fingerprints)


def _check_labels(study: Study, dataset: Dataset) -> None:
    protocol = study.protocol
    if set(protocol.metrics) & set(ACCURACIES) and dataset.train.labels is None:
        raise DataError(
            f"{dataset.name} without labels",
            expected=f"labels, which {', '.join(protocol.metrics)} need",
            hint="name a labelled data set, or ask for measures of collapse alone",
        )
    if dataset.test is None and (protocol.split == "test" or protocol.final_test):
        raise DataError(
            f"{dataset.name} without a test split",
            expected="a test split, which this study is scored on at the end",
            hint="give the data a folder test/, or use a study with split: validation",
        )


def _try_arm(study: Study, name: str, config: Config, dataset: Dataset) -> None:
    """Builds the network on no memory, and draws the splits."""
    from stopgrad.method import compute_for, training_flops
    from stopgrad.runs import check_sizes, prepare

    arm = study.arm(name)
    images = prepare(dataset, config)
    compute_for(config)
    training_flops(config)
    check_sizes(images.train, config)
    smallest = study.protocol.labels[0]
    if arm.method == "supervised":
        _try_supervised(dataset, config, labels=smallest)
    elif "linear_lars_accuracy" in metrics_of(arm, study.protocol):
        _check_tunable(dataset, labels=smallest, seed=config.seed)


def _try_supervised(dataset: Dataset, config: Config, *, labels: float) -> None:
    from stopgrad.training import check_recipe, draw_fraction, supervised_recipe

    assert dataset.test is not None
    images = draw_fraction(dataset.train, dataset.test, fraction=labels, seed=config.seed)
    check_recipe(supervised_recipe(config), images)


def _check_tunable(dataset: Dataset, *, labels: float, seed: int) -> None:
    import numpy as np

    from stopgrad.images import label_subset

    assert dataset.train.labels is not None
    chosen = dataset.train.labels[label_subset(dataset.train, fraction=labels, seed=seed)]
    if np.bincount(chosen).max() < 2:
        raise DataError(
            f"one label per class with {labels:g} of the labels",
            expected="two, so that linear_lars_accuracy can choose its learning rate",
            hint="use a larger fraction, or linear_accuracy",
        )
