"""One encoded image -> (H, W, C) uint8, strictly, or the reason why not; C = 3 for colours.

EXIF rotation is applied; gray is repeated in three channels; deeper samples are scaled to 8 bits by
levels (`depth`); alpha is composited over white; only the first frame of an animation is read.
Bands that are not colours are kept, each resized like a gray image. Truncated images are refused;
broken metadata is tolerated (`extras`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stopgrad.config import ALL_BANDS, Bands, are_colours
from stopgrad.images.depth import (
    Depth,
    RawImage,
    ValueRange,
    choose,
    count_bands,
    raw_of,
    spare_bands,
)
from stopgrad.images.formats import further_pages
from stopgrad.images.opening import Damaged, Source, guarded, opened
from stopgrad.images.pixels import Pixels
from stopgrad.images.types import Encoded, Levels

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose
    from PIL.ImageFile import ImageFile

ORIENTATION = 0x0112  # the EXIF tag
DECODER = 8  # raise it whenever decoding changes, so that cached images are decoded again


class Frame(NamedTuple):
    """The output format of images: size in px, bands, and the values of black and white."""

    height: int
    width: int
    fit: bool  # resize images of other sizes (then the frame is square)
    bands: Bands = ()
    levels: tuple[Levels, ...] | None = None  # by depth; None: each image uses its own
    channels: int = 3  # of the decoded pixels

    def knows(self, depth: Depth) -> bool:
        """Whether it has levels for a depth, or each image has its own."""
        return self.levels is None or depth in {of.depth for of in self.levels}

    @classmethod
    def from_json(cls, values: list[Any]) -> Frame:
        """A frame from its JSON form."""
        frame = cls(*values)  # earlier versions wrote fewer values
        levels = None if frame.levels is None else tuple(Levels(*of) for of in frame.levels)
        return frame._replace(bands=tuple(frame.bands), levels=levels)


class OtherSize(NamedTuple):
    """An image left undecoded because it has another size than the frame, px."""

    height: int
    width: int


class OtherDepth(NamedTuple):
    """An image left undecoded because the frame has no levels for its depth."""

    depth: Depth


def peek(encoded: Encoded, *, bands: Bands = ()) -> tuple[int, int] | Damaged:
    """Height and width of the decoded image, from its header and its EXIF block."""

    def read(file: Source) -> tuple[int, int]:
        with opened(file, bands=encoded.bands(bands)) as image:
            return _upright_size(image)

    return guarded(encoded, read)


def channels_in(images: Iterable[Encoded], bands: Bands) -> int:
    """The number of channels of decoded images, judged by the first readable one."""

    def read(file: Source) -> int:
        with opened(file, bands=ALL_BANDS) as image:
            return len(to_layers(raw_of(image) or image, bands=ALL_BANDS))

    for encoded in images:
        if (chosen := encoded.bands(bands)) != ALL_BANDS:
            return 3 if are_colours(chosen) else len(chosen)
        if isinstance(count := guarded(encoded, read), int):
            return count
    return 3


def range_in(encoded: Encoded, *, depth: Depth, bands: Bands) -> ValueRange | Damaged | None:
    """The range of an image's values; None when it has another depth or no values."""
    chosen = encoded.bands(bands)

    def read(file: Source) -> ValueRange | None:
        with opened(file, bands=chosen) as image:
            raw = raw_of(image)
            return raw.range(chosen) if raw is not None and raw.depth == depth else None

    return guarded(encoded, read)


def decode(encoded: Encoded, frame: Frame) -> Pixels | OtherSize | OtherDepth | Damaged:
    """Decode one image into a frame.

    Returns:
        (frame.height, frame.width, frame.channels) uint8, C-contiguous. An image of another size
        is left undecoded and its size returned, unless the frame fits it; likewise for its depth.
    """
    frame = frame._replace(bands=encoded.bands(frame.bands))

    def read(file: Source) -> Pixels | OtherSize | OtherDepth:
        found = _read(file, frame)
        return found.pixels if isinstance(found, Decoded) else found

    return guarded(encoded, read)


class Unread(NamedTuple):
    """Pages and bands of an image file that are not read, numbered from 1."""

    pages: Sequence[int] = ()  # after the first
    bands: Sequence[int] = ()  # neither colours nor alpha, when no bands are asked for


class Decoded(NamedTuple):
    """The pixels of an image, and the parts of its file that were not read."""

    pixels: Pixels  # as `decode` gives them
    unread: Unread


