"""Samples of more than 8 bits -> 8 bits, by levels of the whole set.

A 12-bit camera or X-ray writes 0 to 4,095 into 16-bit files, whose images are nearly black if
65,535 is taken as white. So black and white are derived from all images of one depth:

    16-bit          unsigned. Black is 0; white is the smallest 2^k - 1 of at least 8 bits that no
                    value of the set exceeds. A set that reaches 32,768 keeps the full range.
    integer         signed or wider. The same where no value is negative or above 65,535; else
                    from the smallest value of the set to the largest.
    floating-point  0 to 1 or -1 to 1 where no value lies outside, and 0 to 255 where a value passes
                    127; else from the smallest to the largest.

Values that are not finite, or that a GDAL_NODATA tag calls no data, become black and are ignored.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from stopgrad.config import ALL_BANDS, Bands, are_colours
from stopgrad.images.pixels import Pixels
from stopgrad.images.types import Levels

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

Depth = Literal["16-bit", "integer", "floating-point"]
Samples: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"  # (H, W) or (H, W, C), masked where invalid

FULL = 65535
CHANNELS = (1, 3, 4)  # of an array of colours or gray; 4 for bytes alone, where the last is alpha
PHOTOMETRIC, SAMPLES, EXTRA_SAMPLES = 262, 277, 338  # tags of TIFF 6.0
SAMPLE_FORMAT, NODATA = 339, 42113  # the last is GDAL's
COLOUR_BANDS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # by PHOTOMETRIC
BELOW = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
COLOURS = ("RGB", "RGBX", "RGBA", "CMYK", "LA")  # raw layouts whose low bytes Pillow drops


class ValueRange(NamedTuple):
    """The smallest and the largest value of an image or a set."""

    low: float
    high: float


@dataclass(frozen=True)
class RawImage:
    """An image whose values Pillow cannot hold unchanged; only its header has been read.

    Attributes:
        format: Name of the file format.
        size: Width and height, px.
        depth: None for 8 bits.
        read: Returns the values of these bands: (H, W), or (H, W, C) with C = 3, or 4 where the
            last one is alpha or black ink; or any number of bands that are not colours.
        pixel_bytes: Bytes of all samples of a pixel.
        samples: Samples per pixel.
        spare: The bands not read when none are asked for, as `spare_bands`.
        inverted: Whether its largest value is black.
        high_byte: Whether 16 bits become 8 by taking the high byte, as Pillow reads colours, and
            not by rounding.
        orientation: As in EXIF.
        mode: Pillow's mode for four channels.
    """

    format: str
    size: tuple[int, int]
    depth: Depth | None
    read: Callable[[Bands], Samples]
    pixel_bytes: int = 2
    samples: int = 3
    spare: range = range(0)
    inverted: bool = False
    high_byte: bool = False
    orientation: int = 1
    mode: str = "RGBA"
    has_transparency_data: bool = False

    def range(self, bands: Bands) -> ValueRange | None:
        """The range of its values, None if there are none; alpha is not counted."""
        return _range(self._opaque(self.read(bands), bands))

    def to_eight_bits(self, levels: Levels | None, bands: Bands) -> Pixels:
        """(H, W), or (H, W, C): RGB, RGBA, CMYK, or the bands.

        Args:
            levels: Those of the set; None: this image's own.
            bands: The bands to read.
        """
        values = self.read(bands)
        colours = self._opaque(values, bands)
        if self.depth is None:
            pixels = colours.astype(np.uint8)
        else:
            levels = levels or levels_for(self.depth, _range(colours))
            pixels = _scaled(colours, levels, high_byte=self.high_byte)
        if self.inverted:
            pixels = 255 - pixels
        if colours.shape != values.shape:
            pixels = np.dstack([pixels, _opacity(values[..., 3])])
        return pixels

    def _opaque(self, values: Samples, bands: Bands) -> Samples:
        """The values without alpha."""
        has_alpha = values.shape[2:] == (4,) and self.mode == "RGBA" and are_colours(bands)
        return values[..., :3] if has_alpha else values


def _opacity(alpha: Samples) -> Pixels:
    """Alpha as 8 bits: floats from 0 to 1, the high byte of wider integers."""
    if alpha.dtype.kind == "f":
        scaled: Samples = np.rint(np.ma.filled(alpha, 1) * 255)
        return scaled.clip(0, 255).astype(np.uint8)
    shifted: Samples = alpha >> (8 if alpha.dtype.itemsize > 1 else 0)
    return shifted.astype(np.uint8)


def levels_asked(white: float) -> tuple[Levels, ...]:
    """Levels of every depth for a white level given by the user; () for 0."""
    return tuple(Levels(depth, 0, white) for depth in get_args(Depth)) if white else ()


def levels_for(depth: Depth, of: ValueRange | None) -> Levels:
    """Black and white of all images of one depth, from the range of their values; see above."""
    if of is None:
        return Levels(depth, 0, FULL)
    low, high = of
    if depth == "floating-point":
        usual = ((0, 1), (-1, 1), *([(0, 255)] if high > 127 else []))
        fit = (of for of in usual if of[0] <= low and high <= of[1])
        return Levels(depth, *next(fit, (low, high)))
    if low < 0 or high > FULL:
        return Levels(depth, low, high)
    return Levels(depth, 0, 2 ** max(8, int(high).bit_length()) - 1)


def remarks(levels: Sequence[Levels]) -> tuple[str, ...]:
    """Remarks on levels that were derived from a set, one clause each."""
    return tuple(_remark(*of) for of in levels if of != ("16-bit", 0, FULL))


def _remark(depth: str, black: float, white: float) -> str:
    if depth != "floating-point" and black == 0 and white <= FULL:
        bits = int(white).bit_length()
        what = "16-bit images" if depth == "16-bit" else "images of signed or wide integers"
        return f"the {what} use {bits} bits: {white:,.0f} is white (--white-level)"
    what = "floating-point images" if depth == "floating-point" else "images of integers"
    return f"the {what} are scaled so that {black:,g} is black and {white:,g} is white"


def choose(values: Samples, bands: Bands) -> Samples:
    """These bands of (H, W) or (H, W, C), in the given order; a single one is (H, W).

    Raises:
        ValueError: When the values have fewer.
    """
    if not bands:
        return values
    stacked = values if values.ndim == 3 else values[..., None]
    if bands == ALL_BANDS:
        return stacked
    if max(bands) > stacked.shape[2]:
        raise ValueError(f"{count_bands(stacked.shape[2])}, but --bands asks for {max(bands)}")
    chosen = stacked[..., [band - 1 for band in bands]]
    return chosen[..., 0] if len(bands) == 1 else chosen


def choose_colours(count: int, kind: str) -> ValueError:
    """The error for bands whose colours are not known; it names the flags that help."""
    some = "three or one of them, such as --bands 4,3,2" if count > 3 else "one of them: --bands 1"
    return ValueError(f"{kind}: choose {some}, or --bands all --encoder.channels {count}")


def count_bands(count: int) -> str:
    """`1 band`, `13 bands`."""
    return f"{count} band{'s' * (count != 1)}"


def spare_bands(image: ImageFile | RawImage) -> range:
    """The bands of a TIFF that are neither colours nor marked as alpha, counted from 1."""
    if isinstance(image, RawImage):
        return image.spare
    tags = getattr(image, "tag_v2", {})
    colours = COLOUR_BANDS.get(tags.get(PHOTOMETRIC, -1), tags.get(SAMPLES, 1))
    alpha = tags.get(EXTRA_SAMPLES, ())[:1] in ((1,), (2,))
    return range(colours + alpha + 1, tags.get(SAMPLES, 1) + 1)


def raw_of(image: ImageFile | RawImage) -> RawImage | None:
    """An image deeper than 8 bits as a `RawImage`; None when Pillow can hold it unchanged.

    Args:
        image: Just opened. Loading its pixels, which for a PNG includes asking for its EXIF
            block, makes Pillow forget their layout in the file.
    """
    if isinstance(image, RawImage):
        return image
    depth = _depth(image)
    if depth is None:
        return None
    tags = getattr(image, "tag_v2", {})
    wide, layout, file = _has_wide_colours(image), _layout(image)[0], image.fp
    unsigned, spare = tags.get(SAMPLE_FORMAT, (1,)) == (1,), spare_bands(image)

    def read(bands: Bands) -> Samples:
        values = _read_colours(image, layout, file) if wide else np.asarray(image)
        if spare and not bands and values.ndim == 3:
            values = values[..., : spare.start - 1]
        if unsigned and values.dtype == np.int32:
            values = values.view(np.uint32)
        return choose(masked(values, tags.get(NODATA)), bands)

    return RawImage(
        image.format or "",
        image.size,
        depth,
        read,
        spare=spare,
        inverted=tags.get(PHOTOMETRIC) == 0 and not wide,  # Pillow ignores it for 16 bits
        high_byte=wide and image.format != "PPM",
        mode="CMYK" if image.mode == "CMYK" else "RGBA",
    )


def are_colour_channels(channels: int, dtype: np.dtype[Any]) -> bool:
    """Whether the channels of an array are gray, RGB or (of bytes only) RGBA."""
    return channels in CHANNELS and (channels < 4 or dtype == np.uint8)


def raw_array(values: Samples, bands: Bands) -> RawImage:
    """Values (H, W, C) of any numeric type as a raw image, of which these bands will be read.

    Raises:
        ValueError: When no bands are named and the channels are not colours.
    """
    height, width, channels = values.shape
    if not bands and not are_colour_channels(channels, values.dtype):
        raise choose_colours(channels, f"{count_bands(channels)} of {values.dtype.name}")
    if values.dtype.kind == "b":
        values = values * np.uint8(255)
    kind, size = values.dtype.kind, values.dtype.itemsize
    depth: Depth | None = "floating-point" if kind == "f" else "integer"
    if kind == "u" and size <= 2:
        depth = "16-bit" if size == 2 else None
    plain = values[..., 0] if channels == 1 else values
    return RawImage(
        "array",
        (width, height),
        depth,
        lambda bands: choose(masked(plain, None), bands),
        pixel_bytes=channels * size,
        samples=channels,
        has_transparency_data=channels == 4,
    )


def _depth(image: ImageFile) -> Depth | None:
    if image.mode == "F":
        return "floating-point"
    if image.mode == "I" and image.format == "TIFF":
        return "integer"
    sixteen = image.mode.startswith("I") or _has_wide_colours(image)
    return "16-bit" if sixteen and _stated_white(image) == FULL else None


def masked(values: Samples, nodata: str | float | None) -> Samples:
    """Masks values that are not finite, and those that a file calls no data."""
    if values.dtype.kind == "f":
        values = np.ma.masked_invalid(values, copy=False)
    with contextlib.suppress(TypeError, ValueError):  # none, or text that is not a number
        number = float(nodata)  # type: ignore[arg-type]
        if math.isfinite(number):
            values = np.ma.masked_equal(values, values.dtype.type(number), copy=False)
    return values


def _layout(image: ImageFile) -> tuple[Any, ...]:
    """The layout of the samples: Pillow's name for it, then the decoder's other arguments."""
    tiles = getattr(image, "tile", [])
    arguments = tiles[0].args if tiles else ()
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _has_wide_colours(image: ImageFile) -> bool:
    """Whether it has several 16-bit samples, of which Pillow keeps only the high byte."""
    name, _, bits = str(next(iter(_layout(image)), "")).partition(";")
    from_ppm = image.mode == "RGB" and image.format == "PPM" and image.tile[0].codec_name == "ppm"
    return from_ppm or (name in COLOURS and bits[:2] == "16")


def _stated_white(image: ImageFile) -> int:
    """The value that the file calls white; only PPM states one, others use the full range."""
    layout = _layout(image)
    return int(layout[1]) if image.format == "PPM" and len(layout) == 2 else FULL


def _read_colours(image: ImageFile, layout: str, file: Any) -> Samples:  # (H, W, C) uint16
    """Reads in two passes, as Pillow keeps one byte of each sample: the high, then the low ones."""
    from PIL import Image

    file.seek(0)
    with Image.open(file, formats=[image.format or ""]) as again:
        if image.format == "PPM":
            width, height = image.size
            file.seek(again.tile[0].offset)
            samples = np.frombuffer(file.read(6 * width * height), ">u2")
            return samples.reshape(height, width, 3).astype(np.uint16)
        if layout == "LA;16B":  # its four bytes, read as red, green, blue and alpha
            again.tile = [_read_as("RGBA", tile) for tile in again.tile]
            both = np.ascontiguousarray(again).view(">u2").astype(np.uint16)
            return both[..., [0, 0, 0, 1]]
        lower = layout[:-1] + BELOW[layout[-1]]
        again.tile = [_read_as(lower, tile) for tile in again.tile]
        values: Samples = (np.asarray(image).astype(np.uint16) << 8) | np.asarray(again)
    if "transparency" not in image.info:
        return values
    clear = (values == image.info["transparency"]).all(2)
    return np.dstack([values, np.where(clear, 0, FULL).astype(np.uint16)])


def _read_as(layout: str, tile: Any) -> Any:
    several = isinstance(tile.args, tuple)
    return tile._replace(args=(layout, *tile.args[1:]) if several else layout)


def _range(values: Samples) -> ValueRange | None:
    low, high = values.min(), values.max()
    return None if np.ma.is_masked(low) else ValueRange(float(low), float(high))


def _scaled(values: Samples, levels: Levels, *, high_byte: bool) -> Pixels:
    """Values rounded to 8 bits; colours of the full range as Pillow reads them."""
    _, black, white = levels
    if high_byte and (black, white) == (0, FULL) and values.dtype.kind == "u":
        return (np.ma.filled(values, 0) >> 8).astype(np.uint8)
    plain = np.ma.filled(values, black) if np.ma.isMaskedArray(values) else values
    if plain.dtype in (np.dtype("<u2"), np.dtype(">u2")):
        return _to_bytes(np.arange(FULL + 1), black, white)[plain]
    return _to_bytes(plain, black, white)


def _to_bytes(values: Samples, black: float, white: float) -> Pixels:
    scaled = np.subtract(values, black, dtype=np.float64)
    scaled *= 255 / ((white - black) or 1)
    return np.rint(scaled, out=scaled).clip(0, 255, out=scaled).astype(np.uint8)
