"""Features in the plane -> a map, coloured by class."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from stopgrad.evaluation import class_name, percent
from stopgrad.report.figures.panels import MapPanel
from stopgrad.report.figures.style import Role, drawn_from, layered, light, styled

if TYPE_CHECKING:
    import altair as alt

SIDE = 440  # px of the longer side of the inside
# Five colours, each with four shapes: so many classes can be told apart, also without colour.
COLOURS: tuple[Role, ...] = ("first", "second", "good", "fourth", "ink")
SHAPES = ("circle", "diamond", "triangle-up", "square")
MOST_CLASSES = len(COLOURS) * len(SHAPES)
NARROWEST = 0.5  # the shorter side of a map to its longer one, at least
MARGIN = 1.06  # the range of an axis to that of the points
SMALLEST = 1e-6  # range below which all points are one
DOT, PLAIN = 46, 14  # px² of an image with a picture and of one without


def map_chart(panel: MapPanel) -> alt.LayerChart:
    """A point for each image, near others with similar features; those without a picture pale.

    One scale for both axes. With more than 20 classes, or none, all points have one colour.
    """
    import altair as alt

    rows = [_row(panel, index) for index in range(len(panel.points))]
    x, y = (_axis(panel, place) for place in (0, 1))
    pale = drawn_from(rows[panel.pictured :]).mark_point(
        filled=True, size=PLAIN, opacity=0.4, aria=False
    )
    dots = drawn_from(rows[: panel.pictured]).mark_point(
        filled=True, size=DOT, opacity=0.9, stroke=light("paper"), strokeWidth=0.7
    )
    layers = [
        marks.encode(x=x, y=y, **_by_class(panel)).encode(**extra)
        for marks, extra in ((pale, {}), (dots, {"description": alt.Description("text:N")}))
    ]
    width, height = _sides(panel)
    return styled(layered(*layers, width=width, height=height))


def coloured_classes(panel: MapPanel) -> list[int]:
    """The classes that have a colour; none when they are too many."""
    present = [] if panel.labels is None else sorted(set(panel.labels.tolist()))
    return present if len(present) <= MOST_CLASSES else []


def _row(panel: MapPanel, index: int) -> dict[str, Any]:
    x, y = panel.points[index].tolist()
    label = None if panel.labels is None else int(panel.labels[index])
    text = "image" if label is None else class_name(panel.class_names, label)
    return {"x": x, "y": y, "class": "" if label is None else str(label), "text": text}


def _axis(panel: MapPanel, place: int) -> Any:
    import altair as alt

    kind, field = ((alt.X, "x:Q"), (alt.Y, "y:Q"))[place]
    title = None
    if panel.variance:
        share = percent(panel.variance[place], images=1000)
        title = f"{('first', 'second')[place]} direction, {share} of the variance"
    axis = alt.Axis(labels=False, grid=False)
    low, high = _domain(panel, place)
    return kind(field, title=title, axis=axis).scale(domain=[low, high], nice=False, zero=False)


def _sides(panel: MapPanel) -> list[int]:
    """px of both axes, as long as what lies along them, but no strip."""
    extent = panel.points.max(axis=0) - panel.points.min(axis=0)
    shares = np.maximum(extent / max(float(extent.max()), SMALLEST), NARROWEST)
    return [round(SIDE * float(share)) for share in shares]


def _domain(panel: MapPanel, place: int) -> tuple[float, float]:
    """The range of one axis around the middle of its points; a px is as much on both."""
    lows, highs = panel.points.min(axis=0), panel.points.max(axis=0)
    per_px = MARGIN * max(float((highs - lows).max()), SMALLEST) / SIDE
    middle, half = float(lows[place] + highs[place]) / 2, per_px * _sides(panel)[place] / 2
    return middle - half, middle + half


def _by_class(panel: MapPanel) -> dict[str, Any]:
    import altair as alt

    classes = coloured_classes(panel)
    if not classes:
        return {"color": alt.value(light("first"))}
    domain = [str(index) for index in classes]
    names = {str(index): class_name(panel.class_names, index) for index in classes}
    places = range(len(classes))
    legend = alt.Legend(
        labelExpr=f"{json.dumps(names)}[datum.value]",
        columns=5,
        symbolSize=90,
        symbolOpacity=1,
        labelLimit=82,
    )
    colors = [light(COLOURS[place % len(COLOURS)]) for place in places]
    shapes = [SHAPES[place // len(COLOURS)] for place in places]
    return {
        "color": alt.Color("class:N", legend=legend).scale(domain=domain, range=colors),
        "shape": alt.Shape("class:N", legend=legend).scale(domain=domain, range=shapes),
    }
