"""Panels -> pictures as data URIs with the words that stand beside them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

from stopgrad.evaluation import count
from stopgrad.report.figures.panels import NeighborPanel, Pixels, Query, ViewPanel, queries
from stopgrad.report.results import in_words

LOSSLESS = 48  # px; pictures up to this side are embedded as they are
LARGEST = 112  # px of the longer side of all others, as JPEG


class Picture(NamedTuple):
    """A picture for a page."""

    source: str  # a data URI
    text: str  # what is on it, in words


class NeighborCard(NamedTuple):
    """A neighbour on a page."""

    picture: Picture
    class_name: str
    similarity: str
    agrees: bool | None


class QueryCard(NamedTuple):
    """A query on a page."""

    picture: Picture
    class_name: str
    predicted: str
    correct: bool | None
    neighbors: tuple[NeighborCard, ...]


class QueryGroup(NamedTuple):
    """Queries that belong together under one heading ("" for none)."""

    title: str
    cards: tuple[QueryCard, ...]


def view_rows(panel: ViewPanel) -> list[tuple[Picture, ...]]:
    """Each original with its two views."""
    names = ("original", "view 1", "view 2")
    return [
        tuple(
            Picture(data_uri(pixels), f"image {number}, {name}")
            for pixels, name in zip(pictures, names, strict=True)
        )
        for number, pictures in enumerate(zip(*panel, strict=True), start=1)
    ]


def query_groups(panel: NeighborPanel) -> list[QueryGroup]:
    """The queries of a panel: those classified correctly, the mistakes, or all where unknown."""
    cards = [_card(query) for query in queries(panel)]
    titles = {True: "Classified correctly", False: "Mistakes", None: ""}
    groups = [
        QueryGroup(title, tuple(card for card in cards if card.correct is correct))
        for correct, title in titles.items()
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
        parts.append(f"Class by kNN: {in_words(panel.protocol)}.")
    if panel.queries.labels is not None and panel.bank.labels is not None:
        parts.append("A cross and a dashed frame mark another class.")
    return " ".join(parts)


def agreement(groups: Sequence[QueryGroup]) -> str:
    """How many neighbours share their query's class, in one sentence per group."""
    sentences = []
    for group in groups:
        marks = [n.agrees for card in group.cards for n in card.neighbors if n.agrees is not None]
        if marks and group.title:
            share = f"{sum(marks)} of {len(marks)} neighbours have the class of their image"
            sentences.append(f"{group.title}: {share}.")
    return " ".join(sentences)


def data_uri(pixels: Pixels) -> str:
    """A picture (H, W, 3) as a data URI: PNG when small, else a reduced JPEG."""
    from PIL import Image

    picture, file = Image.fromarray(pixels), io.BytesIO()
    if max(picture.size) <= LOSSLESS:
        picture.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        picture.save(file, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _card(query: Query) -> QueryCard:
    neighbors = tuple(
        NeighborCard(
            Picture(data_uri(n.pixels), f"neighbour {rank}{_of_class(n.class_name)}"),
            n.class_name,
            f"{n.similarity:.3f}",
            n.agrees,
        )
        for rank, n in enumerate(query.neighbors, start=1)
    )
    picture = Picture(data_uri(query.pixels), f"query{_of_class(query.class_name)}")
    return QueryCard(picture, query.class_name, query.predicted, query.correct, neighbors)


def _of_class(name: str) -> str:
    return f", {name}" if name else ""
