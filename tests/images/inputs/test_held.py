"""Images that a Python caller holds: every usual kind is read, and labels of every usual kind."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image

import stopgrad
from stopgrad.errors import ConfigError, DataError
from stopgrad.images import DamagedImagesError
from tests.factories import write_digits
from tests.images.factories import png
from tests.inputs import row

PIXELS = np.random.default_rng(3).integers(0, 256, (6, 9, 11, 3), np.uint8)
GRAY = PIXELS[..., 0]
TARGETS = [2, 0, 1, 1, 0, 2]
NAMES = ["dog", "ant", "cat", "cat", "ant", "dog"]


class Pairs(torch.utils.data.Dataset[Any]):
    """A data set of PyTorch, of images and labels."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(PIXELS[index]), TARGETS[index]


class Rows(Pairs):
    """A data set of the Hub's library, of rows."""

    def __getitem__(self, index: int) -> Any:
        return {"img": Image.fromarray(PIXELS[index]), "label": TARGETS[index]}


class Named(Pairs):
    """A data set of torchvision, which knows its classes."""

    classes = ("ant", "cat", "dog")


def asking_for_gradients() -> torch.Tensor:
    return torch.tensor(PIXELS / 255, dtype=torch.float64, requires_grad=True)


STACKS = [
    row("array (N, H, W, 3) of bytes", "read unchanged", lambda: PIXELS, PIXELS),
    row(
        "array (N, 3, H, W)",
        "transposed to (N, H, W, 3)",
        lambda: PIXELS.transpose(0, 3, 1, 2),
        PIXELS,
    ),
    row("array (N, H, W)", "read as gray images", lambda: GRAY, GRAY[..., None]),
    row(
        "array (N, S * S) of floats",
        "read as gray squares",
        lambda: GRAY[:, :8, :8].reshape(6, 64) / 255,
        GRAY[:, :8, :8, None],
    ),
    row("float array from 0 to 1", "1 is white", lambda: PIXELS / 255, PIXELS),
    row("tensor (N, H, W, 3) of bytes", "read unchanged", lambda: torch.from_numpy(PIXELS), PIXELS),
    row(
        "tensor (N, 3, H, W) of floats from 0 to 1",
        "1 is white",
        lambda: torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255,
        PIXELS,
    ),
    row("tensor that requires gradients", "read", asking_for_gradients, PIXELS),
    row("list of equal arrays", "read", lambda: list(PIXELS), PIXELS),
    row("tuple of gray arrays", "read", lambda: tuple(GRAY), GRAY[..., None]),
    row("array of objects that are arrays", "read", lambda: objects(PIXELS), PIXELS),
    row(
        "list of tensors (3, H, W)",
        "read",
        lambda: [torch.from_numpy(x).permute(2, 0, 1) / 255 for x in PIXELS],
        PIXELS,
    ),
    row("list of Pillow images", "read", lambda: [Image.fromarray(x) for x in PIXELS], PIXELS),
    row("list of encoded images", "read", lambda: [png(x) for x in PIXELS], PIXELS),
    row("data set of PyTorch", "read with its labels", Pairs, PIXELS),
    row("data set of torchvision", "read with its labels and class names", Named, PIXELS),
    row("data set of the Hub's library", "read with its labels", Rows, PIXELS),
    row(
        "TensorDataset",
        "read with its labels",
        lambda: torch.utils.data.TensorDataset(torch.from_numpy(PIXELS)),
        PIXELS,
    ),
    row("list of nested lists", "read", lambda: PIXELS.tolist(), PIXELS),
]


def objects(arrays: Any) -> np.ndarray:
    found = np.empty(len(arrays), object)
    found[:] = list(arrays)
    return found


@pytest.mark.parametrize(("make", "expected"), STACKS)
def test_images_in_memory_are_read(make: Any, expected: np.ndarray) -> None:
    found = stopgrad.load(make()).dataset.train
    assert (found.pixels == np.broadcast_to(expected, found.pixels.shape)).all()
    assert found.pixels.shape == (*expected.shape[:3], 3)
    labels = found.labels.tolist() if found.labels is not None else None
    assert labels == (TARGETS if isinstance(make, type) and issubclass(make, Pairs) else None)
    assert (found.class_names == ("ant", "cat", "dog")) == (make is Named)


def test_images_of_several_sizes_become_squares() -> None:
    small = [Image.fromarray(PIXELS[0]), np.full((20, 30, 3), 7, np.uint8)]
    found = stopgrad.load(small, side=8).dataset.train
    assert found.pixels.shape == (2, 8, 8, 3)
    assert (found.pixels[1] == 7).all()