def decode_first(encoded: Encoded, frame: Frame) -> Decoded | OtherSize | OtherDepth | Damaged:
    """As `decode`, with the pages and bands of the file that were not read."""

    def read(file: Source) -> Decoded | OtherSize | OtherDepth:
        found = _read(file, frame)
        if isinstance(file, np.ndarray) or not isinstance(found, Decoded):
            return found
        return found._replace(unread=found.unread._replace(pages=further_pages(file)))

    frame = frame._replace(bands=encoded.bands(frame.bands))
    return guarded(encoded, read)


def _read(file: Source, frame: Frame) -> Decoded | OtherSize | OtherDepth:
    # At twice the side, resizing still antialiases.
    draft = (2 * frame.width, 2 * frame.height) if frame.fit else None
    with opened(file, draft=draft, bands=frame.bands) as image:
        raw = raw_of(image)  # before anything loads the pixels
        if not frame.fit and _upright_size(image) != (frame.height, frame.width):
            return OtherSize(*_upright_size(image))
        if raw is not None and raw.depth and not frame.knows(raw.depth):
            return OtherDepth(raw.depth)
        turn = turn_of(image)
        layers = to_layers(raw or image, frame.levels or (), frame.bands)
        if frame.fit:
            layers = [_fit(layer, frame.width) for layer in layers]
        if turn is not None:
            layers = [layer.transpose(turn) for layer in layers]
        pixels = (
            np.asarray(layers[0]) if len(layers) == 1 else np.dstack([*map(np.asarray, layers)])
        )
        if pixels.shape[2] != frame.channels:
            raise ValueError(
                f"{count_bands(pixels.shape[2])}, but the first image has {frame.channels}"
            )
        return Decoded(pixels, Unread(bands=() if frame.bands else spare_bands(image)))


def _upright_size(image: ImageFile | RawImage) -> tuple[int, int]:
    """(height, width) after the turn that EXIF asks for."""
    sideways = _orientation(image) >= 5
    width, height = image.size
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
    if image.format == "PNG":  # its EXIF block may come last; broken pixels are an error
        image.load()
    try:
        stated = image.getexif().get(ORIENTATION, 1)
    # An image whose EXIF block cannot be read states no orientation; its pixels still count.
    except Exception:
        return 1
    if image.format == "TIFF" and stated != 1:  # Pillow turns it while it loads
        image.load()
        return 1
    return stated if stated in range(1, 9) else 1


def to_layers(
    image: ImageFile | RawImage, levels: Sequence[Levels] = (), bands: Bands = ()
) -> list[Image]:
    """All pixels of an open image, not yet turned: one image in RGB, or a gray one for each band.

    Args:
        image: Raw when deeper than 8 bits, see `raw_of`.
        levels: By depth; an image of another depth uses its own.
        bands: The bands that become gray, or red, green and blue, or a layer each.
    """
    if isinstance(image, RawImage):
        known = {of.depth: of for of in levels}
        pixels = image.to_eight_bits(known.get(image.depth or ""), bands)
    else:
        flat = _to_eight_bits(image)
        if not bands:
            # Pillow takes the first band after the colours for alpha, whatever it is.
            if (spare := spare_bands(image)) and spare.start == len(flat.getbands()):
                flat = flat.convert(flat.mode[:-1])
            return [_to_rgb(flat)]
        plain = flat.mode in ("L", "RGB", "RGBA", "RGBX", "CMYK")
        pixels = choose(np.asarray(flat if plain else flat.convert("RGB")), bands)
    if are_colours(bands):
        return [_to_rgb(_as_image(pixels, image.mode))]
    layers = [_as_image(band) for band in np.moveaxis(pixels, 2, 0)]
    return layers * 3 if len(layers) == 1 else layers


def _as_image(pixels: Pixels, mode: str = "") -> Image:
    """A Pillow image; `mode` says what four channels are."""
    from PIL import Image

    mode = {(): "L", (3,): "RGB"}.get(pixels.shape[2:], mode)
    return Image.frombytes(mode, pixels.shape[1::-1], np.ascontiguousarray(pixels).tobytes())


def _to_rgb(image: Image) -> Image:
    """The image in RGB, alpha composited over white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        from PIL import Image

        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(image: ImageFile) -> Image:
    """The Pillow image, loaded, with samples of 8 bits."""
    from PIL.Image import fromarray

    image.load()
    if not image.mode.startswith("I"):
        return image
    gray = np.asarray(image).astype(np.uint32)  # a PGM that states its white level
    return fromarray(((gray + 128) // 257).astype(np.uint8))


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
