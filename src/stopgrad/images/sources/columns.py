"""The columns of a Parquet file -> the one that holds the images, and what its rows hold.

It holds structs {bytes, path} or binary values, whatever its name, or lists of these, of which the
first counts; or, without any such column, text that names image files. A column that the user names
wins. Of several candidates, those with the usual names, in the Hub's metadata and of structs come
first, and the others are named in a remark.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.errors import DataError
from stopgrad.images.decoding import peek
from stopgrad.images.opening import Damaged
from stopgrad.images.sources.arrow_files import HELD, GroupedFile
from stopgrad.images.sources.endings import FIRST_BYTES, kind_of, names_image
from stopgrad.images.sources.limits import refuse_bomb
from stopgrad.images.sources.names import words_of
from stopgrad.images.types import Encoded
from stopgrad.storage import few

if TYPE_CHECKING:
    import pyarrow

IMAGE_NAMES = ("image", "img")
IMAGE_WORDS = {"image", "images", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "tif"}
FILE_WORDS = {"file", "filename", "filepath", "path"} | IMAGE_WORDS
LOOKED_AT = 16  # rows that show what a column holds


class ImageColumn(NamedTuple):
    """The column of the images: encoded bytes (and paths, where a row has none), or paths alone."""

    name: str
    paths: bool
    others: tuple[str, ...] = ()  # other candidates

    @property
    def remarks(self) -> tuple[str, ...]:
        """A remark on the choice, if there was one."""
        if not self.others:
            return ()
        flag = f"--image-column takes {few(self.others)} instead"
        return (f"the images are those of column {self.name!r}; {flag}",)


def image_column(file: GroupedFile, wanted: str = "") -> ImageColumn | None:
    """The column that holds the images.

    Args:
        file: A file.
        wanted: Its name; "": by rule.

    Raises:
        DataError: When the wanted one is not there, or holds something else.
    """
    schema, features = file.schema_arrow, features_of(file.schema_arrow)
    if wanted:
        kind = field_of(file, wanted, "image").type
        if _holds_bytes(file, wanted, kind) or _holds_paths(kind):
            return ImageColumn(wanted, paths=not _holds_bytes(file, wanted, kind))
        raise unfit("image", wanted, f"of type {kind}")
    found = [field.name for field in schema if _holds_bytes(file, field.name, field.type)]
    if len(found) > 1:
        found.sort(key=lambda name: _image_rank(file, name, features))
    if found:
        return ImageColumn(found[0], paths=False, others=tuple(found[1:]))
    texts = {f.name: _first_files(file, f.name) for f in schema if _holds_paths(f.type)}
    found = [name for name, files in texts.items() if files]
    found.sort(key=lambda name: _path_rank(name, texts[name]))
    return ImageColumn(found[0], paths=True, others=tuple(found[1:])) if found else None


def _path_rank(name: str, files: Sequence[str]) -> tuple[bool, bool]:
    """Sort key of a column of paths: those whose files may exist come first."""
    return all(map(strange_path, files)), FILE_WORDS.isdisjoint(words_of(name))


def _first_files(file: GroupedFile, name: str) -> list[str]:
    """The names of image files in the first rows of a column."""
    texts = (text for batch in _first_rows(file, name) for text in image_paths(batch.column(0)))
    return [text for text in texts if text and names_image(text)]


def strange_path(text: str) -> str:
    """Why a path cannot name a file of the data, whatever files there are; "" when it can."""
    if re.match(r"[a-z][a-z0-9+.-]*://|data:", text, re.IGNORECASE):
        return "a URL, which is not downloaded"
    if re.match(r"[/\\]|[a-z]:[/\\]", text, re.IGNORECASE):
        return "an absolute path, which may lie outside the data"
    return "no path" if "\0" in text else ""


def _image_rank(file: GroupedFile, name: str, features: dict[str, Any]) -> tuple[bool, ...]:
    """Sort key of a column of bytes; whether it shows images comes last, as that takes reading."""
    kind = file.schema_arrow.field(name).type
    return (
        name not in IMAGE_NAMES,
        features.get(name, {}).get("_type") != "Image",
        kind.num_fields == 0,
        IMAGE_WORDS.isdisjoint(words_of(name)),
        not _shows_images(file, name),
    )


def _shows_images(file: GroupedFile, name: str) -> bool:
    return any(
        not isinstance(peek(Encoded(name, data)), Damaged)
        for batch in _first_rows(file, name)
        for data in image_bytes(batch.column(0))
    )


def image_bytes(column: pyarrow.Array) -> list[bytes | None]:
    """The encoded image of each row, the first one of a list."""
    if is_list(column.type):
        return [next(iter(_in_list(cell)), None) for cell in column.to_pylist()]
    return list(_part(column, "bytes").to_pylist())


def _in_list(cell: Any) -> list[bytes | None]:
    """The encoded images in a list of them; a list of whole numbers is one image, byte by byte."""
    if not cell or isinstance(cell[0], int):
        with contextlib.suppress(ValueError, TypeError):  # numbers above 255
            return [bytes(cell)] if cell else []
        return [None]
    found = (each.get("bytes") if isinstance(each, dict) else each for each in cell)
    return [data if isinstance(data, bytes) else None for data in found]


def images_in_lists(file: GroupedFile, name: str) -> Iterator[int]:
    """How many images each row of a column of lists holds; nothing for other columns."""
    if is_list(file.schema_arrow.field(name).type):
        for batch in batches_of(file, name):
            yield from (len(_in_list(cell)) for cell in batch.column(0).to_pylist())


def is_list(kind: pyarrow.DataType) -> bool:
    """Whether values are lists, however they are stored."""
    import pyarrow.types as kinds

    return bool(kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind))


def image_paths(column: pyarrow.Array) -> list[str | None]:
    """The path of each row, None if the column has none."""
    if not _holds_paths(column.type):
        return [None] * len(column)
    return list(_part(column, "path").to_pylist())


def _part(column: pyarrow.Array, name: str) -> pyarrow.Array:
    """A field of a column of structs; any other column as it is."""
    import pyarrow.types as kinds

    if not kinds.is_struct(column.type):
        return column
    return column.flatten()[column.type.get_field_index(name)]


def batches_of(
    file: GroupedFile, name: str, *, most_rows: int = 1 << 16
) -> Iterator[pyarrow.RecordBatch]:
    """The rows of a column, few enough at a time to fit into memory even if values repeat.

    A value that many rows share is stored once, and no value is larger than its group of rows.

    Raises:
        DataError: When they unpack to far more than the file holds.
        ValueError: When the pages of the file cannot be followed.
    """
    unpacked = stored = 0
    for group in range(file.metadata.num_row_groups):
        size = file.group_bytes(group, name)
        stored += size
        refuse_bomb(stored, file.packed_bytes, where=f"column {name!r}")
        rows = max(1, min(most_rows, HELD // max(1, size)))
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[name]):
            unpacked += batch.nbytes if size else 0  # an Arrow file is mapped as it is
            refuse_bomb(unpacked, stored, where=f"column {name!r}")
            yield batch


def whole_column(file: GroupedFile, name: str) -> pyarrow.ChunkedArray:
    """All values of a column; errors as for `batches_of`."""
    import pyarrow

    kind = file.schema_arrow.field(name).type
    return pyarrow.chunked_array([batch.column(0) for batch in batches_of(file, name)], kind)


def _first_rows(file: GroupedFile, name: str) -> Iterator[pyarrow.RecordBatch]:
    seen = 0
    for batch in batches_of(file, name, most_rows=LOOKED_AT):
        yield batch
        seen += len(batch)
        if seen >= LOOKED_AT:
            return


def _holds_bytes(file: GroupedFile, name: str, kind: pyarrow.DataType) -> bool:
    """Whether a column holds bytes, directly or in the `bytes` of a struct, and not only nulls.

    A column of lists counts only if its first rows begin like images.
    """
    import pyarrow.types as kinds

    if is_list(kind):
        found = (image_bytes(batch.column(0)) for batch in _first_rows(file, name))
        return any(kind_of((data or b"")[:FIRST_BYTES]) for batch in found for data in batch)
    if not kinds.is_struct(kind):
        return _is_binary(kind)
    index = int(kind.get_field_index("bytes"))
    return index >= 0 and _is_binary(kind.field(index).type) and not _all_null(file, name)


def _is_binary(kind: pyarrow.DataType) -> bool:
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        kind = kind.value_type
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind))


def _all_null(file: GroupedFile, name: str) -> bool:
    """Whether none of the first rows of a struct has bytes.

    Judged by the rows themselves: Arrow aborts the process over damaged statistics.
    """
    found = [image_bytes(batch.column(0)) for batch in _first_rows(file, name)]
    return any(found) and not any(data for batch in found for data in batch)


def _holds_paths(kind: pyarrow.DataType) -> bool:
    """Whether a column is text, or a struct whose path is."""
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        index = int(kind.get_field_index("path"))
        return index >= 0 and is_text(kind.field(index).type)
    return is_text(kind)


def is_text(kind: pyarrow.DataType) -> bool:
    """Whether values are text, however it is stored."""
    import pyarrow.types as kinds

    if kinds.is_dictionary(kind):
        kind = kind.value_type
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind))


def features_of(schema: pyarrow.Schema) -> dict[str, dict[str, Any]]:
    """The Hub's metadata on each column, or on the items of its lists; {} if there is none."""
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        return read_features(schema)
    return {}


