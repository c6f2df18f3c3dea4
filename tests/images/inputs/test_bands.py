"""Images of any number of bands, each a channel of the encoder: read, stored, trained on, shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import stopgrad
from stopgrad.cli import main
from stopgrad.config import ALL_BANDS, Reading, ViewsConfig, preset, torch_generator
from stopgrad.errors import ConfigError, DataError
from stopgrad.export import PretrainedEncoder
from stopgrad.images import DamagedImagesError, Images, Normalization, load_dataset, normalization
from stopgrad.images.sources.array_images import stack_layout
from stopgrad.method import random_table, views_of
from tests.inputs import row

COUNT, SIDE, BANDS = 40, 12, 13
DEEP = np.random.default_rng(0).integers(0, 3001, (COUNT, SIDE, SIDE, BANDS)).astype(np.uint16)
EIGHT = np.rint(DEEP * (255 / 4095)).astype(np.uint8)  # 3,000 has 12 bits: 4,095 is white
LABELS = np.arange(COUNT) % 2
ALL = Reading(bands=ALL_BANDS)


def as_tiff(path: Path) -> None:
    for number, image in enumerate(DEEP):
        file = path / "ab"[LABELS[number]] / f"{number:02d}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(file, image, photometric="minisblack", planarconfig="contig")


def as_npy(path: Path) -> None:
    path.mkdir()
    np.save(path / "images.npy", DEEP)
    np.save(path / "labels.npy", LABELS)


def as_channels_first(path: Path) -> None:
    path.mkdir()
    np.save(path / "images.npy", np.moveaxis(DEEP, 3, 1))
    np.save(path / "labels.npy", LABELS)


def as_files_of_one(path: Path) -> None:
    for number, image in enumerate(DEEP):
        (path / "ab"[LABELS[number]]).mkdir(parents=True, exist_ok=True)
        one = np.moveaxis(image[..., :5], 2, 0)  # with fewer bands than its sides have pixels
        np.save(path / "ab"[LABELS[number]] / f"{number:02d}.npy", one)


def as_npz(path: Path) -> None:
    path.mkdir()
    np.savez(path / "set.npz", images=DEEP, labels=LABELS)


def as_hdf5(path: Path) -> None:
    path.mkdir()
    with h5py.File(path / "set.h5", "w") as file:
        file["images"], file["labels"] = DEEP, LABELS


WRITERS = {
    "TIFF": as_tiff,
    "NumPy .npy": as_npy,
    "NumPy .npy, channels first": as_channels_first,
    "NumPy .npz": as_npz,
    "HDF5": as_hdf5,
}


def in_order(images: Images) -> Any:
    """Pixels with those of the first class first, as folders of classes have them."""
    assert images.labels is not None
    return images.pixels[np.argsort(images.labels, kind="stable")]


@pytest.mark.parametrize(
    "write",
    [
        row(
            f"{name} of 13 bands, --bands all",
            "each band is a channel; train on them with --encoder.channels 13",
            write,
        )
        for name, write in WRITERS.items()
    ],
)
def test_all_bands_are_read_and_scaled_by_one_white_level(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path / "set")
    expected = np.concatenate([EIGHT[LABELS == 0], EIGHT[LABELS == 1]])
    found = load_dataset(str(tmp_path / "set"), reading=ALL)
    assert np.array_equal(in_order(found.train), expected)
    assert "12 bits: 4,095 is white" in found.notes.remarks[-1]
    again = load_dataset(str(tmp_path / "set"), reading=ALL).train  # from the cache
    assert np.array_equal(in_order(again), expected)
    assert again.fingerprint == found.train.fingerprint
    two = load_dataset(str(tmp_path / "set"), reading=Reading(bands=(13, 2)))
    white = 2 ** int(DEEP[..., [12, 1]].max()).bit_length() - 1
    assert np.array_equal(
        in_order(two.train),
        np.rint(DEEP[..., [12, 1]] * (255 / white))[np.argsort(LABELS % 2, kind="stable")],
    )


@pytest.mark.input(
    "format",
    what="NumPy .npy files, each with one image of 5 bands",
    happens="with --bands all, each band becomes a channel",
)
def test_files_of_one_image_are_read_by_their_bands(tmp_path: Path) -> None:
    as_files_of_one(tmp_path / "set")
    found = load_dataset(str(tmp_path / "set"), reading=ALL).train
    assert found.class_names == ("a", "b")
    assert np.array_equal(found.pixels[1], EIGHT[2, ..., :5])  # the second of class a


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_without_bands_one_line_names_the_flags(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path / "set")
    with pytest.raises(DataError, match=r"--bands all --encoder\.channels 13"):
        load_dataset(str(tmp_path / "set"))


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ((9, 5, 8, 8), True),
        ((9, 8, 8, 5), False),
        ((9, 8, 8, 13), False),
        ((9, 13, 8, 8), True),
        ((9, 2, 8, 9), True),
        ((9, 8, 9, 2), False),
        ((9, 5, 5, 5), False),
    ],
)
def test_bands_are_the_axis_beside_two_equal_ones_or_the_shorter(
    shape: tuple[int, ...], first: bool
) -> None:
    layout = stack_layout(shape, np.dtype(np.uint8), bands=True)
    assert layout is not None
    assert layout.channels_first is first
    assert stack_layout(shape, np.dtype(np.uint8)) is None


def test_each_band_is_resized_as_a_gray_image_is(tmp_path: Path) -> None:
    bands = EIGHT[0]
    (tmp_path / "set").mkdir()
    how = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "set" / "x.tif", bands, **how)
    found = load_dataset(str(tmp_path / "set"), side=5, reading=ALL).train.pixels[0]
    for band in range(BANDS):
        gray = Image.fromarray(np.ascontiguousarray(bands[..., band]))
        expected = gray.resize((5, 5), Image.Resampling.BICUBIC)
        assert np.array_equal(found[..., band], np.asarray(expected))


@pytest.mark.input(
    "oddity",
    what="--bands all where images differ in their number of bands",
    happens="those that differ from the first image are listed as damaged",
)
def test_an_image_of_other_bands_than_the_first_is_named(tmp_path: Path) -> None:
    as_tiff(tmp_path / "set")
    tifffile.imwrite(tmp_path / "set" / "b" / "x.tif", DEEP[0, ..., :12], photometric="minisblack",
                     planarconfig="contig")  # fmt: skip
    with pytest.raises(DamagedImagesError, match=r"b/x\.tif.*12 bands, but the first image has 13"):
        load_dataset(str(tmp_path / "set"), reading=ALL)
    found = load_dataset(str(tmp_path / "set"), reading=ALL, bad_images="skip")
    assert len(found.train) == COUNT
    assert [image.name for image in found.damaged] == ["b/x.tif"]


@pytest.mark.input(
    "oddity",
    what="--bands all for RGB, RGBA and gray images",
    happens="read as 3 channels, 4 channels, gray",
)
def test_all_bands_of_ordinary_images_are_their_channels(tmp_path: Path) -> None:
    pixels = EIGHT[0, ..., :4]
    for kind, channels in (("L", 1), ("RGB", 3), ("RGBA", 4)):
        (tmp_path / kind).mkdir()
        values = pixels[..., 0] if channels == 1 else pixels[..., :channels]
        Image.fromarray(np.ascontiguousarray(values)).save(tmp_path / kind / "x.png")
        found = load_dataset(str(tmp_path / kind), reading=ALL).train.pixels[0]
        expected = np.repeat(pixels[..., :1], 3, 2) if channels == 1 else values
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["array", "tensor", "list"])
def test_images_in_memory_keep_their_bands(kind: str) -> None:
    tensor = torch.from_numpy(np.moveaxis(EIGHT[..., :5], 3, 1).copy())
    held: Any = {"array": EIGHT[..., :5], "tensor": tensor, "list": [*tensor]}[kind]
    how = {"bands": "all"} if kind == "list" else {}
    data = stopgrad.load(held, labels=LABELS, **how)
    assert "of 5 bands" in repr(data)
    assert np.array_equal(data.dataset.train.pixels, EIGHT[..., :5])
    chosen = stopgrad.load(held, bands="5,3,1").dataset.train
    assert np.array_equal(chosen.pixels, EIGHT[..., [4, 2, 0]])


def test_the_normalisation_is_that_of_each_band() -> None:
    found = normalization(stopgrad.load(EIGHT).dataset.train, channels=BANDS)
    values = EIGHT.reshape(-1, BANDS) / 255
    assert found.mean == pytest.approx(values.mean(0))
    assert found.std == pytest.approx(values.std(0))


def test_views_of_bands_are_cropped_flipped_and_blurred_and_nothing_else() -> None:
    pixels = torch.from_numpy(np.moveaxis(EIGHT[:4], 3, 1).copy())
    table = random_table(torch_generator(0, "views"), views=8)
    one, many = (Normalization((0.4,) * count, (0.2,) * count) for count in (1, BANDS))
    every = ViewsConfig(size=8, jitter=1.0, grayscale=1.0, blur=1.0)
    found = torch.cat(views_of(pixels, table, config=every, normalization=many))
    plain = ViewsConfig(size=8, jitter=0.0, grayscale=0.0, blur=1.0)
    for band in range(BANDS):
        alone = views_of(pixels[:, [band]], table, config=plain, normalization=one)
        assert torch.allclose(found[:, [band]], torch.cat(alone), atol=1e-6)
    sharp = ViewsConfig(size=8, blur=0.0)
    assert not torch.allclose(
        found, torch.cat(views_of(pixels, table, config=sharp, normalization=many))
    )


def test_only_a_store_of_bands_is_of_the_second_format(tmp_path: Path) -> None:
    as_npy(tmp_path / "set")
    stopgrad.pack(tmp_path / "set", tmp_path / "many", bands="all")
    stopgrad.pack(tmp_path / "set", tmp_path / "three", bands="4,3,2")
    many, three = (
        json.loads((tmp_path / name / "stopgrad-store.json").read_text())
        for name in ("many", "three")
    )
    assert (many["format"], many["channels"]) == (2, BANDS)
    assert three["format"] == 1
    assert "channels" not in three
    found = load_dataset(str(tmp_path / "many")).train
    assert np.array_equal(found.pixels[:], EIGHT)
    assert found.known == normalization(stopgrad.load(EIGHT).dataset.train, channels=BANDS)
    assert main(["verify", str(tmp_path / "many")]) == 0


@pytest.mark.parametrize(
    ("bands", "channels", "line"),
    [
        ("all", 3, "images of 13 channels for encoder.channels = 3"),
        ("all", 1, "images of 13 channels for encoder.channels = 1"),
        ("1,2,3,4", 13, "images of 4 channels for encoder.channels = 13"),
        ("4,3,2", 13, "images of 3 channels for encoder.channels = 13"),
    ],
)
@pytest.mark.input(
    "command",
    what="--bands and --encoder.channels with different numbers",
    happens="refused; one line gives both numbers and the flag",
)
def test_bands_must_be_as_many_as_the_channels(
    bands: str, channels: int, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_npy(tmp_path / "set")
    words = ["--data", str(tmp_path / "set"), "--out", str(tmp_path / "run"), "--preset", "tiny"]
    flags = ["--bands", bands, "--encoder.channels", str(channels)]
    assert main(["pretrain", *words, *flags]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert line in last
    assert ("--encoder.channels" in last) or ("--bands" in last)
    assert not (tmp_path / "run").exists()


def test_no_channels_are_none() -> None:
    with pytest.raises(ConfigError, match=r"encoder.channels = 0"):
        preset("tiny", **{"encoder.channels": 0})


KNOBS = ["--views.size", "8", "--batch", "16", "--bands", "all", "--encoder.channels", "13"]


@pytest.mark.input(
    "command",
    what="--bands all --encoder.channels 13",
    happens="all commands work; views skip colour jitter and grayscale",
)
def test_a_run_on_bands_is_checked_trained_scored_shown_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_npz(tmp_path / "set")
    data, run = ["--data", str(tmp_path / "set")], str(tmp_path / "run")
    assert main(["check-data", *data, "--preset", "tiny", *KNOBS, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["damaged"] == []
    assert "--bands all --encoder.channels 13" in told["suggestion"]["flags"]
    words = ["pretrain", *data, "--preset", "tiny", "--epochs", "1", *KNOBS]
    assert main([*words, "--out", run]) == 0
    said = capsys.readouterr().err
    assert "12 x 12 px of 13 bands" in said
    assert said.count("views of 13 channels skip colour jitter and grayscale") == 1
    card = json.loads((tmp_path / "run" / "config.json").read_text())
    assert card["data"]["views"] == "views of 13 channels skip colour jitter and grayscale"
    assert len(card["normalization"]["mean"]) == 13
    assert main(["evaluate", run]) == 0
    assert main(["embed", run, *data, "--out", str(tmp_path / "features.npy")]) == 0
    assert main(["neighbors", run, "--out", str(tmp_path / "near.png")]) == 0
    assert main(["report", run]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Of 13 bands the first three are shown as red, green and blue." in page
    assert main(["views", *data, "--out", str(tmp_path / "views.png"), *KNOBS]) == 0
    assert "Of 13 bands the first three" in capsys.readouterr().err
    for kind, name in (("safetensors", "e.safetensors"), ("onnx", "e.onnx"), ("hub", "hub")):
        assert main(["export", run, "--format", kind, "--out", str(tmp_path / name)]) == 0
    pixels = load_dataset(str(tmp_path / "set"), reading=ALL).train.pixels[:]
    expected = np.load(tmp_path / "features.npy")
    for model in (
        PretrainedEncoder.from_file(tmp_path / "e.safetensors"),
        PretrainedEncoder.from_pretrained(tmp_path / "hub"),
    ):
        assert np.allclose(model.embed(torch.from_numpy(pixels)), expected, atol=1e-4)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "e.onnx"))
    mean, std = (np.float32(model.normalization[place]) for place in (0, 1))
    x = ((pixels / np.float32(255) - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
    assert np.allclose(session.run(None, {"x": x})[0], expected, atol=1e-3)


def test_a_store_of_bands_and_the_same_array_give_the_same_run(tmp_path: Path) -> None:
    as_tiff(tmp_path / "set")
    store = stopgrad.pack(tmp_path / "set", tmp_path / "store", bands="all")
    found = stopgrad.check(str(tmp_path / "store"), preset="tiny", **{"encoder.channels": 13})
    assert found.verdict.startswith(f"pretraining would start with {COUNT} images")
    sorted_ = np.concatenate([EIGHT[LABELS == 0], EIGHT[LABELS == 1]])
    held = stopgrad.load(sorted_, labels=np.sort(LABELS), class_names=["a", "b"])
    knobs: dict[str, Any] = {"views.size": 8, "epochs": 1, "batch": 16, "encoder.channels": 13}
    runs = [
        stopgrad.pretrain(data, out=tmp_path / name, preset="tiny", **knobs)
        for name, data in (("a", store), ("b", held), ("c", str(tmp_path / "store")))
    ]
    first, *others = (run.encoder.state_dict() for run in runs)
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)
    scores = runs[1].evaluate(labels=1.0, data=held)
    assert {score.of for score in scores} == {"encoder", "untrained", "pixels"}


def test_a_supervised_run_and_finetuning_take_bands(tmp_path: Path) -> None:
    data = stopgrad.load(EIGHT, labels=LABELS)
    knobs: dict[str, Any] = {"views.size": 8, "epochs": 1, "batch": 16, "encoder.channels": 13}
    run = stopgrad.pretrain(data, out=tmp_path / "run", preset="tiny", **knobs)
    tuned = run.finetune(1.0, data=data, **{"finetune.epochs": 1, "finetune.batch": 16})
    assert [score.metric for score in tuned] == ["finetune_accuracy"]
    found = stopgrad.supervised(data, out=tmp_path / "sup", preset="tiny", **knobs)
    assert [score.metric for score in found] == ["supervised_accuracy"]
