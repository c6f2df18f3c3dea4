"""Rows of metrics.jsonl -> line charts over the epochs: the loss, kNN, measures of collapse."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.evaluation import LAYERS, MEASURE_NAMES, SUBJECTS, Record, number, percent
from stopgrad.report.figures.style import (
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


def loss_chart(metrics: Rows, *, width: int = WIDTH, height: int = HEIGHT) -> alt.LayerChart:
    """The loss over the epochs: a point per epoch, and a thin line of the steps behind.

    Args:
        metrics: Rows of metrics.jsonl, with at least one epoch.
        width: px of the inside.
        height: px of the inside.
    """
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
            width=width,
            height=height,
        )
    )


def knn_chart(
    metrics: Rows, records: Sequence[Record] = (), *, width: int = WIDTH, height: int = HEIGHT
) -> alt.LayerChart:
    """kNN accuracy over the epochs, with the untrained encoder and raw pixels as level lines.

    Args:
        metrics: Rows of metrics.jsonl, with at least one epoch scored.
        records: Where the level lines come from: kNN with all labels, on the same images.
        width: px of the inside.
        height: px of the inside.
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
    return styled(layered(marks, points, title="kNN accuracy, %", width=width, height=height))


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
    """Points that stand out while they are few, and are there to be pointed at when many."""
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


def measure_chart(
    metrics: Rows, measure: str, *, width: int = WIDTH, height: int = HEIGHT
) -> alt.LayerChart:
    """One measure over the epochs: features, projector output before its BN, and z.

    Args:
        metrics: Rows of metrics.jsonl, with at least one epoch.
        measure: A key of `stopgrad.method.collapse.Measures`.
        width: px of the inside.
        height: px of the inside.
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
    return styled(layered(lines, *points, title=title, width=width, height=height))


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
