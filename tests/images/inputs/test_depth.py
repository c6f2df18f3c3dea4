"""Images of more than 8 bits: their values become pixels by one rule for the whole set."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from stopgrad.cli import main
from stopgrad.config import Reading
from stopgrad.errors import DataError
from stopgrad.images import (
    check_images,
    gather,
    load_dataset,
    load_image_files,
    pack,
    what_to_know,
)
from stopgrad.images import decoding as decode_module
from stopgrad.images.writing import store_key
from tests.inputs import row


def reads(what: str, happens: str, **given: Any) -> Any:
    """A row of the table of inputs."""
    return row(what, happens, *given.values(), kind="oddity")


def png(path: Path, values: np.ndarray[Any, Any]) -> None:
    """An independent encoder, which also writes colours of 16 bits and filters its rows."""
    path.with_suffix(".png").write_bytes(imagecodecs.png_encode(values, level=6))


def tiff(path: Path, values: np.ndarray[Any, Any], **how: Any) -> None:
    how.setdefault("photometric", "rgb" if values.ndim == 3 else "minisblack")
    tifffile.imwrite(path.with_suffix(".tif"), values, **how)


def ppm(path: Path, values: np.ndarray[Any, Any], most: int = 65535) -> None:
    kind = b"P6" if values.ndim == 3 else b"P5"
    height, width = values.shape[:2]
    header = b"%s %d %d %d\n" % (kind, width, height, most)
    path.with_suffix(".ppm").write_bytes(header + values.astype(">u2").tobytes())


Write = Callable[[Path, "np.ndarray[Any, Any]"], object]


def set_of(folder: Path, write: Write, *images: np.ndarray[Any, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, values in enumerate(images):
        write(folder / f"{number}", values)
    return folder


def pixels_of(folder: Path, **how: Any) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    found = load_dataset(str(folder), **how)
    assert not found.damaged
    return found.train.pixels, found.notes.remarks


U16 = np.uint16
LOW = np.array([[0, 1, 100], [1000, 2047, 2048]], U16)
TOP = np.array([[4095, 4094, 9], [5, 6, 7]], U16)
# x 255 / 4095 = x / 16.06, to the nearest, by hand
LOW_12, TOP_12 = [[0, 0, 6], [62, 127, 128]], [[255, 255, 1], [0, 0, 0]]
TWELVE = "the 16-bit images use 12 bits: 4,095 is white (--white-level)"


@pytest.mark.parametrize(
    "write",
    [
        reads("12-bit gray in 16-bit PNG", "scaled by the set's white level", write=png),
        reads("12-bit gray in 16-bit TIFF", "scaled by the set's white level", write=tiff),
        reads(
            "12-bit gray in big-endian, compressed TIFF",
            "scaled by the set's white level",
            write=lambda path, v: tiff(path, v, byteorder=">", compression="lzw"),
        ),
        reads(
            "12-bit gray in 16-bit PGM",
            "scaled by the set's white level",
            write=ppm,
        ),
    ],
)
def test_a_set_that_uses_12_of_16_bits_is_scaled_by_one_white_level(
    write: Write, tmp_path: Path
) -> None:
    pixels, remarks = pixels_of(set_of(tmp_path / "set", write, LOW, TOP))
    assert pixels[..., 0].tolist() == [LOW_12, TOP_12]
    assert (pixels == pixels[..., :1]).all()
    assert remarks == (TWELVE,)


def rgb(gray: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Three different channels, of which the last is the gray."""
    return np.dstack([gray[::-1], gray[:, ::-1], gray])


