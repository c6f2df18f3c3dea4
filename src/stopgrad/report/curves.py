"""Rows of metrics.jsonl -> figures over the epochs: loss, kNN, measures of collapse, spectra."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt

from stopgrad.evaluation import (
    ABSENT,
    CHARTED,
    LAYERS,
    MEASURE_NAMES,
    SPACE,
    SUBJECTS,
    Record,
    number,
    percent,
)
from stopgrad.report.evidence import Evidence, Rows, epoch_rows
from stopgrad.report.style import SERIES, SHAPES, Figure, dots, drawn, line, plot, told_apart

Point = tuple[float, float]  # epoch and value

MOST_POINTS = 300  # of the line of single steps; more would not be seen at this width
MOST_TICKS = 7  # of the time axis
MOST_LINES = 5  # moments of the training whose spectrum is drawn
FEW_POINTS = 40  # that are drawn large; many are small, for the pointer alone
FLAT = 1e-6  # range of numbers that do not vary


def curve_figures(evidence: Evidence) -> list[Figure]:
    """Loss and kNN accuracy over the epochs, where they were measured."""
    figures, metrics = [], evidence.metrics
    losses, scored = (series(metrics, key) for key in ("loss", "knn"))
    if evidence.epochs:
        finding = _change("Loss", losses, lambda x: number(x, digits=3))
        caption = (
            "Negative cosine similarity of the two views. Points: means of the epochs; thin line: "
            f"single steps. {finding}"
        )
        label = f"Line: the loss over the epochs. {finding}"
        figures.append(drawn("loss", loss_chart(metrics), label=label, caption=caption))
    if scored:
        images, config = evidence.images_watched, evidence.info.config.knn
        finding = _change("kNN", scored, lambda x: percent(x, images=images))
        caption = (
            f"Measured during the run on the {evidence.watched_split} images: at most "
            f"k{SPACE}={SPACE}{config.k}, T{SPACE}={SPACE}{config.temperature:g}, cosine. {finding}"
        )
        label = f"Line: kNN accuracy over the epochs. {finding}"
        chart = knn_chart(metrics, evidence.watched)
        figures.append(drawn("knn", chart, label=label, caption=caption))
    return figures


def measure_figures(evidence: Evidence) -> list[Figure]:
    """The measures that reveal a collapse."""
    if not any(row.get("measures") for row in evidence.epochs):
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
    """How z fills its directions, and the predictor along each, where spectra were taken."""
    found = spectra_of(metrics)
    if not found:
        return []
    ranks, weights = (found[-1]["spectra"][key] for key in ("ranks", "representation"))
    ratio = number(weights[-1] / weights[0], digits=2)
    epoch, last = found[-1]["epoch"], ranks[-1]
    fell = f"At epoch {epoch}, direction {last} has {ratio} times the weight of the first."
    r = correlation(predictor_points(metrics))
    says = f"Correlation of the points: {number(r, digits=2)}." if r is not None else ""
    return [
        drawn(
            "spectrum",
            spectrum_chart(metrics),
            label=f"Lines: eigenvalues of z by rank, at several epochs. {fell}",
            caption="Eigenvalues of the second moment of z, on views of training images. A flat "
            f"curve is healthy; a steep one means that few directions are used. {fell}",
        ),
        drawn(
            "predictor-spectrum",
            predictor_chart(metrics),
            label=f"Points: the predictor along each direction of z. {says}",
            caption="In theory (Tian et al. 2021) all directions lie on a line through 0; dashed: "
            f"the best fit. {says}",
        ),
    ]


def measure_caption(measure: str) -> str:
    """What a measure of collapse says, and its values at both ends."""
    known = MEASURE_NAMES[measure]
    says = known.meaning[0].upper() + known.meaning[1:]
    return f"{says}. Healthy: {known.healthy}; collapsed: {known.collapsed}."


def collapse_finding(evidence: Evidence) -> str:
    """The verdicts over the epochs: `Verdict: healthy in epochs 1–3.`."""
    parts = []
    for state, rows in itertools.groupby(evidence.epochs, evidence.state_of):
        epochs = [row["epoch"] for row in rows]
        first, last = epochs[0], epochs[-1]
        where = f"epoch {first}" if first == last else f"epochs {first}{ABSENT}{last}"
        parts.append(f"{state or 'unknown'} in {where}")
    return f"Verdict: {'; '.join(parts)}." if parts else ""


def _change(name: str, points: list[Point], written: Callable[[float], str]) -> str:
    if not points:
        return ""
    ends = [f"{written(value)} at epoch {epoch}" for epoch, value in (points[0], points[-1])]
    return f"{name}: from {ends[0]} to {ends[1]}." if len(points) > 1 else f"{name}: {ends[0]}."


def series(metrics: Rows, key: str) -> list[Point]:
    """One number over the epochs at which it was taken."""
    rows = epoch_rows(metrics)
    return [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]


def step_losses(metrics: Rows) -> list[Point]:
    """Losses of the single steps over time, averaged over neighbours to at most 300 points."""
    epochs = epoch_rows(metrics)
    steps = [row for row in metrics if row.get("kind") == "step" and row.get("loss") is not None]
    if not epochs:
        return []
    per_epoch = epochs[-1]["step"] / epochs[-1]["epoch"]
    size = max(1, -(-len(steps) // MOST_POINTS))
    bins = (steps[start : start + size] for start in range(0, len(steps), size))
    return [(_mean(rows, "step") / per_epoch, _mean(rows, "loss")) for rows in bins]


def _mean(rows: Rows, key: str) -> float:
    return sum(float(row[key]) for row in rows) / len(rows)


def loss_chart(metrics: Rows) -> alt.LayerChart:
    """The loss over the epochs: a point per epoch, and a thin line of the steps behind."""
    epochs = [
        {
            "epoch": epoch - 0.5,  # a mean stands at the middle of the steps that it is the mean of
            "value": value,
            "text": f"epoch {epoch}: loss {number(value, digits=4)}",
        }
        for epoch, value in series(metrics, "loss")
    ]
    steps = [{"epoch": epoch, "value": value} for epoch, value in step_losses(metrics)]
    return plot(
        line(steps, role="third", width=1, opacity=0.6),
        line(epochs, role="first"),
        dots(epochs, size=42 if len(epochs) <= FEW_POINTS else 16),
        x=epoch_axis(epoch_rows(metrics)[-1]["epoch"]),
        y=alt.Y("value:Q", title=None).scale(zero=False),
        title="loss",
    )


def knn_chart(metrics: Rows, records: Sequence[Record] = ()) -> alt.LayerChart:
    """kNN accuracy over the epochs, of which at least one was scored.

    The untrained encoder and raw pixels are level lines: kNN with all labels, on the same images.
    """
    images = max((record.images_scored for record in records), default=1000)
    epochs: list[dict[str, Any]] = [
        {
            "epoch": epoch,
            "value": 100 * value,
            "name": SUBJECTS["encoder"],
            "text": f"epoch {epoch}: kNN {percent(value, images=images)}",
        }
        for epoch, value in series(metrics, "knn")
    ]
    last = epochs[-1]["epoch"]
    knn = {r.of: r for r in records if r.metric == "knn_accuracy" and r.labels == 1}
    levels = [
        {"epoch": epoch, "value": 100 * knn[of].value, "name": SUBJECTS[of]}
        for of in ("untrained", "pixels")
        if of in knn
        for epoch in (0, last)
    ]
    rows = [*epochs, *levels]
    return plot(
        line(rows).encode(**told_apart(list(dict.fromkeys(row["name"] for row in rows)))),
        dots(epochs, size=42 if len(epochs) <= FEW_POINTS else 16),
        x=epoch_axis(last),
        y=alt.Y("value:Q", title=None).scale(zero=False, nice=True),
        title="kNN accuracy, %",
    )


def epoch_axis(last: float, *, first: float = 0.0) -> alt.X:
    """The time axis, from the first to the last epoch that is drawn, whole epochs only."""
    first = first if first < last else 0.0
    axis = alt.Axis(format="d", values=_ticks(first, last), grid=False)
    return alt.X("epoch:Q", title="epoch", axis=axis).scale(domain=[first, last], nice=False)


def _ticks(first: float, last: float) -> list[int]:
    """Whole epochs at a round distance, seven at the most."""
    wide = last - first
    steps = (size * 10**power for power in range(9) for size in (1, 2, 5))
    step = next(step for step in steps if wide / step <= MOST_TICKS - 1)
    return list(range(math.ceil(first / step) * step, math.floor(last) + 1, step))


def measure_chart(metrics: Rows, measure: str) -> alt.LayerChart:
    """One of `MEASURE_NAMES` over the epochs: features, projector output before its BN, and z."""
    rows = [
        {
            "epoch": row["epoch"],
            "value": value,
            "name": (name := LAYERS.get(layer, layer)),
            "text": f"epoch {row['epoch']}, {name}: {number(value)}",
        }
        for row in epoch_rows(metrics)
        for layer, measures in (row.get("measures") or {}).items()
        if (value := measures.get(measure)) is not None
    ]
    epochs, names = [row["epoch"] for row in rows] or [0.0, 1.0], list(LAYERS.values())
    size = 36 if len(rows) <= len(names) * FEW_POINTS else 12
    # One layer of points per series, with fixed colour and shape: the lines alone make the legend.
    points = [
        dots([r for r in rows if r["name"] == name], size=size, role=role, shape=shape)
        for name, role, shape in zip(names, SERIES, SHAPES, strict=False)
    ]
    return plot(
        line(rows).encode(**told_apart(names)),
        *points,
        x=epoch_axis(max(epochs), first=min(epochs)),
        y=alt.Y("value:Q", title=None).scale(zero=True, nice=True),
        title=MEASURE_NAMES[measure].title,
    )


def spectra_of(metrics: Rows) -> list[Mapping[str, Any]]:
    """The epochs that have spectra of at least three directions."""
    rows = [row for row in epoch_rows(metrics) if row.get("spectra")]
    return [row for row in rows if len(row["spectra"]["ranks"]) >= 3]


def spectrum_chart(metrics: Rows) -> alt.LayerChart:
    """Eigenvalues of E[z z^T] by their rank, both logarithmic, at moments of the training."""
    found = spectra_of(metrics)
    count = min(MOST_LINES, len(found))  # the first, the last and some between them
    chosen = [found[round(n * (len(found) - 1) / max(1, count - 1))] for n in range(count)]
    names = [f"epoch {row['epoch']}" for row in chosen]
    rows = [
        {
            "rank": rank,
            "value": value,
            "name": name,
            "text": f"{name}, rank {rank}: {number(value)}",
        }
        for row, name in zip(chosen, names, strict=True)
        for rank, value in zip(
            row["spectra"]["ranks"], row["spectra"]["representation"], strict=True
        )
    ]
    shades = [0.25 + 0.75 * place / max(1, len(names) - 1) for place in range(len(names))]
    opacity = alt.Opacity("name:N", legend=alt.Legend(symbolType="stroke", columns=3))
    x = alt.X("rank:Q", title="direction, by its weight").scale(type="log", nice=False)
    return plot(
        line(rows, role="first", width=2.2).encode(
            opacity=opacity.scale(domain=names, range=shades)
        ),
        dots([row for row in rows if row["name"] == names[-1]], size=24),
        x=x.axis(grid=False, tickCount=4, format="~s"),
        y=alt.Y("value:Q", title=None).scale(type="log").axis(tickCount=4, format=".0e"),
        title="spectrum of z",
    )


def predictor_chart(metrics: Rows) -> alt.LayerChart:
    """Predictor against the root of the eigenvalue of z, a point per direction, last epoch.

    The line is the proportion that fits best (least squares).
    """
    points = predictor_points(metrics)
    slope = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    rows = [
        {"root": x, "value": y, "text": f"root {number(x)}: predictor {number(y)}"}
        for x, y in points
    ]
    fit = [{"root": x, "value": slope * x} for x in (0.0, max(x for x, _ in points))]
    return plot(
        line(fit, role="third", width=2, strokeDash=[5, 3]),
        dots(rows, size=50),
        x=alt.X("root:Q", title="root of the eigenvalue of z").scale(zero=True).axis(grid=False),
        y=alt.Y("value:Q", title=None).scale(zero=True),
        title="predictor along each direction",
    )


def predictor_points(metrics: Rows) -> list[tuple[float, float]]:
    """(root of the eigenvalue, predictor) of the last spectra."""
    spectra = spectra_of(metrics)[-1]["spectra"]
    pairs = zip(spectra["representation"], spectra["predictor"], strict=True)
    return [(math.sqrt(value), predicted) for value, predicted in pairs]


def correlation(points: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's correlation of the points; None where either does not vary."""
    roots, predicted = zip(*points, strict=True)
    if any(max(values) - min(values) < FLAT for values in (roots, predicted)):
        return None
    return statistics.correlation(roots, predicted)
