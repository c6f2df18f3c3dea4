"""Parquet files in the Hub's layout -> a `DataSource`.

A file belongs to a split if its name starts with the split's (`train-00000-of-00003.parquet`,
`train.parquet`) or if it lies in a folder of that name (`default/train/0000.parquet`). What
remains of the folder is the configuration (`plain_text/`, `data/`, none).

The image column is found by the schema: the Hub's own metadata, else a struct {bytes, path},
else a binary column called image or img. The label column is a ClassLabel of that metadata or is
called label, labels or fine_label; it may be missing, and labels that are all null or -1 (the
Hub's sign for hidden ones) are none.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from stopgrad.errors import DataError
from stopgrad.images.sources.arrays import RawLabels, number_labels
from stopgrad.images.sources.arrow_files import opened_arrow
from stopgrad.images.store import is_store
from stopgrad.images.types import Contents, DataSource, Encoded, Labels, SplitReader, stamp

if TYPE_CHECKING:
    import pyarrow

SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
PREFERRED = ("", "default", "data")  # configurations, when there are several
IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")
DEPTH = 2  # folders below the one named in which Parquet files are looked for
ROWS = 64  # rows whose bytes are in memory at a time

log = logging.getLogger(__name__)


class Shards(NamedTuple):
    """Relative paths of the files of each split, in order of name; `test` may be empty."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def choose_shards(paths: Iterable[str], *, config: str | None, where: str) -> Shards:
    """The files to read. Without a test split the validation split is the test split.

    Args:
        paths: Relative paths with /, of any files.
        config: The configuration to read, or None where there is one or a usual one.
        where: The data set, for messages.

    Raises:
        DataError: When there is no train split, when a shard is missing from a numbered set, or
            when several configurations leave the choice open.
    """
    placed: dict[tuple[str, str], list[str]] = {}  # by configuration and split
    for path in sorted(paths):
        if place := _place(path):
            placed.setdefault(place, []).append(path)
    chosen = _choose_config(sorted({config for config, _ in placed}), config, where)
    train = placed.get((chosen, "train"), [])
    test = placed.get((chosen, "test")) or placed.get((chosen, "validation"), [])
    if not train:
        raise no_train_split(where)
    for shards in (train, test):
        _check_complete(shards, where)
    return Shards(tuple(train), tuple(test))


def no_train_split(where: str) -> DataError:
    """The error for Parquet files among which none are to train on."""
    return DataError(
        f"no train split in {where}",
        expected="Parquet files named train-*.parquet",
        hint="rename the files, or name a folder that has a train split",
    )


def _place(path: str) -> tuple[str, str] | None:
    """The configuration and the split of a file, if its name tells them."""
    file = PurePosixPath(path)
    if file.suffix.lower() != ".parquet" or any(part.startswith(".") for part in file.parts):
        return None
    folders = list(file.parts[:-1])
    split = SPLITS.get(re.split(r"[-_.]", file.name.lower())[0])
    if split is None and folders:
        split = SPLITS.get(folders.pop().lower())
    return ("/".join(folders), split) if split else None


def _choose_config(found: list[str], wanted: str | None, where: str) -> str:
    if not found:
        raise no_train_split(where)
    choices = [wanted] if wanted else PREFERRED if len(found) > 1 else found
    for choice in choices:
        if choice in found:
            return choice
    named = ", ".join(name or "(none)" for name in found)
    raise DataError(
        f"configuration {wanted!r} of {where}" if wanted else f"several configurations in {where}",
        expected=f"one of {named}",
        hint="name it, as in hf:OWNER/NAME/CONFIG, or name its folder",
    )


def _check_complete(paths: list[str], where: str) -> None:
    """Of files named ...-00001-of-00003 all must be there: two thirds are another data set."""
    numbered = [re.search(r"-(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.parquet$", path) for path in paths]
    if numbered and all(numbered):
        wanted = max(int(match[2]) for match in numbered if match)
        if len(paths) != wanted:
            raise DataError(
                f"{len(paths)} of {wanted} files of a split in {where} ({paths[0]}, ...)",
                expected="all files of a numbered set and no others",
                hint="copy or download the data set again",
            )


