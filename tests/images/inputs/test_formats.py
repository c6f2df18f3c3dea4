"""HEIC and AVIF, and DICOM: by the extras `heic` and `dicom`."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian

from stopgrad.images import (
    Damaged,
    Encoded,
    Frame,
    check_images,
    decode,
    load_dataset,
    packages,
    strict_pillow,
)
from stopgrad.images.sources.files import list_folder
from tests.images.factories import png
from tests.images.inputs.factories import dicom

SMOOTH = np.dstack(
    [np.add.outer(np.arange(48), np.arange(64)), np.full((48, 64), 90), np.full((48, 64), 200)]
).astype(np.uint8)


def read(data: bytes, height: int, width: int) -> Any:
    with strict_pillow():
        return decode(Encoded("x", data), Frame(height, width, fit=False))


def heic(pixels: np.ndarray[Any, Any], **how: Any) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(file, quality=-1, chroma=444, **how)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.input("format", what="HEIC", happens="read if the extra heic is installed")
def test_heic_is_read_to_its_last_pixel() -> None:
    found = read(heic(SMOOTH), 48, 64)
    assert abs(found.astype(int) - SMOOTH).max() <= 3


@pytest.mark.input("oddity", what="HEIC that is rotated", happens="turned upright, once")
@pytest.mark.parametrize(("orientation", "turns"), [(6, -1), (3, 2), (8, 1)])
def test_heic_is_turned_once(orientation: int, turns: int) -> None:
    upright = np.rot90(SMOOTH, turns)
    found = read(heic(SMOOTH, exif=turned(orientation)), *upright.shape[:2])
    assert abs(found.astype(int) - upright).max() <= 3


def test_avif_is_read_by_pillow() -> None:
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, "AVIF", quality=95, subsampling="4:4:4")
    assert abs(read(file.getvalue(), 48, 64).astype(int) - SMOOTH).mean() <= 3


def test_heic_with_alpha_is_laid_over_white() -> None:
    clear = np.dstack([SMOOTH, np.zeros((48, 64), np.uint8)])
    assert read(heic(clear), 48, 64).min() >= 253


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_cut_heic_is_damaged(kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = heic(noise)
    assert not isinstance(read(data, 64, 64), Damaged)
    assert isinstance(read(data[: int(len(data) * kept)], 64, 64), Damaged)


def test_no_reader_stays_registered_with_pillow() -> None:
    read(heic(SMOOTH), 48, 64)
    assert "HEIF" not in Image.OPEN


def gray(found: Any) -> list[Any]:
    assert not isinstance(found, Damaged), found
    assert (found == found[..., :1]).all()
    return found[..., 0].tolist()


VALUES = np.array([[0, 1000, 1040], [1080, 2000, 4095]], np.uint16)
WINDOW = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 81}


@pytest.mark.input(
    "format", what="DICOM with a window", happens="rescaled, then the window is applied"
)
def test_the_window_is_laid_over_rescaled_values() -> None:
    found = read(dicom(VALUES, BitsStored=12, **WINDOW), 2, 3)
    # PS3.3, C.11.2.1.2.1: ((x - 39.5) / 80 + 0.5) x 255 of x = -1024, -24, 16, 56, 976, 3071
    assert gray(found) == [[0, 0, 53], [180, 255, 255]]
    values = VALUES.astype(np.int16) - 1024
    signed = dicom(values, WindowCenter=40, WindowWidth=81)
    assert gray(read(signed, 2, 3)) == gray(found)


def test_the_first_of_several_windows_counts() -> None:
    two = {"WindowCenter": [40, 0], "WindowWidth": [81, 9]}
    data = dicom(VALUES, BitsStored=12, **(WINDOW | two))
    assert gray(read(data, 2, 3)) == [[0, 0, 53], [180, 255, 255]]


@pytest.mark.parametrize(
    ("function", "expected"),
    # x = 16: (16 - 40) / 81 + 0.5 = 0.2037; 1 / (1 + exp(4 x 24 / 81)) = 0.2341
    [("LINEAR_EXACT", 52), ("SIGMOID", 60)],
)
def test_other_functions_of_the_window(function: str, expected: int) -> None:
    data = dicom(VALUES, BitsStored=12, VOILUTFunction=function, **WINDOW)
    assert gray(read(data, 2, 3))[0][2] == expected


@pytest.mark.input("oddity", what="DICOM in MONOCHROME1 (X-ray)", happens="inverted")
def test_monochrome1_is_turned_round() -> None:
    plain = dicom(VALUES, BitsStored=12, **WINDOW)
    inverted = dicom(VALUES, BitsStored=12, PhotometricInterpretation="MONOCHROME1", **WINDOW)
    assert gray(read(inverted, 2, 3)) == (255 - np.array(gray(read(plain, 2, 3)))).tolist()
    bare = dicom(VALUES, BitsStored=12, PhotometricInterpretation="MONOCHROME1")
    assert gray(read(bare, 2, 3))[0][0] == 255


def put(folder: Path, *files: bytes) -> Path:
    folder.mkdir()
    for number, data in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(data)
    return folder


@pytest.mark.input(
    "format", what="DICOM without a window", happens="scaled by the range of the whole set"
)
def test_without_a_window_the_set_decides(tmp_path: Path) -> None:
    raw = load_dataset(str(put(tmp_path / "raw", dicom(VALUES), dicom(VALUES // 2))))
    assert raw.train.pixels[..., 2].tolist() == [
        [[0, 62, 65], [67, 125, 255]],  # x 255 / 4095
        [[0, 31, 32], [34, 62, 127]],
    ]
    assert raw.notes.remarks == ("the 16-bit images use 12 bits: 4,095 is white (--white-level)",)
    rescaled = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    files = (dicom(VALUES, **rescaled), dicom(VALUES // 2, **rescaled))
    hounsfield = load_dataset(str(put(tmp_path / "ct", *files)))
    assert "-1,024 is black and 3,071 is white" in hounsfield.notes.remarks[0]
    assert hounsfield.train.pixels[..., 0].tolist() == raw.train.pixels[..., 0].tolist()
    fraction = dicom(VALUES, RescaleSlope=0.5, RescaleIntercept=0)
    half = load_dataset(str(put(tmp_path / "half", fraction)))
    assert "0 is black and 2,047.5 is white" in half.notes.remarks[0]


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_eight_stored_bits_or_fewer_are_read_as_they_are_stated(bits: int) -> None:
    values = np.array([[0, 2**bits - 1]], np.uint8)
    assert gray(read(dicom(values, BitsStored=bits), 1, 2)) == [[0, 255]]


def test_an_eight_bit_window_makes_no_difference_where_it_is_the_full_range() -> None:
    values = np.array([[0, 7, 255]], np.uint8)
    data = dicom(values, WindowCenter=128, WindowWidth=256)
    assert gray(read(data, 1, 3)) == [[0, 7, 255]]


@pytest.mark.input("format", what="DICOM in colour", happens="read")
def test_colours_are_read_in_either_order_of_planes() -> None:
    assert read(dicom(SMOOTH), 48, 64).tolist() == SMOOTH.tolist()
    planes = np.moveaxis(SMOOTH, 2, 0).tobytes()
    assert read(dicom(SMOOTH, PlanarConfiguration=1, PixelData=planes), 48, 64).tolist() == (
        SMOOTH.tolist()
    )
    deep = dicom(SMOOTH.astype(np.uint16) * 16, BitsStored=12)  # 255 x 16 of 4,095
    assert abs(read(deep, 48, 64).astype(int) - SMOOTH).max() <= 1


def test_the_first_frame_counts() -> None:
    frames = np.stack([VALUES.T, VALUES.T[::-1], VALUES.T * 0])  # (3, 3, 2)
    data = dicom(frames, BitsStored=12, **WINDOW)
    assert gray(read(data, 3, 2)) == [[0, 180], [0, 255], [53, 255]]


@pytest.mark.input("format", what="DICOM that holds a JPEG", happens="read")
def test_a_jpeg_within_is_read() -> None:
    file = io.BytesIO()
    Image.fromarray(SMOOTH[..., 0]).save(file, "JPEG", quality=95)
    data = encapsulate([file.getvalue()])
    whole = dicom(SMOOTH[..., 0], syntax="1.2.840.10008.1.2.4.50", PixelData=data)
    assert abs(np.array(gray(read(whole, 48, 64))) - SMOOTH[..., 0]).max() <= 4


def test_a_compression_that_nothing_decodes_is_named() -> None:
    data = encapsulate([b"\0" * 100])
    lossless = dicom(SMOOTH[..., 0], syntax="1.2.840.10008.1.2.4.70", PixelData=data)
    found = read(lossless, 48, 64)
    assert isinstance(found, Damaged)
    assert found.reason == "DICOM compressed as JPEG Lossless: pip install python-gdcm"


@pytest.mark.input("oddity", what="DICOM without its preamble", happens="read")
@pytest.mark.input("oddity", what="DICOM that is also a TIFF", happens="read as DICOM")
@pytest.mark.parametrize("start", [b"II*\0", b"MM\0*", b"II+\0"])
def test_a_file_that_is_dicom_and_tiff_is_read_as_dicom(start: bytes, tmp_path: Path) -> None:
    plain = dicom(VALUES, BitsStored=12, **WINDOW)
    both = start + (144).to_bytes(4, "little") + plain[8:]
    assert read(both, 2, 3).tolist() == read(plain, 2, 3).tolist()
    folder = put(tmp_path / "set", both)
    (folder / "scan").write_bytes(both)
    assert len(load_dataset(str(folder)).train) == 2


def of_class(uid: str) -> bytes:
    """A DICOM object of this class that has no pixels."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = UID(f"1.2.840.10008.{uid}")
    header.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.PatientName = "Nobody"
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("extra", [True, False], ids=["with the extra", "without"])
@pytest.mark.input(
    "format",
    what="DICOM without pixels (reports, documents, plans, DICOMDIR)",
    happens="skipped and listed",
)
def test_dicom_files_without_pixels_are_no_damaged_images(
    extra: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "is_installed", lambda module: extra)
    folder = put(tmp_path / "set", dicom(VALUES))
    others = {
        "DICOMDIR": "1.3.10",
        "pdf.dcm": "5.1.4.1.1.104.1",
        "plan.DCM": "5.1.4.1.1.481.5",
        "registration.dcm": "5.1.4.1.1.66.1",
        "report": "5.1.4.1.1.88.11",
        "state.dicom": "5.1.4.1.1.11.1",
    }
    for name, uid in others.items():
        (folder / name).write_bytes(of_class(uid))
    pictures = {"segmentation.dcm": "5.1.4.1.1.66.4", "dose.dcm": "5.1.4.1.1.481.2"}
    for name, uid in pictures.items():
        (folder / name).write_bytes(of_class(uid))
    listing = list_folder(folder)
    (group,) = (group for group in listing.unused if group.what == "file")
    assert group == (
        "file",
        "DICOM files without pixels (reports, plans, ...)",
        tuple(sorted(others)),
    )
    assert len(listing.images) == (3 if extra else 0)
    assert sum(len(of.names) for of in listing.unused if of.what == "image") == 3 * (not extra)


