"""A run or its images -> pictures to look at: views, and nearest neighbours chosen by rule.

The torch side of the figures: what comes out are the panels of `figures`, plain arrays.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stopgrad.config import Config
from stopgrad.evaluate import TrainedRun, evaluation_split
from stopgrad.features import Features, embed
from stopgrad.figures import NeighborPanel, ViewPanel, view_panel
from stopgrad.images import Dataset, Images, Normalization, Track, no_progress
from stopgrad.knn import Neighbors, class_votes, neighbors
from stopgrad.randomness import numpy_generator, torch_generator
from stopgrad.views import two_views

SHOWN = 8  # neighbours of each query
RULE = (
    "one image of each of up to ten classes at random, then the mistakes that the vote was "
    "surest of, at most two of a class"
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


def neighbor_examples(
    run: TrainedRun, dataset: Dataset, *, count: int = 20, track: Track = no_progress
) -> NeighborPanel:
    """Images with their nearest training images, and what kNN takes them for.

    Without labels the queries are random training images, and their neighbours the others.
    """
    hidden = dataset.test is not None and dataset.test.labels is None
    if dataset.train.labels is None or hidden:
        return _unlabelled_examples(run, dataset.train, count=count, track=track)
    train, test, _ = evaluation_split(dataset, run.info.config)
    bank, queries = (_embedded(run, images, track=track) for images in (train, test))
    assert bank.labels is not None
    assert queries.labels is not None
    knn = run.info.config.knn
    near = neighbors(bank.values, queries.values, k=min(knn.k, len(train)))
    classes = max(1, len(train.class_names))
    votes = class_votes(near, bank.labels, classes=classes, temperature=knn.temperature)
    chosen = choose_examples(votes, queries.labels, count=count, seed=run.info.config.seed)
    shown = Neighbors(*(part[chosen, :SHOWN] for part in near))
    return NeighborPanel(
        queries=test.take(chosen.numpy()),
        bank=train,
        index=shown.indices.cpu().numpy(),
        similarity=shown.similarity.cpu().numpy(),
        predicted=votes.argmax(dim=1)[chosen].cpu().numpy(),
        rule=RULE,
        protocol={"k": near.indices.shape[1], "temperature": knn.temperature},
    )


def _unlabelled_examples(
    run: TrainedRun, images: Images, *, count: int, track: Track
) -> NeighborPanel:
    bank = _embedded(run, images, track=track).values
    drawn = numpy_generator(run.info.config.seed, "query examples").permutation(len(images))
    chosen = torch.from_numpy(drawn[:count])
    near = neighbors(bank, bank[chosen], k=min(SHOWN + 1, len(images)))
    # Each query is in the bank: the first neighbour that is not the query itself comes first.
    others = near.indices.cpu() != chosen[:, None]
    others[others.all(dim=1), -1] = False
    shape = (len(chosen), near.indices.shape[1] - 1)
    return NeighborPanel(
        queries=images.take(chosen.numpy()),
        bank=images,
        index=near.indices.cpu()[others].view(shape).numpy(),
        similarity=near.similarity.cpu()[others].view(shape).numpy(),
        rule="images drawn at random",
    )


def _embedded(run: TrainedRun, images: Images, *, track: Track) -> Features:
    return embed(
        run.model.encoder,
        images,
        normalization=run.info.normalization,
        compute=run.compute,
        track=track,
    )


def choose_examples(votes: Tensor, labels: Tensor, *, count: int, seed: int) -> Tensor:
    """Indices (<= count,) of queries by `RULE`: classes first, then the surest mistakes.

    Args:
        votes: (Q, C) votes of kNN.
        labels: (Q,) int64.
        count: How many in all; at most half of it goes to the classes.
        seed: Of the random part.
    """
    votes, labels = votes.cpu(), labels.cpu()
    shares = votes / votes.sum(dim=1, keepdim=True)
    sureness, predicted = shares.max(dim=1)
    order = torch.randperm(len(labels), generator=torch_generator(seed, "query examples"))
    firsts = [order[labels[order] == c][:1] for c in sorted(set(labels.tolist()))[: count // 2]]
    wrong = torch.nonzero(predicted != labels).flatten()
    surest = wrong[sureness[wrong].argsort(descending=True, stable=True)]
    mistakes: list[int] = []
    for index in surest.tolist():
        same = sum(int(labels[other]) == int(labels[index]) for other in mistakes)
        if same < 2 and len(mistakes) < count - len(firsts):
            mistakes.append(index)
    return torch.cat([*firsts, torch.tensor(mistakes, dtype=torch.int64)])
