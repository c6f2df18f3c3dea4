"""Decoding of single pictures, against values worked out by hand."""

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from stopgrad.images import Damaged, Encoded, Frame, OtherSize, decode, opening, strict_pillow
from stopgrad.images import decoding as decode_module
from stopgrad.images.decoding import peek

KEEP = Frame(2, 3, fit=False)


@pytest.fixture(autouse=True)
def _pillow():
    before = Image.MAX_IMAGE_PIXELS
    with strict_pillow():
        yield
    assert before == Image.MAX_IMAGE_PIXELS  # it belongs to the process


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data: bytes, frame: Frame = KEEP):
    return decode(Encoded("picture", data), frame)


def image_of(rows, mode: str) -> Image.Image:
    return Image.fromarray(np.array(rows, np.uint8)).convert(mode)


def test_rgb_is_kept_bit_for_bit():
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert read(saved(Image.fromarray(pixels))).tolist() == pixels.tolist()


def test_gray_is_repeated_in_three_channels():
    gray = np.array([[0, 1, 2], [128, 254, 255]], np.uint8)
    assert read(saved(Image.fromarray(gray))).tolist() == np.stack([gray] * 3, -1).tolist()


def test_sixteen_bits_are_scaled_and_not_clipped():
    gray = np.array([[0, 128, 129], [257, 32768, 65535]], np.uint16)
    # / 257, to the nearest: 128 / 257 = .498, 129 / 257 = .502, 32768 / 257 = 127.502
    assert read(saved(Image.fromarray(gray)))[..., 0].tolist() == [[0, 0, 1], [1, 128, 255]]
    assert read(saved(Image.fromarray(gray), "TIFF"))[..., 2].tolist() == [[0, 0, 1], [1, 128, 255]]


def test_alpha_is_laid_over_white():
    rgba = np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [200, 100, 0, 51]]] * 2, np.uint8)
    # 51 / 255 = 0.2: 0.2 * 200 + 0.8 * 255 = 244, 0.2 * 100 + 0.8 * 255 = 224, 0.8 * 255 = 204
    expected = [[255, 255, 255], [0, 0, 0], [244, 224, 204]]
    assert read(saved(Image.fromarray(rgba)))[0].tolist() == expected


def test_gray_with_alpha_is_laid_over_white():
    pixels = np.array([[[0, 0], [0, 255], [100, 51]]] * 2, np.uint8)
    # 0.2 * 100 + 0.8 * 255 = 224
    found = read(saved(Image.fromarray(pixels)))
    assert found[0].tolist() == [[255] * 3, [0] * 3, [224] * 3]


def palette() -> Image.Image:
    image = Image.new("P", (3, 2))
    image.putpalette([255, 0, 0, 0, 255, 0, 10, 20, 30])
    image.putdata([0, 1, 2, 2, 1, 0])
    return image


def test_palette_is_looked_up():
    assert read(saved(palette()))[0].tolist() == [[255, 0, 0], [0, 255, 0], [10, 20, 30]]


def test_transparent_palette_entry_becomes_white():
    found = read(saved(palette(), transparency=1))
    assert found[0].tolist() == [[255, 0, 0], [255, 255, 255], [10, 20, 30]]


def test_transparent_colour_becomes_white():
    pixels = np.array([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]] * 2, np.uint8)
    found = read(saved(Image.fromarray(pixels), transparency=(4, 5, 6)))
    assert found[0].tolist() == [[1, 2, 3], [255, 255, 255], [7, 8, 9]]


def test_one_bit_is_black_and_white():
    image = image_of([[0, 255, 0], [255, 255, 0]], "1")
    assert read(saved(image))[..., 1].tolist() == [[0, 255, 0], [255, 255, 0]]


