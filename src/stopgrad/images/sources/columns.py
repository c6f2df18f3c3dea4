"""The columns of a Parquet file -> which hold the images and the labels, and their values.

Images: a struct {bytes, path} or binary, whatever its name; where there is neither, text that names
image files. Labels: a column that is called as labels are, or a ClassLabel of the Hub's metadata,
of whole numbers, of text or of true and false, however they are stored. A column that the user
names comes first. Where several would do, the first by rule is taken and the others are named.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.errors import DataError
from stopgrad.images.decoding import Damaged, peek
from stopgrad.images.sources.folder import SUFFIXES
from stopgrad.images.types import Encoded

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

IMAGE_NAMES = ("image", "img")
IMAGE_WORDS = {"image", "images", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "tif"}
FILE_WORDS = {"file", "filename", "filepath", "path"} | IMAGE_WORDS
# A column is called as labels are if its name says one of these words, and else only fillers.
LABEL_WORDS = (
    *("label", "labels", "class", "classes", "target", "targets", "category", "categories", "y"),
    *("cls", "species", "diagnosis", "gt"),
)
FILLERS = {"id", "idx", "index", "name", "number", "code", "text", "fine", "image", "img", "true"}
COARSE = {"coarse", "super"}  # are taken last
MOST_CLASSES = 1000  # distinct values of a column that may be meant as labels
LOOKED_AT = 16  # rows that show what a column holds
NAMED = 5  # columns that a line names

Plain = int | str | None  # a label as it stands in the data


class ImageColumn(NamedTuple):
    """The column of the images: encoded bytes (and paths, where a row has none), or paths alone."""

    name: str
    paths: bool
    others: tuple[str, ...] = ()  # that could be meant

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know of the choice."""
        if not self.others:
            return ()
        flag = f"--image-column takes {_few(self.others)} instead"
        return (f"the images are those of column {self.name!r}; {flag}",)


class LabelColumn(NamedTuple):
    """The column of the labels, if there is one, and what a reader should know of it."""

    name: str
    remarks: tuple[str, ...] = ()


def image_column(file: ParquetFile, wanted: str = "") -> ImageColumn | None:
    """The column that holds the images.

    Args:
        file: A file.
        wanted: Its name; "": by rule.

    Raises:
        DataError: When the one that is wanted is not there, or holds something else.
    """
    schema, features = file.schema_arrow, _features(file.schema_arrow)
    if wanted:
        kind = _field(file, wanted, "image").type
        if _holds_bytes(file, wanted, kind) or _holds_paths(kind):
            return ImageColumn(wanted, paths=not _holds_bytes(file, wanted, kind))
        raise _unfit("image", wanted, f"of type {kind}")
    found = [field.name for field in schema if _holds_bytes(file, field.name, field.type)]
    if len(found) > 1:
        found.sort(key=lambda name: _image_rank(file, name, features))
    if found:
        return ImageColumn(found[0], paths=False, others=tuple(found[1:]))
    texts = [field.name for field in schema if _holds_paths(field.type)]
    texts = [name for name in texts if any(map(is_image_file, _first_paths(file, name)))]
    texts.sort(key=lambda name: FILE_WORDS.isdisjoint(_words(name)))
    return ImageColumn(texts[0], paths=True, others=tuple(texts[1:])) if texts else None


def is_image_file(text: str) -> bool:
    """Whether a text is the name of an image file."""
    return not strange_path(text) and PurePosixPath(text).suffix.lower() in SUFFIXES


def strange_path(text: str) -> str:
    """Why a path can name no file of the data, whatever files there are; "" where it can."""
    if re.match(r"[a-z][a-z0-9+.-]*://|data:", text, re.IGNORECASE):
        return "an address on the net, which is not downloaded"
    if re.match(r"[/\\]|[a-z]:[/\\]", text, re.IGNORECASE):
        return "an absolute path, which may lie outside of the data"
    return ""


def _image_rank(file: ParquetFile, name: str, features: dict[str, Any]) -> tuple[bool, ...]:
    """Sorts columns of bytes; which of them shows images is looked at last, as it takes reading."""
    kind = file.schema_arrow.field(name).type
    return (
        name not in IMAGE_NAMES,
        features.get(name, {}).get("_type") != "Image",
        kind.num_fields == 0,
        IMAGE_WORDS.isdisjoint(_words(name)),
        not _shows_images(file, name),
    )


def _shows_images(file: ParquetFile, name: str) -> bool:
    return any(
        not isinstance(peek(Encoded(name, data)), Damaged)
        for batch in _first_rows(file, name)
        for data in image_bytes(batch.column(0))
    )


