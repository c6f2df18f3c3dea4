"""Which images are shown: by rule and seed, never by hand.

Images and a config -> images with two views each, as the network sees them; votes and labels ->
indices of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import Config, numpy_generator, torch_generator
from stopgrad.images import Images, Normalization
from stopgrad.method import two_views
from stopgrad.report.figures.panels import ViewPanel, view_panel

EXAMPLES = 20
RULE = (
    "one image of each of up to ten classes at random, then the mistakes that the vote was "
    "surest of, at most two of a class"
)
GALLERY_RULE = (
    "two thirds at random and even over the classes, the others the mistakes that the vote was "
    "surest of"
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


class _Vote(NamedTuple):
    """What kNN takes each image for."""

    predicted: Tensor  # (Q,) int64
    sureness: Tensor  # (Q,) its share of the votes


def choose_examples(votes: Tensor, labels: Tensor, *, count: int, seed: int) -> Tensor:
    """Indices (<= count,) of queries by `RULE`: classes first, then the surest mistakes.

    Args:
        votes: (Q, C) votes of kNN.
        labels: (Q,) int64.
        count: How many in all; at most half of it goes to the classes.
        seed: Of the random part.
    """
    labels = labels.cpu()
    order = _shuffled(len(labels), seed=seed)
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
    """Indices (<= count,) of queries by `GALLERY_RULE`, in order of class and place.

    Args:
        votes: (Q, C) votes of kNN.
        labels: (Q,) int64.
        count: How many in all; fewer when there are fewer queries.
        seed: Of the random part.
        first: Some that are to be among them.
    """
    labels = labels.cpu()
    even = _round_robin(labels, seed=seed)
    surest = _surest_mistakes(votes, labels)
    # What mistakes leave free goes to the classes again.
    wanted = dict.fromkeys([*first, *even[: 2 * count // 3], *surest, *even])
    chosen = sorted(list(wanted)[:count], key=lambda index: (int(labels[index]), index))
    return torch.tensor(chosen, dtype=torch.int64)


def _round_robin(labels: Tensor, *, seed: int) -> list[int]:
    """All indices: a random one of each class, then a second one of each, and so on."""
    order = _shuffled(len(labels), seed=seed)
    seen: dict[int, int] = {}
    places = []
    for index in order.tolist():
        label = int(labels[index])
        seen[label] = seen.get(label, 0) + 1
        places.append((seen[label], label, index))
    return [index for _, _, index in sorted(places)]


def _surest_mistakes(votes: Tensor, labels: Tensor) -> list[int]:
    """Indices of all mistakes, the surest vote first."""
    vote = _vote(votes)
    wrong = torch.nonzero(vote.predicted != labels).flatten()
    order = vote.sureness[wrong].argsort(descending=True, stable=True)
    found: list[int] = wrong[order].tolist()
    return found


def _vote(votes: Tensor) -> _Vote:
    votes = votes.cpu()
    shares = votes / votes.sum(dim=1, keepdim=True)
    sureness, predicted = shares.max(dim=1)
    return _Vote(predicted, sureness)


def _shuffled(count: int, *, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch_generator(seed, "query examples"))
