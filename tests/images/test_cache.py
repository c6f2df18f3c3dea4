"""The cache of decoded images, and what load_dataset does around it."""

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stopgrad.config import Reading
from stopgrad.images import DamagedImage, DamagedImagesError, load, load_dataset, normalization
from stopgrad.images import store as store_module
from stopgrad.images.manifest import Shard
from stopgrad.images.sources.find import find_source
from tests.images.factories import png
from tests.images.inputs.factories import saved, shard, zipped


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def digits(tmp_path) -> Path:
    """train/ and test/ with the digits 0, 1 and 2 of scikit-learn as PNG files."""
    found = load_digits()
    for digit in range(3):
        for split, chosen in (("train", slice(0, 6)), ("test", slice(6, 9))):
            folder = tmp_path / "digits" / split / str(digit)
            folder.mkdir(parents=True)
            for number, gray in enumerate(found.images[found.target == digit][chosen]):
                Image.fromarray((gray * 15).astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "digits"


class Count:
    """A track that counts what is decoded."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, items, description, total):
        for item in items:
            self.seen += 1
            yield item


def decoded(path: Path, **options) -> int:
    count = Count()
    load_dataset(str(path), track=count, **options)
    return count.seen


def entry(store: Path) -> Path:
    (found,) = [path for path in (store / "images").iterdir() if not path.name.startswith(".")]
    return found


def same(first, second) -> bool:
    return all(
        np.array_equal(a.pixels, b.pixels)
        and np.array_equal(a.labels, b.labels)
        and (a.class_names, a.fingerprint, a.sources) == (b.class_names, b.fingerprint, b.sources)
        for a, b in ((first.train, second.train), (first.test, second.test))
    )


def test_second_load_decodes_nothing_and_gives_the_same(digits):
    first = load_dataset(str(digits))
    assert decoded(digits) == 0
    assert same(first, load_dataset(str(digits)))


def test_cached_pixels_are_those_of_the_files(digits):
    load_dataset(str(digits))
    train = load_dataset(str(digits)).train
    for pixels, source in zip(train.pixels, train.sources, strict=True):
        gray = np.asarray(Image.open(digits / "train" / source))
        assert (pixels == gray[..., None]).all()


def test_progress_sees_each_picture_once(digits):
    assert decoded(digits) == 27


def test_changed_file_or_other_side_is_another_entry_and_the_policy_is_none(digits):
    load_dataset(str(digits))
    assert decoded(digits, side=4) == 27
    assert decoded(digits, bad_images="skip") == 0
    picture = digits / "train" / "0" / "0.png"
    os.utime(picture, ns=(1, 1))
    assert decoded(digits) == 27
    picture.unlink()
    assert decoded(digits) == 26


def test_a_split_by_name_decodes_nothing_that_is_decoded_already(digits, tmp_path):
    shutil.copytree(digits / "test", digits / "val")
    (digits / "train" / "0" / "5.png").write_bytes(b"no image")
    for split, count in (("train", 1), ("val", 2)):  # of further pages
        pages = [Image.new("L", (8, 8), number) for number in range(2)]
        pages[0].save(digits / split / "1" / "x.tif", save_all=True, append_images=pages[:count])
    val = {"reading": Reading(split="val"), "bad_images": "skip"}
    expected = load_dataset(str(digits), **val)
    shutil.rmtree(tmp_path / "cache")
    load_dataset(str(digits), bad_images="skip")
    assert decoded(digits, **val) == 10  # of val/ alone
    assert decoded(digits, **val) == 0
    found = load_dataset(str(digits), **val)
    assert same(found, expected)
    assert (found.damaged, found.notes) == (expected.damaged, expected.notes)
    assert found.notes.count("image") == 9 + 1 + 2  # test/, then pages
    test = {"reading": Reading(split="test"), "bad_images": "skip"}
    assert decoded(digits, **test) == 9  # of test/ alone
    assert same(load_dataset(str(digits), **test), load_dataset(str(digits), bad_images="skip"))
    linked = [*(tmp_path / "cache").glob("images/*/train-00000.pixels")]
    assert len(linked) == 3
    assert len({path.stat().st_ino for path in linked}) == 1  # on the disk once


@pytest.mark.parametrize("kind", ["arrays", "archive", "shards"])
def test_a_split_by_name_has_its_own_images_where_one_file_holds_all(tmp_path, kind):
    """Such files have the same stamps whichever of their splits is scored."""
    splits = {"train": 0, "val": 100, "test": 200}
    images = {s: np.full((8, 8, 8, 3), of, np.uint8) for s, of in splits.items()}
    if kind == "arrays":
        spec = saved(tmp_path / "set.npz", **{f"{s}_images": of for s, of in images.items()})
    elif kind == "archive":
        for split, gray in splits.items():
            for number in range(8):
                folder = tmp_path / "set" / split / str(number % 2)
                folder.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (gray,) * 3).save(folder / f"{number}.png")
        spec = str(zipped(tmp_path / "set", tmp_path / "set.zip"))
    else:
        for split, of in images.items():
            members = {f"{n}.png": png(pixels) for n, pixels in enumerate(of)}
            shard(tmp_path / "set" / f"{split}-000000.tar", members)
        spec = str(tmp_path / "set")
    for split in ("", "val", "test", "val"):
        found = load_dataset(spec, reading=Reading(split=split))
        assert set(found.train.pixels.ravel()) == {0}, split
        assert set(found.test.pixels.ravel()) == {splits[split or "test"]}, split


def test_a_split_of_other_sizes_is_decoded_with_all_others_in_one_frame(digits):
    shutil.copytree(digits / "test", digits / "val")
    Image.new("L", (10, 12)).save(digits / "val" / "0" / "x.png")
    load_dataset(str(digits), side=9)
    found = load_dataset(str(digits), side=9, reading=Reading(split="val"))
    assert found.train.pixels.shape[1:3] == found.test.pixels.shape[1:3] == (9, 9)


DAMAGES = {
    "one pixel": lambda e: flip(e / "train-00000.pixels", 100),
    "the last pixel": lambda e: flip(e / "test-00000.pixels", -1),
    "one label": lambda e: flip(
        e / "pictures.json", (e / "pictures.json").read_bytes().index(b"[0, 0") + 1
    ),
    "one letter of the names": lambda e: flip(
        e / "pictures.json", (e / "pictures.json").read_bytes().index(b"0.png")
    ),
    "one digit of the manifest": lambda e: flip(
        e / "stopgrad-store.json", (e / "stopgrad-store.json").read_bytes().index(b"18")
    ),
    "one digit of the mean": lambda e: flip(
        e / "stopgrad-summary.json", (e / "stopgrad-summary.json").read_bytes().index(b"0.") + 2
    ),
    "pixels cut short": lambda e: os.truncate(e / "train-00000.pixels", 100),
    "pixels gone": lambda e: (e / "test-00000.pixels").unlink(),
    "manifest gone": lambda e: (e / "stopgrad-store.json").unlink(),
    "manifest empty": lambda e: (e / "stopgrad-store.json").write_bytes(b""),
    "summary gone": lambda e: (e / "stopgrad-summary.json").unlink(),
}


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entry_is_rebuilt_with_one_line(damage, digits, store, caplog):
    first = load_dataset(str(digits))
    # The entry is mapped into memory: damage a copy, as a bad disk would at the next start.
    shutil.copytree(entry(store), store / "copy")
    pixels = first.train.pixels.copy()
    shutil.rmtree(entry(store))
    (store / "copy").rename(store / "images" / entry_name(digits))
    DAMAGES[damage](entry(store))
    with caplog.at_level(logging.WARNING):
        again = load_dataset(str(digits))
    assert [record.message.count("\n") for record in caplog.records] == [0]
    assert "damaged" in caplog.text
    assert np.array_equal(again.train.pixels, pixels)
    assert decoded(digits) == 0


def entry_name(path: Path) -> str:
    source = find_source(str(path))
    return load.cached_store(source, side=None).name


def test_pixels_may_be_written_to_without_reaching_the_cache(digits):
    load_dataset(str(digits))
    load_dataset(str(digits)).train.pixels[:] = 7
    assert decoded(digits) == 0
    assert load_dataset(str(digits)).train.pixels.min() == 0


@pytest.mark.parametrize("call", ["mkdtemp", "fsync"])
def test_full_disk_does_not_stop_loading_and_leaves_nothing(
    call, digits, store, caplog, monkeypatch
):
    expected = load_dataset(str(digits))
    shutil.rmtree(store)

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(load.tempfile if call == "mkdtemp" else load.os, call, full)
    with caplog.at_level(logging.WARNING):
        found = load_dataset(str(digits))
    assert "No space left on device" in caplog.text
    assert len(caplog.records) == 1
    assert same(expected, found)
    assert list((store / "images").iterdir()) == []


def test_cache_path_that_is_a_file_does_not_stop_loading(digits, store, caplog):
    store.write_text("not a folder")
    assert len(load_dataset(str(digits)).train) == 18
    assert "going on without" in caplog.text


def test_entry_that_a_neighbour_finished_first_is_used(digits, store, caplog, monkeypatch):
    load_dataset(str(digits))
    finished = store / "finished"
    shutil.copytree(entry(store), finished)
    shutil.rmtree(store / "images")
    rename = Path.rename

    def overtaken(new: Path, folder: Path) -> Path:
        if new.name.startswith(".new-"):
            shutil.copytree(finished, folder)
        return rename(new, folder)

    monkeypatch.setattr(Path, "rename", overtaken)
    assert len(load_dataset(str(digits)).train) == 18
    assert not caplog.records
    assert [path for path in (store / "images").iterdir() if path.name.startswith(".")] == []


def test_entry_that_another_process_takes_away_at_once_is_not_missed(digits, caplog, monkeypatch):
    monkeypatch.setattr(load, "prune", lambda parent, *, newest: shutil.rmtree(newest))
    assert len(load_dataset(str(digits)).train) == 18
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is not finished); going on without" in caplog.text


def test_entry_that_may_not_be_read_does_not_stop_loading(digits, caplog, monkeypatch):
    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    load_dataset(str(digits))
    monkeypatch.setattr(load, "read_manifest", forbidden)
    assert len(load_dataset(str(digits)).train) == 18
    assert "its folder (Permission denied)); decoding them again" in caplog.text
    assert "its folder (Permission denied)); going on without" in caplog.text


def test_left_over_folder_of_a_killed_process_is_removed_after_a_day(digits, store):
    for age, name in ((2 * 86400, ".new-old"), (60, ".new-fresh")):
        folder = store / "images" / name
        folder.mkdir(parents=True)
        os.utime(folder, (folder.stat().st_mtime - age,) * 2)
    load_dataset(str(digits))
    names = {path.name for path in (store / "images").iterdir()}
    assert ".new-fresh" in names
    assert ".new-old" not in names


def test_damaged_pictures_are_remembered_and_refused_without_decoding_again(digits):
    (digits / "test" / "1" / "0.png").write_bytes(b"")
    with pytest.raises(DamagedImagesError) as first:
        load_dataset(str(digits))
    count = Count()
    with pytest.raises(DamagedImagesError) as second:
        load_dataset(str(digits), track=count)
    assert count.seen == 0
    assert (
        first.value.damaged
        == second.value.damaged
        == (DamagedImage("test", "1/0.png", "empty file"),)
    )
    assert len(load_dataset(str(digits), bad_images="skip").test) == 8
    assert decoded(digits, bad_images="skip") == 0


def test_longest_unused_entries_go_when_all_are_too_large(digits, store, monkeypatch):
    def kept() -> set[int]:
        """Sides of the pictures that are in the cache; opening one would count as use."""
        return {side for side in range(2, 7) if entry_of(digits, side).exists()}

    def use(side: int, *, used: int) -> None:
        load_dataset(str(digits), side=side)
        source = find_source(str(digits))
        os.utime(load.cached_store(source, side=side), (used, used))

    for used, side in enumerate((4, 5, 6), start=1):
        use(side, used=used)
    use(4, used=4)  # used again: now 5 is the oldest
    three = sum(load._bytes_in(entry_of(digits, side)) for side in (4, 5, 6))
    monkeypatch.setattr(load, "MOST_KEPT", three)
    use(3, used=5)
    assert kept() == {3, 4, 6}
    monkeypatch.setattr(load, "MOST_KEPT", 1)
    use(2, used=6)
    assert kept() == {2}
    assert [path for path in (store / "images").iterdir() if path.name[0] == "."] == []


def test_reading_an_entry_counts_as_use(digits):
    load_dataset(str(digits), side=4)
    os.utime(entry_of(digits, 4), (1, 1))
    load_dataset(str(digits), side=4)
    assert entry_of(digits, 4).stat().st_mtime > 1e9


def test_pixels_of_an_entry_that_goes_stay_with_who_has_them(digits, monkeypatch):
    first = load_dataset(str(digits), side=4).train
    pixels = first.pixels.copy()
    monkeypatch.setattr(load, "MOST_KEPT", 1)
    load_dataset(str(digits), side=5)
    assert not entry_of(digits, 4).exists()
    assert np.array_equal(first.pixels, pixels)


def entry_of(path: Path, side: int) -> Path:
    return load.cached_store(find_source(str(path)), side=side)


def test_only_blocks_are_compared_of_huge_splits(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_CHECKED", 2 * store_module.BLOCK)
    data = np.arange(8, dtype=np.uint8).repeat(store_module.BLOCK)
    (tmp_path / "pixels").write_bytes(data.tobytes())
    blocks = Shard("pixels", 1, "")
    split = store_module.StoredSplit(1, (), "", (blocks,))
    seen = store_module.zlib.crc32(bytes([0]) * store_module.BLOCK)
    seen = store_module.zlib.crc32(bytes([4]) * store_module.BLOCK, seen)
    assert store_module.checksum(tmp_path, split) == seen


def test_mean_and_std_of_a_cached_set_are_known_to_the_bit_and_no_pixel_is_read(digits):
    load_dataset(str(digits))
    train = load_dataset(str(digits)).train
    assert normalization(replace(train, known=None)) == train.known
    assert normalization(replace(train, pixels=train.pixels * 0)) == train.known
    assert train.take(np.arange(9)).known is None
    assert train.pixels.flags.c_contiguous


def test_entries_of_an_older_version_are_passed_over_and_pruned(digits, store, monkeypatch):
    old = store / "images" / "e66bbb9eca72af3e65ecb7370fa5540e"
    old.mkdir(parents=True)
    for name in ("contents", "train.pixels", "train.labels"):
        (old / name).write_bytes(b"old")
    os.utime(old, (1, 1))
    load_dataset(str(digits), side=4)
    assert old.exists()
    monkeypatch.setattr(load, "MOST_KEPT", 1)
    load_dataset(str(digits), side=5)
    assert not old.exists()


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("STOPGRAD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store_module.cache_folder() == tmp_path / "xdg" / "stopgrad"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert store_module.cache_folder() == tmp_path / "home" / ".cache" / "stopgrad"


def run(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


MARKS = """
import sys; from stopgrad.images import load_dataset
d = load_dataset(sys.argv[1] if len(sys.argv) > 1 else {path!r})
print(d.train.fingerprint, d.test.fingerprint)
"""


def test_fingerprint_does_not_depend_on_place_order_dates_locale_or_hash_seed(digits, tmp_path):
    def marks(path: Path, number: int, **environment: str) -> str:
        own = {"STOPGRAD_CACHE": str(tmp_path / f"cache{number}"), **environment}
        return run(MARKS.format(path=str(path)), **own)

    copy = tmp_path / "elsewhere"
    for file in sorted(digits.rglob("*.png"), reverse=True):
        target = copy / file.relative_to(digits)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    expected = marks(digits, 0, PYTHONHASHSEED="0")
    assert marks(copy, 1, PYTHONHASHSEED="7", LC_ALL="C", TZ="Asia/Tokyo") == expected
    flip_one = copy / "test" / "0" / "0.png"
    Image.fromarray(np.asarray(Image.open(flip_one)) ^ 1).save(flip_one)
    changed = marks(copy, 2)
    assert changed.split()[0] == expected.split()[0]
    assert changed.split()[1] != expected.split()[1]


def test_cached_start_takes_numpy_alone(digits):
    load_dataset(str(digits))
    code = MARKS.format(path=str(digits)) + "print(sorted(m for m in sys.modules if '.' not in m))"
    loaded = run(code)
    assert "'numpy'" in loaded
    others = ("PIL", "pyarrow", "torch", "rich", "huggingface_hub", "mlxtend")
    assert not any(f"'{name}'" in loaded for name in others)
