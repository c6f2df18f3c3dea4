"""What people's Parquet files hold: labels in any form, images by bytes or by path, splits by name.

Each case is a small data set made by hand; expected labels and images are written beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stopgrad.config import Reading
from stopgrad.errors import ConfigError, DataError
from stopgrad.images import load_dataset, pack
from stopgrad.images.types import Unused
from tests.images.factories import DIGITS, STRUCT, cells, png
from tests.inputs import row


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def write(path: Path, count: int, *, first: int = 0, **columns: Any) -> None:
    """The digits from `first` on, in a column `image` unless the columns say otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"image": cells(range(first, first + count))} if "image" not in columns else {}
    pq.write_table(pa.table(table | columns), path)


def reading(**asked: str) -> Reading:
    return Reading(**asked)


def label(what: str, column: Any, names: tuple[str, ...], labels: list[int]) -> Any:
    return row(f"label column of {what}", "read as labels", column, names, labels, kind="label")


@pytest.mark.parametrize(
    ("column", "names", "labels"),
    [
        label("true and false", pa.array([True, False, None]), ("False", "True"), [1, 0, -1]),
        label("whole floats", pa.array([2.0, 0.0, float("nan")]), ("0", "1", "2"), [2, 0, -1]),
        label("half floats", pa.array(np.array([1, 0, 1], np.float16)), ("0", "1"), [1, 0, 1]),
        label("8-bit integers", pa.array([1, 0, 1], pa.int8()), ("0", "1"), [1, 0, 1]),
        label("unsigned 64-bit integers", pa.array([1, 0, 1], pa.uint64()), ("0", "1"), [1, 0, 1]),
        label(
            "categories of text (pandas, polars)",
            pa.array(["b", "a", "b"]).dictionary_encode(),
            ("a", "b"),
            [1, 0, 1],
        ),
        label(
            "categories of numbers", pa.array([5, 3, 5]).dictionary_encode(), ("3", "5"), [1, 0, 1]
        ),
        label("large text", pa.array(["b", "a", ""], pa.large_string()), ("a", "b"), [1, 0, -1]),
        label("text views", pa.array(["b", "a", "b"], pa.string_view()), ("a", "b"), [1, 0, 1]),
        label("lists of one label", pa.array([[1], [0], []]), ("0", "1"), [1, 0, -1]),
        label(
            "fixed-size lists of one label", pa.array([[1], [0], [1]], pa.list_(pa.int32(), 1)),
            ("0", "1"), [1, 0, 1],
        ),
        label("decimals", pa.array([Decimal(1), Decimal(0), None]), ("0", "1"), [1, 0, -1]),
        label("text as bytes", pa.array([b"b", b"a", b"b"]), ("a", "b"), [1, 0, 1]),
        label("identifiers", pa.array([35000, 7, 35000]), ("7", "35000"), [1, 0, 1]),
        label("numbers that start at 1", pa.array([2, 1, 2]), ("1", "2"), [1, 0, 1]),
        label("text, nan for a missing label", pa.array(["NaN", "a", "nan"]), ("a",), [-1, 0, -1]),
        label("text, NA for a missing label", pa.array(["NA", "a", "N/A"]), ("a",), [-1, 0, -1]),
        label("text and nulls", pa.array([None, "a", "b"]), ("a", "b"), [-1, 0, 1]),
        label("text with spaces around it", pa.array([" b", "a", "b "]), ("a", "b"), [1, 0, 1]),
        label("one-hot lists", pa.array([[0, 1], [1, 0], None]), ("0", "1"), [1, 0, -1]),
        label(
            "one-hot lists, some of only 0", pa.array([[0, 1], [1, 0], [0, 0]]), ("0", "1"),
            [1, 0, -1],
        ),
        label("numbers, -100 for a missing label", pa.array([-100, 1, 0]), ("0", "1"), [-1, 1, 0]),
        label(
            "-1 and 1, and -100 for a missing label", pa.array([-100, -1, 1]), ("-1", "1"),
            [-1, 0, 1],
        ),
        label("numbers below 0", pa.array([-2, -1, 2]), ("-2", "-1", "2"), [0, 1, 2]),
        label("text, -1 for a missing label", pa.array(["-1", "a", "b"]), ("a", "b"), [-1, 0, 1]),
        label("text, -1 and 1 as the classes", pa.array(["-1", "1", "?"]), ("-1", "1"), [0, 1, -1]),
        label("text, ? for a missing label", pa.array(["?", "a", "-"]), ("a",), [-1, 0, -1]),
    ],
)  # fmt: skip
def test_labels_count_however_they_are_stored(
    root: Path, column: Any, names: tuple[str, ...], labels: list[int]
) -> None:
    write(root / "train.parquet", 3, label=column)
    found = load_dataset(str(root)).train
    assert found.class_names == names
    assert found.labels is not None
    assert found.labels.tolist() == labels


