"""Files of arrays: which array is what, how its values are read, and what is said of the rest."""

import gzip
import io
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

import stopgrad
from stopgrad.config import Reading
from stopgrad.errors import ConfigError, DataError
from stopgrad.images import load_dataset
from tests.images.inputs.factories import (
    COLOUR,
    GRAY,
    LABELS,
    idx,
    labels,
    npy,
    put_cifar,
    saved,
    unused,
)
from tests.inputs import row

CHANCE = np.random.default_rng(3)
SQUARE = CHANCE.integers(0, 256, (6, 3, 8, 8), np.uint8)  # (N, 3, S, S)


LAYOUTS = [
    row("NumPy array (N, H, W, 3) of bytes", "read unchanged", COLOUR, COLOUR, kind="layout"),
    row(
        "NumPy array (N, 3, H, W), channels first",
        "recognised by its shape and transposed",
        COLOUR.transpose(0, 3, 1, 2),
        COLOUR,
        kind="layout",
    ),
    row(
        "NumPy array in Fortran order",
        "read like any other",
        np.asfortranarray(COLOUR),
        COLOUR,
        kind="layout",
    ),
    row(
        "NumPy array (N, H, W), gray",
        "read as gray, in three equal channels",
        GRAY,
        GRAY[..., None],
        kind="layout",
    ),
    row(
        "NumPy array (N, 1, H, W), gray",
        "read as gray, in three equal channels",
        GRAY[:, None],
        GRAY[..., None],
        kind="layout",
    ),
    row(
        "NumPy array (N, 3 * S * S), flat rows of planes",
        "read like the rows of CIFAR",
        np.concatenate([SQUARE.reshape(6, -1)] * 200),
        np.concatenate([SQUARE.transpose(0, 2, 3, 1)] * 200),
        kind="layout",
    ),
    row(
        "NumPy array (N, H, W, 4), with alpha",
        "composited over white",
        np.concatenate([COLOUR, np.full((6, 10, 12, 1), 255, np.uint8)], axis=3),
        COLOUR,
        kind="layout",
    ),
    row(
        "float32 array from 0 to 1",
        "scaled: 1 is white; reported",
        (COLOUR / 255).astype(np.float32),
        COLOUR,
        kind="oddity",
    ),
    row(
        "float64 array from 0 to 255",
        "255 is white; reported",
        COLOUR.astype(np.float64),
        COLOUR,
        kind="oddity",
    ),
    row(
        "float16 array from -1 to 1",
        "scaled: -1 is black, 1 is white; reported",
        (np.array([0, 51, 255]).reshape(3, 1, 1, 1) * np.ones((1, 8, 8, 3)) / 127.5 - 1).astype(
            np.float16
        ),
        np.array([0, 51, 255]).reshape(3, 1, 1, 1) * np.ones((1, 8, 8, 3), int),
        kind="oddity",
    ),
    row(
        "int64 array from 0 to 255",
        "255 is white; reported",
        COLOUR.astype(np.int64),
        COLOUR,
        kind="oddity",
    ),
    row(
        "boolean array",
        "false is black, true is white",
        GRAY > 127,
        np.where(GRAY > 127, 255, 0)[..., None],
        kind="oddity",
    ),
    row(
        "big-endian uint16 array",
        "65535 is white",
        (GRAY.astype(np.uint16) * 257).astype(">u2"),
        GRAY[..., None],
        kind="oddity",
    ),
]


@pytest.mark.parametrize(("array", "expected"), LAYOUTS)
def test_array_of_any_layout_and_type_is_read(tmp_path: Path, array: Any, expected: Any) -> None:
    np.save(tmp_path / "images.npy", array)
    found = load_dataset(str(tmp_path / "images.npy"))
    assert (found.train.pixels == np.broadcast_to(expected, found.train.pixels.shape)).all()
    assert found.train.pixels.shape == (*expected.shape[:3], 3)
    assert found.train.sources[1] == "images:1"
    said = {"float": "floating-point images are scaled", "int64": "255 is white"}
    expected = ["read as alpha"] if array.shape[3:] == (4,) else []
    expected += [text for kind, text in said.items() if array.dtype.name.startswith(kind)]
    assert [text in remark for text, remark in zip(expected, found.notes.remarks, strict=True)] == [
        True for _ in expected
    ]


def put_mnist(folder: Path, *, pack: bool) -> None:
    for split, rows in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        for name, array in (("images-idx3", GRAY[rows]), ("labels-idx1", LABELS[rows])):
            data = idx(array)
            file = folder / f"{split}-{name}-ubyte{'.gz' if pack else ''}"
            file.write_bytes(gzip.compress(data) if pack else data)


def put_npz(folder: Path, **names: Any) -> None:
    saved(folder / "set.npz", **names)


