"""Tables beside images: which are read as labels, which image a row is about, what is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stopgrad.config import Reading
from stopgrad.errors import DataError
from stopgrad.images import Dataset, load_dataset
from stopgrad.images.sources.find import find_source
from tests.images.factories import cells, each, put
from tests.images.inputs.factories import dicom
from tests.inputs import row

ABC = "abc" * 4  # the classes of twelve images, in order
NAMES = [f"{number:04}.png" for number in range(12)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def csv(root: Path, name: str, header: str, rows: list[str]) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join([header, *rows] if header else rows) + "\n")


def rows(form: str, names: list[str] = NAMES) -> list[str]:
    """A row for each image: its path, its stem, its number and its class."""
    return [
        form.format(name=name, stem=name[:-4], number=int(name[:-4]), label=label)
        for name, label in zip(names, ABC, strict=True)
    ]


def train_labels(found: Dataset) -> tuple[tuple[str, ...], list[int] | None]:
    labels = found.train.labels
    return found.train.class_names, None if labels is None else labels.tolist()


def table(what: str, file: str, header: str, form: str, happens: str = "labels are read") -> Any:
    return row(what, happens, file, header, form, kind="label")


@pytest.mark.parametrize(
    ("file", "header", "form"),
    [
        table(
            "metadata.csv in the folder of a split (the Hub's image folder)",
            *("train/metadata.csv", "file_name,label", "{name},{label}"),
        ),
        table(
            "metadata.csv at the root, with paths",
            *("metadata.csv", "file_name,label", "train/{name},{label}"),
        ),
        table("labels.csv", "labels.csv", "filename,class", "{name},{label}"),
        table(
            "train.csv from a competition, with names without an ending",
            *("train.csv", "id,breed", "{stem},{label}"),
        ),
        table(
            "train_labels.csv with numbers that lack their leading zeros",
            *("train_labels.csv", "image_id,target", "{number},{label}"),
        ),
        table(
            "absolute paths from another machine",
            *("labels.csv", "path,label", "/kaggle/input/train/{name},{label}"),
        ),
        table(
            "paths with backslashes",
            *("labels.csv", "path,label", "D:\\data\\train\\{name},{label}"),
        ),
        table(
            "semicolons, a byte order mark and a column of row numbers",
            *("labels.csv", "\ufeff;img;Class Name", "{number};{name};{label}"),
        ),
        table(
            "a line sep=; before the header, as Excel writes it",
            *("labels.csv", "sep=;\nimage;label", "{name};{label}"),
        ),
        table(
            "a comment before the header",
            *("labels.csv", "# of last year\nimage,label", "{name},{label}"),
        ),
        table(
            "quotes, and spaces around separators",
            *("labels.csv", '"image" ; "label"', '"{name}" ; "{label} "'),
        ),
        table(
            "a class with the boxes of its objects (ILSVRC on Kaggle)",
            *(
                "LOC_solution.csv",
                "ImageId,PredictionString",
                "{stem},{label} 1 2 3 4 {label} 5 6 7 8 ",
            ),
        ),
        table("labels.txt, a path and a class in a line", "labels.txt", "", "train/{name} {label}"),
        table("train.txt, a path and a class in a line", "train.txt", "", "{name} {label}"),
        table("tabs (.tsv)", "train/labels.tsv", "file\tspecies", "{name}\t{label}"),
        table("a table without a header", "labels.csv", "", "{name},{label}"),
        table(
            "an unusual name for the only other column",
            *("labels.csv", "image,what_it_is", "{name},{label}"),
        ),
        table(
            "file names with the ending of another format",
            *("labels.csv", "image,label", "{stem}.jpg,{label}"),
        ),
        table(
            "a table in a folder of its own",
            *("annotations/train.csv", "image,label", "{name},{label}"),
        ),
        table(
            "a label column among other columns",
            *("train.csv", "width,image,label,height", "8,{name},{label},8"),
        ),
    ],
)
def test_a_table_labels_the_images_that_it_names(
    root: Path, file: str, header: str, form: str
) -> None:
    put(root, *(f"train/{name}" for name in NAMES))
    csv(root, file, header, rows(form))
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    (remark,) = found.notes.remarks
    assert remark.startswith(f"labels come from {file}: column ")
    assert found.notes.unused == ()


@pytest.mark.parametrize(
    ("header", "form"),
    [
        row(
            "row numbers from 0 in a column without a name (pandas), beside images named by number",
            "rows are matched by the column with the numbers of the images",
            *(",case,label", "{n},{m},{label}"),
            kind="label",
        ),
        row(
            "row numbers from 0 in a column id, beside images named by number",
            "rows are matched by the column with the numbers of the images",
            *("id,photo,label", "{n},{m:04},{label}"),
            kind="label",
        ),
    ],
)
def test_row_numbers_from_0_name_no_images_called_by_numbers_from_1(
    root: Path, header: str, form: str
) -> None:
    put(root, *(f"{number:04}.png" for number in range(1, 13)))
    lines = [form.format(n=n, m=n + 1, label=label) for n, label in enumerate(ABC)]
    csv(root, "labels.csv", header, lines)
    assert train_labels(load_dataset(str(root))) == (("a", "b", "c"), [0, 1, 2] * 4)


@pytest.mark.parametrize(("first", "second"), [("filename", "path"), ("name", "relpath")])
def test_of_two_columns_the_one_whose_names_are_of_one_file_each_counts(
    root: Path, first: str, second: str
) -> None:
    files = [f"imgs/a/d/{n}.png" for n in range(6)] + [f"imgs/b/d/{n}.png" for n in range(4, 10)]
    put(root, *files)
    lines = [f"{Path(f).name},{f},{label}" for f, label in zip(files, ABC, strict=True)]
    csv(root, "labels.csv", f"{first},{second},label", lines)
    assert train_labels(load_dataset(str(root))) == (("a", "b", "c"), [0, 1, 2] * 4)


def test_numbers_of_rows_may_be_the_names_of_images_of_which_one_is_gone(root: Path) -> None:
    put(root, *(f"{number}.png" for number in range(12) if number != 5))
    lines = [f"{n},{n % 4 + 3},{label}" for n, label in enumerate(ABC)]
    csv(root, "labels.csv", "id,age,label", lines)
    found = load_dataset(str(root)).train
    wanted = ["abc".index(ABC[int(Path(name).stem)]) for name in found.sources]
    assert found.labels is not None
    assert found.labels.tolist() == wanted


@pytest.mark.parametrize("extra", ["id", "", "nearest"])
def test_a_column_called_as_files_are_goes_before_one_that_names_more_images(
    root: Path, extra: str
) -> None:
    """Several rows for an image, or another image in each row; an image is in no row."""
    put(root, *NAMES)
    named = [*NAMES[:-1], "gone.png"]
    other = [str(n) for n in range(12)] if extra != "nearest" else [*NAMES[1:], NAMES[0]]
    lines = [f"{n},{f},{label}" for n, f, label in zip(other, named, ABC, strict=True)]
    csv(root, "labels.csv", f"{extra},filename,label", lines)
    labels = train_labels(load_dataset(str(root)))[1]
    assert labels == [*[0, 1, 2] * 3, 0, 1, -1]


@pytest.mark.input(
    "label",
    what="masks with the same names as the images, and a table of labels",
    happens="labels are read; the masks are skipped",
)
def test_names_of_masks_are_none_of_a_table(root: Path) -> None:
    put(root, *(f"{folder}/{name}" for folder in ("images", "masks") for name in NAMES))
    csv(root, "labels.csv", "file,label", rows("{name},{label}"))
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    assert found.notes.count("image") == 12


@pytest.mark.input(
    "label",
    what="trainLabels.csv beside train/ and test/ with the same file names (CIFAR-10 on Kaggle)",
    happens="it labels only train/",
)
def test_words_of_a_tables_name_may_be_told_by_capitals(root: Path) -> None:
    put(root, *(f"{split}/{name}" for split in ("train", "test") for name in NAMES))
    csv(root, "trainLabels.csv", "id,label", rows("{number},{label}"))
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    assert found.test is not None
    assert found.test.labels is None


@pytest.mark.input(
    "label",
    what="a table that names DICOM files without their ending (Kaggle)",
    happens="labels are read if the extra dicom is installed",
)
@pytest.mark.parametrize("form", ["{stem},{label}", "{stem}.dcm,{label}"])
def test_names_in_a_table_may_lack_the_ending_of_dicom(root: Path, form: str) -> None:
    root.mkdir()
    for number, name in enumerate(NAMES):
        values = np.full((4, 4), 20 * number, np.uint8)
        (root / f"{name[:-4]}.dcm").write_bytes(dicom(values))
    csv(root, "labels.csv", "patientId,Target", rows(form))
    assert train_labels(load_dataset(str(root))) == (("a", "b", "c"), [0, 1, 2] * 4)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels.txt", "# file and class\n{rows}"),
        ("labels.csv", "\n{rows}"),
    ],
)
def test_lines_before_a_table_are_passed_over(root: Path, file: str, text: str) -> None:
    put(root, *NAMES)
    form = "{name} {label}" if file.endswith("txt") else "{name},{label}"
    (root / file).write_text(text.format(rows="\n".join(rows(form))) + "\n")
    assert train_labels(load_dataset(str(root))) == (("a", "b", "c"), [0, 1, 2] * 4)


def test_lines_of_json_may_hold_any_separator_of_unicode(root: Path) -> None:
    put(root, *NAMES)
    lines = [
        json.dumps({"file_name": n, "text": "a\u2028b", "label": label}, ensure_ascii=False)
        for n, label in zip(NAMES, ABC, strict=True)
    ]
    (root / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert train_labels(load_dataset(str(root))) == (("a", "b", "c"), [0, 1, 2] * 4)


@pytest.mark.input(
    "label",
    what="columns x and y that give a tile's position, in a table or Parquet files",
    happens="not used as labels",
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_place_of_a_tile_is_no_label(root: Path, ending: str) -> None:
    places = [(256 * (number % 4), 256 * (number // 4)) for number in range(12)]
    if ending == "csv":
        put(root, *NAMES)
        lines = [f"{name},{x},{y}" for name, (x, y) in zip(NAMES, places, strict=True)]
        csv(root, "tiles.csv", "file,x,y", lines)
    else:
        root.mkdir()
        found = {"image": cells(range(12)), "x": [x for x, _ in places]}
        pq.write_table(pa.table(found | {"y": [y for _, y in places]}), root / "tiles.parquet")
    dataset = load_dataset(str(root))
    assert dataset.train.labels is None
    assert "--label-column" in " ".join(dataset.notes.remarks)


def test_a_first_row_whose_cells_are_equal_is_a_row_like_the_others(root: Path) -> None:
    put(root, *(f"{number}.png" for number in range(8)))
    csv(root, "labels.csv", "", [f"{number},{number % 2}" for number in range(8)])
    assert train_labels(load_dataset(str(root))) == (("0", "1"), [0, 1] * 4)


def test_numbers_of_a_table_are_the_classes_that_folders_name_with_zeros(root: Path) -> None:
    """As in GTSRB."""
    put(root, *(f"train/0000{number % 2}/{number}.png" for number in range(8)))
    put(root, *(f"test/0000{number}.png" for number in range(3)))
    csv(root, "test/GT.csv", "Filename;Width;ClassId", [f"0000{n}.png;8;{n % 2}" for n in range(3)])
    found = load_dataset(str(root))
    assert found.train.class_names == ("00000", "00001")
    assert found.test is not None
    assert found.test.labels.tolist() == [0, 1, 0]


@pytest.mark.input(
    "label", what="metadata.jsonl (the Hub's image folder)", happens="labels are read"
)
def test_lines_of_json_label_images(root: Path) -> None:
    put(root, *NAMES)
    lines = [
        json.dumps(
            {"file_name": name, "label": number % 3 + 1, "objects": {"bbox": [[0, 0, 4, 4]]}}
        )
        for number, name in enumerate(NAMES)
    ]
    csv(root, "metadata.jsonl", "", lines)
    assert train_labels(load_dataset(str(root))) == (("1", "2", "3"), [0, 1, 2] * 4)


@pytest.mark.input(
    "label",
    what="labels inside an object, annotation: {label}, in metadata.jsonl or metadata.parquet",
    happens="read as column annotation.label",
)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_labels_inside_of_objects_are_read(root: Path, ending: str) -> None:
    put(root, *NAMES)
    lines = [
        {"file_name": name, "size": 8, "annotation": {"by": {"whom": "x"}, "label": [label]}}
        for name, label in zip(NAMES, ABC, strict=True)
    ]
    if ending == "jsonl":
        csv(root, "metadata.jsonl", "", [*map(json.dumps, lines)])
    else:
        pq.write_table(pa.Table.from_pylist(lines), root / "metadata.parquet")
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    assert found.notes.remarks == (
        f"labels come from metadata.{ending}: column 'annotation.label', images by 'file_name'",
    )


@pytest.mark.input(
    "label",
    what="several columns of a table with names of label columns",
    happens="the first in a fixed order is used; the others are reported",
)
def test_other_columns_called_as_labels_are_named(root: Path) -> None:
    put(root, *NAMES)
    lines = [
        json.dumps({"file_name": n, "objects": {"category": [1, 2]}, "tag": "x", "label": label})
        for n, label in zip(NAMES, ABC, strict=True)
    ]
    csv(root, "metadata.jsonl", "", lines)
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    said = "--label-column takes 'tag', 'objects.category' of metadata.jsonl instead"
    assert found.notes.remarks[1:] == (said,)


def test_a_first_line_without_a_label_hides_no_other(root: Path) -> None:
    put(root, *NAMES)
    lines = [
        {"file_name": name} | ({"label": "ab"[n % 2]} if n else {}) for n, name in enumerate(NAMES)
    ]
    csv(root, "metadata.jsonl", "", [*map(json.dumps, lines)])
    assert train_labels(load_dataset(str(root))) == (("a", "b"), [-1, *[1, 0] * 5, 1])


def test_text_that_says_no_label_is_no_class(root: Path) -> None:
    put(root, *NAMES)
    said = ["NA", "n/a", "?", "-1", "-100", "unlabeled", *"abcabc"]
    csv(root, "labels.csv", "file,label", [f"{n},{of}" for n, of in zip(NAMES, said, strict=True)])
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [-1] * 6 + [0, 1, 2] * 2)
    assert found.notes.remarks[1:] == (
        "no label where column 'label' of labels.csv says 'NA', 'n/a', '?', 'unlabeled': give a "
        "class another name",
        "6 of 12 images of train have no label",
    )


@pytest.mark.input(
    "label",
    what="a class named none, NA or null in a table",
    happens="counts as no label; reported",
)
def test_a_word_for_no_label_that_may_be_a_class_is_named(root: Path) -> None:
    put(root, *NAMES)
    named = [row.replace(",b", ",None") for row in rows("{name},{label}")]
    csv(root, "labels.csv", "file,kind", named)
    found = load_dataset(str(root), reading=Reading(label_column="kind"))
    assert train_labels(found) == (("a", "c"), [0, -1, 1] * 4)
    said = "no label where column 'kind' of labels.csv says 'None': give a class another name"
    assert said in found.notes.remarks
    empty = [row.replace(",b", ",") for row in rows("{name},{label}")]
    csv(root, "labels.csv", "file,kind", empty)
    assert load_dataset(str(root)).notes.remarks[1:] == ("4 of 12 images of train have no label",)


@pytest.mark.input(
    "label", what="metadata.parquet (the Hub's image folder)", happens="labels are read"
)
def test_metadata_in_parquet_labels_images(root: Path) -> None:
    put(root, *NAMES)
    pq.write_table(pa.table({"file_name": NAMES, "label": list(ABC)}), root / "metadata.parquet")
    assert train_labels(load_dataset(str(root))) == (("a", "b", "c"), [0, 1, 2] * 4)


@pytest.mark.input(
    "label",
    what="one column per class, with a single 1 or True in each row (one-hot)",
    happens="read as labels; rows of only 0 have no label",
)
@pytest.mark.parametrize(
    "hot",
    [
        ("1.0,0,0", "0,1.0,0", "0,0,1.0", "0,0.0,0"),
        ("True,False,False", "false,TRUE,false", "False,False,true", "False,False,False"),
        ("1,,", ",1,", ",,1", ",,"),
    ],
)
def test_columns_with_a_single_one_are_classes(root: Path, hot: tuple[str, ...]) -> None:
    put(root, *NAMES)
    lines = [f"{name[:-4]},{row}" for name, row in zip(NAMES, hot * 3, strict=True)]
    csv(root, "train.csv", "image_id,rust,scab,healthy", lines)
    found = load_dataset(str(root))
    assert train_labels(found) == (("healthy", "rust", "scab"), [1, 2, 0, -1] * 3)
    assert "3 of 12 images of train have no label" in found.notes.remarks


@pytest.mark.input(
    "label",
    what="columns of 0 and 1 with several 1s in a row, or without a 1 in most rows",
    happens="reported: no single class per row",
)
@pytest.mark.parametrize("lines", [["1,1,0", "0,1,0", "0,0,1"], ["1,0,0", "0,0,0", "0,0,0"]])
def test_columns_of_several_ones_are_no_classes(root: Path, lines: list[str]) -> None:
    put(root, *NAMES)
    both = zip(NAMES, lines * 4, strict=True)
    csv(root, "train.csv", "image_id,rust,scab,healthy", [f"{n[:-4]},{row}" for n, row in both])
    found = load_dataset(str(root))
    assert found.train.labels is None
    (remark,) = found.notes.remarks
    assert "it is unclear which of its columns ('rust', 'scab', 'healthy') holds them" in remark


@pytest.mark.input(
    "layout",
    what="val/val_annotations.txt beside val/images/ (Tiny ImageNet)",
    happens="the file labels val/, which is scored",
)
def test_tiny_imagenet_is_scored_on_its_validation_split(root: Path) -> None:
    put(root, *(f"train/{of}/images/{of}_{n}.JPEG" for of in ("n1", "n2") for n in range(3)))
    put(root, *(f"{split}/images/{split}_{n}.JPEG" for split in ("val", "test") for n in range(4)))
    lines = [f"val_{n}.JPEG\t{of}\t0\t32\t44\t62" for n, of in enumerate(("n2", "n1", "n1", "n2"))]
    csv(root, "val/val_annotations.txt", "", lines)
    found = load_dataset(str(root))
    assert train_labels(found) == (("n1", "n2"), [0, 0, 0, 1, 1, 1])
    assert found.notes.scored == "validation"
    assert found.test is not None
    assert found.test.labels is not None
    assert found.test.labels.tolist() == [1, 0, 0, 1]


@pytest.mark.input(
    "label",
    what="train.csv and test.csv beside flat train/ and test/",
    happens="each labels its own split, even if both have the same file names",
)
def test_each_split_has_its_own_table(root: Path) -> None:
    put(root, *(f"train/{name}" for name in NAMES), *(f"test/{name}" for name in NAMES[:3]))
    csv(root, "train.csv", "id,label", rows("{stem},{label}"))
    csv(root, "test.csv", "id,label", ["0000,c", "0001,c", "0002,a"])
    csv(root, "sample_submission.csv", "id,label", ["0000,a", "0001,a", "0002,a"])
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    assert found.test is not None
    assert found.test.labels is not None
    assert found.test.labels.tolist() == [2, 2, 0]
    said = "sample_submission.csv gives no labels: submissions hold predictions"
    assert said in found.notes.remarks


@pytest.mark.input(
    "label",
    what="train/CLASS beside a flat test/ with test.csv (GTSRB)",
    happens="the folders label train/, the table labels test/",
)
def test_a_table_labels_the_split_that_has_no_class_folders(root: Path) -> None:
    put(root, *each("Train/0", "Train/1", count=3), *(f"Test/{name}" for name in NAMES[:3]))
    csv(root, "Test.csv", "Width,Path,ClassId", [f"8,Test/000{n}.png,{n % 2}" for n in range(3)])
    found = load_dataset(str(root))
    assert train_labels(found) == (("0", "1"), [0, 0, 0, 1, 1, 1])
    assert found.test is not None
    assert found.test.labels is not None
    assert found.test.labels.tolist() == [0, 1, 0]


@pytest.mark.input(
    "layout",
    what="flat train/, val/ and test/, where train/ and val/ have a table",
    happens="val/ is scored",
)
def test_the_split_that_a_table_labels_is_scored(root: Path) -> None:
    put(root, *(f"{split}/{name}" for split in ("train", "val", "test") for name in NAMES))
    for split in ("train", "val"):
        csv(root, f"{split}/metadata.csv", "file_name,label", rows("{name},{label}"))
    found = load_dataset(str(root))
    assert found.notes.scored == "validation"
    assert found.test is not None
    assert found.test.labels is not None
    assert found.notes.count("image") == 12


@pytest.mark.input("label", what="a table in UTF-16 (spreadsheets)", happens="labels are read")
def test_a_table_in_utf_16_labels_images(root: Path) -> None:
    put(root, *NAMES)
    text = "\r\n".join(["image\tlabel", *rows("{name}\tß{label}")])
    (root / "labels.tsv").write_bytes(text.encode("utf-16"))
    assert train_labels(load_dataset(str(root))) == (("ßa", "ßb", "ßc"), [0, 1, 2] * 4)


@pytest.mark.input(
    "label",
    what="a table of only image names and their split (CelebA's partition)",
    happens="the split is not used as a label; reported",
)
@pytest.mark.parametrize("name", ["partition", "split", "Set", "fold", "sub_set"])
def test_a_column_that_names_the_split_is_no_label(root: Path, name: str) -> None:
    put(root, *NAMES)
    csv(root, "list_eval_partition.csv", f"image_id,{name}", rows("{name},{label}"))
    found = load_dataset(str(root))
    assert found.train.labels is None
    assert found.notes.remarks == ("list_eval_partition.csv gives no labels: no other column",)
    asked = load_dataset(str(root), reading=Reading(label_column=name))
    assert train_labels(asked) == (("a", "b", "c"), [0, 1, 2] * 4)


@pytest.mark.input(
    "oddity", what="a folder of only tables", happens="refused; the error names them"
)
def test_a_folder_of_tables_alone_is_refused_by_their_names(root: Path) -> None:
    csv(root, "mnist_train.csv", "label,pixel0,pixel1", ["3,0,255"])
    with pytest.raises(DataError, match=r"tables without images: 'mnist_train\.csv'"):
        load_dataset(str(root))


def unfit(what: str, file: str, header: str, form: str, why: str) -> Any:
    return row(
        what, f"no labels; the reason is reported: {why}", file, header, form, why, kind="label"
    )


@pytest.mark.parametrize(
    ("file", "header", "form", "why"),
    [
        unfit(
            "captions",
            *("metadata.csv", "file_name,text", "{name},picture {number}"),
            "its column 'text' holds 12 different values in 12 rows",
        ),
        unfit(
            "a table about other images",
            *("labels.csv", "image,label", "x{name},{label}"),
            "no column names the images",
        ),
        unfit(
            "a table with several columns that may be labels",
            *("labels.csv", "image,age,sex", "{name},{number},{label}"),
            "it is unclear which of its columns ('age', 'sex') holds them: use --label-column",
        ),
        unfit(
            "labels that are numbers with fractions, in a table",
            *("labels.csv", "image,label", "{name},0.{number}"),
            "its column 'label' holds numbers with fractions, such as 0.1",
        ),
        unfit("an empty table", "labels.csv", "", "", "it is empty"),
        unfit("a table of only names", "list.csv", "image", "{name}", "no other column"),
        unfit(
            "invalid JSON lines",
            *("metadata.jsonl", "", "{{no"),
            "it cannot be read (Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1))",
        ),
        unfit(
            "metadata.parquet that is invalid",
            *("metadata.parquet", "", "no"),
            "it cannot be read (Parquet magic bytes not found in footer. Either the file is "
            "corrupted or this is not a parquet file.)",
        ),
    ],
)
def test_a_table_that_gives_no_labels_is_named_with_the_reason(
    root: Path, file: str, header: str, form: str, why: str
) -> None:
    put(root, *NAMES)
    csv(root, file, header, rows(form))
    found = load_dataset(str(root))
    assert found.train.labels is None
    assert found.notes.remarks == (f"{file} gives no labels: {why}",)


@pytest.mark.input(
    "label",
    what="table rows without an image, images without a row, two labels for one image",
    happens="reported; the rest is labelled",
)
def test_labels_that_cannot_be_used_are_named(root: Path) -> None:
    put(root, *NAMES)
    lines = [*rows("{name},{label}")[:-1], "0000.png,b", "gone.png,a"]
    csv(root, "labels.csv", "file,label", lines)
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [-1, 1, 2, *[0, 1, 2] * 2, 0, 1, -1])
    assert {group.reason: group.names for group in found.notes.unused} == {
        "labels.csv names images that are not there": ("gone.png",),
        "labels.csv has several labels for one image": ("0000.png",),
    }
    assert "2 of 12 images of train have no label" in found.notes.remarks


@pytest.mark.input(
    "label",
    what="a table in which all labels of test/ are -1",
    happens="reported: the labels are hidden",
)
def test_hidden_labels_of_a_table_are_said(root: Path) -> None:
    put(root, *(f"{split}/{name}" for split in ("train", "test") for name in NAMES))
    lines = [f"train/{name},{number % 3}" for number, name in enumerate(NAMES)]
    csv(root, "labels.csv", "file,label", [*lines, *(f"test/{name},-1" for name in NAMES)])
    found = load_dataset(str(root))
    assert train_labels(found) == (("0", "1", "2"), [0, 1, 2] * 4)
    assert "the labels of test are all hidden (-1, -100 or null)" in found.notes.remarks


@pytest.mark.input(
    "label",
    what="names in a table that fit several images",
    happens="none of these images gets a label; the names are listed",
)
def test_a_name_that_two_images_have_labels_neither(root: Path) -> None:
    put(root, *(f"x/y/{name}" for name in NAMES), "z/0000.png")
    csv(root, "labels.csv", "file,label", rows("{name},{label}"))
    found = load_dataset(str(root))
    assert found.train.sources[0] == "x/y/0000.png"
    assert train_labels(found)[1] == [-1, *([0, 1, 2] * 4)[1:], -1]
    assert [(group.reason, group.names) for group in found.notes.unused] == [
        (
            "labels.csv names images by names that several files have: write their paths",
            ("0000.png",),
        )
    ]


def test_a_table_of_names_that_several_images_have_says_so(root: Path) -> None:
    put(root, *(f"{folder}/{name}" for folder in ("train/x/y", "train/z") for name in NAMES))
    csv(root, "train.csv", "label,file", rows("{label},{name}"))
    found = load_dataset(str(root))
    said = "its column 'file' holds names that several files have: write their paths"
    assert f"train.csv gives no labels: {said}" in found.notes.remarks


@pytest.mark.input(
    "label",
    what="numbers in a table beside files that differ only in zeros (1, 01, 001)",
    happens="each number labels the file with exactly that name",
)
def test_a_number_is_its_own_name_before_it_lacks_zeros(root: Path) -> None:
    put(root, "1.png", "01.png", "001.png", "0002.png")
    csv(root, "labels.csv", "id,label", ["1,a", "01,b", "001,c", "2,c"])
    found = load_dataset(str(root))
    by_name = dict(zip(found.train.sources, train_labels(found)[1] or (), strict=True))
    assert by_name == {"1.png": 0, "01.png": 1, "001.png": 2, "0002.png": 2}
    assert found.notes.unused == ()


@pytest.mark.input(
    "label",
    what="a table beside class folders",
    happens="listed, not read: the folders are the classes",
)
def test_class_folders_go_before_tables(root: Path) -> None:
    put(root, *each("cat", "dog"))
    before = find_source(str(root)).stamps
    csv(root, "labels.csv", "file,label", ["cat/0.png,x", "cat/1.png,x"])
    found = load_dataset(str(root))
    assert found.train.class_names == ("cat", "dog")
    assert [(g.reason, g.names) for g in found.notes.unused] == [
        ("not read: the folders are classes", ("labels.csv",))
    ]
    assert find_source(str(root)).stamps == before


@pytest.mark.input(
    "label",
    what="a table beside folders that differ only in a number (HAM10000, ChestX-ray14)",
    happens="the table labels the images: the folders are parts of one set",
)
@pytest.mark.parametrize("form", ["HAM_images_part_{}/", "images_00{}/images/"])
def test_a_table_goes_before_folders_that_are_parts_of_a_set(root: Path, form: str) -> None:
    put(
        root,
        *(f"{form.format(1 + (name[0] == 'b'))}{name}.png" for name in ("a0", "a1", "b0", "b1")),
    )
    lines = ["a0,nv", "a1,mel", "b0,mel", "b1,nv"]
    csv(root, "metadata.csv", "image_id,dx", lines)
    assert train_labels(load_dataset(str(root))) == (("mel", "nv"), [1, 0, 0, 1])
    (root / "metadata.csv").write_text("image_id,dx\na0,nv\n")  # labels too few of them
    assert len(load_dataset(str(root)).train.class_names) == 2


@pytest.mark.input(
    "label",
    what="a table that also labels images in class folders, beside a flat split",
    happens="the folders are used; images that the table labels differently are listed",
)
def test_a_table_that_contradicts_class_folders_is_named(root: Path) -> None:
    put(root, *each("train/a", "train/b"), "val/x.png", "val/y.png")
    lines = ["train/a/0.png,a", "train/a/1.png,b", "train/b/0.png,b", "val/x.png,b", "val/y.png,a"]
    csv(root, "all.csv", "file,label", lines)
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b"), [0, 0, 1, 1])
    assert found.test is not None
    assert found.test.labels is not None
    assert found.test.labels.tolist() == [1, 0]
    assert [(group.what, group.names) for group in found.notes.unused] == [
        ("label", ("train/a/1.png",))
    ]


@pytest.mark.input(
    "label",
    what="--label-column NAME for a table beside images",
    happens="that column is used instead of the usual columns and class folders",
)
def test_the_named_column_of_a_table_labels_images(root: Path) -> None:
    put(root, *each("cat", "dog"))
    lines = [f"{folder}/{n}.png,1,{'xy'[n]},other" for folder in ("cat", "dog") for n in (0, 1)]
    csv(root, "labels.csv", "file,label,form,elsewhere", lines)
    found = load_dataset(str(root), reading=Reading(label_column="form"))
    assert train_labels(found) == (("x", "y"), [0, 1, 0, 1])
    assert "labels come from labels.csv: column 'form', images by 'file'" in found.notes.remarks
    assert train_labels(load_dataset(str(root)))[0] == ("cat", "dog")  # by another key


def test_the_named_column_of_a_table_names_images(root: Path) -> None:
    put(root, *NAMES)
    turned = [f"{n},{m},{a}" for n, m, a in zip(NAMES, reversed(NAMES), ABC, strict=True)]
    csv(root, "labels.csv", "file,scan,label", turned)
    assert train_labels(load_dataset(str(root)))[1] == [0, 1, 2] * 4
    found = load_dataset(str(root), reading=Reading(image_column="scan"))
    assert train_labels(found)[1] == [2, 1, 0] * 4


@pytest.mark.input(
    "label", what="--label-column NAME that no table beside images has", happens="refused"
)
@pytest.mark.parametrize("column", ["label_column", "image_column"])
def test_a_column_that_no_table_has_is_refused(root: Path, column: str) -> None:
    put(root, *NAMES)
    csv(root, "labels.csv", "file,label", rows("{name},{label}"))
    with pytest.raises(DataError, match=r"labels\.csv gives no labels: it has no column 'breed'"):
        load_dataset(str(root), reading=Reading()._replace(**{column: "breed"}))


def test_a_column_of_a_folder_without_tables_is_warned_of(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(root, *NAMES)
    assert len(load_dataset(str(root), reading=Reading(label_column="breed")).train) == 12
    assert "pictures has no columns to choose from" in caplog.text


@pytest.mark.input(
    "label",
    what="a column that gives the split, in a table",
    happens="reported, not used: folders define the splits, and a flat folder is all for training",
)
@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("train/", "folders name the splits"),
        ("", "all images are trained on; to split them, use folders train/ and test/"),
    ],
)
def test_a_column_of_splits_is_named(root: Path, folder: str, why: str) -> None:
    put(root, *(f"{folder}{name}" for name in NAMES), *["test/x.png"] * bool(folder))
    csv(root, "labels.csv", "file,label,split", rows("{name},{label},test"))
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    assert f"column 'split' of labels.csv is not used: {why}" in found.notes.remarks


def test_a_changed_table_is_read_again(root: Path) -> None:
    """The cache of decoded images holds labels too."""
    put(root, *NAMES)
    csv(root, "labels.csv", "file,label", rows("{name},{label}"))
    assert train_labels(load_dataset(str(root)))[0] == ("a", "b", "c")
    csv(root, "labels.csv", "file,label", rows("{name},class {label}"))
    assert train_labels(load_dataset(str(root)))[0] == ("class a", "class b", "class c")
    (root / "labels.csv").unlink()
    assert train_labels(load_dataset(str(root))) == ((), None)


def test_of_two_tables_the_nearer_and_better_named_one_counts(root: Path) -> None:
    put(root, *NAMES)
    csv(root, "metadata.csv", "file_name,label", rows("{name},{label}"))
    csv(root, "labels.csv", "file,label", rows("{name},z{label}"))
    found = load_dataset(str(root))
    assert found.train.class_names == ("a", "b", "c")
    said = "labels.csv gives no labels: the images it names already have labels"
    assert said in found.notes.remarks


@pytest.mark.input(
    "label",
    what="two tables that give an image different labels",
    happens="the nearer or better named one is used; images where the other differs are listed",
)
@pytest.mark.parametrize("first", [0, 4])
def test_labels_that_contradict_an_earlier_table_are_named(root: Path, first: int) -> None:
    put(root, *NAMES)
    csv(root, "a.csv", "file,label", rows("{name},{label}")[: 8 if first else 12])
    other = rows("{name},{label}")[first:]
    other[0], other[1] = f"{NAMES[first]},c", f"{NAMES[first + 1]},a"
    csv(root, "b.csv", "file,label", [*other, "gone.png,a"])
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    assert {group.reason: group.names for group in found.notes.unused} == {
        "b.csv contradicts class folders or an earlier table, which come first": (
            NAMES[first],
            NAMES[first + 1],
        ),
        "b.csv names images that are not there": ("gone.png",),
    }


@pytest.mark.input(
    "label",
    what="two columns with the same name in a CSV",
    happens="the first is read; the other is reported, with the number of rows that differ",
)
def test_of_two_columns_of_one_name_the_first_counts(root: Path) -> None:
    put(root, *NAMES)
    csv(root, "labels.csv", "file,label,label", [f"{row},b" for row in rows("{name},{label}")])
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    assert found.notes.remarks[1] == (
        "labels.csv has two columns called 'label', which differ in 8 of 12 rows: the first is "
        "used; --label-column 'label (column 3)' takes the other"
    )
    asked = load_dataset(str(root), reading=Reading(label_column="label (column 3)"))
    assert train_labels(asked) == (("b",), [0] * 12)


def test_of_a_split_that_is_not_there_no_image_is_labelled(root: Path) -> None:
    """Its rows have the names of other images."""
    put(root, *(f"train/{name}" for name in NAMES))
    lines = rows("train/{name},{label}") + rows("test/{name},c")
    csv(root, "all.csv", "path,label", lines)
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    (lost,) = found.notes.unused
    assert lost.names == tuple(f"test/{name}" for name in NAMES)


@pytest.mark.input(
    "label",
    what="train.csv that also names images of test/, by path or by name",
    happens="it labels only train/; the rows of other splits are listed",
)
@pytest.mark.parametrize("form", ["test/{name},c", "/home/x/test/{name},c"])
def test_a_path_to_another_split_labels_no_image_of_the_same_name(root: Path, form: str) -> None:
    put(root, *(f"{split}/{name}" for split in ("train", "test") for name in NAMES))
    paths = form.partition("{")[0].replace("test", "train")
    both = rows(f"{paths}{{name}},{{label}}")[:6] + rows(form)[3:]
    csv(root, "train.csv", "path,label", ["only.png,a", *both])
    put(root, "test/only.png")
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2, 0, 1, 2, *[-1] * 6])
    ((lost),) = (group for group in found.notes.unused if group.what == "label")
    assert lost.names == ("only.png", *(row.partition(",")[0] for row in rows(form)[3:]))
    assert lost.reason.startswith("train.csv names images of another split or folder: ")


def test_a_path_goes_before_its_name_alone(root: Path) -> None:
    """Where other rows have folders that are not there, so that most are found by name."""
    put(root, *(f"x/y/{name}" for name in NAMES), "z/0000.png")
    lines = ["y/0000.png,a", "z/0000.png,b", *rows("gone/{name},{label}")[1:]]
    csv(root, "labels.csv", "path,label", lines)
    assert train_labels(load_dataset(str(root)))[1] == [0, *[1, 2, 0] * 3, 1, 2, 1]


@pytest.mark.input(
    "label",
    what="rows of a CSV with more cells than its header has columns (unquoted commas)",
    happens="their labels are listed, not used; empty cells at the end do no harm",
)
def test_rows_longer_than_the_header_are_named(root: Path) -> None:
    put(root, *NAMES)
    lines = [*rows("{name},{label}")[:9], "0009.png,a, or b", "0010.png,b,", "0011.png,c,,x"]
    csv(root, "labels.csv", "file,label", lines)
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [*[0, 1, 2] * 3, -1, 1, -1])
    (lost,) = found.notes.unused
    assert (lost.what, lost.names) == ("label", ("0009.png", "0011.png"))
    assert lost.reason.startswith("labels.csv has rows with more values than its header: ")


@pytest.mark.input(
    "label",
    what="a CSV with row numbers that its header does not mention (R)",
    happens="labels are read",
)
def test_row_numbers_without_a_header_move_no_column(root: Path) -> None:
    put(root, *NAMES)
    lines = rows('"{number}","{name}","{label}"')
    csv(root, "labels.csv", '"file","label"', lines)
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    assert found.notes.unused == ()


@pytest.mark.input(
    "label",
    what="names of classes or files in two forms of Unicode (macOS, Linux)",
    happens="compared in one form",
)
def test_an_accent_behind_its_letter_makes_no_other_name(root: Path) -> None:
    composed, behind = "caf\u00e9", "cafe\u0301"
    put(root, *each(f"train/{behind}", "train/thé"), f"val/{composed}/x.png", "test/\u00e9.png")
    found = load_dataset(str(root), reading=Reading(split="val"))
    assert found.train.class_names == (behind, "thé")  # as they stand there
    assert found.test is not None
    assert found.test.labels is not None
    assert found.test.labels.tolist() == [0]
    csv(root, "test.csv", "file,label", [f"e\u0301.png,{composed}"])
    found = load_dataset(str(root), reading=Reading(split="test"))
    assert found.test is not None
    assert found.test.labels is not None
    assert found.test.labels.tolist() == [0]
    assert not [group for group in found.notes.unused if group.what == "label"]


def test_labels_in_two_forms_of_one_text_are_one_class(root: Path) -> None:
    put(root, *NAMES)
    labels = ["\u00e9", "e\u0301", "x"] * 4
    csv(root, "a.csv", "file,label", [f"{n},{a}" for n, a in zip(NAMES, labels, strict=True)])
    assert train_labels(load_dataset(str(root))) == (("e\u0301", "x"), [0, 0, 1] * 4)


@pytest.mark.input(
    "label",
    what="a table without a header whose names have no ending",
    happens="its first line is read as a row",
)
@pytest.mark.parametrize("form", ["all/{stem},{label}", "{stem} {label}"])
def test_a_first_line_that_names_an_image_is_a_row(root: Path, form: str) -> None:
    put(root, *(f"all/{name}" for name in NAMES))
    csv(root, "list.csv", "", rows(form))
    found = load_dataset(str(root))
    assert train_labels(found) == (("a", "b", "c"), [0, 1, 2] * 4)
    assert found.notes.remarks == ("labels come from list.csv: column '2', images by '1'",)


def test_a_header_that_an_image_is_called_like_is_a_header(root: Path) -> None:
    put(root, *NAMES, "image.png")
    csv(root, "list.csv", "image,label", rows("{stem},{label}"))
    assert train_labels(load_dataset(str(root)))[1] == [*[0, 1, 2] * 4, -1]


@pytest.mark.input(
    "label",
    what="val.txt beside images that are in no split",
    happens="reported: the split it belongs to does not exist",
)
def test_a_table_of_a_split_that_is_not_there_is_named(root: Path) -> None:
    put(root, *(f"images/{name}" for name in NAMES))
    csv(root, "train.txt", "", rows("images/{name} {label}")[:6])
    csv(root, "val.txt", "", rows("images/{name} {label}")[6:])
    found = load_dataset(str(root))
    assert train_labels(found)[1] == [*[0, 1, 2] * 2, *[-1] * 6]
    said = "val.txt gives no labels: no image is in the split of its name, validation; renamed to "
    assert found.notes.remarks[1:] == (
        f"{said}labels.csv and put beside all images, it could label any of them",
        "6 of 12 images of train have no label",
    )
