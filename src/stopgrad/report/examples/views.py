"""Images and a config -> images with two views each, as the network sees them."""

from __future__ import annotations

import torch

from stopgrad.config import Config, numpy_generator, torch_generator
from stopgrad.images import Images, Normalization
from stopgrad.method import two_views
from stopgrad.report.figures.panels import ViewPanel, view_panel


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
