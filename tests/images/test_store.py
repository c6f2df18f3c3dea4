"""Packed stores: the pixels of `load_dataset`, on disk, whole or refused; made in one go or two."""

import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

import stopgrad
from stopgrad.cli import main
from stopgrad.config import Reading, ViewsConfig, preset
from stopgrad.errors import DataError, LockedError, StorageError, UnreadableError
from stopgrad.evaluation import images_at_a_time
from stopgrad.images import (
    Dataset,
    Findings,
    Images,
    Normalization,
    Packed,
    images_from_arrays,
    load_dataset,
    load_image_files,
    normalization,
    pack,
    verify_store,
)
from stopgrad.images import packing as pack_module
from stopgrad.images import pixels as pixels_module
from stopgrad.images import writing as writing_module
from stopgrad.images.inspect import ImageSize
from stopgrad.images.manifest import MANIFEST
from stopgrad.images.pixels import PixelFile
from stopgrad.images.store import PACKING, SUMMARY
from stopgrad.method import downscale, two_views
from stopgrad.runs import load_checkpoint, prepare
from stopgrad.speed.outlook import advise_packing
from stopgrad.training import Pretraining, pretrain_epochs
from tests.factories import pack_until_killed
from tests.promises.process import order_in, start_forked
from tests.training.factories import encoder_run

SIDE = 24
SHARD = 20  # pictures
DIGITS = np.kron(load_digits().images, np.ones((5, 5))) * 15  # (1797, 40, 40)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing_module, "SHARD_BYTES", SHARD * SIDE * SIDE * 3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 real digits in two nested folders, of two sizes and two formats, without labels."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(96):
        place = folder / f"part{number % 2}" / f"day{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(DIGITS[number, : 30 + number % 11].astype(np.uint8))
        image.save(place / f"{number:02d}.{'png' if number % 5 else 'webp'}", lossless=True)
    return folder


