"""One run -> records; the only place that knows all evaluators.

In: a run directory and its data set. Out: one `Record` per subject (the encoder, the same encoder
untrained, raw pixels), share of labels and evaluator, each with all that defines it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stopgrad.checkpoint import RunInfo, load_checkpoint, read_run
from stopgrad.compute import Compute, compute_for
from stopgrad.config import Config, config_to_dict
from stopgrad.errors import ConfigError, DataError
from stopgrad.features import Features, Score, embed, pixel_features
from stopgrad.files import storage_errors, write_json
from stopgrad.images import (
    Dataset,
    Images,
    Track,
    label_subset,
    no_progress,
    split_validation,
)
from stopgrad.knn import knn
from stopgrad.linear import PAPER_LARS, REPORT_SGD, linear_probe, tuned_probe
from stopgrad.pretrain import WATCHED, load_model
from stopgrad.records import Record, Subject, environment
from stopgrad.simsiam import SimSiam, build_simsiam, training_flops


class TrainedRun(NamedTuple):
    """A run at its newest checkpoint."""

    info: RunInfo
    model: SimSiam  # on the device, in eval mode
    compute: Compute
    step: int
    epoch: int
    damaged: tuple[str, ...]  # a line for each checkpoint that was passed over


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
    checkpoint = load_checkpoint(path)
    compute = compute_for(info.config)
    model = build_simsiam(info.config)
    load_model(model, checkpoint.model)
    compute.place(model).eval()
    steps_per_epoch = info.data["images"] // info.config.batch
    epoch = checkpoint.step // steps_per_epoch
    return TrainedRun(info, model, compute, checkpoint.step, epoch, checkpoint.damaged)


def evaluation_split(dataset: Dataset, config: Config) -> EvaluationSplit:
    """The training images of a run against the whole test split.

    Data without a test split give a seeded, stratified fifth of their images, named
    "validation". A validation share of the config is left out of the training images.

    Raises:
        DataError: When the images have no labels.
    """
    train, test, name = dataset.train, dataset.test, "test"
    if train.labels is None or (test is not None and test.labels is None):
        raise DataError(
            f"{dataset.name} without labels",
            expected="labels on training and test images",
            hint="evaluation needs labels; pretraining, embedding and neighbours do not",
        )
    share = config.validation or (WATCHED if test is None else 0.0)
    if share > 0:
        split = split_validation(train, share=share, seed=config.seed)
        train = split.train
        if test is None:
            test, name = split.validation, "validation"
    assert test is not None
    return EvaluationSplit(train, test, name)


def evaluate(
    run: TrainedRun,
    dataset: Dataset,
    *,
    labels: Sequence[float] = (1.0,),
    track: Track = no_progress,
) -> Iterator[Record]:
    """Scores a run's encoder, and beside it the untrained encoder and raw pixels.

    Each share of the labels is a draw by the run's seed, the same for all subjects. The learning
    rate of the LARS probe is chosen on held-out training labels; the test images are scored once.

    Args:
        run: The run, from `load_run`.
        dataset: The images it was trained on, with labels.
        labels: Shares of the training labels, above 0 and at most 1.
        track: Shows the progress of embedding.

    Raises:
        ConfigError: For a share that is not above 0 and at most 1.
        DataError: When there are no labels, or the data are not those of the run.
    """
    check_same_data(run.info, dataset)
    _check_shares(labels)
    images = evaluation_split(dataset, run.info.config)
    for subject in _SUBJECTS:
        train, test = (_features(subject, run, part, track=track) for part in images[:2])
        for share in labels:
            chosen = label_subset(images.train, share=share, seed=run.info.config.seed)
            index = torch.from_numpy(chosen).to(train.values.device)
            assert train.labels is not None
            bank = train if share == 1 else Features(train.values[index], train.labels[index])
            for metric, evaluator in _evaluators(
                run.info.config, bank, full_size=len(images.train)
            ):
                began = time.perf_counter()
                score = evaluator(bank, test)
                yield _record(
                    run,
                    score,
                    metric=metric,
                    of=subject,
                    split=images.name,
                    labels=share,
                    name=dataset.name,
                    wall_s=time.perf_counter() - began,
                )


def keep_label_draws(path: Path, dataset: Dataset, *, labels: Sequence[float]) -> None:
    """Writes the indices of each share of the labels into a run, `labels/share-0.1-seed-0.json`.

    The indices count the run's training images, in their order.

    Raises:
        ConfigError: For a share that is not above 0 and at most 1.
        DataError: When the images have no labels.
        StorageError: When the disk refuses.
    """
    _check_shares(labels)
    config = read_run(path).config
    train = evaluation_split(dataset, config).train
    for share in (share for share in labels if share < 1):
        file = path / "labels" / f"share-{share:g}-seed-{config.seed}.json"
        with storage_errors(file, needed=0):
            file.parent.mkdir(exist_ok=True)
        write_json(file, label_subset(train, share=share, seed=config.seed).tolist())


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
            hint="name the run's own images with --data",
        )


def _check_shares(labels: Sequence[float]) -> None:
    """Refuses shares before any image is embedded, so that no part of a result is written."""
    wrong = [share for share in labels if not 0 < share <= 1]
    if wrong:
        raise ConfigError(
            f"shares of the labels {', '.join(f'{share:g}' for share in wrong)}",
            expected="shares above 0 and at most 1",
            hint="write 10 % as 0.1",
        )


log = logging.getLogger(__name__)

_SUBJECTS: tuple[Subject, ...] = ("encoder", "untrained", "pixels")

Evaluator = Callable[[Features, Features], Score]


def _features(subject: Subject, run: TrainedRun, images: Images, *, track: Track) -> Features:
    normalization = run.info.normalization
    if subject == "pixels":
        return pixel_features(images, normalization=normalization, device=run.compute.device)
    model = run.model
    if subject == "untrained":
        model = build_simsiam(run.info.config)
        run.compute.place(model)
    return embed(
        model.encoder, images, normalization=normalization, compute=run.compute, track=track
    )


def _evaluators(
    config: Config, bank: Features, *, full_size: int
) -> Iterator[tuple[str, Evaluator]]:
    """Name and function of each evaluator that this bank allows; all share one contract."""
    seed = config.seed

    def sgd(train: Features, test: Features) -> Score:
        return linear_probe(train, test, REPORT_SGD, seed=seed, full_size=full_size)

    def lars(train: Features, test: Features) -> Score:
        return tuned_probe(train, test, PAPER_LARS, seed=seed, full_size=full_size)

    yield "knn_accuracy", lambda train, test: knn(train, test, config.knn)
    yield "linear_accuracy", sgd
    assert bank.labels is not None
    if int(bank.labels.bincount().max()) > 1:
        yield "linear_lars_accuracy", lars
    else:
        log.warning("no LARS probe: one label per class leaves none to choose its lr by")


def _record(run: TrainedRun, score: Score, *, labels: float, name: str, **values: Any) -> Record:
    config = run.info.config
    trained = values["of"] == "encoder"
    return Record(
        value=score.accuracy,
        top5=score.top5,
        per_class=tuple(score.per_class.tolist()),
        images_scored=score.images_scored,
        protocol=score.protocol,
        labels=labels,
        label_draw=config.seed if labels < 1 else None,
        config=config_to_dict(config),
        seed=config.seed,
        epoch=run.epoch if trained else 0,
        data={"name": name, "fingerprint": run.info.data["fingerprint"]},
        views=2 * config.batch * run.step if trained else 0,
        flops=training_flops(config) * 2 * config.batch * run.step if trained else 0.0,
        **environment(device=str(run.compute.device), threads=torch.get_num_threads())._asdict(),
        **values,
    )
