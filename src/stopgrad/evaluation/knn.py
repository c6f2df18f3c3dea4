"""Weighted kNN classification and nearest neighbours, exact, by cosine similarity.

In: features of a bank (N, F) and of queries (Q, F). Out: a `Score`, or the neighbours (Q, K).
Votes are exp(similarity / T) (Wu et al. 2018, Sec. 3.4). Similarities are fp32 matrix products,
taken some queries at a time, so the memory does not grow with Q.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.config import KNNConfig
from stopgrad.errors import ConfigError
from stopgrad.evaluation.features import Features, Score, class_count, finite, labelled, score
from stopgrad.images import Track, no_progress
from stopgrad.method import in_fp64

CHUNK_VALUES = 1 << 25
"""Similarities held at a time, 128 MB: smaller pieces slow the matrix product down."""

GROUP = 16
"""Columns per group; first only the groups' maxima are compared, which takes half the time."""


class Neighbors(NamedTuple):
    """The K nearest of a bank to each query, best first; of equals the lower index first."""

    similarity: Tensor  # (Q, K) float32, cosine
    indices: Tensor  # (Q, K) int64, into the bank


def weighted_knn(
    train: Features, test: Features, config: KNNConfig, *, track: Track = no_progress
) -> Score:
    """Weighted kNN accuracy on every test image; errors as of `labelled`.

    K is limited to the size of the bank; the protocol says what was asked for and what was used.
    Of equal votes the lowest class index wins; of equal similarities the lowest bank index.
    """
    bank, queries = labelled(train, role="training"), labelled(test, role="test")
    k, classes = min(config.k, len(bank.values)), class_count(bank, queries)
    near = neighbors(bank.values, queries.values, k=k, track=track)
    votes = class_votes(near, bank.labels, classes=classes, temperature=config.temperature)
    protocol: dict[str, object] = {
        "evaluator": "knn",
        "k": k,
        "k_requested": config.k,
        "temperature": config.temperature,
        "distance": "cosine",
        "weight": "exp(similarity / temperature)",
        "ties": "lowest class index, lowest bank index",
        "bank_images": len(bank.values),
    }
    return score(votes, queries.labels, protocol=protocol)


def neighbors(bank: Tensor, queries: Tensor, *, k: int, track: Track = no_progress) -> Neighbors:
    """The k nearest of a bank (N, F) to each query (Q, F), of any length.

    A zero row has a similarity of 0 to all others.

    Raises:
        ConfigError: When k is larger than the bank.
        DataError, DivergedError: As `finite`.
    """
    finite(bank, role="bank")
    finite(queries, role="query")
    if not 1 <= k <= len(bank):
        raise ConfigError(f"k = {k}", expected=f"1 to {len(bank)}, the bank", hint="lower k")
    unit_bank, unit_queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    chunk = max(1, CHUNK_VALUES // len(bank))
    chunks = torch.split(unit_queries, chunk)
    parts = [_nearest(part @ unit_bank.T, k=k) for part in track(chunks, "kNN", len(chunks))]
    return Neighbors(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def class_votes(
    near: Neighbors, labels: Tensor, *, classes: int, temperature: float
) -> Tensor:  # (Q, C) float64
    """The sum of exp(similarity / T) over the neighbours of each class.

    `labels` (N,) are those of the bank; one below 0 means no label and has no vote. Each query's
    weights are divided by its largest, which changes no comparison and keeps a low temperature from
    overflowing.
    """
    similarity = in_fp64(near.similarity)
    weights = torch.exp((similarity - similarity[:, :1]) / temperature)  # (Q, K)
    votes = weights.new_zeros(len(weights), classes + 1)  # the last column is for no label
    classes_near = labels.where(labels >= 0, classes)[near.indices].to(votes.device)
    return votes.scatter_add_(1, classes_near, weights)[:, :classes]


def _nearest(similarity: Tensor, *, k: int) -> Neighbors:  # (Q, N)
    """The k largest of each row.

    `_largest` takes any of the equal values at the border, so rows where the next value equals
    the last one taken are settled by hand.
    """
    top = _largest(similarity, count=min(k + 1, similarity.shape[1]))
    index = top.indices[:, :k]
    if top.similarity.shape[1] > k:
        tied = (top.similarity[:, k] == top.similarity[:, k - 1]).nonzero().flatten()
        if len(tied):
            index[tied] = _lowest_of_equals(similarity[tied], top.similarity[tied, k], k=k)
    index = index.sort(dim=1).values
    order = similarity.gather(1, index).sort(dim=1, descending=True, stable=True)
    return Neighbors(order.values, index.gather(1, order.indices))


def _largest(similarity: Tensor, *, count: int) -> Neighbors:  # (Q, N)
    """The `count` largest of each row in falling order, equals in any order.

    Exact: if a value's group is not among the `count` groups with the largest maxima, there are
    `count` values no smaller than it.
    """
    bank = similarity.shape[1]
    groups = bank // GROUP
    if groups <= count:
        return Neighbors(*similarity.topk(count, dim=1))
    grouped = similarity[:, : GROUP * groups].view(-1, GROUP, groups)
    best = grouped.amax(dim=1).topk(count, dim=1, sorted=False).indices  # (Q, count)
    every = torch.arange(bank, device=similarity.device)
    members = best[:, None] + every[: GROUP * groups : groups, None]  # (Q, GROUP, count)
    rest = every[GROUP * groups :].expand(len(best), -1)  # columns that fill no group
    candidates = torch.cat([members.flatten(1), rest], dim=1)
    top = similarity.gather(1, candidates).topk(count, dim=1)
    return Neighbors(top.values, candidates.gather(1, top.indices))


def _lowest_of_equals(similarity: Tensor, border: Tensor, *, k: int) -> Tensor:
    """The k largest of each row of (Q, N) when its (k + 1)th value, border (Q,), is a tie."""
    above, equal = similarity > border[:, None], similarity == border[:, None]
    room = k - above.sum(dim=1, keepdim=True)  # (Q, 1)
    taken = above | (equal & (equal.cumsum(dim=1) <= room))
    return taken.nonzero()[:, 1].view(-1, k)