@pytest.fixture(scope="module")
def packed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of five shards, not to be changed."""
    store = tmp_path_factory.mktemp("stores") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing_module, "SHARD_BYTES", SHARD * SIDE * SIDE * 3)
        pack(str(pictures), store, side=SIDE)
    assert len(list(store.glob("train-*.pixels"))) == 5
    return store


@pytest.fixture
def store(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "store"))


def pixels_of(images: Images) -> np.ndarray:
    return np.asarray(images.pixels[:])


def test_a_store_holds_what_loading_decodes_under_the_same_fingerprint(
    pictures: Path, packed: Path
) -> None:
    decoded, stored = load_dataset(str(pictures), side=SIDE).train, load_dataset(str(packed)).train
    assert isinstance(stored.pixels, Packed)
    assert np.array_equal(pixels_of(stored), decoded.pixels)
    assert (stored.fingerprint, stored.sources) == (decoded.fingerprint, decoded.sources)
    assert normalization(stored) == normalization(decoded)


def test_a_store_knows_its_mean_and_std_to_the_bit(store: Path) -> None:
    images = load_dataset(str(store)).train
    assert images.known == normalization(replace(images, known=None))
    assert images.take(np.arange(50)).known is None
    (store / SUMMARY).unlink()  # as in stores of earlier versions
    assert load_dataset(str(store)).train.known is None
    assert all(finding.ok for finding in verify_store(store))


@pytest.mark.parametrize(("known", "rows"), [(True, 32), (False, 96 + 32)])
def test_of_a_store_with_known_mean_and_std_only_the_batch_is_read_before_the_first_step(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool, rows: int
) -> None:
    if not known:
        (store / SUMMARY).unlink()
    seen: list[int] = []
    read = Packed.__getitem__

    def counted(self: Packed, index: Any) -> np.ndarray:
        found = read(self, index)
        seen.append(found.size // (SIDE * SIDE * 3))
        return found

    def stopped(self: Pretraining, views: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(Packed, "__getitem__", counted)
    monkeypatch.setattr(Pretraining, "loss", stopped)
    with pytest.raises(InterruptedError):
        stopgrad.pretrain(str(store), preset="tiny", image_size=SIDE, out=tmp_path / "run")
    assert sum(seen) == rows


def test_a_summary_of_other_images_is_refused(store: Path, pictures: Path, tmp_path: Path) -> None:
    pack(str(pictures), tmp_path / "other", side=SIDE - 1)
    shutil.copyfile(tmp_path / "other" / SUMMARY, store / SUMMARY)
    with pytest.raises(DataError, match="is of other images"):
        load_dataset(str(store))
    assert [finding.file for finding in verify_store(store) if not finding.ok] == [SUMMARY]


def test_a_store_of_format_1_as_it_was_first_written_opens_as_it_was() -> None:
    store = Path(__file__).parents[1] / "golden" / "d34c795" / "store-in-shards"
    dataset = load_dataset(str(store))
    assert dataset.test is not None
    assert (dataset.train.fingerprint, dataset.test.fingerprint) == (
        "9a904e05440fa57517c16c0b1a308387df4cf08779d64de84635e402027d51b9",
        "2ca6fd8062f815a910b46bbdd4da4f3a745c8c93b319cb3a2c882e1649b1ef55",
    )
    assert dataset.damaged == (("train", "digit 0/02.png", "empty file"),)
    assert dataset.train.class_names == ("digit 0", "digit 1")
    again = images_from_arrays(
        pixels_of(dataset.train),
        labels=dataset.train.labels,
        class_names=dataset.train.class_names,
    )
    assert again.fingerprint == dataset.train.fingerprint
    digits = [int(name[-6:-4]) for name in dataset.train.sources]
    assert np.array_equal(dataset.train.pixels[:][..., 1], load_digits().images[digits] * 15)
    assert all(finding.ok for finding in verify_store(store))


def test_one_image_of_another_size_at_the_end_makes_all_square(
    tmp_path: Path, small_shards: None
) -> None:
    (tmp_path / "set").mkdir()
    for number in range(70):  # the last one stands in the fourth shard
        data = DIGITS[number, : 22 if number < 69 else 21, :23]
        Image.fromarray(data.astype(np.uint8)).save(tmp_path / "set" / f"{number:02d}.png")
    pack(str(tmp_path / "set"), tmp_path / "store", side=SIDE)
    stored = load_dataset(str(tmp_path / "store")).train
    decoded = load_dataset(str(tmp_path / "set"), side=SIDE).train
    assert stored.pixels.shape == (70, SIDE, SIDE, 3)
    assert stored.fingerprint == decoded.fingerprint
    assert all(finding.ok for finding in verify_store(tmp_path / "store"))


def test_labels_class_names_and_the_test_split_are_kept(tmp_path: Path) -> None:
    for number in range(60):
        split = "test" if number % 5 == 0 else "train"
        place = tmp_path / "set" / split / f"class {number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DIGITS[number].astype(np.uint8)).save(place / f"{number}.png")
    pack(str(tmp_path / "set"), tmp_path / "store", side=64)
    decoded, stored = (load_dataset(str(tmp_path / of), side=64) for of in ("set", "store"))
    assert stored.test is not None
    assert decoded.test is not None
    assert stored.train.pixels.shape[1:] == (40, 40, 3)  # of one size, so they keep it
    for ours, theirs in ((stored.train, decoded.train), (stored.test, decoded.test)):
        assert ours.class_names == ("class 0", "class 1", "class 2") == theirs.class_names
        assert ours.labels is not None
        assert np.array_equal(ours.labels, theirs.labels)
        assert ours.fingerprint == theirs.fingerprint
        assert ours.sources == theirs.sources


@pytest.mark.parametrize("count", [1, 7, 96])
def test_rows_come_in_the_order_asked_for_across_shards(packed: Path, count: int) -> None:
    images = load_dataset(str(packed)).train
    whole = pixels_of(images)
    rng = np.random.default_rng(count)
    rows = rng.integers(0, 96, size=count)  # some of them twice
    assert np.array_equal(images.pixels[rows], whole[rows])
    assert np.array_equal(images.pixels[int(rows[0])], whole[rows[0]])
    assert np.array_equal(images.pixels[15:65], whole[15:65])
    subset = images.take(rows)
    assert isinstance(subset.pixels, Packed)  # nothing was read
    again = rng.permutation(count)
    assert np.array_equal(subset.pixels[again], whole[rows][again])
    assert np.array_equal(subset.take(again).pixels[:], whole[rows][again])


@pytest.mark.parametrize("act", [Path.unlink, lambda shard: os.truncate(shard, 9), Path.touch])
def test_a_shard_that_changes_before_it_is_read_ends_what_reads_it_and_nothing_else(
    store: Path, packed: Path, act: Callable[[Path], Any]
) -> None:
    pixels = load_dataset(str(store)).train.pixels
    act(store / "train-00003.pixels")
    assert np.array_equal(pixels[:60], load_dataset(str(packed)).train.pixels[:60])
    with pytest.raises(StorageError, match=r"train-00003\.pixels has changed"):
        pixels[60]


def _mapped() -> int:
    """Bytes of mapped files that are in this process's memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[2]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux says what is resident")
