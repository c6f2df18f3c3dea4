"""Random resized crop and flip of a whole batch.

In: x (B, 3, H, W) and one box per image. Out: (B, 3, S, S). Crop, flip and resize are one linear,
separable filter: only its taps have to be worked out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.method.views.taps import Taps, resample


class CropTaps(NamedTuple):
    """One crop of each image, as taps of its two axes."""

    rows: Taps
    columns: Taps


def resized_crop(x: Tensor, boxes: Tensor, flip: Tensor, *, size: int) -> Tensor:
    """Cut one box out of each image, bring it to S x S and mirror it where asked.

    Equal to torchvision's `resized_crop(..., antialias=True)`, bilinear, then `hflip`.

    Args:
        x: (B, 3, H, W) float32, on any device.
        boxes: (B, 4) int64, top, left, height, width in px, inside the image.
        flip: (B,) bool, true mirrors left and right.
        size: S, px.

    Returns:
        (B, 3, S, S) float32 in the range of x.
    """
    height, width = x.shape[2:]
    taps = crop_taps(boxes, flip, size=size, height=height, width=width)
    return resample(x, rows=taps.rows, columns=taps.columns)


def crop_taps(boxes: Tensor, flip: Tensor, *, size: int, height: int, width: int) -> CropTaps:
    """The taps of `resized_crop`, which says what its arguments are; H and W in px."""
    top, left, box_height, box_width = boxes.unbind(1)
    ticks = torch.arange(size, device=boxes.device).expand(len(boxes), size)  # (B, S)
    mirrored = torch.where(flip.unsqueeze(1), size - 1 - ticks, ticks)
    return CropTaps(
        rows=_taps(ticks, top, box_height, limit=height),
        columns=_taps(mirrored, left, box_width, limit=width),
    )


def _taps(ticks: Tensor, start: Tensor, length: Tensor, *, limit: int) -> Taps:
    """The taps that resize `length` pixels from `start` on.

    The triangle filter of Pillow and torch (`antialias=True`, `align_corners=False`): output i
    looks at the point (i + 1/2) length / S of the box, with a triangle whose half-width is one
    output pixel where the box shrinks and one input pixel where it grows. Pixels outside the box
    have no weight.

    Args:
        ticks: (B, S) int64, the output's place i that stands at each place.
        start: (B,) int64, px.
        length: (B,) int64, px.
        limit: The most that `length` can be; it bounds the number of taps.
    """
    size = ticks.shape[1]
    scale = (length / size).unsqueeze(1)  # (B, 1)
    reach = scale.clamp_min(1.0)  # half-width of the triangle, px
    centre = (ticks + 0.5) * scale  # (B, S)
    count = math.ceil(2 * max(1.0, limit / size))  # pixels that a triangle can touch
    first = (centre - reach + 0.5).floor_()
    position = first.unsqueeze(2) + torch.arange(count, device=ticks.device)  # (B, S, K)
    distance = (position + 0.5 - centre.unsqueeze(2)).abs_() / reach.unsqueeze(2)
    last = (length - 1).view(-1, 1, 1)
    outside = (position < 0) | (position > last)
    weight = (1.0 - distance).relu_().masked_fill_(outside, 0.0)
    source = torch.minimum(position.long().clamp_min_(0), last) + start.view(-1, 1, 1)
    return Taps(source=source, weight=weight.div_(weight.sum(2, keepdim=True)))
