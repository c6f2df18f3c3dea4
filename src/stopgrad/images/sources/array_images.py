"""Arrays of the usual layouts and types -> single images as files in memory, for the decoder.

A layout is told by shape. A stack of images is (N, H, W, C) or (N, C, H, W) with 1, 3 or 4
channels, the former where both fit, or (N, H, W), gray; of bytes also flat rows of S * S values, or
of 3 * S * S, plane by plane, as CIFAR has them. A single image is (H, W), (H, W, C) or (C, H, W).

Values are read by one rule over all images of a data set. Bytes are pixels. False and true are
black and white. Other integers are pixels up to 255, 16-bit values up to 65535. Floats that all lie
in 0..1 have white at 1, in -1..1 black at -1 and white at 1, in 0..255 white at 255.
"""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.errors import DataError
from stopgrad.images.types import Encoded

AnyArray = npt.NDArray[Any]

CHANNELS = (1, 3, 4)
SMALLEST = 8  # px of a single image or a flat row; what is narrower is a table of numbers


class ArrayLayout(NamedTuple):
    """How many images an array holds, and how a block of its rows becomes (n, H, W, C)."""

    images: int
    shape: tuple[int, ...]  # that a block of n images is given first, without n
    channels_first: bool = False

    def arranged(self, block: AnyArray) -> AnyArray:
        """Rows of the array as (n, H, W, C)."""
        block = block.reshape(-1, *self.shape)
        return np.moveaxis(block, 1, 3) if self.channels_first else block


def stack_layout(shape: tuple[int, ...], dtype: np.dtype[Any]) -> ArrayLayout | None:
    """The layout of an array whose rows can be images; None for any other."""
    match _if_numbers(shape, dtype):
        case (count, _, _, channels) if channels in CHANNELS:
            return ArrayLayout(count, shape[1:])
        case (count, channels, _, _) if channels in CHANNELS:
            return ArrayLayout(count, shape[1:], channels_first=True)
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


def image_layout(shape: tuple[int, ...], dtype: np.dtype[Any]) -> ArrayLayout | None:
    """The layout of an array that can be one image; None for any other."""
    match _if_numbers(shape, dtype):
        case (height, width, channels) if channels in CHANNELS and min(height, width) >= SMALLEST:
            return ArrayLayout(1, shape)
        case (channels, height, width) if channels in (1, 3) and min(height, width) >= SMALLEST:
            return ArrayLayout(1, shape, channels_first=True)
        case (height, width) if min(height, width) >= SMALLEST:
            return ArrayLayout(1, (height, width, 1))
    return None


def _if_numbers(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    return shape if dtype.kind in "buif" and min(shape, default=0) > 0 else ()


class ArrayRange(NamedTuple):
    """The lowest and highest finite value of all images."""

    low: float
    high: float

    def and_that(self, of: ArrayRange) -> ArrayRange:
        """Of these images and others."""
        return ArrayRange(min(self.low, of.low), max(self.high, of.high))


def range_of_block(block: AnyArray) -> ArrayRange:
    """The range of some rows; empty (low above high) where no value is finite."""
    finite = block[np.isfinite(block)]
    if not finite.size:
        return ArrayRange(math.inf, -math.inf)
    return ArrayRange(float(finite.min()), float(finite.max()))


class ArrayLevels(NamedTuple):
    """The values that become black and white, and in how many bits."""

    black: float
    white: float
    bits: int = 8


BYTES = ArrayLevels(0, 255)


def levels_of(dtype: np.dtype[Any], seen: ArrayRange, *, where: str) -> ArrayLevels:
    """Which values are black and white, by the rule of this module.

    Args:
        dtype: Of all images.
        seen: What `range_of_block` found in them; not needed for bytes and booleans.
        where: The arrays, for messages.

    Raises:
        DataError: For values whose range nothing defines.
    """
    if dtype == np.uint8:
        return BYTES
    if dtype.kind == "b":
        return ArrayLevels(0, 1)
    if dtype.kind == "f":
        for black, white in ((0, 1), (-1, 1), (0, 255)):
            if black <= seen.low and seen.high <= white:
                return ArrayLevels(black, white)
        expected = "floats in 0..1, in -1..1 or in 0..255"
    else:
        for white, bits in ((255, 8), (65535, 16)):
            if seen.low >= 0 and seen.high <= white:
                return ArrayLevels(0, white, bits)
        expected = "integers in 0..255 or in 0..65535"
    raise DataError(
        f"{where} has {dtype} values from {seen.low:g} to {seen.high:g}",
        expected=expected,
        hint="scale it to bytes, from black at 0 to white at 255",
    )


def said(dtype: np.dtype[Any], levels: ArrayLevels) -> str:
    """What a reader should know of how values were scaled; "" for bytes."""
    if levels == BYTES and dtype.kind in "ui":
        return ""
    return f"{dtype} values are scaled: {levels.black:g} is black, {levels.white:g} is white"


def as_image(name: str, array: AnyArray, levels: ArrayLevels) -> Encoded:  # (H, W, C)
    """One image as a file in memory; with a value that is no number it is damaged."""
    if levels != BYTES or array.dtype != np.uint8:
        if not np.isfinite(array).all():
            return Encoded(name, ValueError("values that are no numbers (NaN or infinite)"))
        most = 65535 if levels.bits == 16 else 255
        scaled = (array.astype(np.float64) - levels.black) * (most / (levels.white - levels.black))
        array = np.rint(scaled).astype(np.uint16 if levels.bits == 16 else np.uint8)
    return Encoded(name, _file(array))


def _file(array: AnyArray) -> bytes:
    """Gray and colour as PGM and PPM: a header and the raw values."""
    height, width, channels = array.shape
    if channels == 4:
        return _with_alpha(array)
    kind, most = (5 if channels == 1 else 6), np.iinfo(array.dtype).max
    raw = array.astype(array.dtype.newbyteorder(">")).tobytes()
    return f"P{kind} {width} {height} {most}\n".encode() + raw


def _with_alpha(array: AnyArray) -> bytes:
    from PIL import Image

    if array.dtype != np.uint8:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, format="TIFF")
    return file.getvalue()
