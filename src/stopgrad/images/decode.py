"""One encoded picture -> (H, W, 3) uint8, strictly, or the reason why not.

EXIF rotation is applied; gray is repeated in three channels; 16 bits are scaled to 8; alpha is
laid over white; of an animation the first frame counts. Nothing truncated is accepted.
"""

from __future__ import annotations

import contextlib
import io
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from stopgrad.images.source import Encoded
from stopgrad.images.types import Pixels, T

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

# Raster formats only: Pillow would hand an EPS file to Ghostscript.
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
ORIENTATION = 0x0112  # the EXIF tag
DECODER = 1  # raise it with every change that alters pixels: cached ones are then made anew


class Frame(NamedTuple):
    """The size that pictures must have, px; `fit` brings others to it (then it is a square)."""

    height: int
    width: int
    fit: bool


class OtherSize(NamedTuple):
    """A picture left undecoded because it has another size than the frame, px."""

    height: int
    width: int


class Damaged(NamedTuple):
    """A picture that cannot be read, and why."""

    name: str
    reason: str


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Loads Pillow's formats once; its bombs are errors and its other warnings silent.

    Warning filters belong to the process, so this stands around the threads, not in them.
    """
    from PIL import Image

    Image.init()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def peek(picture: Encoded) -> tuple[int, int] | Damaged:
    """Height and width that a picture will have, from its header and its EXIF block."""
    return _guarded(picture, lambda file: _upright_size(_open_image(file)))


def decode(picture: Encoded, frame: Frame) -> Pixels | OtherSize | Damaged:
    """Decode one picture into a frame.

    Returns:
        (frame.height, frame.width, 3) uint8, C-contiguous. A picture of another size is not
        decoded and its size returned, unless the frame fits it.
    """
    return _guarded(picture, lambda file: _read(file, frame))


def _guarded(picture: Encoded, read: Callable[[IO[bytes]], T]) -> T | Damaged:
    try:
        with _opened(picture.data) as file:
            return read(file)
    # Pillow raises a dozen unrelated types for damaged files (OSError, SyntaxError, ValueError,
    # IndexError, struct.error, zlib.error, ...); each means that this picture cannot be read.
    except Exception as error:
        return Damaged(picture.name, _reason(error))


def _opened(data: bytes | Path | None) -> IO[bytes]:
    if data is None:
        raise ValueError("no image bytes in this row")
    if isinstance(data, bytes):
        return io.BytesIO(data)
    # Opening a FIFO or a device would wait for ever.
    if not stat.S_ISREG(data.stat().st_mode):
        raise ValueError("not a regular file")
    return data.open("rb")


def _open_image(file: IO[bytes]) -> Image:
    from PIL import Image

    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])


def _read(file: IO[bytes], frame: Frame) -> Pixels | OtherSize:
    with _open_image(file) as image:
        turn = _turn(image)
        if frame.fit:
            # JPEG can decode at 1/2, 1/4 or 1/8; twice the side leaves the resizing its say.
            image.draft(None, (2 * frame.width, 2 * frame.height))
        elif _upright_size(image) != (frame.height, frame.width):
            return OtherSize(*_upright_size(image))
        image.load()
        picture = _to_rgb(image)
    if frame.fit:
        picture = _fit(picture, frame.width)
    if turn is not None:
        picture = picture.transpose(turn)
    return np.asarray(picture)


def _upright_size(image: Image) -> tuple[int, int]:
    """(height, width) after the turn that EXIF asks for."""
    width, height = image.size
    sideways = _orientation(image) >= 5
    return (width, height) if sideways else (height, width)


def _turn(image: Image) -> Transpose | None:
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
    # A picture whose EXIF block cannot be read states no orientation; its pixels still count.
    except Exception:
        return 1
    return stated if stated in range(1, 9) else 1


def _to_rgb(image: Image) -> Image:
    from PIL import Image

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
