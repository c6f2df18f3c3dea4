"""What Pillow does not open, or opens wrongly: TIFF of any samples, HEIC, DICOM, each by an extra.

In: a file of which only the header is read. Out: an image to be decoded later, once the caller
has seen that it is not too large; or the reason why not, which names an extra that is missing.
"""

from __future__ import annotations

import importlib.util
import io
import math
import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np

from stopgrad.config import ALL_BANDS, Bands
from stopgrad.images.depth import (
    Depth,
    RawImage,
    Values,
    choose,
    choose_colours,
    count_bands,
    masked,
)
from stopgrad.storage import is_passing

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile
    from pydicom import Dataset as Dicom
    from tifffile import TiffPage

MODULES = {  # by what pip installs
    "'stopgrad[tiff]'": "tifffile",
    "'stopgrad[heic]'": "pillow_heif",
    "'stopgrad[dicom]'": "pydicom",
    "python-gdcm": "gdcm",
}
TIFFFILE, HEIF, PYDICOM, GDCM = MODULES
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
DICOM = (b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0")  # one without a preamble
DEFLATED = b"1.2.840.10008.1.2.1.99"  # a DICOM file that is one zlib stream from here on
RUN_LENGTHS = "1.2.840.10008.1.2.5"
COMPRESSIONS = (1, 5, 8, 32773, 32946, 50000)  # whose codec takes a limit of what may come out
SUBFILE, BITS, SAMPLES, PLANAR, FORMAT = 254, 258, 277, 284, 339  # tags of TIFF 6.0
ROWS, DESCRIPTION, STRIPS, STRIP_ROWS, STRIP_BYTES = 257, 270, 273, 278, 279
SMALLER, MASK, SHORT, LONG = 1, 4, 3, 4  # kinds of subfile; types of values
IMAGEJ = re.compile(rb"ImageJ=[^\0]*?\nimages=(\d{1,6})(?!\d)")  # in the description of its stacks
SAVE = "save it uncompressed"
MOST_PAGES = 1 << 16  # that are counted


def readable_now(reason: str) -> bool:
    """Whether an image that was left out for this reason may be whole.

    It lacked a package that is there now, or, in an old cache, could not be read at that moment.
    """
    there = any(f"pip install {name}" in reason and _is_installed(name) for name in MODULES)
    return there or is_passing(reason)


def says_what_to_do(reason: str) -> bool:
    """Whether the reason why an image cannot be read names what it needs."""
    return any(what in reason for what in ("--bands", "pip install", SAVE))


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(MODULES[package]) is not None


def _require(package: str, what: str) -> None:
    if not _is_installed(package):
        raise ValueError(f"{what}: pip install {package}")


def is_misread(image: ImageFile) -> bool:
    """Whether Pillow opens this TIFF but would make other values of it."""
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


def open_other(file: IO[bytes], bands: Bands) -> ImageFile | RawImage | None:
    """The image of a format that Pillow leaves; None: it is of no known format.

    Args:
        file: At any place.
        bands: Those that will be read; () for the colours.

    Raises:
        ValueError: With the reason why it cannot be read.
    """
    file.seek(0)
    head = file.read(1024)
    file.seek(0)
    if head.startswith(TIFF) and head[128:132] != b"DICM":
        return _open_tiff(file, bands)
    if _is_heic(head):
        _require(HEIF, "HEIC")
        from pillow_heif import HeifImageFile

        return cast("ImageFile", HeifImageFile(file))  # type: ignore[no-untyped-call]
    if head[128:132] == b"DICM" or head.startswith(DICOM):
        _require(PYDICOM, "DICOM")
        if DEFLATED in head:
            raise ValueError("DICOM, deflated as a whole")
        return _open_dicom(file)
    return None


def further_pages(file: IO[bytes]) -> tuple[int, ...]:
    """The pages of a TIFF, the frames of a DICOM file and the images of a HEIC after the first.

    They are counted from 1.

    Smaller copies and masks of a page are none.
    """
    file.seek(0)
    head = file.read(132)
    if head.startswith(TIFF) and head[128:] != b"DICM":
        return tuple(_further_pages(file, head))
    if (head[128:] == b"DICM" or head.startswith(DICOM)) and _is_installed(PYDICOM):
        from pydicom import dcmread

        file.seek(0)
        header = dcmread(file, stop_before_pixels=True, force=True)
        frames = min(int(header.get("NumberOfFrames") or 1), MOST_PAGES)
        return tuple(range(2, frames + 1))
    if _is_heic(head) and _is_installed(HEIF):
        from pillow_heif import HeifImageFile

        file.seek(0)
        return tuple(range(2, HeifImageFile(file).n_frames + 1))  # type: ignore[no-untyped-call]
    return ()


def _is_heic(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in HEIC


def _further_pages(file: IO[bytes], head: bytes) -> Iterator[int]:
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
    """What the entries of a directory hold, by tag: a value or the offset of many."""
    found = dict[int, int]()
    for start in range(0, len(entries), size):
        tag, kind = (int.from_bytes(entries[i : i + 2], order) for i in (start, start + 2))
        value = start + (12 if size == 20 else 8)
        width = {SHORT: 2, LONG: 4}.get(kind, 8 if size == 20 else 4)
        found.setdefault(tag, int.from_bytes(entries[value : value + width], order))
    return found


def _stacked(file: IO[bytes], values: dict[int, int]) -> int:
    """How many images ImageJ has put behind each other under the one directory of a file.

    A description that was copied to a file of one image counts for nothing.
    """
    file.seek(values.get(DESCRIPTION, 0))
    stated = IMAGEJ.match(file.read(1024))
    if stated is None or values.get(STRIP_ROWS, 0) < values.get(ROWS, 0):
        return 1
    count = int(stated[1])
    end = values.get(STRIPS, 0) + count * values.get(STRIP_BYTES, 0)
    return count if end <= file.seek(0, io.SEEK_END) else 1


def _open_tiff(file: IO[bytes], bands: Bands) -> RawImage:
    if not _is_installed(TIFFFILE):
        raise ValueError(f"TIFF of {_stated_samples(file)}: pip install {TIFFFILE}")
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
    """The type of its samples; ValueError where the page (`is_named`: its bands) is not read."""
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
    """What the header says of the samples, as far as Pillow can read it."""
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
    """The bands that are gray or red, green and blue without being asked for."""
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


def _read_tiff(file: IO[bytes], bands: Bands) -> Values:  # (H, W) or (H, W, 3)
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


def _open_dicom(file: IO[bytes]) -> RawImage:
    from pydicom import dcmread
    from pydicom.pixels.decoders.base import get_decoder

    header = dcmread(file, stop_before_pixels=True, force=True)
    width, height = int(header.get("Columns") or 0), int(header.get("Rows") or 0)
    if not width * height:
        raise ValueError("DICOM without an image")
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_compressed and not get_decoder(syntax).is_available:
        raise ValueError(f"DICOM compressed as {syntax.name.split(',')[0]}: pip install {GDCM}")
    samples = int(header.get("SamplesPerPixel", 1))
    pixel_bytes = samples * -(-int(header.BitsAllocated) // 8)
    _check_run_lengths(file, header, width * height * pixel_bytes)
    return RawImage(
        "DICOM",
        (width, height),
        _dicom_depth(header),
        lambda bands: choose(_read_dicom(file), bands),
        pixel_bytes=pixel_bytes,
        inverted=header.get("PhotometricInterpretation") == "MONOCHROME1",
    )


def _check_run_lengths(file: IO[bytes], header: Dicom, frame_bytes: int) -> None:
    """Refuses run lengths of far more bytes than the pixels that they promise to be."""
    most = 2 * int(header.get("NumberOfFrames") or 1) * frame_bytes + (1 << 20)
    run_lengths = header.file_meta.get("TransferSyntaxUID") == RUN_LENGTHS
    if run_lengths and file.seek(0, io.SEEK_END) > most:
        raise ValueError("more bytes than its size in pixels explains")


def _dicom_depth(header: Dicom) -> Depth | None:
    """Known without the pixels: a window makes 8 bits; else the modality's values count."""
    slope, intercept = _rescale(header)
    whole = slope.is_integer() and intercept.is_integer()
    if _window(header) is not None or "VOILUTSequence" in header or _is_coloured(header):
        return None
    if header.BitsAllocated > 16 and "PixelRepresentation" not in header:  # Float Pixel Data
        return "floating-point"
    if (slope, intercept) != (1, 0) or "ModalityLUTSequence" in header:
        return "integer" if whole else "floating-point"
    if header.PixelRepresentation == 1:
        return "integer"
    return "16-bit" if header.BitsStored > 8 else None


def _is_coloured(header: Dicom) -> bool:
    return int(header.get("SamplesPerPixel", 1)) > 1 or "RedPaletteColorLookupTableData" in header


def _rescale(header: Dicom) -> tuple[float, float]:
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    return (1.0 if slope is None else float(slope)), float(intercept or 0)


def _window(header: Dicom) -> tuple[float, float] | None:
    """Centre and width of the first window; None where there is no valid one."""
    center, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    return None if center is None or not width or width <= 0 else (center, width)


def _first(value: Any) -> float | None:
    values = [value] if isinstance(value, (int, float, str)) else list(value or ())
    return float(values[0]) if values and values[0] not in ("", None) else None


def _read_dicom(file: IO[bytes]) -> Values:  # (H, W) or (H, W, 3)
    """The first frame; gray values as the modality means them, through the window if there is one.

    DICOM PS3.3, Sections C.11.1.1.2 (rescale) and C.11.2.1.2 (windows).
    """
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
    from pydicom.pixels.utils import pixel_array

    file.seek(0)
    header = dcmread(file, stop_before_pixels=True, force=True)
    file.seek(0)
    values: Values = pixel_array(cast("BinaryIO", file), index=0)
    bits = int(header.get("BitsStored", 8))
    if "RedPaletteColorLookupTableData" in header:
        values = apply_color_lut(values, header)
        bits = 8 * values.dtype.itemsize
    if _is_coloured(header):
        return _of_bits(values, bits)
    values = apply_modality_lut(values, header)
    if (window := _window(header)) is not None:
        return _through(values, *window, function=header.get("VOILUTFunction", "LINEAR"))
    if "VOILUTSequence" in header:
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        return _of_bits(apply_voi(values.astype(np.int64), header), bits)
    return values if _dicom_depth(header) else _of_bits(values, bits)


def _of_bits(values: Values, bits: int) -> Values:
    """Values from 0 to 2^bits - 1 as 0 to 255."""
    scaled: Values = np.rint(values * (255 / (2**bits - 1)))
    return scaled.clip(0, 255)


def _through(values: Values, center: float, width: float, *, function: str) -> Values:
    if function == "SIGMOID":
        share: Values = 1 / (1 + np.exp(-4 * (values - center) / width))
    elif function == "LINEAR_EXACT":
        share = (values - center) / width + 0.5
    else:
        share = (values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5
    return _of_bits(share, 1)