NAMES = (
    *(
        "label",
        "labels",
        "Label",
        "CLASS",
        "classes",
        "class_id",
        "ClassName",
        "target",
        "category",
    ),
    *(
        "categories",
        "y",
        "y_true",
        "cls",
        "species",
        "coarse_label",
        "fine_label",
        "label_idx",
        "gt",
    ),
    *("image_label", "class label", "category_id", "super_class", "diagnosis"),
)


@pytest.mark.input("label", what="a column named class, target, y, ...", happens="read as labels")
@pytest.mark.parametrize("name", NAMES)
def test_a_column_that_is_called_as_labels_are_is_taken(root: Path, name: str) -> None:
    write(root / "train.parquet", 3, **{name: [1, 0, 1]})
    found = load_dataset(str(root))
    assert found.train.labels is not None
    assert found.train.labels.tolist() == [1, 0, 1]
    assert found.notes.remarks == ()


@pytest.mark.input(
    "label",
    what="several columns that may be labels",
    happens="the first in a fixed order is used; the others are reported",
)
@pytest.mark.parametrize(
    ("columns", "taken", "named"),
    [
        (("coarse_label", "fine_label"), "fine_label", "'coarse_label'"),
        (("target", "label"), "label", "'target'"),
        (("species", "class"), "class", "'species'"),
    ],
)
def test_of_several_label_columns_the_others_are_named(
    root: Path, columns: tuple[str, str], taken: str, named: str
) -> None:
    write(root / "train.parquet", 2, **{name: [int(name == taken), 0] for name in columns})
    found = load_dataset(str(root))
    assert found.train.labels is not None
    assert found.train.labels.tolist() == [1, 0]
    assert found.notes.remarks == (
        f"the labels come from column {taken!r}; --label-column takes {named} instead",
    )


@pytest.mark.input(
    "label",
    what="a column of another name with few distinct values",
    happens="reported, with the flag that uses it",
)
@pytest.mark.parametrize(("name", "flag"), [("breed", "breed"), ("kind of dog", "'kind of dog'")])
def test_a_column_that_may_be_labels_is_named_with_the_flag_that_takes_it(
    root: Path, name: str, flag: str
) -> None:
    write(root / "train.parquet", 4, **{name: ["pug", "pug", "lab", "lab"], "id": [0, 1, 2, 3]})
    found = load_dataset(str(root))
    assert found.train.labels is None
    assert found.notes.remarks == (
        f"no column has the name of a label column; {name!r} has 2 distinct values: "
        f"--label-column {flag} uses it",
    )
    named = load_dataset(str(root), reading=reading(label_column=name)).train
    assert named.class_names == ("lab", "pug")
    assert named.labels is not None
    assert named.labels.tolist() == [1, 1, 0, 0]


@pytest.mark.input(
    "label",
    what="labels inside structs (annotation, objects) in Parquet",
    happens="reported, not read",
)
@pytest.mark.parametrize("beside", [{}, {"label": [0, 1]}])
def test_labels_inside_of_structs_are_named(root: Path, beside: dict[str, Any]) -> None:
    objects = [{"bbox": [[0, 0, 4, 4]], "category": [1]}, {"bbox": [], "category": []}]
    annotation = [{"by": "x", "label": "a"}, None]
    boxes = [[{"class_id": 3, "box": {"label": 4}}], []]
    columns = {"annotation": annotation, "objects": objects, "boxes": boxes}
    write(root / "train.parquet", 2, **columns, **beside)
    assert load_dataset(str(root)).notes.remarks == (
        "labels nested in columns are not read ('annotation.label', 'objects.category', "
        "'boxes.class_id', 'boxes.box.label'): make one a top-level column",
    )


@pytest.mark.input(
    "label",
    what="a column that gives the split, in Parquet",
    happens="reported with its values, not used",
)
def test_a_column_of_splits_is_named_with_its_values(root: Path) -> None:
    write(root / "all.parquet", 4, split=["train", "test", "train", None], label=[0, 1, 1, 0])
    found = load_dataset(str(root))
    assert len(found.train) == 4
    assert found.notes.remarks == (
        "trained on 'all', because no split is called train",
        "column 'split' (2 'train', 1 'test', 1 None) is not used: all these rows are trained on; "
        "to split them, use files called train and test",
    )


