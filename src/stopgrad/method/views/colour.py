"""Colour augmentations of a whole batch, each with one parameter per image.

In and out: x (B, 3, H, W) float32 in [0, 1], or (B, 1, H, W), which is gray: hue and saturation
leave it as it is. Each step equals torchvision's on one float image. Unlike Pillow, none rounds to
8 bits after it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stopgrad.method.views.shortcuts import none_of

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in gray (ITU-R BT.601 as torchvision rounds them)."""

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""The four steps of colour jitter, as `order` names them (torchvision's numbers)."""

NO_CHROMA = 1e-12
"""Chroma below which a pixel is gray and its hue means nothing."""


class Blend(NamedTuple):
    """Weights of clamp(keep x + gray L + mean avg(L)), L the gray of x; each (B,)."""

    keep: Tensor
    gray: Tensor
    mean: Tensor


class Jitter(NamedTuple):
    """Colour jitter as six blends and a turn of the hue between the third and the fourth."""

    keep: Tensor  # (B, 6)
    gray: Tensor  # (B, 6)
    mean: Tensor  # (B, 6)
    hue: Tensor  # (B,)


def grayscale(x: Tensor, where: Tensor) -> Tensor:
    """Replace the images where `where` (B,) is true by their gray, in all channels."""
    gray = where.to(x.dtype)
    blend = Blend(keep=1.0 - gray, gray=gray, mean=torch.zeros_like(gray))
    return _blend(x, blend, out=torch.empty_like(x))


def jitter_blends(factors: Tensor, order: Tensor) -> Jitter:
    """Colour jitter in a form that is the same for all images.

    Args:
        factors: (B, 4), of brightness, contrast, saturation, hue; (1, 1, 1, 0) changes nothing. A
            hue is turned by a fraction of the colour circle in [-0.5, 0.5].
        order: (B, 4) int64, a permutation in each row: the first step, the second, ...

    All steps except hue are the same blend with other weights. So each of the three positions
    before the hue and the three after it is one blend of the whole batch, which leaves images
    without a step there unchanged. No control flow depends on the data, so a GPU never waits.
    """
    places = torch.arange(4, device=order.device)
    hue_place = order.eq(HUE).to(torch.uint8).argmax(1, keepdim=True)  # (B, 1)
    factor = factors.gather(1, order)  # (B, 4), of the step at each position
    early = torch.where(places < hue_place, factor, 1.0)
    late = torch.where(places > hue_place, factor, 1.0)
    keep = torch.cat([early[:, :3], late[:, 1:]], dim=1)  # (B, 6)
    step = torch.cat([order[:, :3], order[:, 1:]], dim=1)
    rest = 1.0 - keep
    gray, mean = rest * (step == SATURATION), rest * (step == CONTRAST)
    return Jitter(keep=keep, gray=gray, mean=mean, hue=factors[:, HUE])


def apply_jitter(x: Tensor, jitter: Jitter) -> Tensor:
    """(B, 3, H, W) -> the same, jittered. Works in place on one new tensor.

    While compiling, `out` is None, so that the compiler fuses all steps into one kernel.
    """
    out = None if torch.compiler.is_compiling() else torch.empty_like(x)
    blends = [Blend(*weights) for weights in zip(*(w.unbind(1) for w in jitter[:3]), strict=True)]
    for blend in blends[:3]:
        x = _blend(x, blend, out=out)
    x = _turn_hue(x, jitter.hue, out=out)
    for blend in blends[3:]:
        x = _blend(x, blend, out=out)
    return x


def _blend(x: Tensor, blend: Blend, *, out: Tensor | None) -> Tensor:
    """Clamp keep x + gray L + mean avg(L) to [0, 1]; `out` may be x, or None for a new tensor.

    Where keep is 1 the others are 0 and nothing changes; returns x if that holds everywhere.
    """
    if none_of(blend.keep != 1):
        return x
    keep, gray, mean = (weight.view(-1, 1, 1) for weight in blend)
    if none_of(gray + mean != 0):
        return torch.mul(x, keep.unsqueeze(1), out=out).clamp_(0.0, 1.0)
    luma = _luma(x)
    average = luma.mean((1, 2), keepdim=True).mul_(mean)
    base = luma.mul_(gray).add_(average)
    return torch.addcmul(base.unsqueeze(1), x, keep.unsqueeze(1), out=out).clamp_(0.0, 1.0)


def _luma(x: Tensor) -> Tensor:
    """Gray of each pixel: (B, H, W), new memory."""
    if x.shape[1] == 1:
        return x[:, 0].clone()
    red, green, blue = x.unbind(1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _turn_hue(x: Tensor, shift: Tensor, *, out: Tensor | None) -> Tensor:
    """Converts to HSV and back without branches; `out` may be x, or None for a new tensor.

    In units of a sixth of the circle, a hue h in [-3, 3] counted from red has channels
    (x_c - min) / chroma = t_c with |h| = 1 + t_g + t_b - t_r and the sign of g - b. Back: a
    channel at a distance d from its own hue (red 0, green 2, blue -2) has
    t = clamp(| |d| - 3 | - 1, 0, 1). Minimum and maximum stay, hence value and saturation.
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.unbind(1)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = torch.maximum(torch.maximum(red, green), blue).sub_(low)
    hue = (green + blue).sub_(red).sub_(low).div_(chroma.clamp_min(NO_CHROMA)).add_(1.0)
    hue = hue.copysign_(green - blue).add_((6.0 * shift).view(-1, 1, 1))
    hue.sub_((hue / 6.0).round_(), alpha=6.0)  # back into [-3, 3]
    if out is None:
        out = torch.stack([hue, hue - 2.0, hue + 2.0], dim=1)
    else:
        for channel, own_hue in zip(out.unbind(1), (0.0, 2.0, -2.0), strict=True):
            torch.sub(hue, own_hue, out=channel)
    out.abs_().sub_(3.0).abs_().sub_(1.0).clamp_(0.0, 1.0)
    return out.mul_(chroma.unsqueeze(1)).add_(low.unsqueeze(1))