@pytest.mark.parametrize(
    "write",
    [
        reads("12-bit colours in 16-bit PNG", "scaled by the set's white level", write=png),
        reads("12-bit colours in 16-bit TIFF", "scaled by the set's white level", write=tiff),
        reads(
            "12-bit colours in deflated TIFF",
            "scaled by the set's white level",
            write=lambda path, v: tiff(path, v, compression="zlib", predictor=True),
        ),
        reads(
            "12-bit colours in big-endian TIFF",
            "scaled by the set's white level",
            write=lambda path, v: tiff(path, v, byteorder=">"),
        ),
        reads(
            "12-bit colours in TIFF, plane by plane",
            "scaled by the set's white level",
            write=lambda path, v: tiff(
                path, np.moveaxis(v, 2, 0).copy(), photometric="rgb", planarconfig="separate"
            ),
        ),
        reads("12-bit colours in 16-bit PPM", "scaled by the set's white level", write=ppm),
    ],
)
def test_colours_of_12_bits_keep_every_bit_too(write: Write, tmp_path: Path) -> None:
    pixels, remarks = pixels_of(set_of(tmp_path / "set", write, rgb(LOW), rgb(TOP)))
    low, top = np.array(LOW_12), np.array(TOP_12)
    assert pixels.tolist() == [rgb(low).tolist(), rgb(top).tolist()]
    assert remarks == (TWELVE,)


def test_alpha_of_16_bits_is_laid_over_white_beside_12_bit_colours(tmp_path: Path) -> None:
    alpha = np.array([[65535, 0, 65535]] * 2, U16)
    gray = set_of(tmp_path / "gray", png, np.dstack([TOP, alpha]))
    colours = set_of(tmp_path / "colours", png, np.dstack([rgb(TOP), alpha]))
    expected = np.array(TOP_12)
    expected[:, 1] = 255  # clear
    assert pixels_of(gray)[0][0, ..., 2].tolist() == expected.tolist()
    assert pixels_of(colours)[0][0, ..., 2].tolist() == expected.tolist()


WHITES = {255: 255, 256: 511, 1023: 1023, 1024: 2047, 3000: 4095, 4096: 8191, 32767: 32767}


