"""Panels of a run's images -> the map of its features and the confusion matrix, with findings."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.evaluation import SPACE, class_name, count, percent
from stopgrad.report.facts import protocol_text
from stopgrad.report.panels import ConfusionPanel, MapPanel, label_of
from stopgrad.report.style import (
    SERIES,
    Figure,
    Spec,
    drawn,
    encoded,
    light,
    mark,
    nominal,
    numeric,
    plot,
)

SIDE = 440  # px of the longer side of the inside of a map
MAP_SHAPES = ("circle", "diamond", "triangle-up", "square")  # so that classes differ by these too
MOST_COLOURED = 20  # classes; of two that share a colour each has a shape of its own
NARROWEST = 0.5  # least ratio of the shorter side of a map to its longer one
MARGIN = 1.06  # ratio of the range of an axis to that of the points
SMALLEST = 1e-6  # range below which all points are one
DOT, PLAIN = 46, 14  # px² of a point whose image is shown, and of all others
SQUARE = 36  # px from one class of the matrix to the next
MOST_CONFUSED = 20  # beyond that, those with the most mistakes are drawn
DARKEST = 0.5  # opacity of a full cell: ink on it keeps its contrast, on either paper


def map_figure(panel: MapPanel) -> Figure:
    """The map with its protocol and its finding."""
    finding = map_finding(panel)
    colours = "coloured by class" if coloured_classes(panel) else "all in one colour"
    how = f"Laid out by {panel.method}, which preserves neighbours, not distances"
    if panel.method == "PCA":
        how = f"The two directions of largest variance (PCA of {count(panel.fitted)} images)"
    caption = (
        f"{count(len(panel.points))} images by their features, scaled to unit length, {colours}. "
        f"{how}. Larger points: the {count(panel.shown)} images that can be picked."
    )
    label = f"Map of the features. {finding}"
    return drawn("map", map_chart(panel), label=label, caption=caption, finding=finding)


def map_finding(panel: MapPanel) -> str:
    """How much of the features a plane can show, in one sentence."""
    images = len(panel.points)
    parts = []
    if panel.variance:
        held = percent(sum(panel.variance), images=1000)
        parts.append(f"the plane holds {held} of the variance")
    if panel.same_class:
        flat, full = (percent(fraction, images=images) for fraction in panel.same_class)
        parts.append(
            f"the nearest image on the map has the same class for {flat} of the images, "
            f"the nearest by all features for {full}"
        )
    says = "; ".join(parts)
    return f"{says[0].upper()}{says[1:]}." if parts else ""


def confusion_figure(panel: ConfusionPanel) -> Figure:
    """The confusion matrix with its protocol and its finding."""
    classes, finding = len(panel.counts), confusion_finding(panel)
    few = f" Of {classes} classes, the {MOST_CONFUSED} with the most mistakes are shown."
    caption = (
        "Rows: the true class; columns: the class that kNN predicts, in percent of the row. "
        f"{count(int(panel.counts.sum()))} images, {protocol_text(panel.protocol)}."
        f"{few if classes > MOST_CONFUSED else ''}"
    )
    label = f"Confusion matrix. {finding}"
    chart = confusion_chart(panel)
    return drawn("confusion", chart, label=label, caption=caption, finding=finding)


def confusion_finding(panel: ConfusionPanel) -> str:
    """How many mistakes there are, and the most frequent one."""
    found, total = confusions(panel), int(panel.counts.sum())
    wrong = int(mistakes(panel.counts).sum())
    if not found:
        return f"None of {count(total)} images is taken for another class."
    first = found[0]
    return (
        f"{count(wrong)} of {count(total)} images are taken for another class, most often "
        f"{first.true} for {first.taken_for} ({first.images} of {first.of})."
    )


def map_chart(panel: MapPanel) -> Spec:
    """A point for each image, close to those with similar features; pale where it cannot be picked.

    One scale for both axes. With more than 20 classes, or none, all points have one colour.
    """
    rows = [_dot_row(panel, index) for index in range(len(panel.points))]
    pale = mark("point", rows[panel.shown :], filled=True, size=PLAIN, opacity=0.4, aria=False)
    edge = {"stroke": light("paper"), "strokeWidth": 0.7}
    picked = mark("point", rows[: panel.shown], filled=True, size=DOT, opacity=0.9, **edge)
    colors = _by_class(panel)
    (x, width), (y, height) = (_map_axis(panel, place) for place in (0, 1))
    return plot(
        encoded(pale, **colors),
        encoded(picked, **colors, description=nominal("text")),
        x=numeric("x", **x),
        y=numeric("y", **y),
        width=width,
        height=height,
    )


def coloured_classes(panel: MapPanel) -> list[int]:
    """The classes that have a colour; none if there are too many."""
    present = [] if panel.labels is None else sorted(set(panel.labels.tolist()))
    return present if len(present) <= MOST_COLOURED else []


def _dot_row(panel: MapPanel, index: int) -> dict[str, Any]:
    x, y = panel.points[index].tolist()
    label = label_of(panel.labels, index)
    text = "image" if label is None else class_name(panel.class_names, label)
    return {"x": x, "y": y, "class": "" if label is None else str(label), "text": text}


def _map_axis(panel: MapPanel, place: int) -> tuple[dict[str, Any], int]:
    """One axis centred on its points, to the same scale as the other, and its length in px.

    Each is as long as its points need, but never so short that the map is a strip.
    """
    lows, highs = panel.points.min(axis=0), panel.points.max(axis=0)
    widest = max(float((highs - lows).max()), SMALLEST)
    side = round(SIDE * max(float((highs - lows)[place] / widest), NARROWEST))
    middle = float(lows[place] + highs[place]) / 2
    half = MARGIN * widest / SIDE * side / 2
    title = None
    if panel.variance:
        fraction = percent(panel.variance[place], images=1000)
        title = f"{('first', 'second')[place]} direction, {fraction} of the variance"
    scale = {"domain": [middle - half, middle + half], "nice": False, "zero": False}
    return {"title": title, "axis": {"labels": False, "grid": False}, "scale": scale}, side


def _by_class(panel: MapPanel) -> dict[str, Any]:
    classes = coloured_classes(panel)
    if not classes:
        return {"color": {"value": light("first")}}
    names = {str(index): class_name(panel.class_names, index) for index in classes}
    places, expression = range(len(classes)), f"{json.dumps(names)}[datum.value]"
    legend = {"labelExpr": expression, "columns": 5, "labelLimit": 82}
    legend |= {"symbolSize": 90, "symbolOpacity": 1}
    colors = [light(SERIES[place % len(SERIES)]) for place in places]
    shapes = [MAP_SHAPES[place % len(MAP_SHAPES)] for place in places]
    return {
        channel: nominal("class", legend=legend, scale={"domain": [*names], "range": found})
        for channel, found in (("color", colors), ("shape", shapes))
    }


class Confusion(NamedTuple):
    """One class taken for another."""

    true: str
    taken_for: str
    images: int
    of: int  # images of the class


def confusion_chart(panel: ConfusionPanel) -> Spec:
    """A row for each class: of its images, the percentage that kNN takes for each class.

    Of more than 20 classes those with the most mistakes are drawn, in their order.
    """
    shown = drawn_classes(panel)
    names = {str(index): class_name(panel.class_names, index) for index in shown}
    cells = [_square(panel, row, column) for row in shown for column in shown]
    cells = [cell for cell in cells if cell["images"] or cell["row"] == cell["column"]]
    rects = mark("rect", cells, color=light("first"), cornerRadius=3)
    texts = mark("text", cells, fontSize=12, color=light("ink"), aria=False)
    angle = 0 if max(map(len, names.values())) <= 3 else -45
    size = SQUARE * len(shown)
    return plot(
        encoded(
            rects,
            opacity=numeric("opacity", scale=None, legend=None),
            description=nominal("text"),
        ),
        encoded(texts, text=nominal("label")),
        x=nominal("column", title="predicted", **_class_axis(names, "top", angle)),
        y=nominal("row", title="true", **_class_axis(names, "left", 0)),
        title="What each class is taken for, % of its images",
        width=size,
        height=size,
    )


def confusions(panel: ConfusionPanel) -> list[Confusion]:
    """Every mistake there is, the most frequent first; of equals the first class first."""
    wrong = mistakes(panel.counts)
    flat = np.argsort(-wrong, axis=None, kind="stable")
    rows, columns = np.unravel_index(flat[: int(np.count_nonzero(wrong))], wrong.shape)
    names = panel.class_names
    return [
        Confusion(
            class_name(names, row),
            class_name(names, column),
            int(wrong[row, column]),
            int(panel.counts[row].sum()),
        )
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    ]


def drawn_classes(panel: ConfusionPanel) -> list[int]:
    """The classes that the chart shows, in their order."""
    wrong = mistakes(panel.counts)
    busy = wrong.sum(axis=0) + wrong.sum(axis=1)
    return sorted(np.argsort(-busy, kind="stable")[:MOST_CONFUSED].tolist())


def mistakes(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The counts (C, C) without their diagonal."""
    return counts - np.diag(np.diag(counts))


def _square(panel: ConfusionPanel, row: int, column: int) -> dict[str, Any]:
    images, whole = int(panel.counts[row, column]), int(panel.counts[row].sum())
    fraction = images / whole if whole else 0.0
    true, taken = (class_name(panel.class_names, index) for index in (row, column))
    verdict = "correct" if row == column else f"taken for {taken}"
    percent = f"{100 * fraction:.0f}" if fraction >= 0.005 else ("<1" if images else "0")
    return {
        "row": str(row),
        "column": str(column),
        "images": images,
        "opacity": DARKEST * fraction**0.5,
        "label": percent,
        "text": f"{true}, {verdict}: {count(images)} of {count(whole)} ({percent}{SPACE}%)",
    }


def _class_axis(
    names: dict[str, str], orient: Literal["top", "left"], angle: int
) -> dict[str, Any]:
    """Classes in order, identified by their number, because two may have the same name."""
    expression, order = f"{json.dumps(names)}[datum.value]", list(names)
    axis = {"labelExpr": expression, "labelAngle": angle, "labelLimit": 110}
    axis |= {"labelOverlap": False, "grid": False, "orient": orient}
    scale = {"domain": order, "paddingInner": 0.06}
    return {"sort": order, "axis": axis, "scale": scale}
