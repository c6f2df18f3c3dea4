"""An item of a sequence that a caller holds -> its image and its label.

An item is an image, a pair of one and its label, or a row: a dict by the names of its columns. The
image of a row stands in a column of the usual names, or in the only one that holds an image, its
label in a column that is called as labels are; columns that the user names come first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from stopgrad.config import BY_RULE, Reading
from stopgrad.errors import DataError
from stopgrad.images.sources.endings import names_image
from stopgrad.images.sources.find import plain
from stopgrad.images.sources.names import called_as_labels
from stopgrad.storage import few

IMAGE_NAMES = ("image", "img", "bytes", "path")  # columns of a row of the Hub's library
SHOWN = 5  # values of an item whose types an error names


def image_and_label(item: Any, reading: Reading) -> tuple[Any, Any]:
    """An item as its image, not decoded, and its label; None where it has none."""
    if isinstance(item, tuple) or _is_pair(item):
        return (plain(item[0]), _label_in(item)) if item else (None, None)
    if isinstance(item, Mapping):
        return _image_of_row(item, reading), _label_of_row(item, reading)
    if isinstance(item, list):
        with contextlib.suppress(ValueError):  # of lists of several lengths
            return np.asarray(item), None
    return plain(item), None


def with_image_column(first: Any, reading: Reading) -> Reading:
    """A reading that names the column of the images, where rows have none of the usual names.

    Args:
        first: Of all items.
        reading: What the user has named.

    Raises:
        DataError: Where it is unclear which value of an item is the image.
    """
    if isinstance(first, tuple | list):
        _refuse_other_order(first)
    if not isinstance(first, Mapping) or reading.image_column:
        return reading
    if not first or any(first.get(name) is not None for name in IMAGE_NAMES):
        return reading
    found = [name for name in first if _is_image(first[name])]
    found = found or [name for name in first if _names_file(first[name])]  # which is not there
    if len(found) == 1:
        return reading._replace(image_column=found[0])
    if not first.keys().isdisjoint(IMAGE_NAMES):
        return reading
    raise _unclear([*map(str, first)], [*map(str, found)])


def refuse_unknown(columns: Collection[str], reading: Reading) -> None:
    """Refuses columns that the user names and no row has.

    Raises:
        DataError: With the columns of the rows.
    """
    for flag in ("image_column", "label_column"):
        if columns and (name := getattr(reading, flag)) and name not in columns:
            raise DataError(
                f"no column {name!r}",
                expected=f"one of the columns {', '.join(map(str, columns))[:200]}",
                hint=f"correct {flag}",
            )


def label_names(columns: Iterable[Any]) -> list[str]:
    """The columns with a name for labels, the best first."""
    return called_as_labels(tuple(map(str, columns)))


def _image_of_row(row: Mapping[str, Any], reading: Reading) -> Any:
    if reading.image_column != "":  # 0 is a name in a dict
        image = row.get(reading.image_column)
    else:
        image = next((row[name] for name in IMAGE_NAMES if row.get(name) is not None), row)
    return row if image is row else image_and_label(image, BY_RULE)[0]


def _label_of_row(row: Mapping[str, Any], reading: Reading) -> Any:
    if wanted := reading.label_column:
        return row.get(wanted)
    names = (name for name in label_names(row) if name != reading.image_column)
    return next((row[name] for name in names), None)


def _is_pair(item: Any) -> bool:
    """Whether a list is an image and its label, and not one image, channel by channel."""
    if not isinstance(item, list) or not item:
        return False
    first, second = (plain(each) for each in (item[0], item[1] if len(item) > 1 else None))
    if isinstance(first, np.ndarray):
        stacked = first.ndim == 2 and getattr(second, "shape", None) == first.shape
        return first.ndim in (2, 3) and not stacked
    return isinstance(first, str | os.PathLike | bytes) or hasattr(first, "getexif")


def _label_in(item: tuple[Any, ...] | list[Any]) -> Any:
    """The second value; None in a longer item, such as (view, view, index), if it is an image."""
    label = plain(item[1]) if len(item) > 1 else None
    is_view = hasattr(label, "getexif") or getattr(label, "ndim", 0) > 1
    return None if len(item) > 2 and is_view else label


def _is_image(value: Any) -> bool:
    """Whether a value can be nothing but an image, or the file of one."""
    value = plain(value)
    if isinstance(value, np.ndarray):
        return value.ndim in (2, 3) and value.dtype.kind in "buif"
    if isinstance(value, Mapping):  # of the Hub's library, not decoded
        return any(value.get(name) is not None for name in ("bytes", "path"))
    if isinstance(value, str | os.PathLike):
        return (_names_file(value) or not isinstance(value, str)) and os.path.isfile(value)
    return isinstance(value, bytes) or hasattr(value, "getexif")


def _names_file(value: Any) -> bool:
    return isinstance(value, str) and names_image(value)


def _refuse_other_order(item: tuple[Any, ...] | list[Any]) -> None:
    """Refuses an item whose image does not stand first."""
    first = item[0] if item else None
    if isinstance(first, list) or _names_file(first) or _is_image(first):
        return
    none = isinstance(item, tuple) and isinstance(first, int | float | Mapping)
    if none or any(map(_is_image, item[1:])):
        kinds = ", ".join(type(each).__name__ for each in item[:SHOWN])
        raise DataError(
            f"items of {kinds}",
            expected="an image first, and its label second",
            hint="swap them, or make them rows such as {'image': ..., 'label': ...}",
        )


def _unclear(columns: list[str], found: list[str]) -> DataError:
    if found:
        return DataError(
            f"{len(found)} columns that may hold the images ({few(found)})",
            expected="one column of images",
            hint="name it with image_column",
        )
    return DataError(
        f"no image in the columns {few(columns)}",
        expected="a Pillow image, an array (H, W, 3), bytes or the path of a file in one of them",
        hint="name the column of the images with image_column",
    )
