"""What scikit-learn's users hand over as X -> pixels (N, H, W, 3) uint8.

In: arrays (N, H, W, 3), (N, H, W, 1), (N, H, W) or flat (N, H * W * C); or lists of paths or of
Pillow images. Whole numbers from 0 to 255 are pixels as they are; all else needs a `PixelRange`.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stopgrad.errors import DataError
from stopgrad.images import Damaged, Encoded, Frame, OtherSize, Pixels, decode, strict_pillow

# What PNG and TIFF keep as it is, of the modes that a picture in memory may have.
AS_FILES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "CMYK", "F")

if TYPE_CHECKING:
    from PIL.Image import Image

Numbers = npt.NDArray[Any]
PixelRange = tuple[float, float] | Literal["fit"] | None


class PicturesError(DataError, ValueError):
    """Pictures that cannot be used; a ValueError, as scikit-learn's users expect."""


class Range(NamedTuple):
    """Values that become 0 and 255; values outside are clipped, or refused."""

    low: float
    high: float
    clipped: bool


def is_list_of_pictures(X: Any) -> bool:
    """Whether X is a list of paths or of Pillow images, not of numbers."""
    if not isinstance(X, list | tuple) or not X:
        return False
    return isinstance(X[0], str | os.PathLike) or hasattr(X[0], "getexif")


def read_pictures(X: Sequence[Any], *, side: int) -> Pixels:
    """Pictures from paths or Pillow images, their centres brought to side x side px.

    Raises:
        PicturesError: For the first one that cannot be read.
    """
    frame = Frame(side, side, fit=True)
    with strict_pillow():
        return np.stack([_decoded(picture, frame, number) for number, picture in enumerate(X)])


def _decoded(picture: Any, frame: Frame, number: int) -> Pixels:
    name = f"picture {number}"
    if hasattr(picture, "getexif"):
        encoded = Encoded(name, _encoded(picture))
    else:
        encoded = Encoded(f"{name}, {os.fspath(picture)!r}", Path(picture))
    found = decode(encoded, frame)
    assert not isinstance(found, OtherSize)
    if isinstance(found, Damaged):
        raise PicturesError(
            f"{found.name}: {found.reason}",
            expected="pictures that can be read",
            hint="leave it out; `stopgrad check-data FOLDER` lists all that are damaged",
        )
    return found


def _encoded(image: Image) -> bytes:
    """The picture as bytes, so that it goes through the same decoder as a file."""
    file = io.BytesIO()
    kind = "TIFF" if image.mode in ("CMYK", "F") else "PNG"
    if image.mode not in AS_FILES:
        colour = "RGBA" if image.has_transparency_data else "RGB"
        image = image.convert("LA" if image.mode == "La" else colour)
    image.save(file, format=kind, exif=image.getexif())  # the orientation counts
    return file.getvalue()


def shaped(X: Numbers, *, image_shape: Sequence[int] | None) -> Numbers:  # -> (N, H, W, C)
    """An array as pictures, C = 1 or 3, its values untouched.

    Flat rows without an `image_shape` are square pictures: gray where their length is a square
    number (784 is 28 x 28), else colour where it is three times one (3072 is 32 x 32 x 3).

    Raises:
        PicturesError: When it has no such layout.
    """
    if X.ndim == 2:
        return X.reshape(len(X), *_layout(X.shape[1], image_shape))
    if X.ndim == 3 and X.shape[2] != 3:
        return X[..., None]
    if X.ndim != 4 or X.shape[3] not in (1, 3):
        raise PicturesError(
            f"an array of shape {X.shape}",
            expected="(N, H, W, 3), (N, H, W, 1), (N, H, W) or flat (N, H * W * C)",
            hint="a single picture is X[None]; channels come last",
        )
    return X


def _layout(length: int, image_shape: Sequence[int] | None) -> tuple[int, int, int]:
    """Height, width and channels of a flat row; one -1 stands for what the length leaves."""
    sides = [s for s in (math.isqrt(length), math.isqrt(length // 3)) if s]
    squares = ((side, side, channels) for side, channels in zip(sides, (1, 3), strict=False))
    wanted = next((s for s in squares if math.prod(s) == length), None)
    if image_shape is not None:
        wanted = _three(image_shape)
        left = math.prod(part for part in wanted if part != -1)
        if -1 in wanted and left and length % left == 0:
            height, width, channels = (length // left if p == -1 else p for p in wanted)
            wanted = (height, width, channels)
    if wanted is None or math.prod(wanted) != length or min(wanted) < 1 or wanted[2] not in (1, 3):
        raise PicturesError(
            f"rows of {length} features with image_shape = {image_shape}",
            expected="image_shape = (H, W) or (H, W, C), C = 1 or 3, whose product is that number",
            hint="set image_shape to what the pictures were before they were made flat",
        )
    return wanted


def _three(image_shape: Sequence[int]) -> tuple[int, int, int]:
    parts = [int(part) for part in image_shape]
    if len(parts) not in (2, 3) or parts.count(-1) > 1:
        return (0, 0, 0)
    height, width, channels = [*parts, 1][:3]
    return (height, width, channels)


def range_of(X: Numbers, pixel_range: PixelRange) -> Range | None:
    """The range of an array of pictures to fit; None for bytes, which are pixels as they are.

    Raises:
        PicturesError: For other numbers without a range, or a range that is none.
    """
    if pixel_range == "fit":
        return Range(float(X.min()), float(X.max()), clipped=True)
    if pixel_range is not None:
        low, high = map(float, pixel_range)
        if not -math.inf < low < high < math.inf:
            raise PicturesError(
                f"pixel_range = {pixel_range!r}",
                expected="(low, high) with low < high, 'fit' or None",
                hint="use (0, 1) for floats from 0 to 1",
            )
        return Range(low, high, clipped=False)
    return None


def to_pixels(X: Numbers, values: Range | None) -> Pixels:  # (N, H, W, C) -> (N, H, W, 3)
    """Pictures as uint8, gray repeated in three channels.

    Raises:
        PicturesError: For values that are no pixels, or outside a range that does not clip.
    """
    if values is None:
        pixels = _bytes(X)
    else:
        low, high = float(X.min()), float(X.max())
        if not values.clipped and (low < values.low or high > values.high):
            raise PicturesError(
                f"values from {low:g} to {high:g}",
                expected=f"values from {values.low:g} to {values.high:g}, as pixel_range says",
                hint="mend the pictures or set another pixel_range",
            )
        width = (values.high - values.low) or 1.0
        scaled = (np.asarray(X, np.float64) - values.low) * (255 / width)
        pixels = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


def _bytes(X: Numbers) -> Pixels:
    if X.dtype == np.uint8:
        return X
    whole = np.issubdtype(X.dtype, np.integer) and X.min() >= 0 and X.max() <= 255
    if not whole:
        raise PicturesError(
            f"pixels of type {X.dtype} from {X.min():g} to {X.max():g}",
            expected="whole numbers from 0 to 255",
            hint="say what black and white are: pixel_range=(0, 1) for floats from 0 to 1",
        )
    return X.astype(np.uint8)
