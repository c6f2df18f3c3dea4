"""One encoded image -> (H, W, 3) uint8, strictly, or the reason why not.

EXIF rotation is applied; gray is repeated in three channels; 16 bits are scaled to 8; alpha is
laid over white; of an animation the first frame counts. Nothing truncated is accepted.
"""

from __future__ import annotations

import contextlib
import io
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from stopgrad.images.types import Encoded, Pixels, T

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

# Raster formats only: Pillow would hand an EPS file to Ghostscript.
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
ORIENTATION = 0x0112  # the EXIF tag
TILE_WIDTH, TILE_HEIGHT = 322, 323  # tags of TIFF 6.0, Section 15
DECODER = 2  # raise it with every change of what is read, so that images are decoded again
MOST_BYTES = 1 << 30  # of an encoded image
MOST_PIXELS = 250_000_000  # of an image; cameras and scanners make 200 megapixels
MOST_AT_ONCE = 1 << 27  # px being decoded at any moment; with alpha they take 15 bytes each


class Frame(NamedTuple):
    """The size that images must have, px; `fit` resizes others to it (then it is a square)."""

    height: int
    width: int
    fit: bool


class OtherSize(NamedTuple):
    """An image left undecoded because it has another size than the frame, px."""

    height: int
    width: int


class Damaged(NamedTuple):
    """An image that cannot be read, and why."""

    name: str
    reason: str


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Loads Pillow's formats once; bombs are errors and its other warnings silent.

    Pillow warns of bombs above 89 megapixels, which photos have; here its limit is `MOST_PIXELS`.
    Filters and the limit belong to the process, so this stands around the threads, not in them.
    """
    from PIL import Image

    Image.init()
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MOST_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


class PixelBudget:
    """Lets images be decoded side by side while they have at most `most` pixels together.

    So memory is bounded however many cores there are; one image alone always passes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def spend(self, pixels: int) -> Iterator[None]:
        """Waits until so many pixels are free, and holds them as long as it is open."""
        with self.changed:
            self.changed.wait_for(lambda: not self.taken or self.taken + pixels <= self.most)
            self.taken += pixels
        try:
            yield
        finally:
            with self.changed:
                self.taken -= pixels
                self.changed.notify_all()


_BUDGET = PixelBudget(MOST_AT_ONCE)


def peek(encoded: Encoded) -> tuple[int, int] | Damaged:
    """Height and width that an image will have, from its header and its EXIF block."""

    def read(file: IO[bytes]) -> tuple[int, int]:
        with opened(file) as image:
            return _upright_size(image)

    return guarded(encoded, read)


def decode(encoded: Encoded, frame: Frame) -> Pixels | OtherSize | Damaged:
    """Decode one image into a frame.

    Returns:
        (frame.height, frame.width, 3) uint8, C-contiguous. An image of another size is not
        decoded and its size returned, unless the frame fits it.
    """
    return guarded(encoded, lambda file: _read(file, frame))


def guarded(encoded: Encoded, read: Callable[[IO[bytes]], T]) -> T | Damaged:
    """What `read` makes of the open image; whatever goes wrong means that it is damaged."""
    try:
        with _open(encoded.data) as file:
            return read(file)
    # Pillow raises a dozen unrelated types for damaged files (OSError, SyntaxError, ValueError,
    # IndexError, struct.error, zlib.error, ...); each means that this image cannot be read.
    except MemoryError:  # no fault of the image
        raise
    except Exception as error:
        return Damaged(encoded.name, _reason(error))


def _open(data: bytes | Path | Exception | None) -> IO[bytes]:
    if data is None:
        raise ValueError("no image bytes in this row")
    if isinstance(data, Exception):
        raise data
    if isinstance(data, bytes):
        _check_size(len(data))
        return io.BytesIO(data)
    state = data.stat()
    # Opening a FIFO or a device would wait for ever.
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("not a regular file")
    _check_size(state.st_size)
    return data.open("rb")


