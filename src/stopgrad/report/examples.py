"""A run and its data -> panels of images: views, neighbours, a gallery, a map, a confusion matrix.

The torch side of the report; its results are plain arrays. Images are chosen by rule and seed,
never by hand, and embedded once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.config import Config, numpy_generator, torch_generator
from stopgrad.evaluation import Features, Neighbors, class_votes, embed, neighbors
from stopgrad.images import Dataset, Images, Normalization, Track, no_progress
from stopgrad.method import two_views
from stopgrad.report.panels import (
    ConfusionPanel,
    Exploration,
    MapPanel,
    NeighborPanel,
    ViewPanel,
    view_panel,
)
from stopgrad.runs import TrainedRun, evaluation_split

SHOWN = 8  # neighbours of each query
EXAMPLES = 20  # queries that a reader sees first
GALLERY = 300  # images that a visitor can pick
DOTS = 900  # more images on the map, only as points
FEWEST = 50  # images below which PaCMAP has too few neighbours to work with
CHOSEN_AMONG = 1500  # images among which some are chosen where there are no votes
AT_RANDOM = "images drawn at random"
RULE = (
    "one random image of each of up to ten classes, then the mistakes with the surest votes, at "
    "most two of a class"
)
GALLERY_RULE = (
    "two thirds at random, spread evenly over the classes, and the mistakes with the surest votes"
)


def view_examples(
    images: Images, config: Config, *, normalization: Normalization, count: int
) -> ViewPanel:
    """Images drawn at random, each with two views, as the config makes them on the CPU."""
    drawn = numpy_generator(config.seed, "view examples").permutation(len(images))[:count]
    pixels = images.take(drawn).pixels[:]
    x1, x2 = two_views(
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        torch_generator(config.seed, "view examples"),
        config=config.views,
        normalization=normalization,
    )
    return view_panel(pixels, x1.numpy(), x2.numpy(), normalization=normalization)


def choose_examples(votes: Tensor, labels: Tensor, *, count: int, seed: int) -> Tensor:
    """Indices (<= count,) of queries by `RULE`, from votes (Q, C) and labels (Q,).

    At most half of them are for the classes.
    """
    labels = labels.cpu()
    order = torch.randperm(len(labels), generator=torch_generator(seed, "query examples"))
    firsts = [order[labels[order] == c][:1] for c in sorted(set(labels.tolist()))[: count // 2]]
    mistakes: list[int] = []
    for index in _surest_mistakes(votes, labels):
        same = sum(int(labels[other]) == int(labels[index]) for other in mistakes)
        if same < 2 and len(mistakes) < count - len(firsts):
            mistakes.append(index)
    return torch.cat([*firsts, torch.tensor(mistakes, dtype=torch.int64)])


def choose_gallery(
    votes: Tensor, labels: Tensor, *, count: int, seed: int, first: Sequence[int] = ()
) -> Tensor:
    """Indices (<= count,) of queries by `GALLERY_RULE`, in order of class and index.

    From votes (Q, C) and labels (Q,); those in `first` are included.
    """
    labels = labels.cpu()
    even = _round_robin(labels, seed=seed)
    surest = _surest_mistakes(votes, labels)
    # Where mistakes are few, the classes fill the rest.
    wanted = dict.fromkeys([*first, *even[: 2 * count // 3], *surest, *even])
    chosen = sorted(list(wanted)[:count], key=lambda index: (int(labels[index]), index))
    return torch.tensor(chosen, dtype=torch.int64)


def _round_robin(labels: Tensor, *, seed: int) -> list[int]:
    """All indices: a random one of each class, then a second one of each, and so on."""
    order = torch.randperm(len(labels), generator=torch_generator(seed, "query examples"))
    seen: dict[int, int] = {}
    places = []
    for index in order.tolist():
        label = int(labels[index])
        seen[label] = seen.get(label, 0) + 1
        places.append((seen[label], label, index))
    return [index for _, _, index in sorted(places)]


def _surest_mistakes(votes: Tensor, labels: Tensor) -> list[int]:
    """Indices of all mistakes, the surest vote first."""
    votes = votes.cpu()
    sureness, predicted = (votes / votes.sum(dim=1, keepdim=True)).max(dim=1)
    wrong = torch.nonzero(predicted != labels).flatten()
    order = sureness[wrong].argsort(descending=True, stable=True)
    found: list[int] = wrong[order].tolist()
    return found


class Plane(NamedTuple):
    """Positions in a plane, and the method that found them."""

    points: Tensor  # (N, 2) float32
    method: str
    variance: tuple[float, ...]  # fraction on each axis; () where the axes mean nothing


def principal_plane(values: Tensor, shown: Tensor) -> Plane:  # (N, F), (M,) -> (M, 2)
    """The two directions of the largest variance of all features, exactly, in float64.

    By the eigenvectors of their covariance and not by `torch.pca_lowrank`, which draws from the
    global generator. The largest entry of each direction is positive, so the map is never flipped.
    """
    unit = F.normalize(values.double(), dim=1)
    centred = unit - unit.mean(dim=0)
    eigenvalues, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending
    axes = vectors[:, -2:].flip(1)  # (F, 2)
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    fractions = eigenvalues.flip(0)[:2] / eigenvalues.sum().clamp_min(
        torch.finfo(torch.float64).tiny
    )
    return Plane((centred[shown] @ axes).float(), "PCA", tuple(fractions.clamp_min(0).tolist()))


def pacmap_plane(values: Tensor, *, seed: int) -> Plane:  # (M, F) -> (M, 2)
    """PaCMAP (Wang et al. 2021) with its own defaults; needs the extra `map`."""
    import pacmap

    logging.getLogger("pacmap").setLevel(logging.ERROR)  # it warns about every seed
    method = pacmap.PaCMAP(n_components=2, random_state=seed % (1 << 31))
    unit = F.normalize(values, dim=1)
    return Plane(torch.from_numpy(method.fit_transform(unit.numpy(), init="pca")), "PaCMAP", ())


def plane(values: Tensor, shown: Tensor, *, seed: int) -> Plane:
    """The positions (M, 2) of the shown rows (M,) of all features (N, F).

    By PaCMAP if it is installed and there are enough images, else by principal components.
    """
    if find_spec("pacmap") is not None and len(shown) >= FEWEST:
        return pacmap_plane(values[shown], seed=seed)
    return principal_plane(values, shown)


class Nearest(NamedTuple):
    """Q images with their neighbours in a bank of N; tensors are on the CPU."""

    images: Images  # that the rows refer to
    rows: Tensor  # (Q,) int64
    bank: Images  # N
    values: Tensor  # (Q, F) float32
    near: Neighbors  # (Q, SHOWN), fewer in a small bank
    votes: Tensor | None  # (Q, C) of the k nearest; None without labels
    k: int  # neighbours that vote

    @property
    def labels(self) -> Tensor | None:  # (Q,)
        """The label of each image, if all have one."""
        if self.images.labels is None:
            return None
        labels = self.images.labels[self.rows.numpy()]
        return torch.from_numpy(labels) if (labels >= 0).all() else None


def nearest(run: TrainedRun, dataset: Dataset, *, track: Track = no_progress) -> Nearest:
    """All images of the evaluation split, with votes by the run's kNN settings.

    Without labels: training images drawn at random, and their neighbours the others.
    """
    hidden = dataset.test is not None and dataset.test.labels is None
    if dataset.train.labels is None or hidden:
        return _among_themselves(run, dataset.train, track=track)
    train, test, _ = evaluation_split(dataset, run.info.config)
    return _in_bank(run, train, test, least=1, track=track)


def _in_bank(
    run: TrainedRun, bank: Images, queries: Images, *, least: int, track: Track
) -> Nearest:
    """Every query with its nearest of the bank: the k that vote, or `least` if that is more."""
    known, asked = (embedded(run, images, track=track) for images in (bank, queries))
    knn, votes = run.info.config.knn, None
    k = min(knn.k, len(bank))
    near = neighbors(known.values, asked.values, k=min(max(k, least), len(bank)), track=track)
    if known.labels is not None:
        voting = Neighbors(*(part[:, :k] for part in near))
        classes = max(1, len(bank.class_names))
        votes = class_votes(voting, known.labels, classes=classes, temperature=knn.temperature)
        votes = votes.cpu()
    shown = Neighbors(*(part[:, :SHOWN].cpu() for part in near))
    return Nearest(queries, torch.arange(len(queries)), bank, asked.values.cpu(), shown, votes, k)


def embedded(run: TrainedRun, images: Images, *, track: Track = no_progress) -> Features:
    """The features of images by a run's encoder, on its device."""
    how = {"normalization": run.info.normalization, "compute": run.compute}
    return embed(run.model.encoder, images, track=track, **how)  # type: ignore[arg-type]