def read_features(schema: pyarrow.Schema) -> dict[str, dict[str, Any]]:
    """As `features_of`, but raises where the metadata cannot be read.

    Raises:
        ValueError, AttributeError, TypeError, RecursionError: When it cannot be read.
    """
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(text).get("info", {}).get("features", {})
    return {name: of for name, each in features.items() if isinstance(of := _inner(each), dict)}


def _inner(feature: Any) -> Any:
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    return feature.get("feature", feature) if isinstance(feature, dict) else feature


def field_of(file: GroupedFile, name: str, flag: str) -> pyarrow.Field:
    """The column that the user has named.

    Raises:
        DataError: With the columns of the file.
    """
    schema = file.schema_arrow
    if name not in schema.names:
        raise DataError(
            f"no column {name!r}",
            expected=f"one of the columns {', '.join(schema.names)[:200]}",
            hint=f"correct --{flag}-column",
        )
    return schema.field(name)


def unfit(flag: str, name: str, reason: str) -> DataError:
    """The error for a column that the user has named and that holds something else."""
    wanted = "encoded images or paths of image files"
    if flag == "label":
        wanted = "whole numbers, text, or true and false"
    return DataError(
        f"column {name!r} is {reason}", expected=wanted, hint=f"correct --{flag}-column"
    )


def no_images(file: GroupedFile, path: Path) -> DataError:
    """The error for a file without a column of images."""
    twice = f"; several are called {few(file.repeated)}" if file.repeated else ""
    columns = f"columns {', '.join(file.schema_arrow.names)[:200]!r}{twice}"
    return DataError(
        f"no image column in {str(path)!r} ({columns})",
        expected="encoded images, as binary or as structs {bytes, path}, or paths of image files "
        "that lie beside it",
        hint="use an image data set in the Hub's Parquet layout, name a column of paths with "
        "--image-column, or decode base64 to bytes first",
    )
