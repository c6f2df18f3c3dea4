"""Random resized crop with flip, and Gaussian blur, of a whole batch, one setting per image.

In: x (B, 3, H, W) and a box or a sigma for each image. Out: (B, 3, S, S) or the same shape. Both
are linear, separable filters: an output row is a weighted sum of a few input rows, its taps, and
so is an output column.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.method.views.shortcuts import may_look

REACH = 6.0
"""Sigmas beyond which a Gaussian's weights are 0: exp(-18) is lost in float32 beside 1."""


class Taps(NamedTuple):
    """For each of S outputs along one axis, its K inputs and their weights."""

    source: Tensor  # (B, S, K) int64, position along the axis
    weight: Tensor  # (B, S, K) float32, sums to 1 over K


def resample(x: Tensor, *, rows: Taps, columns: Taps) -> Tensor:
    """Filter both axes: (B, 3, H, W) -> (B, 3, H', W').

    Fastest for x stored row by row; the result is stored column by column, which saves one of two
    transposes.
    """
    x = _weighted_rows(x, rows)  # (B, 3, H', W)
    x = _weighted_rows(x.transpose(2, 3), columns)  # (B, 3, W', H')
    return x.transpose(2, 3)


def _weighted_rows(x: Tensor, taps: Taps) -> Tensor:
    """Weighted sums of rows, the same for all channels: (B, 3, H, W) -> (B, 3, S, W).

    `embedding_bag` is exactly this sum in one kernel. Dense interpolation matrices and batched
    products took 4 times as long at 32 px and 30 times at 224 px.
    """
    batch, channels, height, width = x.shape
    first_row = torch.arange(batch * channels, device=x.device).mul_(height)
    source = taps.source.unsqueeze(1) + first_row.view(batch, channels, 1, 1)  # (B, 3, S, K)
    sums = F.embedding_bag(
        source.flatten(0, 2),
        x.reshape(-1, width),
        mode="sum",
        per_sample_weights=taps.weight.unsqueeze(1).expand(source.shape).flatten(0, 2),
    )
    return sums.view(batch, channels, -1, width)


class CropTaps(NamedTuple):
    """One crop of each image, as taps along both axes."""

    rows: Taps
    columns: Taps


def crop_taps(boxes: Tensor, flip: Tensor, *, size: int, height: int, width: int) -> CropTaps:
    """The taps that cut one box out of each image, resize it to S x S and mirror it.

    With `resample` equal to torchvision's `resized_crop(..., antialias=True)`, then `hflip`.

    Args:
        boxes: (B, 4) int64, top, left, height, width in px, inside the image.
        flip: (B,) bool, whether to swap left and right.
        size: S, px.
        height: H of the images, px.
        width: W, px.
    """
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
    is centred at (i + 1/2) length / S of the box, with a triangle whose half-width is one output
    pixel if the box shrinks and one input pixel if it grows. Pixels outside the box have no weight.

    Args:
        ticks: (B, S) int64, the index i of the output at each position.
        start: (B,) int64, px.
        length: (B,) int64, px.
        limit: The largest possible `length`, which bounds the number of taps.
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


def kernel_size(side: int) -> int:
    """Side of the blur's kernel for views of this side, px: about a tenth, odd, at least 3.

    Paper: Pillow's GaussianBlur, whose kernel grows with sigma; here: SimCLR's rule (Chen et al.
    2020, Appendix A: a tenth of the side, 23 at 224 px), because the size must not depend on data.
    """
    return max(3, 2 * round(side / 20) + 1)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Convolve each image with a Gaussian; the border is mirrored.

    Equal to torchvision's `gaussian_blur` with `kernel_size` of the shorter side.

    Args:
        x: (B, 3, H, W) float32, at least 4 px each way.
        sigma: (B,) px; 0 leaves the image unchanged.

    Returns:
        (B, 3, H, W) float32; on a CPU x itself if no image is blurred.
    """
    if not may_look(x):
        return _blur(x, sigma)
    rows = sigma.nonzero()[:, 0]
    if len(rows) == len(x):
        return _blur(x, sigma)
    if len(rows):
        x = x.clone()
        x[rows] = _blur(x[rows], sigma[rows])
    return x


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    height, width = x.shape[2:]
    weight = gaussians(sigma, radius=kernel_size(min(height, width)) // 2)  # (B, K)
    if may_look(x):  # weights that are 0 for all images change no sum
        weight = weight[:, weight.any(dim=0)]
    rows, columns = _mirrored(weight, side=height), _mirrored(weight, side=width)
    # `resample` stores views column by column, so their transposes are stored row by row.
    return resample(x.transpose(2, 3), rows=columns, columns=rows).transpose(2, 3)


def _mirrored(weight: Tensor, *, side: int) -> Taps:
    """The taps of a convolution along an axis of `side` px, from kernels (B, K)."""
    batch, count = weight.shape
    place = torch.arange(side, device=weight.device).unsqueeze(1)  # (S, 1)
    step = torch.arange(count, device=weight.device) - count // 2  # (K,)
    source = (place + step).abs_()
    source = torch.minimum(source, 2 * (side - 1) - source)  # (S, K)
    shape = (batch, side, count)
    return Taps(source=source.expand(shape), weight=weight.unsqueeze(1).expand(shape))


def gaussians(sigma: Tensor, *, radius: int) -> Tensor:
    """Gaussians at -radius..radius px that sum to 1: (B, 2 radius + 1)."""
    steps = torch.arange(-radius, radius + 1, device=sigma.device, dtype=sigma.dtype)
    # At this width the Gaussian is exactly (.., 0, 1, 0, ..), as sigma = 0 requires.
    width = sigma.clamp_min(1e-3).unsqueeze(1)
    weight = torch.softmax(-0.5 * (steps / width).square(), dim=1)
    return weight.masked_fill(steps.abs() > REACH * width, 0.0)