class Columns(NamedTuple):
    """The columns of a file that matter, and the C class names that its metadata gives."""

    image: str
    label: str | None
    class_names: tuple[str, ...]


def is_parquet(path: Path) -> bool:
    """Whether a path is a Parquet file, or a folder that holds some at most two levels down."""
    if not path.is_dir():
        return path.suffix.lower() == ".parquet"
    return any(True for _ in _files_below(path))


def parquet_source(path: Path) -> DataSource:
    """A folder in the Hub's layout, or one file as a train split.

    Raises:
        DataError: When there is no train split or the choice is open.
    """
    if path.is_file():
        return shards_source(Shards((path.name,), ()), name=path.stem, root=path.parent)
    names = [file.relative_to(path).as_posix() for file in _files_below(path)]
    shards = choose_shards(names, config=None, where=str(path))
    return shards_source(shards, name=path.name, root=path)


def shards_source(shards: Shards, *, name: str, root: Path) -> DataSource:
    """Chosen files, by their paths relative to a folder."""
    stamps = tuple(stamp(root / shard, name=shard) for shard in (*shards.train, *shards.test))
    return DataSource(name, str(root), stamps, lambda: _open(shards, root))


def _files_below(folder: Path) -> Iterator[Path]:
    for depth in range(DEPTH + 1):
        for file in folder.glob("*/" * depth + "*.[pP][aA][rR][qQ][uU][eE][tT]"):
            hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
            # metadata.parquet stands beside images in the Hub's layout of image folders.
            if not hidden and file.name != "metadata.parquet" and not is_store(file.parent):
                yield file


def _open(shards: Shards, root: Path) -> Contents:
    train_files = [root / shard for shard in shards.train]
    test_files = [root / shard for shard in shards.test]
    columns = _columns(train_files[0])
    labels = number_labels(
        _raw_labels("train", train_files, columns),
        _raw_labels("test", test_files, columns),
        class_names=columns.class_names,
    )
    image = columns.image
    train = _reader(train_files, image, root=root, labels=labels.train)
    test = _reader(test_files, image, root=root, labels=labels.test) if test_files else None
    return Contents(labels.class_names, train, test, labels.notes)


def _reader(files: list[Path], image: str, *, root: Path, labels: Labels | None) -> SplitReader:
    count = sum(_row_count(file) for file in files)
    if count < 1:
        raise DataError(
            f"no rows in {files[0]}", expected="at least one image", hint="check the file"
        )
    return SplitReader(count, labels, functools.partial(_items, files, image, root))


def _items(files: list[Path], image: str, root: Path) -> Iterator[Encoded]:
    for path in files:
        name = path.relative_to(root).as_posix()
        rows = _values(path, image)
        for row, data in enumerate(rows):
            yield Encoded(f"{name}:{row}", data)


def _values(path: Path, image: str) -> Iterator[bytes | None]:
    read = 0
    with _reading(path) as file:
        _require(file, image, path)
        for batch in file.iter_batches(batch_size=ROWS, columns=[image]):
            read += len(batch)
            _check_rows(file, read, whole=False)
            column = batch.column(0)
            if hasattr(column.type, "get_field_index"):
                column = column.flatten()[column.type.get_field_index("bytes")]
            yield from column.to_pylist()
        _check_rows(file, read)


def _check_rows(file: Any, read: int, *, whole: bool = True) -> None:
    """Refuses a file whose footer promises other rows than were read, of the whole or so far."""
    promised = file.metadata.num_rows
    if read > promised or (whole and read < promised):
        raise ValueError(f"{read} rows, {promised} by its footer")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """An open `pyarrow.parquet.ParquetFile`; whatever goes wrong in it is a DataError."""
    import pyarrow.parquet

    try:
        if not path.is_file():
            raise ValueError("not a regular file")
        if path.suffix.lower() == ".arrow":
            with opened_arrow(path) as arrow:
                yield arrow
            return
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except DataError:
        raise
    # Arrow raises OSError, ArrowInvalid, ArrowNotImplementedError, UnicodeDecodeError and more
    # for damaged files; only reads of this file happen inside this block.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{str(path)!r} cannot be read as Parquet ({reason})",
            expected="a complete Parquet file",
            hint="copy or download it again",
        ) from error