def test_reading_a_store_to_its_end_leaves_no_pixels_in_memory(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (512, 128, 128, 3), np.uint8)
    file = tmp_path / "pixels"
    file.write_bytes(pixels.data)  # 25 MB
    images = Images(
        Packed([PixelFile(file, pixels.shape, file.stat().st_mtime_ns)]), None, (), "f" * 64
    )
    half = images.take(np.arange(0, 512, 2))
    before = _mapped()
    for start in range(0, 256, 16):
        assert np.array_equal(half.pixels[start : start + 16], pixels[::2][start : start + 16])
    normalization(images)
    assert _mapped() - before < 5e6


def test_damaged_pictures_are_left_out_wherever_they_lie(
    tmp_path: Path, small_shards: None
) -> None:
    for number in range(160):  # the last shard holds damaged ones alone
        data = DIGITS[number].astype(np.uint8)
        name = tmp_path / "set" / f"{number:03d}.png"
        name.parent.mkdir(exist_ok=True)
        Image.fromarray(data[:30]).save(name)
        if number in (3, 20, *range(155, 160)):
            name.write_bytes(name.read_bytes()[:60])
    with pytest.raises(DataError, match=r"7 damaged images among 160: '003\.png'"):
        pack(str(tmp_path / "set"), tmp_path / "store", side=SIDE)
    pack(str(tmp_path / "set"), tmp_path / "store", side=SIDE, bad_images="skip")
    stored = load_dataset(str(tmp_path / "store"))
    decoded = load_dataset(str(tmp_path / "set"), side=SIDE, bad_images="skip")
    assert [left.name for left in stored.damaged] == [left.name for left in decoded.damaged]
    assert stored.train.fingerprint == decoded.train.fingerprint
    assert all(finding.ok for finding in verify_store(tmp_path / "store"))


PACK = """
import sys
from stopgrad.cli import main
from stopgrad.images import writing
writing.SHARD_BYTES = {bytes}
write = writing.SplitWriter._write_shard
def slowly(self, attempts):
    if len(self.shards) == 3:
        print("third shard", flush=True)
        sys.stdin.read()
    return write(self, attempts)
writing.SplitWriter._write_shard = slowly
sys.exit(main(sys.argv[1:]))
"""


