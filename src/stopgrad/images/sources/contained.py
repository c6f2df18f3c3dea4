"""Files that hold many images, a folder or a pattern of such files -> a `DataSource`."""

from __future__ import annotations

import functools
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from stopgrad.errors import DataError
from stopgrad.images.sources.archives import archive_ending, archive_source, refuse_other_archives
from stopgrad.images.sources.array_files import has_arrays
from stopgrad.images.sources.array_splits import array_files_below, arrays_source
from stopgrad.images.sources.folder import SUFFIXES
from stopgrad.images.sources.parquet import is_parquet
from stopgrad.images.sources.saved import arrow_source
from stopgrad.images.sources.webdataset import is_shard, webdataset_source
from stopgrad.images.types import DataSource

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
DEPTH = 2  # folders, that named included, in which archives are looked for
NESTED = 2  # archives in archives are opened so deep
MOST_SHARDS = 100_000  # that a pattern names

Find = Callable[[Path], DataSource]


def contained_source(
    path: Path, *, split: str = "", inside: Callable[..., DataSource], depth: int = 0
) -> DataSource | None:
    """The data set in a file, or in files of a folder; None for all else.

    A folder with an image file in it or below it stays a folder of images, and one of Parquet files
    stays that.

    Args:
        path: A file or a folder.
        split: The split that is scored, as the data call it; "": the first with labels.
        inside: Called as `inside(folder, split, depth)`: the data set in an unpacked folder.
        depth: How many archives were opened on the way here.

    Raises:
        DataError: When a file cannot be read, or is a pickle.
    """
    if path.is_dir() and (_has_images(path) or is_parquet(path)):
        return None
    find = functools.partial(inside, split=split, depth=depth + 1)
    if not path.is_dir():
        return _in_file(path, split, find)
    if (source := arrow_source(path, split=split)) is not None:
        return source
    if files := array_files_below(path):
        return arrays_source(path, files=files, split=split)
    if archives := _archives_below(path) if depth < NESTED else []:
        return _in_archives(path, archives, split, find)
    _refuse_pickles(sorted(path.iterdir()))
    return None


def _in_file(path: Path, split: str, find: Find) -> DataSource | None:
    if path.suffix.lower() == ".arrow":
        return arrow_source(path)
    if has_arrays(path.name):
        return arrays_source(path, split=split)
    if ending := archive_ending(path.name):
        if ending.startswith((".tar", ".t")) and is_shard(path):
            return webdataset_source({path.name: path}, name=path.stem, root=str(path), split=split)
        return archive_source({"": path}, root=path, split=split, find=find)
    refuse_other_archives(path)
    _refuse_pickles([path])
    return None


def _in_archives(path: Path, archives: list[Path], split: str, find: Find) -> DataSource:
    """Numbered tars are shards, and so are those that begin as shards do; others are folders."""
    tars = [file for file in archives if ".t" in archive_ending(file.name)]
    if tars == archives and (_are_numbered(tars) or is_shard(tars[0])):
        files = {file.relative_to(path).as_posix(): file for file in tars}
        return webdataset_source(files, name=path.name, root=str(path), split=split)
    names = [file.relative_to(path).as_posix() for file in archives]
    folders = (name[: -len(archive_ending(name))] for name in names)
    return archive_source(
        dict(zip(folders, archives, strict=True)), root=path, split=split, find=find
    )


def _are_numbered(files: list[Path]) -> bool:
    """Whether files are the parts of something, counted from 0 or 1: no more than half are missing.

    The tars of ImageNet's classes, n01440764.tar, are not.
    """
    numbers = [re.search(r"(\d+)(-of-\d+)?\.t", file.name) for file in files]
    return all(number is not None and int(number[1]) <= 2 * len(files) for number in numbers)


def _archives_below(folder: Path) -> list[Path]:
    found = (file for depth in range(DEPTH) for file in folder.glob("*/" * depth + "[!.]*"))
    return sorted(file for file in found if archive_ending(file.name) and not file.is_dir())


def shards_of_pattern(pattern: str, *, split: str = "") -> DataSource | None:
    """The shards that a pattern such as `train-{000..099}.tar` or `*.tar` names; None: it is none.

    Raises:
        DataError: When one of them is not there.
    """
    if not archive_ending(pattern) or not re.search(r"[{*?\[]", pattern):
        return None
    named = [*itertools.islice(_expanded(os.path.expanduser(pattern)), MOST_SHARDS)]
    found = [file for name in named for file in sorted(glob.glob(name)) or [name]]
    missing = [name for name in found if not os.path.isfile(name)]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(found):,} files of {pattern!r} are not there"
            f" ({missing[0]!r}, ...)",
            expected="shards that are all there",
            hint="correct the numbers, or download the others",
        )
    paths = [Path(name).resolve() for name in found]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    files = {path.relative_to(root).as_posix(): path for path in paths}
    where = os.path.abspath(os.path.expanduser(pattern))
    return webdataset_source(files, name=root.name, root=where, split=split)


def _expanded(pattern: str) -> Iterator[str]:
    """Names as a shell makes them of `{000..099}` and `{a,b}`."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", pattern)
    if not match:
        yield pattern
        return
    begin, end = pattern[: match.start()], pattern[match.end() :]
    if match[3] is not None:
        choices = iter(match[3].split(","))
    else:
        width = len(match[1])
        choices = (f"{n:0{width}}" for n in range(int(match[1]), int(match[2]) + 1))
    for choice in choices:
        yield from _expanded(begin + choice + end)


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
