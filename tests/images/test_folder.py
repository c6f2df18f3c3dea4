"""Folders of pictures: which files count, which splits and labels they give, what is refused."""

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stopgrad.errors import DataError, UnreadableError
from stopgrad.images import (
    DamagedImage,
    DamagedImagesError,
    Encoded,
    Frame,
    decode,
    load_dataset,
)
from stopgrad.images.sources.files import list_folder
from stopgrad.images.sources.folder import folder_source
from stopgrad.images.sources.layout import are_classes
from tests.images.factories import DIGITS, become_nobody, each, nobodys_folder


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "pictures"


def put(root: Path, *names: str, size: tuple[int, int] = (8, 8)) -> None:
    """Real digits under these names; the n-th name holds the n-th digit of scikit-learn."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DIGITS[number]).resize(size).save(path)


def labels(dataset) -> list[int]:
    return dataset.train.labels.tolist()


def test_a_folder_of_images_needs_no_reader_of_other_data(root):
    put(root, "train/dog/1.png", "train/cat/1.jpg", "test/cat/1.png")
    (root / "notes.txt").write_text("text")
    assert sources_for(root) == {
        *("endings", "files", "find", "folder", "labels", "layout", "limits", "masks", "names"),
        *("pages", "several"),  # the store's, and which specs are several
    }
    (root / "extra.npz").write_bytes(b"")
    assert sources_for(root) > {"archives", "array_files", "contained", "parquet", "webdataset"}


def sources_for(root: Path) -> set[str]:
    """The files of the room's `sources` that finding this folder loads."""
    code = (
        "import sys; from stopgrad.images.sources.find import find_source; "
        f"find_source({str(root)!r}).open(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    room = "stopgrad.images.sources."
    return {name.removeprefix(room) for name in done.stdout.split() if name.startswith(room)}


def test_train_and_test_with_class_folders(root):
    put(root, *each("train/dog", "train/cat", "test/cat", "test/dog"))
    found = load_dataset(str(root))
    assert found.name == "pictures"
    assert found.train.class_names == found.test.class_names == ("cat", "dog")
    assert found.train.sources == ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    assert labels(found) == found.test.labels.tolist() == [0, 0, 1, 1]
    # put() gave digits 0 and 1 to the dogs and 2 and 3 to the cats
    assert (found.train.pixels[:, :, :, 1] == DIGITS[[2, 3, 0, 1]]).all()


def test_class_folders_without_splits(root):
    put(root, *each("b", "a", "c"))
    found = load_dataset(str(root))
    assert found.train.class_names == ("a", "b", "c")
    assert labels(found) == [0, 0, 1, 1, 2, 2]
    assert found.test is None


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "3.png"],
        each("train", count=4),
        each("train/2024/05", "train/2024/06", count=3),
        [*each("a", "b"), "loose.png"],
        [*each("a", "b"), "a/deep/3.png"],
        each("only", count=5),
        each("a", "b", "c", count=1),
    ],
    ids=["flat", "flat train", "deep", "loose", "mixed depth", "one folder", "one each"],
)
def test_pictures_that_are_in_no_class_folders_have_no_labels(root, names):
    put(root, *names)
    found = load_dataset(str(root))
    assert len(found.train) == len(names)
    assert found.train.labels is None
    assert found.train.class_names == ()


def test_many_small_folders_are_no_classes():
    paths = [(f"{folder:06}", f"{n}.png") for folder in range(101) for n in range(5)]
    assert are_classes(paths)
    assert not are_classes(paths[:-1])
    assert are_classes(paths[:200])  # 40 folders of 5
    assert not are_classes([(f"{folder:06}", "0.png") for folder in range(150_000)])


def test_validation_is_the_test_split_where_there_is_no_test(root):
    put(root, *each("train/a", "train/b", "val/a", "val/b"))
    assert len(load_dataset(str(root)).test) == 4
    put(root, "test/a/x.png")
    assert load_dataset(str(root)).test.sources == ("a/x.png",)


def test_split_names_in_capitals_are_splits(root):
    put(root, *each("Train/a", "Train/b", "TEST/a"))
    found = load_dataset(str(root))
    assert (len(found.train), len(found.test)) == (4, 2)


def test_class_called_train_is_a_class(root):
    put(root, *each("train", "bus", "car"))
    assert load_dataset(str(root)).train.class_names == ("bus", "car", "train")


