"""What a caller hands over to show images: arrays of uint8, made where torch is at home."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.evaluation import class_name
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.images import Images, Normalization

Pixels = npt.NDArray[np.uint8]


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
    variance: tuple[float, ...] = ()  # share on each axis, if the axes mean something
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
    """Images with the views that a network saw, brought back from normalised values to colours.

    Args:
        originals: (N, H, W, 3) uint8.
        x1: (N, 3, S, S), normalised.
        x2: (N, 3, S, S), normalised.
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
    """(N, 3, S, S) normalised -> (N, S, S, 3) uint8."""
    mean, std = (np.asarray(values, dtype=np.float32) for values in normalization)
    values = x.transpose(0, 2, 3, 1) * std + mean
    return np.ascontiguousarray((values * 255).round().clip(0, 255).astype(np.uint8))