@pytest.mark.parametrize("name", ["is_train", "Usage", "subset"])
def test_other_names_of_columns_of_splits_are_known(root: Path, name: str) -> None:
    write(root / "train.parquet", 4, **{name: [True, True, False, True]})
    (remark,) = load_dataset(str(root)).notes.remarks
    assert remark.startswith(f"column {name!r} (3 True, 1 False) is not used")


@pytest.mark.input(
    "oddity",
    what="columns with the same name in Parquet",
    happens="reported, not read; other columns are read",
)
def test_columns_of_one_name_stop_nothing(root: Path) -> None:
    columns = {"image": cells(range(4)), "label": pa.array([0, 1, 0, 1])}
    arrays = [columns["image"], columns["label"], pa.array([1, 1, 1, 0])]
    table = pa.Table.from_arrays(arrays, names=["image", "label", "label"])
    pq.write_table(table, root / "train.parquet")
    found = load_dataset(str(root))
    assert (found.train.pixels == DIGITS[:4, :, :, None]).all()
    assert found.train.labels is None
    assert found.notes.remarks == ("columns that share a name are not read ('label'): rename them",)
    table = pa.Table.from_arrays([arrays[0], *arrays[:2]], names=["image", "image", "label"])
    pq.write_table(table, root / "train.parquet")
    with pytest.raises(DataError, match=r"no image column .* several are called 'image'"):
        load_dataset(str(root))


@pytest.mark.input(
    "label",
    what="several classes in one text, such as a|b",
    happens="read as one class of its own; reported",
)
@pytest.mark.parametrize("joined", ["a|b", "a, b", "b a"])
def test_several_classes_in_one_text_are_said(root: Path, joined: str) -> None:
    write(root / "train.parquet", 4, label=["a", "b", joined, "a c"])
    found = load_dataset(str(root))
    assert len(found.train.class_names) == 4
    assert found.notes.remarks == (f"1 of 4 classes join several others, such as {joined!r}",)


def test_a_column_of_splits_that_says_what_files_say_is_not_named(root: Path) -> None:
    for name in ("train", "test"):
        write(root / f"{name}.parquet", 4, split=[name] * 4)
    assert load_dataset(str(root)).notes.remarks == ()


@pytest.mark.input(
    "command",
    what="--label-column NAME that does not exist",
    happens="refused; the error lists the columns",
)
def test_a_named_column_that_is_not_there_is_refused_with_those_that_are(root: Path) -> None:
    write(root / "train.parquet", 2, breed=["pug", "lab"])
    for asked in (reading(label_column="bred"), reading(image_column="bred")):
        with pytest.raises(DataError, match=r"no column 'bred'; expected one of .* image, breed"):
            load_dataset(str(root), reading=asked)


@pytest.mark.input(
    "command", what="--label-column NAME of a column without usable labels", happens="refused"
)
def test_a_named_column_that_can_be_no_labels_is_refused(root: Path) -> None:
    write(root / "train.parquet", 2, age=[0.5, 1.0])
    with pytest.raises(DataError, match=r"column 'age' is numbers with fractions, such as 0\.5"):
        load_dataset(str(root), reading=reading(label_column="age"))
    with pytest.raises(DataError, match="column 'age' is of type double; expected encoded images"):
        load_dataset(str(root), reading=reading(image_column="age"))


@pytest.mark.input(
    "label", what="some files without the label column", happens="their images have no label"
)
def test_a_file_without_the_label_column_has_no_labels_and_is_named(root: Path) -> None:
    write(root / "train-00000-of-00003.parquet", 1)
    write(root / "train-00001-of-00003.parquet", 2, first=1, label=["a", "b"])
    write(root / "train-00002-of-00003.parquet", 1, first=3, label=[0.5])
    found = load_dataset(str(root))
    assert found.train.labels is not None
    assert found.train.labels.tolist() == [-1, 0, 1, -1]
    assert found.notes.remarks == (
        "train-00000-of-00003.parquet has no labels (1 row), as it has no column 'label'",
        "train-00002-of-00003.parquet has no labels (1 row), as column 'label' is numbers with "
        "fractions, such as 0.5",
        "2 of 4 images of train have no label",
    )