def test_packing_goes_on_behind_the_last_whole_shard_after_kill_9(
    pictures: Path, packed: Path, tmp_path: Path, small_shards: None
) -> None:
    store = tmp_path / "store"
    words = ["pack", str(pictures), "--out", str(store), "--side", str(SIDE)]
    child = subprocess.Popen(
        [sys.executable, "-c", PACK.format(bytes=writing_module.SHARD_BYTES), *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"third shard\n"
    with pytest.raises(LockedError, match="another process"):
        pack(str(pictures), store, side=SIDE)
    child.kill()
    child.communicate()
    with pytest.raises(DataError, match="not finished"):
        load_dataset(str(store))
    with pytest.raises(DataError, match="an unfinished store with --side 24"):
        pack(str(pictures), store, side=SIDE + 1)
    shards = [store / f"train-0000{number}.pixels" for number in range(3)]
    written = [shard.stat().st_mtime_ns for shard in shards]
    data = bytearray(shards[2].read_bytes())
    data[100] ^= 1  # and rot in one that was finished
    shards[2].write_bytes(data)
    pack(str(pictures), store, side=SIDE)
    assert [shard.stat().st_mtime_ns for shard in shards[:2]] == written[:2]
    for file in packed.glob("*.pixels"):
        assert file.read_bytes() == (store / file.name).read_bytes()
    assert {file.name for file in store.iterdir()} == {file.name for file in packed.iterdir()}
    before = (store / MANIFEST).stat().st_mtime_ns
    pack(str(pictures), store, side=SIDE)  # finished: nothing to do
    assert (store / MANIFEST).stat().st_mtime_ns == before


def test_a_kill_right_after_the_commit_leaves_a_store(packed: Path, store: Path) -> None:
    (store / PACKING).write_text(json.dumps({"key": "", "side": 1, "frame": [1, 1, True]}))
    assert len(load_dataset(str(store)).train) == 96


def test_every_command_goes_on_with_a_runs_own_store_whose_folder_was_touched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(40):
        place = tmp_path / "set" / f"class{number % 2}" / f"{number:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(DIGITS[number].astype(np.uint8)).save(place)
    store = tmp_path / "store"
    mark = pack(str(tmp_path / "set"), store, side=SIDE).splits["train"].fingerprint
    of = {"spec": str(store), "fingerprint": mark}
    run = encoder_run(tmp_path / "run", data=of, **{"views.size": 16, "knn.k": 5}).path
    other = encoder_run(tmp_path / "other", **{"views.size": 16}).path  # of other images
    os.utime(tmp_path / "set" / "class0" / "00.png")
    features = ["--out", str(tmp_path / "f.npy")]
    few = ["--finetune.epochs", "1", "--finetune.batch", "16"]
    named = ["--data", str(store)]
    for words in (
        ["embed", str(run), *features],
        ["embed", str(run), *named, *features],
        ["compare", str(run), "--no-scores"],
        ["neighbors", str(run)],
        ["finetune", str(run), *few],
        ["evaluate", str(run), "--of", "encoder", "--metrics", "knn_accuracy"],
    ):
        caplog.clear()
        assert main(words) == 0, words
        assert "using the store as it is" in caplog.text, words
    assert main(["embed", str(other), *named, *features]) == 3  # nothing guards these images


def test_every_flipped_bit_is_found_by_verify(store: Path) -> None:
    rng = np.random.default_rng(0)
    files = sorted(store.iterdir())
    assert len(files) == 9
    for file in files * 3:
        data = bytearray(file.read_bytes())
        place = int(rng.integers(len(data)))
        data[place] ^= 1 << int(rng.integers(8))
        whole = file.read_bytes()
        file.write_bytes(data)
        code = main(["verify", str(store)])
        file.write_bytes(whole)
        assert code == 3, (file.name, place)
    assert main(["verify", str(store)]) == 0


def test_verify_names_the_damaged_shard(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((store / "train-00003.pixels").read_bytes())
    data[-1] ^= 128
    (store / "train-00003.pixels").write_bytes(data)
    assert main(["verify", str(store)]) == 3
    said = capsys.readouterr()
    assert (
        "ok   train-00002.pixels\nBAD  train-00003.pixels: it is not what was written" in said.out
    )
    assert "2 of 9 files" in said.err  # and the one behind it, which could not be checked


@pytest.mark.parametrize("replace_by", [os.mkfifo, lambda shard: shard.symlink_to("/dev/zero")])
def test_verify_neither_waits_for_a_pipe_nor_follows_a_link(
    replace_by: Callable[[Path], None], store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "train-00003.pixels").unlink()
    replace_by(store / "train-00003.pixels")
    assert main(["verify", str(store)]) == 3
    assert (
        "BAD  train-00003.pixels: train-00003.pixels is a link or not a regular file"
        in capsys.readouterr().out
    )


def test_packing_goes_on_without_writing_through_a_link(
    pictures: Path,
    packed: Path,
    tmp_path: Path,
    small_shards: None,
) -> None:
    pack_until_killed(str(pictures), tmp_path / "store", side=SIDE, shards=3)
    theirs, shard = tmp_path / "theirs", tmp_path / "store" / "train-00001.pixels"
    theirs.write_bytes(shard.read_bytes())
    written = theirs.stat().st_mtime_ns
    shard.unlink()
    shard.symlink_to(theirs)
    pack(str(pictures), tmp_path / "store", side=SIDE)
    assert theirs.stat().st_mtime_ns == written
    for file in packed.glob("*.pixels"):
        assert file.read_bytes() == (tmp_path / "store" / file.name).read_bytes()
    assert len(load_dataset(str(tmp_path / "store")).train) == 96


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda s: os.truncate(s / "train-00004.pixels", 1000), "1,000 bytes, 27,648 were written"),
        (lambda s: (s / "train-00000.pixels").unlink(), "No such file"),
        (lambda s: os.truncate(s / "pictures.parquet", 50), "not what was written"),
        (lambda s: os.truncate(s / MANIFEST, 500), MANIFEST),
        (
            lambda s: (s / MANIFEST).write_text((s / MANIFEST).read_text().replace("96", "95")),
            "its seal does not match",
        ),
    ],
)
def test_a_store_that_was_cut_is_refused_when_it_is_opened(damage, said, store: Path) -> None:  # type: ignore[no-untyped-def]
    damage(store)
    with pytest.raises(DataError, match="is damaged") as caught:
        load_dataset(str(store))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("place", "call"), [(os, "open"), (Path, "lstat")])
