"""Files of several pages or frames: the first is the image, each of the others is named."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from stopgrad.config import ALL_BANDS, Reading
from stopgrad.images import Dataset, load_dataset, pack, writing
from tests.factories import pack_until_killed
from tests.images.inputs.factories import dicom
from tests.inputs import row

PAGES = np.random.default_rng(5).integers(0, 256, (3, 9, 7, 3), np.uint8)
REASON = "pages after the first of a file, the only one that is read: save each as a file"


def by_pillow(path: Path) -> None:
    first, *others = map(Image.fromarray, PAGES)
    first.save(path, save_all=True, append_images=others)


def by_tifffile(**how: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tifffile.TiffWriter(path, **how) as file:
            for page in PAGES:
                file.write(page, contiguous=False, photometric="rgb", metadata=None)

    return write


def deep(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        for page in PAGES:
            gray = page[..., 0].astype(np.uint16) * 257
            file.write(gray, contiguous=False, metadata=None)


def of_bands(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        for page in PAGES:
            values = np.concatenate([page, page], axis=2)
            how: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
            file.write(values, contiguous=False, metadata=None, **how)


def with_copies(path: Path) -> None:
    """As maps and slides have them: a smaller copy and a mask of each page."""
    with tifffile.TiffWriter(path) as file:
        for page in PAGES[:2]:
            file.write(page, photometric="rgb", metadata=None)
            file.write(page[::2, ::2], photometric="rgb", metadata=None, subfiletype=1)
            file.write(page[..., 0] > 99, metadata=None, subfiletype=4)


def by_imagej(path: Path) -> None:
    """As ImageJ writes more than 4 GB: one directory, the images behind each other."""
    tifffile.imwrite(path, PAGES, imagej=True, metadata={"axes": "ZYXS"}, truncate=True)


def unused(found: Dataset) -> dict[str, tuple[str, ...]]:
    return {group.reason: group.names for group in found.notes.unused if group.what == "image"}


NAMED = "the first is read; each of the others is listed"


@pytest.mark.parametrize(
    ("write", "bands", "named"),
    [
        row("TIFF of several pages", NAMED, by_pillow, (), (2, 3)),
        row("BigTIFF of several pages", NAMED, by_tifffile(bigtiff=True), (), (2, 3)),
        row("big-endian TIFF of several pages", NAMED, by_tifffile(byteorder=">"), (), (2, 3)),
        row("ImageJ TIFF with one directory for all pages", NAMED, by_imagej, (), (2, 3)),
        row("16-bit TIFF of several pages", NAMED, deep, (), (2, 3)),
        row("TIFF of several pages of 6 bands, --bands all", NAMED, of_bands, ALL_BANDS, (2, 3)),
        row(
            "TIFF with smaller copies and masks of its pages (maps, slides)",
            "the first page is read; other pages are listed, copies and masks are not",
            *(with_copies, (), (4,)),
        ),
    ],
)
def test_further_pages_of_a_tiff_are_named(
    write: Callable[[Path], None], bands: tuple[int, ...], named: tuple[int, ...], tmp_path: Path
) -> None:
    data = tmp_path / "set"
    data.mkdir()
    write(data / "stack.tif")
    if not bands:
        Image.fromarray(PAGES[1]).save(data / "plain.tif")
    expected = {REASON: tuple(f"stack.tif:{page}" for page in named)}
    first = load_dataset(str(data), reading=Reading(bands=bands))
    assert unused(first) == expected
    channels = first.train.channels
    assert (first.train.pixels[-1][..., 0] == PAGES[0][..., 0]).all()
    assert channels == (6 if bands else 3)
    assert unused(load_dataset(str(data), reading=Reading(bands=bands))) == expected  # cached


@pytest.mark.input("oddity", what="DICOM of several frames", happens=NAMED)
def test_further_frames_of_a_dicom_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cine.dcm").write_bytes(dicom(PAGES[..., 0]))
    found = load_dataset(str(tmp_path / "set"))
    assert unused(found) == {REASON: ("cine.dcm:2", "cine.dcm:3")}
    assert (found.train.pixels[0][..., 0] == PAGES[0][..., 0]).all()


def test_pages_of_a_tiff_in_an_archive_are_named(tmp_path: Path) -> None:
    by_pillow(tmp_path / "stack.tif")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.write(tmp_path / "stack.tif", "a/0.tif")
    assert unused(load_dataset(str(tmp_path / "set.zip"))) == {REASON: ("0.tif:2", "0.tif:3")}


def test_a_description_of_a_stack_makes_no_pages_of_one_image(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    text = "ImageJ=1.54f\nimages=3\nslices=3\n"
    tifffile.imwrite(tmp_path / "set" / "0.tif", PAGES[0], description=text, metadata=None)
    tifffile.imwrite(
        tmp_path / "set" / "1.tif", PAGES[0], description=text, metadata=None, rowsperstrip=1
    )
    assert not unused(load_dataset(str(tmp_path / "set")))


def test_a_broken_second_page_takes_nothing_from_the_first(tmp_path: Path) -> None:
    by_pillow(tmp_path / "0.tif")
    with tifffile.TiffFile(tmp_path / "0.tif") as tiff:
        second = tiff.pages[1].offset
    whole = (tmp_path / "0.tif").read_bytes()
    loop = whole[:second] + b"\0\0" + (8).to_bytes(4, "little") + whole[second + 6 :]
    cut = whole[:second] + b"\xff\xff" + whole[second + 2 :]
    for number, data in enumerate((loop, cut)):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "x.tif").write_bytes(data)
        found = load_dataset(str(tmp_path / f"{number}"))
        assert (found.train.pixels[0] == PAGES[0]).all()
        assert not found.damaged


def test_a_store_knows_the_pages_of_shards_from_before_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set").mkdir()
    for number in range(3):
        by_pillow(tmp_path / "set" / f"{number}.tif")
    monkeypatch.setattr(writing, "SHARD_IMAGES", 1)
    pack_until_killed(str(tmp_path / "set"), tmp_path / "store", side=9, shards=2)
    pack(str(tmp_path / "set"), tmp_path / "store", side=9)
    expected = tuple(f"{number}.tif:{page}" for number in range(3) for page in (2, 3))
    assert unused(load_dataset(str(tmp_path / "store"))) == {REASON: expected}