def image_bytes(column: pyarrow.Array) -> list[bytes | None]:
    """The encoded images of rows."""
    return list(_part(column, "bytes").to_pylist())


def image_paths(column: pyarrow.Array) -> list[str | None]:
    """The paths of rows, null where the column has none."""
    if not _holds_paths(column.type):
        return [None] * len(column)
    return list(_part(column, "path").to_pylist())


def _part(column: pyarrow.Array, name: str) -> pyarrow.Array:
    """A field of a struct, or all of another column."""
    import pyarrow.types as kinds

    if not kinds.is_struct(column.type):
        return column
    return column.flatten()[column.type.get_field_index(name)]


def _first_rows(file: ParquetFile, name: str) -> Iterator[pyarrow.RecordBatch]:
    """At most one batch."""
    yield from itertools.islice(file.iter_batches(batch_size=LOOKED_AT, columns=[name]), 1)


def _first_paths(file: ParquetFile, name: str) -> list[str]:
    return [
        path for batch in _first_rows(file, name) for path in image_paths(batch.column(0)) if path
    ]


def _holds_bytes(file: ParquetFile, name: str, kind: pyarrow.DataType) -> bool:
    """Whether a column is binary, or a struct whose bytes are, of which there are any."""
    import pyarrow.types as kinds

    if not kinds.is_struct(kind):
        return _is_binary(kind)
    index = int(kind.get_field_index("bytes"))
    return index >= 0 and _is_binary(kind.field(index).type) and not _all_null(file, name)


def _is_binary(kind: pyarrow.DataType) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        kind = kind.value_type
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))