def test_cmyk_is_converted():
    cmyk = Image.new("CMYK", (3, 2), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    assert read(saved(cmyk, "TIFF"))[0, 0].tolist() == [255, 0, 0]
    jpeg = read(saved(Image.new("CMYK", (3, 2), (0, 0, 0, 255)), "JPEG", quality=100))
    assert jpeg.max() <= 2  # black, also when the file stores it inverted, as Adobe does


@pytest.mark.input(
    "oddity",
    what="an animation (GIF, PNG, WebP)",
    happens="the first frame is the image; check-data lists the file",
)
def test_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (3, 2), color) for color in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert read(data)[0, 0].tolist() == [255, 0, 0], kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, kind):
    upright = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    # EXIF 2.32: where row 0 and column 0 of the stored picture lie in the upright one.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), kind, **options)
    assert peek(Encoded("x", data)) == (2, 3)
    assert read(data).tolist() == upright.tolist()


def test_unreadable_exif_leaves_the_picture_upright():
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    data = saved(Image.fromarray(pixels), exif=b"Exif\0\0II*\0" + b"\xff" * 9)
    assert read(data).tolist() == pixels.tolist()


def test_a_kept_frame_refuses_another_size_and_names_it():
    assert read(saved(Image.new("RGB", (5, 4)))) == OtherSize(4, 5)


def test_fit_takes_the_centre_square():
    pixels = np.zeros((4, 10, 3), np.uint8)
    pixels[:, 3:7] = 255
    found = read(saved(Image.fromarray(pixels)), Frame(4, 4, fit=True))
    assert found.shape == (4, 4, 3)
    assert found.min() == 255


def test_fit_antialiases_when_it_shrinks():
    stripes = np.tile(np.array([[0, 255]], np.uint8), (64, 32))
    found = read(saved(Image.fromarray(stripes)), Frame(8, 8, fit=True))
    # One-pixel stripes average to mid-gray; plain sampling would give 0 or 255.
    assert abs(found[2:-2, 2:-2].astype(int) - 127).max() <= 2


def test_fit_enlarges_small_pictures():
    found = read(saved(Image.new("RGB", (3, 2), (9, 8, 7))), Frame(6, 6, fit=True))
    assert found.shape == (6, 6, 3)
    assert (found == [9, 8, 7]).all()


