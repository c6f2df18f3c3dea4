"""Images held by a Python caller -> a `DataSource`: arrays, tensors, Pillow images, files.

Everything goes through the same decoder as all other images; an image of one array is (H, W),
(H, W, C) or (C, H, W).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stopgrad.config import ALL_BANDS, BY_RULE, Bands, Reading
from stopgrad.errors import DataError
from stopgrad.images.depth import CHANNELS, are_colour_channels
from stopgrad.images.sources.array_images import AnyArray, alpha_said, image_layout, stack_layout
from stopgrad.images.sources.find import paths_in, plain
from stopgrad.images.sources.items import (
    image_and_label,
    label_names,
    refuse_unknown,
    with_image_column,
)
from stopgrad.images.sources.labels import (
    Label,
    RawLabels,
    as_labels,
    labels_of_rows,
    number_labels,
)
from stopgrad.images.sources.names import label_rank
from stopgrad.images.types import Contents, DataSource, Encoded, Notes, SplitReader, stamp

if TYPE_CHECKING:
    from PIL.Image import Image

# The modes of a Pillow image that PNG or TIFF stores unchanged.
AS_FILES = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16", "CMYK", "F")
BLOCK = 256  # rows of a stack at a time
NESTED = 8  # data sets around a data set that are looked into


class _Held(NamedTuple):
    """Images in order, and how each is turned into something to decode."""

    images: int
    encoded: Callable[[], Iterator[Encoded]]
    labels: Any = None  # that came with them
    bands: Bands = ()
    remark: str = ""
    are_rows: bool = False  # whether they have columns to choose from


def held_source(
    images: Any,
    *,
    labels: Any = None,
    class_names: Sequence[str] = (),
    reading: Reading = BY_RULE,
) -> DataSource:
    """Images that are held in memory, or a list of image files, as a data set.

    Args:
        images: A stack of images as an array or a tensor of any layout of `array_images`; a
            sequence of arrays, tensors, Pillow images or paths; or a data set of PyTorch or of
            the Hub's library, whose items are images, or images with their labels.
        labels: N numbers or texts, or None; those of a data set are its own.
        class_names: C names of labels that are numbers from 0 on; of a data set its own.
        reading: The columns of rows that are read. The source reads rows by others too.

    Raises:
        DataError: For what is no image, for labels that are not as many, and for a column that is
            not there, or that holds no labels.
    """
    images = plain(images)
    by = reading._replace(label_column=reading.label_column or _class_label(images))
    held = _stack(images) if isinstance(images, np.ndarray) else _each(images, by)
    own = held.labels if labels is None else labels
    names = tuple(class_names)
    if labels is None and not names:
        names = _own_names(images, by.label_column)
    values = None if own is None else _values(own, held.images)
    if labels is None and reading.label_column and isinstance(values, str):
        raise _unfit(reading.label_column, values)
    stamps = tuple(stamp(path, name=os.path.abspath(path)) for path in paths_in(images) or ())
    # The cache tells files by their stamps, and the labels of files by this.
    key = hashlib.sha256(repr((values, names)).encode()).hexdigest()
    again = functools.partial(_again, images, labels, class_names) if held.are_rows else None
    return DataSource(
        "images",
        f"labels {key}",
        stamps,
        functools.partial(_open, held, values, names),
        reading=reading._replace(bands=held.bands),
        again=again,
    )


def _again(images: Any, labels: Any, class_names: Sequence[str], reading: Reading) -> DataSource:
    """The same rows, read by other columns."""
    return held_source(images, labels=labels, class_names=class_names, reading=reading)


def _unfit(column: str, why: str) -> DataError:
    return DataError(
        f"no labels in column {column!r} ({why.removesuffix(', which are not used')})",
        expected="whole numbers, text, or true and false",
        hint="correct label_column",
    )


def _open(held: _Held, values: list[Label] | str | None, class_names: tuple[str, ...]) -> Contents:
    remarks = tuple(filter(None, (held.remark, values if isinstance(values, str) else "")))
    raw = RawLabels("train", values, str) if isinstance(values, list) else None
    numbered = number_labels(raw, None, class_names=class_names)
    reader = SplitReader(held.images, numbered.train, held.encoded)
    notes = Notes(remarks).and_those(numbered.notes)
    return Contents(numbered.class_names, reader, None, notes)


def _values(labels: Any, count: int) -> list[Label] | str:
    labels = plain(labels)
    if not hasattr(labels, "__len__"):
        labels = [*labels] if isinstance(labels, Iterable) else [labels]
    if isinstance(labels, list | tuple):
        labels = [plain(label) for label in labels]
        missing = [_is_missing(label) for label in labels]
        known = [label for label, no in zip(labels, missing, strict=True) if not no]
        try:
            array = np.asarray(known) if known else np.zeros(0, int)
        except ValueError:  # lists of several lengths
            return "the list of labels holds several labels for an image, which are not used"
        if array.dtype.kind == "O" or array.shape[:1] != (len(known),):
            return f"labels of the type {type(known[0]).__name__} are not used"
    else:
        array = np.atleast_1d(labels)
        missing = [False] * len(array)
    if len(missing) != count:
        raise DataError(
            f"{len(missing)} labels for {count} images",
            expected="one label for each image",
            hint="give None where an image has none",
        )
    if array.ndim > 1:
        return labels_of_rows(array.reshape(count, -1), "the array of labels")
    found = as_labels(array, "the list of labels")
    if isinstance(found, str):
        return found
    rest = iter(found)
    return [None if no else next(rest) for no in missing]


def _is_missing(label: Any) -> bool:
    """Whether a label is None, NaN or pandas' NA."""
    return label is None or (isinstance(label, float) and label != label) or str(label) == "<NA>"


