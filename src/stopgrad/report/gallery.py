"""Panels of images -> the sections of a page that show them: neighbours, map, mistakes, views.

Out: images as data URIs, alone or many on one sheet; typed parts for `images.html`; and data for
`picker.js`, which lets a visitor pick an image. Without script the chosen examples stand there.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from stopgrad.evaluation import SPACE, class_name, count, percent
from stopgrad.images import Pixels
from stopgrad.report.evidence import Evidence
from stopgrad.report.facts import protocol_text
from stopgrad.report.maps import confusion_figure, confusions, map_figure
from stopgrad.report.panels import (
    ConfusionPanel,
    NeighborPanel,
    Query,
    how_shown,
    label_of,
    queries,
    shown,
)
from stopgrad.report.style import Figure
from stopgrad.report.table import Column, Table, TableCell

LOSSLESS = 48  # px; single images up to this side are embedded as they are
LARGEST = 112  # px of the longer side of all others, as JPEG

TILE = 48  # px of the longer side of a tile; larger images are reduced
SMALLER = (32, 24, 16)  # px of that side, where the sheet would be too large
BLOCK = 16  # px; WebP compresses in such blocks, and no tile shares one with its neighbour
MOST_BYTES = 1_000_000  # of a sheet, before base64 adds a third
QUALITIES = (75, 50, 30)  # of lossy WebP, tried in turn

LISTED = 10  # mistakes that a table names
GROUPS = {True: "Classified correctly", False: "Mistakes", None: ""}  # by whether a vote is correct


class Sheet(NamedTuple):
    """Tiles side by side, row by row: tile n stands in column n % columns, row n // columns."""

    source: str  # a data URI, WebP
    width: int  # px of a tile
    height: int  # px of a tile
    cell: int  # px from one tile to the next, both ways
    columns: int
    lossless: bool


def data_uri(pixels: Pixels) -> str:
    """An image (H, W, 3) as a data URI: PNG when small, else a reduced JPEG."""
    image = Image.fromarray(pixels)
    if max(image.size) <= LOSSLESS:
        return _encoded(image, "PNG", optimize=True)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return _encoded(image, "JPEG", quality=85)


def sheet(images: Sequence[Pixels], *, most_bytes: int = MOST_BYTES) -> Sheet:
    """One sheet of images (H, W, 3) of one size, lossless if that takes few enough bytes.

    Else at the best quality that is small enough, as a last resort with smaller tiles.
    """
    for made in _attempts(images):
        if len(made.source) <= 4 * most_bytes / 3:
            return made
    return made


def _attempts(images: Sequence[Pixels]) -> Iterator[Sheet]:
    """Smaller and smaller sheets, in bytes."""
    whole = max(images[0].shape[:2])
    longest = min(whole, TILE)
    for side in [longest, *(side for side in SMALLER if side < longest)]:
        canvas, layout = _laid_out([_reduced(pixels, side) for pixels in images])
        if side == whole:
            source = _encoded(canvas, "WEBP", method=2, lossless=True)
            yield layout._replace(source=source, lossless=True)
        for quality in QUALITIES:
            yield layout._replace(source=_encoded(canvas, "WEBP", method=2, quality=quality))


