"""The X of scikit-learn -> pixels (N, H, W, C) uint8.

In: arrays of images of any layout that `stopgrad.load` takes, or flat (N, H * W * C); or lists of
paths or Pillow images. Integers from 0 to 255 are pixels already; other values need a `PixelRange`.
Gray is repeated in three channels, and of four the last is alpha, unless bands are asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.config import Bands, Reading
from stopgrad.errors import DataError
from stopgrad.images import (
    Damaged,
    Encoded,
    Frame,
    Levels,
    OtherSize,
    Pixels,
    decode_together,
    held_source,
    image_as_file,
    load_dataset,
    stack_layout,
)

Numbers = npt.NDArray[Any]
PixelRange = tuple[float, float] | Literal["fit"] | None


class ImagesError(DataError, ValueError):
    """Images that cannot be used; a ValueError, as scikit-learn's users expect."""


class Range(NamedTuple):
    """The values that become 0 and 255. Values outside are clipped or refused."""

    low: float
    high: float
    clipped: bool


def is_list_of_images(X: Any) -> bool:
    """Whether X is a list of paths or Pillow images."""
    if not isinstance(X, list | tuple) or not X:
        return False
    return isinstance(X[0], str | os.PathLike) or hasattr(X[0], "getexif")


class ReadImages(NamedTuple):
    """Images of one size, and the levels of those of more than 8 bits."""

    pixels: Pixels  # (N, side, side, C)
    levels: tuple[Levels, ...]


def read_images(
    X: Sequence[Any], *, side: int, bands: Bands = (), levels: tuple[Levels, ...] = ()
) -> ReadImages:
    """Reads paths or Pillow images, or these bands; crops each to its centre and resizes it.

    Images of more than 8 bits have the levels that are given for their depth, else those of all.

    Raises:
        ImagesError: For the first that cannot be read.
    """
    files = [_as_file(image, number) for number, image in enumerate(X)]
    frame = Frame(side, side, fit=True, bands=bands, levels=levels, channels=0)
    found = decode_together(files, frame)
    return ReadImages(np.stack([_pixels(image) for image in found.images]), found.levels)


def _as_file(image: Any, number: int) -> Encoded:
    name = f"image {number}"
    if hasattr(image, "getexif"):
        return Encoded(name, image_as_file(image))
    return Encoded(f"{name}, {os.fspath(image)!r}", Path(image))


def _pixels(found: Pixels | OtherSize | Damaged) -> Pixels:
    assert not isinstance(found, OtherSize)
    if isinstance(found, Damaged):
        raise ImagesError(
            f"{found.name}: {found.reason}",
            expected="readable images",
            hint="leave it out; `stopgrad check-data FOLDER` lists all damaged images",
        )
    return found


def shaped(X: Numbers, *, image_shape: Sequence[int] | None) -> Numbers:  # -> (N, H, W, C)
    """Gives an array the shape of images.

    Flat rows without an `image_shape` must be square images: gray if their length is a square
    number (784 = 28 x 28), RGB if it is three times a square number (3072 = 32 x 32 x 3).

    Raises:
        ImagesError: When the shape does not fit.
    """
    if X.ndim == 2:
        return X.reshape(len(X), *_layout(X.shape[1], image_shape))
    if X.ndim == 3 and X.shape[2] != 3:
        return X[..., None]
    layout = stack_layout(X.shape, X.dtype, bands=True)
    if layout is None or X.ndim != 4:
        raise ImagesError(
            f"an array of shape {X.shape}",
            expected="(N, H, W, C), (N, C, H, W), (N, H, W) or flat (N, H * W * C)",
            hint="pass a single image as X[None]",
        )
    return layout.arranged(X)


def _layout(length: int, image_shape: Sequence[int] | None) -> tuple[int, ...]:
    """Height, width and channels of a flat row; one -1 is computed from the length."""
    sides = [s for s in (math.isqrt(length), math.isqrt(length // 3)) if s]
    squares = ((side, side, channels) for side, channels in zip(sides, (1, 3), strict=False))
    wanted: tuple[int, ...] | None = next((s for s in squares if math.prod(s) == length), None)
    if image_shape is not None:
        parts = [int(part) for part in image_shape]
        fits = len(parts) in (2, 3) and parts.count(-1) <= 1
        wanted = tuple([*parts, 1][:3]) if fits else (0, 0, 0)
        left = math.prod(part for part in wanted if part != -1)
        if -1 in wanted and left and length % left == 0:
            wanted = tuple(length // left if part == -1 else part for part in wanted)
    if wanted is None or math.prod(wanted) != length or min(wanted) < 1:
        raise ImagesError(
            f"rows of {length} features with image_shape = {image_shape}",
            expected="image_shape = (H, W) or (H, W, C), whose product is that number",
            hint="set image_shape to the shape of an image before it was flattened",
        )
    return wanted


def range_of(X: Numbers, pixel_range: PixelRange) -> Range | None:
    """The range of the images to fit; None if they are pixels already.

    Raises:
        ImagesError: When `pixel_range` is not a range.
    """
    if pixel_range == "fit":
        return Range(float(X.min()), float(X.max()), clipped=True)
    if pixel_range is not None:
        low, high = map(float, pixel_range)
        if not -math.inf < low < high < math.inf:
            raise ImagesError(
                f"pixel_range = {pixel_range!r}",
                expected="(low, high) with low < high, 'fit' or None",
                hint="use (0, 1) for floats from 0 to 1",
            )
        return Range(low, high, clipped=False)
    return None


def to_pixels(X: Numbers, values: Range | None, bands: Bands) -> Pixels:  # (N, H, W, C)
    """Images as uint8, with the channels that `stopgrad.load` gives them.

    Raises:
        ImagesError: For values that are not pixels, or outside a range that does not clip.
        DataError: For bands that the images do not have.
    """
    if values is None:
        pixels = _bytes(X)
    else:
        low, high = float(X.min()), float(X.max())
        if not values.clipped and (low < values.low or high > values.high):
            raise ImagesError(
                f"values from {low:g} to {high:g}",
                expected=f"values from {values.low:g} to {values.high:g}, as pixel_range says",
                hint="correct the images or set another pixel_range",
            )
        width = (values.high - values.low) or 1.0
        scaled = (np.asarray(X, np.float64) - values.low) * (255 / width)
        pixels = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    if bands or pixels.shape[3] not in (1, 3):
        source = held_source(pixels)
        read = load_dataset(source, reading=Reading(bands=bands or source.reading.bands))
        return read.train.pixels[:]
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


def _bytes(X: Numbers) -> Pixels:
    if X.dtype == np.uint8:
        return X
    if not (np.issubdtype(X.dtype, np.integer) and X.min() >= 0 and X.max() <= 255):
        raise ImagesError(
            f"pixels of type {X.dtype} from {X.min():g} to {X.max():g}",
            expected="integers from 0 to 255",
            hint="say which values are black and white, such as pixel_range=(0, 1)",
        )
    return X.astype(np.uint8)
