"""One run -> records; the only file that knows all evaluators.

In: a run and its data set. Out: a `Record` for each subject (the encoder, the same encoder
untrained, raw pixels), label fraction and evaluator, with all that defines it.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from stopgrad.config import Config, config_to_dict, key_paths
from stopgrad.evaluation.costs import energy, read_costs
from stopgrad.evaluation.features import Features, Score, embed, pixel_features
from stopgrad.evaluation.format import SUBJECTS, labels_text
from stopgrad.evaluation.knn import weighted_knn
from stopgrad.evaluation.linear import (
    AS_PUBLISHED,
    PAPER_LARS,
    REPORT_SGD,
    linear_probe,
    tuned_probe,
)
from stopgrad.evaluation.records import (
    FROZEN,
    MEASURED,
    MEASURES,
    RECORDS,
    Key,
    Record,
    Subject,
    append,
    newest,
    records_of,
)
from stopgrad.images import Dataset, Images, Track, label_subset, no_progress
from stopgrad.method import build_simsiam, compute_for, on_this_machine, training_flops
from stopgrad.runs import (
    EvaluationSplit,
    MetricsRow,
    RunInfo,
    TrainedRun,
    check_fractions,
    check_same_data,
    config_of,
    environment,
    evaluation_split,
    keep_label_draws,
    labelled_images,
    read_metrics,
)
from stopgrad.storage import make_folder, storage_errors

T = TypeVar("T")

log = logging.getLogger(__name__)


Evaluator = Callable[[Features, Features], Score]


class Selection(NamedTuple):
    """Which numbers an evaluation gives; all of them by default."""

    split: str = "auto"  # as `evaluation_split` takes it
    of: tuple[Subject, ...] = ("encoder", "untrained", "pixels")
    metrics: tuple[str, ...] = FROZEN  # measures of collapse may be among them
    missing: bool = False  # skip what the folder already has a record of


EVERYTHING = Selection()


def evaluate_run(
    run: TrainedRun,
    dataset: Dataset,
    *,
    labels: Sequence[float] = (1.0,),
    select: Selection = EVERYTHING,
    out: Path | None = None,
    track: Track = no_progress,
) -> Iterator[Record]:
    """Scores a run and keeps the records: each is on disk before it is yielded.

    Args:
        run: The run.
        dataset: The images whose labels train the evaluators, and those that are scored.
        labels: Fractions of the training labels.
        select: Which numbers are wanted.
        out: Where the records go (`records.jsonl`), and the draws of the labels (`labels/`); only
            then may the images differ from the run's. None: into the run.
        track: Shows the progress of embedding and of scoring.

    Raises:
        ConfigError: For a fraction that is not above 0 and at most 1.
        DataError: When there are no labels, or the data are not those of the run.
        StorageError: When the disk refuses.
    """
    folder = out or run.path
    if folder.resolve() == run.path.resolve():
        check_same_data(run.info, dataset)
    with storage_errors(folder, needed=0):
        make_folder(folder)
    if set(select.metrics) & set(FROZEN):
        config = config_of(run.info, dataset)
        train = labelled_images(dataset, config)
        keep_label_draws(folder, train, labels=labels, seed=config.seed)
    known = [each for each in records_of(folder) if _is_of(each, run)] if select.missing else []
    for record in score_run(run, dataset, labels=labels, select=select, known=known, track=track):
        append(folder / RECORDS, record)
        yield record


def score_run(
    run: TrainedRun,
    dataset: Dataset,
    *,
    labels: Sequence[float] = (1.0,),
    select: Selection = EVERYTHING,
    known: Iterable[Record] = (),
    track: Track = no_progress,
) -> Iterator[Record]:
    """Scores a run's encoder along with the untrained encoder and raw pixels; writes nothing.

    The images may differ from the run's: its encoder is then scored on data that it has never
    seen, normalised as the run's own. Each label fraction is drawn by the run's seed, the same for
    all subjects. The learning rate of the LARS probe is chosen on held-out training labels; the
    test images are scored once. Numbers that `known` holds for the run's epoch and these images are
    skipped. Other arguments and errors are those of `evaluate_run`.
    """
    check_fractions(labels)
    current = newest(r for r in known if r.of != "encoder" or r.epoch == run.epoch)
    measured = {key.metric for key in current if key.split == "train"}
    wanted = tuple(metric for metric in select.metrics if metric not in measured)
    if "encoder" in select.of and run.info.learned_from(dataset.train):
        yield from _measured(run, metrics=wanted, name=dataset.name)
    if not set(wanted) & set(FROZEN):
        return
    images = evaluation_split(dataset, config_of(run.info, dataset), name=select.split)
    done = {key for key, record in current.items() if is_scored_on(record, images.test)}
    for of in select.of:
        keys = [Key(metric, fraction, of, images.name) for fraction in labels for metric in FROZEN]
        left = [key for key in keys if key.metric in wanted and key not in done]
        if left:
            marks = {"fingerprint": dataset.train.fingerprint, "scored": images.test.fingerprint}
            beside = {"name": dataset.name} | marks | _pretraining(run, of=of)
            yield from _scored(run, images, left, beside=beside, track=track)


def _is_of(record: Record, run: TrainedRun) -> bool:
    """Whether a record is of this run: a folder named by the user may hold those of several."""
    own = run.info.data["fingerprint"]
    learned_from = record.data.get("pretrained_on", record.data.get("fingerprint", own))
    return learned_from == own and is_by(record, run.info.config)


def is_by(record: Record, config: Config) -> bool:
    """Whether a record is of this config; knobs newer than the record count as their defaults."""
    usual, of = key_paths(config_to_dict(Config())), key_paths(record.config or {})
    return record.config is None or usual | of == key_paths(config_to_dict(config))


def is_scored_on(record: Record, images: Images) -> bool:
    """Whether a record scored these images and labels; true for older ones that do not say."""
    return record.data.get("scored", images.fingerprint) == images.fingerprint


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
        of_what = f"of {SUBJECTS[keys[0].of]}, {labels_text(fraction)}"
        named = functools.partial(_named, track, of_what)
        evaluators = _evaluators(config, bank, full_size=len(images.train), track=named)
        for key in (key for key in keys if key.labels == fraction):
            if key.metric not in evaluators:
                log.warning("no LARS probe: one label per class leaves none to choose its lr with")
                continue
            began = time.perf_counter()
            score = evaluators[key.metric](bank, test)
            wall_s = embed_s + time.perf_counter() - began
            times = {"wall_s": wall_s, "embed_s": embed_s}
            yield scored(run.info, score, **key._asdict(), **beside, **times)


def _named(
    track: Track, of_what: str, items: Iterable[T], description: str, total: int, /
) -> Iterable[T]:
    """Progress with the subject in its description."""
    return track(items, f"{description} {of_what}", total)


def _pretraining(run: TrainedRun, *, of: Subject) -> dict[str, Any]:
    """The outcome and cost of an encoder's pretraining; other subjects had none."""
    if of != "encoder":
        return {"epoch": 0, "views": 0, "flops": 0.0}
    verdict = (newest_measures(run).get("verdict") or {}).get("state")
    return {"epoch": run.epoch, "verdict": verdict} | _effort(run, run.step)