def test_a_store_that_cannot_be_read_is_not_called_damaged(
    place: Any, call: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, real = str(store / "train-00001.pixels"), getattr(place, call)

    def failing(path: Any, *more: Any, **named: Any) -> Any:
        if str(path) == shard:
            raise OSError(errno.EIO, "Input/output error", shard)
        return real(path, *more, **named)

    monkeypatch.setattr("stopgrad.storage.reading.PAUSES", (0.0, 0.0))
    monkeypatch.setattr(place, call, failing)
    for read in (lambda: pixels_of(load_dataset(str(store)).train), lambda: [*verify_store(store)]):
        with pytest.raises(UnreadableError, match=r"train-00001\.pixels could .*tried 3 times"):
            read()


def test_a_folder_that_changed_since_packing_is_an_error_with_the_names(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(pictures, tmp_path / "set"))
    pack(str(folder), tmp_path / "store", side=SIDE)
    (folder / "part0" / "new.png").write_bytes((folder / "part0" / "day1" / "04.png").read_bytes())
    (folder / "part0" / "day1" / "04.png").unlink()
    os.utime(folder / "part0" / "day2" / "02.png")
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path / "store"))
    for words in ("1 changed ('train/part0/day2/02.png')", "1 new ('train/part0/new.png')"):
        assert words in caught.value.found
    assert "1 gone ('train/part0/day1/04.png')" in caught.value.found
    assert len(load_dataset(str(tmp_path / "store"), changed="warn").train) == 96
    assert "have changed: 1 changed" in caplog.text
    (tmp_path / "store" / "files.parquet").unlink()  # as the error's hint says
    assert len(load_dataset(str(tmp_path / "store")).train) == 96


