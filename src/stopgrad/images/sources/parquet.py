"""Parquet files in the Hub's layout, or any other -> a `DataSource`.

`shards` tells from the names which files are trained on and which may be scored, `columns` from the
schemas where images and labels are. Of several splits the first with usable labels is scored. Rows
of other splits, and rows whose image lies outside the data, are noted as unused.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stopgrad.config import BY_RULE, Reading
from stopgrad.errors import DataError, StopgradError
from stopgrad.images.sources.arrow_files import check_listed
from stopgrad.images.sources.columns import image_column, no_images, whole_column
from stopgrad.images.sources.endings import PARQUET
from stopgrad.images.sources.label_columns import (
    KnownLabels,
    known_labels,
    label_column,
    maybe_labels,
    read_labels,
)
from stopgrad.images.sources.labels import NumberedLabels, RawLabels, number_labels
from stopgrad.images.sources.names import is_split_column, split_of, why_unread
from stopgrad.images.sources.rows import SplitRows, opened_parquet, read_file, stamps_of_images
from stopgrad.images.sources.shards import (
    ShardPlace,
    Shards,
    check_complete,
    choose_shards,
    is_derived,
    place_of,
)
from stopgrad.images.sources.tables import OUR_COLUMNS
from stopgrad.images.store import is_store
from stopgrad.images.types import (
    Contents,
    DataSource,
    Notes,
    Unused,
    stamp,
)
from stopgrad.storage import of_disk

LISTS = ("state.json", "dataset_info.json", "dataset_dict.json")  # of `datasets`
DEPTH = 2  # folders below the one named in which Parquet files are looked for


def is_parquet(path: Path) -> bool:
    """Whether a path is a Parquet or Arrow file, or a folder with some at most two levels down."""
    if not path.is_dir():
        return path.suffix.lower() in PARQUET
    return any(True for _ in _files_below(path))


def looked_at(name: str) -> bool:
    """Whether a file of a folder is a Parquet or Arrow file that is looked for, or lists such."""
    found = name.lower().endswith(PARQUET) and name.count("/") <= DEPTH
    return found or name.rpartition("/")[2] in LISTS


def count_images(folder: Path, reading: Reading = BY_RULE) -> int:
    """How many rows to train on hold images or, in a split called train, name them."""
    try:
        train = _shards_of(folder, reading._replace(split="")).train
        return sum(_count_images(folder / name, name, reading) for name in train)
    except StopgradError as error:
        if of_disk(error):
            raise
        return 0


def _count_images(path: Path, name: str, reading: Reading) -> int:
    place = place_of(name)
    with opened_parquet(path) as file:
        if [*file.schema_arrow.names[:4]] == OUR_COLUMNS:
            return 0
        column = image_column(file, reading.image_column)
        rows = column and (not column.paths or (place and split_of(place.split) == "train"))
        return file.metadata.num_rows if rows else 0


def parquet_source(path: Path, reading: Reading = BY_RULE) -> DataSource:
    """A folder in the Hub's layout, or one file as a train split.

    Raises:
        DataError: When there is no train split or the choice is unclear.
        ConfigError: For a split that is not there.
    """
    if path.is_file():
        shards = choose_shards(
            [ShardPlace("", "train", path.name)], split=reading.split, where=str(path)
        )
        return shards_source(shards, reading, name=path.stem, root=path.parent)
    for folder in {file.parent for file in _files_below(path)}:
        check_listed(folder)
    derived = sorted(file for file in path.glob("**/*.arrow") if is_derived(file.name))
    names = tuple(file.relative_to(path).as_posix() for file in derived)
    notes = Notes(unused=(Unused("file", "caches of datasets", names),) if names else ())
    shards = _shards_of(path, reading)
    shards = shards._replace(notes=shards.notes.and_those(notes))
    return shards_source(shards, reading, name=path.name, root=path)


def _shards_of(folder: Path, reading: Reading) -> Shards:
    names = [file.relative_to(folder).as_posix() for file in _files_below(folder)]
    places = [place for name in names if (place := place_of(name))]
    return choose_shards(places, split=reading.split, where=str(folder))


def shards_source(shards: Shards, reading: Reading, *, name: str, root: Path) -> DataSource:
    """The data set in chosen files, whose paths are relative to `root`."""
    files = [*shards.train, *itertools.chain(*shards.scored.values())]
    stamps = [stamp(root / file, name=file) for file in files]
    stamps += stamps_of_images([*files, *itertools.chain(*shards.others.values())], root, reading)
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
        return bool(RawLabels("", labels, str).known)


def _files_below(folder: Path) -> Iterator[Path]:
    for depth in range(DEPTH + 1):
        for ending in ("[pP][aA][rR][qQ][uU][eE][tT]", "arrow"):
            for file in folder.glob(f"{'*/' * depth}*.{ending}"):
                if place_of(file.relative_to(folder).as_posix()) and not is_store(file.parent):
                    yield file


class ScoredRows(NamedTuple):
    """The split that is scored, if there is one, and the labels of both splits."""

    split: SplitRows | None
    labels: NumberedLabels
    notes: Notes


class ParquetData(NamedTuple):
    """The files of a data set, and how they are read."""

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
            why = ", ".join(dict.fromkeys(unused.reason for unused in train.notes.unused))
            raise DataError(
                f"no rows with an image in {self.root / self.shards.train[0]}{why and f' ({why})'}",
                expected="at least one image",
                hint="check the file",
            )
        split, labels, notes = self._scored(train, known)
        return Contents(
            labels.class_names,
            train.reader(self.root, labels.train),
            split.reader(self.root, labels.test) if split else None,
            Notes((*known.remarks, *self._unsplit())).and_those(train.notes, labels.notes, notes),
        )

    def _known(self) -> KnownLabels:
        """The labels known from the first file that has any, or else from the first with images."""
        first: KnownLabels | None = None
        for path in (self.root / name for name in self.shards.train):
            with opened_parquet(path) as file:
                image = image_column(file, self.reading.image_column)
                known = image and known_labels(file, image, self.reading.label_column)
                if known and known.column:
                    return known
                if image and known and not first:
                    more = maybe_labels(file, image.name)
                    first = known._replace(remarks=known.remarks + more)
        if first:
            return first
        path = self.root / self.shards.train[0]
        with opened_parquet(path) as file:
            raise no_images(file, path)

    def _unsplit(self) -> Iterator[str]:
        """Remarks on columns of splits, which are not used: file names tell the splits."""
        values_of: dict[str, Counter[str]] = {}
        for path in self.shards.train:
            with opened_parquet(self.root / path) as file:
                for column in filter(is_split_column, file.schema_arrow.names):
                    rows = whole_column(file, column).to_pylist()
                    values_of.setdefault(column, Counter()).update(map(repr, rows))
        for column, counts in values_of.items():
            if len(counts) > 1:
                values = ", ".join(
                    f"{count:,} {value[:40]}" for value, count in counts.most_common(3)
                )
                yield (
                    f"column {column!r} ({values}) is not used: all these rows are trained on; "
                    "to split them, use files called train and test"
                )

    def _split(self, name: str, paths: Sequence[str], known: KnownLabels) -> SplitRows:
        """The rows of a split."""
        read = [read_file(path, self.root, known, self.reading) for path in paths]
        files = tuple(file for file, _ in read if file and file.rows)
        return SplitRows(name, files, Notes().and_those(*(notes for _, notes in read)))

    def _scored(self, train: SplitRows, known: KnownLabels) -> ScoredRows:
        """The first split whose labels can be used; where none can, the first with images."""
        tried: dict[str, ScoredRows] = {}
        for name, paths in self.shards.scored.items():
            check_complete(paths, str(self.root))
            split = self._split(name, paths, known)
            labels = number_labels(train.raw, split.raw, class_names=known.class_names)
            tried[name] = ScoredRows(split, labels, split.notes)
            if labels.test is not None:
                break
        with_images = [name for name, each in tried.items() if each.split and each.split.files]
        usable = [name for name in with_images if tried[name].labels.test is not None]
        chosen = (usable or with_images or [""])[0]
        labels = number_labels(train.raw, None, class_names=known.class_names)
        found = tried.pop(chosen, ScoredRows(None, labels, Notes()))
        reasons = dict.fromkeys(tried, "none of whose labels can be used")
        choice = self._choice(chosen, [*tried] if usable else [])
        notes = found.notes.and_those(choice, self._unread(chosen, reasons))
        return found._replace(notes=notes)

    def _choice(self, scored: str, passed: Sequence[str]) -> Notes:
        """A remark on the split that is scored, and its name in results."""
        if not scored:
            return Notes()
        called = self.shards.called(scored, self.reading.split)
        passed = [*self.shards.without_labels, *passed]
        why = f", as no label of {', '.join(map(repr, passed))} can be used" if passed else ""
        return Notes((f"{scored!r} is scored{why}",) if why or called else (), scored=called)

    def _unread(self, scored: str, reasons: Mapping[str, str]) -> Notes:
        """Notes on the rows of splits that are not scored; `reasons` are known for some."""
        unused = []
        for name, paths in {**self.shards.scored, **self.shards.others}.items():
            rows: list[str] = []
            for path in paths if name != scored else ():
                try:
                    with opened_parquet(self.root / path) as file:
                        rows += (f"{path}:{row}" for row in range(file.metadata.num_rows))
                except DataError as error:
                    unused.append(Unused("file", error.found, (path,)))
            if rows:
                reason = (
                    f"in split {name!r}, {reasons[name]}" if name in reasons else why_unread(name)
                )
                unused.append(Unused("image", reason, tuple(rows)))
        return Notes(unused=tuple(unused))