def test_pydicom_is_silent_though_its_import_sets_its_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with strict_pillow():
        logging.getLogger("pydicom").setLevel(logging.WARNING)
        logging.getLogger("pydicom.pixels").error("a plug-in has failed")
    assert not caplog.records


def test_the_reason_why_no_plug_in_decodes_is_told() -> None:
    broken = dicom(SMOOTH[..., 0], syntax="1.2.840.10008.1.2.4.90", PixelData=encapsulate([b"no"]))
    found = read(broken, 48, 64)
    assert isinstance(found, Damaged)
    assert found.reason.startswith("Unable to decode as exceptions were raised by all available")
    assert not found.reason.endswith(":")


def test_a_file_without_a_preamble_is_read() -> None:
    data = dicom(VALUES, BitsStored=12, **WINDOW)[132:]
    assert gray(read(data, 2, 3)) == [[0, 0, 53], [180, 255, 255]]


def test_what_is_no_image_is_named() -> None:
    assert read(dicom(VALUES, Rows=0), 2, 3) == Damaged("x", "DICOM without an image")
    report = dicom(VALUES)
    assert isinstance(read(report[: len(report) - 5], 2, 3), Damaged)
    assert isinstance(read(report[:200], 2, 3), Damaged)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Rows": 40_000, "Columns": 40_000}, "too large: 40,000 x 40,000 = 1,600.0 megapixels"),
        ({"Rows": 15_000, "Columns": 15_000}, "too large: 15,000 x 15,000 = 225,000,000 pixels"),
    ],
)
def test_a_bomb_is_refused_by_its_header(tags: dict[str, Any], reason: str) -> None:
    found = read(dicom(VALUES, **tags), 2, 3)
    assert isinstance(found, Damaged)
    assert found.reason.startswith(reason)


