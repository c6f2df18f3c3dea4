"""DICOM, read by pydicom: the first frame, its gray values mapped through the stated window.

In: a file of which only the header is read. Out: an image to be decoded later, or the reason why
not.
"""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from stopgrad.images import packages
from stopgrad.images.depth import Depth, RawImage, Samples, choose

if TYPE_CHECKING:
    from pydicom import Dataset as Dicom

STARTS = (b"\x02\0\0\0", b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0")  # without a preamble
DEFLATED = b"1.2.840.10008.1.2.1.99"  # a file that is one zlib stream from here on
RUN_LENGTHS = "1.2.840.10008.1.2.5"
MOST_FRAMES = 1 << 16  # that are counted


def is_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does, with its preamble or without."""
    return head[128:132] == b"DICM" or head.startswith(STARTS)


def further_frames(file: IO[bytes]) -> tuple[int, ...]:
    """Numbers of the frames after the first, counted from 1; () without pydicom."""
    if not packages.is_installed("pydicom"):
        return ()
    from pydicom import dcmread

    file.seek(0)
    header = dcmread(file, stop_before_pixels=True, force=True)
    frames = min(int(header.get("NumberOfFrames") or 1), MOST_FRAMES)
    return tuple(range(2, frames + 1))


def open_dicom(file: IO[bytes], head: bytes) -> RawImage:
    """The first frame of a file that begins with `head`; a ValueError when it is not read."""
    if not packages.is_installed("pydicom"):
        raise ValueError(f"DICOM: {packages.installation('pydicom')}")
    if DEFLATED in head:
        raise ValueError("DICOM, deflated as a whole")
    return _open(file)


def _open(file: IO[bytes]) -> RawImage:
    from pydicom import dcmread
    from pydicom.pixels.decoders.base import get_decoder

    header = dcmread(file, stop_before_pixels=True, force=True)
    width, height = int(header.get("Columns") or 0), int(header.get("Rows") or 0)
    if not width * height:
        raise ValueError("DICOM without an image")
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_compressed and not get_decoder(syntax).is_available:
        how = syntax.name.split(",")[0]
        raise ValueError(f"DICOM compressed as {how}: {packages.installation('gdcm')}")
    samples = int(header.get("SamplesPerPixel", 1))
    pixel_bytes = samples * -(-int(header.BitsAllocated) // 8)
    _check_run_lengths(file, header, width * height * pixel_bytes)
    return RawImage(
        "DICOM",
        (width, height),
        _depth(header),
        lambda bands: choose(_read(file), bands),
        pixel_bytes=pixel_bytes,
        inverted=header.get("PhotometricInterpretation") == "MONOCHROME1",
    )


def _check_run_lengths(file: IO[bytes], header: Dicom, frame_bytes: int) -> None:
    """Refuses run lengths that take far more bytes than the pixels they should encode."""
    most = 2 * int(header.get("NumberOfFrames") or 1) * frame_bytes + (1 << 20)
    run_lengths = header.file_meta.get("TransferSyntaxUID") == RUN_LENGTHS
    if run_lengths and file.seek(0, io.SEEK_END) > most:
        raise ValueError("more bytes than its size in pixels explains")


def _depth(header: Dicom) -> Depth | None:
    """The depth, from the header: 8 bits with a window, else that of the modality's values."""
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
    """Centre and width of the first window; None if there is no valid one."""
    center, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    return None if center is None or not width or width <= 0 else (center, width)


def _first(value: Any) -> float | None:
    values = [value] if isinstance(value, (int, float, str)) else list(value or ())
    return float(values[0]) if values and values[0] not in ("", None) else None


def _read(file: IO[bytes]) -> Samples:  # (H, W) or (H, W, 3)
    """The first frame; gray values in the modality's units, through the window if there is one.

    DICOM PS3.3, Sections C.11.1.1.2 (rescale) and C.11.2.1.2 (windows).
    """
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
    from pydicom.pixels.utils import pixel_array

    file.seek(0)
    header = dcmread(file, stop_before_pixels=True, force=True)
    file.seek(0)
    values: Samples = pixel_array(cast("BinaryIO", file), index=0)
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
    return values if _depth(header) else _of_bits(values, bits)


def _of_bits(values: Samples, bits: int) -> Samples:
    """Values from 0 to 2^bits - 1, scaled to 0 to 255."""
    scaled: Samples = np.rint(values * (255 / (2**bits - 1)))
    return scaled.clip(0, 255)


def _through(values: Samples, center: float, width: float, *, function: str) -> Samples:
    if function == "SIGMOID":
        share: Samples = 1 / (1 + np.exp(-4 * (values - center) / width))
    elif function == "LINEAR_EXACT":
        share = (values - center) / width + 0.5
    else:
        share = (values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5
    return _of_bits(share, 1)