@pytest.mark.input(
    "label",
    what="a file of a split whose labels are in a column of another name",
    happens="its rows have no label; the column is reported",
)
def test_a_label_column_of_another_name_in_one_file_is_named(root: Path) -> None:
    write(root / "train-00000-of-00002.parquet", 2, label=["a", "b"])
    write(root / "train-00001-of-00002.parquet", 3, first=2, category=["a", "b", "a"])
    found = load_dataset(str(root))
    assert found.train.labels is not None
    assert found.train.labels.tolist() == [0, 1, -1, -1, -1]
    assert found.notes.remarks == (
        "train-00001-of-00002.parquet has no labels (3 rows), as it has no column 'label'; "
        "its column 'category' is not read: rename it to 'label'",
        "3 of 5 images of train have no label",
    )


def bytes_of(count: int) -> list[bytes]:
    return [png(DIGITS[row]) for row in range(count)]


def layout(what: str, columns: Mapping[str, Any], **asked: str) -> Any:
    return row(f"Parquet, images in {what}", "read", columns, asked, kind="layout")


BLOBS = pa.array([b"no image", b"at all"])
OTHERS = cells(range(5, 7))


@pytest.mark.parametrize(
    ("columns", "asked"),
    [
        layout("the only binary column, of any name", {"x": pa.array(bytes_of(2))}),
        layout("a large binary column", {"x": pa.array(bytes_of(2), pa.large_binary())}),
        layout("a column of binary views", {"x": pa.array(bytes_of(2), pa.binary_view())}),
        layout(
            "a dictionary-encoded binary column", {"x": pa.array(bytes_of(2)).dictionary_encode()}
        ),
        layout("structs {bytes}", {"x": cells(range(2)).cast(pa.struct([("bytes", pa.binary())]))}),
        layout("lists of one binary", {"x": pa.array([[data] for data in bytes_of(2)])}),
        layout(
            "lists of one struct {bytes}",
            {"x": pa.array([[c] for c in cells(range(2)).to_pylist()])},
        ),
        layout("lists of bytes as numbers", {"x": pa.array([[*data] for data in bytes_of(2)])}),
        layout(
            "a binary column beside one that holds no images",
            {"a": BLOBS, "b": pa.array(bytes_of(2))},
        ),
        layout(
            "a binary column jpg beside one named json",
            {"json": BLOBS, "jpg": pa.array(bytes_of(2))},
        ),
        layout(
            "the column that --image-column NAME chooses",
            {"image": OTHERS, "b": cells(range(2))},
            image_column="b",
        ),
    ],
)
def test_images_are_found_by_what_columns_hold(
    root: Path, columns: dict[str, Any], asked: dict[str, str]
) -> None:
    pq.write_table(pa.table(columns), root / "train.parquet")
    found = load_dataset(str(root), reading=reading(**asked)).train
    assert (found.pixels == DIGITS[:2, :, :, None]).all()


@pytest.mark.input(
    "layout",
    what="Parquet rows with several images (lists)",
    happens="the first is read; the others are listed",
)
def test_images_behind_the_first_of_a_row_are_named(root: Path) -> None:
    one, two, three = bytes_of(3)
    columns = {"boxes": [[0, 3], [7, 1]], "views": [[two, one, three], [three]]}
    pq.write_table(pa.table(columns), root / "train.parquet")
    found = load_dataset(str(root))
    assert (found.train.pixels == DIGITS[[1, 2], :, :, None]).all()
    assert found.notes.unused == (
        Unused(
            "image",
            "further images of a row; only the first of each is read",
            ("train.parquet:0:2", "train.parquet:0:3"),
        ),
    )


