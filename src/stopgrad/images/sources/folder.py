"""A folder of image files -> a `DataSource`.

Which files count: those with the suffix of an image (`SUFFIXES`, in any case). Hidden files and
folders, `__MACOSX` and files of other kinds are passed over; links are followed, but not in loops.
A name with such a suffix that is no readable file counts as a damaged image; so does a folder of
such a name, unless it holds images.

Splits: `train/` and beside it `test/` (else `validation/`, `valid/`, `val/`); without `train/` all
images are for training. A `train/` of loose images beside folders that are no splits is a class
like them, except beside `unlabeled/`. Other folders beside `train/` are not read; a warning names
them and says how to learn from one of them, which is a folder of images by itself.

Labels: the names of the folders, if the training images all lie in folders one level down, in at
least two of them, and these hold at least 2 images each on average, at least 5 when there are more
than 100 folders. Anything else, flat or nested, has no labels: 150,000 folders of one image each
are no classes.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from stopgrad.errors import DataError
from stopgrad.images.sources.arrays import RawLabels, number_labels
from stopgrad.images.types import (
    Contents,
    DataSource,
    Encoded,
    FileStamp,
    Labels,
    SplitReader,
    stamp,
)

SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".gif", ".bmp", ".webp"}
    | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".dcm"}
)
TEST_NAMES = ("test", "validation", "valid", "val")
UNLABELED = ("unlabeled", "unlabelled")
FEW_CLASSES = 100

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """An image file: the parts of its path below the split's folder, and the whole path."""

    parts: tuple[str, ...]
    path: str  # text, not a Path: making Paths of 60,000 files takes half a second


class Splits(NamedTuple):
    """The images of each split, in order of their path."""

    train: tuple[Found, ...]
    test: tuple[Found, ...]


def folder_source(root: Path) -> DataSource:
    """The images in a folder.

    Raises:
        DataError: When it is not a folder, holds no images, or has no train split.
    """
    if not root.is_dir():
        raise DataError(
            f"{str(root)!r} is not a folder",
            expected="a folder of images or of Parquet files",
            hint="name the folder that holds the images",
        )
    splits = _find_splits(root)
    if not splits.train:
        raise DataError(
            f"no images to train on in {str(root)!r}",
            expected="files that end in .png, .jpg, .webp or the like, in the folder or in train/",
            hint="name the folder that holds the images, or the one that holds train/",
        )
    return DataSource(_text(root.name), str(root), _stamps(splits), lambda: _open(splits))


def _stamps(splits: Splits) -> tuple[FileStamp, ...]:
    return tuple(
        stamp(found.path, name="/".join((split, *found.parts)))
        for split, images in splits._asdict().items()
        for found in images
    )


def _find_splits(root: Path) -> Splits:
    with _reading(str(root)), os.scandir(root) as entries:
        below = sorted((f for f in entries if _is_folder(f)), key=lambda folder: folder.name)
    folders = {_text(f.name).casefold(): Path(f.path) for f in below}
    test = next((folders[name] for name in TEST_NAMES if name in folders), None)
    if "train" not in folders:
        images = find_images(root)
        only_tests = all(found.parts[0].casefold() in TEST_NAMES for found in images)
        return Splits(() if only_tests else images, ())
    train = find_images(folders.pop("train"))
    others = {
        name: folder
        for name, folder in folders.items()
        if folder != test and name[0] not in "._" and _holds_images(folder)
    }
    flat = all(len(found.parts) == 1 for found in train)
    if flat and test is None and others.keys() - set(UNLABELED):
        return Splits(find_images(root), ())
    _warn_of(others, root, test)
    return Splits(train, find_images(test) if test else ())


def _holds_images(folder: Path) -> bool:
    """Whether a file in or below the folder has the suffix of an image."""
    return any(_has_suffix(name) for _, _, files in os.walk(folder) for name in files)


