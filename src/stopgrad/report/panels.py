"""Images to be shown: with their views, with their neighbours, on a map. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.evaluation import class_name
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.images import Images, Normalization, Pixels

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

    @property
    def class_names(self) -> Sequence[str]:
        """C names, () where there are no labels."""
        return self.bank.class_names or self.queries.class_names


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
    """How many images of each class kNN takes for each class."""

    counts: npt.NDArray[np.int64]  # (C, C): a row for each class, a column for what it is taken for
    class_names: Sequence[str]
    protocol: Mapping[str, Any] = field(default_factory=dict)  # of the vote: k, T


class Exploration(NamedTuple):
    """Everything that a page needs to explore a run."""

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
    """Images (N, H, W, C) with normalised views (N, C', S, S) of them, turned back to colours."""
    mean, std = (np.asarray(values, dtype=np.float32) for values in normalization)
    colors = (x.transpose(0, 2, 3, 1) * std + mean for x in (x1, x2))
    seen = ((values * 255).round().clip(0, 255).astype(np.uint8) for values in colors)
    return ViewPanel(*map(np.ascontiguousarray, map(shown, (originals, *seen))))


def shown(pixels: Pixels) -> Pixels:  # (..., C) -> (..., 3)
    """As colours: the first three channels, or the first in gray where there are fewer."""
    first = pixels[..., : 3 if pixels.shape[-1] >= 3 else 1]
    return np.broadcast_to(first, (*pixels.shape[:-1], 3))


def how_shown(channels: int) -> str:
    """What a reader should know about images that are not colours; empty for the others."""
    if channels == 3:
        return ""
    what = "the first three are shown as red, green and blue" if channels > 3 else "one is shown"
    return f"Of {channels} bands {what}."


def queries(panel: NeighborPanel) -> list[Query]:
    """The queries of a panel in order, each with its neighbours and what is known of them."""
    return [_query(panel, row) for row in range(len(panel.queries))]


def _query(panel: NeighborPanel, row: int) -> Query:
    label = label_of(panel.queries.labels, row)
    vote = label_of(panel.predicted, row)
    near = zip(panel.index[row].tolist(), panel.similarity[row].tolist(), strict=True)
    return Query(
        pixels=shown(panel.queries.pixels[row]),
        class_name=_name(panel, label),
        predicted=_name(panel, vote),
        correct=None if label is None or vote is None else label == vote,
        neighbors=tuple(_neighbor(panel, place, s, label=label) for place, s in near),
        source=_source(panel.queries, row),
    )


def _neighbor(panel: NeighborPanel, row: int, similarity: float, *, label: int | None) -> Neighbor:
    own = label_of(panel.bank.labels, row)
    agrees = None if own is None or label is None else own == label
    pixels, source = shown(panel.bank.pixels[row]), _source(panel.bank, row)
    return Neighbor(pixels, similarity, _name(panel, own), agrees, source)


def label_of(labels: npt.NDArray[np.int64] | None, row: int) -> int | None:
    """The label of a row, None where it has none."""
    return None if labels is None or labels[row] < 0 else int(labels[row])


def name_of(image: Query | Neighbor) -> str:
    """Its class, or without one the last part of its file; `file:row` of a Parquet file stays."""
    return image.class_name or image.source.rsplit("/", 1)[-1]


def _source(images: Images, row: int) -> str:
    return printable(images.sources[row]) if images.sources else ""


def _name(panel: NeighborPanel, label: int | None) -> str:
    return "" if label is None else class_name(panel.class_names, label)