def _require(file: Any, column: str, path: Path) -> None:
    if column not in file.schema_arrow.names:
        raise DataError(
            f"no column {column!r} in {str(path)!r}",
            expected="the same columns in all files of a data set",
            hint="keep files of different data sets in different folders",
        )


def _row_count(path: Path) -> int:
    with _reading(path) as file:
        groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
        _check_rows(file, sum(group.num_rows for group in groups))
        return int(file.metadata.num_rows)


def _columns(path: Path) -> Columns:
    with _reading(path) as file:
        schema = file.schema_arrow
        features = _features(schema)
        image = _image_column(schema, features, path)
        label = _label_column(schema, features, path)
    names = features.get(label, {}).get("names", []) if label else []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"class names {str(names)[:80]!r} in {str(path)!r}",
            expected="a list of strings",
            hint="correct the metadata of the file's schema",
        )
    return Columns(image, label, tuple(names))


def _features(schema: pyarrow.Schema) -> dict[str, dict[str, Any]]:
    """What the Hub's metadata says of each column; {} where there is none."""
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(text).get("info", {}).get("features", {})
    return {name: f for name, f in features.items() if isinstance(f, dict)}


def _image_column(schema: pyarrow.Schema, features: dict[str, Any], path: Path) -> str:
    import pyarrow.types as kinds

    def holds_bytes(kind: pyarrow.DataType) -> bool:
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))

    def is_struct(kind: pyarrow.DataType) -> bool:
        index = kind.get_field_index("bytes") if kinds.is_struct(kind) else -1
        return index >= 0 and holds_bytes(kind.field(index).type)

    found: list[str] = [field.name for field in schema if is_struct(field.type)]
    found += [f.name for f in schema if holds_bytes(f.type) and f.name in IMAGE_NAMES]
    found.sort(key=lambda name: features.get(name, {}).get("_type") != "Image")
    preferred = [name for name in found if name in IMAGE_NAMES]
    if not found:
        raise DataError(
            f"no image column in {str(path)!r} (columns {', '.join(schema.names)[:200]!r})",
            expected="a column of structs {bytes, path}",
            hint="use an image data set in the Hub's Parquet layout",
        )
    return (preferred or found)[0]


def _label_column(schema: pyarrow.Schema, features: dict[str, Any], path: Path) -> str | None:
    classes = [n for n in schema.names if features.get(n, {}).get("_type") == "ClassLabel"]
    known = [name for name in LABEL_NAMES if name in schema.names]
    known = [name for name in known if _can_be_label(schema.field(name).type)]
    preferred = [name for name in known if name in classes] or known
    if not preferred and len(classes) > 1:
        log.warning("%s: labels in several columns (%s); using none", path, ", ".join(classes))
        return None
    return (preferred or classes or [None])[0]


def _can_be_label(kind: pyarrow.DataType) -> bool:
    import pyarrow.types as kinds

    return bool(kinds.is_integer(kind) or kinds.is_string(kind) or kinds.is_large_string(kind))


def _raw_labels(split: str, files: list[Path], columns: Columns) -> RawLabels | None:
    """Labels as they stand in the files; None when there are none."""
    values: list[Any] = []
    for path in files if columns.label else []:
        with _reading(path) as file:
            if columns.label not in file.schema_arrow.names:
                return None
            found = file.read(columns=[columns.label]).column(0).to_pylist()
            _check_rows(file, len(found))
            values += found
    return RawLabels(split, values, lambda row: f"row {row}") if values else None
