"""An exploration -> what the page shows of it: a sheet of tiles with data, a map, the mistakes.

In: panels, made where torch is at home. Out: plain values for the templates `explore*.html` and
data for `explore.js`; without them the page has the chosen examples alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stopgrad.evaluation import SPACE, class_name, count, percent
from stopgrad.report.figures.confusion import MOST_CLASSES, confusion_chart, confusions, mistakes
from stopgrad.report.figures.maps import coloured_classes, map_chart
from stopgrad.report.figures.panels import ConfusionPanel, Exploration, MapPanel, NeighborPanel
from stopgrad.report.figures.style import inline_svg
from stopgrad.report.results import in_words
from stopgrad.report.sprites import Sheet, sheet

LISTED = 10  # mistakes that a table names


class Choice(NamedTuple):
    """One class that a visitor may pick."""

    value: int
    name: str


class MistakeRow(NamedTuple):
    """How often one class is taken for another."""

    true: str
    taken_for: str
    images: str
    share: str


class Gallery(NamedTuple):
    """Some hundred images to pick from."""

    source: str  # the sheet, a data URI
    data: dict[str, Any]  # for the script; see `gallery_data`
    caption: str
    classes: tuple[Choice, ...]
    judged: bool  # whether there are mistakes to look for


class Drawing(NamedTuple):
    """A figure with its words."""

    svg: str
    caption: str
    finding: str


def explorer(exploration: Exploration | None) -> dict[str, Any]:
    """All that the templates show; each part is None without its data."""
    if exploration is None:
        return {"gallery": None, "map": None, "confusion": None, "mistakes": []}
    confusion = exploration.confusion
    return {
        "gallery": gallery(exploration.gallery) if len(exploration.gallery.queries) else None,
        "map": map_drawing(exploration.map),
        "confusion": None if confusion is None else confusion_drawing(confusion),
        "mistakes": [] if confusion is None else mistake_rows(confusion),
    }


def gallery(panel: NeighborPanel) -> Gallery:
    """The images of a panel with their neighbours as tiles of one sheet."""
    rows, places = np.unique(panel.index, return_inverse=True)
    tiles = [*panel.queries.pixels[:], *panel.bank.pixels[rows]]
    made = sheet(tiles)
    labels = panel.queries.labels
    known = [] if labels is None else sorted(set(labels.tolist()))
    names = panel.bank.class_names or panel.queries.class_names
    data = gallery_data(panel, made, rows, places.reshape(panel.index.shape))
    return Gallery(
        source=made.source,
        data=data,
        caption=_gallery_caption(panel, made),
        classes=tuple(Choice(index, class_name(names, index)) for index in known),
        judged=labels is not None and panel.predicted is not None,
    )


def gallery_data(panel: NeighborPanel, made: Sheet, rows: Any, places: Any) -> dict[str, Any]:
    """What the script reads.

    Each of `images` is [class, taken for, [[tile, class, similarity], ...]]; the tile of an image
    is its place, those of neighbours follow. A class is a place in `names`, or null.

    Args:
        panel: Q queries with K neighbours each.
        made: The sheet of their tiles.
        rows: (T,) rows of the bank that the tiles from Q on show.
        places: (Q, K) places in `rows`.
    """
    first, labels = len(panel.queries), [_label(panel.bank.labels, int(row)) for row in rows]
    images: list[list[Any]] = []
    for number, near in enumerate(places):
        similarity = panel.similarity[number]
        neighbors = [
            [first + int(place), labels[place], round(float(value), 3)]
            for place, value in zip(near, similarity, strict=True)
        ]
        own, taken = (_label(k, number) for k in (panel.queries.labels, panel.predicted))
        images.append([own, taken, neighbors])
    names = panel.bank.class_names or panel.queries.class_names
    return {
        "names": [class_name(names, index) for index in range(len(names))],
        "tile": {"width": made.width, "height": made.height},
        "cell": made.cell,
        "columns": made.columns,
        "images": images,
    }


def map_drawing(panel: MapPanel) -> Drawing:
    """The map with its protocol and its finding."""
    finding = map_finding(panel)
    colours = "coloured by class" if coloured_classes(panel) else "each in one colour"
    how = {
        "PCA": f"Their two directions of the largest variance (PCA of {count(panel.fitted)} images)"
    }.get(panel.method, f"Laid out by {panel.method}, which keeps neighbours and not distances")
    caption = (
        f"{count(len(panel.points))} images by their features, scaled to unit length, {colours}. "
        f"{how}. Larger points: the {count(panel.pictured)} images that can be picked."
    )
    svg = inline_svg(map_chart(panel), label=f"Map of the features. {finding}")
    return Drawing(svg, caption, finding)


def map_finding(panel: MapPanel) -> str:
    """How much of the features a plane can show, in one sentence."""
    images = len(panel.points)
    parts = []
    if panel.variance:
        parts.append(f"the plane holds {percent(sum(panel.variance), images=1000)} of the variance")
    if panel.same_class:
        flat, full = (percent(share, images=images) for share in panel.same_class)
        parts.append(
            f"the nearest image on the map has the same class for {flat} of the images, "
            f"the nearest by all features for {full}"
        )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def confusion_drawing(panel: ConfusionPanel) -> Drawing:
    """The matrix with its protocol and its finding."""
    classes = len(panel.counts)
    few = f" Of {classes} classes the {MOST_CLASSES} that take most part in mistakes are shown."
    caption = (
        f"Of the images of each class (a row) how many per cent kNN takes for each class (a "
        f"column); {count(int(panel.counts.sum()))} images, {in_words(panel.protocol)}."
        f"{few if classes > MOST_CLASSES else ''}"
    )
    finding = confusion_finding(panel)
    svg = inline_svg(confusion_chart(panel), label=f"Confusion matrix. {finding}")
    return Drawing(svg, caption, finding)


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


def mistake_rows(panel: ConfusionPanel) -> list[MistakeRow]:
    """The most frequent mistakes."""
    return [
        MistakeRow(
            mistake.true,
            mistake.taken_for,
            f"{count(mistake.images)} of {count(mistake.of)}",
            percent(mistake.images / mistake.of, images=mistake.of),
        )
        for mistake in confusions(panel)[:LISTED]
    ]


def _gallery_caption(panel: NeighborPanel, made: Sheet) -> str:
    parts = [
        f"{count(len(panel.queries))} images, each with its {panel.index.shape[1]} nearest of "
        f"{count(len(panel.bank))} training images."
    ]
    if panel.rule:
        parts.append(f"Chosen: {panel.rule}.")
    if panel.queries.labels is not None and panel.predicted is not None:
        parts.append("A dashed frame marks what is taken for another class.")
    whole = max(panel.queries.pixels.shape[1:3])
    if max(made.width, made.height) < whole:
        parts.append(f"Pictures of {whole}{SPACE}px are reduced to {made.width}{SPACE}px.")
    elif not made.lossless:
        parts.append("Pictures are compressed.")
    return " ".join(parts)


def _label(labels: Any, row: int) -> int | None:
    return None if labels is None else int(labels[row])
