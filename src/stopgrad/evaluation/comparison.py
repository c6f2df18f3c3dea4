"""Runs -> their ranks by a label-free measure, and whether labels would say the same.

In: runs and their data. Out: a `Comparison`: each run's measures, all taken from the same views of
the same images, the ranks that follow, and how far each ranking agrees with kNN and the linear
probe (Kendall's tau) where those are known. Nothing is written into a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.config import Layer, numpy_generator
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluation.evaluate import Selection, score_run
from stopgrad.evaluation.label_free import LABEL_FREE, VIEWS, LabelFree, measure_run
from stopgrad.evaluation.records import Key, Record, newest, read
from stopgrad.evaluation.statistics import Kendall, kendall
from stopgrad.images import Dataset, Images, Track, no_progress
from stopgrad.runs import TrainedRun, read_status, split_to_score

IMAGES = 1000  # images N at most. Thilak et al. 2023: 1000


class Row(NamedTuple):
    """One run among the others."""

    run: TrainedRun
    measures: LabelFree
    ranks: dict[str, int | None]  # by measure, 1 is best; None where it is not finite
    accuracies: dict[str, float]  # by metric, those that are known
    notes: tuple[str, ...]  # what a reader of the ranks must know of this run


class Agreement(NamedTuple):
    """How far the order by a measure is the order by an accuracy."""

    measure: str
    accuracy: str
    kendall: Kendall | None  # None: there are no two runs to order, or all are equal


class Comparison(NamedTuple):
    """Runs in the order of one measure, best first."""

    rows: tuple[Row, ...]
    by: str
    agreements: tuple[Agreement, ...]
    notes: tuple[str, ...]  # about all runs together
    protocol: dict[str, Any]


def same_data(runs: Sequence[TrainedRun], datasets: Sequence[Dataset] = ()) -> bool:
    """Whether all runs were trained on the same images.

    Args:
        runs: The runs.
        datasets: Those images as each run stores them; none: only runs that store them alike are
            known to have the same.
    """
    found = list(zip(runs, datasets, strict=False))
    if found and all(_own(run, dataset) for run, dataset in found):
        return True
    return len({run.info.data["fingerprint"] for run in runs}) == 1


def _own(run: TrainedRun, dataset: Dataset) -> bool:
    return bool(run.info.data["fingerprint"] == dataset.train.fingerprint)


def compare_runs(
    runs: Sequence[TrainedRun],
    datasets: Sequence[Dataset],
    *,
    by: str = "lidar",
    layer: Layer = "features",
    score: bool = True,
    track: Track = no_progress,
) -> Comparison:
    """Measures all runs on the same views of the same training images, and ranks them.

    The views are those of the first run, each run's at its own views.size. Accuracies are compared
    only when all runs were trained on the same images.

    Args:
        runs: The runs, from `load_run`, each once.
        datasets: The images to measure on, the same for all, as each run stores them; up to 1,000
            of the training images are drawn.
        by: The measure that orders the rows.
        layer: features, which kNN and the probe see, or z.
        score: Score what is in no record, where the data are the runs' own and have labels.
        track: Shows progress.

    Raises:
        DataError: When there is one image alone, or the images are not the same for all.
        ConfigError: When a run is named twice.
    """
    _refuse_twice(runs)
    measures = _measures(runs, datasets, layer=layer, track=track)
    scores = [Accuracies({}, ()) for _ in runs]
    if same_data(runs, datasets):
        scores = accuracies(runs, datasets if score and _scorable(runs, datasets) else None)
    ranks = {name: _ranks([getattr(m, name) for m in measures]) for name in LABEL_FREE}
    rows = [
        Row(
            run=run,
            measures=measures[index],
            ranks={name: ranks[name][index] for name in LABEL_FREE},
            accuracies={metric: r.value for metric, r in scores[index].records.items()},
            notes=tuple(_run_notes(run, datasets[index])),
        )
        for index, run in enumerate(runs)
    ]
    return Comparison(
        rows=tuple(sorted(rows, key=lambda row: row.ranks[by] or len(rows) + 1)),
        by=by,
        agreements=tuple(_agreements(rows)),
        notes=tuple(_notes(runs, datasets, scores, layer=layer)),
        protocol=_protocol(datasets[0], layer=layer, scores=scores),
    )


def _measures(
    runs: Sequence[TrainedRun], datasets: Sequence[Dataset], *, layer: Layer, track: Track
) -> list[LabelFree]:
    names = {(len(dataset.train), dataset.train.sources) for dataset in datasets}
    if len(names) > 1:
        raise DataError(
            f"{len(names)} sets of images to compare runs on",
            expected="the same images for all runs",
            hint="name them with --data",
        )
    first = runs[0].info.config.views
    return [
        measure_run(
            run,
            _drawn(dataset.train),
            views=replace(first, size=run.info.config.views.size),
            layer=layer,
            track=track,
        )
        for run, dataset in zip(runs, datasets, strict=True)
    ]


def _refuse_twice(runs: Sequence[TrainedRun]) -> None:
    paths = [run.path.resolve() for run in runs]
    twice = next((p for p in runs if paths.count(p.path.resolve()) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"{twice.path} named twice", expected="each run once", hint="leave one out"
        )


def _drawn(images: Images) -> Images:
    """The images to measure on: the same for the same data, whatever the runs."""
    if len(images) < 2:
        raise DataError(
            "one image to compare runs on", expected="at least two", hint="give more images"
        )
    drawn = numpy_generator(0, "compared images").permutation(len(images))[:IMAGES]
    return images.take(drawn)


def _scorable(runs: Sequence[TrainedRun], datasets: Sequence[Dataset]) -> bool:
    own = all(_own(run, dataset) for run, dataset in zip(runs, datasets, strict=True))
    return own and all(dataset.train.labels is not None for dataset in datasets)


def _ranks(values: Sequence[float]) -> list[int | None]:
    """1 for the highest; equal values share the better rank; None where it is not finite."""
    known = [value for value in values if math.isfinite(value)]
    return [
        1 + sum(other > value for other in known) if math.isfinite(value) else None
        for value in values
    ]


def _agreements(rows: Sequence[Row]) -> Iterator[Agreement]:
    """Over the runs that have both numbers; none where no run has the accuracy."""
    for metric in (m for m in COMPARED if any(m in row.accuracies for row in rows)):
        for name in LABEL_FREE:
            both = [
                (getattr(row.measures, name), row.accuracies[metric])
                for row in rows
                if metric in row.accuracies and row.ranks[name] is not None
            ]
            yield Agreement(name, metric, kendall([m for m, _ in both], [a for _, a in both]))


def _run_notes(run: TrainedRun, dataset: Dataset) -> Iterator[str]:
    if not _own(run, dataset):
        yield f"trained on other images ({run.info.data['name']})"
    if run.epoch < run.info.config.epochs:
        yield f"epoch {run.epoch} of {run.info.config.epochs}"
    state = read_status(run.path).get("verdict", {}).get("state", "healthy")
    if state != "healthy":
        yield str(state)


def _notes(
    runs: Sequence[TrainedRun],
    datasets: Sequence[Dataset],
    scores: Sequence[Accuracies],
    *,
    layer: Layer,
) -> Iterator[str]:
    widths = sorted({_width(run, layer) for run in runs})
    if len(widths) > 1:
        yield (
            f"{layer} of {' and '.join(map(str, widths))} channels: counts of directions "
            "(all but the difference of cosines) favour the wide"
        )
    yield from _notes_on_views(runs)
    if not same_data(runs, datasets):
        yield "the runs were trained on different images, so no accuracies are compared"
    for metric in COMPARED:
        protocols = {str(s.records[metric].protocol) for s in scores if metric in s.records}
        if len(protocols) > 1:
            yield f"{metric} by {len(protocols)} different protocols"
    now = [str(r.path) for r, s in zip(runs, scores, strict=True) if s.scored_now]
    if now:
        yield f"scored now, not in the records: {', '.join(now)}; stopgrad evaluate keeps scores"


def _notes_on_views(runs: Sequence[TrainedRun]) -> Iterator[str]:
    views = [run.info.config.views for run in runs]
    sizes = sorted({each.size for each in views})
    if len({replace(each, size=sizes[0]) for each in views}) > 1:
        yield f"the runs learned from different views; all are measured on those of {runs[0].path}"
    if len(sizes) > 1:
        named = " and ".join(map(str, sizes))
        yield f"each run is measured on views of its own size (views.size {named} px)"


def _width(run: TrainedRun, layer: Layer) -> int:
    if layer == "features":
        return run.model.encoder.feature_width
    return run.info.config.projector.out


def _protocol(dataset: Dataset, *, layer: Layer, scores: Sequence[Accuracies]) -> dict[str, Any]:
    """All that defines the numbers."""
    records = [record for score in scores for record in score.records.values()]
    return {
        "data": {"name": dataset.name, "fingerprint": dataset.train.fingerprint},
        "images": min(len(dataset.train), IMAGES),
        "views": VIEWS,
        "layer": layer,
        "split": records[0].split if records else None,
        "images_scored": records[0].images_scored if records else None,
    }


COMPARED = ("knn_accuracy", "linear_accuracy")


class Accuracies(NamedTuple):
    """A run's records by metric, and which of them were scored just now."""

    records: dict[str, Record]
    scored_now: tuple[str, ...]