def test_photo_reduced_by_the_jpeg_decoder_stays_close_to_the_full_one():
    photo = Image.fromarray(load_sample_image("china.jpg"))  # 640 x 427
    data = saved(photo, "JPEG", quality=95)
    found = read(data, Frame(32, 32, fit=True)).astype(int)
    full = Image.open(io.BytesIO(data)).crop((106, 0, 533, 427))
    expected = np.asarray(full.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert abs(found - expected).mean() < 3
    shifted = np.roll(expected, 1, axis=1)
    assert abs(found - shifted).mean() > 10  # the bound would see a shift by one pixel


def digit_png() -> bytes:
    gray = (load_digits().images[0] * 15).astype(np.uint8)
    return saved(Image.fromarray(np.kron(gray, np.ones((4, 4), np.uint8))))


@pytest.mark.parametrize("kept", [0, 5, 20, 60, -40])
def test_cut_picture_is_damaged(kept):
    data = digit_png()
    found = read(data[:kept], Frame(32, 32, fit=False))
    assert isinstance(found, Damaged)
    assert found.name == "picture"
    assert "\n" not in found.reason
    assert "0x" not in found.reason


def test_cut_jpeg_is_damaged_even_if_most_is_there():
    data = saved(Image.fromarray(load_sample_image("china.jpg")), "JPEG")
    assert isinstance(read(data[: len(data) * 9 // 10], Frame(32, 32, fit=True)), Damaged)


@pytest.mark.parametrize("data", [b"hello world", b"\0" * 1000, b"%!PS-Adobe-3.0 EPSF-3.0\n", None])
def test_what_is_no_picture_is_damaged(data):
    assert isinstance(decode(Encoded("picture", data), KEEP), Damaged)


@pytest.mark.parametrize(("side", "area"), [(16_000, "256.0"), (30_000, "900.0")])
def test_bomb_is_refused_before_it_expands_and_its_size_is_named(side, area):
    # Pillow would only warn of the first.
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    found = read(data, Frame(8, 8, fit=True))
    size = f"{side:,} x {side:,} = {area} megapixels"
    assert found == Damaged("picture", f"too large: {size}, at most 250")


def test_a_gif_whose_first_frame_is_a_bomb_is_refused():
    # GIF89a, a canvas of 1 x 1 px, a frame of 65,535 x 65,535 px that is to be cleared after.
    control = b"\x21\xf9\x04\x08\0\0\0\0"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0)
    data = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + control + frame + b"\x02\x00;"
    found = read(data, Frame(8, 8, fit=True))
    assert found == Damaged("picture", "too large: more than 250 megapixels")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_photo_of_a_hundred_megapixels_is_read(kind):
    photo = Image.new("L", (12_500, 8_000))
    photo.paste(200, (6_250, 0, 12_500, 8_000))  # the right half
    options = {"compress_level": 1} if kind == "PNG" else {}
    data = saved(photo, kind, **options)
    assert peek(Encoded("photo", data)) == (8_000, 12_500)
    found = read(data, Frame(8, 8, fit=True))  # the middle 8,000 x 8,000: half of it is bright
    assert found[:, 0].max() <= 1
    assert abs(found[:, 7].astype(int) - 200).max() <= 1


def tiled_tiff(side: int, payload: bytes) -> bytes:
    """16 x 16 px of gray in one deflated tile of side x side px (TIFF 6.0, Section 15)."""
    values = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    start = 8 + 2 + 12 * 10 + 4
    tags = sorted({**values, 324: start, 325: len(payload)}.items())
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + payload


def test_tile_that_is_a_bomb_is_refused_before_it_expands():
    assert read(tiled_tiff(16, zlib.compress(bytes(256))), Frame(16, 16, fit=False)).max() == 0
    found = read(tiled_tiff(32_768, zlib.compress(bytes(10**6))), Frame(8, 8, fit=True))
    assert found == Damaged(
        "picture", "too large: a tile of 32,768 x 32,768 = 1,073.7 megapixels, at most 250"
    )


def test_empty_and_huge_files_are_not_opened(tmp_path, monkeypatch):
    (tmp_path / "empty.png").touch()
    image_of([[1, 2]], "L").save(tmp_path / "whole.png")
    size = (tmp_path / "whole.png").stat().st_size
    monkeypatch.setattr(opening, "MOST_BYTES", size - 1)

    def reason(name: str) -> str:
        return decode(Encoded(name, tmp_path / name), KEEP).reason

    monkeypatch.setattr(Path, "open", None)
    assert reason("empty.png") == "empty file"
    assert reason("whole.png") == f"{size} bytes, more than {size - 1}"


def test_floats_and_wide_integers_alone_have_the_range_of_their_image():
    floats = np.array([[0, 0.5, 1], [2, 3, 4]], np.float32)
    wide = np.array([[0, 35_000, 70_000], [0, 0, 0]], np.int32)
    # 0.5 x 255 / 4 = 31.9 and 127.5, to the even
    assert read(saved(Image.fromarray(floats), "TIFF"))[0, :, 1].tolist() == [0, 32, 64]
    assert read(saved(Image.fromarray(wide), "TIFF"))[0, :, 1].tolist() == [0, 128, 255]


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_neither_hangs_nor_decodes(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.png"))
        for path in sorted(tmp_path.iterdir()):
            assert isinstance(decode(Encoded(path.name, path), KEEP), Damaged), path


def test_memory_that_runs_out_is_no_fault_of_the_picture(monkeypatch):
    def starve(file: object, **how: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decode_module, "opened", starve)
    with pytest.raises(MemoryError):
        peek(Encoded("picture", saved(image_of([[0]], "L"))))