def test_run_lengths_that_are_longer_than_the_pixels_are_refused() -> None:
    data = encapsulate([b"\0" * 3_000_000])
    found = read(dicom(VALUES, syntax="1.2.840.10008.1.2.5", PixelData=data), 2, 3)
    assert found == Damaged("x", "more bytes than its size in pixels explains")


def test_a_file_that_is_deflated_as_a_whole_is_refused() -> None:
    data = dicom(VALUES, syntax="1.2.840.10008.1.2.1.99")
    assert read(data, 2, 3) == Damaged("x", "DICOM, deflated as a whole")


def test_the_check_names_the_formats(tmp_path: Path) -> None:
    folder = put(tmp_path / "set", dicom(VALUES, **WINDOW), dicom(VALUES))
    (folder / "a.heic").write_bytes(heic(SMOOTH))
    found = check_images(str(folder), side=32, tiny_below=1)
    assert found.formats == {"DICOM": 2, "HEIF": 1}
    assert [place.name for place in found.odd["sixteen_bit"]] == ["1.dcm"]
    assert not found.damaged


@pytest.mark.input(
    "format",
    what="HEIC or DICOM without the extra",
    happens="listed, with the pip command that installs it",
)
@pytest.mark.parametrize(
    ("name", "extra", "data"),
    [("HEIC", "heic", heic(SMOOTH)), ("DICOM", "dicom", dicom(VALUES))],
)
def test_without_the_extra_the_pip_line_is_the_reason(
    name: str, extra: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "is_installed", lambda module: False)
    assert read(data, 2, 3) == Damaged("x", f"{name}: pip install 'stopgrad[{extra}]'")


