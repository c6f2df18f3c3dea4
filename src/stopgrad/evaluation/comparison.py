"""Runs -> their ranks by a measure that needs no labels, and whether labels would say the same.

In: runs and their data. Out: a `Comparison`: each run's measures, all taken from the same views of
the same images, the ranks that follow, and how far each ranking agrees with kNN and the linear
probe (Kendall's tau) where those are known. Nothing is written into a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stopgrad.config import (
    RANKED_BY,
    LabelFreeName,
    Layer,
    ViewsConfig,
    numpy_generator,
    torch_generator,
)
from stopgrad.errors import ConfigError, DataError
from stopgrad.evaluation.accuracies import COMPARED, Accuracies, accuracies
from stopgrad.evaluation.statistics import Kendall, kendall
from stopgrad.images import Dataset, Images, Track, no_progress
from stopgrad.method import (
    covariance_spectrum,
    effective_rank,
    lidar,
    participation_ratio,
    positive_minus_random,
    rankme,
    retrieval,
    two_views,
)
from stopgrad.runs import TrainedRun, read_status

IMAGES = 1000  # images N at most. Thilak et al. 2023: 1000
VIEWS = 10  # views Q of each image. Thilak et al. 2023: 50, for features of ImageNet's size
BATCH = 250  # images at a time


class LabelFree(NamedTuple):
    """Measures that need no labels; NaN where outputs are not finite. Higher is better."""

    rankme: float
    participation_ratio: float
    retrieval: float
    effective_rank: float
    lidar: float
    positive_minus_random: float


LABEL_FREE = LabelFree._fields
OF_ANY_WIDTH = ("retrieval", "positive_minus_random")  # the others count directions


class RankedRun(NamedTuple):
    """One run among the others."""

    run: TrainedRun
    measures: LabelFree
    ranks: dict[str, int | None]  # by measure, 1 is best; None where it is not finite
    accuracies: dict[str, float]  # by metric, those that are known
    notes: tuple[str, ...]  # what a reader of the ranks must know about this run


class Agreement(NamedTuple):
    """How far the order by a measure agrees with the order by an accuracy."""

    measure: str
    accuracy: str
    kendall: Kendall | None  # None: fewer than two runs to order, or all are equal


class Comparison(NamedTuple):
    """Runs in the order of one measure, best first."""

    rows: tuple[RankedRun, ...]
    by: str
    agreements: tuple[Agreement, ...]
    notes: tuple[str, ...]  # about all runs together
    protocol: dict[str, Any]


def same_data(runs: Sequence[TrainedRun], datasets: Sequence[Dataset] = ()) -> bool:
    """Whether all runs were trained on the same images.

    `datasets` are those images as each run stores them; without them, only runs that store them
    identically are recognised.
    """
    if datasets and _all_own(runs, datasets):
        return True
    return len({run.info.data["fingerprint"] for run in runs}) == 1


def _all_own(runs: Sequence[TrainedRun], datasets: Sequence[Dataset]) -> bool:
    """Whether each run was trained on its data set."""
    pairs = zip(runs, datasets, strict=True)
    return all(run.info.learned_from(dataset.train) for run, dataset in pairs)


def compare_runs(
    runs: Sequence[TrainedRun],
    datasets: Sequence[Dataset],
    *,
    by: LabelFreeName = RANKED_BY,
    layer: Layer = "features",
    score: bool = True,
    track: Track = no_progress,
) -> Comparison:
    """Measures all runs on the same views of the same training images, and ranks them.

    The views are the first run's, made at each run's own views.size. Up to 1,000 of the
    training images are drawn. Accuracies are compared only when all runs were trained on the same
    images.

    Args:
        runs: The runs, from `load_run`, each once.
        datasets: The images to measure on, the same for all, as each run stores them.
        by: The measure that orders the rows.
        layer: features, which kNN and the probe see, or z.
        score: Score what the records lack, where the data are the runs' own and have labels.
        track: Shows progress.

    Raises:
        DataError: When there is only one image, or runs have different images.
        ConfigError: When a run is named twice, or layers of different widths would be ordered
            by a count of directions.
    """
    _check_widths(runs, by=by, layer=layer)
    measures = _measures(runs, datasets, layer=layer, track=track)
    scores = [Accuracies({}, ()) for _ in runs]
    if same_data(runs, datasets):
        known = all(dataset.train.labels is not None for dataset in datasets)
        scorable = score and known and _all_own(runs, datasets)
        scores = accuracies(runs, datasets if scorable else None, track=track)
    ranks = {name: _ranks([getattr(m, name) for m in measures]) for name in LABEL_FREE}
    rows = [
        RankedRun(
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
        notes=(*_notes_on_runs(runs, datasets, layer=layer), *_notes_on_scores(runs, scores)),
        protocol=_protocol(datasets[0], layer=layer, scores=scores),
    )


def _check_widths(runs: Sequence[TrainedRun], *, by: str, layer: Layer) -> None:
    """Refuses to order layers of different widths by a measure that counts directions."""
    widths = sorted({_width(run, layer) for run in runs})
    if len(widths) > 1 and by not in OF_ANY_WIDTH:
        raise ConfigError(
            f"{layer} of {' and '.join(map(str, widths))} channels to rank by {by}",
            expected="one width, because wide layers have more directions to count",
            hint="use --by retrieval, or compare the runs of each width separately",
        )


def _measures(
    runs: Sequence[TrainedRun], datasets: Sequence[Dataset], *, layer: Layer, track: Track
) -> list[LabelFree]:
    paths = [run.path.resolve() for run in runs]
    twice = next((run.path for run in runs if paths.count(run.path.resolve()) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} named twice", expected="each run once", hint="leave one out")
    names = {(len(dataset.train), dataset.train.sources) for dataset in datasets}
    if len(names) > 1:
        raise DataError(
            f"{len(names)} sets of images to compare runs on",
            expected="the same images for all runs",
            hint="name them with --data",
        )
    first = runs[0].info.config.views
    found = []
    for run, dataset in zip(runs, datasets, strict=True):
        views = replace(first, size=run.info.config.views.size)
        outputs = _outputs(run, _drawn(dataset.train), views=views, layer=layer, track=track)
        found.append(_measure(outputs))
    return found


def _drawn(images: Images) -> Images:
    """The images to measure on: the same for the same data, whatever the runs."""
    if len(images) < 2:
        raise DataError(
            "one image to compare runs on", expected="at least two", hint="give more images"
        )
    drawn = numpy_generator(0, "compared images").permutation(len(images))[:IMAGES]
    return images.take(drawn)


def _measure(outputs: Tensor) -> LabelFree:  # (N, Q, D); counts of directions are at most N - 1
    if not bool(torch.isfinite(outputs).all()):
        return LabelFree(*[math.nan] * len(LABEL_FREE))
    first, second = outputs[:, 0], outputs[:, 1]
    spectrum = covariance_spectrum(first)
    return LabelFree(
        rankme=float(rankme(first)),
        participation_ratio=float(participation_ratio(spectrum)),
        retrieval=float(retrieval(first, second)),
        effective_rank=float(effective_rank(spectrum)),
        lidar=float(lidar(outputs)),
        positive_minus_random=float(positive_minus_random(first, second)),
    )


def _outputs(
    run: TrainedRun, images: Images, *, views: ViewsConfig, layer: Layer, track: Track
) -> Tensor:  # (N, Q, D)
    """The layer's output for Q views of each image, in eval mode; a function of its arguments."""
    starts = range(0, len(images), BATCH)
    with torch.inference_mode():
        batches = [
            torch.cat([_pair(run, images, start, pair, views, layer) for pair in range(VIEWS // 2)])
            for start in track(starts, "measure", len(starts))
        ]
    return torch.cat(batches, dim=1).transpose(0, 1)


def _pair(
    run: TrainedRun, images: Images, start: int, pair: int, views: ViewsConfig, layer: Layer
) -> Tensor:  # (2, B, D)
    """The layer's output for two views of each image of a batch.

    The views are made on the CPU, so that they are the same whatever device a run asks for.
    """
    pixels = torch.from_numpy(images.pixels[start : start + BATCH].copy()).permute(0, 3, 1, 2)
    generator = torch_generator(0, "compared views", start, pair)
    pairs = two_views(pixels, generator, config=views, normalization=run.info.normalization)
    compute, model = run.compute, run.model
    with compute.autocast():
        features = [model.encoder(compute.arrange(x.to(compute.device))).float() for x in pairs]
    match layer:
        case "features":
            return torch.stack(features)
        case "z":
            return torch.stack([model.projector(x) for x in features])


def _ranks(values: Sequence[float]) -> list[int | None]:
    """1 for the highest; equal values share the better rank; None where it is not finite."""
    known = [value for value in values if math.isfinite(value)]
    return [
        1 + sum(other > value for other in known) if math.isfinite(value) else None
        for value in values
    ]


def _agreements(rows: Sequence[RankedRun]) -> Iterator[Agreement]:
    """An agreement per measure and known accuracy, over the runs that have both numbers."""
    for metric in (m for m in COMPARED if any(m in row.accuracies for row in rows)):
        for name in LABEL_FREE:
            both = [row for row in rows if metric in row.accuracies and row.ranks[name] is not None]
            order = [getattr(row.measures, name) for row in both]
            yield Agreement(name, metric, kendall(order, [row.accuracies[metric] for row in both]))


def _run_notes(run: TrainedRun, dataset: Dataset) -> Iterator[str]:
    if not run.info.learned_from(dataset.train):
        yield f"trained on other images ({run.info.data['name']})"
    if run.epoch < run.info.config.epochs:
        yield f"epoch {run.epoch} of {run.info.config.epochs}"
    state = read_status(run.path).get("verdict", {}).get("state", "healthy")
    if state != "healthy":
        yield str(state)


def _notes_on_runs(
    runs: Sequence[TrainedRun], datasets: Sequence[Dataset], *, layer: Layer
) -> Iterator[str]:
    widths = sorted({_width(run, layer) for run in runs})
    if len(widths) > 1:
        yield (
            f"{layer} of {' and '.join(map(str, widths))} channels: counts of directions "
            "(all but retrieval and the difference of cosines) favour the wider layers"
        )
    unended = [str(run.path) for run in runs if run.epoch < run.info.config.epochs]
    if unended:
        yield (
            f"not trained to the end: {', '.join(unended)}; measures and scores are those of the "
            "epochs so far, and only runs that have come equally far can be compared"
        )
    views = [run.info.config.views for run in runs]
    sizes = sorted({each.size for each in views})
    if len({replace(each, size=sizes[0]) for each in views}) > 1:
        yield f"the runs learned from different views; all are measured on those of {runs[0].path}"
    if len(sizes) > 1:
        named = " and ".join(map(str, sizes))
        yield f"each run is measured on views of its own size (views.size {named} px)"
    if not same_data(runs, datasets):
        yield "the runs were trained on different images, so no accuracies are compared"


def _notes_on_scores(runs: Sequence[TrainedRun], scores: Sequence[Accuracies]) -> Iterator[str]:
    for metric in COMPARED:
        protocols = {str(s.records[metric].protocol) for s in scores if metric in s.records}
        if len(protocols) > 1:
            yield f"{metric} was measured by {len(protocols)} different protocols"
    shares = [record.majority for s in scores for record in s.records.values() if record.majority]
    if shares:
        yield (
            f"the classes are uneven: the largest has {max(shares):.1%} of the images that are "
            "scored; stopgrad evaluate reports the balanced accuracy"
        )
    now = [str(r.path) for r, s in zip(runs, scores, strict=True) if s.scored_now]
    if now:
        splits = " and ".join(sorted({r.split for s in scores for r in s.records.values()}))
        yield (
            f"scored now on images of {splits}, not in the records: {', '.join(now)}; "
            "stopgrad evaluate keeps scores"
        )


def _width(run: TrainedRun, layer: Layer) -> int:
    if layer == "features":
        return run.model.encoder.feature_width
    return run.info.config.projector.out


def _protocol(dataset: Dataset, *, layer: Layer, scores: Sequence[Accuracies]) -> dict[str, Any]:
    """All that defines the numbers."""
    first = next((record for score in scores for record in score.records.values()), None)
    return {
        "data": {"name": dataset.name, "fingerprint": dataset.train.fingerprint},
        "images": min(len(dataset.train), IMAGES),
        "views": VIEWS,
        "layer": layer,
        "split": first and first.split,
        "images_scored": first and first.images_scored,
    }