def put_pcam(folder: Path) -> None:
    for split, rows in (("train", slice(0, 4)), ("valid", slice(4, 5)), ("test", slice(4, 6))):
        begin = f"camelyonpatch_level_2_split_{split}"
        saved(folder / f"{begin}_x.h5", x=COLOUR[rows])
        saved(folder / f"{begin}_y.h5", y=LABELS[rows].reshape(-1, 1, 1, 1).astype(np.uint8))


SETS = [
    row(
        "MNIST's idx files",
        "t10k is the test split",
        lambda folder: put_mnist(folder, pack=False),
        GRAY[..., None],
    ),
    row(
        "MNIST's idx files, compressed with gzip",
        "read; no need to unpack them",
        lambda folder: put_mnist(folder, pack=True),
        GRAY[..., None],
    ),
    row(
        "Keras npz with x_train, y_train, x_test, y_test",
        "two splits with labels",
        lambda folder: put_npz(
            folder, x_train=COLOUR[:4], y_train=LABELS[:4], x_test=COLOUR[4:], y_test=LABELS[4:]
        ),
        COLOUR,
    ),
    row(
        "npz with trainX, trainY, testX, testY",
        "capitals separate the words",
        lambda folder: put_npz(
            folder, trainX=COLOUR[:4], trainY=LABELS[:4], testX=COLOUR[4:], testY=LABELS[4:]
        ),
        COLOUR,
    ),
    row(
        "one-hot labels",
        "read as classes",
        lambda folder: put_npz(
            folder,
            xtrain=COLOUR[:4],
            ytrain=np.eye(3)[LABELS[:4]],
            xtest=COLOUR[4:],
            ytest=np.eye(3)[LABELS[4:]],
        ),
        COLOUR,
        kind="label",
    ),
    row(
        "X_train.npy, y_train.npy, X_test.npy, y_test.npy",
        "a folder with these files is one data set",
        lambda folder: [
            np.save(folder / f"{name}_{split}.npy", array[rows])
            for split, rows in (("train", slice(0, 4)), ("test", slice(4, 6)))
            for name, array in (("X", COLOUR), ("y", LABELS))
        ],
        COLOUR,
    ),
    row(
        "CIFAR's binary version",
        "the data batches together are one split",
        put_cifar,
        np.arange(6).reshape(6, 1, 1, 1),
    ),
    row(
        "HDF5 with groups train and test that hold images and labels",
        "the groups are the splits",
        lambda folder: saved(
            folder / "set.h5",
            **{
                "train/images": COLOUR[:4],
                "train/labels": LABELS[:4],
                "test/images": COLOUR[4:],
                "test/labels": LABELS[4:],
            },
        ),
        COLOUR,
    ),
    row("PatchCamelyon's six HDF5 files", "test is scored; valid is listed", put_pcam, COLOUR),
    row(
        "MATLAB files with X (H, W, 3, N) and y, as in SVHN",
        "transposed to (N, H, W, 3)",
        lambda folder: [
            saved(
                folder / f"{split}.mat", X=COLOUR[rows].transpose(1, 2, 3, 0), y=LABELS[rows, None]
            )
            for split, rows in (("train_8x8", slice(0, 4)), ("test_8x8", slice(4, 6)))
        ],
        COLOUR,
    ),
]


@pytest.mark.parametrize(("put", "expected"), SETS)
def test_splits_and_labels_are_told_by_the_names_of_arrays(
    tmp_path: Path, put: Any, expected: Any
) -> None:
    (tmp_path / "set").mkdir()
    put(tmp_path / "set")
    found = load_dataset(str(tmp_path / "set"))
    assert found.test is not None
    assert (len(found.train), len(found.test)) == (4, 2)
    pixels = np.concatenate([found.train.pixels, found.test.pixels])
    assert (pixels == np.broadcast_to(expected, pixels.shape)).all()
    assert (labels(found), found.test.labels.tolist()) == ([0, 1, 2, 2], [1, 0])
    assert unused(found, "label") == []


@pytest.mark.input(
    "format", what="MedMNIST npz", happens="test is scored; the images of val are listed"
)
def test_medmnist_scores_test_and_names_the_images_of_val(tmp_path: Path) -> None:
    arrays = {
        f"{split}_{what}": array[rows]
        for split, rows in (("train", slice(0, 3)), ("val", slice(3, 4)), ("test", slice(4, 6)))
        for what, array in (("images", GRAY), ("labels", LABELS[:, None]))
    }
    spec = saved(tmp_path / "bloodmnist.npz", **arrays)
    found = load_dataset(spec)
    assert (labels(found), found.test.labels.tolist()) == ([0, 1, 2], [1, 0])
    assert found.notes.scored == ""
    assert unused(found, "image") == ["val_images:0"]
    assert "--split val" in found.notes.unused[0].reason
    other = load_dataset(spec, reading=Reading("val"))
    assert other.test.labels.tolist() == [2]
    assert other.notes.scored == "val"
    assert unused(other, "image") == ["test_images:0", "test_images:1"]
    with pytest.raises(ConfigError, match="split = 'extra'; expected one of auto, test, val"):
        load_dataset(spec, reading=Reading("extra"))


