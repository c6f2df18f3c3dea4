"""Claims about `embedding`: every image once, in order, in a file that is whole or absent."""

import csv
import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import stopgrad.export.embedding as module
from stopgrad.cli import main
from stopgrad.errors import DivergedError, LockedError, StorageError
from stopgrad.export import embed_dataset
from stopgrad.images import Dataset, images_from_arrays, load_dataset
from stopgrad.runs import TrainedRun, load_run
from stopgrad.runs import setup as evaluate_run
from stopgrad.storage import lock
from tests import factories
from tests.training.factories import encoder_run

T = TypeVar("T")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return encoder_run(tmp_path_factory.mktemp("embedding") / "run")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """70 real digits and 20 others, with labels."""
    return factories.digits(70, 20)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 16)  # 5 and 2 blocks


def _by_hand(run: TrainedRun, dataset: Dataset) -> np.ndarray:
    """The encoder on each image, normalised by (0.1, 0.2, 0.3) and 1."""
    assert dataset.test is not None
    pixels = np.concatenate([dataset.train.pixels, dataset.test.pixels])
    x = (pixels.astype(np.float32) / 255 - np.float32([0.1, 0.2, 0.3])).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        return run.model.encoder(torch.from_numpy(x.copy())).numpy()


def test_each_format_holds_every_image_once_and_in_order(
    run: TrainedRun, digits: Dataset, tmp_path: Path
) -> None:
    assert digits.test is not None
    wanted = _by_hand(run, digits)
    made = embed_dataset(run, digits, out=tmp_path / "f.parquet")
    assert (made.rows, made.width, made.kept) == (90, 64, 0)
    table = pq.read_table(tmp_path / "f.parquet")
    found = np.stack(table["features"].to_numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert table["split"].to_pylist() == ["train"] * 70 + ["test"] * 20
    assert table["path"].to_pylist() == [*digits.train.sources, *digits.test.sources]
    labels = [*digits.train.labels.tolist(), *digits.test.labels.tolist()]
    assert table["label"].to_pylist() == labels
    assert table["class_name"].to_pylist() == [str(label) for label in labels]

    embed_dataset(run, digits, out=tmp_path / "f.npy")
    assert np.array_equal(np.load(tmp_path / "f.npy"), found)
    embed_dataset(run, digits, out=tmp_path / "f.csv")
    for name, width in (("f.rows.csv", 0), ("f.csv", 64)):
        rows = list(csv.reader((tmp_path / name).read_text().splitlines()))
        assert rows[0] == ["path", "split", "label", "class_name", *(f"f{i}" for i in range(width))]
        assert [row[2] for row in rows[1:]] == [str(label) for label in labels]
        if width:
            numbers = np.array([row[4:] for row in rows[1:]], np.float32)
            assert np.array_equal(numbers, found)  # no digit is lost
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("f.csv", "f.npy", "f.parquet", "f.rows.csv")
    ]


def test_images_without_labels_and_a_run_of_other_images(
    run: TrainedRun, digits: Dataset, tmp_path: Path
) -> None:
    bare = Dataset("bare", images_from_arrays(digits.train.pixels[:20]), None)
    embed_dataset(run, bare, out=tmp_path / "f.parquet")
    table = pq.read_table(tmp_path / "f.parquet")
    assert table["label"].null_count == table["class_name"].null_count == 20
    assert table["path"].to_pylist()[:2] == ["train:0", "train:1"]


def test_an_image_without_a_label_among_others_has_none_in_the_table(
    run: TrainedRun, digits: Dataset, tmp_path: Path
) -> None:
    some = replace(digits.train.take(np.arange(3)), labels=np.array([2, -1, 0]))
    embed_dataset(run, Dataset("some", some, None), out=tmp_path / "f.parquet")
    table = pq.read_table(tmp_path / "f.parquet")
    assert table["label"].to_pylist() == [2, None, 0]
    assert table["class_name"].to_pylist() == ["2", None, "0"]


def test_z_is_the_projector_on_the_features(
    run: TrainedRun, digits: Dataset, tmp_path: Path
) -> None:
    embed_dataset(run, digits, out=tmp_path / "z.npy", layer="z")
    with torch.inference_mode():
        wanted = run.model.projector(torch.from_numpy(_by_hand(run, digits)))
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), wanted, rtol=1e-3, atol=1e-4)


class KilledError(Exception):
    """Stands for a kill between two blocks."""


def _dying_after(blocks: int) -> Any:
    def track(items: Iterable[T], description: str, total: int, /) -> Iterator[T]:
        for number, item in enumerate(items):
            if number == blocks:
                raise KilledError
            yield item

    return track


