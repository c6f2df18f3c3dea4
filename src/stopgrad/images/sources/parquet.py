"""Parquet files in the Hub's layout, or any other -> a `DataSource`.

`shards` tells by the names which files are learned from and which may be scored, `columns` by the
schemas where images and labels are. Of several splits the first with usable labels is scored. Rows
of other splits, and rows whose image lies outside of the data, are noted as unused.

Paths of image files are relative to their Parquet file or to the root of the data, and lead to no
place outside of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Literal, NamedTuple

from stopgrad.errors import DataError
from stopgrad.images.sources.arrays import NumberedLabels, RawLabels, number_labels
from stopgrad.images.sources.columns import (
    ImageColumn,
    Plain,
    class_names,
    image_bytes,
    image_column,
    image_paths,
    is_true_or_false,
    label_column,
    no_images,
    read_labels,
    strange_path,
)
from stopgrad.images.sources.shards import Place, Shards, check_complete, choose_shards, place_of
from stopgrad.images.store import is_store
from stopgrad.images.types import (
    Contents,
    DataSource,
    Encoded,
    FileStamp,
    Labels,
    Notes,
    Reading,
    SplitReader,
    Unused,
    stamp,
)

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

DEPTH = 2  # folders below the one named in which Parquet files are looked for
ROWS = 64  # rows whose bytes are in memory at a time
BY_RULE = Reading()


def is_parquet(path: Path) -> bool:
    """Whether a path is a Parquet file, or a folder that holds some at most two levels down."""
    if not path.is_dir():
        return path.suffix.lower() == ".parquet"
    return any(True for _ in _files_below(path))


def holds_images(path: Path, reading: Reading = BY_RULE) -> Literal["bytes", "paths", ""]:
    """What the Parquet files of a folder hold of images; of a damaged file it is not known."""
    for file in _files_below(path):
        try:
            with opened_parquet(file) as parquet:
                wanted = reading.image_column
                found = image_column(
                    parquet, wanted if wanted in parquet.schema_arrow.names else ""
                )
        except DataError:
            continue
        if found is not None and not found.paths:
            return "bytes"
        if found is not None and any(
            image.size >= 0 for image in _stamps_of_images([str(file)], path, reading)
        ):
            return "paths"
    return ""


def parquet_source(path: Path, reading: Reading = BY_RULE) -> DataSource:
    """A folder in the Hub's layout, or one file as a train split.

    Raises:
        DataError: When there is no train split or the choice is open.
        ConfigError: For a split that is not there.
    """
    if path.is_file():
        shards = choose_shards(
            [Place("", "train", path.name)], split=reading.split, where=str(path)
        )
        return shards_source(shards, reading, name=path.stem, root=path.parent)
    names = [file.relative_to(path).as_posix() for file in _files_below(path)]
    places = [place for name in names if (place := place_of(name))]
    shards = choose_shards(places, split=reading.split, where=str(path))
    return shards_source(shards, reading, name=path.name, root=path)


def shards_source(shards: Shards, reading: Reading, *, name: str, root: Path) -> DataSource:
    """Chosen files, by their paths relative to a folder."""
    files = [*shards.train, *(path for paths in shards.scored.values() for path in paths)]
    stamps = [stamp(root / file, name=file) for file in files]
    stamps += _stamps_of_images(files, root, reading)
    return DataSource(
        name,
        str(root),
        tuple(stamps),
        ParquetData(shards, root, reading).open,
        notes=shards.notes,
    )


def has_labels(path: Path, reading: Reading) -> bool:
    """Whether any row of a file has a label, by the rules alone.

    Raises:
        DataError: When the file is damaged.
    """
    with opened_parquet(path) as file:
        image = image_column(file, reading.image_column)
        wanted = reading.label_column
        if wanted and wanted not in file.schema_arrow.names:
            return False
        column = label_column(file, image.name if image else "", wanted).name
        labels = read_labels(file, column) if column else []
        return any(label not in (None, "", -1) for label in labels)


def _files_below(folder: Path) -> Iterator[Path]:
    for depth in range(DEPTH + 1):
        for file in folder.glob("*/" * depth + "*.[pP][aA][rR][qQ][uU][eE][tT]"):
            if place_of(file.relative_to(folder).as_posix()) and not is_store(file.parent):
                yield file


class FileRows(NamedTuple):
    """The rows of a file whose images are used."""

    name: str  # below the root
    path: Path
    column: ImageColumn
    rows: Sequence[int]
    labels: Sequence[Plain]  # of these rows


class SplitRows(NamedTuple):
    """The files of a split, and what of them is not used."""

    name: str
    files: tuple[FileRows, ...]
    labelled: bool  # whether its files have a column of labels
    notes: Notes

    @property
    def names(self) -> list[str]:
        """Of each image."""
        return [f"{file.name}:{row}" for file in self.files for row in file.rows]

    @property
    def raw(self) -> RawLabels | None:
        """The labels as they stand in the files."""
        if not self.labelled:
            return None
        names = functools.cache(lambda: self.names)
        labels = [label for file in self.files for label in file.labels]
        return RawLabels(self.name, labels, lambda row: names()[row])

    def reader(self, root: Path, labels: Labels | None) -> SplitReader:
        """The images, with labels (N,)."""
        count = sum(len(file.rows) for file in self.files)
        return SplitReader(count, labels, functools.partial(_items, self.files, root))


class KnownLabels(NamedTuple):
    """What the first file to learn from says of the labels of all."""

    column: str  # "" without labels
    class_names: tuple[str, ...]  # C; () where only the labels tell them
    remarks: tuple[str, ...]


class ScoredRows(NamedTuple):
    """The split that is scored, if there is one, and the labels of both splits."""

    split: SplitRows | None
    labels: NumberedLabels
    notes: Notes


class ParquetData(NamedTuple):
    """Which files there are, and how they are read."""

    shards: Shards
    root: Path
    reading: Reading

    def open(self) -> Contents:
        """The images and labels of the splits.

        Raises:
            DataError: For damaged files, for none with images, and for columns that are not there.
        """
        known = self._known()
        train = self._split("train", self.shards.train, known)
        if not train.files:
            raise DataError(
                f"no rows with an image in {self.root / self.shards.train[0]}",
                expected="at least one image",
                hint="check the file",
            )
        split, labels, notes = self._scored(train, known)
        return Contents(
            labels.class_names,
            train.reader(self.root, labels.train),
            split.reader(self.root, labels.test) if split else None,
            _joined([Notes(known.remarks), train.notes, labels.notes, notes]),
        )

    def _known(self) -> KnownLabels:
        """From the first file with images."""
        for path in (self.root / name for name in self.shards.train):
            with opened_parquet(path) as file:
                image = image_column(file, self.reading.image_column)
                if image is not None:
                    return _known_labels(file, image, self.reading.label_column)
        with opened_parquet(self.root / self.shards.train[0]) as file:
            raise no_images(file, self.root / self.shards.train[0])

    def _split(self, name: str, paths: Sequence[str], known: KnownLabels) -> SplitRows:
        """The rows of a split, and whether any file of it has labels."""
        read = [_read_file(path, self.root, known, self.reading) for path in paths]
        files = tuple(file for file, _ in read if file and file.rows)
        labelled = any(file.labels for file in files)
        return SplitRows(name, files, labelled, _joined(notes for _, notes in read))

    def _scored(self, train: SplitRows, known: KnownLabels) -> ScoredRows:
        """The first split whose labels can be used; where none can, the first with images."""
        found: list[ScoredRows] = []
        for name, paths in self.shards.scored.items():
            check_complete(paths, str(self.root))
            split = self._split(name, paths, known)
            if split.files:
                labels = number_labels(train.raw, split.raw, class_names=known.class_names)
                found.append(ScoredRows(split, labels, split.notes))
                if labels.test is not None:
                    break
        if not found:
            labels = number_labels(train.raw, None, class_names=known.class_names)
            return ScoredRows(None, labels, self._unread())
        usable = found[-1].labels.test is not None
        chosen, passed = (found[-1], found[:-1]) if usable else (found[0], [])
        assert chosen.split
        without = [each.split.name for each in passed if each.split]
        notes = _joined([chosen.notes, self._notes(chosen.split.name, without)])
        return chosen._replace(notes=notes)

    def _notes(self, scored: str, without: Sequence[str]) -> Notes:
        """What to know of the split that is scored, and the rows of all others."""
        called = self.shards.called(scored, self.reading.split)
        passed = [*self.shards.without_labels, *without]
        why = f", as no label of {', '.join(map(repr, passed))} can be used" if passed else ""
        remarks = (f"{scored!r} is scored{why}",) if why or called else ()
        return Notes(remarks, scored=called).and_those(self._unread(scored, without))

    def _unread(self, scored: str = "", without: Sequence[str] = ()) -> Notes:
        """The rows of the splits that are not scored, some of them as they are without labels."""
        unused = []
        for name, paths in {**self.shards.scored, **self.shards.others}.items():
            if name == scored:
                continue
            rows: list[str] = []
            for path in paths:
                try:
                    with opened_parquet(self.root / path) as file:
                        rows += (f"{path}:{row}" for row in range(file.metadata.num_rows))
                except DataError as error:
                    unused.append(Unused("file", error.found, (path,)))
            if rows:
                reason = f"in split {name!r}, no label of which can be used"
                reason = reason if name in without else neither(name)
                unused.append(Unused("image", reason, tuple(rows)))
        return Notes(unused=tuple(unused))


def neither(split: str) -> str:
    """Why the images of a split are not used."""
    return (
        f"in split {split!r}, which is neither learned from nor scored; evaluate scores it with "
        f"--split {quote(split)}"
    )


def _joined(notes: Iterable[Notes]) -> Notes:
    return functools.reduce(Notes.and_those, notes, Notes())


def _known_labels(file: ParquetFile, image: ImageColumn, wanted: str) -> KnownLabels:
    label, remarks = label_column(file, image.name, wanted), [*image.remarks]
    names: tuple[str, ...] = ()
    try:
        names = class_names(file, label.name)
    except ValueError as error:
        remarks.append(str(error))
    if not names and label.name and is_true_or_false(file, label.name):
        names = ("False", "True")
    return KnownLabels(label.name, names, (*remarks, *label.remarks))


def _read_file(
    name: str, root: Path, known: KnownLabels, reading: Reading
) -> tuple[FileRows | None, Notes]:
    """The rows of a file that are used, and what to know of the others."""
    path = root / name
    with opened_parquet(path) as file:
        count = _row_count(file)
        column = image_column(file, reading.image_column)
        if column is None:
            return None, Notes(unused=(Unused("file", "without a column of images", (name,)),))
        strange = _strange_rows(file, column, path.parent, root) if column.paths else {}
        labels, remarks = _labels(file, name, known)
    rows = [row for row in range(count) if row not in strange] if strange else range(count)
    reasons: dict[str, list[str]] = {}
    for row, reason in strange.items():
        reasons.setdefault(reason, []).append(f"{name}:{row}")
    unused = (Unused("image", reason, tuple(names)) for reason, names in reasons.items())
    used = [labels[row] for row in rows] if labels else []
    return FileRows(name, path, column, rows, used), Notes(remarks, tuple(unused))


def _labels(
    file: ParquetFile, name: str, known: KnownLabels
) -> tuple[list[Plain], tuple[str, ...]]:
    """The labels of all rows, [] where the file has none, and what to know of that."""
    if not known.column:
        return [], ()
    if known.column not in file.schema_arrow.names:
        return [], (f"{name} has no labels, as it has no column {known.column!r}",)
    try:
        labels = read_labels(file, known.column)
    except ValueError as error:
        return [], (f"{name} has no labels, as column {known.column!r} is {error}",)
    own: tuple[str, ...] = ()
    with contextlib.suppress(ValueError):
        own = class_names(file, known.column)
    if known.class_names in ((), own) or not own:
        return labels, ()
    places: dict[Plain, str] = dict(enumerate(own))  # each file may number the classes by itself
    return [places.get(label, label) for label in labels], ()


def _strange_rows(
    file: ParquetFile, column: ImageColumn, folder: Path, root: Path
) -> dict[int, str]:
    """Why rows name no file of the data, by row."""
    batches = file.iter_batches(columns=[column.name])
    texts = (text for batch in batches for text in image_paths(batch.column(0)))
    return {
        row: reason
        for row, text in enumerate(texts)
        if text and (reason := _strange(text, folder, root))
    }


def _strange(text: str, folder: Path, root: Path) -> str:
    if reason := strange_path(text):
        return reason
    return "" if _places(text, folder, root) else "a path that leads out of the data"


def _places(text: str, folder: Path, root: Path) -> list[str]:
    """Where the file of a row may lie: beside the Parquet file, or below the root."""
    spellings = dict.fromkeys((text, text.replace("\\", "/")))
    places = [os.path.normpath(os.path.join(base, t)) for t in spellings for base in (folder, root)]
    return [place for place in places if place.startswith(f"{root}{os.sep}")]


def _image_file(text: str | None, folder: Path, root: Path) -> Path | None:
    """The file of a row; one that is not there is named by decoding."""
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
        for batch in file.iter_batches(batch_size=ROWS, columns=[column]):
            read += len(batch)
            _check_rows(file, read, whole=False)
            paths = image_paths(batch.column(0))
            data = [None] * len(batch) if only_paths else image_bytes(batch.column(0))
            for content, path in zip(data, paths, strict=True):
                yield _image_file(path, folder, root) if content is None else content
        _check_rows(file, read)


def _stamps_of_images(files: Sequence[str], root: Path, reading: Reading) -> Iterator[FileStamp]:
    """The stamps of the image files that rows name, if the first file names any."""
    for name in files:
        try:
            with opened_parquet(root / name) as file:
                column = image_column(file, reading.image_column)
                if column is None or not column.paths:
                    return
                batches = file.iter_batches(columns=[column.name])
                texts = [text for batch in batches for text in image_paths(batch.column(0))]
        except DataError:  # opening the data says so
            return
        for row, text in enumerate(texts):
            if image := _image_file(text, (root / name).parent, root):
                yield stamp(image, name=f"{name}:{row}")


def _row_count(file: ParquetFile) -> int:
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    _check_rows(file, sum(group.num_rows for group in groups))
    return int(file.metadata.num_rows)


def _check_rows(file: ParquetFile, read: int, *, whole: bool = True) -> None:
    """Refuses a file whose footer promises other rows than were read, of the whole or so far."""
    promised = file.metadata.num_rows
    if read > promised or (whole and read < promised):
        raise ValueError(f"{read} rows, {promised} by its footer")


@contextlib.contextmanager
def opened_parquet(path: Path) -> Iterator[ParquetFile]:
    """An open Parquet file; whatever goes wrong in it is a DataError."""
    import pyarrow.parquet

    try:
        if not path.is_file():
            raise ValueError("not a regular file")
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
