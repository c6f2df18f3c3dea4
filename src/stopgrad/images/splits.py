"""Images -> subsets: a validation split, label subsets, and the mean and std of pixels.

Subsets are a pure function of (images' count and labels, fraction, seed).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.config import numpy_generator
from stopgrad.errors import ConfigError, DataError
from stopgrad.images.pixels import Indices, Pixels
from stopgrad.images.types import GRAY, UNLABELLED, Images, Labels, Normalization, Rows

CHUNK_BYTES = 6 << 20  # of pixels that are counted at a time


class Split(NamedTuple):
    """A training set cut in two; `validation_indices` (M,) refer to the whole, ascending."""

    train: Images
    validation: Images
    validation_indices: Indices


def split_validation(images: Images, *, fraction: float, seed: int) -> Split:
    """Hold out a fraction of the images for validation; stratified when labels exist.

    round(fraction x N) images are held out; each class gives its exact quota, rounded up or down
    (largest remainder), so 20 % of CIFAR-10 is 10,000 images, 1,000 of each class.

    Raises:
        ConfigError: For a fraction that is not between 0 and 1.
        DataError: When one side would be empty.
    """
    if not 0 < fraction < 1:
        raise ConfigError(
            f"a validation fraction of {fraction:g}",
            expected="a fraction between 0 and 1",
            hint="use for example 0.2",
        )
    count = round(fraction * len(images))
    if not 0 < count < len(images):
        raise DataError(
            f"{len(images)} images, of which a fraction of {fraction:g} is {count}",
            expected="at least one image on each side of the split",
            hint="use more images or another fraction",
        )
    labels = np.zeros(len(images), np.int64) if images.labels is None else images.labels
    if labels.min() == UNLABELLED:
        labels = labels - UNLABELLED  # those without a label are one more stratum
    ranks = ranks_in_class(labels, numpy_generator(seed, "validation"))
    held_out = ranks < _quotas(np.bincount(labels), count)[labels]
    indices = np.flatnonzero(held_out)
    return Split(images.take(np.flatnonzero(~held_out)), images.take(indices), indices)


def label_subset(images: Images, *, fraction: float, seed: int) -> Indices:
    """Indices (M,), ascending, of the images whose labels may be used.

    Stratified: max(1, round(fraction x n)) of the n images of each class. Nested: for one seed a
    smaller fraction is a subset of every larger one. A new seed is a new draw.

    Raises:
        ConfigError: For a fraction that is not above 0 and at most 1.
        DataError: When the images have no labels.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(
            f"a label fraction of {fraction:g}",
            expected="a fraction above 0 and at most 1",
            hint="use for example 0.1",
        )
    if images.labels is None:
        raise DataError(
            "images without labels",
            expected="a label for each image",
            hint="evaluate on a labelled data set; pretraining needs no labels",
        )
    assert images.labels.min() > UNLABELLED, "take images.labelled() first"
    ranks = ranks_in_class(images.labels, numpy_generator(seed, "labels"))
    counts = np.bincount(images.labels)
    # floor(x + 0.5), not round(): halves that go to the even neighbour would not be monotone.
    wanted = np.maximum(1, np.floor(fraction * counts + 0.5)).astype(np.int64)
    return np.flatnonzero(ranks < wanted[images.labels])


def ranks_in_class(labels: Labels, generator: np.random.Generator) -> Indices:
    """(N,): the rank of each image among those of its class, in a random order."""
    order = generator.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    ranks = np.empty(len(labels), np.int64)
    ranks[by_class] = np.arange(len(labels)) - starts[labels[by_class]]
    return ranks


def _quotas(counts: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """(C,): `total` images shared out in proportion to counts (C,), by largest remainder."""
    quotas, remainders = np.divmod(counts * total, counts.sum())
    left = total - int(quotas.sum())
    # Ties go to the lower class: the order must not depend on the sorting algorithm.
    first = np.argsort(-remainders, kind="stable")[:left]
    quotas[first] += 1
    return quotas


def normalization(images: Images, *, channels: int = 3) -> Normalization:
    """Mean and population standard deviation of pixels / 255, by channel; known, or counted.

    One channel of coloured images gets those of gray: its mean, and the weighted mean deviation
    of the colours, which is exact for gray images and an upper bound for others.

    Exact: pixels are counted by value in integers, in chunks, so neither the order nor the
    chunk size can change a bit. A channel that never varies gets a std of 1, so that it
    normalises to 0 and not to infinity.
    """
    found = images.known or normalization_of([images.pixels])
    if channels == images.channels:
        return found
    return Normalization(*((sum(w * v for w, v in zip(GRAY, of, strict=True)),) for of in found))


def normalization_of(parts: Iterable[Rows]) -> Normalization:
    """The normalization of images that come in parts (n, H, W, C)."""
    counts = functools.reduce(np.add, map(_count_values, itertools.chain(*map(_chunks, parts))))
    mean, std = _moments(counts)
    return Normalization(tuple(mean), tuple(std))


def _chunks(pixels: Rows) -> Iterator[Pixels]:
    step = max(1, CHUNK_BYTES // math.prod(pixels.shape[1:]))
    for start in range(0, len(pixels), step):
        yield pixels[start : start + step]


def _count_values(pixels: Pixels) -> npt.NDArray[np.int64]:
    """(C, 256): how often each value occurs in each channel of pixels (B, H, W, C)."""
    from PIL import Image  # counts twenty times as fast as NumPy

    flat = pixels.reshape(-1, *pixels.shape[2:])  # one image below the other
    parts = [flat] if flat.shape[2] == 3 else [*map(np.ascontiguousarray, np.moveaxis(flat, 2, 0))]
    counts = [Image.fromarray(part).histogram() for part in parts]
    return np.array(counts, np.int64).reshape(-1, 256)


def _moments(counts: npt.NDArray[np.int64]) -> tuple[list[float], list[float]]:
    values = np.arange(256) / 255.0
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = np.array([n @ (values - m) ** 2 for n, m in zip(counts, mean, strict=True)]) / total
    varies = (counts > 0).sum(axis=1) > 1
    std = np.where(varies, np.sqrt(variance), 1.0)
    return mean.tolist(), std.tolist()