def pictures(folder: Path, count: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(png(DIGITS[number]))


PATHS = [f"images/{row}.png" for row in (2, 0, 1)]


def paths(what: str, file: str, folder: str, column: Any) -> Any:
    happens = "the files at those paths are read"
    return row(f"Parquet rows with {what}", happens, file, folder, column, kind="layout")


@pytest.mark.parametrize(
    ("file", "folder", "column"),
    [
        paths(
            "paths relative to the Parquet file", "train.parquet", "images", {"file_name": PATHS}
        ),
        paths(
            "paths relative to the root of the data", "data/train.parquet", "images",
            {"image": PATHS},
        ),
        paths(
            "paths that go up (..) but stay inside the data", "data/train.parquet", "images",
            {"path": [f"../{path}" for path in PATHS]},
        ),
        paths(
            "paths that use backslashes", "train.parquet", "images",
            {"filepath": [path.replace("/", "\\") for path in PATHS]},
        ),
        paths(
            "dictionary-encoded paths", "train.parquet", "images",
            {"whatever": pa.array(PATHS).dictionary_encode()},
        ),
        paths(
            "structs {bytes: null, path}", "train.parquet", "images",
            {"image": pa.array([{"bytes": None, "path": path} for path in PATHS], STRUCT)},
        ),
        paths(
            "structs {path}", "train.parquet", "images",
            {"image": pa.array([{"path": path} for path in PATHS])},
        ),
    ],
)  # fmt: skip
def test_rows_that_hold_paths_are_read_from_there(
    root: Path, file: str, folder: str, column: dict[str, Any]
) -> None:
    pictures(root / folder)
    (root / file).parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({**column, "label": [1, 0, 1]}), root / file)
    found = load_dataset(str(root)).train
    assert (found.pixels == DIGITS[[2, 0, 1], :, :, None]).all()
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 1]
    assert found.sources == tuple(f"{file}:{row}" for row in range(3))


@pytest.mark.input(
    "oddity",
    what="rows with URLs, absolute paths or paths that lead out of the data",
    happens="listed, not used",
)
def test_rows_that_lead_out_of_the_data_are_named_and_never_opened(
    root: Path, tmp_path: Path
) -> None:
    pictures(root / "images")
    (root / "images" / "1.png").unlink()
    pictures(tmp_path / "secret")
    away = ["https://example.org/1.png", str(tmp_path / "secret" / "0.png"), "../secret/0.png"]
    rows = [PATHS[0], *away, PATHS[1], "data:image/png;base64,iVBO", "C:\\me\\1.png"]
    rows += ["images/2.png\0"]
    columns = {"path": rows, "label": [0, 1, 1, 1, 2, 1, 1, 1]}
    pq.write_table(pa.table(columns), root / "train.parquet")
    found = load_dataset(str(root))
    assert (found.train.pixels == DIGITS[[2, 0], :, :, None]).all()
    assert found.train.labels is not None
    assert found.train.labels.tolist() == [0, 2]
    assert found.notes.count("image") == 6
    assert {each.names: each.reason for each in found.notes.unused} == {
        ("train.parquet:1", "train.parquet:5"): "a URL, which is not downloaded",
        ("train.parquet:2", "train.parquet:6"): (
            "an absolute path, which may lie outside the data"
        ),
        ("train.parquet:3",): "a path that leads out of the data",
        ("train.parquet:7",): "no path",
    }


@pytest.mark.input("oddity", what="Parquet rows with only URLs", happens="refused")
def test_rows_that_all_hold_addresses_are_refused_with_the_reason(root: Path) -> None:
    pq.write_table(pa.table({"url": ["https://example.org/1.png"] * 3}), root / "train.parquet")
    with pytest.raises(DataError, match=r"no rows with an image in .* \(a URL"):
        load_dataset(str(root))


@pytest.mark.input(
    "oddity", what="a row whose image file is missing", happens="counts as a damaged image"
)
def test_a_row_whose_file_is_missing_is_damaged(root: Path) -> None:
    pictures(root / "images", count=30)
    rows = [f"images/{row}.png" for row in range(30)]
    pq.write_table(pa.table({"path": [*rows[:29], "images/x.png"]}), root / "train.parquet")
    with pytest.raises(DataError, match=r"1 damaged image among 30: 'train\.parquet:29'"):
        load_dataset(str(root))
    assert len(load_dataset(str(root), bad_images="skip").train) == 29


def test_an_image_file_that_changes_is_read_again(root: Path) -> None:
    pictures(root / "images")
    pq.write_table(pa.table({"path": PATHS}), root / "train.parquet")
    load_dataset(str(root))
    (root / "images" / "2.png").write_bytes(png(DIGITS[9]) + b"changed")
    assert (load_dataset(str(root)).train.pixels[0] == DIGITS[9, :, :, None]).all()


