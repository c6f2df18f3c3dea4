"""Which images of a data set train the evaluators, and which are scored.

In: a data set, a config and the name of a split. Out: an `EvaluationSplit`; draws of labels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from stopgrad.config import Config
from stopgrad.errors import ConfigError, DataError, did_you_mean
from stopgrad.images import Dataset, Images, label_subset, split_validation
from stopgrad.runs.info import RunInfo
from stopgrad.storage import make_folder, storage_errors, write_json

log = logging.getLogger(__name__)

WATCHED = 0.2  # share of the labelled images that is watched if there is no test split
NAMED_COLUMN = "stopgrad pack DATA --out STORE --label-column NAME, then --data STORE"


class EvaluationSplit(NamedTuple):
    """The images whose labels train the evaluators, and those that are scored."""

    train: Images
    test: Images
    name: str  # of those that are scored, as `split_to_score` gives it


def config_of(info: RunInfo, dataset: Dataset) -> Config:
    """The config that splits these images: the run's; for other images, with none held out."""
    own = info.learned_from(dataset.train)
    return info.config if own else replace(info.config, validation=0.0)


def split_to_score(dataset: Dataset, config: Config, *, name: str = "auto") -> str:
    """The name in results of the images that are scored: "test", "validation", or one of the data.

    Args:
        dataset: The images of the run.
        config: Of the run.
        name: As asked for; auto: the split that the data are scored on, or the images held out
            if it has no labels.

    Raises:
        ConfigError: For any other name, except that of the split that was read for scoring.
    """
    own = dataset.notes.scored or "test"
    known = dict.fromkeys(("auto", "test", "validation", own))
    if name not in known:
        found = f"split = {name!r}{did_you_mean(name, known)}"
        raise ConfigError(found, expected=f"one of {', '.join(known)}")
    if name != "auto":
        return name
    if dataset.test is None or dataset.test.labels is None:
        return "validation"
    # Where a run holds images out, those are its validation images.
    return "test" if own == "validation" and config.validation > 0 else own


def evaluation_split(dataset: Dataset, config: Config, *, name: str = "auto") -> EvaluationSplit:
    """The training images of a run, and the whole split that is scored or those it holds out.

    The validation images are those that the config holds out; else the data's own, if that is the
    split which was read for scoring; else, without a labelled split, a seeded, stratified fifth of
    the labelled training images. Images without a label are in neither, and those that the config
    holds out are never among the training images.

    Args:
        dataset: The images of the run.
        config: Of the run.
        name: As for `split_to_score`.

    Raises:
        ConfigError: As `split_to_score`.
        DataError: When the images have no labels, or there is nothing to score.
    """
    split, remark = _split(dataset, config, name=name)
    if remark:
        log.warning(remark)
    return split


def _split(dataset: Dataset, config: Config, *, name: str) -> tuple[EvaluationSplit, str]:
    """The split, and a remark on it or ""."""
    train, test = dataset.train, dataset.test
    if train.labels is None:
        raise _without_labels("the images to train on", dataset)
    called = split_to_score(dataset, config, name=name)
    unlabelled = test is None or test.labels is None
    the_datas_own = dataset.notes.scored == "validation" and config.validation == 0
    held_out = called == "validation" and (unlabelled or not the_datas_own)
    fraction = config.validation or (WATCHED if unlabelled and held_out else 0.0)
    remark = ""
    if test is not None and unlabelled and held_out:
        which = (
            "the images held out are" if config.validation else "a fifth of the training images is"
        )
        remark = f"no labels in the {dataset.notes.scored or 'test'} split: {which} scored"
    if fraction == 0:
        scored = _labelled(None if held_out else test, dataset)
        return EvaluationSplit(train.labelled(), scored, called), remark
    # If none are held out, the same fifth of the labelled images that watches a run.
    split = split_validation(
        train if config.validation else train.labelled(), fraction=fraction, seed=config.seed
    )
    scored = split.validation.labelled() if held_out else _labelled(test, dataset)
    return EvaluationSplit(split.train.labelled(), scored, called), remark


def _labelled(images: Images | None, dataset: Dataset) -> Images:
    if images is None:
        raise DataError(
            f"no images of {dataset.name} to score in this split",
            expected="a test split, or images that the run held out for validation",
            hint="choose the other --split",
        )
    if images.labels is None:
        raise _without_labels(f"the {dataset.notes.scored or 'test'} split", dataset)
    return images.labelled()


def _without_labels(which: str, dataset: Dataset) -> DataError:
    """The error for a split without labels, with the remarks on them."""
    why = "; ".join(remark for remark in dataset.notes.remarks if "label" in remark)
    hint = "evaluation needs labels; pretraining, embedding and neighbours do not"
    if "--label-column" in why:
        hint = f"to name their column: {NAMED_COLUMN}"
    return DataError(
        f"{dataset.name} without labels on {which}{f' ({why})' if why else ''}",
        expected="labels on the images to train on and on those to score",
        hint=hint,
    )


def labelled_images(dataset: Dataset, config: Config) -> Images:
    """The training images of an `EvaluationSplit`, of which fractions of the labels are drawn."""
    return _split(dataset, config, name="auto")[0].train


def keep_label_draws(path: Path, train: Images, *, labels: Sequence[float], seed: int) -> None:
    """Writes the indices of each draw of labels into a folder, `labels/share-0.1-seed-0.json`.

    The indices count the images of `labelled_images`, in their order. Errors are those of
    `check_fractions`, and a StorageError when the disk refuses.
    """
    check_fractions(labels)
    for fraction in (fraction for fraction in labels if fraction < 1):
        file = path / "labels" / f"share-{fraction:g}-seed-{seed}.json"
        with storage_errors(file, needed=0):
            make_folder(file.parent)
        write_json(file, label_subset(train, fraction=fraction, seed=seed).tolist())


def check_fractions(labels: Sequence[float]) -> None:
    """Refuses fractions not above 0 and at most 1 by a ConfigError, before anything is written."""
    wrong = [fraction for fraction in labels if not 0 < fraction <= 1]
    if wrong:
        raise ConfigError(
            f"--labels {', '.join(f'{fraction:g}' for fraction in wrong)}",
            expected="fractions above 0 and at most 1",
            hint="write 10 % as 0.1",
        )