@pytest.mark.input(
    "label", what="hidden labels of a test split beside a labelled val", happens="val is scored"
)
def test_split_whose_labels_are_hidden_is_not_scored(tmp_path: Path) -> None:
    spec = saved(
        tmp_path / "set.npz",
        x_train=GRAY[:3],
        y_train=LABELS[:3],
        x_val=GRAY[3:4],
        y_val=LABELS[3:4],
        x_test=GRAY[4:],
        y_test=np.array([-1, -1]),
    )
    found = load_dataset(spec)
    assert found.notes.scored == "validation"
    assert found.test.labels.tolist() == [2]
    assert unused(found, "image") == ["x_test:0", "x_test:1"]


ODD_LABELS = [
    row(
        "text labels in npz",
        "numbered in sorted order",
        [*"bacbac"],
        [1, 0, 2, 1, 0, 2],
        "",
        kind="label",
    ),
    row(
        "labels that start at 1",
        "1..C are C classes",
        LABELS + 1,
        LABELS.tolist(),
        "1 to 3",
        kind="label",
    ),
    row(
        "whole float labels with NaN",
        "NaN is not a label",
        [0.0, 1, 2, np.nan, 1, 0],
        [0, 1, 2, -1, 1, 0],
        "1 of 6 images of train have no label",
        kind="label",
    ),
    row("boolean labels", "two classes", LABELS > 0, [0, 1, 1, 1, 1, 0], "", kind="label"),
    row(
        "-100 in an array of labels",
        "those images have no label",
        np.where(LABELS == 2, -100, LABELS),
        [0, 1, -1, -1, 1, 0],
        "2 of 6 images of train have no label",
        kind="label",
    ),
    row(
        "one-hot rows of only 0",
        "those images have no label",
        np.eye(3, dtype=np.uint8)[LABELS] * [1, 1, 0],
        [0, 1, -1, -1, 1, 0],
        "2 of 6 images of train have no label",
        kind="label",
    ),
    row(
        "an array of dates as labels",
        "not used; reported",
        np.zeros(6, "M8[D]"),
        None,
        "holds values that cannot be classes (datetime64[D])",
        kind="label",
    ),
    row(
        "labels of Python objects in npz or npy",
        "reported, not read: they could run code",
        np.array([*"abcabc"], object),
        None,
        "objects, structs or cells; save them as numbers or text",
        kind="label",
    ),
    row(
        "float labels with fractions",
        "not used; reported",
        LABELS + 0.5,
        None,
        "cannot be classes",
        kind="label",
    ),
    row(
        "several labels for each image",
        "not used; reported",
        np.ones((6, 14)),
        None,
        "several labels",
        kind="label",
    ),
    row(
        "fewer labels than images",
        "not used; reported",
        LABELS[:5],
        None,
        "5 for 6 images",
        kind="label",
    ),
    row(
        "label arrays as large as images",
        "not used; reported",
        np.ones((6, 99, 102)),
        None,
        "(6, 99, 102)",
        kind="label",
    ),
]


@pytest.mark.parametrize(("given", "expected", "remark"), ODD_LABELS)
def test_no_label_of_an_array_stops_pretraining(
    tmp_path: Path, given: Any, expected: Any, remark: str
) -> None:
    found = load_dataset(saved(tmp_path / "set.npz", images=COLOUR, labels=given))
    assert (found.train.pixels == COLOUR).all()
    assert labels(found) == expected
    assert [remark in said for said in found.notes.remarks] == [True] * bool(remark)
    assert unused(found, "file") == ([] if expected else ["labels"])


def test_npy_of_labels_that_only_pickle_reads_stops_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", COLOUR)
    np.save(tmp_path / "labels.npy", np.array([*"abcabc"], object), allow_pickle=True)
    found = load_dataset(str(tmp_path))
    assert (len(found.train), labels(found)) == (6, None)
    assert unused(found, "file") == ["labels.npy"]


@pytest.mark.input(
    "label",
    what="cell arrays and structs in .mat files",
    happens="listed: save numbers or text instead",
)
def test_cells_of_mat_are_named(tmp_path: Path) -> None:
    cells = np.array([*"abcabc"], object)
    savemat(tmp_path / "set.mat", {"images": COLOUR, "labels": cells, "about": {"year": 1}})
    found = load_dataset(str(tmp_path / "set.mat"))
    assert ((found.train.pixels == COLOUR).all(), labels(found)) == (True, None)
    assert unused(found, "file") == ["labels", "about"]


def test_class_names_may_say_none(tmp_path: Path) -> None:
    names = np.array([b"none", b"?", b"cat"])
    spec = saved(tmp_path / "set.npz", images=COLOUR, labels=LABELS, label_names=names)
    assert load_dataset(spec).train.class_names == ("none", "?", "cat")


