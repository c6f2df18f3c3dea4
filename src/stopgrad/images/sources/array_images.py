"""The shape of an array -> the images that it holds.

A stack of images is (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels, the former where both
fit, or (N, H, W), gray; of bytes also flat rows of S * S values, or of 3 * S * S, plane by plane,
as CIFAR has them. A single image is (H, W), (H, W, C) or (C, H, W). If bands are asked for, C is
any number: the axis next to two equal ones, else the shorter one. The decoder scales values of any
type (`depth`). An array that could be a stack or one image is a stack, and `may_be_one` says so.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.images.depth import CHANNELS

AnyArray = npt.NDArray[Any]

SMALLEST = 8  # px of a single image or a flat row; anything narrower is a table of numbers


class ArrayLayout(NamedTuple):
    """How many images an array holds, and how a block of its rows becomes (n, H, W, C)."""

    images: int
    shape: tuple[int, ...]  # to which a block of n images is first reshaped, without n
    channels_first: bool = False

    @property
    def bands(self) -> int:
        """C."""
        return self.shape[0 if self.channels_first else -1]

    def arranged(self, block: AnyArray) -> AnyArray:
        """Rows of the array as (n, H, W, C)."""
        block = block.reshape(-1, *self.shape)
        return np.moveaxis(block, 1, 3) if self.channels_first else block


def stack_layout(
    shape: tuple[int, ...], dtype: np.dtype[Any], *, bands: bool = False
) -> ArrayLayout | None:
    """The layout of an array whose rows can be images, maybe of many bands; None for any other."""
    match _if_numbers(shape, dtype):
        case (count, _, _, channels) if channels in CHANNELS:
            return ArrayLayout(count, shape[1:])
        case (count, channels, _, _) if channels in CHANNELS:
            return ArrayLayout(count, shape[1:], channels_first=True)
        case (count, *image) if bands and len(image) == 3:
            return ArrayLayout(count, shape[1:], channels_first=_bands_first(*image))
        case (count, height, width):
            return ArrayLayout(count, (height, width, 1))
        case (count, length) if dtype == np.uint8:
            return _flat(count, length)
    return None


def _flat(count: int, length: int) -> ArrayLayout | None:
    for channels in (1, 3):
        side = math.isqrt(length // channels)
        if side * side * channels == length and side >= SMALLEST:
            return ArrayLayout(count, (channels, side, side), channels_first=True)
    return None


def image_layout(
    shape: tuple[int, ...], dtype: np.dtype[Any], *, bands: bool = False
) -> ArrayLayout | None:
    """The layout of an array that can be one image; None for any other.

    With many bands it is one if bands are asked for, or if it looks like a stack only by chance:
    its first two axes are equal, or its last is narrower than any image.
    """
    match _if_numbers(shape, dtype):
        case (height, width, channels) if channels in CHANNELS and min(height, width) >= SMALLEST:
            return ArrayLayout(1, shape)
        case (channels, height, width) if channels in (1, 3) and min(height, width) >= SMALLEST:
            return ArrayLayout(1, shape, channels_first=True)
        case (height, width) if min(height, width) >= SMALLEST:
            return ArrayLayout(1, (height, width, 1))
        case (first, second, third):
            channels_first = _bands_first(first, second, third)
            channels, *sides = (first, second, third) if channels_first else (third, first, second)
            certain = bands or (not channels_first and (first == second or third < SMALLEST))
            if certain and channels < min(sides) and min(sides) >= SMALLEST:
                return ArrayLayout(1, shape, channels_first)
    return None


def may_be_one(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """A remark on a stack of gray images that could also be one image of several bands; or ""."""
    one = image_layout(shape, dtype, bands=True)
    if one is None or image_layout(shape, dtype) is not None:
        return ""
    return (
        f"of shape {shape} is read as {shape[0]} gray images; if it is one image of {one.bands} "
        f"bands, use --bands all --encoder.channels {one.bands}, or three of them"
    )


def alpha_said(channels: int) -> str:
    """A remark on images of bytes whose fourth channel is taken for alpha; "" for others."""
    if channels != 4:
        return ""
    leave = "--bands 1,2,3 leaves it out, --bands all --encoder.channels 4 keeps it as a band"
    return f"the fourth channel of the arrays is read as alpha, over white; {leave}"


def _bands_first(first: int, second: int, third: int) -> bool:
    """Whether the bands of an image of this shape are its first axis rather than its last."""
    if (second == third) != (first == second):
        return second == third
    return first < third


def _if_numbers(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    return shape if dtype.kind in "buif" and min(shape, default=0) > 0 else ()