@pytest.mark.input(
    "oddity",
    what="HEIC in an archive that was first read without the extra",
    happens="once the extra is installed, read again, with the HEIC",
)
def test_an_archive_is_read_again_once_an_extra_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("0.heic", heic(SMOOTH))
        for number in range(1, 3):
            archive.writestr(f"{number}.png", png(SMOOTH))
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as before:
        before.setattr(packages, "is_installed", lambda module: False)
        assert len(load_dataset(str(tmp_path / "set.zip"), side=32).train) == 2
    assert len(load_dataset(str(tmp_path / "set.zip"), side=32).train) == 3


@pytest.mark.input(
    "oddity",
    what="HEIC of several images (bursts)",
    happens="the first is read; each of the others is listed",
)
def test_further_images_of_a_heic_are_named(tmp_path: Path) -> None:
    from pillow_heif import HeifFile

    file = HeifFile()
    for gray in (10, 100, 200):
        file.add_from_pillow(Image.new("RGB", (32, 32), (gray,) * 3))
    (tmp_path / "set").mkdir()
    file.save(tmp_path / "set" / "burst.heic", quality=-1)
    found = load_dataset(str(tmp_path / "set"))
    assert np.unique(found.train.pixels).tolist() == [10]
    (group,) = found.notes.unused
    assert (group.what, group.names) == ("image", ("burst.heic:2", "burst.heic:3"))
