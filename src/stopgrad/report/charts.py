"""A run -> its figures: SVG with a caption that states the protocol and what was found."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.config import Config
from stopgrad.evaluation import (
    ABSENT,
    CHARTED,
    MEASURE_NAMES,
    SPACE,
    metric_text,
    number,
    percent,
)
from stopgrad.report.evidence import Evidence
from stopgrad.report.figures.accuracy import MOST_CLASSES, accuracy_chart, per_class_chart
from stopgrad.report.figures.architecture import architecture_svg
from stopgrad.report.figures.curves import Point, Rows, knn_chart, loss_chart, measure_chart, series
from stopgrad.report.figures.spectra import agreement as correlation
from stopgrad.report.figures.spectra import (
    predictor_chart,
    predictor_points,
    spectra_of,
    spectrum_chart,
)
from stopgrad.report.figures.style import inline_svg
from stopgrad.report.run_tables import metrics_of

if TYPE_CHECKING:
    from stopgrad.report.figures.style import Drawing


class Figure(NamedTuple):
    """A chart on a page."""

    svg: str  # escaped by its maker
    caption: str
    name: str  # of its file
    chart: Drawing


def drawn(name: str, chart: Drawing, *, label: str, caption: str) -> Figure:
    """A chart made ready for a page; `label` says what one sees on it."""
    return Figure(inline_svg(chart, label=label), caption, name, chart)


def accuracy_figures(evidence: Evidence) -> list[Figure]:
    """Bars of every metric beside the baselines."""
    records = evidence.scored
    classes = len(evidence.info.data.get("class_names") or [])
    chance = 1 / classes if classes else None
    guess = f" Dashed: guessing among {classes} classes." if classes else ""
    return [
        drawn(
            metric,
            accuracy_chart(records, metric, chance=chance),
            label=f"Bars: {metric_text(metric)} accuracy, as in the table of results.",
            caption=f"Top-1 accuracy by {metric_text(metric)}.{guess}",
        )
        for metric in metrics_of(records)
    ]


def class_figures(evidence: Evidence) -> list[Figure]:
    """Accuracy of each class by the first metric that has it."""
    records = [r for r in evidence.scored if r.per_class and r.labels == 1]
    if not any(record.of == "encoder" for record in records):
        return []
    names = evidence.info.data.get("class_names") or []
    metric = metrics_of(records)[0]
    few = " The best 15 and the worst 15 are shown." if len(names) > MOST_CLASSES else ""
    chart = per_class_chart(records, names, metric)
    label = f"Points: {metric_text(metric)} accuracy of each class, best of the encoder first."
    caption = f"Accuracy of each class by {metric_text(metric)} with all labels, best first.{few}"
    return [drawn("classes", chart, label=label, caption=caption)]


def curve_figures(evidence: Evidence) -> list[Figure]:
    """Loss and kNN accuracy over the epochs."""
    figures = []
    if evidence.epochs:
        label = f"Line: the loss over the epochs. {loss_finding(evidence)}"
        chart = loss_chart(evidence.metrics)
        caption = (
            "Negative cosine similarity of the two views; points: means of the epochs, thin line: "
            f"single steps. {loss_finding(evidence)}"
        )
        figures.append(drawn("loss", chart, label=label, caption=caption))
    if series(evidence.metrics, "knn"):
        records, config = evidence.watched, evidence.info.config.knn
        caption = (
            f"Watched during the run on the {evidence.watched_split} images: "
            f"k{SPACE}={SPACE}{config.k} at most, T{SPACE}={SPACE}{config.temperature:g}, "
            f"cosine. {knn_finding(evidence)}"
        )
        label = f"Line: kNN accuracy over the epochs. {knn_finding(evidence)}"
        chart = knn_chart(evidence.metrics, records)
        figures.append(drawn("knn", chart, label=label, caption=caption))
    return figures


def measure_figures(evidence: Evidence) -> list[Figure]:
    """The four measures that tell a collapse."""
    if not any(row.measures for row in evidence.epochs):
        return []
    return [
        drawn(
            measure,
            measure_chart(evidence.metrics, measure),
            label=f"Lines: {MEASURE_NAMES[measure].title} of three layers over the epochs.",
            caption=measure_caption(measure),
        )
        for measure in CHARTED
    ]


def spectrum_figures(metrics: Rows) -> list[Figure]:
    """How the directions of z fill, and the predictor along each, where spectra were taken."""
    found = spectra_of(metrics)
    if not found:
        return []
    spectrum, points = found[-1]["spectra"], predictor_points(metrics)
    ranks, weights = spectrum["ranks"], spectrum["representation"]
    share = number(weights[-1] / weights[0], digits=2)
    fell = f"At epoch {found[-1]['epoch']} direction {ranks[-1]} has {share} of the first's weight."
    r = correlation(points)
    says = f"Correlation of the points: {number(r, digits=2)}." if r is not None else ""
    return [
        drawn(
            "spectrum",
            spectrum_chart(metrics),
            label=f"Lines: eigenvalues of z by rank, at moments of the training. {fell}",
            caption="Eigenvalues of the second moment of z, on views of training images; flat is "
            f"healthy, steep means that few directions are used. {fell}",
        ),
        drawn(
            "predictor-spectrum",
            predictor_chart(metrics),
            label=f"Points: the predictor along each direction of z. {says}",
            caption="Theory (Tian et al. 2021) puts all directions on a line through 0; dashed: "
            f"the proportion that fits best. {says}",
        ),
    ]


def architecture_figure(config: Config, *, name: str = "this run") -> Figure:
    """The network of a run as it was set."""
    text = (
        f"The network of {name}: both views pass the same weights. Blue arrows carry the "
        "gradient; at the red bars it stops. A part that is left out is dashed and red."
    )
    return drawn("architecture", architecture_svg(config), label=text, caption=text)


def architecture_figures(evidence: Evidence) -> list[Figure]:
    """The network of a pretraining."""
    pretrained = evidence.info.task == "pretrain"
    return [architecture_figure(evidence.info.config)] if pretrained else []


def measure_caption(measure: str) -> str:
    """What a measure of collapse says, and its values at both ends."""
    known = MEASURE_NAMES[measure]
    return f"{_sentence(known.meaning)} Healthy: {known.healthy}; collapsed: {known.collapsed}."


def loss_finding(evidence: Evidence) -> str:
    """How far the loss went."""
    return _change("Loss", series(evidence.metrics, "loss"), lambda x: number(x, digits=3))


def knn_finding(evidence: Evidence) -> str:
    """How far kNN accuracy went."""
    images = evidence.images_watched
    scored = series(evidence.metrics, "knn")
    return _change("kNN", scored, lambda x: percent(x, images=images))


def collapse_finding(evidence: Evidence) -> str:
    """The verdicts over the epochs, stretch by stretch."""
    states = [
        (row.epoch, (row.judgement and row.judgement.state) or "unknown") for row in evidence.epochs
    ]
    parts = [
        _stretch(state, list(rows)) for state, rows in itertools.groupby(states, lambda s: s[1])
    ]
    return f"Verdict: {'; '.join(parts)}." if parts else ""


def _stretch(state: str, rows: list[tuple[int, str]]) -> str:
    first, last = rows[0][0], rows[-1][0]
    where = f"epoch {first}" if first == last else f"epochs {first}{ABSENT}{last}"
    return f"{state} in {where}"


def _change(name: str, points: list[Point], written: Callable[[float], str]) -> str:
    if not points:
        return ""
    first, last = points[0], points[-1]
    if len(points) == 1:
        return f"{name}: {written(first.value)} at epoch {first.epoch}."
    start = f"{written(first.value)} at epoch {first.epoch}"
    return f"{name}: from {start} to {written(last.value)} at epoch {last.epoch}."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
