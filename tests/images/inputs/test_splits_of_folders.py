"""Folders of images: which folder is which split, which is scored, and what is said of it."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stopgrad.config import Reading
from stopgrad.errors import ConfigError, DataError
from stopgrad.images import Dataset, load_dataset, spec_of_several
from tests.images.factories import each, put
from tests.inputs import row


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def both(dataset: Dataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return dataset.train.sources, () if dataset.test is None else dataset.test.sources


def layout(what: str, names: list[str], train: list[str], test: list[str], happens: str) -> Any:
    return row(what, happens, names, train, test, kind="layout")


CATS, DOGS = ["cat/0.png", "cat/1.png"], ["dog/0.png", "dog/1.png"]


@pytest.mark.parametrize(
    ("names", "train", "test"),
    [
        layout(
            "Training/CLASS and Testing/CLASS",
            each("Training/cat", "Training/dog", "Testing/cat"),
            CATS + DOGS,
            CATS,
            "Training is for training, Testing is scored",
        ),
        layout(
            "train2017 and val2017 with loose images (COCO)",
            each("train2017", "val2017"),
            ["0.png", "1.png"],
            ["0.png", "1.png"],
            "two splits without labels",
        ),
        layout(
            "train_images/CLASS and validation_images/CLASS",
            each("train_images/cat", "train_images/dog", "validation_images/dog"),
            CATS + DOGS,
            DOGS,
            "two splits",
        ),
        layout(
            "trn, dev",
            each("trn/cat", "trn/dog", "dev/dog"),
            CATS + DOGS,
            DOGS,
            "dev is scored",
        ),
        layout(
            "seg_train/seg_train/CLASS and seg_test/seg_test/CLASS (Intel scenes)",
            each("seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/dog"),
            CATS + DOGS,
            DOGS,
            "two splits; the repeated folder is not a class",
        ),
        layout(
            "data/train/CLASS and data/test/CLASS beside notebooks/",
            [*each("data/train/cat", "data/train/dog", "data/test/cat"), "notebooks/plot.png"],
            CATS + DOGS,
            CATS,
            "two splits; notebooks/ is listed, not read",
        ),
        layout(
            "images/train and images/val (YOLO)",
            each("images/train", "images/val"),
            ["0.png", "1.png"],
            ["0.png", "1.png"],
            "two splits without labels",
        ),
        layout(
            "train/images and valid/images (YOLO)",
            each("train/images", "valid/images"),
            ["images/0.png", "images/1.png"],
            ["images/0.png", "images/1.png"],
            "two splits without labels",
        ),
        layout(
            "train/images/CLASS and test/images/CLASS",
            each("train/images/cat", "train/images/dog", "test/images/dog"),
            CATS + DOGS,
            DOGS,
            "images/ is not a class",
        ),
        layout(
            "archive/train/CLASS, one folder around all",
            each("archive/train/cat", "archive/train/dog", "archive/val/dog"),
            CATS + DOGS,
            DOGS,
            "the outer folder is ignored",
        ),
        layout(
            "Training Data/train and Training Data/test",
            each("Training Data/train/cat", "Training Data/train/dog", "Training Data/test/cat"),
            CATS + DOGS,
            CATS,
            "the inner folders are the splits",
        ),
        layout(
            "CLASS/train and CLASS/test",
            each("cat/train", "cat/test", "dog/train", "dog/test"),
            CATS + DOGS,
            CATS + DOGS,
            "two splits; the outer folders are the classes",
        ),
        layout(
            "class folders beside test/CLASS",
            each("cat", "dog", "test/cat", "test/dog"),
            CATS + DOGS,
            CATS + DOGS,
            "test/ is scored, the rest is for training",
        ),
        layout(
            "loose images beside test/",
            ["0.png", "1.png", "2.png", *each("test")],
            ["0.png", "1.png", "2.png"],
            ["0.png", "1.png"],
            "test/ is scored, the loose images are for training",
        ),
        layout(
            "archive/CLASS, one folder around the class folders",
            each("archive/cat", "archive/dog"),
            CATS + DOGS,
            [],
            "the inner folders are the classes",
        ),
        layout(
            "trainA, trainB, testA, testB (CycleGAN)",
            each("trainA", "trainB", "testA", "testB"),
            ["trainA/0.png", "trainA/1.png", "trainB/0.png", "trainB/1.png"],
            ["0.png", "1.png"],
            "trainA and trainB are both for training; testA is scored, testB is listed",
        ),
        layout(
            "train/CLASS/images (Tiny ImageNet)",
            each("train/cat/images", "train/dog/images", "val/dog/images"),
            CATS + DOGS,
            DOGS,
            "the outer folder is the class",
        ),
        layout(
            "train/CLASS and test/CLASS",
            each("train/cat", "train/dog", "test/cat"),
            CATS + DOGS,
            CATS,
            "two splits",
        ),
    ],
)
def test_the_split_of_an_image_is_told_by_its_folder(
    root: Path, names: list[str], train: list[str], test: list[str]
) -> None:
    put(root, *names)
    found = load_dataset(str(root))
    assert both(found) == (tuple(train), tuple(test))
    used = len(train) + len(test)
    assert used + found.notes.count("image") == len(names)
    if train[0].startswith("cat/"):
        assert found.train.class_names == ("cat", "dog")
        assert found.test is None or found.test.labels is not None


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (each("valid", "invalid"), ("invalid", "valid")),
        (each("test", "bus", "car"), ("bus", "car", "test")),
        (each("train", "bus", "car"), ("bus", "car", "train")),
        (each("dev", "ops", "sales"), ("dev", "ops", "sales")),
    ],
    ids=["valid, invalid", "test, bus, car", "train, bus, car", "dev, ops, sales"],
)
@pytest.mark.input(
    "layout",
    what="class folders, one of which is named like a split",
    happens="all are classes; reported",
)
def test_a_folder_with_the_name_of_a_split_beside_classes_is_a_class(
    root: Path, names: list[str], classes: tuple[str, ...]
) -> None:
    put(root, *names)
    found = load_dataset(str(root))
    assert found.train.class_names == classes
    assert found.test is None
    assert any("is taken for a class" in remark for remark in found.notes.remarks)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (each("test", "val"), "test"),
        (each("test2017"), "test2017"),
        (each("Validation/cat", "Validation/dog"), "Validation"),
    ],
    ids=["test and val", "test2017 alone", "Validation alone"],
)
@pytest.mark.input(
    "layout",
    what="only splits to score (test/, val/)",
    happens="refused; the error names the folder to train on",
)
def test_images_to_score_alone_are_not_learned_from_unasked(
    root: Path, names: list[str], hint: str
) -> None:
    put(root, *names)
    with pytest.raises(DataError, match=f"no images to train on .*--data {root / hint}"):
        load_dataset(str(root))
    assert len(load_dataset(str(root / hint)).train) == len([n for n in names if hint in n])


def split_choice(what: str, names: list[str], scored: str, count: int, happens: str) -> Any:
    return row(what, happens, names, scored, count, kind="layout")


@pytest.mark.parametrize(
    ("names", "scored", "count"),
    [
        split_choice(
            "train/CLASS, val/CLASS and a flat test/ (competitions, ILSVRC)",
            [*each("train/cat", "train/dog", "val/cat"), *each("test", count=5)],
            "validation",
            2,
            "val/ is scored; the images of test/ are listed",
        ),
        split_choice(
            "test/ with one inner folder that is not a class (test/test/, test/unknown/)",
            [*each("train/cat", "train/dog", "valid/dog"), *each("test/unknown", count=3)],
            "validation",
            2,
            "the split whose folders are classes is scored",
        ),
        split_choice(
            "train, test and val, all with classes",
            each("train/cat", "train/dog", "test/cat", "val/cat", "val/dog"),
            "",
            2,
            "test/ is scored; the images of val/ are listed",
        ),
        split_choice(
            "dev/CLASS and a flat Testing/",
            [*each("training/cat", "training/dog", "dev/dog"), *each("Testing")],
            "validation",
            2,
            "dev/ is scored",
        ),
    ],
)
def test_of_several_splits_the_first_with_labels_is_scored(
    root: Path, names: list[str], scored: str, count: int
) -> None:
    put(root, *names)
    found = load_dataset(str(root))
    assert found.test is not None
    assert found.test.labels is not None
    assert (len(found.test), found.notes.scored) == (count, scored)
    assert len(found.train) + count + found.notes.count("image") == len(names)


def test_a_wanted_split_is_scored_and_never_mistaken_for_another(root: Path) -> None:
    put(root, *each("train/cat", "train/dog", "test/cat", "val/cat"))
    for name in ("test/cat/0.png", "test/cat/1.png"):  # equal in name, size and date
        (root / name.replace("test", "val")).write_bytes((root / name).read_bytes())
    Image.fromarray(np.full((4, 4), 99, np.uint8)).save(root / "val/cat/0.png", compress_level=0)
    Image.fromarray(np.full((4, 4), 11, np.uint8)).save(root / "test/cat/0.png", compress_level=0)
    for file in root.glob("*/cat/*.png"):
        os.utime(file, (1, 1))
    pixels = {}
    for split in ("", "test", "val", "validation", "VAL"):
        test = load_dataset(str(root), reading=Reading(split)).test
        assert test is not None
        pixels[split] = int(test.pixels[0, 0, 0, 0])
    assert pixels == {"": 11, "test": 11, "val": 99, "validation": 99, "VAL": 99}
    with pytest.raises(ConfigError, match=r"split = 'query'; expected one of auto, test, val"):
        load_dataset(str(root), reading=Reading("query"))


def test_a_wanted_split_has_its_classes_below_a_folder_called_images(root: Path) -> None:
    splits = ("train", "test", "extra")
    put(root, *each(*(f"{split}/images/{name}" for split in splits for name in "ab")))
    found = load_dataset(str(root), reading=Reading(split="extra"))
    assert found.test is not None
    assert found.test.labels is not None
    assert found.test.labels.tolist() == [0, 0, 1, 1]


def test_splits_below_two_folders_are_found_beside_another_folder(root: Path) -> None:
    """As in New Plant Diseases, of Kaggle."""
    put(root, *each("a b/a b/train/x", "a b/a b/train/y", "a b/a b/valid/x", "test/test"))
    found = load_dataset(str(root))
    assert found.train.class_names == ("x", "y")
    assert len(found.train) == 4
    assert found.test is not None
    assert found.test.labels.tolist() == [0, 0]
    assert found.notes.count("image") == 2


@pytest.mark.input(
    "label",
    what="only a flat test/ beside train/CLASS",
    happens="test/ is read without labels",
)
def test_a_flat_test_split_has_no_labels(root: Path) -> None:
    put(root, *each("train/cat", "train/dog", "test"))
    found = load_dataset(str(root))
    assert found.train.labels is not None
    assert found.test is not None
    assert (len(found.test), found.test.labels) == (2, None)


@pytest.mark.input(
    "label",
    what="loose images and unknown classes in a test split",
    happens="those images have no label and are listed",
)
def test_images_of_unknown_classes_are_scored_without_a_label_and_named(root: Path) -> None:
    put(root, *each("train/cat", "train/dog", "test/cat", "test/yak"), "test/loose.png")
    found = load_dataset(str(root))
    assert found.test is not None
    assert found.test.labels is not None
    assert found.test.labels.tolist() == [0, 0, -1, -1, -1]
    unused = {group.reason: group.names for group in found.notes.unused if group.what == "label"}
    assert unused == {"'yak' is not in train": ("test/yak/0.png", "test/yak/1.png")}
    assert any("'loose.png'" in remark for remark in found.notes.remarks)


@pytest.mark.input(
    "layout",
    what="folders beside train/ that are not splits (unlabeled/, notes/)",
    happens="their images are listed, not read; a message says how to train on them",
)
def test_what_lies_beside_train_is_named(root: Path) -> None:
    put(root, *each("train/a", "train/b", "test/a", "val/a"), "unlabeled/x.png", "notes/y.png")
    found = load_dataset(str(root))
    unused = {group.reason: group.names for group in found.notes.unused}
    assert unused == {
        "beside train/ and test/": ("notes/y.png", "unlabeled/x.png"),
        "test/ is scored instead of val/": ("val/a/0.png", "val/a/1.png"),
    }
    folder = root / "unlabeled"
    command = f"to learn from {folder}: stopgrad pretrain --data {folder}, "
    assert any(remark.startswith(command) for remark in found.notes.remarks)


@pytest.mark.input(
    "layout",
    what="labeled/CLASS beside a flat unlabeled/",
    happens="labeled/ is for training; a message says how to train on the other",
)
@pytest.mark.parametrize("names", [("labeled", "unlabeled"), ("Labelled", "Unlabelled")])
def test_labels_of_a_labelled_folder_count(root: Path, names: tuple[str, str]) -> None:
    one, other = names
    put(root, *each(f"{one}/a", f"{one}/b"), f"{other}/x.png")
    found = load_dataset(str(root))
    assert found.train.class_names == ("a", "b")
    assert found.notes.unused == (("image", f"beside {one}/", (f"{other}/x.png",)),)
    assert any("to learn from" in remark for remark in found.notes.remarks)


@pytest.mark.parametrize(
    ("names", "used"),
    [
        (each("images", "masks", count=3), 3),
        (each("train/images", "train/masks", "test/images", "test/masks"), 4),
        (each("images/training", "images/validation", "annotations/training"), 4),
        (each("JPEGImages", "SegmentationClass", "SegmentationObject", count=3), 3),
    ],
    ids=["images, masks", "in each split", "ADE20K", "VOC"],
)
@pytest.mark.input(
    "layout",
    what="masks as PNG beside images/ (segmentation data)",
    happens="the masks are listed, not trained on",
)
def test_masks_beside_images_are_not_learned_from(root: Path, names: list[str], used: int) -> None:
    put(root, *names)
    found = load_dataset(str(root))
    train, test = both(found)
    assert len(train) + len(test) == used
    (masks,) = found.notes.unused
    assert masks.reason == "masks, annotations or thumbnails beside images"
    assert len(masks.names) == len(names) - used
    assert found.train.labels is None


@pytest.mark.input(
    "layout",
    what="class folders mask/ and no_mask/",
    happens="both are classes",
)
def test_a_class_called_mask_is_a_class(root: Path) -> None:
    put(root, *each("mask", "no_mask"))
    assert load_dataset(str(root)).train.class_names == ("mask", "no_mask")


def test_several_folders_to_train_on_keep_their_classes_and_names(root: Path) -> None:
    put(root, *each("train_1/cat", "train_1/dog", "train_2/cat", "train_2/dog", "test/dog"))
    found = load_dataset(str(root))
    assert found.train.class_names == ("cat", "dog")
    assert found.train.sources[:2] == ("train_1/cat/0.png", "train_1/cat/1.png")
    assert len(set(found.train.sources)) == 8
    assert found.train.labels is not None
    assert found.train.labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_beside_train_no_other_folder_is_learned_from(root: Path) -> None:
    put(root, *each("train/cat", "train/dog", "trainval/cat", "train_full/dog"))
    found = load_dataset(str(root))
    assert found.train.sources == (*CATS, *DOGS)
    ((_, reason, names),) = found.notes.unused
    assert (reason, len(names)) == ("beside train/", 4)


def test_a_folder_called_images_is_no_class_of_a_test_split(root: Path) -> None:
    put(root, *each("train/cat", "train/dog", "test/images"))
    found = load_dataset(str(root))
    assert found.test is not None
    assert found.test.labels is None
    assert found.notes.unused == ()


@pytest.mark.input(
    "layout",
    what="cat/train and cat/test beside test/",
    happens="the images of test/ are listed",
)
def test_a_folder_of_the_same_name_as_an_inner_split_is_named(root: Path) -> None:
    put(root, *each("cat/train", "cat/test"), "test/9.png")
    found = load_dataset(str(root))
    assert [group.names for group in found.notes.unused] == [("test/9.png",)]


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        row("fold1/CLASS, fold2/CLASS", "no labels; a message says how to train on all "
            "with labels",
            ("fold1", "fold2", "fold3"), ("cat", "dog"), kind="layout"),
        row("siteA/CLASS, siteB/CLASS", "no labels; a message says how to train on all "
            "with labels",
            ("siteA", "siteB"), ("benign", "malignant"), kind="layout"),
        row("2019/CLASS, 2020/CLASS inside another folder",
            "no labels; a message says how to train on all with labels",
            ("data/2019", "data/2020"), ("0", "1", "2"), kind="layout"),
    ],
)  # fmt: skip
def test_classes_one_level_too_deep_are_said(
    root: Path, outer: tuple[str, ...], inner: tuple[str, ...]
) -> None:
    put(root, *each(*(f"{first}/{second}" for first in outer for second in inner)))
    found = load_dataset(str(root))
    assert found.train.labels is None
    (remark,) = found.notes.remarks
    assert f"with the same names ({', '.join(map(repr, inner))})" in remark
    flags = " ".join(f"--data {root / folder}" for folder in outer)
    assert remark.endswith(flags)
    joined = load_dataset(spec_of_several([str(root / folder) for folder in outer])).train
    assert joined.class_names == inner
    assert joined.labels is not None
    assert np.bincount(joined.labels).tolist() == [2 * len(outer)] * len(inner)


@pytest.mark.parametrize(
    "names",
    [
        each("2019/cat", "2020/dog"),  # no name twice
        each("part0/day0", "part0/day1", "part1/day0", "part1/day1"),  # a series
        each("a/b/cat", "a/b/dog", "a/c/cat"),  # at several depths, but for one
        ["a/cat/0.png", "b/cat/0.png", "a/dog/0.png", "b/dog/0.png", *each("c", count=3)],
    ],
)
def test_folders_that_are_no_classes_are_not_said_to_be(root: Path, names: list[str]) -> None:
    put(root, *names)
    assert not any("same names" in remark for remark in load_dataset(str(root)).notes.remarks)


@pytest.mark.parametrize(
    ("names", "scored"),
    [
        row("tr/CLASS and te/CLASS, nothing else beside them", "two splits", ("tr", "te"), "te",
            kind="layout"),
        row("tr/CLASS, va/CLASS and te/CLASS", "te/ is scored", ("TR", "VA", "TE"), "TE",
            kind="layout"),
        row("tr/CLASS and va/CLASS", "va/ is scored", ("tr", "va"), "va", kind="layout"),
        row("en/, te/ and tr/ (languages)", "three classes, no splits", ("en", "te", "tr"), "",
            kind="layout"),
    ],
)  # fmt: skip
def test_short_names_of_splits_count_with_no_others_beside_them(
    root: Path, names: tuple[str, ...], scored: str
) -> None:
    inner = ("/cat", "/dog") if scored else ("",)
    put(root, *each(*(f"{name}{folder}" for name in names for folder in inner)))
    found = load_dataset(str(root))
    assert found.train.class_names == (("cat", "dog") if scored else names)
    told = [f"to train on: {names[0]}/; to score: {scored}/"] if scored else []
    assert list(found.notes.remarks) == told


@pytest.mark.input(
    "label",
    what="classes only in the names of images (cat.0.jpg, dog_1.jpg)",
    happens="not used as labels; reported, with what to do",
)
def test_classes_in_names_are_said(root: Path) -> None:
    put(root, *(f"train/{of}.{n}.png" for of in ("cat", "great_dog") for n in range(3)))
    (remark,) = load_dataset(str(root)).notes.remarks
    assert remark.startswith("no labels from names ('cat' 3, 'great_dog' 3): if those are classes")


def test_numbered_names_of_one_kind_hold_no_classes(root: Path) -> None:
    put(root, *(f"IMG_{n}.png" for n in range(3)), "other.png")
    assert load_dataset(str(root)).notes.remarks == ()