def test_large_images_of_one_array_stay_as_they_are() -> None:
    large = np.zeros((2, 300, 400), np.float32)
    assert stopgrad.load(large).dataset.train.pixels.shape == (2, 300, 400, 3)


PATHS = [
    row("list of str", "read", lambda paths: [str(path) for path in paths]),
    row("list of Path", "read", list),
    row("tuple of Path", "read", tuple),
    row("array of str", "read", lambda paths: np.array([str(path) for path in paths])),
    row("array of Path", "read", lambda paths: np.array(paths, object)),
    row("pandas Series of str", "read", lambda paths: pd.Series([str(path) for path in paths])),
    row("pandas Series of Path", "read", lambda paths: pd.Series(paths)),
    row("polars Series of str", "read", lambda paths: polars_series([str(p) for p in paths])),
]


def polars_series(values: list[str]) -> Any:
    return pytest.importorskip("polars").Series(values)


@pytest.mark.parametrize("make", PATHS)
def test_paths_of_image_files_are_read(tmp_path: Path, make: Any) -> None:
    paths = [tmp_path / f"{number}.png" for number in (3, 1, 2)]
    for number, path in enumerate(paths):
        path.write_bytes(png(PIXELS[number]))
    found = stopgrad.load(make(paths), labels=["b", "a", "b"]).dataset.train
    assert (found.pixels == PIXELS[:3]).all()  # in the order of the list
    assert found.sources == tuple(map(str, paths))
    assert (found.class_names, found.labels.tolist()) == (("a", "b"), [1, 0, 1])
    other = stopgrad.load(make(paths), labels=["a", "a", "b"]).dataset.train
    assert other.labels.tolist() == [0, 0, 1]  # and not those that the cache has kept


def test_paths_are_read_again_at_the_size_that_training_asks_for(tmp_path: Path) -> None:
    files = sorted(write_digits(tmp_path / "d", train=96, test=2).rglob("train/*/*.png"))
    run = stopgrad.pretrain(files, out=tmp_path / "run", preset="tiny", epochs=1)
    assert len(run.metrics) == 1
    features = run.embed(files)
    assert features.shape == (96, run.encoder.feature_width)
    assert np.allclose(run.embed([Image.open(files[5])]), features[5], atol=1e-4)


def test_missing_file_of_a_list_is_a_damaged_image(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(PIXELS[0]))
    with pytest.raises(DamagedImagesError, match=r"2\.png' \(No such file"):
        stopgrad.load([tmp_path / "1.png", tmp_path / "2.png"])


label = functools.partial(row, kind="label")


def texts(what: str, labels: Any) -> Any:
    return label(what, "numbered in sorted order", labels, TARGETS, ("ant", "cat", "dog"))


def as_they_are(what: str, labels: Any, happens: str = "used unchanged") -> Any:
    return label(what, happens, labels, TARGETS, ("0", "1", "2"))


WITH_NONE = [-1, 0, 1, 1, 0, -1], ("0", "1")
LABELS = [
    as_they_are("labels in a list of int", TARGETS),
    as_they_are("labels in an array of int8", np.array(TARGETS, np.int8)),
    as_they_are("labels in a tensor of int64", torch.tensor(TARGETS)),
    as_they_are("labels in a list of tensors", [torch.tensor(t) for t in TARGETS]),
    as_they_are("labels in an array of whole floats", np.array(TARGETS, float)),
    as_they_are("labels in a one-hot array", np.eye(3)[TARGETS], "read as classes"),
    as_they_are("labels in a pandas Series of int", pd.Series(TARGETS)),
    texts("labels in a list of str", NAMES),
    texts("labels in an array of str", np.array(NAMES)),
    texts("labels in a pandas Series of str", pd.Series(NAMES)),
    texts("labels in a pandas Series of categories", pd.Series(NAMES, dtype="category")),
    label(
        "identifiers as labels",
        "numbered in sorted order",
        [35000 + 7 * t for t in TARGETS],
        TARGETS,
        ("35000", "35007", "35014"),
    ),
    label("None among labels", "those images have no label", [None, 0, 1, 1, 0, None], *WITH_NONE),
    label(
        "labels in a pandas Series of Int64 with NA",
        "NA is not a label",
        pd.Series([pd.NA, 0, 1, 1, 0, pd.NA], dtype="Int64"),
        *WITH_NONE,
    ),
    label(
        "-100, ? and the text -1 among labels",
        "those images have no label",
        ["?", *"abba", "-1"],
        [-1, 0, 1, 1, 0, -1],
        ("a", "b"),
    ),
    label("labels in a range", "used unchanged", range(6), [0, 1, 2, 3, 4, 5], tuple("012345")),
    label("labels that are invalid", "reported; pretraining goes on", [{}] * 6, None, ()),
    label(
        "labels in lists, several per image",
        "not used; reported",
        [[0], [0, 1], *[[1]] * 4],
        None,
        (),
    ),
]


