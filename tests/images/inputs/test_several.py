"""Several data sets as one: images of all, labels where classes agree, and a spec that resumes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stopgrad
from stopgrad.cli import main
from stopgrad.config import ALL_BANDS, Reading
from stopgrad.errors import DataError
from stopgrad.images import Dataset, load_dataset, spec_of_several, specs_of
from tests.factories import write_digits

PIXELS = np.random.default_rng(4).integers(0, 256, (12, 8, 8, 3), np.uint8)


def put(root: Path, *names: str, first: int = 0) -> Path:
    for number, name in enumerate(names, first):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[number]).save(path)
    return root


def both(*specs: object) -> Dataset:
    return load_dataset(spec_of_several([str(spec) for spec in specs]))


def unused(found: Dataset, what: str) -> list[str]:
    return [name for group in found.notes.unused if group.what == what for name in group.names]


CATS_AND_DOGS = ("cat/0.png", "cat/1.png", "dog/2.png", "dog/3.png")


@pytest.mark.input(
    "command", what="--data A --data B", happens="the images of both are for training"
)
def test_images_of_all_sources_follow_each_other(tmp_path: Path) -> None:
    one = put(tmp_path / "one", "0.png", "1.png")
    two = put(tmp_path / "two", "0.png", "1.png", "2.png", first=2)
    found = both(two, one)
    assert found.name == "two + one"
    assert (found.train.pixels == PIXELS[[2, 3, 4, 0, 1]]).all()
    assert found.train.sources == ("two/0.png", "two/1.png", "two/2.png", "one/0.png", "one/1.png")
    assert found.train.labels is None


@pytest.mark.input(
    "label", what="several data sets with the same classes", happens="their labels are used"
)
def test_labels_of_the_same_classes_count(tmp_path: Path) -> None:
    one = put(tmp_path / "a" / "train", *CATS_AND_DOGS).parent
    put(one / "test", "dog/9.png", first=9)
    np.savez(
        tmp_path / "b.npz",
        images=PIXELS[4:8],
        labels=np.array([1, 0, 0, 1]),
        class_names=np.array(["dog", "cat"]),
    )
    found = both(one, tmp_path / "b.npz")
    assert found.train.class_names == ("cat", "dog")
    # 1 is the cat of b.npz
    assert found.train.labels.tolist() == [0, 0, 1, 1, 0, 1, 1, 0]
    assert found.test.labels.tolist() == [1]
    assert found.test.sources == ("a/dog/9.png",)


@pytest.mark.input(
    "label", what="one labelled data set among several", happens="its labels are used; reported"
)
def test_only_labelled_source_gives_the_labels(tmp_path: Path) -> None:
    labelled = put(tmp_path / "few", *CATS_AND_DOGS)
    many = put(tmp_path / "many", *[f"{n}.png" for n in range(5)], first=4)
    found = both(many, labelled)
    assert found.train.labels.tolist() == [-1] * 5 + [0, 0, 1, 1]
    assert found.notes.remarks[-1] == "only few has labels"


@pytest.mark.input(
    "label",
    what="several data sets with different classes",
    happens="no labels; each data set is listed",
)
def test_labels_of_classes_that_differ_are_named_and_not_used(tmp_path: Path) -> None:
    pets = put(tmp_path / "pets", *CATS_AND_DOGS)
    cars = put(tmp_path / "cars", "bus/0.png", "bus/1.png", "van/2.png", "van/3.png", first=4)
    found = both(pets, cars)
    assert len(found.train) == 8
    assert found.train.labels is None
    assert found.train.class_names == ()
    assert unused(found, "label") == [
        f"{name}/train:{n}" for name in ("pets", "cars") for n in range(4)
    ]
    assert found.notes.unused[0].reason == "the classes of pets and cars differ"


@pytest.mark.parametrize("channels", [2, 4, 5])
@pytest.mark.input(
    "layout",
    what="several stores of 4 or any number of bands",
    happens="each band is a channel, as in a single store; --bands applies to files beside them",
)
def test_stores_of_bands_mean_together_what_each_means_alone(channels: int, tmp_path: Path) -> None:
    values = np.random.default_rng(8).integers(0, 256, (6, 8, 8, channels), np.uint8)
    for name, part in (("a", values[:4]), ("b", values[4:])):
        np.save(tmp_path / f"{name}.npy", part)
        stopgrad.pack(tmp_path / f"{name}.npy", tmp_path / name, bands="all")
    found = both(tmp_path / "a", tmp_path / "b").train
    assert (found.pixels == values).all()
    files = spec_of_several([str(tmp_path / "a"), str(tmp_path / "b.npy")])
    mixed = load_dataset(files, reading=Reading(bands=ALL_BANDS)).train
    assert (mixed.pixels == values).all()


def test_bands_chosen_of_files_leave_a_store_beside_them_as_it_is(tmp_path: Path) -> None:
    values = np.random.default_rng(8).integers(0, 256, (4, 8, 8, 5), np.uint8)
    np.save(tmp_path / "b.npy", values)
    three = {"bands": "4,3,2"}
    stopgrad.pack(tmp_path / "b.npy", tmp_path / "store", **three)
    found = stopgrad.load([tmp_path / "store", tmp_path / "b.npy"], **three).dataset.train
    assert (found.pixels == np.concatenate([values[..., [3, 2, 1]]] * 2)).all()


def test_bands_beside_a_store_alone_are_not_passed_over_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.random.default_rng(8).integers(0, 256, (4, 8, 8, 5), np.uint8)
    np.save(tmp_path / "b.npy", values)
    stopgrad.pack(tmp_path / "b.npy", tmp_path / "store", bands="all")
    assert not caplog.messages
    found = load_dataset(str(tmp_path / "store"), reading=Reading(bands=(4, 3, 2))).train
    assert (found.pixels == values).all()
    assert caplog.messages == ["b: a store keeps the bands and white level it was packed with"]


@pytest.mark.input(
    "layout",
    what="several data sets with different numbers of channels",
    happens="refused; the error gives the number of each data set",
)
def test_sources_that_differ_in_channels_are_refused_in_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", np.zeros((4, 8, 8, 4), np.uint8))
    stopgrad.pack(tmp_path / "b.npy", tmp_path / "store", bands="all")
    one = put(tmp_path / "one", "0.png")
    with pytest.raises(DataError, match="different numbers of channels: 4 in b, 3 in one"):
        both(tmp_path / "store", one)
    with pytest.raises(DataError, match="3 in one, 4 in b"):
        load_dataset(
            spec_of_several([str(one), str(tmp_path / "b.npy")]),
            reading=Reading(bands=ALL_BANDS),
        )
    assert both(one, tmp_path / "b.npy").train.pixels.shape == (5, 8, 8, 3)  # laid over white


def test_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one, two = (
        put(tmp_path / "x" / "images", "0.png"),
        put(tmp_path / "y" / "images", "0.png", first=1),
    )
    assert both(one, two).train.sources == ("x/images/0.png", "y/images/0.png")


def test_source_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    one = put(tmp_path / "one", "0.png")
    with pytest.raises(DataError, match="named twice"):
        both(one, f"{tmp_path}/./one")


def test_notes_of_each_source_carry_its_name(tmp_path: Path) -> None:
    one = put(tmp_path / "one", "0.png")
    images = {"x_train": PIXELS[:2], "x_val": PIXELS[2:4], "x_test": PIXELS[4:6]}
    np.savez(tmp_path / "two.npz", **images, y_train=np.arange(3))
    found = both(one, tmp_path / "two.npz")
    assert unused(found, "image") == ["two/x_val:0", "two/x_val:1"]
    assert found.notes.remarks[0].startswith("two: the labels in 'y_train' are not used")


def test_spec_of_several_is_one_text_and_that_of_one_is_itself() -> None:
    assert spec_of_several(["cifar10"]) == "cifar10"
    assert specs_of("a [b].png") == ("a [b].png",)
    several = spec_of_several(["a b", "ü", spec_of_several(["c", "d"])])
    assert specs_of(several) == ("a b", "ü", "c", "d")


def test_command_learns_from_both_and_its_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(tmp_path / "digits", train=40, test=20)
    pixels = np.zeros((20, 28, 28), np.uint8)
    pixels[:, :14] = np.arange(20)[:, None, None] * 12
    np.save(tmp_path / "more.npy", pixels)
    monkeypatch.chdir(tmp_path)
    both = ["--data", "digits", "--data", "more.npy"]
    small = ["--preset", "tiny", "--batch", "16"]
    assert main(["pretrain", *both, "--out", "run", *small, "--epochs", "2"]) == 0
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert json.loads(kept["spec"]) == [str(tmp_path / "digits"), str(tmp_path / "more.npy")]
    assert kept["images"] == 60
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = str(tmp_path / "run")
    assert main(["resume", run, "--extend", "3"]) == 0
    assert main(["evaluate", run]) == 0
    assert main(["embed", run, "--out", "features.npy"]) == 0
    assert np.load("features.npy").shape[0] == 80
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", run, *both]) == 0
    assert main(["check-data", "digits", "more.npy", *small, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["pictures"] == {"train": 60, "test": 20}
    assert main(["pack", "digits", "more.npy", "--out", "store", "--side", "28"]) == 0
    packed = load_dataset(str(tmp_path / "store"))
    assert packed.train.fingerprint == kept["fingerprint"]
    np.save(tmp_path / "more.npy", pixels[::-1])
    with pytest.raises(DataError, match=r"have changed: 1 changed \('more/more\.npy'\)"):
        load_dataset(str(tmp_path / "store"))


def test_several_are_named_in_a_list_in_python(tmp_path: Path) -> None:
    one, two = put(tmp_path / "one", "0.png"), put(tmp_path / "two", "0.png", first=1)
    found = stopgrad.load([one, str(two)])
    assert len(found.dataset.train) == 2
    assert json.loads(found.spec) == [str(one), str(two)]


@pytest.mark.input(
    "command",
    what="--data FOLDER --data FOLDER/INNER",
    happens="a message says how many images are read twice",
)
def test_images_that_are_read_twice_are_counted(tmp_path: Path) -> None:
    for name in ("cat/0", "cat/1", "dog/2", "dog/3", "dog/4"):
        path = tmp_path / "all" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), int(name[-1])).save(path)
    inner = spec_of_several([str(tmp_path / "all"), str(tmp_path / "all" / "dog")])
    assert "3 images are read twice: dog lies in all" in load_dataset(inner).notes.remarks
    (tmp_path / "all" / "train").mkdir()  # all else in all/ is not read then
    (tmp_path / "all" / "cat").rename(tmp_path / "all" / "train" / "cat")
    assert not any("twice" in remark for remark in load_dataset(inner).notes.remarks)


@pytest.mark.input(
    "oddity",
    what="--data of 12 bits and --data of 16 bits",
    happens="one white level for both, which is reported; stores keep their own",
)
def test_sources_that_one_white_level_does_not_fit_are_named(tmp_path: Path) -> None:
    for name, most in (("xray", 4095), ("ct", 65535), ("other", 4000)):
        (tmp_path / name).mkdir()
        values = np.full((8, 8), most, np.uint16)
        values[0] = 0
        for number in range(2):
            Image.fromarray(values).save(tmp_path / name / f"{number}.png")
    found = both(tmp_path / "xray", tmp_path / "ct")
    assert found.train.pixels[0].max() == 16  # 4,095 / 257 = 15.9
    told = "separately it would be 4,095 in xray, 65,535 in ct"
    assert [told in remark for remark in found.notes.remarks] == [True]
    same = both(tmp_path / "xray", tmp_path / "other").notes.remarks
    assert not any("separately it would be" in remark for remark in same)
    stores = [tmp_path / "one", tmp_path / "two"]
    for name, store in zip(("xray", "ct"), stores, strict=True):
        stopgrad.pack(tmp_path / name, store, side=8)
    apart = both(*stores)
    assert apart.train.pixels[0].max() == 255
    assert not any("separately it would be" in remark for remark in apart.notes.remarks)