def _effort(run: TrainedRun, step: int) -> dict[str, Any]:
    """Views and FLOPs up to a step, and time and energy where they are known."""
    config, costs = run.info.config, read_costs(run.path)
    views = 2 * config.batch * step
    effort: dict[str, Any] = {"views": views, "flops": training_flops(config) * views}
    reach = run.info.extent(step)._asdict() | {"images": run.info.data["images"]}
    effort["extent"] = {k: None if math.isnan(value) else value for k, value in reach.items()}
    if costs is not None:
        effort |= {"train_s": costs.wall_s, "energy": energy(costs)._asdict()}
    return effort


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
    config: Config, bank: Features, *, full_size: int, track: Track
) -> dict[str, Evaluator]:
    """The evaluators that this bank allows, by their metric; all share one contract."""
    how: dict[str, Any] = {"seed": config.seed, "full_size": full_size, "track": track}
    allowed: dict[str, Evaluator] = {
        "knn_accuracy": lambda train, test: weighted_knn(train, test, config.knn, track=track),
        "linear_accuracy": lambda train, test: linear_probe(train, test, REPORT_SGD, **how),
        "linear_published_accuracy": lambda train, test: linear_probe(
            train, test, AS_PUBLISHED, **how
        ),
    }
    assert bank.labels is not None
    if int(bank.labels.bincount().max()) > 1:
        allowed["linear_lars_accuracy"] = lambda train, test: tuned_probe(
            train, test, PAPER_LARS, **how
        )
    return allowed


