"""One run -> its label-free measures, on views that are the same for every run.

In: a `TrainedRun` and N images. Out: `LabelFree` of its features or of z. All measures are higher
for what is held to be better.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import Layer, ViewsConfig, torch_generator
from stopgrad.images import Images, Track, no_progress
from stopgrad.method import (
    covariance_spectrum,
    effective_rank,
    lidar,
    participation_ratio,
    positive_minus_random,
    rankme,
    two_views,
)
from stopgrad.runs import TrainedRun

VIEWS = 10  # views Q of each image. Thilak et al. 2023: 50, for features of ImageNet's size
BATCH = 250  # images at a time


class LabelFree(NamedTuple):
    """What is measured without labels; NaN where outputs are not finite. The higher the better."""

    lidar: float
    rankme: float
    effective_rank: float
    participation_ratio: float
    positive_minus_random: float


LABEL_FREE = LabelFree._fields


def measure_run(
    run: TrainedRun,
    images: Images,
    *,
    views: ViewsConfig,
    layer: Layer = "features",
    track: Track = no_progress,
) -> LabelFree:
    """The measures of one layer of a run, in eval mode. A pure function of its arguments.

    Args:
        run: The run, from `load_run`.
        images: N >= 2 images; counts of directions are bounded by N - 1.
        views: How views are made, for all runs alike.
        layer: features, which kNN and the probe see, or z.
        track: Shows progress.
    """
    outputs = _outputs(run, images, views=views, layer=layer, track=track)  # (N, Q, D)
    if not bool(torch.isfinite(outputs).all()):
        return LabelFree(*[math.nan] * len(LABEL_FREE))
    first, second = outputs[:, 0], outputs[:, 1]
    spectrum = covariance_spectrum(first)
    return LabelFree(
        lidar=float(lidar(outputs)),
        rankme=float(rankme(first)),
        effective_rank=float(effective_rank(spectrum)),
        participation_ratio=float(participation_ratio(spectrum)),
        positive_minus_random=float(positive_minus_random(first, second)),
    )


def _outputs(
    run: TrainedRun, images: Images, *, views: ViewsConfig, layer: Layer, track: Track
) -> Tensor:  # (N, Q, D)
    """The layer's output for Q views of each image."""
    starts = range(0, len(images), BATCH)
    with torch.inference_mode():
        batches = [
            torch.cat([_pair(run, images, start, pair, views, layer) for pair in range(VIEWS // 2)])
            for start in track(starts, "measure", len(starts))
        ]
    return torch.cat(batches, dim=1).transpose(0, 1)


def _pair(
    run: TrainedRun, images: Images, start: int, pair: int, views: ViewsConfig, layer: Layer
) -> Tensor:  # (2, B, D)
    """The layer's output for two views of each image of a batch.

    The views are made on the CPU, so that they are the same whatever device a run asks for.
    """
    pixels = torch.from_numpy(images.pixels[start : start + BATCH].copy()).permute(0, 3, 1, 2)
    generator = torch_generator(0, "compared views", start, pair)
    pairs = two_views(pixels, generator, config=views, normalization=run.info.normalization)
    compute, model = run.compute, run.model
    with compute.autocast():
        features = [model.encoder(compute.arrange(x.to(compute.device))).float() for x in pairs]
    match layer:
        case "features":
            return torch.stack(features)
        case "z":
            return torch.stack([model.projector(x) for x in features])