@pytest.mark.parametrize(("labels", "expected", "names"), LABELS)
def test_labels_of_any_kind_are_numbered(labels: Any, expected: Any, names: Any) -> None:
    dataset = stopgrad.load(PIXELS, labels=labels).dataset
    found = dataset.train.labels
    assert (None if found is None else found.tolist()) == expected
    assert dataset.train.class_names == names
    assert (dataset.train.pixels == PIXELS).all()
    missing = expected is None or -1 in expected
    assert bool(dataset.notes.remarks) == (missing or "35000" in names)


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([5, 7, 5, 7, 5, 7], "57", [0, 1, 0, 1, 0, 1]),  # no indices, and all are names
        ([1, 2, 3, 1, 2, 3], "123", [0, 1, 2, 0, 1, 2]),  # 3 is no index
        ([1, 2, 1, 2, 1, 2], "123", [1, 2, 1, 2, 1, 2]),  # indices first
        (["1", "2", "1", "2", "1", "2"], "123", [0, 1, 0, 1, 0, 1]),  # text is a name
    ],
)
def test_whole_numbers_are_indices_into_class_names_unless_all_are_names(
    labels: Any, names: str, expected: list[int]
) -> None:
    found = stopgrad.load(PIXELS, labels=labels, class_names=[*names]).dataset.train.labels
    assert found is not None
    assert found.tolist() == expected


def triple(index: int) -> Any:
    return PIXELS[index], TARGETS[index], index


def target(index: int) -> Any:
    return {"image": PIXELS[index], "id": index, "target": TARGETS[index]}


def two_views(index: int) -> Any:
    return PIXELS[index], PIXELS[index], index


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        row(
            "items of an image, a label and an index",
            "labels are read",
            triple,
            TARGETS,
            kind="label",
        ),
        row("rows whose label is named target", "labels are read", target, TARGETS, kind="label"),
        row(
            "items of two views and an index",
            "the first view is read; no labels",
            two_views,
            None,
            kind="label",
        ),
    ],
)
def test_labels_of_items_are_found(make: Any, expected: Any) -> None:
    dataset = stopgrad.load([make(index) for index in range(6)]).dataset
    assert (dataset.train.pixels == PIXELS).all()
    labels = dataset.train.labels
    assert (None if labels is None else labels.tolist()) == expected


REFUSED = [
    row("one image (H, W, 3)", "refused", lambda: PIXELS[0], {}, r"x\[None\]"),
    row("an empty list", "refused", list, {}, "no images"),
    row(
        "a DataLoader",
        "refused: pass its data set instead",
        lambda: torch.utils.data.DataLoader(Pairs()),
        {},
        "type DataLoader.*data set of a loader",
    ),
    row(
        "a whole table (DataFrame)",
        "refused",
        lambda: pd.DataFrame({"a": ["1.png"]}),
        {},
        "column of a table",
    ),
    row("a dict", "refused", lambda: {"train": PIXELS}, {}, "type dict"),
    row("a table of numbers", "refused", lambda: np.zeros((5, 7)), {}, r"shape \(5, 7\)"),
    row(
        "fewer labels than images",
        "refused",
        lambda: PIXELS,
        {"labels": [1]},
        "1 labels for 6 images",
    ),
    row(
        "a list with text that is not the path of an image",
        "that item counts as damaged",
        lambda: [PIXELS[0], "x"],
        {},
        r"'x' \(No such file",
    ),
    row(
        "a list with an object that is not an image",
        "that item counts as damaged",
        lambda: [PIXELS[0], {}],
        {},
        "not an image, but something of type dict",
    ),
]


@pytest.mark.parametrize(("make", "named", "line"), REFUSED)
def test_what_is_no_image_is_refused_in_one_line(make: Any, named: Any, line: str) -> None:
    with pytest.raises(DataError, match=line) as caught:
        stopgrad.load(make(), **named)
    assert "\n" not in str(caught.value)


