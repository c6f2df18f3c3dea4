"""Panels of images -> the sections of a page that show them: neighbours, map, mistakes, views.

In: panels, made where torch is at home. Out: typed parts for `images.html`, and data for
`explore.js`, which lets a visitor pick an image; without script the chosen examples stand there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.evaluation import SPACE, class_name, count, percent
from stopgrad.report.charts import Figure, drawn
from stopgrad.report.evidence import Evidence
from stopgrad.report.facts import Link
from stopgrad.report.figures.confusion import MOST_CLASSES, confusion_chart, confusions, mistakes
from stopgrad.report.figures.maps import coloured_classes, map_chart
from stopgrad.report.figures.panels import (
    ConfusionPanel,
    Exploration,
    MapPanel,
    NeighborPanel,
    Query,
    ViewPanel,
    queries,
)
from stopgrad.report.run_tables import protocol_text
from stopgrad.report.table import Column, Table, TableCell
from stopgrad.report.thumbnails import Sheet, Thumbnail, data_uri, sheet

LISTED = 10  # mistakes that a table names
GROUPS = {True: "Classified correctly", False: "Mistakes", None: ""}  # by whether a vote is correct
VIEWS = ("original", "view 1", "view 2")


class NeighborCard(NamedTuple):
    """A neighbour on a page."""

    image: Thumbnail
    class_name: str
    similarity: str
    agrees: bool | None


class QueryCard(NamedTuple):
    """A query on a page."""

    image: Thumbnail
    class_name: str
    predicted: str
    correct: bool | None
    neighbors: tuple[NeighborCard, ...]


class QueryGroup(NamedTuple):
    """Queries that belong together under one heading ("" for none)."""

    title: str
    cards: tuple[QueryCard, ...]


class ClassChoice(NamedTuple):
    """A class that a visitor may pick."""

    value: int
    name: str


class Gallery(NamedTuple):
    """Some hundred images to pick from."""

    source: str  # the sheet, a data URI
    data: dict[str, Any]  # JSON for the script; see `gallery_data`
    caption: str
    classes: tuple[ClassChoice, ...]
    judged: bool  # whether there are mistakes to look for


class FoundFigure(NamedTuple):
    """A figure with the finding above it."""

    figure: Figure
    finding: str


class ImageSections(NamedTuple):
    """All that `images.html` shows; a section without data is empty and left out."""

    run: str  # whose images these are, where a study shows those of one run
    groups: Sequence[QueryGroup] = ()
    caption: str = ""  # of the groups
    agreement: str = ""
    gallery: Gallery | None = None
    map: FoundFigure | None = None
    confusion: FoundFigure | None = None
    mistakes: Table | None = None
    views: Sequence[tuple[Thumbnail, ...]] = ()

    @property
    def links(self) -> list[Link]:
        """Ways to the sections that are there."""
        sections = (
            (self.groups, Link("neighbors", "Neighbours")),
            (self.map, Link("map", "Map")),
            (self.confusion, Link("confusion", "Mistakes")),
            (self.views, Link("views", "Views")),
        )
        return [link for there, link in sections if there]


def image_sections(evidence: Evidence | None, *, run: str = "") -> ImageSections:
    """What a page shows of a run's images.

    Args:
        evidence: The run, or None to show none.
        run: Which run of a study it is; nothing where the run has the page to itself.
    """
    sections = ImageSections(run)
    if evidence is None:
        return sections
    if evidence.neighbors is not None:
        groups = query_groups(evidence.neighbors)
        caption = neighbors_caption(evidence.neighbors)
        sections = sections._replace(groups=groups, caption=caption, agreement=agreement(groups))
    if evidence.views is not None:
        sections = sections._replace(views=view_rows(evidence.views))
    if evidence.exploration is not None:
        sections = _explored(sections, evidence.exploration)
    return sections


def _explored(sections: ImageSections, exploration: Exploration) -> ImageSections:
    confusion, panel = exploration.confusion, exploration.gallery
    return sections._replace(
        gallery=gallery(panel) if len(panel.queries) else None,
        map=map_figure(exploration.map),
        confusion=None if confusion is None else confusion_figure(confusion),
        mistakes=None if confusion is None else mistake_table(confusion),
    )


def view_rows(panel: ViewPanel) -> list[tuple[Thumbnail, ...]]:
    """Each original with its two views."""
    return [
        tuple(
            Thumbnail(data_uri(pixels), f"image {number}, {name}")
            for pixels, name in zip(images, VIEWS, strict=True)
        )
        for number, images in enumerate(zip(*panel, strict=True), start=1)
    ]


def query_groups(panel: NeighborPanel) -> list[QueryGroup]:
    """The queries of a panel: those classified correctly, the mistakes, or all where unknown."""
    cards = [_card(query) for query in queries(panel)]
    groups = [
        QueryGroup(title, tuple(card for card in cards if card.correct is correct))
        for correct, title in GROUPS.items()
    ]
    return [group for group in groups if group.cards]


def neighbors_caption(panel: NeighborPanel) -> str:
    """What the neighbours are, by which protocol, and how the queries were chosen."""
    parts = [
        f"Each image with its nearest of {count(len(panel.bank))} training images, by the cosine "
        "similarity of their features."
    ]
    if panel.rule:
        parts.append(f"Chosen: {panel.rule}.")
    if panel.predicted is not None and panel.protocol:
        parts.append(f"Class by kNN: {protocol_text(panel.protocol)}.")
    if panel.queries.labels is not None and panel.bank.labels is not None:
        parts.append("A cross and a dashed frame mark another class.")
    return " ".join(parts)


def agreement(groups: Sequence[QueryGroup]) -> str:
    """How many neighbours have the class of their query, a sentence for each group."""
    sentences = []
    for group in groups:
        marks = [n.agrees for card in group.cards for n in card.neighbors if n.agrees is not None]
        if marks and group.title:
            having = f"{sum(marks)} of {len(marks)} neighbours have the class of their image"
            sentences.append(f"{group.title}: {having}.")
    return " ".join(sentences)


def gallery(panel: NeighborPanel) -> Gallery:
    """The images of a panel with their neighbours as tiles of one sheet."""
    rows, places = np.unique(panel.index, return_inverse=True)
    made = sheet([*panel.queries.pixels[:], *panel.bank.pixels[rows]])
    labels, names = panel.queries.labels, _class_names(panel)
    known = [] if labels is None else sorted(set(labels.tolist()))
    return Gallery(
        source=made.source,
        data=gallery_data(panel, made, rows, places.reshape(panel.index.shape)),
        caption=_gallery_caption(panel, made),
        classes=tuple(ClassChoice(index, class_name(names, index)) for index in known),
        judged=labels is not None and panel.predicted is not None,
    )


def gallery_data(
    panel: NeighborPanel,
    made: Sheet,
    rows: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
) -> dict[str, Any]:
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
    names = _class_names(panel)
    return {
        "names": [class_name(names, index) for index in range(len(names))],
        "tile": {"width": made.width, "height": made.height},
        "cell": made.cell,
        "columns": made.columns,
        "images": images,
    }


def map_figure(panel: MapPanel) -> FoundFigure:
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
    label = f"Map of the features. {finding}"
    return FoundFigure(drawn("map", map_chart(panel), label=label, caption=caption), finding)


def map_finding(panel: MapPanel) -> str:
    """How much of the features a plane can show, in one sentence."""
    images = len(panel.points)
    parts = []
    if panel.variance:
        parts.append(f"the plane holds {percent(sum(panel.variance), images=1000)} of the variance")
    if panel.same_class:
        flat, full = (percent(fraction, images=images) for fraction in panel.same_class)
        parts.append(
            f"the nearest image on the map has the same class for {flat} of the images, "
            f"the nearest by all features for {full}"
        )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def confusion_figure(panel: ConfusionPanel) -> FoundFigure:
    """The matrix with its protocol and its finding."""
    classes, finding = len(panel.counts), confusion_finding(panel)
    few = f" Of {classes} classes, the {MOST_CLASSES} with the most mistakes are shown."
    caption = (
        "Each row is a class, each column what kNN takes its images for, in percent of the row; "
        f"{count(int(panel.counts.sum()))} images, {protocol_text(panel.protocol)}."
        f"{few if classes > MOST_CLASSES else ''}"
    )
    label = f"Confusion matrix. {finding}"
    chart = confusion_chart(panel)
    return FoundFigure(drawn("confusion", chart, label=label, caption=caption), finding)


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


def mistake_table(panel: ConfusionPanel) -> Table | None:
    """The most frequent mistakes; None where there is none."""
    rows = tuple(
        (
            TableCell(mistake.true),
            TableCell(mistake.taken_for),
            TableCell(f"{count(mistake.images)} of {count(mistake.of)}", mistake.images),
            TableCell(
                percent(mistake.images / mistake.of, images=mistake.of),
                mistake.images / mistake.of,
            ),
        )
        for mistake in confusions(panel)[:LISTED]
    )
    numbers = Column("images", "right"), Column("of its class", "right")
    columns = (Column("is"), Column("taken for"), *numbers)
    return Table("mistakes", columns, rows, "The most frequent mistakes") if rows else None


def _card(query: Query) -> QueryCard:
    neighbors = tuple(
        NeighborCard(
            Thumbnail(data_uri(n.pixels), f"neighbour {rank}{_of_class(n.class_name)}"),
            n.class_name,
            f"{n.similarity:.3f}",
            n.agrees,
        )
        for rank, n in enumerate(query.neighbors, start=1)
    )
    image = Thumbnail(data_uri(query.pixels), f"query{_of_class(query.class_name)}")
    return QueryCard(image, query.class_name, query.predicted, query.correct, neighbors)


def _of_class(name: str) -> str:
    return f", {name}" if name else ""


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
        parts.append(f"Images of {whole}{SPACE}px are reduced to {made.width}{SPACE}px.")
    elif not made.lossless:
        parts.append("Images are compressed.")
    return " ".join(parts)


def _class_names(panel: NeighborPanel) -> Sequence[str]:
    return panel.bank.class_names or panel.queries.class_names


def _label(labels: npt.NDArray[np.int64] | None, row: int) -> int | None:
    return None if labels is None else int(labels[row])
