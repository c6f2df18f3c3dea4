"""Which column of a table names images, and which one holds their labels.

In: columns by their names, and images. Out: the column whose values fit the paths of the images,
with the image of each row; and the column with a name for labels, the only other one, or several
one-hot columns, each 1 for its class and 0 elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stopgrad.images.sources.endings import EXTRAS, SUFFIXES
from stopgrad.images.sources.files import Found
from stopgrad.images.sources.labels import (
    Label,
    composed,
    fraction_among,
    labels_of_texts,
    one_hot,
    words_for_none,
)
from stopgrad.images.sources.names import LABEL_WORDS, is_place, is_split_column
from stopgrad.images.sources.table_files import UnfitTableError
from stopgrad.storage import few

LabelValues = Sequence[Label]

# Names of columns, ignoring case and anything but letters and digits; the best first.
FILE_COLUMNS = (
    *("filename", "file", "filepath", "filepaths", "path", "imagepath", "imgpath", "image"),
    *("imagename", "imgname", "imagefile", "imageid", "imgid", "img", "imageindex", "idcode"),
    *("id", "fname", "name", "images", "isicid", "key", "url"),
)
LOOSE = ("id", "name", "key")  # names of files, or of anything else
LABEL_HEADERS = (
    *(*LABEL_WORDS, "classname", "classlabel", "classid", "categoryname", "categoryid"),
    *("labelname", "labelid", "breed", "findinglabels", "dx", "y", "tag", "tags", "type"),
)
MOST_PARTS = 3  # of a path that are compared, from its end
FEW_CLASSES = 100
ALIKE = "names that several files have: write their paths"
FRACTIONS = "numbers with fractions, such as"
HOT = {"true": 1, "false": 0, "none": 0}  # other values of one-hot columns, in lower case
# A class with the box of each of its objects, as in Kaggle's ILSVRC: n01440764 10 20 30 40.
BOXED = re.compile(r"(\S+)(?: \d+){4}(?: \1(?: \d+){4})*")


class FileColumn(NamedTuple):
    """The column that names images."""

    name: str
    values: list[str]  # as written, one per row
    images: list[Found | None]
    elsewhere: frozenset[str]  # the values that name images which the table is not about
    alike: frozenset[str]  # the values that name several images
    as_header: bool = False  # whether the first line, read as a header, is a row

    @property
    def named(self) -> int:
        """How many images it names."""
        return len({image.path for image in self.images if image is not None})


def file_column(
    columns: Mapping[str, Sequence[Any]],
    images: Sequence[Found],
    others: Sequence[Found],
    *,
    wanted: str,
) -> FileColumn:
    """The column that names images, and the image of each row.

    A column with a name for files wins if none of its values names several. Of the others, the one
    that names the most images wins, and a column of pandas' row numbers comes last.
    """
    if not images:
        raise UnfitTableError("there are no images for it to describe")
    order = [wanted] if wanted else sorted(columns, key=_file_rank)
    most = min(MOST_PARTS, max(len(image.parts) for of in (images, others) for image in of))
    several = ""
    for ending in (True, False):
        index, of_others = (_index(of, most, ending=ending) for of in (images, others))
        for parts in range(most, 0, -1):
            counts, fit = range(most, parts - 1, -1), list[FileColumn]()
            for column in order:
                by = _matched(column, columns, counts, ending, index, of_others)
                rows = sum(map(bool, by.values))
                if 2 * by.named >= max(1, min(rows, len(images))):
                    if wanted or (_is_of_files(column) and not by.alike):
                        return by
                    fit.append(by)
                elif 2 * len(by.alike) >= max(1, rows) and not _is_named_label(column):
                    several = several or column
            if fit:
                fit = [by for by in fit if not _is_row_number(by.name)] or fit
                return max(fit, key=lambda by: by.named)  # the first of equal ones
    which = f"column {wanted!r} does not name" if wanted else "no column names"
    raise UnfitTableError(
        f"its column {several!r} holds {ALIKE}" if several else f"{which} the images"
    )


def _file_rank(column: str) -> tuple[bool, int]:
    """Sort key of a column that may name images: row numbers as pandas writes them come last."""
    return _is_row_number(column), _place(column, FILE_COLUMNS)


def _is_of_files(column: str) -> bool:
    """Whether a column has a name for files, other than id, name or key."""
    return _place(column, FILE_COLUMNS) < len(FILE_COLUMNS) and column.lower() not in LOOSE


def _is_row_number(column: str) -> bool:
    """Whether the name is that of pandas' column of row numbers, which has none."""
    return not column or "Unnamed:" in column