def test_a_store_may_lie_in_the_folder_that_it_was_packed_from(
    pictures: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(pictures, tmp_path / "set"))
    pack(str(folder), folder / "store", side=SIDE)
    stored = load_dataset(str(folder / "store")).train  # nothing has changed
    assert load_dataset(str(folder), side=SIDE).train.fingerprint == stored.fingerprint


def test_a_store_outlives_its_folder(pictures: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pictures, tmp_path / "set"))
    pack(str(folder), tmp_path / "store", side=SIDE)
    shutil.rmtree(folder)
    assert len(load_dataset(str(tmp_path / "store")).train) == 96


def test_nothing_of_others_is_overwritten(pictures: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for out, holds in ((tmp_path / "mine", "other files"), (store, "a store of .* --side 24")):
        with pytest.raises(DataError, match=holds):
            pack(str(pictures), out, side=SIDE + 1)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    assert all(finding.ok for finding in verify_store(store))


def test_too_little_room_is_said_before_anything_is_decoded(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 96 * SIDE * SIDE * 3 - 1})
    monkeypatch.setattr(pack_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"165,888 bytes needed .*, 165,887 bytes free"):
        pack(str(pictures), tmp_path / "store", side=SIDE)
    assert not list((tmp_path / "store").iterdir())
    # As the error's hint says.
    assert pack(str(pictures), tmp_path / "store", side=SIDE - 1).height == SIDE - 1


def test_a_store_can_be_packed_again_smaller(packed: Path, tmp_path: Path) -> None:
    pack(str(packed), tmp_path / "small", side=16)
    images, large = load_dataset(str(tmp_path / "small")).train, load_dataset(str(packed)).train
    expected = Image.fromarray(large.pixels[11]).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(images.pixels[11], np.asarray(expected))
    assert images.sources == large.sources


def test_whole_pictures_are_brought_down_and_views_are_not(packed: Path) -> None:
    images = load_dataset(str(packed), side=12).train
    assert images.pixels.shape[1:] == (SIDE, SIDE, 3)
    assert images.whole_size == (12, 12) == images.take(np.arange(3)).whole_size
    assert load_dataset(str(packed), side=SIDE + 1).train.whole_size == (SIDE, SIDE)


def test_a_picture_asked_for_is_seen_whole_at_the_size_of_the_others(packed: Path) -> None:
    images = load_dataset(str(packed), side=12).train
    one = packed.parent / "one.png"
    Image.fromarray(images.pixels[5]).save(one)
    assert load_image_files([one], like=images).whole_size == (12, 12)


def test_large_pictures_go_through_an_encoder_few_at_a_time() -> None:
    for side, count in ((32, 512), (64, 512), (256, 32), (1024, 16)):
        pixels = np.zeros((1, side, side, 3), np.uint8)
        assert images_at_a_time(images_from_arrays(pixels)) == count


def _pretrain(data: Path, run: Path) -> list[str]:
    words = ["pretrain", "--data", data, "--out", run, "--preset", "tiny", "--image_size", SIDE]
    return [str(word) for word in words]


def test_training_from_a_store_killed_and_resumed_has_the_bits_of_the_folder(
    pictures: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_pretrain(pictures, tmp_path / "whole")) == 0
    assert "no labels (6 folders are not classes)" in capsys.readouterr().err
    run = tmp_path / "run"
    running = start_forked(order_in(tmp_path, *_pretrain(packed, run)))
    while not (run / "checkpoints" / "step-000003" / "manifest.json").exists():
        assert running.is_running()
        time.sleep(0.005)
    running.kill()
    assert load_checkpoint(run).step < 12
    assert main(["resume", str(run)]) == 0
    one, other = load_checkpoint(tmp_path / "whole"), load_checkpoint(run)
    assert one.step == other.step == 12
    assert all(torch.equal(one.model[key], other.model[key]) for key in one.model)
    assert all(torch.equal(one.optimizer[key], other.optimizer[key]) for key in one.optimizer)