def test_labels_beside_the_path_of_a_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="labels or class_names for"):
        stopgrad.load([tmp_path, "mnist5k"], labels=[1])


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


AROUND = [
    row("torch.no_grad around a call", "changes nothing", torch.no_grad, kind="command"),
    row(
        "torch.inference_mode around a call",
        "changes nothing",
        torch.inference_mode,
        kind="command",
    ),
    row(
        "default dtype float64",
        "changes nothing",
        lambda: default_dtype(torch.float64),
        kind="command",
    ),
    row(
        "default dtype bfloat16",
        "changes nothing",
        lambda: default_dtype(torch.bfloat16),
        kind="command",
    ),
    row(
        "another default device of torch",
        "changes nothing",
        lambda: torch.device("meta"),
        kind="command",
    ),
    row("autocast around a call", "changes nothing", lambda: torch.autocast("cpu"), kind="command"),
]


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return stopgrad.load("mnist5k").dataset.train.pixels[:96].copy()


@pytest.fixture(scope="module")
def plain_weights(digits: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return weights(digits, tmp_path_factory.mktemp("plain"))


def weights(digits: np.ndarray, out: Path) -> bytes:
    """The bytes of the newest checkpoint, and of features, after a short run."""
    run = stopgrad.pretrain(
        digits, out=out / "run", preset="tiny", epochs=1, precision="fp32", threads=1
    )
    newest = max((out / "run" / "checkpoints").iterdir())
    files = sorted(newest.glob("*.safetensors"))
    assert files
    return b"".join(file.read_bytes() for file in files) + run.embed(digits).tobytes()


@pytest.mark.parametrize("around", AROUND)
def test_settings_of_pytorch_around_a_call_change_no_bit(
    around: Any, digits: np.ndarray, plain_weights: bytes, tmp_path: Path
) -> None:
    with around():
        state = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
        assert weights(digits, tmp_path) == plain_weights
        after = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
    assert after == state


def test_another_seed_changes_the_bits(
    digits: np.ndarray, plain_weights: bytes, tmp_path: Path
) -> None:
    assert weights(digits[::-1].copy(), tmp_path) != plain_weights


@pytest.mark.parametrize(
    "column",
    [
        row("Arrow array of paths", "read", lambda paths: pa.array(map(str, paths))),
        row("Arrow array of paths, dictionary-encoded", "read",
            lambda paths: pa.array(map(str, paths)).dictionary_encode()),
        row("Arrow column of several chunks", "read",
            lambda paths: pa.chunked_array([[str(path)] for path in paths])),
        row("Arrow array of encoded images", "read",
            lambda paths: pa.array([path.read_bytes() for path in paths])),
        row("Arrow array of {bytes, path}, as in the Hub's library", "read",
            lambda paths: pa.array([{"bytes": path.read_bytes(), "path": None} for path in paths])),
        row("Arrow array of tensors", "read",
            lambda paths: pa.FixedShapeTensorArray.from_numpy_ndarray(
                np.stack([np.asarray(Image.open(path)) for path in paths]))),
        row("rows {image: {bytes}, label}, not decoded", "read",
            lambda paths: [{"image": {"bytes": path.read_bytes()}} for path in paths]),
    ],
)  # fmt: skip
def test_columns_of_arrow_are_images(column: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, pixels in zip(paths, PIXELS, strict=False):
        Image.fromarray(pixels).save(path)
    held = stopgrad.load(column(paths), labels=pa.array(["b", "a", None]))
    found = held.dataset.train
    assert np.array_equal(found.pixels, PIXELS[:3])
    assert found.labels is not None
    assert (found.class_names, found.labels.tolist()) == (("a", "b"), [1, 0, -1])


@pytest.mark.parametrize(
    "values",
    [
        row("a sparse tensor", "refused with a one-line error",
            torch.zeros(2, 3, 8, 8).to_sparse()),
        row("a tensor without values (on the meta device)", "refused with a one-line error",
            torch.zeros(2, 3, 8, 8, device="meta")),
        row("a tensor of 8-bit floats", "refused with a one-line error",
            torch.zeros(2, 3, 8, 8, dtype=torch.float8_e5m2)),
    ],
)  # fmt: skip
def test_tensors_without_usable_values_are_refused(values: torch.Tensor) -> None:
    with pytest.raises(DataError, match="values of the type Tensor"):
        stopgrad.load(values)
