"""Tables beside images (CSV, TSV, JSON lines, metadata.parquet) -> the labels of images they name.

A table says which image a row is about in the column whose values fit: paths below its own folder
or any other (`/kaggle/input/train/7.png`), names, or names without their ending. A name that
several images have is none. `train.csv` and `test_labels.csv` are about the images of that split,
all others about those beside and below them. The labels stand in a column called `label`, `class`,
..., in the only other one, or in several that are 1 where the class is theirs and 0 elsewhere.
Columns that the user names come first. What cannot be understood is named in a remark, and so are
rows without an image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, NamedTuple

import numpy as np

from stopgrad.config import Reading
from stopgrad.errors import DataError
from stopgrad.images.sources.endings import SUFFIXES
from stopgrad.images.sources.files import OURS, FolderListing, Found
from stopgrad.images.sources.labels import Label, composed, fraction_among, labels_of_texts, one_hot
from stopgrad.images.sources.names import LABEL_WORDS, SplitOf, is_split_column, split_of
from stopgrad.images.sources.table_files import BEYOND, TWICE, UnfitTableError, columns_of
from stopgrad.images.types import Notes, Unused
from stopgrad.storage import few

Values = Sequence[Label]

# Words for columns, without regard to case and what stands between letters; the best first.
FILE_COLUMNS = (
    *("filename", "file", "filepath", "filepaths", "path", "imagepath", "imgpath", "image"),
    *("imagename", "imgname", "imagefile", "imageid", "imgid", "img", "imageindex", "idcode"),
    *("id", "fname", "name", "images", "isicid", "key", "url"),
)
LABEL_HEADERS = (
    *(*LABEL_WORDS, "classname", "classlabel", "classid", "categoryname", "categoryid"),
    *("labelname", "labelid", "breed", "findinglabels", "dx", "y", "tag", "tags", "type"),
)
WITHOUT = frozenset({"labels", "label", "metadata", "annotations", "annotation", "list", "info"})
OUR_COLUMNS = ["path", "split", "label", "class_name"]  # of the files that `stopgrad embed` writes
MOST_TABLES = 20
NAMED = 3  # tables that an error names
MOST_PARTS = 3  # of a path that are compared, from its end
FEW_CLASSES = 100
FRACTIONS = "numbers with fractions, such as"
HOT = {"true": 1, "false": 0, "none": 0}  # what else stands in one-hot columns, in small letters
# A class with the box of each object of it, as Kaggle has ILSVRC: n01440764 10 20 30 40.
BOXED = re.compile(r"(\S+)(?: \d+){4}(?: \1(?: \d+){4})*")
AS_LABELS = "as labels.csv, beside all images, it would label any"
ELSEWHERE = f"of another split or folder: {AS_LABELS}"
LONGER = "more in a row than its header has columns: put quotes around text that holds separators"
UNSPLIT = "all images are trained on; to split them, use folders train/ and test/"


class TableLabels(NamedTuple):
    """The label of each image by its path, and what became of each table."""

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
        listing: What lies in the folder.
        splits: The split of each image that is in one, by its path.
        classes: The class folders of images, which count before tables.
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
            why = f"{name} contradicts class folders or an earlier table, which take precedence"
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
        expected="a table with the column of labels that was named, and one of names of images",
        hint="correct --label-column or --image-column",
    )


def _not_read(name: str, why: str) -> Notes:
    if why == OURS:
        return Notes(unused=(Unused("file", OURS, (name,)),))
    return Notes((f"{name} gives no labels: {why}",))


def _preference(table: Found) -> tuple[int, int, tuple[str, ...]]:
    """Tables near to the images first, then those whose names say what they are."""
    stem = _stem(table.parts[-1])
    known = ("metadata", "labels")
    rank = known.index(stem) if stem in known else 2 if _split_of_table(stem) else 3
    return -len(table.parts), rank, table.parts


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.lower()


def _split_of_table(stem: str) -> SplitOf | None:
    """The split that the name of a table means: `train`, `train_labels`, `labels_test`."""
    words = re.findall(r"[a-z]+", stem)
    return split_of(" ".join(word for word in words if word not in WITHOUT))


def _read_table(
    table: Found, listing: FolderListing, splits: Mapping[str, SplitOf], reading: Reading
) -> TableLabels:
    """The labels of one table.

    Raises:
        UnfitTableError: When it has none.
    """
    name, stem = "/".join(table.parts), _stem(table.parts[-1])
    if "submission" in stem:
        raise UnfitTableError("submissions hold predictions")
    columns = columns_of(Path(table.path))
    longer = columns.pop(BEYOND, [])
    _refuse_columns(columns, reading)
    split = _split_of_table(stem)
    images = [image for image in listing.images if split is None or splits.get(image.path) == split]
    if split and not images:
        raise UnfitTableError(f"no image is in the split of its name, {split}; {AS_LABELS}")
    near = _near(images, table.parts[:-1])
    about = {image.path for image in near}
    others = [image for image in listing.images if image.path not in about]
    by = _file_column(columns, near, others, wanted=reading.image_column)
    if by.as_header:
        columns = {str(n): [TWICE.sub("", of), *columns[of]] for n, of in enumerate(columns, 1)}
        longer = [False, *longer] if longer else []
        by = _file_column(columns, near, others, wanted="")
    wanted = reading.label_column
    chosen = _named_column(columns, wanted) if wanted else _label_column(columns, by.column)
    values = [None if more else value for value, more in zip_longest(chosen.values, longer)]
    labels, notes = _assigned(name, by, values)
    if rows := tuple(value for value, more in zip(by.values, longer, strict=False) if more):
        notes = notes.and_those(Notes(unused=(Unused("label", f"{name} has {LONGER}", rows),)))
    come = f"labels come from {name}: column {chosen.named}, images by {by.column!r}"
    said = _remarks(columns, chosen, name, is_split=len({*splits.values()}) > 1)
    return TableLabels(labels, Notes((come, *said, *_twice(columns, name))).and_those(notes))


def _remarks(
    columns: Mapping[str, Sequence[Any]], chosen: _LabelColumn, table: str, *, is_split: bool
) -> Iterator[str]:
    if chosen.others:
        yield f"--label-column takes {few(chosen.others)} of {table} instead"
    if of_split := [c for c in columns if is_split_column(c) and repr(c) != chosen.named]:
        how = "folders name the splits" if is_split else UNSPLIT
        yield f"column {of_split[0]!r} of {table} is not used: {how}"


def _refuse_columns(columns: Mapping[str, Sequence[Any]], reading: Reading) -> None:
    if [*columns][:4] == OUR_COLUMNS:
        raise UnfitTableError(OURS)
    for wanted in filter(None, (reading.image_column, reading.label_column)):
        if wanted not in columns:
            raise UnfitTableError(f"it has no column {wanted!r}")


def _named_column(columns: Mapping[str, Sequence[Any]], wanted: str) -> _LabelColumn:
    values = _typed(columns[wanted])
    if fraction := fraction_among(values):
        raise UnfitTableError(f"its column {wanted!r} holds {FRACTIONS} {fraction}")
    return _LabelColumn(repr(wanted), values)


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


class _ByFile(NamedTuple):
    column: str
    values: list[str]  # as they stand there, a row each
    images: list[Found | None]
    elsewhere: frozenset[str]  # the values that name images which the table is not about
    as_header: bool  # whether what stands for a header is a row


def _file_column(
    columns: Mapping[str, Sequence[Any]],
    images: Sequence[Found],
    others: Sequence[Found],
    *,
    wanted: str,
) -> _ByFile:
    """The column that names images, and the image of each row."""
    if not images:
        raise UnfitTableError("there are no images that it could describe")
    order = [wanted] if wanted else sorted(columns, key=lambda name: _place(name, FILE_COLUMNS))
    most = min(MOST_PARTS, max(len(image.parts) for of in (images, others) for image in of))
    for ending in (True, False):
        index, of_others = (_index(of, most, ending=ending) for of in (images, others))
        for parts in range(most, 0, -1):
            for column in order:
                values = ["" if value is None else str(value) for value in columns[column]]
                found, elsewhere = [], set[str]()
                for value in values:
                    keys = [_key(value, n, ending=ending) for n in range(most, parts - 1, -1)]
                    first = next((key for key in keys if key in index or key in of_others), "")
                    found.append(index.get(first))
                    elsewhere |= {value} if first and first not in index else set()
                rows, named = sum(map(bool, values)), {f.path for f in found if f is not None}
                if 2 * len(named) >= max(1, min(rows, len(images))):
                    keys = [_key(column, n, ending=ending) for n in range(most, parts - 1, -1)]
                    row = any(map(index.get, keys)) and _is_said(column, columns)
                    return _ByFile(column, values, found, frozenset(elsewhere), row)
    which = f"column {wanted!r} does not name" if wanted else "no column names"
    raise UnfitTableError(f"{which} the images")


def _is_said(column: str, columns: Iterable[str]) -> bool:
    """Whether the name of a column stands in the file, and is none that is known."""
    own = [*columns] != [str(n) for n, _ in enumerate(columns, 1)]
    return own and _place(column, FILE_COLUMNS) == len(FILE_COLUMNS)


def _index(images: Iterable[Found], most: int, *, ending: bool) -> dict[str, Found | None]:
    """Images by the end of their path, of one part to the most; None where several are alike."""
    index: dict[str, Found | None] = {}
    for image in images:
        path = "/".join(image.parts)
        for key in {_key(path, count, ending=ending) for count in range(1, most + 1)}:
            index[key] = None if key in index else image
    index.pop("", None)
    return index


def _key(path: str, parts: int, *, ending: bool) -> str:
    """The last parts of a path, or all where it has fewer; without the ending 007 is 7."""
    split = [
        part
        for part in composed(path).strip().replace("\\", "/").split("/")
        if part not in ("", ".")
    ]
    if split and not ending:
        stem, suffix = os.path.splitext(split[-1])
        split[-1] = stem if suffix.lower() in SUFFIXES else split[-1]
        split[-1] = split[-1].lstrip("0") or "0" if split[-1].isdigit() else split[-1]
    return "/".join(split[-parts:])


class _LabelColumn(NamedTuple):
    named: str  # as messages show it
    values: Values
    others: tuple[str, ...] = ()  # that are called as labels are


def _label_column(columns: Mapping[str, Sequence[Any]], file: str) -> _LabelColumn:
    """The column of labels."""
    # pandas writes a column of row numbers without a name.
    others = [
        name
        for name in columns
        if name not in (file, "") and "Unnamed:" not in name and not is_split_column(name)
    ]
    known = sorted(filter(_is_label, others), key=_label_rank)
    if not known and (hot := _one_hot({name: columns[name] for name in others})):
        return _LabelColumn(few(others), hot)
    if not known and all(map(str.isdecimal, columns)):  # without a header: path, class, ...
        known = [name for name in others if int(name) == int(file) + 1]
    if not known and len(others) != 1:
        which = f"it is unclear which of its columns ({few(others)}) holds them: use --label-column"
        raise UnfitTableError(which if others else "no other column")
    for column in known or others:
        values = _typed(columns[column])
        if fraction := fraction_among(values):
            reason = f"its column {column!r} holds {FRACTIONS} {fraction}"
            continue
        said = [value for value in values if value is not None]
        different = len(set(said))
        # Captions and measures differ in nearly all rows; so may the labels of a few images.
        repeated = len(said) >= 2 * different
        if said and (repeated or (known and different <= FEW_CLASSES)):
            rest = (name for name in known if name != column and _is_label(name))
            return _LabelColumn(repr(column), values, tuple(rest))
        reason = f"its column {column!r} holds {different:,} values in {len(said):,} rows"
    raise UnfitTableError(reason)


def _label_rank(name: str) -> tuple[bool, int]:
    """Sorts columns that are named like labels: nested ones last."""
    return "." in name, _place(name.rpartition(".")[2], LABEL_HEADERS)


def _is_label(name: str) -> bool:
    return _label_rank(name)[1] < len(LABEL_HEADERS)


def _place(name: str, known: Sequence[str]) -> int:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return known.index(plain) if plain in known else len(known)


def _one_hot(columns: Mapping[str, Sequence[Any]]) -> Values | None:
    """The name of the column that is 1 in each row; None where they are not `one_hot`."""
    typed = [[HOT.get(str(v).lower(), v) for v in _typed(values)] for values in columns.values()]
    if len(typed) < 2 or any(isinstance(value, str) for values in typed for value in values):
        return None
    rows = np.array(typed).T
    names = [*columns]
    places = one_hot(rows)
    return places and [None if place is None else names[int(place)] for place in places]


def _typed(values: Sequence[Any]) -> Values:
    return labels_of_texts([_text_of(value) for value in values])


def _text_of(value: Any) -> str | None:
    """A value as text, a list of one as its value; what is no single value has none."""
    if isinstance(value, list) and len(value) == 1:
        return _text_of(value[0])
    if value is None or isinstance(value, (dict, list, bytes)):
        return None
    boxed = BOXED.fullmatch(text := str(value).strip())
    return boxed[1] if boxed else text


def _assigned(name: str, by: _ByFile, values: Values) -> TableLabels:
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
    if gone := tuple(value for value in lost if value not in by.elsewhere):
        unused.append(Unused("label", f"{name} names images that are not there", gone))
    kept = {path: label for path, label in labels.items() if path not in several}
    if not kept:
        raise UnfitTableError(
            "several labels for each image" if several else "no labels in its rows"
        )
    return TableLabels(kept, Notes(unused=tuple(unused)))
