"""Items that a Python caller holds: which value of a row or a pair is the image, and the label."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import stopgrad
from stopgrad.config import preset
from stopgrad.errors import ConfigError, DataError
from stopgrad.face.progress import Screen
from stopgrad.images import DamagedImagesError
from tests.images.factories import png
from tests.inputs import row

PIXELS = np.random.default_rng(3).integers(0, 256, (6, 9, 11, 3), np.uint8)
CLASSES = [0, 1, 0, 1, 0, 1]
KINDS = "abcabc"
item = functools.partial(row, kind="label")


def rows_of(pixels: Any = PIXELS) -> list[dict[str, Any]]:
    """Rows with two columns of labels."""
    pairs = enumerate(pixels)
    return [{"image": Image.fromarray(x), "label": n % 2, "kind": "abc"[n % 3]} for n, x in pairs]


def read(data: Any, **reading: Any) -> tuple[tuple[str, ...], list[int] | None]:
    """The class names and the labels, of images that are those above."""
    found = stopgrad.load(data, **reading).dataset.train
    assert (found.pixels == PIXELS).all()
    return found.class_names, None if found.labels is None else found.labels.tolist()


class HubRows:
    """A data set of the Hub's library, with names for two columns of classes."""

    class _Feature:
        def __init__(self, *names: str) -> None:
            self.names = list(names)

    def __init__(self) -> None:
        fine, coarse = self._Feature("u", "v"), self._Feature("x", "y", "z")
        self.features = {"fine_label": fine, "coarse_label": coarse}

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = Image.fromarray(PIXELS[index])
        return {"img": image, "fine_label": index % 2, "coarse_label": index % 3}


@pytest.mark.input(
    "label",
    what="label_column=NAME for rows in memory or a data set of the Hub's library",
    happens="that column is read, with its own class names",
)
def test_the_named_column_of_rows_in_memory_labels_images() -> None:
    assert read(rows_of()) == (("0", "1"), CLASSES)
    assert read(rows_of(), label_column="kind") == (("a", "b", "c"), [0, 1, 2] * 2)
    assert read(HubRows()) == (("u", "v"), CLASSES)
    assert read(HubRows(), label_column="coarse_label") == (("x", "y", "z"), [0, 1, 2] * 2)


def test_a_column_of_classes_goes_before_numbers_with_a_better_name() -> None:
    """As in Parquet files; and no column has the class names of another."""

    class Rows(HubRows):
        def __getitem__(self, index: int) -> dict[str, Any]:
            row = super().__getitem__(index)
            return {"img": row["img"], "label": 7, "category": row["fine_label"]}

    rows = Rows()
    rows.features = {"img": None, "label": object(), "category": rows.features["fine_label"]}
    assert read(rows) == (("u", "v"), CLASSES)


def test_a_column_of_classes_that_rows_lack_is_not_asked_for() -> None:
    """As after `with_transform` of the Hub's library."""

    class Rows(HubRows):
        def __getitem__(self, index: int) -> dict[str, Any]:
            row = super().__getitem__(index)
            return {"image": row["img"], "labels": row["fine_label"]}

    assert read(Rows())[1] == CLASSES


def test_rows_in_memory_are_read_again_by_the_column_that_a_config_names() -> None:
    data = stopgrad.load(rows_of())
    stored = data.stored_for(preset("tiny", label_column="kind"), Screen())
    assert stored.train.class_names == ("a", "b", "c")
    assert data.stored_for(preset("tiny"), Screen()).train.class_names == ("0", "1")
    named = stopgrad.load(rows_of(), label_column="kind")
    assert named.stored_for(preset("tiny"), Screen()).train.class_names == ("a", "b", "c")


def test_a_run_keeps_the_column_of_rows_and_embeds_images_without_columns(tmp_path: Path) -> None:
    digits = stopgrad.load("mnist5k").dataset.train.pixels[:96]
    rows = rows_of(digits)
    run = stopgrad.pretrain(
        rows, out=tmp_path / "run", preset="tiny", epochs=1, label_column="kind", validation=0.25
    )
    again = stopgrad.Run(tmp_path / "run", data=rows)
    (record,) = again.evaluate(of="encoder", metrics="knn_accuracy")
    assert len(record.per_class) == 3
    assert np.allclose(run.embed(digits[:5].copy()), run.embed(rows)[:5], atol=1e-4)


@pytest.mark.input(
    "label",
    what="label_column or image_column that no row in memory has",
    happens="refused; the error lists the columns",
)
@pytest.mark.parametrize("column", ["label_column", "image_column"])
def test_a_column_that_no_row_has_is_refused(column: str) -> None:
    said = f"no column 'breed'; expected one of the columns image, label, kind; correct {column}"
    with pytest.raises(DataError, match=said):
        stopgrad.load(rows_of(), **{column: "breed"})


def test_a_named_column_that_holds_no_labels_is_refused() -> None:
    rows = [{"image": x, "weight": n / 4} for n, x in enumerate(PIXELS)]
    with pytest.raises(DataError, match=r"no labels in column 'weight' \(.*float64\)\); expected"):
        stopgrad.load(rows, label_column="weight")


@pytest.mark.parametrize(
    "make",
    [
        item("label_column or image_column for an array", "refused", lambda: PIXELS),
        item("label_column or image_column for a list of images", "refused", lambda: list(PIXELS)),
        item("label_column or image_column for pairs", "refused", lambda: [(x, 1) for x in PIXELS]),
    ],
)
@pytest.mark.parametrize("column", ["label_column", "image_column"])
def test_a_column_of_images_without_columns_is_refused(
    make: Callable[[], Any], column: str, tmp_path: Path
) -> None:
    said = f"{column} for images without columns"
    with pytest.raises(ConfigError, match=said):
        stopgrad.load(make(), **{column: "kind"})
    with pytest.raises(ConfigError, match=said):
        stopgrad.pretrain(stopgrad.load(make()), out=tmp_path / "run", **{column: "kind"})