def test_unlabelled_train_makes_the_test_split_unlabelled_too(root):
    put(root, *each("train"), *each("test/a", "test/b"))
    found = load_dataset(str(root))
    assert found.test.labels is None
    assert len(found.test) == 4


def test_hidden_and_foreign_files_are_passed_over(root):
    put(root, *each("a", "b"), ".hidden.png", ".git/x.png", "__MACOSX/a/x.png")
    for name in ("a/notes.txt", "b/Thumbs.db", "labels.csv", "a/.DS_Store"):
        (root / name).write_text("no picture")
    (root / "empty").mkdir()
    assert load_dataset(str(root)).train.sources == ("a/0.png", "a/1.png", "b/0.png", "b/1.png")


def test_all_suffixes_in_any_case_are_read(root):
    put(root, "a.PNG", "b.jpg", "c.JPEG", "d.bmp", "e.webp", "f.tif", "g.gif", "h.ppm")
    assert len(load_dataset(str(root)).train) == 8


def test_odd_names_are_read_and_kept_apart(root):
    odd = [
        "a\nb/1.png",
        "ü 文/2.png",
        "'\"<b>/3.png",
        "-rf *;/4.png",
        "%s%d/5.png",
        "x\u202e/6.png",
    ]
    put(root, *odd, *[name.replace(".png", "b.png") for name in odd])
    raw = os.fsencode(root) + b"/\xff\xfe"
    os.mkdir(raw)
    for number in (b"1", b"2"):
        os.link(os.fsencode(root / odd[0]), raw + b"/" + number + b".png")
    found = load_dataset(str(root)).train
    assert len(found) == 14
    assert len(found.class_names) == 7
    assert "\\xff\\xfe" in found.class_names
    assert all(name.encode() for name in found.class_names)


def test_order_is_by_code_point_whatever_the_folder_lists(root, monkeypatch):
    put(root, *[f"{name}.png" for name in ("b", "B", "a10", "a9", "é", "Z")])
    expected = ("B.png", "Z.png", "a10.png", "a9.png", "b.png", "é.png")
    assert load_dataset(str(root)).train.sources == expected
    scandir = os.scandir

    @contextlib.contextmanager
    def backwards(path):
        with scandir(path) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", backwards)
    assert tuple(found.parts[0] for found in list_folder(root).images) == expected