@pytest.mark.input(
    "label", what="npz or HDF5 files of one image and one label each", happens="labels are read"
)
@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_a_single_number_is_the_label_of_its_file(tmp_path: Path, ending: str) -> None:
    for number, (image, label) in enumerate(zip(COLOUR, LABELS, strict=True)):
        if ending == "npz":
            np.savez(tmp_path / f"{number}.npz", image=image, label=label)
            continue
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["image"], file["label"] = image, label
    assert labels(load_dataset(str(tmp_path))) == LABELS.tolist()


@pytest.mark.input(
    "format",
    what="STL-10's binary version",
    happens="labels count from 1; the unlabeled images are listed",
)
def test_stl_is_read_column_by_column(tmp_path: Path) -> None:
    images = CHANCE.integers(0, 256, (5, 3, 96, 96), np.uint8)
    for name, rows in (("train", slice(0, 2)), ("test", slice(2, 4)), ("unlabeled", slice(4, 5))):
        (tmp_path / f"{name}_X.bin").write_bytes(images[rows].transpose(0, 1, 3, 2).tobytes())
    (tmp_path / "train_y.bin").write_bytes(bytes([2, 1]))
    (tmp_path / "test_y.bin").write_bytes(bytes([1, 2]))
    (tmp_path / "class_names.txt").write_text("airplane\nbird\n")
    found = load_dataset(str(tmp_path))
    assert (found.train.pixels == images[:2].transpose(0, 2, 3, 1)).all()
    assert found.train.class_names == ("airplane", "bird")
    assert (labels(found), found.test.labels.tolist()) == ([1, 0], [0, 1])
    assert unused(found, "image") == ["unlabeled_X.bin:0"]


