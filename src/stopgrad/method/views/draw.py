"""All random parameters of a batch of views, from one table of uniform numbers.

In: a generator, the number of views, the size of the images and the config.
Out: `ViewParameters`, on the generator's device. Every knob has its own columns in the table, so
changing one knob leaves the draws of all others unchanged.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.config import ViewsConfig

TRIES = 10
"""Boxes tried before the fallback, as in torchvision's `RandomResizedCrop.get_params`."""

ASPECT_RATIO = (3 / 4, 4 / 3)
"""Smallest and largest width / height of a crop. Paper: 3/4..4/3 (the default of torchvision)."""

COLUMNS = {
    "area": TRIES,
    "aspect": TRIES,
    "top": 1,
    "left": 1,
    "flip": 1,
    "jitter": 1,
    "factors": 4,
    "order": 4,
    "grayscale": 1,
    "blur": 1,
    "sigma": 1,
}
"""The table's columns. A seed depends on their order: append, never insert."""


class ViewParameters(NamedTuple):
    """The parameters of V views; row v belongs to view v."""

    boxes: Tensor  # (V, 4) int64: top, left, height, width, px
    flip: Tensor  # (V,) bool
    factors: Tensor  # (V, 4): brightness, contrast, saturation, hue; (1, 1, 1, 0) without jitter
    order: Tensor  # (V, 4) int64: the first step of the jitter, the second, ...
    grayscale: Tensor  # (V,) bool
    sigma: Tensor  # (V,) px; 0 without blur


def random_table(generator: torch.Generator, *, views: int) -> Tensor:  # (V, columns)
    """The uniform numbers for V views, on the generator's device."""
    shape = (views, sum(COLUMNS.values()))
    return torch.rand(shape, generator=generator, device=generator.device)


def draw_parameters(
    table: Tensor, *, height: int, width: int, config: ViewsConfig
) -> ViewParameters:
    """Parameters of V views of images of H x W pixels.

    The distributions are those of torchvision's RandomResizedCrop, RandomHorizontalFlip,
    RandomApply(ColorJitter), RandomGrayscale and RandomApply(GaussianBlur). The host does not
    wait for the device.

    Args:
        table: The `random_table` of V views.
        height: H, px.
        width: W, px.
        config: Probabilities and ranges.
    """
    u = dict(zip(COLUMNS, torch.split(table, list(COLUMNS.values()), dim=1), strict=True))
    return ViewParameters(
        boxes=_boxes(u, height=height, width=width, config=config),
        flip=u["flip"][:, 0] < config.flip,
        factors=_factors(u, config),
        order=_order(u["order"]),
        grayscale=u["grayscale"][:, 0] < config.grayscale,
        sigma=_sigma(u, config),
    )


def _boxes(u: dict[str, Tensor], *, height: int, width: int, config: ViewsConfig) -> Tensor:
    """The first of ten boxes that fits, or the fallback: (V, 4) int64."""
    area = height * width * _between(u["area"], config.crop_min, config.crop_max)  # (V, TRIES)
    aspect = _between(u["aspect"], *(math.log(ratio) for ratio in ASPECT_RATIO)).exp_()
    widths = (area * aspect).sqrt_().round_()
    heights = (area / aspect).sqrt_().round_()
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)  # the first maximum
    found = fits.gather(1, first)  # (V, 1)
    fallback_height, fallback_width = _fallback(height, width)
    box_height = torch.where(found, heights.gather(1, first), fallback_height)
    box_width = torch.where(found, widths.gather(1, first), fallback_width)
    top = torch.where(
        found, _corner(u["top"], height - box_height), (height - fallback_height) // 2
    )
    left = torch.where(found, _corner(u["left"], width - box_width), (width - fallback_width) // 2)
    return torch.cat([top, left, box_height, box_width], dim=1).long()


def _corner(u: Tensor, room: Tensor) -> Tensor:
    """A uniform integer from 0 to `room`; the minimum guards against rounding up."""
    return torch.minimum((u * (room + 1)).floor_(), room)


def _fallback(height: int, width: int) -> tuple[int, int]:
    """Height and width of torchvision's central box for when no try fits."""
    narrowest, widest = ASPECT_RATIO
    if width / height < narrowest:
        return round(width / narrowest), width
    if width / height > widest:
        return height, round(height * widest)
    return height, width


def _factors(u: dict[str, Tensor], config: ViewsConfig) -> Tensor:
    """Factors of the jitter, (1, 1, 1, 0) where an image has none: (V, 4)."""
    ranges = [
        (max(0.0, 1.0 - strength), 1.0 + strength)
        for strength in (config.brightness, config.contrast, config.saturation)
    ]
    ranges.append((-config.hue, config.hue))
    jittered = u["jitter"] < config.jitter  # (V, 1)
    columns = [
        torch.where(jittered, _between(column, low, high), 0.0 if place == 3 else 1.0)
        for place, (column, (low, high)) in enumerate(
            zip(torch.split(u["factors"], 1, dim=1), ranges, strict=True)
        )
    ]
    return torch.cat(columns, dim=1)


def _order(u: Tensor) -> Tensor:  # (V, 4) -> (V, 4) int64
    """The stable argsort of each row, by counting.

    torch 2.11 cannot compile a sort within a larger kernel on an H200.
    """
    places = torch.arange(u.shape[1], device=u.device)
    mine, other = u[:, :, None], u[:, None, :]
    before = (other < mine) | ((other == mine) & (places < places[:, None]))
    rank = before.sum(dim=2)  # (V, 4), the position of each number in the order
    return ((rank[:, :, None] == places) * places[:, None]).sum(dim=1)


def _sigma(u: dict[str, Tensor], config: ViewsConfig) -> Tensor:
    """Sigma of the blur, 0 where an image has none: (V,)."""
    sigma = _between(u["sigma"], config.blur_sigma_min, config.blur_sigma_max)
    return torch.where(u["blur"] < config.blur, sigma, 0.0)[:, 0]


def _between(u: Tensor, low: float, high: float) -> Tensor:
    return u * (high - low) + low