def _stack(array: AnyArray) -> _Held:
    """All images in one array."""
    rows = np.dtype(np.uint8) if array.ndim == 2 else array.dtype
    layout = stack_layout(array.shape, rows, bands=True)
    one = image_layout(array.shape, array.dtype)
    is_one = array.ndim == 3 and (array.shape[2] in CHANNELS or (one and not one.channels_first))
    if layout is None or is_one:
        raise DataError(
            f"pixels of shape {array.shape} and type {array.dtype}",
            expected="at least one image, shape (N, H, W, 3), (N, 3, H, W) or (N, H, W)",
            hint="give one image as x[None], and numbers as bytes, integers or floats",
        )

    def encoded() -> Iterator[Encoded]:
        for start in range(0, len(array), BLOCK):
            block = layout.arranged(array[start : start + BLOCK])
            yield from (Encoded(str(row), image) for row, image in enumerate(block, start))

    if len(layout.shape) == 3 and not are_colour_channels(layout.bands, array.dtype):
        return _Held(layout.images, encoded, bands=ALL_BANDS)
    return _Held(layout.images, encoded, remark=alpha_said(layout.bands))


def _each(images: Any, reading: Reading) -> _Held:
    """A sequence of single images, or of pairs or rows of an image and its label."""
    if not (hasattr(images, "__len__") and hasattr(images, "__getitem__")) or hasattr(
        images, "keys"
    ):
        raise DataError(
            f"images of the type {type(images).__name__}",
            expected="an array, a tensor, or a sequence of images",
            hint="give a list of images, one column of a table, or the data set of a loader",
        )
    count = len(images)
    if not count:
        raise DataError("no images", expected="at least one image", hint="give some")
    reading = with_image_column(images[0], reading)
    labels, columns = [], dict[Any, None]()
    for row in range(count):
        item = images[row]
        labels.append(image_and_label(item, reading)[1])
        columns |= dict.fromkeys(item) if isinstance(item, Mapping) else {}
    refuse_unknown(columns, reading)

    def encoded() -> Iterator[Encoded]:
        for row in range(count):
            image, _ = image_and_label(images[row], reading)
            is_path = isinstance(image, str | os.PathLike)
            yield _encoded(os.fspath(image) if is_path else str(row), image)

    known = any(label is not None for label in labels)
    return _Held(count, encoded, labels if known else None, are_rows=bool(columns))


def _class_label(images: Any) -> str:
    """The column of labels of a data set of the Hub's library by the rule for Parquet.

    "" unless it is a ClassLabel there, and in the rows.
    """
    features = getattr(images, "features", None)
    in_order = hasattr(images, "__len__") and hasattr(images, "__getitem__")
    features = features if isinstance(features, Mapping) and in_order else {}
    named = {name: isinstance(getattr(of, "names", None), list) for name, of in features.items()}
    ranks = [
        (rank, name)
        for name, known in named.items()
        if isinstance(name, str) and (rank := label_rank(name, known=known))
    ]
    _, best = min(ranks, default=((), ""))
    if not named.get(best) or len(images) == 0:
        return ""
    row = images[0]
    return best if isinstance(row, Mapping) and best in row else ""


def _own_names(images: Any, column: str = "", *, depth: int = 0) -> tuple[str, ...]:
    """The class names of a data set of torchvision or of the Hub's library, or of a part of one.

    Of several that are joined, where all have the same.
    """
    inner = getattr(images, "datasets", None) or [getattr(images, "dataset", None)]
    names = None if column else getattr(images, "classes", None)
    features = getattr(images, "features", None)
    features = features if isinstance(features, Mapping) else {}
    for name in [column] if column else label_names(features):
        with contextlib.suppress(AttributeError, KeyError, TypeError):
            names = names or features[name].names
    if names is None and isinstance(inner, list | tuple) and depth < NESTED:
        found = {_own_names(each, column, depth=depth + 1) for each in inner if each is not None}
        return found.pop() if len(found) == 1 else ()
    fits = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if fits and names else ()


def _encoded(name: str, image: Any) -> Encoded:
    if isinstance(image, str | os.PathLike):
        return Encoded(name, Path(image).absolute())
    if isinstance(image, np.ndarray):
        arranged = _one_image(image)
        if arranged is not None:
            return Encoded(name, arranged)
    if isinstance(image, bytes):
        return Encoded(name, image)
    if hasattr(image, "getexif"):
        return Encoded(name, image_as_file(image))
    what = (
        f"shape {image.shape}" if isinstance(image, np.ndarray) else f"type {type(image).__name__}"
    )
    return Encoded(name, ValueError(f"not an image, but something of {what}"))


def _one_image(array: AnyArray) -> AnyArray | None:  # -> (H, W, C)
    if array.ndim not in (2, 3):
        return None
    layout = stack_layout((1, *array.shape), array.dtype, bands=True)
    return None if layout is None else layout.arranged(array)[0]


def image_as_file(image: Image) -> bytes:
    """A Pillow image as a file in memory, so that the same decoder reads it."""
    file = io.BytesIO()
    kind = "TIFF" if image.mode in ("CMYK", "F") else "PNG"
    if image.mode not in AS_FILES:
        colour = "RGBA" if image.has_transparency_data else "RGB"
        image = image.convert("LA" if image.mode == "La" else colour)
    image.save(file, format=kind, exif=image.getexif())  # for its orientation
    return file.getvalue()
