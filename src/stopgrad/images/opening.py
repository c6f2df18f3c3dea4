"""An encoded image -> an open one, its header read, within limits of size and memory.

Wrong bytes make an image `Damaged`; a file that cannot be read does not. Bombs are refused before
they expand, and all images that are being decoded share one budget of memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, TypeAlias, cast

import numpy as np

from stopgrad.config import Bands
from stopgrad.errors import UnreadableError
from stopgrad.images.depth import RawImage, Samples, raw_array
from stopgrad.images.extras import lacks_its_end, with_ends, without_extras
from stopgrad.images.formats import open_other
from stopgrad.images.sources.endings import POINTER, UNFETCHED
from stopgrad.images.tiff import is_misread
from stopgrad.images.types import Encoded, T
from stopgrad.storage import read_patiently

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from PIL.ImageFile import ImageFile

# Raster formats only: Pillow would hand an EPS file to Ghostscript.
FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
TILE_WIDTH, TILE_HEIGHT = 322, 323  # tags of TIFF 6.0, Section 15
MOST_BYTES = 1 << 30  # of an encoded image
MOST_PIXELS = 250_000_000  # of an image; cameras and scanners make 200 megapixels
MOST_AT_ONCE = 1 << 27  # px being decoded at any moment; with alpha they take 15 bytes each
PIXEL_BYTES, SCALED_BYTES = 15, 10  # per pixel; per sample of a raw image, besides its own
SURPLUS = 2  # bytes that no scan has after its last pixel
READERS = ("PIL", "tifffile", "pydicom", "pillow_heif")


Source: TypeAlias = IO[bytes] | Samples  # an encoded image, or its values (H, W, C)


class Damaged(NamedTuple):
    """An image that cannot be read, and why."""

    name: str
    reason: str


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Loads Pillow's formats once; in here bombs are errors, and the readers are otherwise silent.

    Pillow warns of bombs above 89 megapixels, which photos have; here its limit is `MOST_PIXELS`.
    These settings are the process's, so this goes around the threads, not in them.
    """
    from PIL import Image

    Image.init()
    _silence_libtiff()
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MOST_PIXELS
    logs = [logging.getLogger(name) for name in READERS]
    were = [(log.level, log.propagate) for log in logs]
    nowhere = logging.NullHandler()
    try:
        for log in logs:
            log.setLevel(logging.CRITICAL + 1)
            log.propagate = False  # pydicom sets its level anew when it is imported
            log.addHandler(nowhere)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=rf"({'|'.join(READERS)})\b")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
        for log, (level, propagate) in zip(logs, were, strict=True):
            log.setLevel(level)
            log.propagate = propagate
            log.removeHandler(nowhere)


@functools.cache
def _silence_libtiff() -> None:
    """Silences libtiff, by which Pillow decodes TIFF and which writes to standard error."""
    with contextlib.suppress(OSError, AttributeError):  # another system, or without it
        for path in set(re.findall(rb"/\S*/libtiff\S*", Path("/proc/self/maps").read_bytes())):
            library = ctypes.CDLL(os.fsdecode(path))
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)


