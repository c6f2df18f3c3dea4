"""A run -> all that a page needs to explore it: a gallery with neighbours, a map, the mistakes."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.config import numpy_generator
from stopgrad.images import Dataset, Track, no_progress
from stopgrad.report.examples.choice import EXAMPLES, GALLERY_RULE, RULE, choose_gallery
from stopgrad.report.examples.nearest import Nearest, nearest
from stopgrad.report.examples.neighbors import chosen_panel, example_places
from stopgrad.report.examples.plane import Layout, plane
from stopgrad.report.figures.panels import ConfusionPanel, Exploration, MapPanel
from stopgrad.runs import TrainedRun

GALLERY = 300  # images that a visitor can pick
DOTS = 900  # more of them on the map, without a picture


def explore(
    run: TrainedRun,
    dataset: Dataset,
    *,
    count: int = GALLERY,
    layout: Layout = "auto",
    track: Track = no_progress,
) -> Exploration:
    """The chosen examples, some hundred images to pick from, the map and the confusion matrix.

    Images are embedded once. Without labels there are no classes, no mistakes and no matrix.

    Args:
        run: The run, from `load_run`.
        dataset: The images it was trained on.
        count: Images in the gallery.
        layout: How the map is made; auto: by PaCMAP where it is installed.
        track: Shows the progress of embedding.
    """
    found = nearest(run, dataset, track=track)
    examples = example_places(run, found, count=EXAMPLES)
    gallery = _gallery(found, examples, count=count, seed=run.info.config.seed)
    return Exploration(
        examples=chosen_panel(run, found, examples, rule=RULE),
        gallery=chosen_panel(run, found, gallery, rule=GALLERY_RULE),
        map=_map(found, gallery, seed=run.info.config.seed, layout=layout),
        confusion=_confusion(run, found),
    )


def _gallery(found: Nearest, examples: Tensor, *, count: int, seed: int) -> Tensor:
    if found.votes is None or found.labels is None:
        return torch.arange(min(count, len(found.rows)))
    first = examples.tolist()
    return choose_gallery(found.votes, found.labels, count=count, seed=seed, first=first)


def _map(found: Nearest, gallery: Tensor, *, seed: int, layout: Layout) -> MapPanel:
    """The gallery's images first, then others drawn at random."""
    order = torch.from_numpy(numpy_generator(seed, "map").permutation(len(found.rows)))
    others = order[~torch.isin(order, gallery)][:DOTS]
    shown = torch.cat([gallery, others])
    made = plane(found.values, shown, seed=seed, layout=layout)
    labels = None if found.labels is None else found.labels[shown]
    return MapPanel(
        points=made.points.numpy(),
        labels=None if labels is None else labels.numpy(),
        class_names=found.images.class_names,
        pictured=len(gallery),
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
