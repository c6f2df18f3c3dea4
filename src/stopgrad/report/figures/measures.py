"""Measures of collapse over the epochs -> a small chart each, one line per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stopgrad.evaluation import CHARTED, LAYERS, MEASURE_NAMES, number
from stopgrad.report.figures.curves import epoch_axis, told_apart
from stopgrad.report.figures.history import Rows, measured
from stopgrad.report.figures.palette import (
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
    return styled(_lines(metrics, measure).properties(width=width, height=height))


def measures_chart(metrics: Rows, *, width: int = WIDTH, height: int = HEIGHT) -> alt.ConcatChart:
    """The four measures that tell a collapse, as small multiples in two columns."""
    import altair as alt

    charts = [
        _lines(metrics, measure).properties(width=width, height=height) for measure in CHARTED
    ]
    grid: alt.ConcatChart = alt.concat(*charts, columns=2, spacing=30)
    grid = grid.resolve_scale(color="independent", strokeDash="independent")
    return styled(grid)


def _lines(metrics: Rows, measure: str) -> alt.LayerChart:
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
    return layered(lines, *points, title=MEASURE_NAMES[measure].title)


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