@pytest.mark.input(
    "layout", what="a data set in the Hub's cache", happens="the commit of its main branch is read"
)
def test_the_cache_of_the_hub_is_read_by_its_links(root: Path) -> None:
    for commit, count in (("a1", 2), ("b2", 4)):
        write(root / "blobs" / commit, count, label=[0, 1] * (count // 2))
        link = root / "snapshots" / commit / "data" / "train-00000-of-00001.parquet"
        link.parent.mkdir(parents=True)
        link.symlink_to(f"../../../blobs/{commit}")
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("b2")
    assert len(load_dataset(str(root)).train) == 4
    file = load_dataset(str(root / "snapshots" / "a1" / "data" / "train-00000-of-00001.parquet"))
    assert file.train.labels is not None
    assert file.train.labels.tolist() == [0, 1]


@pytest.mark.input("oddity", what="a Parquet file in a folder of images", happens="skipped")
def test_a_folder_of_images_stays_one_whatever_parquet_files_lie_in_it(root: Path) -> None:
    pictures(root / "images")
    write(root / "train.parquet", 5)
    ours = {"path": PATHS, "split": ["train"] * 3, "label": [0, 1, 0], "f0": [0.5] * 3}
    pq.write_table(pa.table(ours), root / "features.parquet")
    assert load_dataset(str(root)).train.sources == ("images/0.png", "images/1.png", "images/2.png")


@pytest.mark.input(
    "oddity", what="an image or two beside Parquet files", happens="listed, not used"
)
def test_an_image_beside_parquet_files_is_named(root: Path) -> None:
    write(root / "data" / "train.parquet", 40)
    pictures(root / "assets", count=2)
    found = load_dataset(str(root))
    assert len(found.train) == 40
    assert found.notes.unused == (
        ("image", "the Parquet files beside them are the data", ("assets/0.png", "assets/1.png")),
    )


@pytest.mark.input(
    "oddity",
    what="archives, images of unread formats and Parquet three folders down, beside Parquet files",
    happens="listed",
)
def test_what_else_lies_beside_parquet_files_is_named(root: Path) -> None:
    write(root / "train.parquet", 4)
    write(root / "a" / "b" / "c" / "train.parquet", 4)
    for name in ("more.zip", "scan.psd"):
        (root / name).write_bytes(b"x")
    unused = {
        name: group.what for group in load_dataset(str(root)).notes.unused for name in group.names
    }
    assert unused == {"a/b/c/train.parquet": "file", "more.zip": "file", "scan.psd": "image"}


@pytest.mark.input(
    "oddity", what="a table of labels beside Parquet files or arrays", happens="listed, not read"
)
@pytest.mark.parametrize("form", ["parquet", "npy"])
def test_a_table_beside_data_that_are_no_image_files_is_named(root: Path, form: str) -> None:
    if form == "parquet":
        write(root / "train.parquet", 4)
    else:
        np.save(root / "images.npy", np.zeros((4, 8, 8, 3), np.uint8))
    (root / "labels.csv").write_text("file,label\n0.png,a\n1.png,b\n")
    assert load_dataset(str(root)).notes.unused == (
        ("file", "tables, which are read only beside image files", ("labels.csv",)),
    )


@pytest.mark.input("oddity", what="images that no Parquet row names", happens="listed, not used")
def test_an_image_that_no_row_names_is_named(root: Path) -> None:
    pictures(root / "images", count=4)
    pq.write_table(pa.table({"path": PATHS}), root / "train.parquet")
    found = load_dataset(str(root))
    assert len(found.train) == 3
    assert [each.names for each in found.notes.unused] == [("images/3.png",)]


def splits(what: str, files: str, train: int, test: int | None, called: str = "") -> Any:
    both = f"read as a training and a {called or 'test'} split"
    happens = both if test else "all images are for training"
    return row(f"Parquet, {what}", happens, files, train, test, called, kind="layout")


HASH = "00000-of-00001-70d52db3c749a935"
VALIDATION = "validation"


@pytest.mark.parametrize(
    ("files", "train", "test", "called"),
    [
        splits("Training_1, Training_2, Testing_1", "Training_1:2 Training_2:3 Testing_1:4", 5, 4),
        splits("train2017 and val2017", "train2017:2 val2017:3", 2, 3, VALIDATION),
        splits("mnist_train and mnist-test", "mnist_train:2 mnist-test:3", 2, 3),
        splits("folders train and test", "train/0000:2 train/0001:1 test/part-0:3", 3, 3),
        splits(
            "files named like their folders (train/train-0)", "train/train-0:2 test/test-0:3", 2, 3
        ),
        splits(
            "files named after classes (train/cat, val/cat)",
            "train/cat:2 train/dog:1 val/cat:3",
            3,
            3,
            VALIDATION,
        ),
        splits("config/train/0000", "plain/train/0000:2 plain/valid/0000:3", 2, 3, VALIDATION),
        splits("file names with a hash", f"train-{HASH}:2 dev-{HASH}:3", 2, 3, VALIDATION),
        splits("file names without a split", "part-0:2 part-1:3", 5, None),
        splits("one file of any name", "data:2", 2, None),
        splits("a file of any name beside a test split", "images:2 test:3", 2, 3),
        splits(
            "an empty test split beside a validation split",
            "train:2 test:0 val:3",
            2,
            3,
            VALIDATION,
        ),
        splits("an empty test split", "train:2 test:0", 2, None),
        splits(
            "a file at the root beside splits in data/",
            "data/train-0:2 data/test-0:3 notes:1",
            2,
            3,
        ),
    ],
)
def test_splits_are_told_by_the_names_of_files_and_folders(
    root: Path, files: str, train: int, test: int | None, called: str
) -> None:
    for name, count in (file.split(":") for file in files.split()):
        write(root / f"{name}.parquet", int(count), label=[0] * int(count))
    found = load_dataset(str(root))
    assert len(found.train) == train
    assert (None if found.test is None else len(found.test)) == test
    assert found.notes.scored == called


def test_a_train_split_of_another_name_is_said(root: Path) -> None:
    write(root / "partial-train" / "0000.parquet", 3)
    found = load_dataset(str(root))
    assert found.notes.remarks == ("trained on 'partial-train', because no split is called train",)


def hidden(test: Any, *, validation: Any, train: Any = (0, 1, 0, 1)) -> dict[str, Any]:
    return {"train": list(train), "test": test, "validation": validation}


@pytest.mark.parametrize(
    ("labels", "called", "scored"),
    [
        row("test labels of -1, labelled validation", "validation is scored",
             hidden([-1, -1], validation=[1, 0, 1]), "validation", [1, 0, 1], kind="label"),
        row("test labels of null, labelled validation", "validation is scored",
             hidden([None, None], validation=[1, 0, 1]), "validation", [1, 0, 1], kind="label"),
        row("a test split without a label column", "validation is scored",
             hidden(None, validation=[1, 0, 1]), "validation", [1, 0, 1], kind="label"),
        row("a test split with other classes than train", "validation is scored",
             hidden([7, 8], validation=[1, 0, 1]), "validation", [1, 0, 1], kind="label"),
        row("a test split with some labels", "test is scored",
             hidden([1, -1], validation=[1, 0, 1]), "", [1, -1], kind="label"),
        row("no labels in any split to score", "test is read, without labels",
             hidden([-1, -1], validation=[None] * 3), "", None, kind="label"),
        row("labels in every split but the training split", "test is read, without labels",
             hidden([1, 0], validation=[1, 0, 1], train=[None] * 4), "", None, kind="label"),
    ],
)  # fmt: skip
def test_the_first_split_with_usable_labels_is_scored(
    root: Path, labels: dict[str, Any], called: str, scored: list[int] | None
) -> None:
    for name, values in labels.items():
        count = len(values) if values else 2
        columns = {} if values is None else {"label": pa.array(values, pa.int64())}
        write(root / f"{name}-00000-of-00001.parquet", count, **columns)
    found = load_dataset(str(root))
    assert found.notes.scored == called
    assert found.test is not None
    assert (None if found.test.labels is None else found.test.labels.tolist()) == scored
    other = "test" if called else "validation"
    images = [each for each in found.notes.unused if each.what == "image"]
    assert [name for each in images for name in each.names] == [
        f"{other}-00000-of-00001.parquet:{row}" for row in range(3 if other == "validation" else 2)
    ]
    said = "'validation' is scored, as no label of 'test' can be used"
    assert (said in found.notes.remarks) == bool(called)


@pytest.mark.input("label", what="labels only in the test split", happens="reported, not used")
@pytest.mark.parametrize("train", [{}, {"label": pa.nulls(4, pa.int64())}])
def test_labels_of_the_test_split_alone_are_named(root: Path, train: dict[str, Any]) -> None:
    write(root / "train.parquet", 4, **train)
    write(root / "test.parquet", 2, label=[0, 1])
    found = load_dataset(str(root))
    assert found.test is not None
    assert (found.train.labels, found.test.labels) == (None, None)
    (unused,) = found.notes.unused
    names = ("test.parquet:0", "test.parquet:1")
    assert unused == ("label", "the images to train on have none", names)
    assert "test has labels, the images to train on have none" in found.notes.remarks


@pytest.mark.input("command", what="--split NAME", happens="that split of the data is scored")
def test_any_split_is_scored_by_its_own_name(root: Path) -> None:
    for first, name in enumerate(("train", "test", "val", "contrast", "gaussian noise")):
        write(root / f"{name}-00000-of-00001.parquet", 2, first=first, label=[0, 1])
    first = {
        "auto": ("", 1),
        "test": ("", 1),
        "validation": ("validation", 2),
        "val": ("val", 2),
    }
    first |= {"contrast": ("contrast", 3), "gaussian noise": ("gaussian noise", 4)}
    for name, (called, digit) in first.items():
        found = load_dataset(str(root), reading=reading(split="" if name == "auto" else name))
        assert found.test is not None
        assert found.notes.scored == called, name
        assert (found.test.pixels[0] == DIGITS[digit, :, :, None]).all(), name
        assert found.notes.count("image") == 6, name
    for wrong in ("train", "contrasts"):
        with pytest.raises(
            ConfigError,
            match=f"split = '{wrong}'.*auto, test, validation, contrast, gaussian noise, val",
        ):
            load_dataset(str(root), reading=reading(split=wrong))


@pytest.mark.input("oddity", what="a damaged file of an unused split", happens="listed")
def test_a_damaged_file_of_a_split_that_is_not_used_is_named(root: Path) -> None:
    for name in ("train", "test", "extra"):
        write(root / f"{name}.parquet", 2, label=[0, 1])
    (root / "extra.parquet").write_bytes(b"PAR1")
    found = load_dataset(str(root))
    (unused,) = found.notes.unused
    assert (unused.what, unused.names) == ("file", ("extra.parquet",))
    assert "cannot be read as Parquet" in unused.reason


@pytest.mark.input("oddity", what="a Parquet file without images in a split", happens="listed")
def test_a_file_without_images_is_named(root: Path) -> None:
    write(root / "train.parquet", 2, label=[0, 1])
    pq.write_table(pa.table({"caption": ["a", "b"]}), root / "train_captions.parquet")
    pq.write_table(pa.table({"caption": ["a", "b"]}), root / "train_0.parquet")
    found = load_dataset(str(root))
    assert len(found.train) == 2
    assert ("file", "without a column of images", ("train_0.parquet",)) in found.notes.unused


def test_what_was_noted_is_kept_in_the_cache_and_in_a_store(root: Path, tmp_path: Path) -> None:
    for name, values in hidden([-1, -1], validation=[1, 0, 1]).items():
        write(root / f"{name}.parquet", len(values), label=values)
    first = load_dataset(str(root))
    assert load_dataset(str(root)).notes == first.notes
    pack(str(root), tmp_path / "store", side=8)
    store = load_dataset(str(tmp_path / "store"))
    assert store.notes == first.notes
    assert store.notes.scored == "validation"
    with pytest.raises(
        ConfigError, match="split = 'packs'; expected one of auto, test, validation"
    ):
        load_dataset(str(tmp_path / "store"), reading=reading(split="packs"))


@pytest.mark.parametrize("seed", range(8))
def test_rows_found_are_rows_used_and_rows_named(root: Path, seed: int) -> None:
    """Random splits of random sizes, of bytes or of paths that may lead anywhere."""
    chance = np.random.default_rng(seed)
    pictures(root / "images", count=4)
    places = [
        *(f"images/{row}.png" for row in range(4)),
        "/etc/x.png",
        "../../x.png",
        "ftp://x/y.png",
    ]
    splits = [
        "train",
        *chance.choice(["test", "val", "extra", "dev", "contrast"], 3, replace=False),
    ]
    rows: set[str] = set()
    for split in splits:
        for shard in range(shards := int(chance.integers(1, 3))):
            count = int(chance.integers(4, 9))
            name = f"data/{split}-{shard:05d}-of-{shards:05d}.parquet"
            drawn = [places[row] for row in chance.integers(0, len(places), count)]
            drawn[0] = places[0]
            columns = {"path": drawn, "label": chance.integers(-1, 3, count)}
            (root / "data").mkdir(exist_ok=True)
            pq.write_table(pa.table(columns), root / name)
            rows |= {f"{name}:{row}" for row in range(count)}
    found = load_dataset(str(root))
    used = [*found.train.sources, *(found.test.sources if found.test else ())]
    named = [n for each in found.notes.unused if each.what == "image" for n in each.names]
    assert sorted([*used, *named]) == sorted(rows)