def _warn_of(others: dict[str, Path], root: Path, test: Path | None) -> None:
    """Names the folders that are not read, and the command that learns from one of them."""
    if not others:
        return
    read = "train/ is" if test is None else f"train/ and {_text(test.name)}/ are"
    first = next((name for name in UNLABELED if name in others), min(others))
    log.warning(
        "%s: %s read, not %s; to learn from %s/: stopgrad pretrain --data %s, and embed, compare "
        "and finetune (with --out) its run with --data %s",
        *(root, read, ", ".join(sorted(others)), first),
        *(quote(str(others[first])), quote(str(root))),
    )


def find_images(folder: Path) -> tuple[Found, ...]:
    """All image files below a folder, in order of their path by code point.

    Raises:
        DataError: For a folder that may not be read.
    """
    found: list[Found] = []
    folders_with_suffix: list[Found] = []
    pending = [_Folder(str(folder), (), frozenset())]
    while pending:
        here = pending.pop()
        with _reading(here.path), os.scandir(here.path) as entries:
            for entry in entries:
                if _is_passed_over(entry):
                    continue
                if below := _folder_below(entry, here):
                    pending.append(below)
                if _has_suffix(entry.name):
                    files = folders_with_suffix if below else found
                    files.append(Found((*here.parts, _text(entry.name)), entry.path))
    found += _without_images(folders_with_suffix, found)
    return tuple(sorted(found, key=lambda image: image.parts))


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"folder {path!r} cannot be read ({error.strerror})",
            expected="folders that may be read",
            hint="correct its permissions or move it away",
        ) from error


def _without_images(folders: list[Found], images: list[Found]) -> list[Found]:
    """Those folders below which no image lies."""
    if not folders:
        return []
    above = {found.parts[:depth] for found in images for depth in range(1, len(found.parts))}
    return [folder for folder in folders if folder.parts not in above]


class _Folder(NamedTuple):
    path: str
    parts: tuple[str, ...]
    above: frozenset[tuple[int, int]]  # (device, inode) of the folders on the way here


def _is_passed_over(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".") or entry.name == "__MACOSX"


def _has_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _folder_below(entry: os.DirEntry[str], here: _Folder) -> _Folder | None:
    """The entry as a folder to go into; None for a file, and for one of the folders above."""
    if not _is_folder(entry):
        return None
    state = entry.stat()
    identity = (state.st_dev, state.st_ino)
    if identity in here.above:
        return None
    return _Folder(entry.path, (*here.parts, _text(entry.name)), here.above | {identity})


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links is not a folder; decoding will name it
        return False


def _text(name: str) -> str:
    """A file name as text in any locale; bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _open(splits: Splits) -> Contents:
    train, test = _folder_names(splits)
    labels = number_labels(train, test)
    return Contents(
        labels.class_names,
        _reader(splits.train, labels.train),
        _reader(splits.test, labels.test) if splits.test else None,
        labels.notes,
    )


def _folder_names(splits: Splits) -> tuple[RawLabels | None, RawLabels | None]:
    """The class of each image (N,), by split, if the folders are classes."""
    if not are_classes([found.parts for found in splits.train]):
        log.info("no labels: the folders are not one level of classes")
        return None, None
    test = _classes("test", splits.test) if splits.test else None
    return _classes("train", splits.train), test


def _classes(split: str, images: tuple[Found, ...]) -> RawLabels:
    """The folder of each image; none for those that lie elsewhere than one level down."""
    values = [found.parts[0] if len(found.parts) == 2 else None for found in images]
    return RawLabels(split, values, lambda row: "/".join(images[row].parts))


def are_classes(paths: list[tuple[str, ...]]) -> bool:
    """Whether images with these paths lie in class folders, by the rule of this module."""
    folders = len({parts[0] for parts in paths})
    each = 2 if folders <= FEW_CLASSES else 5
    one_level = all(len(parts) == 2 for parts in paths)
    return one_level and folders >= 2 and len(paths) >= each * folders


def _reader(images: tuple[Found, ...], labels: Labels | None) -> SplitReader:
    return SplitReader(len(images), labels, functools.partial(_items, images))


def _items(images: tuple[Found, ...]) -> Iterator[Encoded]:
    for found in images:
        yield Encoded("/".join(found.parts), Path(found.path))