def _check_size(size: int) -> None:
    """Refuses what is empty (also files of /proc, some of which wait for ever) or huge."""
    if size == 0:
        raise ValueError("empty file")
    if size > MOST_BYTES:
        raise ValueError(f"{size:,} bytes, more than {MOST_BYTES:,}")


@contextlib.contextmanager
def opened(file: IO[bytes], *, draft: tuple[int, int] | None = None) -> Iterator[Image]:
    """An image whose header was read, with room in memory for its pixels.

    Args:
        file: The encoded image.
        draft: Width and height, px, down to which a JPEG may be decoded at 1/2, 1/4 or 1/8.

    Raises:
        ValueError: For more than `MOST_PIXELS`, before any of them is decoded.
    """
    from PIL import Image

    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        found = Image.open(file, formats=formats)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(_too_large(*_stated_size(file, formats))) from error
    with found as image:
        if draft is not None:
            image.draft(None, draft)
        with _BUDGET.spend(_area(image)):
            yield image


def _stated_size(file: IO[bytes], formats: list[str]) -> tuple[int, int]:
    """Width and height by the header of an image that Pillow would not open; (0, 0): unknown."""
    from PIL import Image

    for name in formats:
        file.seek(0)
        # Files of other formats raise a dozen unrelated types, as in `guarded`.
        with contextlib.suppress(Exception):
            return Image.OPEN[name][0](file, "").size
    return (0, 0)


def _too_large(width: int, height: int, what: str = "") -> str:
    most, area = f"{MOST_PIXELS / 1e6:,g}", width * height / 1e6
    if not area:
        return f"too large: more than {most} megapixels"
    return f"too large: {what}{width:,} x {height:,} = {area:,.1f} megapixels, at most {most}"


def _area(image: Image) -> int:
    """Pixels in memory as the image is decoded: its own, or those of a tile that is larger."""
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0)
    if width * height > MOST_PIXELS:
        raise ValueError(_too_large(width, height, what="a tile of "))
    return int(max(width * height, image.width * image.height))


def _read(file: IO[bytes], frame: Frame) -> Pixels | OtherSize:
    # At twice the side, resizing still antialiases.
    draft = (2 * frame.width, 2 * frame.height) if frame.fit else None
    with opened(file, draft=draft) as image:
        if not frame.fit and _upright_size(image) != (frame.height, frame.width):
            return OtherSize(*_upright_size(image))
        turn = turn_of(image)
        rgb = to_rgb(image)
        if frame.fit:
            rgb = _fit(rgb, frame.width)
        if turn is not None:
            rgb = rgb.transpose(turn)
        return np.asarray(rgb)


def _upright_size(image: Image) -> tuple[int, int]:
    """(height, width) after the turn that EXIF asks for."""
    width, height = image.size
    sideways = _orientation(image) >= 5
    return (width, height) if sideways else (height, width)


def turn_of(image: Image) -> Transpose | None:
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


def _orientation(image: Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) when nothing valid is stated."""
    try:
        stated = image.getexif().get(ORIENTATION, 1)
    # An image whose EXIF block cannot be read states no orientation; its pixels still count.
    except Exception:
        return 1
    return stated if stated in range(1, 9) else 1


def to_rgb(image: Image) -> Image:
    """All pixels of an open image as RGB, not yet turned."""
    from PIL import Image

    image.load()
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(gray: np.ndarray) -> Pixels:
    """16-bit gray (H, W) -> 8 bits: 65535 becomes 255, rounded to the nearest."""
    if gray.min() < 0 or gray.max() > 65535:
        raise ValueError("32-bit pixels have no defined range")
    return ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)


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


def _reason(error: Exception) -> str:
    """The first line of an error, without the file's address in memory."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).split("<_io")[0].strip().splitlines()
    return text[0] if text else type(error).__name__