def _all_null(file: ParquetFile, name: str) -> bool:
    """Whether the file says that no row of a struct has bytes."""
    for group in map(file.metadata.row_group, range(file.metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema == f"{name}.bytes":
                found = column.statistics
                if found is None or not found.has_null_count or found.num_values:
                    return False
    return bool(file.metadata.num_rows > 0)


def _holds_paths(kind: pyarrow.DataType) -> bool:
    """Whether a column is text, or a struct whose path is."""
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        index = int(kind.get_field_index("path"))
        return index >= 0 and _is_text(kind.field(index).type)
    return _is_text(kind)


def _is_text(kind: pyarrow.DataType) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        kind = kind.value_type
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def label_column(file: ParquetFile, image: str, wanted: str = "") -> LabelColumn:
    """The column that holds the labels; its name is "" where there is none.

    Args:
        file: A file.
        image: The column that holds the images.
        wanted: Its name; "": by rule.

    Raises:
        DataError: When the one that is wanted is not there, or can be no labels.
    """
    if wanted:
        _field(file, wanted, "label")
        if reason := _no_labels(file, wanted):
            raise _unfit("label", wanted, reason)
        return LabelColumn(wanted)
    features = _features(file.schema_arrow)
    ranks = {name: _label_rank(name, features) for name in file.schema_arrow.names if name != image}
    found = sorted((rank, name) for name, rank in ranks.items() if rank is not None)
    fit, remarks = [], []
    for _, name in found:
        if reason := _no_labels(file, name):
            remarks.append(f"column {name!r} is not used as labels: it is {reason}")
        else:
            fit.append(name)
    if len(fit) > 1:
        others = f"--label-column takes {_few(fit[1:])} instead"
        remarks.append(f"the labels are those of column {fit[0]!r}; {others}")
    if not fit and (maybe := _plausible(file, image)):
        counts = ", ".join(f"{name!r} has {count:,} distinct values" for name, count in maybe)
        flag = f"--label-column {quote(maybe[0][0])}"
        remarks.append(f"no column is called as labels are; {counts}: as labels with {flag}")
    return LabelColumn(fit[0] if fit else "", tuple(remarks))


def _label_rank(name: str, features: dict[str, Any]) -> tuple[int, ...] | None:
    """Sorts columns that are called as labels are, or are so by the metadata; None for others."""
    words, known = _words(name), features.get(name, {}).get("_type") == "ClassLabel"
    telling = [LABEL_WORDS.index(word) for word in words if word in LABEL_WORDS]
    called = bool(telling) and set(words) <= {*LABEL_WORDS, *FILLERS, *COARSE}
    if not called:
        return (2,) if known else None
    coarse = not COARSE.isdisjoint(words)
    strength = 0 if known else 1 if min(telling) < 2 else 3
    return strength, coarse, min(telling), len(words)


def _no_labels(file: ParquetFile, name: str) -> str:
    """Why a column can be no labels; "" where it can. Of numbers and text no value is read."""
    import pyarrow.types as kinds

    kind = file.schema_arrow.field(name).type
    if _is_text(kind) or kinds.is_integer(kind) or kinds.is_boolean(kind):
        return ""
    try:
        read_labels(file, name)
    except ValueError as error:
        return str(error)
    return ""


def read_labels(file: ParquetFile, name: str) -> list[Plain]:
    """The labels of all rows.

    Raises:
        ValueError: When some can be no labels, as numbers with fractions.
    """
    column = file.read(columns=[name]).column(0)
    try:
        return [_plain(value) for value in column.to_pylist()]
    except (TypeError, UnicodeDecodeError):
        raise ValueError(f"of type {column.type}") from None


def _plain(value: Any) -> Plain:
    """A label of any kind as a whole number or text.

    Raises:
        ValueError: For a number with a fraction, or for several labels.
        TypeError: For anything else.
    """
    match value:
        case None | str():
            return value
        case bool() | int():
            return int(value)
        case bytes():
            return value.decode()
        case [] | [_]:
            return _plain(value[0]) if value else None
        case list():
            raise ValueError(f"lists of several labels, such as {str(value)[:40]}")
    number = float(value)
    if math.isnan(number):
        return None
    if not number.is_integer():
        raise ValueError(f"numbers with fractions, such as {number:g}")
    return int(number)


def class_names(file: ParquetFile, label: str) -> tuple[str, ...]:
    """The C names that the Hub's metadata gives the classes of a column; () where it gives none.

    Raises:
        ValueError: When they are no names.
    """
    try:
        names = _read_features(file.schema_arrow).get(label, {}).get("names", [])
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise ValueError("the Hub's metadata, which may name the labels, cannot be read") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"the class names of the labels are no list of text ({str(names)[:40]})")
    return tuple(names)


def is_true_or_false(file: ParquetFile, label: str) -> bool:
    """Whether a column of labels is boolean."""
    import pyarrow.types as kinds

    return bool(kinds.is_boolean(file.schema_arrow.field(label).type))


def _plausible(file: ParquetFile, image: str) -> list[tuple[str, int]]:
    """The columns that may be meant as labels, as they have few distinct values; and how many."""
    import pyarrow.compute
    import pyarrow.types as kinds

    most, found = min(MOST_CLASSES, file.metadata.num_rows // 2), []
    for field in file.schema_arrow:
        kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
        countable = _is_text(kind) or kinds.is_integer(kind) or kinds.is_boolean(kind)
        if field.name != image and countable:
            values = file.read(columns=[field.name]).column(0)
            if 2 <= (distinct := len(pyarrow.compute.unique(values))) <= most:
                found.append((field.name, distinct))
    return found[:NAMED]


def _features(schema: pyarrow.Schema) -> dict[str, dict[str, Any]]:
    """What the Hub's metadata says of each column, or of what its lists hold; {} for nothing."""
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        return _read_features(schema)
    return {}


def _read_features(schema: pyarrow.Schema) -> dict[str, dict[str, Any]]:
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(text).get("info", {}).get("features", {})
    return {name: of for name, each in features.items() if isinstance(of := _inner(each), dict)}


def _inner(feature: Any) -> Any:
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    return feature.get("feature", feature) if isinstance(feature, dict) else feature


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # classId
    return [word for word in re.split(r"[^a-z]+", spaced.lower()) if word]


def _field(file: ParquetFile, name: str, flag: str) -> pyarrow.Field:
    schema = file.schema_arrow
    if name not in schema.names:
        raise DataError(
            f"no column {name!r}",
            expected=f"one of the columns {', '.join(schema.names)[:200]}",
            hint=f"correct --{flag}-column",
        )
    return schema.field(name)


def _unfit(flag: str, name: str, reason: str) -> DataError:
    wanted = "encoded images or paths of image files"
    if flag == "label":
        wanted = "whole numbers, text, or true and false"
    return DataError(
        f"column {name!r} is {reason}", expected=wanted, hint=f"correct --{flag}-column"
    )


def no_images(file: ParquetFile, path: Path) -> DataError:
    """The error for a file without a column of images."""
    return DataError(
        f"no image column in {str(path)!r} (columns {', '.join(file.schema_arrow.names)[:200]!r})",
        expected="encoded images, as binary or as structs {bytes, path}, or paths of image files "
        "that lie beside it",
        hint="use an image data set in the Hub's Parquet layout, or name a column of paths with "
        "--image-column",
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more