@pytest.mark.input(
    "layout", what="HDF5 rows that are image files", happens="decoded like image files"
)
def test_hdf5_rows_that_are_image_files_are_decoded(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        rows = file.create_dataset("images", 6, h5py.vlen_dtype(np.uint8))
        for number, image in enumerate(COLOUR):
            data = io.BytesIO()
            Image.fromarray(image).save(data, format="PNG")
            rows[number] = np.frombuffer(data.getvalue(), np.uint8)
        file["labels"] = np.array([*"abcabc"], h5py.string_dtype())
    found = load_dataset(str(tmp_path / "x.h5"))
    assert (found.train.pixels == COLOUR).all()
    assert found.train.class_names == ("a", "b", "c")


@pytest.mark.input(
    "layout", what="HDF5 with one dataset per image", happens="the groups are the classes"
)
def test_hdf5_with_a_dataset_for_each_image(tmp_path: Path) -> None:
    names = ("train/cat/0", "train/cat/1", "train/dog/0", "train/dog/1", "test/dog/7")
    found = load_dataset(saved(tmp_path / "x.h5", **dict(zip(names, COLOUR, strict=False))))
    assert (found.train.pixels == COLOUR[:4]).all()
    assert found.train.class_names == ("cat", "dog")
    assert (labels(found), found.test.labels.tolist()) == ([0, 0, 1, 1], [1])


@pytest.mark.input(
    "layout",
    what="npz with other arrays beside images and labels",
    happens="each unused array is listed",
)
def test_arrays_beside_images_and_labels_are_named(tmp_path: Path) -> None:
    spec = saved(
        tmp_path / "set.npz",
        images=COLOUR,
        masks=GRAY,
        fine_labels=LABELS,
        coarse_labels=LABELS > 1,
        ids=np.arange(6),
        mean=np.zeros(3),
        label_names=np.array(["cat", "dog", "frog"]),
    )
    found = load_dataset(spec)
    assert found.train.class_names == ("cat", "dog", "frog")
    assert labels(found) == LABELS.tolist()
    assert unused(found, "file") == ["coarse_labels", "masks", "ids", "mean"]


@pytest.mark.input(
    "format",
    what="HDF5, npz or .mat with several arrays of images or of labels",
    happens="--image-column and --label-column choose one; without them, the equally good ones "
    "are listed",
)
@pytest.mark.parametrize("ending", [".h5", ".npz", ".mat"])
def test_arrays_are_chosen_by_name(ending: str, tmp_path: Path) -> None:
    arrays = {"left": COLOUR, "right": COLOUR[::-1], "labels": LABELS, "male": LABELS % 2}
    where = saved(tmp_path / f"faces{ending}", **arrays)
    with pytest.raises(DataError, match=r"\('left', 'right'\).*--image-column"):
        load_dataset(where)
    found = load_dataset(where, reading=Reading(image_column="right"))
    assert (found.train.pixels == COLOUR[::-1]).all()
    assert labels(found) == LABELS.tolist()
    assert sorted(unused(found, "file")) == ["left", "male"]
    both = load_dataset(where, reading=Reading(image_column="right", label_column="male"))
    assert labels(both) == (LABELS % 2).tolist()
    with pytest.raises(DataError, match=r"no array 'female'; expected one of .*; correct --label"):
        load_dataset(where, reading=Reading(image_column="left", label_column="female"))


def test_numbers_with_fractions_are_no_class_names(tmp_path: Path) -> None:
    fractions = np.array([0.5, 1.5, 2.5])
    spec = saved(tmp_path / "set.npz", images=COLOUR, labels=LABELS, label_names=fractions)
    found = load_dataset(spec)
    assert found.train.class_names == ("0", "1", "2")
    assert unused(found, "file") == ["label_names"]


@pytest.mark.input(
    "layout", what="one .npy file per class (QuickDraw)", happens="each file is a class"
)
def test_files_named_by_words_alone_are_classes(tmp_path: Path) -> None:
    flat = CHANCE.integers(0, 256, (600, 64), np.uint8)
    np.save(tmp_path / "full_bitmap_cat.npy", flat[:300])
    np.save(tmp_path / "full_bitmap_hot dog.npy", flat[300:])
    found = load_dataset(str(tmp_path))
    assert found.train.class_names == ("cat", "hot dog")
    assert np.bincount(found.train.labels).tolist() == [300, 300]
    assert (found.train.pixels[..., 0] == flat.reshape(600, 8, 8)).all()
    assert "class" in found.notes.remarks[0]


@pytest.mark.input(
    "layout",
    what="one .npy file per class, one of which is named train (QuickDraw)",
    happens="each file is a class",
)
def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("cat", "train", "hot dog"):
        np.save(tmp_path / f"full_bitmap_{name}.npy", CHANCE.integers(0, 256, (300, 64), np.uint8))
    found = load_dataset(str(tmp_path))
    assert set(found.train.class_names) == {"cat", "train", "hot dog"}
    assert np.bincount(found.train.labels).tolist() == [300] * 3
    assert found.test is None


def test_words_of_a_file_make_no_labels_of_images(tmp_path: Path) -> None:
    for number in range(2):
        np.savez(tmp_path / f"class_{number}.npz", COLOUR)
    assert len(load_dataset(str(tmp_path)).train) == 2 * len(COLOUR)


def test_parts_of_one_file_are_no_classes_because_one_is_called_train(tmp_path: Path) -> None:
    parts = {f"images_{part}": COLOUR for part in ("train", "query", "gallery")}
    found = load_dataset(saved(tmp_path / "set.npz", **parts))
    assert (len(found.train), found.train.labels) == (len(COLOUR), None)


def test_any_vector_of_matlab_counts_no_images(tmp_path: Path) -> None:
    others = {"rows": np.arange(GRAY.shape[2])[None]}
    found = load_dataset(saved(tmp_path / "set.mat", images=GRAY, **others))
    assert len(found.train) == len(GRAY)


@pytest.mark.input(
    "oddity",
    what="compressed copies beside array files (torchvision's MNIST/raw)",
    happens="each array is read once",
)
def test_a_packed_copy_of_a_file_is_not_read_beside_it(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("t10k", 4)):
        for kind, array in (("images-idx3", GRAY[:count]), ("labels-idx1", LABELS[:count])):
            file = tmp_path / f"{split}-{kind}-ubyte"
            file.write_bytes(idx(array))
            Path(f"{file}.gz").write_bytes(gzip.compress(idx(array)))
    found = load_dataset(str(tmp_path))
    assert (len(found.train), len(found.test)) == (6, 4)
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([*LABELS], [*LABELS[:4]])


@pytest.mark.input(
    "layout",
    what="a .mat file of gray images (H, W, N) with N labels",
    happens="the last axis counts the images",
)
def test_gray_images_of_matlab_may_be_counted_by_the_last_axis(tmp_path: Path) -> None:
    faces = np.moveaxis(GRAY, 0, 2)
    found = load_dataset(saved(tmp_path / "faces.mat", images=faces, labels=LABELS[None]))
    assert found.train.labels.tolist() == [*LABELS]
    assert (found.train.pixels[..., 0] == GRAY).all()


@pytest.mark.input(
    "layout",
    what="images and labels in separate np.savez files, as arr_0 (KMNIST)",
    happens="the file names tell which is which",
)
def test_an_array_that_numpy_named_is_what_its_file_is_called(tmp_path: Path) -> None:
    for split, count in (("train", 6), ("test", 4)):
        np.savez(tmp_path / f"kmnist-{split}-imgs.npz", GRAY[:count])
        np.savez(tmp_path / f"kmnist-{split}-labels.npz", LABELS[:count])
    found = load_dataset(str(tmp_path))
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([*LABELS], [*LABELS[:4]])
    assert unused(found, "file") == []


@pytest.mark.input(
    "oddity",
    what="archives or array files in a hidden folder and beside it",
    happens="only those beside it are read, even if all of them are in a hidden folder",
)
@pytest.mark.parametrize("ending", ["npy", "zip"])
def test_files_in_hidden_folders_are_no_data_and_the_folder_named_is(
    tmp_path: Path, ending: str
) -> None:
    root = tmp_path / ".data"
    for folder in (root, root / ".trash"):
        folder.mkdir()
        np.save(folder / "x_train.npy", COLOUR)
        if ending == "zip":
            with zipfile.ZipFile(folder / "all.zip", "w") as archive:
                archive.write(folder / "x_train.npy", "x_train.npy")
            (folder / "x_train.npy").unlink()
    assert np.array_equal(load_dataset(str(root)).train.pixels, COLOUR)


@pytest.mark.input(
    "layout", what="one .npy file per image in class folders", happens="the folders are the classes"
)
def test_npy_files_of_one_image_each_in_class_folders(tmp_path: Path) -> None:
    for split, rows in (("train", range(4)), ("test", range(4, 6))):
        for number in rows:
            file = tmp_path / split / f"class {number % 2}" / f"{number}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            array = (COLOUR[number], COLOUR[number].transpose(2, 0, 1), GRAY[number])[number % 3]
            np.save(file, array)
    found = load_dataset(str(tmp_path), side=8)
    assert labels(found) == [0, 0, 1, 1]
    assert found.test.labels.tolist() == [0, 1]
    assert found.train.sources[0] == "train/class 0/0.npy:0"


REFUSED = [
    row(
        ".npy file of Python objects",
        "refused: it could run code",
        lambda path: np.save(path / "images.npy", np.array([{}, 1], object), allow_pickle=True),
        "Python objects, which could run code.*np.stack",
    ),
    row(
        "CIFAR's Python version (pickle)",
        "refused; the error names the version to use",
        lambda path: [(path / f"data_batch_{n}").write_bytes(b"\x80\x02}q\x01") for n in (1, 2)],
        "pickle.*binary version",
    ),
    row(
        "volumes (N, D, H, W)",
        "refused; the error gives their shape",
        lambda path: np.save(path / "images.npy", np.zeros((2, 9, 9, 9), np.uint8)),
        r"no images to train on.*\(2, 9, 9, 9\)",
    ),
    row(
        "truncated npy",
        "refused with a one-line error",
        lambda path: (path / "images.npy").write_bytes(npy(COLOUR)[:-1]),
        "cannot be read",
    ),
    row(
        "truncated npz",
        "refused with a one-line error",
        lambda path: (path / "x.npz").write_bytes(
            Path(saved(path / "y.npz", x=COLOUR)).read_bytes()[:-30]
        ),
        "cannot be read",
    ),
    row(
        "npz that unpacks to far more than its size",
        "refused before it is read",
        lambda path: saved(path / "x.npz", x=np.zeros((2_000, 64, 64), np.uint8)),
        "8,192,128, more than 200 times",
    ),
    row(
        "a gzip-compressed idx file with a wrong checksum",
        "refused with a one-line error",
        lambda path: (path / "train-images-idx3-ubyte.gz").write_bytes(
            flipped(gzip.compress(idx(GRAY)), -6)
        ),
        "CRC check failed",
    ),
    row(
        "an idx file longer than its header says",
        "refused with a one-line error",
        lambda path: (path / "train-images-idx3-ubyte").write_bytes(idx(GRAY) + b"\0"),
        "continues after its 6 rows",
    ),
    row(
        "HDF5 whose values are stored in another file",
        "skipped",
        lambda path: linked(path),
        "no images to train on",
    ),
    row(
        "two data sets in one folder",
        "refused: it is unclear which one to read",
        lambda path: [
            (path / f"emnist-{name}-train-{what}").write_bytes(idx(array))
            for name in ("letters", "digits")
            for what, array in (("images-idx3-ubyte", GRAY), ("labels-idx1-ubyte", LABELS))
        ],
        "several arrays that may be the images",
    ),
]


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def linked(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    saved(elsewhere / "secret.h5", x=COLOUR)
    (elsewhere / "secret.raw").write_bytes(COLOUR.tobytes())
    with h5py.File(folder / "set.h5", "w") as file:
        file["images"] = h5py.ExternalLink(elsewhere / "secret.h5", "x")
        file["soft"] = h5py.SoftLink("/images")
        raw = [(str(elsewhere / "secret.raw"), 0, COLOUR.nbytes)]
        file.create_dataset("x", COLOUR.shape, np.uint8, external=raw)
        layout = h5py.VirtualLayout(COLOUR.shape, np.uint8)
        layout[:] = h5py.VirtualSource(elsewhere / "secret.h5", "x", COLOUR.shape)
        file.create_virtual_dataset("data", layout)
        file["loop"] = file["/"]


@pytest.mark.parametrize(("put", "line"), REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, put: Any, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stopgrad.images.sources.limits.ALWAYS", 1 << 22)
    (tmp_path / "set").mkdir()
    put(tmp_path / "set")
    with pytest.raises(DataError, match=line) as caught:
        load_dataset(str(tmp_path / "set"))
    assert "\n" not in str(caught.value)


@pytest.mark.input(
    "oddity",
    what="a value that is not a number (NaN) in an array",
    happens="black; does not count for the range",
)
def test_a_value_that_is_no_number_is_black(tmp_path: Path) -> None:
    array = (COLOUR / 255).astype(np.float32)
    array[2, 0, 0, 0] = np.nan
    np.save(tmp_path / "x.npy", array)
    expected = COLOUR.copy()
    expected[2, 0, 0, 0] = 0
    assert (load_dataset(str(tmp_path / "x.npy")).train.pixels == expected).all()


@pytest.mark.input(
    "oddity",
    what="float array from -200 to 300",
    happens="scaled: the set's smallest value is black, its largest white; reported",
)
def test_floats_of_another_range_are_scaled_by_the_set(tmp_path: Path) -> None:
    values = np.full((2, 8, 8), 50.0)
    values[0, 0, 0], values[1, 7, 7] = -200, 300
    np.save(tmp_path / "x.npy", values)
    found = load_dataset(str(tmp_path / "x.npy"))
    assert found.train.pixels[0, 0, 0, 0] == 0
    assert found.train.pixels[1, 7, 7, 0] == 255
    assert found.train.pixels[0, 7, 7, 0] == 128  # 250 of 500
    assert "-200 is black and 300 is white" in found.notes.remarks[0]


@pytest.mark.input(
    "command", what="--white-level 1000 for arrays", happens="1,000 and all values above are white"
)
def test_a_white_level_counts_for_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.full((2, 8, 8), 500, np.uint16))
    found = load_dataset(str(tmp_path / "x.npy"), reading=Reading(white_level=1000))
    assert set(found.train.pixels.flat) == {128}


@pytest.mark.input("layout", what=".npy files beside images", happens="only the images are read")
def test_folder_with_pictures_stays_a_folder_of_pictures(tmp_path: Path) -> None:
    Image.fromarray(COLOUR[0]).save(tmp_path / "1.png")
    np.save(tmp_path / "features.npy", COLOUR)
    assert len(load_dataset(str(tmp_path)).train) == 1


@pytest.mark.input(
    "layout", what=".npy and .pkl files beside Parquet", happens="the Parquet files are read"
)
def test_folder_of_parquet_stays_one(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(COLOUR[0]).save(data, format="PNG")
    pq.write_table(pa.table({"image": [{"bytes": data.getvalue()}]}), tmp_path / "train.parquet")
    np.save(tmp_path / "features.npy", COLOUR)
    (tmp_path / "cache.pkl").write_bytes(b"\x80\x04.")
    assert load_dataset(str(tmp_path)).train.sources == ("train.parquet:0",)


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    spec = saved(tmp_path / "x.npz", x=COLOUR)
    first = load_dataset(spec).train.fingerprint
    saved(tmp_path / "x.npz", x=COLOUR[::-1])
    assert load_dataset(spec).train.fingerprint != first


@pytest.mark.parametrize(
    "shape",
    [
        row("NumPy .npy of one image (H, W, 2), H = W",
            "refused; the error names --bands, which reads it", (64, 64, 2)),
        row("NumPy .npy of one image (H, W, 2), not square",
            "refused; the error names --bands, which reads it", (40, 50, 2)),
        row("NumPy .npy of one image (H, W, 13), H = W", "refused; the error names --bands, which "
            "reads it", (32, 32, 13)),
    ],
)  # fmt: skip
def test_one_image_of_several_bands_is_no_stack_of_narrow_ones(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    values = CHANCE.integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "x.npy", values)
    flags = f"{shape[2]} bands of uint8: choose .* --bands all --encoder.channels {shape[2]}"
    with pytest.raises(DataError, match=flags):
        load_dataset(str(tmp_path / "x.npy"))
    found = load_dataset(str(tmp_path / "x.npy"), reading=Reading(bands=(2,)))
    assert found.train.pixels[0, ..., 0].tolist() == values[..., 1].tolist()
    assert found.notes.remarks == ()
    with pytest.raises(DataError, match=r"x\[None\]"):
        stopgrad.load(values)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        row("NumPy array (5, H, W) without labels",
            "read as 5 gray images; a message says how to read them as one image",
            "x_5.npz", (5, 16, 16), "read as 5 gray images; if it is one image of 5 bands, use "
            "--bands all --encoder.channels 5", kind="layout"),
        row("NumPy array (H, W, C) that may also be H gray images", "read as gray images; reported",
            "scene.npy", (40, 30, 12), "read as 40 gray images; if it is one image of 12 bands, "
            "use --bands all --encoder.channels 12", kind="layout"),
        row("NumPy array (N, H, W) with N larger than H and W", "read as gray images; nothing is "
            "reported",
            "scene.npy", (40, 16, 16), "", kind="layout"),
        row("images.npy of shape (5, H, W)", "read as gray images; nothing is reported",
            "images.npy", (5, 16, 16), "", kind="layout"),
    ],
)  # fmt: skip
def test_a_stack_that_may_be_one_image_is_said_to_be(
    tmp_path: Path, name: str, shape: tuple[int, ...], said: str
) -> None:
    values = CHANCE.integers(0, 256, shape, np.uint8)
    path = tmp_path / name
    np.savez(path, scene=values) if path.suffix == ".npz" else np.save(path, values)
    found = load_dataset(str(path), side=40)
    assert len(found.train) == shape[0]
    assert [said in remark for remark in found.notes.remarks] == [True] * bool(said)


def test_labels_tell_a_stack_from_one_image(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", scene=np.zeros((16, 16, 2), np.uint8), y=np.arange(16) % 2)
    found = load_dataset(str(tmp_path / "x.npz"), side=8)
    assert (len(found.train), found.notes.remarks) == (16, ())


@pytest.mark.input(
    "layout",
    what="NumPy .npy files of shape (5, H, W), one per image, in class folders",
    happens="refused; the error says how to read each file as one image",
)
def test_files_of_one_image_of_bands_first_are_told_how_to_be_read(tmp_path: Path) -> None:
    for name in ("cat/0", "cat/1", "dog/2", "dog/3"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "set" / f"{name}.npy", np.zeros((5, 16, 16), np.uint8))
    with pytest.raises(
        DataError, match=r"'cat/0.npy' of shape \(5, 16, 16\).* one image of 5 bands"
    ):
        load_dataset(str(tmp_path / "set"))
    found = load_dataset(str(tmp_path / "set"), reading=Reading(bands=(3, 2, 1)))
    assert labels(found) == [0, 0, 1, 1]


FOUR = CHANCE.integers(0, 200, (5, 9, 9, 4), np.uint8)


@pytest.mark.parametrize("kind", ["uint16", "float32", "int32", "float64"])
@pytest.mark.input(
    "oddity",
    what="NumPy array (N, H, W, 4) of more than 8 bits",
    happens="read as four bands, not alpha: refused without --bands",
)
def test_a_fourth_channel_of_more_than_8_bits_is_no_alpha(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "images.npy", FOUR.astype(kind))
    with pytest.raises(DataError, match=f"4 bands of {kind}: choose three or one of them"):
        load_dataset(str(tmp_path / "images.npy"))
    found = load_dataset(str(tmp_path / "images.npy"), reading=Reading(bands=(1, 2, 3)))
    assert found.train.pixels.tolist() == FOUR[..., :3].tolist()
    held = stopgrad.load(FOUR.astype(kind))
    assert held.dataset.train.channels == 4


@pytest.mark.parametrize("channels_first", [False, True])
def test_a_fourth_channel_of_bytes_is_said_to_be_alpha(
    tmp_path: Path, channels_first: bool
) -> None:
    values = np.moveaxis(FOUR, 3, 1) if channels_first else FOUR
    np.save(tmp_path / "images.npy", values)
    (remark,) = load_dataset(str(tmp_path / "images.npy")).notes.remarks
    assert "fourth channel of the arrays is read as alpha" in remark
    assert stopgrad.load(values).dataset.notes.remarks == (remark,)
    found = load_dataset(str(tmp_path / "images.npy"), reading=Reading(bands=(1, 2, 3)))
    assert found.notes.remarks == ()
    assert found.train.pixels.tolist() == FOUR[..., :3].tolist()


@pytest.mark.input(
    "format",
    what="rows of floats (N, 784)",
    happens="refused; the error gives the shape to save them in",
)
def test_rows_of_floats_may_be_features_and_are_told_what_to_become(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10, 784), np.float32))
    with pytest.raises(DataError, match=r"gray images, save it as x\.reshape\(-1, 28, 28\)"):
        load_dataset(str(tmp_path / "x.npy"))