def _measured(run: TrainedRun, *, metrics: tuple[str, ...], name: str) -> Iterator[Record]:
    """A record for each of these metrics that is a measure of z, from the last measured epoch.

    Prefers the measure of many images without augmentation, where the row has it.
    """
    row = newest_measures(run)
    measures, verdict = row.get("measures"), row.get("verdict")
    if not measures or not verdict:
        return
    for metric in (metric for metric in metrics if metric in MEASURES):
        value = clean = (row.get("clean") or {}).get(metric)
        images, protocol = row.get("clean_images", 0), {"images": "not augmented"}
        if clean is None:
            value, protocol = measures.get("z", {}).get(metric), {"views": "two of each image"}
            images = row.get("measured", min(MEASURED, run.info.data["images"]))
        if value is not None:
            yield whole_record(
                run.info,
                metric=metric,
                value=value,
                of="encoder",
                split="train",
                images_scored=images,
                protocol={"evaluator": "collapse", "layer": "z"} | protocol,
                name=name,
                epoch=row["epoch"],
                verdict=verdict.get("state"),
                wall_s=0.0,
                **_effort(run, row["step"]),
            )


def newest_measures(run: TrainedRun) -> MetricsRow:
    """The last epoch's row with measures, up to the checkpoint that is scored; empty before one."""
    rows = [row for row in read_metrics(run.path) if row.get("measures") is not None]
    return next((row for row in reversed(rows) if row["step"] <= run.step), MetricsRow())


def scored(info: RunInfo, score: Score, **values: Any) -> Record:
    """A score as a record, with what every record says about run, data and machine."""
    return whole_record(
        info,
        value=score.accuracy,
        **score.balance._asdict(),
        top5=score.top5,
        per_class=tuple(score.per_class.tolist()),
        images_scored=score.images_scored,
        protocol=score.protocol,
        **values,
    )


def whole_record(
    info: RunInfo,
    *,
    name: str,
    fingerprint: str = "",
    scored: str = "",
    labels: float = 1.0,
    **values: Any,
) -> Record:
    """A number as a record, with what every record says about run, data and machine.

    `fingerprint` identifies the training images, where they are not the run's own, and `scored`
    the images behind an accuracy.
    """
    config, own = info.config, info.data["fingerprint"]
    data = {"name": name, "fingerprint": fingerprint or own}
    if data["fingerprint"] != own:
        data["pretrained_on"] = own
    if "pretrained_on" in info.data:
        data["pretrained_on"] = info.data["pretrained_on"]
    if scored:
        data["scored"] = scored
    device = str(compute_for(on_this_machine(config)).device)
    return Record(
        labels=labels,
        label_draw=config.seed if labels < 1 else None,
        config=config_to_dict(config),
        seed=config.seed,
        data=data,
        init=info.data.get("init") if values["of"] == "encoder" else None,
        **environment(device=device, threads=torch.get_num_threads())._asdict(),
        **values,
    )
