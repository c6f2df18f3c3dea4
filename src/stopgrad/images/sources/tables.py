"""Tables of images (CSV, TSV, JSON lines, metadata.parquet) -> the labels of images they name.

The column whose values fit says which image a row is about: by paths below the table's folder or
any other (`/kaggle/input/train/7.png`), names, or names without their ending. A name that several
images share does not count. `train.csv` and `test_labels.csv` are about the images of that split,
all others about those next to and below them. The labels are in a column called `label`, `class`,
..., in the only other one, or in several one-hot columns, each 1 for its class and 0 elsewhere.
Columns that the user names win. Tables that cannot be understood are named in a remark, and rows
without an image are noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, NamedTuple

from stopgrad.config import Reading
from stopgrad.errors import DataError
from stopgrad.images.sources.files import OURS, FolderListing, Found
from stopgrad.images.sources.labels import Label, composed
from stopgrad.images.sources.names import SplitOf, is_split_column, split_of, words_of
from stopgrad.images.sources.table_columns import (
    ALIKE,
    ClassColumn,
    FileColumn,
    file_column,
    label_column,
    named_column,
)
from stopgrad.images.sources.table_files import BEYOND, TWICE, UnfitTableError, columns_of
from stopgrad.images.types import Notes, Unused
from stopgrad.storage import few

WITHOUT = frozenset({"labels", "label", "metadata", "annotations", "annotation", "list", "info"})
OUR_COLUMNS = ["path", "split", "label", "class_name"]  # of the files that `stopgrad embed` writes
MOST_TABLES = 20
NAMED = 3  # tables that an error names
AS_LABELS = "renamed to labels.csv and put beside all images, it could label any of them"
ELSEWHERE = f"of another split or folder: {AS_LABELS}"
LONGER = "rows with more values than its header: put quotes around text that holds separators"
UNSPLIT = "all images are trained on; to split them, use folders train/ and test/"


class TableLabels(NamedTuple):
    """The label of each image by its path, and notes on each table."""

    labels: dict[str, Label]
    notes: Notes


def table_labels(
    listing: FolderListing,
    splits: Mapping[str, SplitOf],
    reading: Reading,
    *,
    classes: Mapping[str, str],
) -> TableLabels:
    """Labels from the tables of a folder.

    Args:
        listing: The contents of the folder.
        splits: The split of each image that is in one, by its path.
        classes: The class folders of images, which take precedence over tables.
        reading: The columns that are read.

    Raises:
        DataError: When no table gives labels by the columns that are wanted.
    """
    labels: dict[str, Label] = {**classes}
    notes = Notes()
    for number, table in enumerate(sorted(listing.tables, key=_preference)):
        name = "/".join(table.parts)
        try:
            if number >= MOST_TABLES:
                raise UnfitTableError(f"only the first {MOST_TABLES} tables are read")
            found = _read_table(table, listing, splits, reading)
        except UnfitTableError as error:
            notes = notes.and_those(_not_read(name, str(error)))
            continue
        other = [
            path
            for path, label in found.labels.items()
            if composed(str(labels.get(path, label))) != composed(str(label))
        ]
        if found.labels.keys() <= labels.keys():
            notes = notes.and_those(_not_read(name, "the images it names already have labels"))
            found = found._replace(notes=found.notes._replace(remarks=()))
        if other:
            why = f"{name} contradicts class folders or an earlier table, which come first"
            names = tuple(listing.below(path) for path in other)
            notes = notes.and_those(Notes(unused=(Unused("label", why, names),)))
        labels = found.labels | labels
        notes = notes.and_those(found.notes)
    if labels.keys() <= classes.keys() and (reading.image_column or reading.label_column):
        raise _unfit(listing.root, notes.remarks)
    return TableLabels(labels, notes)


def _unfit(root: str, remarks: Sequence[str]) -> DataError:
    return DataError(
        f"no labels for the images in {root!r} ({'; '.join(remarks[:NAMED])})",
        expected="a table with the named column of labels, and a column that names images",
        hint="correct --label-column or --image-column",
    )


def _not_read(name: str, why: str) -> Notes:
    if why == OURS:
        return Notes(unused=(Unused("file", OURS, (name,)),))
    return Notes((f"{name} gives no labels: {why}",))


def _preference(table: Found) -> tuple[int, int, tuple[str, ...]]:
    """Sort key: tables near the images first, then those whose names say what they are."""
    stem = _stem(table.parts[-1])
    known = ("metadata", "labels")
    rank = known.index(stem) if stem in known else 2 if _split_of_table(table.parts[-1]) else 3
    return -len(table.parts), rank, table.parts


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.lower()


def _split_of_table(name: str) -> SplitOf | None:
    """The split that the name of a table means: `train`, `trainLabels`, `labels_test`."""
    words = words_of(PurePosixPath(name).stem)
    return split_of(" ".join(word for word in words if word not in WITHOUT))


def _read_table(
    table: Found, listing: FolderListing, splits: Mapping[str, SplitOf], reading: Reading
) -> TableLabels:
    """The labels of one table.

    Raises:
        UnfitTableError: When it gives none.
    """
    name, stem = "/".join(table.parts), _stem(table.parts[-1])
    if "submission" in stem:
        raise UnfitTableError("submissions hold predictions")
    columns = columns_of(Path(table.path))
    longer = columns.pop(BEYOND, [])
    _refuse_columns(columns, reading)
    split = _split_of_table(table.parts[-1])
    images = [image for image in listing.images if split is None or splits.get(image.path) == split]
    if split and not images:
        raise UnfitTableError(f"no image is in the split of its name, {split}; {AS_LABELS}")
    near = _near(images, table.parts[:-1])
    about = {image.path for image in near}
    others = [image for image in listing.images if image.path not in about]
    by = file_column(columns, near, others, wanted=reading.image_column)
    if by.as_header:
        columns = {str(n): [TWICE.sub("", of), *columns[of]] for n, of in enumerate(columns, 1)}
        longer = [False, *longer] if longer else []
        by = file_column(columns, near, others, wanted="")
    wanted = reading.label_column
    chosen = named_column(columns, wanted) if wanted else label_column(columns, by.name)
    values = [None if more else value for value, more in zip_longest(chosen.values, longer)]
    labels, notes = _assigned(name, by, values)
    if rows := tuple(value for value, more in zip(by.values, longer, strict=False) if more):
        notes = notes.and_those(Notes(unused=(Unused("label", f"{name} has {LONGER}", rows),)))
    come = f"labels come from {name}: column {chosen.named}, images by {by.name!r}"
    said = _remarks(columns, chosen, name, is_split=len({*splits.values()}) > 1)
    return TableLabels(labels, Notes((come, *said, *_twice(columns, name))).and_those(notes))


def _remarks(
    columns: Mapping[str, Sequence[Any]], chosen: ClassColumn, table: str, *, is_split: bool
) -> Iterator[str]:
    if chosen.others:
        yield f"--label-column takes {few(chosen.others)} of {table} instead"
    if chosen.none:
        where = f"column {chosen.named} of {table} says {few(chosen.none)}"
        yield f"no label where {where}: give a class another name"
    if of_split := [c for c in columns if is_split_column(c) and repr(c) != chosen.named]:
        how = "folders name the splits" if is_split else UNSPLIT
        yield f"column {of_split[0]!r} of {table} is not used: {how}"


def _refuse_columns(columns: Mapping[str, Sequence[Any]], reading: Reading) -> None:
    if [*columns][:4] == OUR_COLUMNS:
        raise UnfitTableError(OURS)
    for wanted in filter(None, (reading.image_column, reading.label_column)):
        if wanted not in columns:
            raise UnfitTableError(f"it has no column {wanted!r}")


def _twice(columns: Mapping[str, Sequence[Any]], table: str) -> Iterator[str]:
    """Remarks on columns that share a name."""
    for name in columns:
        first = TWICE.sub("", name)
        if first != name:
            rows = [a != b for a, b in zip(columns[first], columns[name], strict=True)]
            yield (
                f"{table} has two columns called {first!r}, which differ in {sum(rows):,} "
                f"of {len(rows):,} rows: the first is used; --label-column {quote(name)} takes "
                "the other"
            )


def _near(images: list[Found], folder: tuple[str, ...]) -> list[Found]:
    """The images in and below a folder, or else the nearest one around it that has any."""
    near = [image for image in images if image.parts[: len(folder)] == folder]
    return near if near or not folder else _near(images, folder[:-1])


def _assigned(name: str, by: FileColumn, values: Sequence[Label]) -> TableLabels:
    labels: dict[str, Label] = {}
    several: dict[str, Found] = {}
    for image, label in zip(by.images, values, strict=True):
        if image is None or label is None:
            continue
        if labels.setdefault(image.path, label) != label:
            several[image.path] = image
    lost = [value for value, image in zip(by.values, by.images, strict=True) if image is None]
    unused = []
    if several:
        names = tuple("/".join(image.parts) for image in several.values())
        unused.append(Unused("label", f"{name} has several labels for one image", names))
    if away := tuple(value for value in lost if value in by.elsewhere):
        unused.append(Unused("label", f"{name} names images {ELSEWHERE}", away))
    if alike := tuple(value for value in lost if value in by.alike):
        unused.append(Unused("label", f"{name} names images by {ALIKE}", alike))
    known = by.elsewhere | by.alike
    if gone := tuple(value for value in lost if value not in known):
        unused.append(Unused("label", f"{name} names images that are not there", gone))
    kept = {path: label for path, label in labels.items() if path not in several}
    if not kept:
        raise UnfitTableError(
            "several labels for each image" if several else "no labels in its rows"
        )
    return TableLabels(kept, Notes(unused=tuple(unused)))