class PixelBudget:
    """Lets images be decoded in parallel while together they have at most `most` pixels.

    So memory is bounded however many cores there are; one image alone always passes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self.changed = threading.Condition()

    @contextlib.contextmanager
    def spend(self, pixels: int) -> Iterator[None]:
        """Waits until this many pixels are free, and holds them until it is closed."""
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


def guarded(encoded: Encoded, read: Callable[[Source], T]) -> T | Damaged:
    """The result of `read` for the open image or, if that fails, for it without its extras.

    Anything wrong in its bytes makes it `Damaged`.

    Raises:
        UnreadableError: When its file cannot be read, see `read_patiently`.
    """
    data = encoded.data
    # Pillow raises a dozen unrelated types for damaged files (OSError, SyntaxError, ValueError,
    # IndexError, struct.error, zlib.error, ...); each means that this image cannot be read.
    try:
        if isinstance(data, np.ndarray):
            return read(data)
        if isinstance(data, Path):
            return read_patiently(data, lambda: _with_or_without_extras(data, read))
        return _with_or_without_extras(data, read)
    except (MemoryError, UnreadableError):  # no fault of the image
        raise
    except Exception as error:
        return Damaged(encoded.name, _reason(error))


def _with_or_without_extras(
    data: bytes | Path | Exception | None, read: Callable[[Source], T]
) -> T:
    with _open(data) as file:
        try:
            return read(file)
        except MemoryError:
            raise
        except Exception:
            if (bare := without_extras(file)) is not None:
                with contextlib.suppress(Exception):
                    return read(io.BytesIO(bare))
                with contextlib.suppress(Exception):
                    return read(io.BytesIO(_with_its_end(bare)))
            raise
        finally:
            failed = getattr(getattr(file, "raw", None), "failed", None)
            if failed is not None:
                raise failed


def _with_its_end(data: bytes) -> bytes:
    """A JPEG that lacks only its end marker, with that added; else a ValueError.

    If a few more bytes are cut off, pixels must be missing; else the tail is only padding, and
    proves nothing.
    """
    if _decodings(data) != 1 or _decodings(data.rstrip(b"\0")[:-SURPLUS]) < 2:
        raise ValueError("pixels are missing")
    return with_ends(data)[0]


def _decodings(jpeg: bytes) -> int:
    """How many different images the completions of a JPEG without an end decode to."""
    found = set[bytes]()
    for ended in with_ends(jpeg):
        with opened(io.BytesIO(ended)) as image:
            found.add(cast("ImageFile", image).tobytes())
    return len(found)


class _Watched(io.FileIO):
    """A file that remembers a failed read, which decoders ignore or take for damage."""

    failed: OSError | None = None

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        with self._noting():
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with self._noting():
            return super().readall()

    def fileno(self) -> int:
        raise io.UnsupportedOperation  # else libtiff would read by itself

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failed = error
            raise


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
    return io.BufferedReader(_Watched(data))


def _check_size(size: int) -> None:
    """Refuses an empty file (also those of /proc, some of which block for ever) or a huge one."""
    if size == 0:
        raise ValueError("empty file")
    if size > MOST_BYTES:
        raise ValueError(f"{size:,} bytes, more than {MOST_BYTES:,}")


@contextlib.contextmanager
def opened(
    file: Source, *, draft: tuple[int, int] | None = None, bands: Bands = ()
) -> Iterator[ImageFile | RawImage]:
    """An open image with its header read, and memory reserved for its pixels.

    Args:
        file: The encoded image, or its values.
        draft: Width and height, px, down to which a JPEG may be decoded at 1/2, 1/4 or 1/8.
        bands: The bands to read.

    Raises:
        ValueError: For more than `MOST_PIXELS`, before any of them is decoded.
    """
    image = raw_array(file, bands) if isinstance(file, np.ndarray) else _open_image(file, bands)
    with contextlib.nullcontext() if isinstance(image, RawImage) else image:
        if draft and not isinstance(image, RawImage) and image.format in ("JPEG", "MPO"):
            image.draft(None, draft)
        with _BUDGET.spend(_area(image)):
            yield image


def _open_image(file: IO[bytes], bands: Bands) -> ImageFile | RawImage:
    from PIL import Image, UnidentifiedImageError

    # A DICOM file may begin with the header of a TIFF.
    if _begins_with(file, b"DICM", at=128) and (dicom := open_other(file, bands)):
        return dicom
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        found = Image.open(file, formats=formats)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(_too_large(*_stated_size(file, formats))) from error
    except UnidentifiedImageError:
        other = open_other(file, bands)
        if other is None and _begins_with(file, POINTER):
            raise ValueError(UNFETCHED) from None
        if other is None:
            raise
        return other
    if found.format == "TIFF" and (bands or is_misread(found)):
        return open_other(file, bands) or found
    if found.format in ("JPEG", "MPO") and lacks_its_end(file):
        raise ValueError("image file is truncated: its end marker is missing")
    if found.tile and found.tile[0].codec_name == "raw":  # the decoder that knows no strips
        corners = [tile.extents for tile in found.tile if tile.extents]
        covered = sum((right - left) * (bottom - top) for left, top, right, bottom in corners)
        if covered < found.width * found.height:
            raise ValueError("strips of the image are missing")
    return found


def _begins_with(file: IO[bytes], start: bytes, *, at: int = 0) -> bool:
    file.seek(at)
    found = file.read(len(start)) == start
    file.seek(0)
    return found


def _stated_size(file: IO[bytes], formats: list[str]) -> tuple[int, int]:
    """Width and height in the header of an image that Pillow would not open; (0, 0): unknown."""
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


def _area(image: ImageFile | RawImage) -> int:
    """Pixels in memory while the image is decoded: its own, or those of a larger tile.

    Pixels of a raw image count in multiples of `PIXEL_BYTES`.
    """
    (width, height), times = image.size, 1
    if width * height > MOST_PIXELS:
        raise ValueError(_too_large(width, height))
    if isinstance(image, RawImage):
        scaled = SCALED_BYTES * max(3, image.samples)
        times = -(-(image.pixel_bytes + scaled) // PIXEL_BYTES)
        if times * width * height > MOST_PIXELS:
            pixels = f"{width:,} x {height:,} = {width * height:,} pixels"
            at_most = f"{MOST_PIXELS // times:,} of {image.pixel_bytes:,} bytes each"
            raise ValueError(f"too large: {pixels}, at most {at_most}")
    tags = getattr(image, "tag_v2", {})
    tile = tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0)
    if tile[0] * tile[1] > MOST_PIXELS:
        raise ValueError(_too_large(*tile, what="a tile of "))
    return int(max(tile[0] * tile[1], times * width * height))


def _reason(error: Exception) -> str:
    """The first line of an error, or two if it ends in a colon, without the file's address."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).split("<_io")[0].strip().splitlines()
    if not text:
        return type(error).__name__
    return " ".join(line.strip() for line in text[: 1 + text[0].endswith(":")])
