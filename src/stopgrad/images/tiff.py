"""TIFF of any samples, read by tifffile: bands, signed integers, floats.

In: a file of which only the header is read. Out: an image to be decoded later, or the reason why
not; and the pages after the first, which need no package.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from stopgrad.config import ALL_BANDS, Bands
from stopgrad.images import packages
from stopgrad.images.depth import (
    Depth,
    RawImage,
    Samples,
    choose,
    choose_colours,
    count_bands,
    masked,
)

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile
    from tifffile import TiffPage

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
COMPRESSIONS = (1, 5, 8, 32773, 32946, 50000)  # whose codec takes a limit on its output
SUBFILE, BITS, SAMPLES, PLANAR, FORMAT = 254, 258, 277, 284, 339  # tags of TIFF 6.0
ROWS, DESCRIPTION, STRIPS, STRIP_ROWS, STRIP_BYTES = 257, 270, 273, 278, 279
SMALLER, MASK, SHORT, LONG = 1, 4, 3, 4  # kinds of subfile; types of values
IMAGEJ = re.compile(rb"ImageJ=[^\0]*?\nimages=(\d{1,6})(?!\d)")  # in the description of its stacks
SAVE = "save it uncompressed"
MOST_PAGES = 1 << 16  # that are counted


def is_misread(image: ImageFile) -> bool:
    """Whether Pillow opens this TIFF but misreads its values."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return False
    bits, signed = tags.get(BITS, (1,)), tags.get(FORMAT, (1,)) != (1,)
    compressed_big_endian = tags.prefix == b"MM" and image.tile[0].codec_name == "libtiff"
    return (
        (signed and bits == (8,))
        or (tags.get(PLANAR, 1) == 2 and max(bits) > 8)
        or (image.mode in ("I", "F") and compressed_big_endian)
    )


def further_pages(file: IO[bytes], head: bytes) -> Iterator[int]:
    """The pages after the first, counted from 1, without smaller copies and masks of a page."""
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    wide = 43 in head[2:4]  # BigTIFF
    size, counted, entry = (8, 8, 20) if wide else (4, 2, 12)  # bytes of an offset, ...
    place, seen = int.from_bytes(head[size : 2 * size], order), set[int]()
    while place and place not in seen and len(seen) < MOST_PAGES:
        seen.add(place)
        file.seek(place)
        count = min(int.from_bytes(file.read(counted), order), MOST_PAGES)
        entries = file.read(count * entry)
        if len(entries) < count * entry:
            return
        place = int.from_bytes(file.read(size), order)
        values = _values(entries, entry, order)
        if len(seen) > 1 and not values.get(SUBFILE, 0) & (SMALLER | MASK):
            yield len(seen)
        if len(seen) == 1 and not place:
            yield from range(2, _stacked(file, values) + 1)


def _values(entries: bytes, size: int, order: Literal["little", "big"]) -> dict[int, int]:
    """The entries of a directory by tag: a value or the offset of several."""
    found = dict[int, int]()
    for start in range(0, len(entries), size):
        tag, kind = (int.from_bytes(entries[i : i + 2], order) for i in (start, start + 2))
        value = start + (12 if size == 20 else 8)
        width = {SHORT: 2, LONG: 4}.get(kind, 8 if size == 20 else 4)
        found.setdefault(tag, int.from_bytes(entries[value : value + width], order))
    return found


def _stacked(file: IO[bytes], values: dict[int, int]) -> int:
    """How many images ImageJ has stacked under the one directory of a file.

    A description that was copied to a file of one image is ignored.
    """
    file.seek(values.get(DESCRIPTION, 0))
    stated = IMAGEJ.match(file.read(1024))
    if stated is None or values.get(STRIP_ROWS, 0) < values.get(ROWS, 0):
        return 1
    count = int(stated[1])
    end = values.get(STRIPS, 0) + count * values.get(STRIP_BYTES, 0)
    return count if end <= file.seek(0, io.SEEK_END) else 1


