"""TIFF of many bands and of layouts that Pillow does not open: by the extra `tiff`."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import stopgrad
from stopgrad.cli import main
from stopgrad.config import ALL_BANDS, Reading, bands_as_text, preset
from stopgrad.errors import ConfigError
from stopgrad.images import (
    Damaged,
    DamagedImagesError,
    Encoded,
    Frame,
    check_images,
    decode,
    load_dataset,
    pack,
    packages,
    strict_pillow,
)
from tests.factories import pack_until_killed
from tests.inputs import row

BANDS = np.arange(6 * 4 * 13, dtype=np.uint16).reshape(4, 6, 13)  # its largest value is 311


def written(path: Path, values: np.ndarray[Any, Any], **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    how = {"photometric": "minisblack", "planarconfig": "contig", **how}
    tifffile.imwrite(path, values, **how)
    return path


def read(path: Path, bands: tuple[int, ...] = ()) -> Any:
    with strict_pillow():
        return decode(Encoded("x", path), Frame(4, 6, fit=False, bands=bands))


def eight(values: np.ndarray[Any, Any], white: int) -> list[Any]:
    return np.rint(values * 255.0 / white).astype(int).tolist()


LAYOUTS = {
    "pixel by pixel": {},
    "plane by plane": {"planarconfig": "separate"},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "deflated with a predictor": {"compression": "zlib", "predictor": True},
    "LZW": {"compression": "lzw"},
    "LZW, plane by plane": {"compression": "lzw", "planarconfig": "separate"},
    "packed bits": {"compression": "packbits"},
    "Zstandard": {"compression": "zstd"},
    "tiled": {"tile": (16, 16)},
    "one row per strip": {"rowsperstrip": 1},
}


@pytest.mark.parametrize(
    "how",
    [
        row(f"TIFF of 13 bands, {name}", "--bands 4,3,2 chooses three of them", how)
        for name, how in LAYOUTS.items()
    ],
)
def test_bands_become_red_green_and_blue_in_the_order_given(
    how: dict[str, Any], tmp_path: Path
) -> None:
    values = np.moveaxis(BANDS, 2, 0).copy() if "planarconfig" in how else BANDS
    path = written(tmp_path / "x.tif", values, **how)
    # The largest value of bands 2 to 4 is 3 + 13 x 23 = 302: white is 511.
    assert read(path, (4, 3, 2)).tolist() == eight(BANDS[..., [3, 2, 1]], 511)
    assert read(path, (13,)).tolist() == eight(np.stack([BANDS[..., 12]] * 3, -1), 511)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (BANDS, "13 bands of unsigned 16-bit integers"),
        (BANDS[..., :5].astype(np.uint8), "5 bands of unsigned 8-bit integers"),
        (BANDS[..., :4].astype(np.int16), "4 bands of signed 16-bit integers"),
        (BANDS[..., :8].astype(np.float32), "8 bands of 32-bit floats"),
    ],
)
def test_without_bands_one_line_names_their_number_type_and_flag(
    values: np.ndarray[Any, Any], kind: str, tmp_path: Path
) -> None:
    for number in range(12):
        written(tmp_path / "set" / f"{number}.tif", values)
    with pytest.raises(DamagedImagesError) as caught:
        load_dataset(str(tmp_path / "set"))
    assert str(caught.value) == (
        "no image of the train split can be read: all 12: "
        f"{kind}: choose three or one of them, such as --bands 4,3,2, "
        f"or --bands all --encoder.channels {values.shape[2]}"
    )
    bands = Reading(bands=(4, 2, 3))
    assert len(load_dataset(str(tmp_path / "set"), reading=bands).train) == 12


@pytest.mark.parametrize(
    ("values", "how", "expected"),
    [
        (BANDS[..., :3], {}, BANDS[..., :3]),
        (BANDS[..., :2], {}, BANDS[..., [0, 0, 0]]),
        (BANDS[..., :4], {"photometric": "rgb", "extrasamples": ["unspecified"]}, BANDS[..., :3]),
    ],
    ids=["3 bands that are not called colours", "2 bands", "RGB and one more"],
)
def test_few_bands_need_no_choice(
    values: np.ndarray[Any, Any], how: Any, expected: Any, tmp_path: Path
) -> None:
    assert read(written(tmp_path / "x.tif", values, **how)).tolist() == eight(expected, 511)


@pytest.mark.input(
    "command", what="--bands 4,1,2 for 8-bit TIFF of 4 bands", happens="the bands are used as given"
)
def test_the_fourth_of_four_8_bit_bands_can_be_red(tmp_path: Path) -> None:
    values = np.arange(4 * 6 * 4, dtype=np.uint8).reshape(4, 6, 4)
    for extra in ("unspecified", "unassalpha"):
        path = written(tmp_path / "x.tif", values, photometric="rgb", extrasamples=[extra])
        assert read(path, (4, 1, 2)).tolist() == values[..., [3, 0, 1]].tolist()


def test_bands_of_other_formats_are_chosen_too(tmp_path: Path) -> None:
    from PIL import Image

    colours = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(colours).save(tmp_path / "x.png")
    assert read(tmp_path / "x.png", (3, 2, 1)).tolist() == colours[..., ::-1].tolist()
    assert read(tmp_path / "x.png", (2,)).tolist() == colours[..., [1, 1, 1]].tolist()
    Image.fromarray(colours[..., 0]).save(tmp_path / "gray.png")
    found = read(tmp_path / "gray.png", (3, 2, 1))
    assert found == Damaged("x", "1 band, but --bands asks for 3")


def test_bands_that_an_image_lacks_are_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x.tif", BANDS)
    assert read(path, (14, 1, 1)) == Damaged("x", "13 bands, but --bands asks for 14")


@pytest.mark.parametrize("text", ["4,", "0,1,2", "a", "", "1,,3", "-1", "1;2;3", "½", "0", "All"])
def test_bands_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"bands = .*bands counted from 1, or all"):
        preset("tiny", bands=text)


def test_bands_are_read_from_text() -> None:
    assert preset("tiny").reading == Reading()
    assert preset("tiny", bands="4,3, 2", white_level="3000").reading == Reading(
        "", "", "", 3000, (4, 3, 2)
    )
    assert preset("tiny", bands="7").reading.bands == (7,)
    assert preset("tiny", bands="1, 2,3,4").reading.bands == (1, 2, 3, 4)
    assert preset("tiny", bands="all").reading.bands == ALL_BANDS
    for bands in ((), ALL_BANDS, (4, 3, 2), (7,)):
        assert preset("tiny", bands=bands_as_text(bands)).reading.bands == bands


@pytest.mark.parametrize(
    ("values", "how", "reason"),
    [
        (np.zeros((4, 6), np.complex64), {}, "TIFF of 1 band of 64-bit complex numbers"),
        (np.zeros((4, 6), np.complex128), {}, "TIFF of 1 band of 128-bit complex numbers"),
        (BANDS[..., :5].astype(np.uint8), {"compression": "jpeg2000"}, "compressed as "),
        (np.zeros((8, 16, 16), np.uint16), {"volumetric": True, "tile": (8, 16, 16)}, "8 layers"),
    ],
)
def test_what_is_not_read_is_named_by_its_real_type(
    values: np.ndarray[Any, Any], how: Any, reason: str, tmp_path: Path
) -> None:
    if how.get("volumetric"):
        how["planarconfig"] = None
    found = read(written(tmp_path / "x.tif", values, **how), (1,))
    assert isinstance(found, Damaged)
    assert reason in found.reason


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"compression": "lzw"}])
def test_a_cut_tiff_is_damaged(kept: float, how: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (4, 6, 13)).astype(np.uint16)
    data = written(tmp_path / "x.tif", noise, **how).read_bytes()
    (tmp_path / "x.tif").write_bytes(data[: int(len(data) * kept)])
    assert isinstance(read(tmp_path / "x.tif", (4, 3, 2)), Damaged)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_tiff_that_lacks_strips_is_damaged(name: str, tmp_path: Path) -> None:
    values = np.moveaxis(BANDS, 2, 0).copy() if "planarconfig" in LAYOUTS[name] else BANDS
    path = written(tmp_path / "x.tif", values, **LAYOUTS[name])
    with tifffile.TiffFile(path) as tiff:
        length = tiff.pages.first.tags[257]
        order = tiff.byteorder
    with path.open("r+b") as file:  # 400 rows where 4 are there
        file.seek(length.valueoffset)
        file.write(struct.pack(f"{order}H", 400))
    with strict_pillow():
        found = decode(Encoded("x", path), Frame(400, 6, fit=False, bands=(1, 2, 3)))
    assert isinstance(found, Damaged)


def test_a_plain_tiff_that_lacks_strips_is_damaged(tmp_path: Path) -> None:
    path = written(tmp_path / "x.tif", BANDS[..., 0], rowsperstrip=1)
    with tifffile.TiffFile(path) as tiff:
        length = tiff.pages.first.tags[257]
    with path.open("r+b") as file:
        file.seek(length.valueoffset)
        file.write(struct.pack("<H", 8))
    with strict_pillow():
        found = decode(Encoded("x", path), Frame(8, 6, fit=False))
    assert found == Damaged("x", "strips of the image are missing")


def bomb(width: int, height: int, bands: int, payload: bytes = b"x") -> bytes:
    """A TIFF that claims to be large, deflated (TIFF 6.0, Section 2)."""
    values = {256: width, 257: height, 258: 16, 259: 8, 262: 1, 277: bands, 278: height, 284: 1}
    start = 8 + 2 + 12 * (len(values) + 2) + 4
    tags = sorted({**values, 273: start, 279: len(payload)}.items())
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + payload


@pytest.mark.parametrize(
    ("width", "height", "bands", "reason"),
    [
        (30_000, 30_000, 13, "too large: 30,000 x 30,000 = 900.0 megapixels, at most 250"),
        (  # 26 bytes in the file and 30 while they are scaled, of 15 that a pixel may take
            *(9_000, 9_000, 13),
            "too large: 9,000 x 9,000 = 81,000,000 pixels, at most 62,500,000 of 26 bytes each",
        ),
        (
            *(500, 500, 60_000),
            "too large: 500 x 500 = 250,000 pixels, at most 31,242 of 120,000 bytes each",
        ),
    ],
)
def test_a_bomb_is_refused_by_its_header(
    width: int, height: int, bands: int, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "x.tif").write_bytes(bomb(width, height, bands))
    assert read(tmp_path / "x.tif", (1,)) == Damaged("x", reason)


def test_a_strip_that_expands_beyond_its_size_is_refused(tmp_path: Path) -> None:
    import zlib

    for times, damaged in ((1, False), (1000, True)):
        payload = zlib.compress(bytes(4 * 6 * 13 * 2 * times))
        (tmp_path / "x.tif").write_bytes(bomb(6, 4, 13, payload))
        assert isinstance(read(tmp_path / "x.tif", (1,)), Damaged) == damaged


@pytest.mark.input(
    "format",
    what="TIFF of many bands without the extra tiff",
    happens="listed, with the pip command that installs it",
)
def test_without_the_extra_the_type_and_the_pip_line_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        written(tmp_path / "set" / f"{number}.tif", BANDS)
    twelve = np.full((4, 6), 4095, np.uint16)
    for number in range(97):
        written(tmp_path / "set" / f"gray{number}.tif", twelve)
    real, bands = packages.is_installed, Reading(bands=(1,))
    monkeypatch.setattr(packages, "is_installed", lambda module: False)
    found = load_dataset(str(tmp_path / "set"), bad_images="skip")
    assert len(found.train) == 97  # Pillow reads these by itself
    assert {image.reason for image in found.damaged} == {
        "TIFF of 13 bands of unsigned 16-bit integers: pip install 'stopgrad[tiff]'"
    }
    monkeypatch.setattr(packages, "is_installed", real)  # what the cache holds is now too little
    found = load_dataset(str(tmp_path / "set"), bad_images="skip")
    assert "choose three or one" in found.damaged[0].reason
    assert len(load_dataset(str(tmp_path / "set"), reading=bands).train) == 100


def test_libtiff_writes_no_line_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    data = written(tmp_path / "x.tif", noise, compression="lzw").read_bytes()
    (tmp_path / "x.tif").write_bytes(data[: len(data) // 2])
    with strict_pillow():
        found = decode(Encoded("x", tmp_path / "x.tif"), Frame(64, 64, fit=False))
    assert isinstance(found, Damaged)
    assert capfd.readouterr().err == ""


def test_no_line_of_pillow_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(40):
        written(tmp_path / "set" / f"{number}.tif", BANDS)
    words = ["--data", str(tmp_path / "set"), "--out", str(tmp_path / "run"), "--preset", "tiny"]
    assert main(["pretrain", *words, "--epochs", "1"]) == 3
    assert "samples per pixel" not in capsys.readouterr().err
    assert not [record for record in caplog.records if record.name.startswith(("PIL", "tiff"))]
    assert main(["pretrain", *words, "--epochs", "1", "--bands", "4,3,2"]) == 0
    assert "9 bits: 511 is white" in capsys.readouterr().err
    assert main(["pretrain", *words, "--epochs", "1"]) != 0  # it has other images


def test_the_check_sees_the_bands_that_training_sees(tmp_path: Path) -> None:
    for number in range(4):
        values = BANDS.copy()
        values[..., 0] += number  # only the first band differs
        written(tmp_path / "set" / f"{number}.tif", values)

    def copies(*bands: int) -> int:
        how = {"side": 8, "tiny_below": 2}
        found = check_images(str(tmp_path / "set"), reading=Reading(bands=bands), **how)
        return len(found.copies)

    assert copies(2) == copies(4, 3, 2) == 3
    assert copies(1) == 0


def called_nothing(path: Path) -> None:
    """Takes the tag away that says what the bands beside the colours are."""
    data = path.read_bytes()
    assert data.count(struct.pack("<HH", 338, 3)) == 1
    path.write_bytes(data.replace(struct.pack("<HH", 338, 3), struct.pack("<HH", 65000, 3)))


RGB_AND_ONE = {"photometric": "rgb", "extrasamples": ["unspecified"]}
RGB_AND_TWO = {"photometric": "rgb", "extrasamples": ["unspecified"] * 2}
UNSAID = {"photometric": "rgb"}
FEW, FLOATS = BANDS[..., :5].astype(np.uint8), (BANDS / 311).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "how", "read", "spare", "white"),
    [
        row(f"TIFF of {what}",
            f"read without the extra {'bands, which are' if len(spare) > 1 else 'band, which is'} "
            "listed", values, how, read, spare, white)
        for what, values, how, read, spare, white in [
            ("RGB and infrared", FEW[..., :4], RGB_AND_ONE, "123", "4", 255),
            ("RGB and infrared, 16 bits", BANDS[..., :4], RGB_AND_ONE, "123", "4", 511),
            ("RGB and infrared, floats", FLOATS[..., :4], RGB_AND_ONE, "123", "4", 1),
            ("RGB and a band of unstated meaning", FEW[..., :4], UNSAID, "123", "4", 255),
            ("RGB and a band of unstated meaning, 16 bits", BANDS[..., :4], UNSAID, "123", "4",
                511),
            ("RGB and two more bands", FEW, RGB_AND_TWO, "123", "45", 255),
            ("gray and one more band", FEW[..., :2], {}, "111", "2", 255),
            ("gray and one more band, 16 bits", BANDS[..., :2], {}, "111", "2", 511),
            ("gray and one more band, floats plane by plane", np.moveaxis(FLOATS[..., :2], 2, 0),
                {"planarconfig": "separate"}, "111", "2", 1),
        ]
    ],
)  # fmt: skip
def test_bands_beside_the_colours_are_named_and_change_no_pixel(
    values: Any, how: Any, read: str, spare: str, white: float, tmp_path: Path
) -> None:
    names = [f"{number}.tif" for number in range(3)]
    for name in names:
        written(tmp_path / "set" / name, values, **how)
        if how == UNSAID:
            called_nothing(tmp_path / "set" / name)
    stacked = values if "planarconfig" not in how else np.moveaxis(values, 0, 2)
    colours = stacked[..., [int(band) - 1 for band in read]]
    found = load_dataset(str(tmp_path / "set"))
    # The largest of three bands of 16 bits is 3 + 13 x 23 = 302, so white is 511.
    assert found.train.pixels[0].tolist() == eight(colours, white)
    (group,) = found.notes.unused
    assert (group.what, group.names) == ("band", tuple(f"{n}:{b}" for n in names for b in spare))
    assert "--bands chooses others" in group.reason
    again = load_dataset(str(tmp_path / "set"))  # from the cache
    assert again.notes == found.notes
    chosen = load_dataset(str(tmp_path / "set"), reading=Reading(bands=(2, 1, 1)))
    assert not chosen.notes.unused


@pytest.mark.input(
    "format", what="TIFF with alpha", happens="composited over white; no band is listed as unused"
)
def test_a_band_called_alpha_is_laid_over_white(tmp_path: Path) -> None:
    values = np.full((4, 6, 4), 100, np.uint8)
    values[..., 3] = 51  # a fifth: 100 / 5 + 255 * 4 / 5 = 224
    written(tmp_path / "set" / "x.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    found = load_dataset(str(tmp_path / "set"))
    assert found.notes.unused == ()
    assert np.unique(found.train.pixels).tolist() == [224]


def test_a_store_that_is_packed_again_after_a_kill_names_all_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        written(tmp_path / "set" / f"{number}.tif", FEW[..., :4], **RGB_AND_ONE)
    monkeypatch.setattr("stopgrad.images.writing.SHARD_IMAGES", 2)
    pack_until_killed(str(tmp_path / "set"), tmp_path / "store", side=8, shards=2)
    pack(str(tmp_path / "set"), tmp_path / "store", side=8)
    (group,) = load_dataset(str(tmp_path / "store")).notes.unused
    assert group.names == tuple(f"{number}.tif:4" for number in range(6))
    verdict = stopgrad.check(tmp_path / "store", preset="tiny", batch=2).verdict
    assert "bands that are not used (6)" in verdict
