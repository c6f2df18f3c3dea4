"""Rows of metrics.jsonl -> line charts over the epochs: the loss, kNN, measures of collapse."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.evaluation import LAYERS, MEASURE_NAMES, SUBJECTS, Record, number, percent
from stopgrad.report.style import (
    DASHES,
    HEIGHT,
    SERIES,
    SHAPES,
    WIDTH,
    drawn_from,
    layered,
    light,
    styled,
)

if TYPE_CHECKING:
    import altair as alt

Row = Mapping[str, Any]
Rows = Sequence[Row]

MOST_POINTS = 300  # of the line of single steps; more would not be seen at this width
Values = list[dict[str, Any]]
MOST_TICKS = 7  # of the time axis
ONE_ROW = 36  # letters of all names of a legend; more are set in two columns


class Point(NamedTuple):
    """A value at a time, in epochs."""

    epoch: float
    value: float


def epoch_rows(metrics: Rows) -> list[Row]:
    """The rows of the finished epochs, in order."""
    return [row for row in metrics if row.get("kind") == "epoch"]


def step_losses(metrics: Rows) -> list[Point]:
    """Losses of the single steps over time, averaged over neighbours to at most 300 points."""
    epochs = epoch_rows(metrics)
    steps = [row for row in metrics if row.get("kind") == "step" and row.get("loss") is not None]
    if not epochs or not steps:
        return []
    per_epoch = epochs[-1]["step"] / epochs[-1]["epoch"]
    size = -(-len(steps) // MOST_POINTS)
    bins = (steps[start : start + size] for start in range(0, len(steps), size))
    return [Point(_mean(rows, "step") / per_epoch, _mean(rows, "loss")) for rows in bins]


def series(metrics: Rows, key: str) -> list[Point]:
    """One number over the epochs at which it was taken."""
    rows = epoch_rows(metrics)
    return [Point(row["epoch"], row[key]) for row in rows if row.get(key) is not None]


def measured(metrics: Rows, measure: str) -> Iterator[tuple[str, Point]]:
    """A measure of collapse over the epochs, as (layer, point)."""
    for row in epoch_rows(metrics):
        for layer, measures in row.get("measures", {}).items():
            if measures.get(measure) is not None:
                yield layer, Point(row["epoch"], measures[measure])


def _mean(rows: Rows, key: str) -> float:
    return sum(float(row[key]) for row in rows) / len(rows)


def loss_chart(metrics: Rows) -> alt.LayerChart:
    """The loss over the epochs: a point per epoch, and a thin line of the steps behind."""
    import altair as alt

    epochs = _losses(series(metrics, "loss"))
    x = epoch_axis(epoch_rows(metrics)[-1]["epoch"])
    y = alt.Y("value:Q", title=None).scale(zero=False)
    steps = drawn_from([point._asdict() for point in step_losses(metrics)])
    thin = steps.mark_line(color=light("third"), strokeWidth=1, opacity=0.6, aria=False)
    line = drawn_from(epochs).mark_line(color=light("first"), strokeWidth=2.5, aria=False)
    return styled(
        layered(
            thin.encode(x=x, y=y),
            line.encode(x=x, y=y),
            _points(epochs).encode(x=x, y=y, description="text:N"),
            title="loss",
            width=WIDTH,
            height=HEIGHT,
        )
    )


def knn_chart(metrics: Rows, records: Sequence[Record] = ()) -> alt.LayerChart:
    """kNN accuracy over the epochs, with the untrained encoder and raw pixels as level lines.

    Args:
        metrics: Rows of metrics.jsonl, with at least one epoch scored.
        records: Where the level lines come from: kNN with all labels, on the same images.
    """
    import altair as alt

    images = max((record.images_scored for record in records), default=1000)
    epochs = _accuracies(series(metrics, "knn"), images=images)
    levels = [row for record in _baselines(records) for row in _level(record, _last(epochs))]
    names = list(dict.fromkeys(row["name"] for row in [*epochs, *levels]))
    x = epoch_axis(_last(epochs))
    y = alt.Y("value:Q", title=None).scale(zero=False, nice=True)
    lines = drawn_from([*epochs, *levels]).mark_line(strokeWidth=2.5, aria=False)
    points = _points(epochs).encode(x=x, y=y, description="text:N")
    marks = lines.encode(x=x, y=y, **told_apart(names))
    return styled(layered(marks, points, title="kNN accuracy, %", width=WIDTH, height=HEIGHT))


def epoch_axis(last: float, *, first: float = 0.0) -> alt.X:
    """The time axis, from the first to the last epoch that is drawn, whole epochs only."""
    import altair as alt

    first = first if first < last else 0.0
    axis = alt.Axis(format="d", values=_ticks(first, last), grid=False)
    return alt.X("epoch:Q", title="epoch", axis=axis).scale(domain=[first, last], nice=False)


def _ticks(first: float, last: float) -> list[int]:
    """Whole epochs at a round distance, seven at the most."""
    wide = last - first
    steps = (size * 10**power for power in range(9) for size in (1, 2, 5))
    step = next(step for step in steps if wide / step <= MOST_TICKS - 1)
    return list(range(math.ceil(first / step) * step, math.floor(last) + 1, step))


def told_apart(names: list[str]) -> dict[str, Any]:
    """Series by colour and by dash, with one legend for both; none for a single series."""
    import altair as alt

    colors = [light(role) for role in SERIES]
    columns = 2 if sum(map(len, names)) > ONE_ROW else 0
    legend = alt.Legend(symbolType="stroke", columns=columns) if len(names) > 1 else None
    return {
        "color": alt.Color("name:N", legend=legend).scale(domain=names, range=colors),
        "strokeDash": alt.StrokeDash("name:N", legend=legend).scale(
            domain=names, range=list(DASHES)
        ),
    }


def _points(values: Values) -> alt.Chart:
    """Large points while they are few; small ones, for the pointer, when many."""
    size = 42 if len(values) <= 40 else 16
    points: alt.Chart = drawn_from(values).mark_point(
        filled=True, size=size, opacity=1, color=light("first")
    )
    return points


def _losses(points: list[Point]) -> Values:
    """Means of epochs, each at the middle of the steps that it is the mean of."""
    return [
        {
            "epoch": point.epoch - 0.5,
            "value": point.value,
            "text": f"epoch {point.epoch}: loss {number(point.value, digits=4)}",
        }
        for point in points
    ]


def _accuracies(points: list[Point], *, images: int) -> Values:
    return [
        {
            "epoch": point.epoch,
            "value": 100 * point.value,
            "name": SUBJECTS["encoder"],
            "text": f"epoch {point.epoch}: kNN {percent(point.value, images=images)}",
        }
        for point in points
    ]


def _baselines(records: Sequence[Record]) -> list[Record]:
    """The newest kNN with all labels of each subject that was not pretrained."""
    newest = {
        record.of: record
        for record in records
        if record.metric == "knn_accuracy" and record.labels == 1
    }
    return [newest[of] for of in ("untrained", "pixels") if of in newest]


def _level(record: Record, last: float) -> Values:
    value, name = 100 * record.value, SUBJECTS[record.of]
    return [{"epoch": epoch, "value": value, "name": name} for epoch in (0, last)]


def _last(values: Values) -> float:
    return max((float(row["epoch"]) for row in values), default=1.0)


def measure_chart(metrics: Rows, measure: str) -> alt.LayerChart:
    """One measure over the epochs: features, projector output before its BN, and z.

    Args:
        metrics: Rows of metrics.jsonl, with at least one epoch.
        measure: A key of `stopgrad.method.collapse.Measures`.
    """
    import altair as alt

    values = _values(metrics, measure)
    data = drawn_from(values)
    drawn = [float(row["epoch"]) for row in values] or [0.0, 1.0]
    x = epoch_axis(max(drawn), first=min(drawn))
    y = alt.Y("value:Q", title=None).scale(zero=True, nice=True)
    names = list(LAYERS.values())
    lines = data.mark_line(strokeWidth=2.5, aria=False).encode(x=x, y=y, **told_apart(names))
    size = 36 if len(values) <= 120 else 12
    # One layer of points per series, with fixed colour and shape: the lines alone make the legend.
    points = [
        data.transform_filter(f"datum.name === {name!r}")
        .mark_point(filled=True, size=size, opacity=1, color=light(role), shape=shape)
        .encode(x=x, y=y, description="text:N")
        for name, role, shape in zip(names, SERIES, SHAPES, strict=False)
    ]
    title = MEASURE_NAMES[measure].title
    return styled(layered(lines, *points, title=title, width=WIDTH, height=HEIGHT))


def _values(metrics: Rows, measure: str) -> list[dict[str, Any]]:
    return [
        {
            "epoch": point.epoch,
            "value": point.value,
            "name": LAYERS.get(layer, layer),
            "text": f"epoch {point.epoch}, {LAYERS.get(layer, layer)}: {number(point.value)}",
        }
        for layer, point in measured(metrics, measure)
    ]


FLAT = 1e-6  # range of numbers that do not vary
MOST_LINES = 5  # moments of the training that are drawn


def spectra_of(metrics: Rows) -> list[Mapping[str, Any]]:
    """The epochs that have spectra of at least three directions."""
    rows = [row for row in epoch_rows(metrics) if row.get("spectra")]
    return [row for row in rows if len(row["spectra"]["ranks"]) >= 3]


def spectrum_chart(metrics: Rows) -> alt.LayerChart:
    """Eigenvalues of E[z z^T] by their rank, both logarithmic, at moments of the training."""
    import altair as alt

    found = spectra_of(metrics)
    chosen = _spread(found)
    names = [f"epoch {row['epoch']}" for row in chosen]
    values = [
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
        if value > 0
    ]
    shades = [0.25 + 0.75 * place / max(1, len(names) - 1) for place in range(len(names))]
    opacity = alt.Opacity("name:N", legend=alt.Legend(symbolType="stroke", columns=3))
    opacity = opacity.scale(domain=names, range=shades)
    x = alt.X("rank:Q", title="direction, by its weight").scale(type="log", nice=False)
    x = x.axis(grid=False, tickCount=4, format="~s")
    y = alt.Y("value:Q", title=None).scale(type="log").axis(tickCount=4, format=".0e")
    line = drawn_from(values).mark_line(strokeWidth=2.2, color=light("first"), aria=False)
    last = drawn_from([row for row in values if row["name"] == names[-1]])
    dots = last.mark_point(filled=True, size=24, opacity=1, color=light("first"))
    return styled(
        layered(
            line.encode(x=x, y=y, opacity=opacity),
            dots.encode(x=x, y=y, description="text:N"),
            title="spectrum of z",
            width=WIDTH,
            height=HEIGHT,
        )
    )


def predictor_chart(metrics: Rows) -> alt.LayerChart:
    """Predictor against the root of the eigenvalue of z, a point per direction, last epoch.

    The line is the proportion that fits best (least squares).
    """
    import altair as alt

    points = predictor_points(metrics)
    slope = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    edge = max(x for x, _ in points)
    values = [
        {"root": x, "value": y, "text": f"root {number(x)}: predictor {number(y)}"}
        for x, y in points
    ]
    line = [{"root": 0.0, "value": 0.0}, {"root": edge, "value": slope * edge}]
    x = alt.X("root:Q", title="root of the eigenvalue of z").scale(zero=True).axis(grid=False)
    y = alt.Y("value:Q", title=None).scale(zero=True)
    fit = drawn_from(line).mark_line(color=light("third"), strokeDash=[5, 3], aria=False)
    dots = drawn_from(values).mark_point(filled=True, size=50, color=light("first"), opacity=1)
    return styled(
        layered(
            fit.encode(x=x, y=y),
            dots.encode(x=x, y=y, description="text:N"),
            title="predictor along each direction",
            width=WIDTH,
            height=HEIGHT,
        )
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


def _spread(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first, the last and some between them."""
    count = min(MOST_LINES, len(rows))
    if count < 2:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (count - 1))] for place in range(count)]