def _trained(store: Path, *, size: int) -> list[float]:
    """Losses of an epoch of the imagenet preset, in a narrow network."""
    narrow = {"encoder.name": "cifar_resnet8", "encoder.width": 0.25}
    heads = {"projector.hidden": 32, "projector.out": 32, "predictor.hidden": 8}
    few = {"epochs": 1, "batch": 4, "measure_every": 0, "views.size": size}
    config = preset("imagenet", **narrow, **heads, **few)
    assert (config.projector.layers, config.views.blur, config.encoder.stem) == (3, 0.5, "large")
    dataset = load_dataset(str(store), side=config.image_side)
    return [epoch.loss for epoch in pretrain_epochs(prepare(dataset, config), config)]


def test_the_imagenet_preset_trains_at_three_sizes_from_one_store(tmp_path: Path) -> None:
    photo = Image.fromarray(load_sample_image("china.jpg"))  # 640 x 427 px
    (tmp_path / "set" / "deep" / "deeper").mkdir(parents=True)
    for number in range(8):
        part = photo.crop((40 * number, 10 * number, 40 * number + 340, 10 * number + 300))
        part.save(tmp_path / "set" / "deep" / "deeper" / f"{number}.jpg", quality=95)
    pack(str(tmp_path / "set"), tmp_path / "store", side=256)
    losses = [_trained(tmp_path / "store", size=size)[0] for size in (96, 128, 224)]
    assert all(-1 <= loss < 1 for loss in losses)
    assert len(set(losses)) == 3


