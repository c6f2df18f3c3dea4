"""Random crop with reflect padding, and flip, of a whole batch.

In: pixels (B, 3, H, W) and one corner per image. Out: (B, 3, h, w). Nothing is padded: each pixel
of the crop is looked up where the reflection would have taken it from. Report: supervised
baseline, 4 px and 32 px.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class CropSize(NamedTuple):
    """Height and width of an image, px."""

    height: int
    width: int


class Crops(NamedTuple):
    """What is cut out of each image; row b belongs to image b."""

    top: Tensor  # (B,) int64, px from the upper edge of the padded image
    left: Tensor  # (B,) int64, px from its left edge
    flip: Tensor  # (B,) bool, true mirrors left and right


def draw_crops(generator: torch.Generator, *, images: int, room: CropSize, flip: float) -> Crops:
    """Corners, each as likely as any other, and flips of B images.

    Args:
        generator: The only source of randomness; its device is that of the result.
        images: B.
        room: How far a corner may lie from the upper left one, px.
        flip: Probability of a flip.
    """
    u = torch.rand((images, 3), generator=generator, device=generator.device)
    return Crops(
        top=_whole(u[:, 0], most=room.height),
        left=_whole(u[:, 1], most=room.width),
        flip=u[:, 2] < flip,
    )


def padded_crop(pixels: Tensor, crops: Crops, *, padding: int, size: CropSize) -> Tensor:
    """Pads by reflection, cuts a box out of each image and mirrors it where asked.

    Equal to `torch.nn.functional.pad(mode="reflect")`, a slice and `flip` for each image.

    Args:
        pixels: (B, 3, H, W) of any type, on any device.
        crops: Corners and flips, on the same device.
        padding: px on each side, less than H and W.
        size: h and w, px; the boxes lie inside the padded image.

    Returns:
        (B, 3, h, w) of the same type, channels_last.
    """
    height, width = pixels.shape[2:]
    rows = torch.arange(size.height, device=pixels.device)  # (h,)
    columns = torch.arange(size.width, device=pixels.device)  # (w,)
    mirrored = torch.where(crops.flip[:, None], columns.flip(0), columns)  # (B, w)
    y = _reflected(crops.top[:, None] + rows - padding, limit=height)  # (B, h)
    x = _reflected(crops.left[:, None] + mirrored - padding, limit=width)  # (B, w)
    image = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    cut = pixels.permute(0, 2, 3, 1)[image, y[:, :, None], x[:, None, :]]  # (B, h, w, 3)
    return cut.permute(0, 3, 1, 2)


def _whole(u: Tensor, *, most: int) -> Tensor:  # (B,) -> (B,) int64
    """A whole number from 0 to `most`, each as likely; the maximum guards against rounding up."""
    return (u * (most + 1)).long().clamp_max_(most)


def _reflected(index: Tensor, *, limit: int) -> Tensor:
    """Places before 0 and after limit - 1, mirrored back inside; the edge is not repeated."""
    return limit - 1 - (limit - 1 - index.abs()).abs()
