"""A run and its data -> images that may be shown, with features, neighbours and votes.

The images are embedded once, and all figures of a run's neighbours start from here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stopgrad.config import numpy_generator
from stopgrad.evaluation import Features, Neighbors, class_votes, embed, neighbors
from stopgrad.images import Dataset, Images, Track, no_progress
from stopgrad.runs import TrainedRun, evaluation_split

SHOWN = 8  # neighbours of each query
UNLABELLED = 1500  # images that are looked at where no votes tell them apart


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
        labels = self.images.labels
        return None if labels is None else torch.from_numpy(labels[self.rows.numpy()])


def nearest(run: TrainedRun, dataset: Dataset, *, track: Track = no_progress) -> Nearest:
    """All images of the evaluation split, with votes by the run's kNN settings.

    Without labels: training images drawn at random, and their neighbours the others.
    """
    hidden = dataset.test is not None and dataset.test.labels is None
    if dataset.train.labels is None or hidden:
        return _among_themselves(run, dataset.train, track=track)
    train, test, _ = evaluation_split(dataset, run.info.config)
    bank, queries = (embedded(run, images, track=track) for images in (train, test))
    knn = run.info.config.knn
    near = neighbors(bank.values, queries.values, k=min(knn.k, len(train)))
    assert bank.labels is not None
    classes = max(1, len(train.class_names))
    votes = class_votes(near, bank.labels, classes=classes, temperature=knn.temperature)
    shown = Neighbors(*(part[:, :SHOWN].cpu() for part in near))
    rows, k = torch.arange(len(test)), near.indices.shape[1]
    return Nearest(test, rows, train, queries.values.cpu(), shown, votes.cpu(), k)


def embedded(run: TrainedRun, images: Images, *, track: Track = no_progress) -> Features:
    """The features of images by a run's encoder, on its device."""
    how = {"normalization": run.info.normalization, "compute": run.compute}
    return embed(run.model.encoder, images, track=track, **how)  # type: ignore[arg-type]


def _among_themselves(run: TrainedRun, images: Images, *, track: Track) -> Nearest:
    bank = embedded(run, images, track=track).values
    drawn = numpy_generator(run.info.config.seed, "query examples").permutation(len(images))
    rows = torch.from_numpy(drawn[:UNLABELLED].astype(np.int64))
    values = bank[rows.to(bank.device)]
    near = neighbors(bank, values, k=min(SHOWN + 1, len(images)))
    near = _without_self(Neighbors(*(part.cpu() for part in near)), rows)
    return Nearest(images, rows, images, values.cpu(), near, None, 0)


def _without_self(near: Neighbors, rows: Tensor) -> Neighbors:
    """Each query is in the bank: it is left out, or else the last of its equals."""
    others = near.indices != rows[:, None]
    others[others.all(dim=1), -1] = False
    shape = (len(rows), near.indices.shape[1] - 1)
    return Neighbors(*(part[others].view(shape) for part in near))