def open_tiff(file: IO[bytes], bands: Bands) -> RawImage:
    """The first page of a TIFF; a ValueError with the reason when it is not read."""
    if not packages.is_installed("tifffile"):
        raise ValueError(f"TIFF of {_stated_samples(file)}: {packages.installation('tifffile')}")
    from tifffile import TiffFile

    with TiffFile(file) as tiff:
        page = tiff.pages.first
        planes, layers, height, width, samples = page.shaped
        count = planes * samples
        kind = _kind(count, page.bitspersample, page.sampleformat)
        itemsize = _checked_tiff(page, kind, layers=layers, is_named=bool(bands)).itemsize
        colours = () if bands else _colours(count, kind, is_rgb=page.photometric == 2)
        samples = count if bands == ALL_BANDS else len(bands or colours)
        orientation = page.tags.get(274)
        return RawImage(
            "TIFF",
            (width, height),
            _tiff_depth(page),
            lambda chosen: _read_tiff(file, chosen or bands or colours),
            pixel_bytes=count * itemsize,
            samples=samples,
            spare=range(len(colours) + 1, count + 1) if colours else range(0),
            inverted=page.photometric == 0,
            orientation=orientation.value if orientation else 1,
        )


def _checked_tiff(page: TiffPage, kind: str, *, layers: int, is_named: bool) -> np.dtype[Any]:
    """The sample type of a page; a ValueError if it (`is_named`: its bands) is not read."""
    if page.dtype is None or page.dtype.kind not in "buif":
        raise ValueError(f"TIFF of {kind}: {SAVE} as real numbers, such as magnitudes")
    if page.compression not in COMPRESSIONS:
        how = getattr(page.compression, "name", page.compression)
        raise ValueError(f"TIFF of {kind}, compressed as {how}: {SAVE} or with LZW")
    if layers > 1 or (not is_named and page.photometric not in (0, 1, 2)):
        what = f"{layers} layers, photometric {page.photometric}"
        raise ValueError(f"TIFF of {kind}, {what}: {SAVE} as gray or RGB, a layer a file")
    if len(page.dataoffsets) != math.prod(page.chunked):
        raise ValueError("strips or tiles of the image are missing")
    return page.dtype


def _kind(count: int, bits: int, sample_format: int) -> str:
    """`13 bands of unsigned 16-bit integers`."""
    names = {1: "unsigned {}-bit integers", 2: "signed {}-bit integers", 3: "{}-bit floats"}
    names |= {5: "{}-bit complex integers", 6: "{}-bit complex numbers"}
    return f"{count_bands(count)} of {names.get(sample_format, '{}-bit samples').format(bits)}"


def _stated_samples(file: IO[bytes]) -> str:
    """A description of the samples by the header, as far as Pillow can read it."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        start = file.read(8)
        directory = ImageFileDirectory_v2(start + (file.read(8) if 43 in start[2:4] else b""))
        file.seek(directory.next)
        directory.load(file)
        bits, sample_format = directory.get(BITS, (1,)), directory.get(FORMAT, (1,))
        return _kind(directory.get(SAMPLES, 1), bits[0], sample_format[0])
    except Exception:  # as many types as in `guarded`
        return "a kind that Pillow does not read"


def _colours(count: int, kind: str, *, is_rgb: bool) -> Bands:
    """The bands that are gray or red, green and blue by default."""
    if count < 3:
        return (1,)
    if count == 3 or (is_rgb and count == 4):
        return (1, 2, 3)
    raise choose_colours(count, kind)


def _tiff_depth(page: TiffPage) -> Depth | None:
    assert page.dtype is not None
    if page.dtype.kind == "f":
        return "floating-point"
    if page.dtype.kind == "i" or page.dtype.itemsize > 2:
        return "integer"
    return "16-bit" if page.dtype.itemsize == 2 else None


def _read_tiff(file: IO[bytes], bands: Bands) -> Samples:  # (H, W) or (H, W, 3)
    from tifffile import TiffFile

    file.seek(0)
    with TiffFile(file) as tiff:
        page = tiff.pages.first
        values = page.asarray(squeeze=False, maxworkers=1)  # planes, layers, H, W, samples
        stacked = np.moveaxis(values[:, 0], 0, 2).reshape(*values.shape[2:4], -1)
        nodata = page.nodata if "GDAL_NODATA" in page.tags else None
        if values.dtype == bool:
            stacked = stacked * np.uint8(255)
        return masked(choose(stacked, bands), nodata)
