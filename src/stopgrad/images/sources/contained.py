"""Files that hold many images, or a folder of such files -> a `DataSource`."""

from __future__ import annotations

import os
from pathlib import Path

from stopgrad.errors import DataError
from stopgrad.images.sources.array_files import has_arrays
from stopgrad.images.sources.array_splits import array_files_below, arrays_source
from stopgrad.images.sources.folder import SUFFIXES
from stopgrad.images.types import DataSource

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")


def contained_source(path: Path, *, split: str = "") -> DataSource | None:
    """The data set in a file, or in files of a folder; None for all else.

    A folder with an image file in it or below it stays a folder of images.

    Args:
        path: A file or a folder.
        split: The split that is scored, as the data call it; "": the first with labels.

    Raises:
        DataError: When a file cannot be read, or is a pickle.
    """
    if not path.is_dir():
        _refuse_pickles([path])
        return arrays_source(path, split=split) if has_arrays(path.name) else None
    if _has_images(path):
        return None
    if files := array_files_below(path):
        return arrays_source(path, files=files, split=split)
    _refuse_pickles(sorted(path.iterdir()))
    return None


def _has_images(folder: Path) -> bool:
    return any(
        os.path.splitext(name)[1].lower() in SUFFIXES
        for _, _, files in os.walk(folder)
        for name in files
        if name[0] != "."
    )


def _refuse_pickles(files: list[Path]) -> None:
    """Refuses Python's own format, which CIFAR's authors chose, too.

    Raises:
        DataError: With the formats to use instead.
    """
    for file in files:
        if file.suffix.lower() in PICKLES or (not file.suffix and _begins_like_pickle(file)):
            raise DataError(
                f"{str(file)!r} holds Python objects (pickle), which could run code",
                expected="arrays in .npz or .npy, image files, or CIFAR's binary version",
                hint="save images and labels with np.savez, or download the binary version",
            )


def _begins_like_pickle(path: Path) -> bool:
    """By its protocol, 2 to 5; older ones are text."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            begin = file.read(2)
    except OSError:
        return False
    return len(begin) == 2 and begin[0] == 0x80 and 2 <= begin[1] <= 5
