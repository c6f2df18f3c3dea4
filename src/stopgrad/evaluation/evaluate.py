"""One run -> records; the only place that knows all evaluators.

In: a run and its data set. Out: a `Record` for each subject (the encoder, the same encoder
untrained, raw pixels), label fraction and evaluator, with all that defines it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stopgrad.config import Config, config_to_dict
from stopgrad.evaluation.costs import energy, read_costs
from stopgrad.evaluation.features import Features, Score, embed, pixel_features
from stopgrad.evaluation.knn import weighted_knn
from stopgrad.evaluation.linear import PAPER_LARS, REPORT_SGD, linear_probe
from stopgrad.evaluation.records import (
    FROZEN,
    MEASURED,
    MEASURES,
    Key,
    Record,
    Subject,
    append,
    key_of,
    read,
)
from stopgrad.evaluation.tuning import tuned_probe
from stopgrad.images import Dataset, Images, Track, label_subset, no_progress
from stopgrad.method import build_simsiam, compute_for, training_flops
from stopgrad.runs import (
    EvaluationSplit,
    MetricsRow,
    RunInfo,
    TrainedRun,
    check_fractions,
    check_same_data,
    environment,
    evaluation_split,
    keep_label_draws,
    read_metrics,
)

log = logging.getLogger(__name__)

Evaluator = Callable[[Features, Features], Score]


class Selection(NamedTuple):
    """Which numbers an evaluation gives; without a word all of them."""

    split: str = "auto"  # as `evaluation_split` takes it
    of: tuple[Subject, ...] = ("encoder", "untrained", "pixels")
    metrics: tuple[str, ...] = FROZEN  # measures of collapse may be among them
    done: frozenset[Key] = frozenset()  # what is known already


EVERYTHING = Selection()


def evaluate_run(
    run: TrainedRun,
    dataset: Dataset,
    *,
    labels: Sequence[float] = (1.0,),
    select: Selection = EVERYTHING,
    track: Track = no_progress,
) -> Iterator[Record]:
    """Scores a run and keeps what comes of it: each record is in the run before it is yielded.

    The records go to RUN/records.jsonl, the draws of the labels to RUN/labels.

    Args:
        run: The run, from `load_run`.
        dataset: The images it was trained on, with labels.
        labels: Fractions of the training labels, above 0 and at most 1.
        select: Which numbers are wanted.
        track: Shows the progress of embedding.

    Raises:
        ConfigError: For a fraction that is not above 0 and at most 1.
        DataError: When there are no labels, or the data are not those of the run.
        StorageError: When the disk refuses.
    """
    check_same_data(run.info, dataset)
    keep_label_draws(run.path, dataset, labels=labels)
    for record in score_run(run, dataset, labels=labels, select=select, track=track):
        append(run.path / "records.jsonl", record)
        yield record


def recorded_numbers(run: Path) -> frozenset[Key]:
    """The numbers that a run has already, at its newest checkpoint or before.

    Raises:
        DataError: When its file of records is damaged.
    """
    path = run / "records.jsonl"
    return frozenset(key_of(record) for record in read(path)) if path.exists() else frozenset()


def score_run(
    run: TrainedRun,
    dataset: Dataset,
    *,
    labels: Sequence[float] = (1.0,),
    select: Selection = EVERYTHING,
    track: Track = no_progress,
) -> Iterator[Record]:
    """Scores a run's encoder, and beside it the untrained encoder and raw pixels; writes nothing.

    Each label fraction is drawn by the run's seed, the same for all subjects. The learning rate of
    the LARS probe is chosen on held-out training labels; the test images are scored once.
    Arguments and errors are those of `evaluate_run`.
    """
    check_same_data(run.info, dataset)
    check_fractions(labels)
    known = {key.metric for key in select.done if key.split == "train"}
    wanted = tuple(metric for metric in select.metrics if metric not in known)
    if "encoder" in select.of:
        yield from measured(run, metrics=wanted, name=dataset.name)
    if not set(wanted) & set(FROZEN):
        return
    images = evaluation_split(dataset, run.info.config, name=select.split)
    pretraining = _pretraining(run)
    for of in select.of:
        keys = [Key(metric, fraction, of, images.name) for fraction in labels for metric in FROZEN]
        left = [key for key in keys if key.metric in wanted and key not in select.done]
        if left:
            beside = {"name": dataset.name} | (pretraining if of == "encoder" else {})
            yield from _scored(run, images, left, beside=beside, track=track)


def _scored(
    run: TrainedRun,
    images: EvaluationSplit,
    keys: Sequence[Key],
    *,
    beside: Mapping[str, Any],
    track: Track,
) -> Iterator[Record]:
    """The numbers of one subject, whose images are embedded once."""
    began, config = time.perf_counter(), run.info.config
    train, test = (_features(keys[0].of, run, part, track=track) for part in images[:2])
    embed_s = time.perf_counter() - began
    for fraction in dict.fromkeys(key.labels for key in keys):
        chosen = label_subset(images.train, fraction=fraction, seed=config.seed)
        index = torch.from_numpy(chosen).to(train.values.device)
        assert train.labels is not None
        bank = train if fraction == 1 else Features(train.values[index], train.labels[index])
        evaluators = _evaluators(config, bank, full_size=len(images.train))
        for key in (key for key in keys if key.labels == fraction):
            if key.metric not in evaluators:
                log.warning("no LARS probe: one label per class leaves none to choose its lr by")
                continue
            began = time.perf_counter()
            score = evaluators[key.metric](bank, test)
            wall_s = embed_s + time.perf_counter() - began
            yield _record(run, score, **key._asdict(), **beside, wall_s=wall_s, embed_s=embed_s)


def _pretraining(run: TrainedRun) -> dict[str, Any]:
    """What the pretraining of an encoder came to and what it took."""
    verdict = (newest_measures(run).get("verdict") or {}).get("state")
    return cost_of(run.path) | {"verdict": verdict}


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


def _evaluators(config: Config, bank: Features, *, full_size: int) -> dict[str, Evaluator]:
    """The evaluators that this bank allows, by their metric; all share one contract."""
    how = {"seed": config.seed, "full_size": full_size}
    allowed: dict[str, Evaluator] = {
        "knn_accuracy": lambda train, test: weighted_knn(train, test, config.knn),
        "linear_accuracy": lambda train, test: linear_probe(train, test, REPORT_SGD, **how),
    }
    assert bank.labels is not None
    if int(bank.labels.bincount().max()) > 1:
        allowed["linear_lars_accuracy"] = lambda train, test: tuned_probe(
            train, test, PAPER_LARS, **how
        )
    return allowed


def _record(run: TrainedRun, score: Score, **values: Any) -> Record:
    config, trained = run.info.config, values["of"] == "encoder"
    views = 2 * config.batch * run.step if trained else 0
    return scored(
        run.info,
        score,
        epoch=run.epoch if trained else 0,
        views=views,
        flops=training_flops(config) * views,
        **values,
    )


def measured(run: TrainedRun, *, metrics: tuple[str, ...], name: str) -> Iterator[Record]:
    """A record for each of these metrics that is a measure of z, from the last measured epoch."""
    row = newest_measures(run)
    measures, verdict = row.get("measures"), row.get("verdict")
    if not measures or not verdict:
        return
    views = 2 * run.info.config.batch * row["step"]
    for metric in (metric for metric in metrics if metric in MEASURES):
        value = measures.get("z", {}).get(metric)
        if value is not None:
            yield labelled_record(
                run.info,
                metric=metric,
                value=value,
                of="encoder",
                split="train",
                images_scored=min(MEASURED, run.info.data["images"]),
                protocol={"evaluator": "collapse", "layer": "z", "views": "two of each image"},
                name=name,
                epoch=row["epoch"],
                verdict=verdict.get("state"),
                wall_s=0.0,
                views=views,
                flops=training_flops(run.info.config) * views,
                **cost_of(run.path),
            )


def newest_measures(run: TrainedRun) -> MetricsRow:
    """The last epoch's row with measures, up to the checkpoint that is scored; empty before one."""
    rows = [row for row in read_metrics(run.path) if row.get("measures") is not None]
    return next((row for row in reversed(rows) if row["step"] <= run.step), MetricsRow())


def scored(info: RunInfo, score: Score, **values: Any) -> Record:
    """A score with what every record says of its run, its data and the machine."""
    return labelled_record(
        info,
        value=score.accuracy,
        top5=score.top5,
        per_class=tuple(score.per_class.tolist()),
        images_scored=score.images_scored,
        protocol=score.protocol,
        **values,
    )


def labelled_record(info: RunInfo, *, name: str, labels: float = 1.0, **values: Any) -> Record:
    """A number with what every record says of its run, its data and the machine."""
    config = info.config
    device = str(compute_for(config).device)
    return Record(
        labels=labels,
        label_draw=config.seed if labels < 1 else None,
        config=config_to_dict(config),
        seed=config.seed,
        data={"name": name, "fingerprint": info.data["fingerprint"]},
        init=info.data.get("init") if values["of"] == "encoder" else None,
        **environment(device=device, threads=torch.get_num_threads())._asdict(),
        **values,
    )


def cost_of(run: Path) -> dict[str, Any]:
    """Wall time and energy of a pretraining as a record holds them; none where none is known."""
    costs = read_costs(run)
    if costs is None:
        return {}
    return {"train_s": costs.wall_s, "energy": energy(costs)._asdict()}