def _among_themselves(run: TrainedRun, images: Images, *, track: Track) -> Nearest:
    bank = embedded(run, images, track=track).values
    drawn = numpy_generator(run.info.config.seed, "query examples").permutation(len(images))
    rows = torch.from_numpy(drawn[:CHOSEN_AMONG].astype(np.int64))
    values = bank[rows.to(bank.device)]
    near = neighbors(bank, values, k=min(SHOWN + 1, len(images)), track=track)
    near = _without_self(Neighbors(*(part.cpu() for part in near)), rows)
    return Nearest(images, rows, images, values.cpu(), near, None, 0)


def _without_self(near: Neighbors, rows: Tensor) -> Neighbors:
    """Leaves out each query itself, which the bank holds; if it is not found, the last one."""
    others = near.indices != rows[:, None]
    others[others.all(dim=1), -1] = False
    shape = (len(rows), near.indices.shape[1] - 1)
    return Neighbors(*(part[others].view(shape) for part in near))


def neighbor_examples(
    run: TrainedRun, dataset: Dataset, *, count: int = EXAMPLES, track: Track = no_progress
) -> NeighborPanel:
    """Images with their nearest training images, and what kNN takes them for.

    Without labels the queries are random training images, and their neighbours the others.
    """
    found = nearest(run, dataset, track=track)
    return chosen_panel(run, found, example_places(run, found, count=count), rule=RULE)