def test_views_are_cut_from_the_stored_pixels_and_not_from_smaller_ones(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # of one pixel: any shrinking makes them gray
    for name in ("a.png", "b.png"):
        (tmp_path / "set").mkdir(exist_ok=True)
        Image.fromarray(stripes).save(tmp_path / "set" / name)
    pack(str(tmp_path / "set"), tmp_path / "store", side=64)
    images = load_dataset(str(tmp_path / "store"), side=32).train
    config = ViewsConfig(size=48, crop_min=0.25, crop_max=0.25, jitter=0, grayscale=0, blur=0)
    as_they_are = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pixels = torch.from_numpy(images.pixels[:]).permute(0, 3, 1, 2)
    views = two_views(
        pixels, torch.Generator().manual_seed(0), config=config, normalization=as_they_are
    )
    whole = downscale(pixels, images.whole_size)
    assert whole.shape == (2, 3, 32, 32)
    assert float(whole[..., 4:-4].float().std()) < 0.05 * 255
    assert float(views.x1.std()) > 0.2


@pytest.mark.parametrize(
    ("images", "short_side", "packed", "expected"),
    [
        (100_000, 375, False, 256),  # 18.3 GiB
        (20_000, 375, False, None),  # 3.7 GiB, less than half of 8
        (100_000, 32, False, None),  # 0.3 GiB: no picture is enlarged
        (100_000, 256, True, None),
    ],
)
def test_packing_is_advised_where_decoded_pictures_fill_half_of_the_memory(
    images: int, short_side: int, packed: bool, expected: int | None
) -> None:
    findings = Findings(
        **dict.fromkeys(Findings._fields, ())  # type: ignore[arg-type]
        | {"packed": packed, "pictures": {"train": images}}
        | {"sizes": {ImageSize(short_side, short_side + 125): images}}
    )
    advice = advise_packing(findings, side=256, limit=8 << 30)
    assert (advice and advice.side) == expected
    if advice:
        assert advice.reason.startswith(
            "decoded at 256 px the images take 18.3 GiB, more than 50 %"
        )


def test_packing_is_advised_for_as_many_channels_as_the_pictures_have() -> None:
    pixels = np.zeros((1, 8, 8, 12), np.uint8)
    findings = Findings(
        **dict.fromkeys(Findings._fields, ())  # type: ignore[arg-type]
        | {"packed": False, "pictures": {"train": 20_000}}
        | {"sizes": {ImageSize(375, 500): 20_000}}
        | {"dataset": Dataset("bands", images_from_arrays(pixels, channels=12), None)}
    )
    advice = advise_packing(findings, side=256, limit=8 << 30)
    assert advice is not None
    assert "take 14.6 GiB" in advice.reason  # 20,000 x 12 x 256 x 256


def test_check_data_looks_into_a_store(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(packed), "--preset", "tiny", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == {"train": 96}
    assert found["formats"] == {"packed": 96}
    assert found["sizes"] == [{"width": SIDE, "height": SIDE, "pictures": 96}]


def test_a_finished_store_in_a_read_only_place_is_taken_as_it_is(
    pictures: Path, packed: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))  # even of what is not there

    monkeypatch.setattr(Path, "unlink", read_only)
    assert pack(str(pictures), packed, side=SIDE).splits["train"].pictures == 96


def test_a_place_without_locks_is_one_line(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_file(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(pack_module, "lock_file", lock_file)
    with pytest.raises(StorageError, match=r"store could not be written \(No locks available\)"):
        pack(str(pictures), tmp_path / "store", side=SIDE)


def test_the_lock_ends_with_the_process(store: Path) -> None:
    descriptor = os.open(store, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(LockedError):
        pack("mnist5k", store, side=28)
    os.close(descriptor)
    with pytest.raises(DataError, match="holds a store of"):
        pack("mnist5k", store, side=28)


def test_a_store_of_a_store_knows_when_that_one_was_packed_anew(
    pictures: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    pack(str(pictures), first, side=SIDE)
    pack(str(first), second, side=SIDE)
    shutil.rmtree(first)
    pack(str(pictures), first, side=SIDE + 8)
    with pytest.raises(DataError, match="holds a store of"):
        pack(str(first), second, side=SIDE)
    with pytest.raises(DataError, match="have changed: 1 changed"):
        load_dataset(str(second))


@pytest.mark.input(
    "command", what="pack --image-column, then an unchanged folder", happens="the store opens"
)
def test_files_read_by_a_column_are_compared_as_they_were_read(
    pictures: Path, tmp_path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(pictures.rglob("*.png"))[:20]
    for split in ("train", "test", "validation"):
        (tmp_path / "set" / split).mkdir(parents=True)
        for file in files:
            shutil.copy(file, tmp_path / "set" / split / file.name)
        rows: dict[str, list[Any]] = {
            "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
            "photo": [f"{split}/{file.name}" for file in files],
        }
        pq.write_table(pa.table(rows), tmp_path / "set" / f"{split}.parquet")
    reading = Reading(image_column="photo")
    pack(str(tmp_path / "set"), tmp_path / "store", side=SIDE, reading=reading)
    assert len(load_dataset(str(tmp_path / "store")).train) == 20
    (tmp_path / "set" / "train" / files[0].name).write_bytes(files[1].read_bytes() + b" ")
    with pytest.raises(DataError, match="have changed: 1 changed"):
        load_dataset(str(tmp_path / "store"))


def test_a_store_may_have_more_shards_than_a_process_has_files(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, refused = pixels_module._pages, []

    def few(path: Path, access: int) -> Any:
        if not refused:
            refused.append(path)
            raise OSError(errno.EMFILE, "Too many open files")
        return pages(path, access)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(pixels_module, "_pages", few)
    try:
        pixels_of(load_dataset(str(packed)).train)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refused


def test_a_folder_may_have_a_name_of_any_bytes(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff"))
    folder.mkdir()
    for number in range(4):
        Image.fromarray(DIGITS[number].astype(np.uint8)).save(folder / f"{number}.png")
    manifest = pack(str(folder), tmp_path / "store", side=SIDE)
    assert Path(manifest.origin) == folder
    assert len(load_dataset(str(tmp_path / "store")).train) == 4
