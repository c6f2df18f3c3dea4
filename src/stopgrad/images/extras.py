"""A PNG or JPEG stripped of its metadata: texts, colour profiles, thumbnails.

Pillow refuses images with large texts or a broken profile, though every pixel is there. Truncated
images stay truncated, and no pixel is left out; but a JPEG that lacks only its end marker counts as
whole.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import IO

PNG, JPEG, END = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd9"
START_OF_SCAN = 0xDA
APPLICATION, COMMENT = range(0xE0, 0xF0), 0xFE  # JPEG markers that hold no pixels
EXIF, ADOBE = 0xE1, 0xEE  # the first may rotate the image, the second names its colours
ADOBE_BYTES = 12
SEQUENTIAL, RESTARTS = (0xC0, 0xC1), 0xDD  # frames whose one scan may hold all; a scan has parts
# Bits that differ from the first one on; libjpeg itself supplies 0 when data run out.
CONTINUATIONS = (b"", b"\xaa" * 99, b"\x55" * 99, b"\xfe" * 99, b"\x1b\x8d\xe4\x72" * 25)


def without_extras(file: IO[bytes]) -> bytes | None:
    """The image without its metadata, to be read again; None for other formats."""
    file.seek(0)
    data = file.read()
    if data.startswith(PNG):
        return PNG + b"".join(_chunks(data))
    if data.startswith(JPEG):
        return JPEG + b"".join(_segments(data))
    return None


def lacks_its_end(jpeg: IO[bytes]) -> bool:
    """Whether a JPEG has no end marker after its pixels: Pillow reads padding as pixels."""
    jpeg.seek(-len(END), io.SEEK_END)
    if jpeg.read() == END:
        return False
    jpeg.seek(0)
    *_, scan = _segments(jpeg.read())
    return END not in scan


def with_ends(jpeg: bytes) -> tuple[bytes, ...]:
    """A JPEG that stops within its only scan, padding aside, completed in several ways.

    Missing pixels depend on the completion; if all completions give the same pixels, none is
    missing. () where this test does not apply, such as for several scans.
    """
    *header, scan = _segments(jpeg)
    frame = next((segment for segment in header if segment[1] in SEQUENTIAL), b"")
    several = len(frame) < 10 or scan[4:5] != frame[9:10]
    if several or not jpeg.startswith(JPEG) or re.search(rb"\xff[^\0\xd0-\xd7\xff]", scan[2:]):
        return ()
    begun, marks = jpeg.rstrip(b"\xff\0"), len(re.findall(rb"\xff[\xd0-\xd7]", scan))
    restart = bytes([0xFF, 0xD0 + marks % 8])  # by which the next part of a scan would begin
    between = restart if any(segment[1] == RESTARTS for segment in header) else b""
    return tuple(begun + each + between + each + END for each in CONTINUATIONS)


def _chunks(data: bytes) -> Iterator[bytes]:
    """The chunks that affect pixels: the critical ones, transparency and an intact EXIF block."""
    start = len(PNG)
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])
        kind, chunk = data[start + 4 : start + 8], data[start:end]
        critical = kind[:1].isupper()
        sound = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if critical or kind == b"tRNS" or (kind == b"eXIf" and sound):
            yield chunk
        if kind == b"IEND":
            return
        start = end


def _segments(data: bytes) -> Iterator[bytes]:
    """The segments that affect pixels, and everything from the first scan on, unchanged."""
    start = len(JPEG)
    while data[start : start + 1] == b"\xff" and data[start + 1 : start + 2] != b"":
        marker = data[start + 1]
        if marker == START_OF_SCAN:
            break
        if marker == 0xFF:  # fill
            start += 1
            continue
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        segment = data[start:end]
        is_extra = marker in APPLICATION or marker == COMMENT
        exif = marker == EXIF and segment[4:8] == b"Exif"
        adobe = marker == ADOBE and segment[4:9] == b"Adobe" and len(segment) >= 4 + ADOBE_BYTES
        if not is_extra or exif or adobe:
            yield segment
        start = end
    yield data[start:]