@pytest.mark.parametrize(
    ("most", "white"),
    [
        *[
            reads(
                f"16-bit values of 0 to {most:,}",
                "scaled so that the next 2^k - 1 is white",
                most=most,
                white=white,
            )
            for most, white in WHITES.items()
        ],
        reads(
            "16-bit values of 0 to 32,768 or more",
            "unchanged: 65,535 is white",
            most=32768,
            white=65535,
        ),
        reads(
            "16-bit values of 0 to 65,535", "unchanged: 65,535 is white", most=65535, white=65535
        ),
        reads("16-bit values of 0 to 3", "read as 8-bit values: 255 is white", most=3, white=255),
    ],
)
def test_white_is_the_smallest_power_that_no_value_exceeds(
    most: int, white: int, tmp_path: Path
) -> None:
    values = np.linspace(0, most, 12).round().astype(U16).reshape(3, 4)
    pixels, remarks = pixels_of(set_of(tmp_path / "set", png, values // 2, values))
    assert pixels[1, ..., 0].tolist() == np.rint(values * 255.0 / white).astype(int).tolist()
    assert bool(remarks) == (white < 65535)
    assert all(f"{white:,} is white" in remark for remark in remarks)


@pytest.mark.input(
    "oddity", what="16-bit images, one of them bright", happens="unchanged: 65,535 is white"
)
def test_dark_images_of_a_set_that_uses_the_full_range_keep_their_pixels(tmp_path: Path) -> None:
    bright = np.full((2, 3), 60_000, U16)
    gray = set_of(tmp_path / "gray", png, LOW, bright)
    colours = set_of(tmp_path / "colours", png, rgb(LOW), rgb(bright))
    # 60,000 / 257 = 233.46; colours are their high byte, 60,000 // 256 = 234, as ever
    assert pixels_of(gray)[0][..., 0].tolist() == [((LOW + 128) // 257).tolist(), [[233] * 3] * 2]
    assert pixels_of(colours)[0][..., 2].tolist() == [(LOW // 256).tolist(), [[234] * 3] * 2]
    assert pixels_of(gray)[1] == pixels_of(colours)[1] == ()


@pytest.mark.input(
    "oddity", what="12-bit test split, 11-bit train split", happens="one white level for both"
)
def test_both_splits_have_one_white_level(tmp_path: Path) -> None:
    set_of(tmp_path / "set" / "train", png, LOW)
    set_of(tmp_path / "set" / "test", png, TOP)
    found = load_dataset(str(tmp_path / "set"))
    assert found.test is not None
    assert found.train.pixels[0, ..., 0].tolist() == LOW_12
    assert found.test.pixels[0, ..., 0].tolist() == TOP_12


def test_images_of_8_bits_beside_them_keep_their_pixels(tmp_path: Path) -> None:
    eight = np.array([[0, 1, 100], [200, 254, 255]], np.uint8)
    pixels, remarks = pixels_of(set_of(tmp_path / "set", png, eight, LOW, TOP))
    assert pixels[..., 0].tolist() == [eight.tolist(), LOW_12, TOP_12]
    assert remarks == (TWELVE,)


@pytest.mark.input(
    "format", what="PGM or PPM that states its maximum", happens="the maximum is white"
)
def test_a_maximum_that_the_file_states_is_white_without_a_remark(tmp_path: Path) -> None:
    folder = set_of(tmp_path / "set", lambda path, v: ppm(path, v, most=4095), TOP, rgb(TOP))
    pixels, remarks = pixels_of(folder)
    assert pixels[..., 2].tolist() == [TOP_12, TOP_12]
    assert remarks == ()


@pytest.mark.input(
    "command", what="--white-level 2000", happens="2,000 and all values above are white"
)
def test_a_white_level_that_is_given_counts_for_all(tmp_path: Path) -> None:
    folder = set_of(tmp_path / "set", png, LOW, TOP)
    pixels, remarks = pixels_of(folder, reading=Reading(white_level=2000))
    # x 255 / 2000 = x / 7.84
    assert pixels[..., 0].tolist() == [[[0, 0, 13], [128, 255, 255]], [[255, 255, 1], [1, 1, 1]]]
    assert remarks == ()
    assert pixels_of(folder)[0][..., 0].tolist() == [LOW_12, TOP_12]  # another entry of the cache


@pytest.mark.parametrize(("deep", "said"), [(False, True), (True, False)])
@pytest.mark.input(
    "command",
    what="--white-level for only 8-bit images",
    happens="changes nothing; reported",
)
def test_a_white_level_that_no_image_needs_is_said(deep: bool, said: bool, tmp_path: Path) -> None:
    folder = set_of(tmp_path / "set", png, np.uint8([[0, 100, 200]]))
    if deep:
        png(folder / "z.png", np.uint16([[0, 1000, 9999]]))
    pixels, remarks = pixels_of(folder, reading=Reading(white_level=2000))
    assert pixels[..., 0].tolist() == [[[0, 100, 200]], [[0, 128, 255]]][: 1 + deep]
    expected = "--white-level changes nothing: all images have 8 bits or state their white"
    assert remarks == ((expected,) if said else ())


SIGNED = np.array([[-1000, 0, 1000], [3000, 2999, -999]])
# (x + 1000) x 255 / 4000 = (x + 1000) / 15.69
SIGNED_8 = [[0, 64, 128], [255, 255, 0]]


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        reads(
            "signed 16-bit TIFF (CT)",
            "scaled: the set's smallest value is black, its largest white",
            kind="<i2",
            how={},
        ),
        reads(
            "signed 16-bit TIFF, big-endian and compressed",
            "scaled: the set's smallest value is black, its largest white",
            kind="<i2",
            how={"byteorder": ">", "compression": "zlib"},
        ),
        reads(
            "signed 32-bit TIFF",
            "scaled: the set's smallest value is black, its largest white",
            kind="<i4",
            how={},
        ),
        reads(
            "32-bit float TIFF",
            "scaled: the set's smallest value is black, its largest white",
            kind="<f4",
            how={},
        ),
        reads(
            "64-bit float TIFF",
            "scaled: the set's smallest value is black, its largest white",
            kind="<f8",
            how={},
        ),
        reads(
            "32-bit float TIFF with a predictor",
            "scaled: the set's smallest value is black, its largest white",
            kind="<f4",
            how={"byteorder": ">", "compression": "zlib", "predictor": True},
        ),
    ],
)
def test_values_below_zero_are_scaled_from_the_smallest_to_the_largest(
    kind: str, how: dict[str, Any], tmp_path: Path
) -> None:
    folder = set_of(
        tmp_path / "set",
        lambda path, v: tiff(path, v, **how),
        SIGNED.astype(kind),
        (SIGNED // 2).astype(kind),
    )
    pixels, remarks = pixels_of(folder)
    assert pixels[0, ..., 0].tolist() == SIGNED_8
    assert pixels[1, 0, 0, 0] == 32  # -500: the range is that of both
    assert "-1,000 is black and 3,000 is white" in remarks[0]


def test_signed_bytes_are_no_unsigned_ones(tmp_path: Path) -> None:
    values = np.array([[-128, 0, 127]], np.int8)
    pixels, _ = pixels_of(set_of(tmp_path / "set", tiff, values))
    assert pixels[0, 0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("kind", "white"),
    [
        reads(
            "signed 16-bit TIFF without negative values",
            "treated like unsigned 16-bit values",
            kind="i2",
            white=4095,
        ),
        reads("32-bit TIFF of 12-bit values", "treated like 16-bit values", kind="u4", white=4095),
    ],
)
def test_other_integers_in_the_range_of_16_bits_follow_their_rule(
    kind: str, white: int, tmp_path: Path
) -> None:
    pixels, remarks = pixels_of(set_of(tmp_path / "set", tiff, TOP.astype(kind)))
    assert pixels[0, ..., 0].tolist() == TOP_12
    assert f"{white:,} is white" in remarks[0]
    assert "32-bit" not in remarks[0]


def test_unsigned_32_bits_do_not_wrap(tmp_path: Path) -> None:
    values = np.array([[0, 2**31, 2**32 - 1]], np.uint32)
    pixels, _ = pixels_of(set_of(tmp_path / "set", tiff, values))
    assert pixels[0, 0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.input("format", what="float TIFF of 0 to 1", happens="0 is black, 1 is white")
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_floats_within_0_and_1_are_shares_of_white(kind: str, tmp_path: Path) -> None:
    values = np.array([[0, 0.25, 0.5]], kind)
    pixels, remarks = pixels_of(set_of(tmp_path / "set", tiff, values))
    assert pixels[0, 0, :, 0].tolist() == [0, 64, 128]  # 63.75 and 127.5, to the even
    assert "0 is black and 1 is white" in remarks[0]


@pytest.mark.input(
    "oddity",
    what="NaN, infinity or GDAL's no-data value",
    happens="black; does not count for the range",
)
def test_what_is_no_value_is_black_and_counts_for_nothing(tmp_path: Path) -> None:
    values = np.array([[2, 4, np.nan], [np.inf, -9999, 3]], np.float32)
    nodata = [(42113, "s", 0, "-9999", True)]
    folder = set_of(tmp_path / "set", lambda path, v: tiff(path, v, extratags=nodata), values)
    pixels, remarks = pixels_of(folder)
    assert pixels[0, ..., 0].tolist() == [[0, 255, 0], [0, 0, 128]]
    assert "2 is black and 4 is white" in remarks[0]


@pytest.mark.input("oddity", what="16-bit TIFF in which 0 is white", happens="inverted")
@pytest.mark.parametrize("order", ["<", ">"])
def test_white_that_is_zero_is_white(order: str, tmp_path: Path) -> None:
    def write(path: Path, values: np.ndarray[Any, Any]) -> None:
        tiff(path, values, photometric="miniswhite", byteorder=order)

    pixels, _ = pixels_of(set_of(tmp_path / "set", write, TOP))
    assert pixels[0, ..., 0].tolist() == [[255 - v for v in row] for row in TOP_12]


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    """20 images of 12 bits in two classes, at most 40 of 4,095 except for the last."""
    rng = np.random.default_rng(0)
    for name in "ab":
        images = [rng.integers(0, 40, (8, 8)).astype(U16) for _ in range(10)]
        set_of(tmp_path / "twelve" / name, png, *images)
    png(tmp_path / "twelve" / "b" / "9", np.full((8, 8), 4095, U16))
    return tmp_path / "twelve"


def test_the_cache_memory_a_store_and_the_check_agree(
    twelve: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = load_dataset(str(twelve)), load_dataset(str(twelve))
    pack(str(twelve), tmp_path / "store", side=8)
    packed = load_dataset(str(tmp_path / "store"))
    checked = check_images(str(twelve), side=8, tiny_below=4)
    monkeypatch.setenv("STOPGRAD_CACHE", "/proc/none")
    uncached = load_dataset(str(twelve))
    for found in (again, packed, checked.dataset, uncached):
        assert found is not None
        assert found.train.fingerprint == first.train.fingerprint
        assert found.notes.remarks == (TWELVE,)
        assert TWELVE in what_to_know(found)
    assert first.train.pixels.max() == 255
    # At 65,535 all but one would be black, hence constant, and copies of each other.
    assert [place.name for place in checked.odd["constant"]] == ["b/9.png"]
    assert not checked.copies
    assert len(checked.odd["sixteen_bit"]) == 20


def test_values_are_decoded_twice_at_most_and_then_cached(
    twelve: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    for name in ("decode_first", "range_in"):
        monkeypatch.setattr(gather, name, _counted(getattr(decode_module, name), seen))
    load_dataset(str(twelve))
    assert seen.count("range_in") == 20
    assert (
        20 <= seen.count("decode_first") <= 40
    )  # those that were met before the levels were known
    seen.clear()
    load_dataset(str(twelve))
    assert seen == []


def _counted(function: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def count(*given: Any, **named: Any) -> Any:
        seen.append(function.__name__)
        return function(*given, **named)

    return count


def test_the_search_for_white_ends_at_the_first_bright_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [np.full((2, 2), 40_000, U16)] * 3000
    folder = set_of(tmp_path / "set", png, *images)
    seen: list[str] = []
    monkeypatch.setattr(gather, "range_in", _counted(decode_module.range_in, seen))
    load_dataset(str(folder))
    assert len(seen) < 1000


def test_an_interrupted_store_goes_on_with_the_same_levels(
    twelve: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stopgrad.images import writing

    monkeypatch.setattr(writing, "SHARD_BYTES", 3 * 8 * 8 * 3)
    whole, seen = tmp_path / "whole", list[int]()
    pack(str(twelve), whole, side=8)
    real = writing.write_atomically

    def stop(path: Path, data: bytes) -> None:
        real(path, data)
        seen.append(len(data))
        if len(seen) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_atomically", stop)
        with pytest.raises(KeyboardInterrupt):
            pack(str(twelve), tmp_path / "store", side=8)
    ranges: list[str] = []
    monkeypatch.setattr(gather, "range_in", _counted(decode_module.range_in, ranges))
    pack(str(twelve), tmp_path / "store", side=8)
    assert ranges == []
    for file in whole.glob("*.pixels"):
        assert (tmp_path / "store" / file.name).read_bytes() == file.read_bytes()


def test_a_single_file_is_seen_as_an_image_of_the_set(twelve: Path, tmp_path: Path) -> None:
    found = load_dataset(str(twelve))
    png(tmp_path / "asked", np.full((8, 8), 2048, U16))
    asked = load_image_files([tmp_path / "asked.png"], like=found.train, notes=found.notes)
    assert set(asked.pixels.flat) == {128}  # alone it would have 2,048 of 4,095 too ...
    png(tmp_path / "asked", np.full((8, 8), 100, U16))
    asked = load_image_files([tmp_path / "asked.png"], like=found.train, notes=found.notes)
    assert set(asked.pixels.flat) == {6}  # ... but here 100 of 255


def test_the_key_of_a_store_without_a_white_level_is_as_it_was() -> None:
    from stopgrad.images.types import DataSource, FileStamp

    source = DataSource("n", "/r", (FileStamp("a.png", 1, 2),), lambda: None)  # type: ignore[arg-type, return-value]
    key = store_key(source, side=32)
    # sha256 of [1, 2, "n", "/r", [["a.png", 1, 2]], 32] as JSON, worked out before there was one
    assert key == "d7e912ccfdd77f41901a0f0a9166ce5e459fcf20485a6b84e9751bf449047e03"
    assert store_key(source._replace(reading=Reading(white_level=1)), side=32) != key
    assert store_key(source._replace(reading=Reading(bands=(1,))), side=32) != key


def test_the_commands_say_and_keep_the_white_level(
    twelve: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(twelve), "--out", str(tmp_path / "run"), "--preset", "tiny"]
    small = ["--epochs", "1", "--batch", "8", "--views.size", "8", "--knn_every", "0"]
    assert main(["pretrain", *words, *small]) == 0
    assert TWELVE in capsys.readouterr().err.replace("\n", " ")
    assert main(["pretrain", *words, *small, "--white-level", "100"]) != 0  # other images
    capsys.readouterr()
    with pytest.raises(DataError, match="is a run, not a data set"):
        load_dataset(str(tmp_path / "run"))


def test_images_of_pillow_are_scaled_alike(tmp_path: Path) -> None:
    from stopgrad.export.arrays import read_images

    images = [Image.fromarray(LOW), Image.fromarray(TOP)]
    found = read_images(images, side=2).pixels
    assert found.max() == 255  # of the second; the first is as dark beside it as in a folder
    assert found[0].max() <= 129


@pytest.mark.input(
    "oddity", what="12-bit CMYK in 16-bit TIFF", happens="scaled, then converted to RGB"
)
def test_cmyk_of_16_bits_is_scaled_before_it_is_converted(tmp_path: Path) -> None:
    red = np.zeros((2, 3, 4), U16)
    red[..., 1:3] = 4095  # magenta and yellow
    folder = set_of(tmp_path / "set", lambda path, v: tiff(path, v, photometric="separated"), red)
    assert pixels_of(folder)[0][0, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.input(
    "oddity", what="16-bit PNG with a transparent colour", happens="that colour becomes white"
)
def test_a_clear_colour_of_16_bits_is_compared_with_all_of_them(tmp_path: Path) -> None:
    def write(path: Path, values: np.ndarray[Any, Any]) -> None:
        png(path, values)
        whole = path.with_suffix(".png").read_bytes()
        place = whole.index(b"IDAT") - 4
        kind = b"tRNS" + np.array([100, 7, 9], ">u2").tobytes()
        chunk = (6).to_bytes(4) + kind + zlib.crc32(kind).to_bytes(4)
        path.with_suffix(".png").write_bytes(whole[:place] + chunk + whole[place:])

    values = np.array([[[100, 7, 9], [100, 7, 10], [4095, 0, 0]]], U16)
    pixels, _ = pixels_of(set_of(tmp_path / "set", write, values))
    assert pixels[0, 0].tolist() == [[255, 255, 255], [6, 0, 1], [255, 0, 0]]


@pytest.mark.input(
    "format", what="TIFF of 12-bit values, packed", happens="scaled by the set's white level"
)
def test_twelve_packed_bits_are_read(tmp_path: Path) -> None:
    folder = set_of(
        tmp_path / "set",
        lambda path, v: tiff(path, v, bitspersample=12),
        np.hstack([LOW, LOW[:, ::-1]]),
        np.hstack([TOP, TOP]),
    )
    assert pixels_of(folder)[0][:, :, :3, 0].tolist() == [LOW_12, TOP_12]
