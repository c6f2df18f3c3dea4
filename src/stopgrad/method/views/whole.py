"""Whole pictures at the size at which an encoder looks at them, without augmentation.

Views are cut from the stored pixels; a picture that is stored larger than a run would store it is
brought down first where it is looked at whole, so that its objects are as large as in training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bring_down(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures at a smaller size, antialiased; as they are where they have it.

    Args:
        pixels: (B, 3, H, W) uint8 on any device, in any memory format.
        size: Height h and width w, px.

    Returns:
        (B, 3, h, w) uint8.
    """
    if tuple(pixels.shape[2:]) == size:
        return pixels
    small = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
    return small.round_().clamp_(0, 255).to(torch.uint8)