@pytest.mark.timeout(20)
def test_linked_folders_are_followed_and_loops_end(root, tmp_path):
    put(root, *each("a", "b"))
    put(tmp_path / "elsewhere", "1.png", "2.png")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    assert load_dataset(str(root)).train.class_names == ("a", "b", "c")
    (root / "a" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    names = ["/".join(found.parts) for found in list_folder(root).images]
    assert "a/0.png" in names
    assert max(name.count("up") for name in names) == 0


@pytest.mark.timeout(20)
def test_pipe_with_the_name_of_a_picture_is_a_damaged_picture(root):
    put(root, "1.png")
    os.mkfifo(root / "2.png")
    with pytest.raises(DataError, match=r"'2\.png' \(not a regular file\)"):
        load_dataset(str(root))


def test_folder_with_the_name_of_a_picture_is_damaged_unless_it_holds_pictures(root):
    put(root, *each("a", "b.png", count=3))
    (root / "a" / "2.png").unlink()
    (root / "a" / "2.png").mkdir()
    (root / "a" / "2.png" / "notes.txt").write_text("no picture")
    with pytest.raises(DamagedImagesError) as caught:
        load_dataset(str(root))
    assert caught.value.damaged == (DamagedImage("train", "a/2.png", "not a regular file"),)
    (root / "a" / "2.png" / "notes.txt").unlink()
    (root / "a" / "2.png").rmdir()
    assert load_dataset(str(root)).train.class_names == ("a", "b.png")


def test_link_to_a_folder_above_with_the_name_of_a_picture_is_damaged(root):
    put(root, *each("a", "b"))
    (root / "a" / "up.png").symlink_to(root / "a")
    with pytest.raises(DataError, match=r"1 damaged image among 5: 'a/up\.png'"):
        load_dataset(str(root))


def test_folder_that_may_not_be_read_is_a_data_error():
    with nobodys_folder() as folder:
        put(folder / "p", *each("a", "b"))
        (folder / "p").chmod(0)
        become_nobody()
        with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
            folder_source(folder / "p")


def test_picture_that_may_not_be_read_is_not_damaged(monkeypatch):
    monkeypatch.setattr("stopgrad.storage.reading.PAUSES", (0.0, 0.0))
    with nobodys_folder() as folder:
        put(folder, "x.png")
        (folder / "x.png").chmod(0)
        become_nobody()
        with pytest.raises(UnreadableError, match=r"x\.png could .* denied\), tried 3 times"):
            decode(Encoded("x.png", folder / "x.png"), Frame(8, 8, fit=True))


def test_all_damaged_pictures_are_named_or_counted(root):
    put(root, *each("a", "b", count=30))
    for number in range(30):
        (root / "a" / f"{number}.png").write_bytes(b"no")
    with pytest.raises(DamagedImagesError, match=r"30 damaged images among 60: ") as caught:
        load_dataset(str(root))
    assert [name for _, name, _ in caught.value.damaged] == sorted(each("a", count=30))
    named = [name for name in each("a", count=30) if repr(name) in str(caught.value)]
    assert named == sorted(each("a", count=30))[:10]
    assert "and 20 more;" in str(caught.value)


def test_equal_pictures_within_the_side_keep_their_size(root):
    put(root, "1.png", "2.png", size=(12, 6))
    assert load_dataset(str(root)).train.pixels.shape == (2, 6, 12, 3)
    assert load_dataset(str(root), side=12).train.pixels.shape == (2, 6, 12, 3)
    assert load_dataset(str(root), side=11).train.pixels.shape == (2, 11, 11, 3)


def test_mixed_sizes_are_brought_to_the_side_in_both_splits(root):
    put(root, *each("train"))
    put(root / "test", "1.png", size=(9, 20))
    found = load_dataset(str(root), side=16)
    assert found.train.pixels.shape == (2, 16, 16, 3)
    assert found.test.pixels.shape == (1, 16, 16, 3)


def test_mixed_sizes_without_a_side_are_refused(root):
    put(root, "1.png")
    put(root, "2.png", size=(9, 20))
    with pytest.raises(DataError, match=r"8x8 and 9x20.*give a side"):
        load_dataset(str(root))


def test_damaged_picture_stops_and_is_named(root):
    put(root, *each("a", "b", count=3))
    (root / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"1 damaged image among 6: 'b/1\.png' \(") as caught:
        load_dataset(str(root))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_skipped_pictures_leave_the_labels_right_and_are_named_each_time(root, caplog):
    put(root, *each("a", "b", count=20))
    (root / "a" / "19.png").write_bytes(b"")
    (root / "a" / "0.png").write_bytes(b"no picture")
    for _ in ("decoded", "cached"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = load_dataset(str(root), bad_images="skip")
        assert np.bincount(found.train.labels).tolist() == [18, 20]
        assert "a/0.png" not in found.train.sources
        for pixels, source in zip(found.train.pixels, found.train.sources, strict=True):
            folder, number = source.removesuffix(".png").split("/")
            assert (pixels[..., 0] == DIGITS["ab".index(folder) * 20 + int(number)]).all()
        assert [r.message.count("\n") for r in caplog.records] == [0]
        assert "left out 2 damaged: 'a/0.png'" in caplog.text
        assert "'a/19.png'" in caplog.text


def test_more_than_five_percent_damaged_stop_even_when_skipped(root):
    put(root, *each("a", "b", count=20))
    for number in (1, 2, 3):
        (root / "a" / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"3 damaged images among 40: .*at most 5 %"):
        load_dataset(str(root), bad_images="skip")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/notes.txt"], "no images to train on"),
        (["notes.txt"], "no images to train on"),
        (["test/a/1.png", "test/b/1.png"], "no images to train on"),
    ],
)
def test_folder_without_training_pictures_is_refused(root, names, message):
    put(root, *[name for name in names if name.endswith("png")])
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    with pytest.raises(DataError, match=message):
        load_dataset(str(root))


def test_empty_folder_is_refused(root):
    root.mkdir()
    with pytest.raises(DataError, match="no images to train on"):
        load_dataset(str(root))


@pytest.mark.parametrize("bad_images", ["fail", "skip"])
def test_folder_in_which_nothing_can_be_read_is_refused(root, bad_images):
    put(root, "x.png")
    (root / "x.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"'x\.png'"):
        load_dataset(str(root), bad_images=bad_images)


def test_a_folder_without_labels_beside_train_is_no_class(root: Path) -> None:
    put(root, *each("train", "unlabeled", count=3))
    found = load_dataset(str(root))
    assert (len(found.train), found.train.labels) == (3, None)
    ((_, reason, names),) = found.notes.unused
    assert (reason, len(names)) == ("beside train/", 3)
