"""The steps of a view one by one, by the code that makes them together."""

import functools

import torch
from torch import Tensor

from stopgrad.method.views.colour import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    SATURATION,
    apply_jitter,
    jitter_blends,
)
from stopgrad.method.views.filters import crop_taps, resample


def colour_jitter(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """(B, 3, H, W), factors (B, 4) of the steps, their order (B, 4) -> (B, 3, H, W)."""
    return apply_jitter(x, jitter_blends(factors, order))


def _adjust(step: int, x: Tensor, factor: Tensor) -> Tensor:
    """One step of colour jitter, the others changing nothing; factor (B,)."""
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(len(x), 1)
    factors[:, step] = factor
    return colour_jitter(x, factors, torch.arange(4).expand(len(x), 4))


adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue = (
    functools.partial(_adjust, step) for step in (BRIGHTNESS, CONTRAST, SATURATION, HUE)
)


def resized_crop(x: Tensor, boxes: Tensor, flip: Tensor, *, size: int) -> Tensor:
    """Torchvision's `resized_crop(..., antialias=True)`, then `hflip` where `flip` (B,) says so."""
    height, width = x.shape[2:]
    taps = crop_taps(boxes, flip, size=size, height=height, width=width)
    return resample(x, rows=taps.rows, columns=taps.columns)
