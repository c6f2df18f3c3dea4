"""Other images for a run become pixels as the run's own did, whatever lies next to them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import stopgrad
from stopgrad.export import SimSiamEmbedder

SMALL = {"preset": "tiny", "epochs": 1, "batch": 16, "views.size": 8}


def _write(folder: Path, images: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for number, values in enumerate(images):
        Image.fromarray(values).save(folder / f"{number:02}.png")
    return folder


def _deep(count: int, high: int, seed: int = 0) -> list[np.ndarray]:
    """16-bit images, the first ones dark."""
    chance = np.random.default_rng(seed)
    scales = high * np.linspace(0.1, 1, count)
    return [(chance.random((12, 12)) * scale).astype(np.uint16) for scale in scales]


def _colours(count: int, size: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    chance = np.random.default_rng(seed)
    return list(chance.integers(0, 256, (count, *size, 3), dtype=np.uint8))


@pytest.mark.input(
    "oddity",
    what="a few 12-bit images given to a run trained on more of them",
    happens="scaled by the levels of the run",
)
def test_a_file_has_the_same_features_alone_and_among_the_images_of_the_run(
    tmp_path: Path,
) -> None:
    whole = _write(tmp_path / "whole", _deep(32, 4000))
    run = stopgrad.pretrain(whole, out=tmp_path / "run", **SMALL)
    own = run.embed()
    dark = _write(tmp_path / "dark", _deep(32, 4000)[:4])
    assert np.array_equal(run.embed(dark), own[:4])
    arrays = np.stack(_deep(32, 4000)[:4])
    assert np.array_equal(run.embed(arrays), own[:4])


@pytest.mark.input(
    "oddity",
    what="an image of another size among those given to a run",
    happens="cropped to a centred square and resized to the size of the run's images",
)
def test_an_odd_file_changes_no_features_of_the_others(tmp_path: Path) -> None:
    whole = _colours(16, (12, 12))
    run = stopgrad.pretrain(_write(tmp_path / "whole", whole), out=tmp_path / "run", **SMALL)
    own = run.embed()
    odd = _write(tmp_path / "odd", [*whole[:4], np.full((20, 30, 3), 9, np.uint8)])
    found = run.embed(odd)
    assert (len(found), np.array_equal(found[:4], own[:4])) == (5, True)


@pytest.mark.input(
    "oddity",
    what="images of one other size, in files or in memory, given to a run trained on squares",
    happens="cropped to centred squares and resized to the run's size, alone or among others",
)
def test_images_of_another_size_are_seen_at_that_of_the_run(tmp_path: Path) -> None:
    whole = _colours(16, (12, 12))
    run = stopgrad.pretrain(_write(tmp_path / "whole", whole), out=tmp_path / "run", **SMALL)
    small = _colours(4, (8, 9), seed=1)
    alone = run.embed(_write(tmp_path / "alone", small))
    among = run.embed(_write(tmp_path / "among", [*small, whole[0]]))
    assert np.array_equal(among[:4], alone)
    assert np.array_equal(run.embed(np.stack(small)), alone)


def test_a_runs_own_images_named_again_are_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    whole = _colours(16, (12, 12))
    folder = _write(tmp_path / "whole", whole)
    run = stopgrad.pretrain(folder, out=tmp_path / "run", **SMALL)
    assert np.array_equal(run.embed(folder), run.embed())
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 1


@pytest.mark.input(
    "oddity",
    what="files given to a run trained on an array of squares larger than image_size",
    happens="read at the size of the array",
)
def test_files_are_seen_at_the_size_of_the_array_that_a_run_learned_from(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    whole = chance.integers(0, 256, (16, 40, 40, 3), dtype=np.uint8)
    run = stopgrad.pretrain(whole, out=tmp_path / "run", **SMALL)
    own = run.embed(whole)
    assert np.array_equal(run.embed(_write(tmp_path / "files", list(whole[:4]))), own[:4])


@pytest.mark.input(
    "oddity",
    what="splits whose images have more than 8 bits and differ in their range",
    happens="all read with the levels of the run",
)
def test_a_split_that_is_brighter_than_the_training_images_is_scored(tmp_path: Path) -> None:
    for split, count, high in (("train", 16, 1000), ("val", 6, 4000), ("test", 6, 1000)):
        for seed, name in enumerate(("cat", "dog")):
            _write(tmp_path / "set" / split / name, _deep(count, high, seed))
    run = stopgrad.pretrain(tmp_path / "set", out=tmp_path / "run", **SMALL, **{"knn.k": 5})
    [score] = run.evaluate(split="val", of="encoder", metrics="knn_accuracy").rows
    assert (score["split"], score["images_scored"]) == ("val", 12)


@pytest.mark.input(
    "oddity",
    what="files given to a run trained on a store that was packed with --bands",
    happens="read with the bands of the store",
)
def test_files_are_read_by_the_bands_of_the_store_that_a_run_learned_from(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for number in range(24):
        values = chance.integers(0, 256, (12, 12, 4), dtype=np.uint8)
        file = tmp_path / "set" / f"{number:02}.tif"
        tifffile.imwrite(file, values, photometric="rgb", extrasamples=["unspecified"])
    stopgrad.pack(tmp_path / "set", tmp_path / "store", bands="4,1,2")
    run = stopgrad.pretrain(tmp_path / "store", out=tmp_path / "run", **SMALL)
    own = run.embed()
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert np.array_equal(run.embed(tmp_path / "copy"), own)
    [found] = run.neighbors(tmp_path / "set" / "05.tif").rows
    assert found["neighbors"][0]["similarity"] == pytest.approx(1)


@pytest.mark.input(
    "oddity",
    what="16-bit files given to `SimSiamEmbedder.transform`",
    happens="scaled by the levels of the images it was fitted to",
)
def test_a_fitted_embedder_gives_a_file_the_same_features_in_any_batch(tmp_path: Path) -> None:
    files = sorted(_write(tmp_path / "set", _deep(20, 4000)).iterdir())
    config = {"views.size": 8}
    fitted = SimSiamEmbedder("tiny", epochs=1, batch=16, config=config).fit(files)
    expected = fitted.transform(files)
    assert np.array_equal(fitted.transform(files[:3]), expected[:3])
    fitted.save(tmp_path / "embedder.safetensors")
    again = SimSiamEmbedder.load(tmp_path / "embedder.safetensors")
    assert np.array_equal(again.transform(files[:3]), expected[:3])