def accuracies(
    runs: Sequence[TrainedRun],
    datasets: Sequence[Dataset] | None,
    *,
    track: Track = no_progress,
) -> list[Accuracies]:
    """kNN and linear accuracy of each run, on all labels, of its newest checkpoint and one split.

    The split is the first of test and validation on which all runs have both numbers in their
    records, else the one that `evaluate_run` takes by itself.

    Args:
        runs: The runs.
        datasets: The images of each, with labels: what no record has is scored. None: it is left
            out.
        track: Shows progress.
    """
    recorded = [_recorded(run) for run in runs]
    own: Sequence[Dataset | None] = datasets or [None] * len(runs)
    split = _common_split(recorded) or _own_split(runs[0], own[0])
    chosen = [{k.metric: r for k, r in known.items() if k.split == split} for known in recorded]
    return [
        _completed(run, records, dataset, track=track)
        for run, records, dataset in zip(runs, chosen, own, strict=True)
    ]


def _completed(
    run: TrainedRun, records: dict[str, Record], dataset: Dataset | None, *, track: Track
) -> Accuracies:
    missing = tuple(metric for metric in COMPARED if metric not in records)
    if dataset is None or not missing:
        return Accuracies(records, ())
    wanted = Selection(of=("encoder",), metrics=missing)
    found = {r.metric: r for r in score_run(run, dataset, select=wanted, track=track)}
    return Accuracies(records | found, tuple(found))


def _recorded(run: TrainedRun) -> dict[Key, Record]:
    """The records of the encoder at the checkpoint at hand, with all labels."""
    path: Path = run.path / "records.jsonl"
    return newest(
        record
        for record in (read(path) if path.exists() else ())
        if record.metric in COMPARED
        and (record.of, record.labels, record.epoch) == ("encoder", 1.0, run.epoch)
    )


def _common_split(recorded: Sequence[dict[Key, Record]]) -> str | None:
    for split in ("test", "validation"):
        if all(
            Key(metric, 1.0, "encoder", split) in known for known in recorded for metric in COMPARED
        ):
            return split
    return None


def _own_split(run: TrainedRun, dataset: Dataset | None) -> str:
    return "test" if dataset is None else split_to_score(dataset, run.info.config)
