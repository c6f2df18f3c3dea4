"""Whole pictures with odd things beside their pixels are whole; cut ones are damaged."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stopgrad.images import Damaged, Encoded, Frame, decode, on_all_cores, strict_pillow
from stopgrad.images.decoding import peek
from tests.inputs import row

PIXELS = np.kron(np.random.default_rng(0).integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1)))
IMAGE = Image.fromarray(PIXELS.astype(np.uint8))  # 32 x 24 px


@pytest.fixture(autouse=True)
def _pillow() -> Iterator[None]:
    with strict_pillow():
        yield


def saved(kind: str, image: Image.Image = IMAGE, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data: bytes) -> Any:
    return decode(Encoded("x", data), Frame(24, 32, fit=False))


PNG, JPEG, GIF = saved("PNG"), saved("JPEG", quality=95, subsampling=0), saved("GIF")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(extra: bytes, *, before: bytes = b"IDAT") -> bytes:
    place = PNG.index(before) - 4
    return PNG[:place] + extra + PNG[place:]


def jpeg_with(extra: bytes) -> bytes:
    return JPEG[:2] + extra + JPEG[2:]


def application(number: int, body: bytes) -> bytes:
    return bytes([0xFF, 0xE0 + number]) + struct.pack(">H", len(body) + 2) + body


LARGE = zlib.compress(bytes(3_000_000))  # Pillow reads at most 1 MiB of a text
LOOP = b"II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)  # it holds itself
WHOLE: dict[str, bytes] = {
    "PNG with a compressed text of 3 MB": png_with(chunk(b"zTXt", b"x\0\0" + LARGE)),
    "PNG with an international text of 3 MB": png_with(chunk(b"iTXt", b"x\0\1\0\0\0" + LARGE)),
    "PNG with a text of 80 MB": png_with(chunk(b"tEXt", b"x\0" + b"a" * 80_000_000)),
    "PNG with 100 texts": png_with(chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(900_000))) * 100),
    "PNG with a text after its pixels": png_with(chunk(b"zTXt", b"x\0\0" + LARGE), before=b"IEND"),
    "PNG with a colour profile of 3 MB": png_with(chunk(b"iCCP", b"x\0\0" + LARGE)),
    "PNG with a broken colour profile": png_with(chunk(b"iCCP", b"x\0\7junk")),
    "PNG with a text whose checksum is wrong": png_with(chunk(b"tEXt", b"x\0y")[:-1] + b"?"),
    "PNG with a truncated gamma": png_with(chunk(b"gAMA", b"x")),
    "PNG with a truncated resolution": png_with(chunk(b"pHYs", b"x")),
    "PNG with a broken EXIF block": png_with(chunk(b"eXIf", b"junk" * 99)),
    "PNG with an EXIF block that refers to itself": png_with(chunk(b"eXIf", LOOP)),
    "PNG with a truncated animation": png_with(chunk(b"acTL", b"x")),
    "PNG with bytes after its end": PNG + b"trailing" * 999,
    "PNG with a chunk after its end": PNG + chunk(b"IDAT", b"junk"),
    "PNG with an unknown chunk": png_with(chunk(b"vpAg", b"junk")),
    "GIF with bytes after its end": GIF + b"trailing" * 999,
    "GIF with a comment of 1 MB": GIF[:-1] + b"!\xfe" + (b"\xff" + b"c" * 255) * 4000 + b"\0;",
    "GIF whose second frame is truncated": saved(
        "GIF", save_all=True, append_images=[Image.fromarray((255 - PIXELS).astype(np.uint8))]
    )[:-200],
    "JPEG with bytes after its end": JPEG + b"trailing" * 999,
    "JPEG followed by another": JPEG + JPEG,
    "JPEG with 16 MB of application data": jpeg_with(application(5, bytes(65_000)) * 255),
    "JPEG with a colour profile of 16 MB": jpeg_with(
        b"".join(
            application(2, b"ICC_PROFILE\0" + bytes([i, 255]) + bytes(65_000))
            for i in range(1, 256)
        )
    ),
    "JPEG with a truncated colour profile": jpeg_with(application(2, b"ICC_PROFILE\0")),
    "JPEG with 16 MB of comments": jpeg_with(
        (b"\xff\xfe" + struct.pack(">H", 65_002) + bytes(65_000)) * 255
    ),
    "JPEG with a long EXIF block": jpeg_with(
        application(1, b"Exif\0\0II*\0\x08\0\0\0" + b"\xff" * 65_000)
    ),
    "JPEG with a broken EXIF block": jpeg_with(application(1, b"Exif\0\0" + b"junk" * 99)),
    "JPEG with an EXIF block that refers to itself": jpeg_with(application(1, b"Exif\0\0" + LOOP)),
    "JPEG with broken XMP": jpeg_with(
        application(1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + b"<" * 60_000)
    ),
    "JPEG with broken Photoshop data": jpeg_with(
        application(13, b"Photoshop 3.0\0" + b"8BIM\x04\x04\xff\xff\xff" * 100)
    ),
    "JPEG with a truncated Adobe marker": jpeg_with(application(14, b"Adobe\0")),
    "JPEG with a broken list of images": jpeg_with(application(2, b"MPF\0" + b"junk" * 9)),
    "JPEG with fill bytes": jpeg_with(b"\xff" * 99),
    "WEBP with bytes after its end": saved("WEBP", lossless=True) + b"trailing" * 9,
    "WEBP with a broken EXIF block": saved("WEBP", lossless=True, exif=b"Exif\0\0" + b"junk" * 99),
    "BMP with bytes after its end": saved("BMP") + b"trailing" * 9,
    "TIFF with a text of 2 MB": saved("TIFF", tiffinfo={270: "x" * 2_000_000}),
}
MPO = saved("MPO", save_all=True, append_images=[IMAGE], quality=95, subsampling=0)
SECOND = MPO.rindex(b"\xff\xd8")
WHOLE |= {
    "MPO whose second image is truncated": MPO[: SECOND + 200],
    "MPO without its second image": MPO[:SECOND],
    "MPO whose second image is junk": MPO[:SECOND] + b"junk" * 500,
}


@pytest.mark.parametrize(
    "data",
    [row(what, "read in full", data, kind="oddity") for what, data in WHOLE.items()],
)
def test_what_stands_beside_the_pixels_does_not_count(data: bytes) -> None:
    found = read(data)
    assert not isinstance(found, Damaged), found
    # Exact where nothing is lost; JPEG and the 256 colours of a GIF are close.
    close = 0 if data.startswith((b"\x89PNG", b"RIFF", b"BM", b"II")) else 9
    assert abs(found.astype(int) - PIXELS).mean() <= close


def test_what_is_left_out_decides_no_pixel() -> None:
    transparent = saved("PNG", IMAGE.quantize(8), transparency=3)
    place = transparent.index(b"IDAT") - 4
    odd = transparent[:place] + chunk(b"zTXt", b"x\0\0" + LARGE) + transparent[place:]
    assert read(odd).tolist() == read(transparent).tolist()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for kind, extra in (("PNG", chunk(b"gAMA", b"x")), ("JPEG", application(14, b"Adobe\0"))):
        turned = saved(kind, exif=exif)
        place = turned.index(b"IDAT") - 4 if kind == "PNG" else 2
        odd = turned[:place] + extra + turned[place:]
        assert read(odd).tolist() == read(turned).tolist()


@pytest.mark.input(
    "oddity", what="progressive CMYK JPEG, inverted by Adobe", happens="converted to RGB"
)
@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_is_converted_beside_extras(progressive: bool) -> None:
    flat = Image.new("CMYK", (32, 24), (0, 255, 255, 0))  # red
    data = saved("JPEG", flat, quality=95, progressive=progressive)
    for odd in (data, data[:2] + application(2, b"ICC_PROFILE\0") + data[2:]):
        assert abs(read(odd)[0, 0].astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("what", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.5, 0.8, 0.95])
def test_a_cut_image_is_damaged_with_and_without_extras(what: str, kept: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    data = saved(what, Image.fromarray(noise))
    odd = {
        "PNG": data[:33] + chunk(b"gAMA", b"x") + data[33:],
        "JPEG": data[:2] + application(2, b"ICC_PROFILE\0") + data[2:],
    }
    for whole in (data, odd.get(what, data)):
        assert not isinstance(read(whole), Damaged)
        assert isinstance(read(whole[: int(len(whole) * kept)]), Damaged)


SCANS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fine": {"quality": 100, "subsampling": 0},
    "optimized": {"optimize": True},
    "coarse": {"quality": 1, "optimize": True},
    "with restarts": {"restart_marker_blocks": 2},
    "progressive": {"progressive": True},
}


@pytest.mark.input("oddity", what="truncated JPEG padded with zeros", happens="counts as damaged")
@pytest.mark.parametrize("options", SCANS.values(), ids=SCANS)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("flat", [False, True], ids=["", "flat"])
def test_a_jpeg_without_its_end_is_whole_or_damaged(
    options: dict[str, Any], mode: str, flat: bool
) -> None:
    image = Image.new("RGB", (32, 24), "orange") if flat else IMAGE
    whole = saved("JPEG", image.convert(mode), **options)
    expected, scan = read(whole), whole.index(b"\xff\xda") + 14
    assert expected.shape == (24, 32, 3)
    for end in range(scan, len(whole)):
        for filled in (b"", bytes(20), bytes(5000)):
            found = read(whole[:end] + filled)
            assert isinstance(found, Damaged) or (found == expected).all(), (end, len(filled))


@pytest.mark.input(
    "oddity", what="JPEG without its end marker, progressive", happens="counts as damaged"
)
def test_a_progressive_jpeg_without_its_end_is_damaged() -> None:
    assert isinstance(read(saved("JPEG", progressive=True)[:-2]), Damaged)


@pytest.mark.input(
    "oddity", what="JPEG without its end marker", happens="read, if every pixel is there"
)
@pytest.mark.parametrize("lacks", [1, 2])
@pytest.mark.parametrize("options", [*SCANS.values()][:-1], ids=[*SCANS][:-1])
def test_a_jpeg_that_lacks_only_its_end_mark_is_whole(options: dict[str, Any], lacks: int) -> None:
    whole = saved("JPEG", **options)
    assert (read(whole[:-lacks]) == read(whole)).all()
    extra = whole[:2] + application(2, b"ICC_PROFILE") + whole[2:-lacks]
    assert (read(extra) == read(whole)).all()


@pytest.mark.input(
    "oddity", what="PNG with a wrong byte in its pixels", happens="counts as damaged"
)
@pytest.mark.parametrize("place", [0, 10, 50, 100, -30])
@pytest.mark.parametrize("extra", [b"", chunk(b"gAMA", b"x")], ids=["plain", "with extras"])
def test_pixels_that_are_broken_stay_damaged_whatever_is_left_out(place: int, extra: bytes) -> None:
    whole = png_with(extra)
    start, end = whole.index(b"IDAT") + 4, whole.index(b"IEND") - 8
    broken = bytearray(whole)
    broken[range(start, end)[place]] ^= 255
    for frame in (Frame(24, 32, fit=False), Frame(16, 16, fit=True)):
        assert isinstance(decode(Encoded("x", bytes(broken)), frame), Damaged)
    assert isinstance(peek(Encoded("x", bytes(broken))), Damaged)


def test_no_library_speaks_under_our_name(caplog: pytest.LogCaptureFixture) -> None:
    pillow = logging.getLogger("PIL.TiffImagePlugin")

    def speak(image: Encoded) -> str:
        pillow.error("More samples per pixel than can be decoded")
        return image.name

    with strict_pillow():
        assert [name for name, _ in on_all_cores(iter([Encoded("a", b"")]), speak)] == ["a"]
        assert not caplog.records


def test_the_level_of_a_log_is_as_it_was() -> None:
    log = logging.getLogger("PIL")
    with strict_pillow():
        pass
    before, beside = log.level, (log.propagate, [*log.handlers])
    log.setLevel(logging.DEBUG)
    with strict_pillow():
        assert not log.isEnabledFor(logging.CRITICAL)
    assert (log.level, (log.propagate, log.handlers)) == (logging.DEBUG, beside)
    log.setLevel(before)
