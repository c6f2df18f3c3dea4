"""One encoded image -> (H, W, 3) uint8, strictly, or the reason why not.

EXIF rotation is applied; gray is repeated in three channels; more than 8 bits are scaled to 8 by
levels (`depth`); alpha is laid over white; of an animation the first frame counts. Nothing
truncated is accepted; what stands beside the pixels may be broken (`extras`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stopgrad.images.depth import Bands, Depth, RawImage, ValueRange, choose, raw_of
from stopgrad.images.opening import Damaged, Source, guarded, opened
from stopgrad.images.types import Encoded, Levels, Pixels

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose
    from PIL.ImageFile import ImageFile

ORIENTATION = 0x0112  # the EXIF tag
DECODER = 3  # raise it with every change of what is read, so that images are decoded again


class Frame(NamedTuple):
    """What images become: their size, px, and which of their values are black and white."""

    height: int
    width: int
    fit: bool  # resizes images of other sizes (then it is a square)
    bands: Bands = ()
    levels: tuple[Levels, ...] | None = None  # by depth; None: of each image those of its own

    def knows(self, depth: Depth) -> bool:
        """Whether it has levels for a depth, or each image has its own."""
        return self.levels is None or depth in {of.depth for of in self.levels}

    @classmethod
    def from_json(cls, values: list[Any]) -> Frame:
        """A frame as JSON has kept it."""
        height, width, fit, bands, levels = [*values, (), None][:5]  # the last two are new
        levels = None if levels is None else tuple(Levels(*of) for of in levels)
        return cls(height, width, fit, tuple(bands), levels)


class OtherSize(NamedTuple):
    """An image left undecoded because it has another size than the frame, px."""

    height: int
    width: int


class OtherDepth(NamedTuple):
    """An image left undecoded because the frame has no levels for its depth."""

    depth: Depth


def peek(encoded: Encoded, *, bands: Bands = ()) -> tuple[int, int] | Damaged:
    """Height and width that an image will have, from its header and its EXIF block."""

    def read(file: Source) -> tuple[int, int]:
        with opened(file, bands=bands) as image:
            return _upright_size(image)

    return guarded(encoded, read)


def range_in(encoded: Encoded, *, depth: Depth, bands: Bands) -> ValueRange | Damaged | None:
    """The range of the values of an image; None where it has another depth, or no values."""

    def read(file: Source) -> ValueRange | None:
        with opened(file, bands=bands) as image:
            raw = raw_of(image)
            return raw.range(bands) if raw is not None and raw.depth == depth else None

    return guarded(encoded, read)


def decode(encoded: Encoded, frame: Frame) -> Pixels | OtherSize | OtherDepth | Damaged:
    """Decode one image into a frame.

    Returns:
        (frame.height, frame.width, 3) uint8, C-contiguous. An image of another size is not
        decoded and its size returned, unless the frame fits it; so it is with its depth.
    """
    return guarded(encoded, lambda file: _read(file, frame))


def _read(file: Source, frame: Frame) -> Pixels | OtherSize | OtherDepth:
    # At twice the side, resizing still antialiases.
    draft = (2 * frame.width, 2 * frame.height) if frame.fit else None
    with opened(file, draft=draft, bands=frame.bands) as image:
        raw = raw_of(image)  # first of all
        if not frame.fit and _upright_size(image) != (frame.height, frame.width):
            return OtherSize(*_upright_size(image))
        if raw is not None and raw.depth and not frame.knows(raw.depth):
            return OtherDepth(raw.depth)
        turn = turn_of(image)
        rgb = to_rgb(raw or image, frame.levels or (), frame.bands)
        if frame.fit:
            rgb = _fit(rgb, frame.width)
        if turn is not None:
            rgb = rgb.transpose(turn)
        return np.asarray(rgb)


def _upright_size(image: ImageFile | RawImage) -> tuple[int, int]:
    """(height, width) after the turn that EXIF asks for."""
    width, height = image.size
    sideways = _orientation(image) >= 5
    return (width, height) if sideways else (height, width)


def turn_of(image: ImageFile | RawImage) -> Transpose | None:
    """The turn that the EXIF orientation asks for (EXIF 2.32, tag 0x0112), if any."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return turns.get(_orientation(image))


def _orientation(image: ImageFile | RawImage) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) when nothing valid is stated."""
    if isinstance(image, RawImage):
        return image.orientation if image.orientation in range(1, 9) else 1
    if image.format == "PNG":  # whose EXIF block may come last; broken pixels are an error
        image.load()
    try:
        stated = image.getexif().get(ORIENTATION, 1)
    # An image whose EXIF block cannot be read states no orientation; its pixels still count.
    except Exception:
        return 1
    return stated if stated in range(1, 9) else 1


def to_rgb(image: ImageFile | RawImage, levels: Sequence[Levels] = (), bands: Bands = ()) -> Image:
    """All pixels of an open image as RGB, not yet turned.

    Args:
        image: A raw one where it is deeper than 8 bits, see `raw_of`.
        levels: By depth; an image of another depth has those of its own.
        bands: Those that become gray or red, green and blue.
    """
    flat = _to_eight_bits(image, {of.depth: of for of in levels}, bands)
    if flat.mode == "RGB" and "transparency" not in flat.info:
        return flat
    if flat.has_transparency_data:
        from PIL import Image

        layer = flat.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return flat.convert("RGB")


def _to_eight_bits(
    image: ImageFile | RawImage, levels: Mapping[str, Levels], bands: Bands
) -> Image:
    """A loaded image of Pillow's whose samples have 8 bits."""
    from PIL.Image import fromarray

    if isinstance(image, RawImage):
        return image.to_eight_bits(levels.get(image.depth or ""), bands)
    image.load()
    flat: Image = image
    if image.mode.startswith("I"):  # of a PGM that states its white level
        gray = np.asarray(image).astype(np.uint32)
        flat = fromarray(((gray + 128) // 257).astype(np.uint8))
    if not bands:
        return flat
    colours = flat if flat.mode in ("L", "RGB", "RGBA", "RGBX", "CMYK") else flat.convert("RGB")
    return fromarray(np.ascontiguousarray(choose(np.asarray(colours), bands)))


def _fit(image: Image, side: int) -> Image:
    """The largest centred square, resized to side x side (antialiased when it shrinks)."""
    from PIL import Image

    width, height = image.size
    square = min(width, height)
    left, top = (width - square) // 2, (height - square) // 2
    box = (left, top, left + square, top + square)
    if square == side:
        return image.crop(box)
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box)