def _matched(
    column: str,
    columns: Mapping[str, Sequence[Any]],
    counts: range,
    ending: bool,
    index: Mapping[str, Found | None],
    others: Mapping[str, Found | None],
) -> FileColumn:
    """The images of a column, by the first of the keys of each value that is known."""
    values = ["" if value is None else str(value) for value in columns[column]]
    keys = (_keys(value, counts, ending=ending) for value in values)
    firsts = [next((key for key in of if key in index or key in others), "") for of in keys]
    both = [*zip(values, firsts, strict=True)]
    header = any(map(index.get, _keys(column, counts, ending=ending)))
    return FileColumn(
        column,
        values,
        [index.get(first) for first in firsts],
        frozenset(value for value, first in both if first and first not in index),
        frozenset(value for value, first in both if first in index and index[first] is None),
        as_header=header and _is_said(column, columns),
    )


def _is_said(column: str, columns: Iterable[str]) -> bool:
    """Whether the file itself names the column, by a name that is not in `FILE_COLUMNS`."""
    own = [*columns] != [str(n) for n, _ in enumerate(columns, 1)]
    return own and _place(column, FILE_COLUMNS) == len(FILE_COLUMNS)


def _index(images: Iterable[Found], most: int, *, ending: bool) -> dict[str, Found | None]:
    """Images by the last one to `most` parts of their path; None where several share them."""
    index: dict[str, Found | None] = {}
    for image in images:
        path = "/".join(image.parts)
        for key in {*_keys(path, range(1, most + 1), ending=ending)}:
            index[key] = None if key in index else image
    return index


def _keys(path: str, counts: Iterable[int], *, ending: bool) -> list[str]:
    """The last parts of a path, or all where it has fewer, by counts of them.

    Without its ending, a number also gets a key without leading zeros: 007 has the keys 007 and 7/.
    The slash keeps that key apart from those of paths.
    """
    split = [
        part
        for part in composed(path).strip().replace("\\", "/").split("/")
        if part not in ("", ".")
    ]
    if not split:
        return []
    folders, last = split[:-1], split[-1]
    if not ending:
        stem, suffix = os.path.splitext(last)
        last = stem if suffix.lower() in (*SUFFIXES, *EXTRAS) else last
    forms = [last] if ending or not last.isdigit() else [last, f"{last.lstrip('0') or '0'}/"]
    return ["/".join([*folders, form][-count:]) for count in counts for form in forms]


class ClassColumn(NamedTuple):
    """The column that holds the labels, or the columns that do together."""

    named: str  # as messages show it
    values: LabelValues
    others: tuple[str, ...] = ()  # that have a name for labels too
    none: tuple[str, ...] = ()  # the words in it that say there is no label


def named_column(columns: Mapping[str, Sequence[Any]], wanted: str) -> ClassColumn:
    """The column that the user names; an `UnfitTableError` if it holds no labels."""
    values = _typed(columns[wanted])
    if fraction := fraction_among(values):
        raise UnfitTableError(f"its column {wanted!r} holds {FRACTIONS} {fraction}")
    return ClassColumn(repr(wanted), values, none=_none_in(columns[wanted]))


def label_column(columns: Mapping[str, Sequence[Any]], file: str) -> ClassColumn:
    """The column of labels."""
    others = [
        name
        for name in columns
        if name != file and not _is_row_number(name) and not is_split_column(name)
    ]
    named = (name for name in others if _is_named_label(name) and not is_place(name, others))
    known = sorted(named, key=_label_rank)
    if not known and (hot := _one_hot({name: columns[name] for name in others})):
        return ClassColumn(few(others), hot)
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
            rest = (name for name in known if name != column and _is_named_label(name))
            return ClassColumn(repr(column), values, tuple(rest), _none_in(columns[column]))
        reason = f"its column {column!r} holds {different:,} different values in {len(said):,} rows"
    raise UnfitTableError(reason)


def _label_rank(name: str) -> tuple[bool, int]:
    """Sort key of a column that is named like labels: nested ones come last."""
    return "." in name, _place(name.rpartition(".")[2], LABEL_HEADERS)


def _is_named_label(name: str) -> bool:
    return _label_rank(name)[1] < len(LABEL_HEADERS)


def _place(name: str, known: Sequence[str]) -> int:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return known.index(plain) if plain in known else len(known)


def _one_hot(columns: Mapping[str, Sequence[Any]]) -> LabelValues | None:
    """The name of the column that is 1 in each row; None if they are not `one_hot`."""
    typed = [[HOT.get(str(v).lower(), v) for v in _typed(values)] for values in columns.values()]
    if len(typed) < 2 or any(isinstance(value, str) for values in typed for value in values):
        return None
    rows = np.array(typed).T
    names = [*columns]
    places = one_hot(rows)
    return places and [None if place is None else names[int(place)] for place in places]


def _typed(values: Sequence[Any]) -> LabelValues:
    return labels_of_texts([_text_of(value) for value in values])


def _none_in(values: Sequence[Any]) -> tuple[str, ...]:
    return words_for_none(map(_text_of, values))


def _text_of(value: Any) -> str | None:
    """A value, or the only one of a list, as text; None for anything but a single value."""
    if isinstance(value, list) and len(value) == 1:
        return _text_of(value[0])
    if value is None or isinstance(value, (dict, list, bytes)):
        return None
    boxed = BOXED.fullmatch(text := str(value).strip())
    return boxed[1] if boxed else text