def _reduced(pixels: Pixels, side: int) -> Pixels:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _laid_out(tiles: Sequence[Pixels]) -> tuple[Image.Image, Sheet]:
    """The tiles on one canvas; the room between them continues their edges."""
    height, width = tiles[0].shape[:2]
    cell = BLOCK * math.ceil(max(height, width) / BLOCK)
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    canvas = np.zeros((rows * cell, columns * cell, 3), dtype=np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (cell * place for place in divmod(number, columns))
        padded = np.pad(tile, ((0, cell - height), (0, cell - width), (0, 0)), mode="edge")
        canvas[top : top + cell, left : left + cell] = padded
    return Image.fromarray(canvas), Sheet("", width, height, cell, columns, lossless=False)


def _encoded(image: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


class Gallery(NamedTuple):
    """Some hundred images to pick from."""

    source: str  # the sheet, a data URI
    data: dict[str, Any]  # JSON for the script; see `gallery_data`
    caption: str
    classes: Sequence[tuple[int, str]]  # that a visitor may pick, with their names
    judged: bool  # whether there are mistakes to look for


class QueryGroup(NamedTuple):
    """Queries that belong together under one heading ("" for none)."""

    title: str
    cards: Sequence[Query]


class ImageSections(NamedTuple):
    """All that `images.html` shows; a section without data is empty and left out."""

    run: str  # whose images these are, where a study shows those of one run
    groups: Sequence[QueryGroup] = ()
    caption: str = ""  # of the groups
    agreement: str = ""
    gallery: Gallery | None = None
    map: Figure | None = None
    confusion: Figure | None = None
    mistakes: Table | None = None
    views: Sequence[tuple[Pixels, Pixels, Pixels]] = ()  # originals with their views


def image_sections(evidence: Evidence | None, *, run: str = "") -> ImageSections:
    """The sections on a run's images; `run` says which one of a study it is."""
    sections = ImageSections(run)
    if evidence is None:
        return sections
    neighbors, views, found = evidence.neighbors, evidence.views, evidence.exploration
    if neighbors is not None:
        groups = query_groups(neighbors)
        caption = neighbors_caption(neighbors)
        sections = sections._replace(groups=groups, caption=caption, agreement=agreement(groups))
    if views is not None:
        sections = sections._replace(views=list(zip(*views, strict=True)))
    if found is not None:
        pick = gallery(found.gallery) if len(found.gallery.queries) else None
        sections = sections._replace(gallery=pick, map=map_figure(found.map))
    if found is not None and found.confusion is not None:
        figure, mistakes = confusion_figure(found.confusion), mistake_table(found.confusion)
        sections = sections._replace(confusion=figure, mistakes=mistakes)
    return sections


def query_groups(panel: NeighborPanel) -> list[QueryGroup]:
    """The queries of a panel: those classified correctly, the mistakes, or all where unknown."""
    cards = queries(panel)
    groups = [
        QueryGroup(title, [card for card in cards if card.correct is correct])
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
    return " ".join(filter(None, [*parts, how_shown(panel.bank.channels)]))


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
    made = sheet([*map(shown, (*panel.queries.pixels[:], *panel.bank.pixels[rows]))])
    labels = panel.queries.labels
    known = [] if labels is None else sorted(set(labels[labels >= 0].tolist()))
    return Gallery(
        source=made.source,
        data=gallery_data(panel, made, rows, places.reshape(panel.index.shape)),
        caption=_gallery_caption(panel, made),
        classes=[(index, class_name(panel.class_names, index)) for index in known],
        judged=labels is not None and panel.predicted is not None,
    )


def gallery_data(
    panel: NeighborPanel,
    made: Sheet,
    rows: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """The data for the script.

    Each of `images` is [class, taken for, [[tile, class, similarity], ...]]; the tile of an image
    is its index, those of neighbours follow. A class is an index into `names`, or null.

    Args:
        panel: Q queries with K neighbours each.
        made: The sheet of their tiles.
        rows: (T,) rows of the bank that the tiles from Q on show.
        places: (Q, K) indices into `rows`.
    """
    first, labels = len(panel.queries), [label_of(panel.bank.labels, int(row)) for row in rows]
    images: list[list[Any]] = []
    for number, near in enumerate(places.tolist()):
        similarity = panel.similarity[number]
        neighbors = [
            [first + place, labels[place], round(float(value), 3)]
            for place, value in zip(near, similarity, strict=True)
        ]
        own, taken = (label_of(k, number) for k in (panel.queries.labels, panel.predicted))
        images.append([own, taken, neighbors])
    names = panel.class_names
    return {
        "names": [class_name(names, index) for index in range(len(names))],
        "tile": {"width": made.width, "height": made.height},
        "cell": made.cell,
        "columns": made.columns,
        "images": images,
    }


def mistake_table(panel: ConfusionPanel) -> Table | None:
    """The most frequent mistakes; None where there is none."""
    rows = []
    for true, taken_for, images, of in confusions(panel)[:LISTED]:
        wrong = TableCell(f"{count(images)} of {count(of)}", images)
        share = TableCell(percent(images / of, images=of), images / of)
        rows.append((TableCell(true), TableCell(taken_for), wrong, share))
    numbers = Column("images", "right"), Column("of its class", "right")
    columns = (Column("true"), Column("predicted"), *numbers)
    return Table("mistakes", columns, tuple(rows), "The most frequent mistakes") if rows else None


def _gallery_caption(panel: NeighborPanel, made: Sheet) -> str:
    parts = [
        f"{count(len(panel.queries))} images, each with its {panel.index.shape[1]} nearest of "
        f"{count(len(panel.bank))} training images."
    ]
    if panel.rule:
        parts.append(f"Chosen: {panel.rule}.")
    if panel.queries.labels is not None and panel.predicted is not None:
        parts.append("A dashed frame marks an image that is taken for another class.")
    whole = max(panel.queries.pixels.shape[1:3])
    if max(made.width, made.height) < whole:
        parts.append(f"Images of {whole}{SPACE}px are reduced to {made.width}{SPACE}px.")
    elif not made.lossless:
        parts.append("Images are compressed.")
    return " ".join(parts)
