"""Parquet files -> their rows: which are used, their images one by one, and why others are not.

Paths of image files are relative to their Parquet file or to the root of the data, and must not
lead outside it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.config import Reading
from stopgrad.errors import DataError
from stopgrad.images.sources.arrow_files import GroupedFile, opened_arrow
from stopgrad.images.sources.columns import (
    ImageColumn,
    batches_of,
    image_bytes,
    image_column,
    image_paths,
    images_in_lists,
    strange_path,
)
from stopgrad.images.sources.endings import why_broken
from stopgrad.images.sources.label_columns import KnownLabels, labels_of
from stopgrad.images.sources.labels import Label, RawLabels
from stopgrad.images.sources.limits import refuse_bomb
from stopgrad.images.sources.pages import PagedFile
from stopgrad.images.types import (
    Encoded,
    FileStamp,
    Labels,
    Notes,
    SplitReader,
    Unused,
    stamp,
)
from stopgrad.storage import as_file_name

ROWS = 64  # rows whose bytes are in memory at a time, at most


class FileRows(NamedTuple):
    """The rows of a file whose images are used."""

    name: str  # below the root
    path: Path
    column: ImageColumn
    rows: Sequence[int]
    labels: Sequence[Label] | None  # of these rows; None: no column of this file holds them


class SplitRows(NamedTuple):
    """The files of a split, and notes on what is not used."""

    name: str
    files: tuple[FileRows, ...]
    notes: Notes

    @property
    def names(self) -> list[str]:
        """The name of each image."""
        return [f"{file.name}:{row}" for file in self.files for row in file.rows]

    @property
    def raw(self) -> RawLabels | None:
        """The labels as found in the files; None where no file has any."""
        if all(file.labels is None for file in self.files):
            return None
        names, labels = functools.cache(lambda: self.names), list[Label]()
        for file in self.files:
            labels += [None] * len(file.rows) if file.labels is None else file.labels
        return RawLabels(self.name, labels, lambda row: names()[row])

    def reader(self, root: Path, labels: Labels | None) -> SplitReader:
        """The images, with labels (N,)."""
        count = sum(len(file.rows) for file in self.files)
        return SplitReader(count, labels, functools.partial(_items, self.files, root))


def read_file(
    name: str, root: Path, known: KnownLabels, reading: Reading
) -> tuple[FileRows | None, Notes]:
    """The rows of a file that are used, and notes on the others."""
    path = root / name
    with opened_parquet(path) as file:
        count = _row_count(file)
        column = image_column(file, reading.image_column)
        if column is None:
            return None, Notes(unused=(Unused("file", "without a column of images", (name,)),))
        strange = _strange_rows(file, column, path.parent, root) if column.paths else {}
        labels, remarks = labels_of(file, name, column.name, known)
        several = [*images_in_lists(file, column.name)]
    rows = [row for row in range(count) if row not in strange] if strange else range(count)
    reasons: dict[str, list[str]] = {}
    for row, reason in strange.items():
        reasons.setdefault(reason, []).append(f"{name}:{row}")
    if more := [f"{name}:{row}:{n}" for row, of in enumerate(several) for n in range(2, of + 1)]:
        reasons["further images of a row; only the first of each is read"] = more
    unused = (Unused("image", reason, tuple(names)) for reason, names in reasons.items())
    used = None if labels is None else [labels[row] for row in rows]
    return FileRows(name, path, column, rows, used), Notes(remarks, tuple(unused))


def _strange_rows(
    file: GroupedFile, column: ImageColumn, folder: Path, root: Path
) -> dict[int, str]:
    """Why rows name no file of the data, by row."""
    batches = batches_of(file, column.name)
    texts = (text for batch in batches for text in image_paths(batch.column(0)))
    return {
        row: reason
        for row, text in enumerate(texts)
        if text and (reason := _strange(text, folder, root))
    }


def _strange(text: str, folder: Path, root: Path) -> str:
    if reason := strange_path(text):
        return reason
    inside = ".." not in text or _places(text, folder, root)
    return "" if inside else "a path that leads out of the data"


def _places(text: str, folder: Path, root: Path) -> list[str]:
    """Paths where the file of a row may lie: next to the Parquet file, or below the root."""
    text = as_file_name(text)
    spellings = dict.fromkeys((text, text.replace("\\", "/")))
    places = [os.path.normpath(os.path.join(base, t)) for t in spellings for base in (folder, root)]
    return [place for place in places if place.startswith(os.path.join(root, ""))]


def _image_file(text: str | None, folder: Path, root: Path) -> Path | None:
    """The file of a row; if it does not exist, decoding will report it."""
    if not text or strange_path(text):
        return None
    places = _places(text, folder, root)
    return next((Path(place) for place in places if os.path.exists(place)), None) or (
        Path(places[0]) if places else None
    )


def _items(files: Sequence[FileRows], root: Path) -> Iterator[Encoded]:
    for file in files:
        wanted = file.rows if isinstance(file.rows, range) else frozenset(file.rows)
        for row, data in enumerate(_values(file, root)):
            if row in wanted:
                yield Encoded(f"{file.name}:{row}", data)


def _values(rows: FileRows, root: Path) -> Iterator[bytes | Path | None]:
    """The image of each row of a file."""
    read, folder, (column, only_paths, _) = 0, rows.path.parent, rows.column
    with opened_parquet(rows.path) as file:
        for batch in batches_of(file, column, most_rows=ROWS):
            read += len(batch)
            _check_rows(file, read, whole=False)
            paths = image_paths(batch.column(0))
            data = [None] * len(batch) if only_paths else image_bytes(batch.column(0))
            for content, path in zip(data, paths, strict=True):
                yield _image_file(path, folder, root) if content is None else content
        _check_rows(file, read)


def stamps_of_images(files: Sequence[str], root: Path, reading: Reading) -> Iterator[FileStamp]:
    """The stamps of the image files that rows name, if the first file names any."""
    for name in files:
        try:
            with opened_parquet(root / name) as file:
                column = image_column(file, reading.image_column)
                if column is None or not column.paths:
                    return
                batches = batches_of(file, column.name)
                texts = [text for batch in batches for text in image_paths(batch.column(0))]
        except DataError:  # opening the data will report it
            return
        for text in texts:
            if image := _image_file(text, (root / name).parent, root):
                yield stamp(image, name=image.relative_to(root).as_posix())


def _row_count(file: GroupedFile) -> int:
    _check_rows(file, _rows_of(file.metadata))
    return int(file.metadata.num_rows)


def _rows_of(metadata: Any) -> int:
    return sum(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))


def _check_rows(file: GroupedFile, read: int, *, whole: bool = True) -> None:
    """Refuses a file whose footer states another number of rows than was read, in all or so far."""
    promised = file.metadata.num_rows
    if read > promised or (whole and read < promised):
        raise ValueError(f"{read} rows, {promised} by its footer")


@contextlib.contextmanager
def opened_parquet(path: Path) -> Iterator[GroupedFile]:
    """An open Parquet or Arrow file; whatever goes wrong in it is a DataError."""
    import pyarrow.parquet

    try:
        if not path.is_file():
            raise ValueError("not a regular file")
        if path.suffix.lower() == ".arrow":
            with opened_arrow(path) as arrow:
                yield arrow
            return
        with (  # as bytes: Arrow would encode a path that is not the locale's
            pyarrow.OSFile(os.fsencode(path)) as source,
            pyarrow.parquet.ParquetFile(source, page_checksum_verification=True) as file,
            path.open("rb") as raw,
        ):
            refuse_bomb(8 * _rows_of(file.metadata), path.stat().st_size, where=str(path))
            yield PagedFile(file, raw)
    except DataError:
        raise
    # Arrow raises OSError, ArrowInvalid, ArrowNotImplementedError, UnicodeDecodeError and more
    # for damaged files; only reads of this file happen inside this block.
    except Exception as error:
        reason = why_broken(path, error)
        raise DataError(
            f"{str(path)!r} cannot be read as Parquet ({reason})",
            expected="a complete Parquet file",
            hint="copy or download it again",
        ) from error