def test_one_that_died_goes_on_and_the_file_is_the_same(
    run: TrainedRun, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_dataset(run, digits, out=tmp_path / "whole.npy")
    out = tmp_path / "dead.npy"
    with pytest.raises(KilledError):
        embed_dataset(run, digits, out=out, track=_dying_after(3))
    assert not out.exists()
    first = tmp_path / ".dead.npy.parts" / "000001.npy"
    first.write_bytes(first.read_bytes()[:-8])  # cut short: done anew
    done = []
    embed = module.embed
    monkeypatch.setattr(module, "embed", lambda *a, **k: done.append(len(a[1])) or embed(*a, **k))
    made = embed_dataset(run, digits, out=out)
    assert made.kept == 32
    assert done == [16, 16, 6, 16, 4]
    assert out.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert not (tmp_path / ".dead.npy.parts").exists()


def test_blocks_of_other_weights_or_images_are_not_used(
    run: TrainedRun, digits: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "f.npy"
    other = encoder_run(tmp_path / "other", seed=9)
    for start, images in ((other, digits), (run, digits._replace(test=None))):
        with pytest.raises(KilledError):
            embed_dataset(start, images, out=out, track=_dying_after(3))
        assert embed_dataset(run, digits, out=out).kept == 0
    np.testing.assert_allclose(np.load(out), _by_hand(run, digits), rtol=1e-4, atol=1e-5)


def test_a_full_disk_leaves_the_file_that_was_there(
    run: TrainedRun, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "f.csv"
    embed_dataset(run, digits, out=out)
    before = out.read_bytes()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("stopgrad.export.embedding._csv", full)
        with pytest.raises(StorageError, match="No space left"):
            embed_dataset(run, digits, out=out)
    assert out.read_bytes() == before
    assert not (tmp_path / ".f.csv.tmp").exists()
    assert embed_dataset(run, digits, out=out).kept == 90  # nothing was computed in vain


def test_a_file_is_written_by_one_process(run: TrainedRun, digits: Dataset, tmp_path: Path) -> None:
    parts = tmp_path / ".f.npy.parts"
    parts.mkdir()
    with lock(parts), pytest.raises(LockedError):
        embed_dataset(run, digits, out=tmp_path / "f.npy")


def test_blocks_that_another_user_may_have_written_are_not_used(
    run: TrainedRun, digits: Dataset, tmp_path: Path
) -> None:
    out, parts = tmp_path / "f.npy", tmp_path / ".f.npy.parts"
    with pytest.raises(KilledError):
        embed_dataset(run, digits, out=out, track=_dying_after(3))
    assert parts.stat().st_mode & 0o777 == 0o700
    parts.chmod(0o770)  # for a group; the blocks are whole, and yet may be of anybody in it
    with pytest.raises(StorageError, match="another user can write to"):
        embed_dataset(run, digits, out=out)
    assert not out.exists()
    parts.chmod(0o750)
    assert embed_dataset(run, digits, out=out).kept == 48


def test_features_that_are_not_finite_are_refused(digits: Dataset, tmp_path: Path) -> None:
    broken = encoder_run(tmp_path / "run")
    with torch.no_grad():
        broken.model.encoder.bn1.running_var.fill_(-1.0)
    with pytest.raises(DivergedError, match="not finite"):
        embed_dataset(broken, digits, out=tmp_path / "f.npy")
    assert not (tmp_path / "f.npy").exists()


@pytest.mark.parametrize(
    ("out", "said"),
    [
        *((out, "ends in .parquet, .csv, .npy") for out in ("f", "f.txt", "f.parquet.gz", "run")),
        ("file/f.npy", "/file; expected a file in a folder with write permission"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, said: str
) -> None:
    (tmp_path / "file").touch()
    assert main(["embed", "no run", "--out", str(tmp_path / out)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_too_little_room_is_said_before_anything_is_computed(
    run: TrainedRun, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * 90 * run.model.encoder.feature_width * 4  # blocks, and the file of them
    usage = type("usage", (), {"free": needed - 1})
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=f"{needed:,} bytes needed"):
        embed_dataset(run, digits, out=tmp_path / "f.npy")
    assert not list(tmp_path.rglob("0*.npy"))
    usage.free = needed
    assert embed_dataset(run, digits, out=tmp_path / "f.npy").rows == 90


def test_damaged_images_may_be_left_out(
    run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(30):
        pixels = np.full((32, 32, 3), number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (folder / "07.png").write_bytes(b"no image")
    words = ["embed", str(run.path), "--data", str(folder), "--out", str(tmp_path / "f.csv")]
    assert main(words) == 3
    assert "--bad-images skip" in capsys.readouterr().err
    assert main([*words, "--bad-images", "skip"]) == 0
    with (tmp_path / "f.csv").open() as file:
        names = [row["path"] for row in csv.DictReader(file)]
    assert len(names) == 29
    assert not any("07" in name for name in names)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with a GPU takes it")
def test_a_run_of_a_gpu_is_read_without_one_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = encoder_run(tmp_path / "run")
    of_a_gpu = made.info._replace(config=dataclasses.replace(made.info.config, device="cuda"))
    monkeypatch.setattr(evaluate_run, "read_run", lambda path: of_a_gpu)
    run = load_run(tmp_path / "run")
    assert run.compute.device.type == "cpu"
    assert "device = cuda, which is not available here" in caplog.text


def test_a_backbone_of_fixed_sizes_embeds_images_of_any_larger_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vit = {"encoder.name": "timm:test_vit", "views.size": 32}  # its data would be of 37 px
    run = encoder_run(tmp_path / "run", **vit)
    folder, out = tmp_path / "images", tmp_path / "f.npy"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number, side in enumerate((37, 60, 41)):
        pixels = chance.integers(0, 256, (side, side, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    assert main(["embed", str(run.path), "--data", str(folder), "--out", str(out)]) == 0
    pixels = load_dataset(str(folder), side=37).train.pixels
    small = torch.nn.functional.interpolate(
        torch.from_numpy(pixels[:]).permute(0, 3, 1, 2).float(), 32, mode="bicubic", antialias=True
    )
    small = small.round().clamp(0, 255)
    x = small / 255 - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    with torch.inference_mode():
        wanted = run.model.encoder(x).numpy()
    np.testing.assert_allclose(np.load(out), wanted, atol=1e-4)
    for path in folder.iterdir():
        Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
    capsys.readouterr()
    assert main(["embed", str(run.path), "--data", str(folder), "--out", str(out)]) == 2
    assert "timm:test_vit at 20 x 20 px" in capsys.readouterr().err.splitlines()[-1]
