"""Gaussian blur of a whole batch, with one sigma per image: (B, 3, H, W) -> the same."""

from __future__ import annotations

import torch
from torch import Tensor

from stopgrad.method.views.some import may_look
from stopgrad.method.views.taps import Taps, resample

REACH = 6.0
"""Sigmas beyond which a Gaussian's weights are 0: exp(-18) is lost in float32 beside 1."""


def kernel_size(side: int) -> int:
    """Side of the blur's kernel for views of so many px: about a tenth, odd, at least 3.

    Paper: Pillow's GaussianBlur, whose reach follows sigma; here: SimCLR's rule (Chen et al.
    2020, Appendix A: a tenth of the side, 23 at 224 px), because the kernel's size must be known
    without looking at the data.
    """
    return max(3, 2 * round(side / 20) + 1)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Convolve each image with a Gaussian; the border is mirrored.

    Equal to torchvision's `gaussian_blur` with `kernel_size` of the shorter side.

    Args:
        x: (B, 3, H, W) float32, at least 4 px each way.
        sigma: (B,) px; 0 leaves the image as it is.

    Returns:
        (B, 3, H, W) float32; x itself where no image is blurred and that may be looked at.
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
    weight = _kernels(sigma, radius=kernel_size(min(height, width)) // 2)  # (B, K)
    if may_look(x):  # weights that are 0 for all images change no sum
        weight = weight[:, weight.any(dim=0)]
    rows, columns = _mirrored(weight, side=height), _mirrored(weight, side=width)
    # Views come column by column (`resample`): seen transposed, they lie row by row.
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


def _kernels(sigma: Tensor, *, radius: int) -> Tensor:
    """Gaussians at -radius..radius px that sum to 1: (B, 2 radius + 1)."""
    steps = torch.arange(-radius, radius + 1, device=sigma.device, dtype=sigma.dtype)
    # So narrow a Gaussian is exactly (.., 0, 1, 0, ..), which is what sigma = 0 must be.
    width = sigma.clamp_min(1e-3).unsqueeze(1)
    weight = torch.softmax(-0.5 * (steps / width).square(), dim=1)
    return weight.masked_fill(steps.abs() > REACH * width, 0.0)
