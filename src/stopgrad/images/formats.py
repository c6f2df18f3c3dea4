"""Formats that Pillow does not open or misreads: TIFF of any samples, HEIC, DICOM, by extras.

In: a file of which only the header is read. Out: an image to be decoded later, once the caller
has checked its size; or the reason why not, which names a missing extra.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, cast

from stopgrad.config import Bands
from stopgrad.images import dicom, packages, tiff
from stopgrad.images.depth import RawImage
from stopgrad.storage import is_passing

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
START_BYTES = 1024  # enough to tell a format


def readable_now(reason: str) -> bool:
    """Whether an image that was left out for this reason may be readable now.

    It lacked a package that is there now, or, in an old cache, could not be read at that moment.
    """
    return packages.would_help(reason) or is_passing(reason)


def says_what_to_do(reason: str) -> bool:
    """Whether the reason why an image cannot be read says what to do about it."""
    return any(what in reason for what in ("--bands", "pip install", tiff.SAVE))


def open_other(file: IO[bytes], bands: Bands) -> ImageFile | RawImage | None:
    """Opens an image in a format that Pillow does not handle; None for an unknown format.

    Args:
        file: At any position.
        bands: The bands to read; () for the colours.

    Raises:
        ValueError: With the reason why it cannot be read.
    """
    head = _start(file)
    if _is_tiff(head):
        return tiff.open_tiff(file, bands)
    if _is_heic(head):
        if not packages.is_installed("pillow_heif"):
            raise ValueError(f"HEIC: {packages.installation('pillow_heif')}")
        from pillow_heif import HeifImageFile

        return cast("ImageFile", HeifImageFile(file))  # type: ignore[no-untyped-call]
    return dicom.open_dicom(file, head) if dicom.is_dicom(head) else None


def further_pages(file: IO[bytes]) -> tuple[int, ...]:
    """The pages of a TIFF, the frames of a DICOM file and the images of a HEIC after the first.

    They are counted from 1. Smaller copies and masks of a page do not count.
    """
    head = _start(file)
    if _is_tiff(head):
        return tuple(tiff.further_pages(file, head))
    if dicom.is_dicom(head):
        return dicom.further_frames(file)
    if _is_heic(head) and packages.is_installed("pillow_heif"):
        from pillow_heif import HeifImageFile

        return tuple(range(2, HeifImageFile(file).n_frames + 1))  # type: ignore[no-untyped-call]
    return ()


def _start(file: IO[bytes]) -> bytes:
    """The first bytes of a file, which is then rewound."""
    file.seek(0)
    head = file.read(START_BYTES)
    file.seek(0)
    return head


def _is_tiff(head: bytes) -> bool:
    return head.startswith(tiff.MAGIC) and head[128:132] != b"DICM"  # a preamble may be a TIFF


def _is_heic(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in HEIC
