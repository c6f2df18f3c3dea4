"""Images with what is known of them, as plain arrays; and their charts: map, confusion matrix."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.evaluation import SPACE, class_name, count, percent
from stopgrad.report.style import Role, drawn_from, layered, light, styled
from stopgrad.storage import printable

if TYPE_CHECKING:
    import altair as alt

    from stopgrad.images import Images, Normalization

Pixels = npt.NDArray[np.uint8]
VIEWS = ("original", "view 1", "view 2")


class ViewPanel(NamedTuple):
    """Images with two views each."""

    originals: Pixels  # (N, H, W, 3) uint8
    x1: Pixels  # (N, S, S, 3) uint8
    x2: Pixels  # (N, S, S, 3) uint8


@dataclass(frozen=True)
class NeighborPanel:
    """Images with their nearest images of a bank, by cosine similarity of the features.

    `index` and `similarity` are those of `evaluation.neighbors`, nearest first; K of 8 is shown
    best. Labels of queries and bank and `predicted` may be missing: then nothing is marked.
    """

    queries: Images  # Q
    bank: Images  # N; only the rows of `index` are read
    index: npt.NDArray[np.int64]  # (Q, K) rows of the bank
    similarity: npt.NDArray[np.floating[Any]]  # (Q, K)
    predicted: npt.NDArray[np.int64] | None = None  # (Q,) the class that kNN votes for
    rule: str = ""  # how the queries were chosen, a clause for the caption
    protocol: Mapping[str, Any] = field(default_factory=dict)  # of the vote: k, T


@dataclass(frozen=True)
class MapPanel:
    """Features of M images laid out in the plane; the first `shown` images can be looked at."""

    points: npt.NDArray[np.float32]  # (M, 2)
    labels: npt.NDArray[np.int64] | None  # (M,)
    class_names: Sequence[str]
    shown: int
    method: str  # "PCA" or "PaCMAP"
    variance: tuple[float, ...] = ()  # fraction on each axis, if the axes mean something
    fitted: int = 0  # images that the method saw
    same_class: tuple[float, ...] = ()  # the nearest's class agrees: on the map, by all features


@dataclass(frozen=True)
class ConfusionPanel:
    """How many images of each class are taken for each class by kNN."""

    counts: npt.NDArray[np.int64]  # (C, C): a row for each class, a column for what it is taken for
    class_names: Sequence[str]
    protocol: Mapping[str, Any] = field(default_factory=dict)  # of the vote: k, T


class Exploration(NamedTuple):
    """All that a page needs to explore a run."""

    examples: NeighborPanel  # some, chosen by rule: what a reader sees first
    gallery: NeighborPanel  # some hundred to pick from
    map: MapPanel  # its first images are those of the gallery, in order
    confusion: ConfusionPanel | None = None  # None without labels


class Neighbor(NamedTuple):
    """One neighbour of a query."""

    pixels: Pixels  # (H, W, 3)
    similarity: float
    class_name: str  # "" without labels
    agrees: bool | None  # has the query's class; None without labels
    source: str = ""  # its file, if it has one


class Query(NamedTuple):
    """One query with its neighbours, ready to be drawn."""

    pixels: Pixels  # (H, W, 3)
    class_name: str  # "" without labels
    predicted: str  # "" without a vote
    correct: bool | None  # None without labels or a vote
    neighbors: tuple[Neighbor, ...]
    source: str = ""  # its file, if it has one


def view_panel(
    originals: Pixels,
    x1: npt.NDArray[np.float32],
    x2: npt.NDArray[np.float32],
    *,
    normalization: Normalization,
) -> ViewPanel:
    """Images with the views that a network saw, turned back from normalised values into colours.

    Args:
        originals: (N, H, W, 3) uint8.
        x1: (N, C, S, S), normalised; C = 3, or 1 for gray.
        x2: (N, C, S, S), normalised.
        normalization: The one that the views went through.
    """
    assert len(originals) == len(x1) == len(x2), (len(originals), len(x1), len(x2))
    return ViewPanel(originals, _colors(x1, normalization), _colors(x2, normalization))


def queries(panel: NeighborPanel) -> list[Query]:
    """The queries of a panel in order, each with its neighbours and what is known of them."""
    assert panel.index.shape == panel.similarity.shape == (len(panel.queries), panel.index.shape[1])
    return [_query(panel, row) for row in range(len(panel.queries))]


def _query(panel: NeighborPanel, row: int) -> Query:
    label = _label(panel.queries, row)
    vote = None if panel.predicted is None else int(panel.predicted[row])
    return Query(
        pixels=panel.queries.pixels[row],
        class_name=_name(panel, label),
        predicted=_name(panel, vote),
        correct=None if label is None or vote is None else label == vote,
        neighbors=tuple(
            _neighbor(panel, int(index), similarity=float(similarity), label=label)
            for index, similarity in zip(panel.index[row], panel.similarity[row], strict=True)
        ),
        source=_source(panel.queries, row),
    )


def _neighbor(
    panel: NeighborPanel, index: int, *, similarity: float, label: int | None
) -> Neighbor:
    own = _label(panel.bank, index)
    agrees = None if own is None or label is None else own == label
    source = _source(panel.bank, index)
    return Neighbor(panel.bank.pixels[index], similarity, _name(panel, own), agrees, source)


def _source(images: Images, row: int) -> str:
    return printable(images.sources[row]) if images.sources else ""


def _label(images: Images, row: int) -> int | None:
    return None if images.labels is None else int(images.labels[row])


def _name(panel: NeighborPanel, label: int | None) -> str:
    names = panel.bank.class_names or panel.queries.class_names
    return "" if label is None else class_name(names, label)


def _colors(x: npt.NDArray[np.float32], normalization: Normalization) -> Pixels:
    """(N, C, S, S) normalised -> (N, S, S, 3) uint8."""
    mean, std = (np.asarray(values, dtype=np.float32) for values in normalization)
    values = x.transpose(0, 2, 3, 1) * std + mean
    colors = (values * 255).round().clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colors, (*colors.shape[:3], 3)))


SIDE = 440  # px of the longer side of the inside
# Five colours, each with four shapes: so many classes differ, also without colour.
COLOURS: tuple[Role, ...] = ("first", "second", "good", "fourth", "ink")
MAP_SHAPES = ("circle", "diamond", "triangle-up", "square")
MOST_COLOURS = len(COLOURS) * len(MAP_SHAPES)
NARROWEST = 0.5  # the shorter side of a map to its longer one, at least
MARGIN = 1.06  # the range of an axis to that of the points
SMALLEST = 1e-6  # range below which all points are one
DOT, PLAIN = 46, 14  # px² of a point whose image is shown, and of all others


def map_chart(panel: MapPanel) -> alt.LayerChart:
    """A point for each image, close to those with similar features; pale where it cannot be picked.

    One scale for both axes. With more than 20 classes, or none, all points have one colour.
    """
    import altair as alt

    rows = [_dot_row(panel, index) for index in range(len(panel.points))]
    x, y = (_map_axis(panel, place) for place in (0, 1))
    pale = drawn_from(rows[panel.shown :]).mark_point(
        filled=True, size=PLAIN, opacity=0.4, aria=False
    )
    dots = drawn_from(rows[: panel.shown]).mark_point(
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
    return present if len(present) <= MOST_COLOURS else []


def _dot_row(panel: MapPanel, index: int) -> dict[str, Any]:
    x, y = panel.points[index].tolist()
    label = None if panel.labels is None else int(panel.labels[index])
    text = "image" if label is None else class_name(panel.class_names, label)
    return {"x": x, "y": y, "class": "" if label is None else str(label), "text": text}


def _map_axis(panel: MapPanel, place: int) -> Any:
    import altair as alt

    kind, field = ((alt.X, "x:Q"), (alt.Y, "y:Q"))[place]
    title = None
    if panel.variance:
        fraction = percent(panel.variance[place], images=1000)
        title = f"{('first', 'second')[place]} direction, {fraction} of the variance"
    axis = alt.Axis(labels=False, grid=False)
    low, high = _range(panel, place)
    return kind(field, title=title, axis=axis).scale(domain=[low, high], nice=False, zero=False)


def _sides(panel: MapPanel) -> list[int]:
    """px of both axes, as long as what lies along them, but no strip."""
    extent = panel.points.max(axis=0) - panel.points.min(axis=0)
    sides = np.maximum(extent / max(float(extent.max()), SMALLEST), NARROWEST)
    return [round(SIDE * float(side)) for side in sides]


def _range(panel: MapPanel, place: int) -> tuple[float, float]:
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
    shapes = [MAP_SHAPES[place // len(COLOURS)] for place in places]
    return {
        "color": alt.Color("class:N", legend=legend).scale(domain=domain, range=colors),
        "shape": alt.Shape("class:N", legend=legend).scale(domain=domain, range=shapes),
    }


SQUARE = 36  # px from one class to the next
MOST_CONFUSED = 20  # beyond that, those with the most mistakes are drawn
DARKEST = 0.5  # opacity of a full cell: ink on it keeps its contrast, on either paper


class Confusion(NamedTuple):
    """One class taken for another."""

    true: str
    taken_for: str
    images: int
    of: int  # images of the class


def confusion_chart(panel: ConfusionPanel) -> alt.LayerChart:
    """A row for each class: of its images, the percentage that kNN takes for each class.

    Of more than 20 classes those with the most mistakes are drawn, in their order.
    """
    import altair as alt

    shown = drawn_classes(panel)
    names = [class_name(panel.class_names, index) for index in shown]
    cells = [_square(panel, row, column) for row in shown for column in shown]
    data = drawn_from([cell for cell in cells if cell["images"] or cell["row"] == cell["column"]])
    order = [str(index) for index in shown]
    data = data.encode(
        x=_class_axis(
            "column:N",
            order,
            names,
            title="taken for",
            angle=0 if max(map(len, names)) <= 3 else -45,
        ),
        y=_class_axis("row:N", order, names, title="is", angle=0),
    )
    rects = data.mark_rect(color=light("first"), cornerRadius=3).encode(
        opacity=alt.Opacity("opacity:Q", scale=None, legend=None), description="text:N"
    )
    texts = data.mark_text(fontSize=12, color=light("ink"), aria=False).encode(text="label:N")
    size = SQUARE * len(shown)
    title = "What each class is taken for, % of its images"
    return styled(layered(rects, texts, title=title, width=size, height=size))


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


def _class_axis(field: str, order: list[str], names: list[str], *, title: str, angle: int) -> Any:
    """Classes in order, known by their number, because two may have the same name."""
    import altair as alt

    texts = json.dumps(dict(zip(order, names, strict=True)))
    axis = alt.Axis(
        labelExpr=f"{texts}[datum.value]",
        labelAngle=angle,
        labelLimit=110,
        labelOverlap=False,
        grid=False,
        orient="top" if field.startswith("column") else "left",
    )
    kind = alt.X if field.startswith("column") else alt.Y
    scale = alt.Scale(domain=order, paddingInner=0.06)
    return kind(field, title=title, sort=order, axis=axis, scale=scale)