@pytest.mark.parametrize("ending", ["npz", "h5"])
@pytest.mark.parametrize(
    ("column", "names"), [("", ("cat", "dog", "frog")), ("coarse_labels", ("pet", "wild"))]
)
def test_names_are_those_of_the_labels_that_are_used(
    tmp_path: Path, ending: str, column: str, names: tuple[str, ...]
) -> None:
    spec = saved(
        tmp_path / f"set.{ending}",
        images=COLOUR,
        coarse_label_names=np.array(["pet", "wild"], "S"),
        coarse_labels=(LABELS > 1).astype(int),
        fine_label_names=np.array(["cat", "dog", "frog"], "S"),
        fine_labels=LABELS,
    )
    found = load_dataset(spec, reading=Reading(label_column=column))
    assert found.train.class_names == names
    assert labels(found) == ((LABELS > 1).astype(int) if column else LABELS).tolist()


def test_a_list_of_class_names_that_comes_later_is_no_longer_the_old_set(tmp_path: Path) -> None:
    for name, array in (("train_images", COLOUR), ("train_labels", LABELS)):
        (tmp_path / "set").mkdir(exist_ok=True)
        np.save(tmp_path / "set" / f"{name}.npy", array)
    assert load_dataset(str(tmp_path / "set")).train.class_names == ("0", "1", "2")
    (tmp_path / "set" / "class_names.txt").write_text("cat\ndog\nfrog\n")
    assert load_dataset(str(tmp_path / "set")).train.class_names == ("cat", "dog", "frog")