def neighbors_of(
    run: TrainedRun, bank: Images, queries: Images, *, track: Track = no_progress
) -> NeighborPanel:
    """Images with their nearest in a bank of the same size; if it has labels, kNN votes too."""
    found = _in_bank(run, bank, queries, least=SHOWN, track=track)
    return chosen_panel(run, found, found.rows, rule="")


def example_places(run: TrainedRun, found: Nearest, *, count: int) -> Tensor:
    """Indices (<= count,) into `found`, by `RULE`; without votes the first, drawn at random."""
    if found.votes is None or found.labels is None:
        return torch.arange(min(count, len(found.rows)))
    return choose_examples(found.votes, found.labels, count=count, seed=run.info.config.seed)


def chosen_panel(
    run: TrainedRun, found: Nearest, places: Tensor, *, rule: str
) -> NeighborPanel:  # places (M,)
    """Some of the queries in `found`, ready to be shown."""
    votes, knn = found.votes, run.info.config.knn
    return NeighborPanel(
        queries=found.images.take(found.rows[places].numpy()),
        bank=found.bank,
        index=found.near.indices[places].numpy(),
        similarity=found.near.similarity[places].numpy(),
        predicted=None if votes is None else votes.argmax(dim=1)[places].numpy(),
        rule=rule if votes is not None or not rule else AT_RANDOM,
        protocol={} if votes is None else {"k": found.k, "temperature": knn.temperature},
    )


def explore(
    run: TrainedRun,
    dataset: Dataset,
    *,
    count: int = GALLERY,
    track: Track = no_progress,
) -> Exploration:
    """The chosen examples, some hundred images to pick from, the map and the confusion matrix.

    Images are embedded once. Without labels there are no classes, no mistakes and no matrix.

    Args:
        run: The run, from `load_run`.
        dataset: The images it was trained on.
        count: Images in the gallery.
        track: Shows the progress of embedding.
    """
    found = nearest(run, dataset, track=track)
    examples = example_places(run, found, count=EXAMPLES)
    gallery = _gallery(found, examples, count=count, seed=run.info.config.seed)
    return Exploration(
        examples=chosen_panel(run, found, examples, rule=RULE),
        gallery=chosen_panel(run, found, gallery, rule=GALLERY_RULE),
        map=_map(found, gallery, seed=run.info.config.seed),
        confusion=_confusion(run, found),
    )


def _gallery(found: Nearest, examples: Tensor, *, count: int, seed: int) -> Tensor:
    if found.votes is None or found.labels is None:
        return torch.arange(min(count, len(found.rows)))
    first = examples.tolist()
    return choose_gallery(found.votes, found.labels, count=count, seed=seed, first=first)


def _map(found: Nearest, gallery: Tensor, *, seed: int) -> MapPanel:
    """The gallery's images first, then others drawn at random."""
    order = torch.from_numpy(numpy_generator(seed, "map").permutation(len(found.rows)))
    others = order[~torch.isin(order, gallery)][:DOTS]
    shown = torch.cat([gallery, others])
    made = plane(found.values, shown, seed=seed)
    labels = None if found.labels is None else found.labels[shown]
    return MapPanel(
        points=made.points.numpy(),
        labels=None if labels is None else labels.numpy(),
        class_names=found.images.class_names,
        shown=len(gallery),
        method=made.method,
        variance=made.variance,
        fitted=len(found.rows) if made.method == "PCA" else len(shown),
        same_class=() if labels is None else _same_class(made.points, found.values[shown], labels),
    )


def _same_class(points: Tensor, values: Tensor, labels: Tensor) -> tuple[float, float]:
    """How often the nearest other image has an image's class: on the map, and by the features."""
    unit = F.normalize(values, dim=1)
    on_the_map, by_features = -torch.cdist(points, points), unit @ unit.T  # (M, M)
    return _nearest_agrees(on_the_map, labels), _nearest_agrees(by_features, labels)


def _nearest_agrees(closeness: Tensor, labels: Tensor) -> float:  # (M, M), (M,)
    nearest_other = closeness.fill_diagonal_(-torch.inf).argmax(dim=1)
    return float((labels[nearest_other] == labels).float().mean())


def _confusion(run: TrainedRun, found: Nearest) -> ConfusionPanel | None:
    if found.votes is None or found.labels is None:
        return None
    classes = found.votes.shape[1]
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (found.labels.numpy(), found.votes.argmax(dim=1).numpy()), 1)
    protocol = {"k": found.k, "temperature": run.info.config.knn.temperature}
    return ConfusionPanel(counts, found.images.class_names, protocol)