def test_labels_beside_a_column_of_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match="both labels and label_column"):
        stopgrad.load(rows_of(), labels=CLASSES, label_column="kind")


def tensors() -> list[Any]:
    turned = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255
    return [{"pixel_values": x, "labels": n} for x, n in zip(turned, CLASSES, strict=True)]


@pytest.mark.parametrize(
    ("make", "labels"),
    [
        item(
            "rows whose only Pillow image has an unusual name",
            "that is the image",
            lambda: [{"picture": Image.fromarray(x), "id": 7} for x in PIXELS],
            None,
        ),
        item("rows {pixel_values: tensor, labels}", "read", tensors, CLASSES),
        item(
            "rows {x: bytes, y}",
            "read",
            lambda: [{"x": png(x), "y": n} for x, n in zip(PIXELS, CLASSES, strict=True)],
            CLASSES,
        ),
        item(
            "lists of an image and its label",
            "read as pairs",
            lambda: [[Image.fromarray(x), n] for x, n in zip(PIXELS, CLASSES, strict=True)],
            CLASSES,
        ),
        item(
            "lists of an array and its label",
            "read as pairs",
            lambda: [[x, n] for x, n in zip(PIXELS, CLASSES, strict=True)],
            CLASSES,
        ),
        item(
            "lists of an image's channels",
            "read as images",
            lambda: [list(x.transpose(2, 0, 1)) for x in PIXELS],
            None,
        ),
    ],
)
def test_the_image_of_an_item_is_found_by_what_it_is(make: Callable[[], Any], labels: Any) -> None:
    assert read(make())[1] == labels


def test_paths_in_rows_and_in_lists_are_images(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for path, pixels in zip(paths, PIXELS, strict=True):
        path.write_bytes(png(pixels))
    pairs = list(zip(paths, CLASSES, strict=True))
    assert read([{"where": path, "target": n} for path, n in pairs])[1] == CLASSES
    assert read([{"where": str(path), "target": n} for path, n in pairs])[1] == CLASSES
    assert read([[str(path), n] for path, n in pairs])[1] == CLASSES


def test_a_path_in_rows_that_leads_nowhere_is_a_damaged_image() -> None:
    rows = [{"file": "no/such.png", "label": 1}] * 2
    with pytest.raises(DamagedImagesError, match="No such file"):
        stopgrad.load(rows)


def test_a_number_may_be_the_name_of_a_column() -> None:
    assert read([{0: Image.fromarray(x), 1: 7} for x in PIXELS]) == ((), None)


def test_the_named_column_of_rows_in_memory_holds_the_images() -> None:
    rows = [{"image": x[:, ::-1], "scan": x, "label": 1} for x in PIXELS]
    assert read(rows, image_column="scan") == (("1",), [0] * 6)
    nested = [{"image": x[:, ::-1], "scan": x.tolist()} for x in PIXELS]
    assert read(nested, image_column="scan") == ((), None)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        item(
            "rows with several images under unusual names",
            "refused; the error names their columns",
            {"scan": PIXELS[0], "mask": PIXELS[1], "label": 1},
            r"2 columns that may hold the images \('scan', 'mask'\).* name it with image_column",
        ),
        item(
            "rows without an image",
            "refused; the error names their columns",
            {"width": 8, "label": 1},
            r"no image in the columns 'width', 'label'; .*image_column",
        ),
        item(
            "pairs of a label and an image, in this order",
            "refused; the error names the types",
            (1, Image.fromarray(PIXELS[0])),
            "items of int, Image; expected an image first, and its label second",
        ),
        item(
            "pairs of numbers",
            "refused; the error names the types",
            (1, 2),
            "items of int, int; expected an image first, and its label second",
        ),
        item(
            "lists of a label and an image, in this order",
            "refused; the error names the types",
            [1, PIXELS[0]],
            "items of int, ndarray; expected an image first, and its label second",
        ),
    ],
)
def test_items_whose_image_is_unclear_are_refused_in_one_line(made: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        stopgrad.load([made] * 6)
    assert "\n" not in str(caught.value)


class Named(torch.utils.data.Dataset[Any]):
    """A data set of torchvision, which knows its classes."""

    def __init__(self, *classes: str) -> None:
        self.classes = classes

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(PIXELS[index]), CLASSES[index]


def split(data: Any) -> Any:
    return torch.utils.data.random_split(data, [4, 2], torch.Generator().manual_seed(0))[0]


@pytest.mark.parametrize(
    ("make", "names"),
    [
        item(
            "Subset of a torchvision data set",
            "keeps the class names",
            lambda: torch.utils.data.Subset(Named("cat", "dog"), [1, 2, 3]),
            ("cat", "dog"),
        ),
        item(
            "random_split of a Subset, and ConcatDataset",
            "keep the class names",
            lambda: torch.utils.data.ConcatDataset(
                [split(torch.utils.data.Subset(Named("cat", "dog"), range(6)))] * 2
            ),
            ("cat", "dog"),
        ),
        item(
            "ConcatDataset of data sets with different classes",
            "the classes are numbers",
            lambda: torch.utils.data.ConcatDataset([Named("cat", "dog"), Named("ant", "bee")]),
            ("0", "1"),
        ),
    ],
)
def test_a_part_of_a_data_set_keeps_its_class_names(
    make: Callable[[], Any], names: tuple[str, ...]
) -> None:
    assert stopgrad.load(make()).dataset.train.class_names == names
