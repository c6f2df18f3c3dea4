"""The columns of a Parquet file -> the one that holds the labels, and the labels of its rows.

It has a name for labels, or is a ClassLabel in the Hub's metadata; it holds whole numbers, text, or
true and false, however they are stored. A column that the user names wins. Of several candidates
the first by rule is taken; the others, and columns that may be meant as labels, are named.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from shlex import quote
from typing import Any, NamedTuple

import numpy as np

from stopgrad.images.sources.arrow_files import GroupedFile
from stopgrad.images.sources.columns import (
    ImageColumn,
    features_of,
    field_of,
    is_list,
    is_text,
    read_features,
    unfit,
    whole_column,
)
from stopgrad.images.sources.labels import Label, one_hot, said
from stopgrad.images.sources.names import is_place, is_split_column, label_rank
from stopgrad.storage import few

MOST_CLASSES = 1000  # distinct values of a column that may be meant as labels
NAMED = 5  # columns that a line names


class LabelColumn(NamedTuple):
    """The column of the labels, if there is one, and remarks on it."""

    name: str
    remarks: tuple[str, ...] = ()


class KnownLabels(NamedTuple):
    """Facts about the labels of all files, from the first file to learn from."""

    column: str  # "" without labels
    class_names: tuple[str, ...]  # C; () if only the labels name them
    remarks: tuple[str, ...]


def label_column(file: GroupedFile, image: str, wanted: str = "") -> LabelColumn:
    """The column that holds the labels; its name is "" if there is none.

    Args:
        file: A file.
        image: The column that holds the images.
        wanted: Its name; "": by rule.

    Raises:
        DataError: When the wanted one is not there, or cannot hold labels.
    """
    if wanted:
        field_of(file, wanted, "label")
        if reason := _no_labels(file, wanted):
            raise unfit("label", wanted, reason)
        return LabelColumn(wanted)
    features = features_of(file.schema_arrow)
    names = [name for name in file.schema_arrow.names if name != image]
    known = {name: features.get(name, {}).get("_type") == "ClassLabel" for name in names}
    ranks = {
        name: label_rank(name, known=known[name])
        for name in names
        if known[name] or not is_place(name, names)
    }
    found = sorted((rank, name) for name, rank in ranks.items() if rank is not None)
    fit, remarks = [], []
    for _, name in found:
        if reason := _no_labels(file, name):
            remarks.append(f"column {name!r} is not used as labels: it is {reason}")
        else:
            fit.append(name)
    if len(fit) > 1:
        others = f"--label-column takes {few(fit[1:])} instead"
        remarks.append(f"the labels come from column {fit[0]!r}; {others}")
    inside = [path for field in file.schema_arrow if field.name != image for path in _inside(field)]
    if inside := [path for path in inside if label_rank(path.rpartition(".")[2])]:
        how = "make one a top-level column"
        remarks.append(f"labels nested in columns are not read ({few(inside)}): {how}")
    return LabelColumn(fit[0] if fit else "", tuple(remarks))


def _inside(field: Any, folder: str = "") -> Iterator[str]:
    """The fields of structs, or of lists of them, by their path below a column: `objects.class`."""
    import pyarrow.types as kinds

    kind, path = field.type, f"{folder}{field.name}"
    while is_list(kind):
        kind = kind.value_type
    if kinds.is_struct(kind):
        yield from (found for inner in kind for found in _inside(inner, f"{path}."))
    elif folder:
        yield path


def _no_labels(file: GroupedFile, name: str) -> str:
    """Why a column cannot hold labels; "" if it can. Values of numbers and text are not read."""
    import pyarrow.types as kinds

    kind = file.schema_arrow.field(name).type
    if is_text(kind) or kinds.is_integer(kind) or kinds.is_boolean(kind):
        return ""
    try:
        read_labels(file, name)
    except ValueError as error:
        return str(error)
    return ""


def read_labels(file: GroupedFile, name: str) -> list[Label]:
    """The labels of all rows.

    Raises:
        ValueError: When some cannot be labels, such as numbers with fractions.
    """
    column = whole_column(file, name)
    values = column.to_pylist()
    try:
        return _one_hot(values) or _without_missing([_plain(value) for value in values])
    except (TypeError, UnicodeDecodeError):
        raise ValueError(f"of type {column.type}") from None


def _one_hot(values: list[Any]) -> list[Label] | None:
    """The index of the 1 in lists of equal length with at most one each; None for others."""
    lists = [value for value in values if value is not None]
    if not all(isinstance(value, list) for value in lists) or len({*map(len, lists)}) != 1:
        return None
    if not all(isinstance(part, int | float) for value in lists for part in value):
        return None
    places = one_hot(np.array(lists)) if len(lists[0]) > 1 else None
    rest = iter(places or ())
    return [value and next(rest) for value in values] if places else None


def _without_missing(values: list[Label]) -> list[Label]:
    texts = iter(said([value for value in values if isinstance(value, str)]))
    return [next(texts) if isinstance(value, str) else value for value in values]


def _plain(value: Any) -> Label:
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


def class_names(file: GroupedFile, label: str) -> tuple[str, ...]:
    """The C names that the Hub's metadata gives the classes of a column; () where it gives none.

    Raises:
        ValueError: When they are not names.
    """
    try:
        names = read_features(file.schema_arrow).get(label, {}).get("names", [])
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise ValueError("the Hub's metadata, which may name the labels, cannot be read") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"the class names of the labels are not a list of text ({str(names)[:40]})"
        )
    return tuple(names)


def maybe_labels(file: GroupedFile, image: str) -> tuple[str, ...]:
    """A remark on columns with few distinct values, which may be meant as labels."""
    import pyarrow.compute
    import pyarrow.types as kinds

    most, found = min(MOST_CLASSES, file.metadata.num_rows // 2), {}
    for field in file.schema_arrow:
        kind = field.type.value_type if kinds.is_dictionary(field.type) else field.type
        countable = is_text(kind) or kinds.is_integer(kind) or kinds.is_boolean(kind)
        if field.name != image and countable and not is_split_column(field.name):
            values = whole_column(file, field.name)
            if 2 <= (distinct := len(pyarrow.compute.unique(values))) <= most:
                found[field.name] = f"{field.name!r} has {distinct:,} distinct values"
    if not found:
        return ()
    named, flag = ", ".join([*found.values()][:NAMED]), f"--label-column {quote(next(iter(found)))}"
    return (f"no column has the name of a label column; {named}: {flag} uses it",)


def known_labels(file: GroupedFile, image: ImageColumn, wanted: str) -> KnownLabels:
    """Facts about the labels of all files, from this one.

    Raises:
        DataError: As `label_column`.
    """
    import pyarrow.types as kinds

    label, remarks = label_column(file, image.name, wanted), [*image.remarks]
    if file.repeated:
        remarks.append(
            f"columns that share a name are not read ({few(file.repeated)}): rename them"
        )
    names: tuple[str, ...] = ()
    try:
        names = class_names(file, label.name)
    except ValueError as error:
        remarks.append(str(error))
    if not names and label.name:
        is_boolean = kinds.is_boolean(file.schema_arrow.field(label.name).type)
        names = ("False", "True") if is_boolean else ()
    return KnownLabels(label.name, names, (*remarks, *label.remarks))


def labels_of(
    file: GroupedFile, name: str, image: str, known: KnownLabels
) -> tuple[list[Label] | None, tuple[str, ...]]:
    """The labels of all rows, None if the file has none, and a remark on why."""
    column = known.column or label_column(file, image).name
    if not column:
        return None, ()
    rows = file.metadata.num_rows
    without = f"{name} has no labels ({rows:,} row{'s' * (rows != 1)}), as"
    if column not in file.schema_arrow.names:
        other = label_column(file, image).name
        how = f"; its column {other!r} is not read: rename it to {column!r}" if other else ""
        return None, (f"{without} it has no column {column!r}{how}",)
    try:
        labels = read_labels(file, column)
    except ValueError as error:
        return None, (f"{without} column {column!r} is {error}",)
    own: tuple[str, ...] = ()
    with contextlib.suppress(ValueError):
        own = class_names(file, column)
    if known.class_names in ((), own) or not own:
        return labels, ()
    places: dict[Label, str] = dict(enumerate(own))  # each file may number the classes by itself
    return [places.get(label, label) for label in labels], ()
