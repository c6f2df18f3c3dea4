"""A run -> images with their nearest training images: chosen by rule, or those of the caller."""

from __future__ import annotations

import torch
from torch import Tensor

from stopgrad.evaluation import Neighbors, class_votes, neighbors
from stopgrad.images import Dataset, Images, Track, no_progress
from stopgrad.report.examples.choice import EXAMPLES, RULE, choose_examples
from stopgrad.report.examples.nearest import SHOWN, Nearest, embedded, nearest
from stopgrad.report.figures.panels import NeighborPanel
from stopgrad.runs import TrainedRun

AT_RANDOM = "images drawn at random"


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
    """Any images with their nearest of a bank; with labels there, what kNN takes them for.

    Args:
        run: The run whose encoder sees them.
        bank: Its training images.
        queries: Images of the same size, such as those of `load_image_files`.
        track: Shows progress.
    """
    known, asked = (embedded(run, images, track=track) for images in (bank, queries))
    knn = run.info.config.knn
    near = neighbors(known.values, asked.values, k=min(max(knn.k, SHOWN), len(bank)))
    votes, k = None, min(knn.k, len(bank))
    if known.labels is not None:
        voting = Neighbors(*(part[:, :k] for part in near))
        classes = max(1, len(bank.class_names))
        votes = class_votes(voting, known.labels, classes=classes, temperature=knn.temperature)
        votes = votes.cpu()
    shown = Neighbors(*(part[:, :SHOWN].cpu() for part in near))
    rows = torch.arange(len(queries))
    found = Nearest(queries, rows, bank, asked.values.cpu(), shown, votes, k)
    return chosen_panel(run, found, rows, rule="")


def example_places(run: TrainedRun, found: Nearest, *, count: int) -> Tensor:
    """Places (<= count,) in what was found, by `RULE`; without votes the first, drawn at random."""
    if found.votes is None or found.labels is None:
        return torch.arange(min(count, len(found.rows)))
    return choose_examples(found.votes, found.labels, count=count, seed=run.info.config.seed)


def chosen_panel(
    run: TrainedRun, found: Nearest, places: Tensor, *, rule: str
) -> NeighborPanel:  # places (M,)
    """Some of what was found, ready to be shown."""
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
