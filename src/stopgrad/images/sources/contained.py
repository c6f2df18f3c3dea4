"""Files that hold many images, a folder or a pattern of such files -> a `DataSource`.

Each kind has its reader; in a folder of several kinds (image files are one) the most images win.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from stopgrad.config import Reading
from stopgrad.errors import DataError
from stopgrad.images.sources.archives import (
    archive_source,
    images_in_archive,
    refuse_other_archives,
)
from stopgrad.images.sources.array_splits import NAME_LISTS, arrays_source, images_in_arrays
from stopgrad.images.sources.endings import archive_ending, array_kind
from stopgrad.images.sources.files import FolderListing
from stopgrad.images.sources.folder import folder_source
from stopgrad.images.sources.layout import MOST_STRAY
from stopgrad.images.sources.parquet import count_images, is_parquet, looked_at, parquet_source
from stopgrad.images.sources.webdataset import is_shard, webdataset_source
from stopgrad.images.types import DataSource, Notes, Unused

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
ARRAYS_DEPTH, ARCHIVES_DEPTH = 3, 2  # levels of folders that are searched, the named one included
MOST_LOOSE = 100  # with more image files, archives and files of arrays are not looked into
NESTED = 2  # levels of archives in archives that are opened
MOST_SHARDS = 100_000  # that a pattern may name
TABLES = "tables, which are read only beside image files"
TABLES_BESIDE_ARCHIVES = f"{TABLES}: unpack the archive, or put the table into it"

Find = Callable[[Path], DataSource]


def in_folder(
    path: Path, listing: FolderListing, reading: Reading, *, inside: Find, depth: int
) -> DataSource:
    """The data set in a folder: image files, Parquet rows, archives or arrays; notes on the rest.

    Args:
        path: The folder.
        listing: What lies in it.
        reading: The split that is scored, and the columns that are read.
        inside: Finds the data set in an unpacked folder.
        depth: How many archives were opened on the way here.

    Raises:
        DataError: When a file cannot be read, is a pickle, or there are no images to train on.
        ConfigError: For a split that is not there.
    """
    images = ["/".join(image.parts) for image in listing.images]
    rows = count_images(path, reading) if is_parquet(path) else 0
    # If image files are as few as the strays of a split, archives and arrays are the data.
    few, most = not rows and len(images) <= MOST_LOOSE, int(len(images) / MOST_STRAY)
    inner = [*itertools.islice(_images_inside(path), most)] if few else []
    fit = few and len(inner) == most
    if fit and (source := _packed(path, reading, inside=inside, depth=depth)) is not None:
        source = _without(source, "the archives or arrays beside them are the data", images)
        used = {os.path.basename(stamp.path) for stamp in source.stamps} | {*NAME_LISTS}
        why = TABLES if _arrays_below(path) else TABLES_BESIDE_ARCHIVES
        return _with_the_rest(source, listing, lambda name: os.path.basename(name) in used, why)
    if is_parquet(path) and (rows or not images):
        source = parquet_source(path, reading)
        used = {stamp.path for stamp in source.stamps}
        beside = tuple(image for image in images if image not in used)
        # A folder of images stays one, whatever Parquet files lie in it, unless their rows name
        # most of its images; and the other way round.
        if 2 * len(beside) < len(images) or len(beside) <= MOST_STRAY * rows:
            source = _without(source, "the Parquet files beside them are the data", beside)
            return _with_the_rest(source, listing, looked_at)
    there = {os.path.basename(image) for image in images}
    lost = [name for name in inner if os.path.basename(name) not in there]
    why = "in archives or arrays, but image files beside them are the data: name the file itself"
    return _without(folder_source(path, reading, listing=listing), why, lost)


def _without(source: DataSource, reason: str, names: Sequence[str]) -> DataSource:
    """A data set with a note on images that are not used."""
    unused = (Unused("image", reason, tuple(names)),) if names else ()
    return source._replace(notes=source.notes.and_those(Notes(unused=unused)))


def _with_the_rest(
    source: DataSource,
    listing: FolderListing,
    is_used: Callable[[str], bool],
    why_no_tables: str = TABLES,
) -> DataSource:
    """A data set in some files of a folder, with notes on all others that are not images."""
    left = (
        group._replace(names=tuple(name for name in group.names if not is_used(name)))
        for group in listing.unused
    )
    names = ("/".join(table.parts) for table in listing.tables)
    tables = tuple(name for name in names if not is_used(name))
    groups = (*left, Unused("file", why_no_tables, tables))
    notes = Notes(unused=tuple(group for group in groups if group.names))
    return source._replace(notes=source.notes.and_those(notes))


def _packed(path: Path, reading: Reading, *, inside: Find, depth: int) -> DataSource | None:
    """The data set in the files of arrays or the archives of a folder; None without any.

    Raises:
        DataError: When a file cannot be read, or is a pickle.
    """
    if files := _arrays_below(path):
        return arrays_source(path, reading, files=files)
    if archives := _archives_below(path) if depth < NESTED else []:
        return _in_archives(path, archives, reading, inside)
    _refuse_pickles(sorted(path.iterdir()))
    return None


def _images_inside(path: Path) -> Iterator[str]:
    """The names of the images in the archives and files of arrays of a folder that can be read."""
    for file in _arrays_below(path):
        with contextlib.suppress(DataError):
            yield from images_in_arrays(file, name=file.relative_to(path).as_posix())
    for file in _archives_below(path):
        with contextlib.suppress(DataError):
            below = file.relative_to(path).as_posix()
            yield from (f"{below}/{name}" for name in images_in_archive(file))


def in_file(path: Path, reading: Reading, *, inside: Find) -> DataSource:
    """The data set in a file.

    Raises:
        DataError: When it cannot be read, is a pickle, or is of no known kind.
    """
    if is_parquet(path):
        return parquet_source(path, reading)
    if array_kind(path.name):
        return arrays_source(path, reading)
    if ending := archive_ending(path.name):
        if ending.startswith((".tar", ".t")) and is_shard(path, reading):
            return webdataset_source({path.name: path}, reading, name=path.stem, root=str(path))
        source = archive_source({"": path}, root=path, find=inside)
        beside = path.with_name(f"{path.name[: -len(ending)]}.csv")  # as Kaggle has it
        unused = (Unused("file", TABLES_BESIDE_ARCHIVES, (beside.name,)),)
        return source._replace(notes=Notes(unused=unused)) if beside.is_file() else source
    refuse_other_archives(path)
    _refuse_pickles([path])
    return folder_source(path, reading)


def _in_archives(path: Path, archives: list[Path], reading: Reading, find: Find) -> DataSource:
    """Numbered tars and those that begin like shards are read as shards; others as folders."""
    tars = [file for file in archives if ".t" in archive_ending(file.name)]
    if tars == archives and (_are_numbered(tars) or is_shard(tars[0], reading)):
        files = {file.relative_to(path).as_posix(): file for file in tars}
        return webdataset_source(files, reading, name=path.name, root=str(path))
    names = [file.relative_to(path).as_posix() for file in archives]
    folders = (name[: -len(archive_ending(name))] for name in names)
    return archive_source(dict(zip(folders, archives, strict=True)), root=path, find=find)


def _are_numbered(files: list[Path]) -> bool:
    """Whether files are numbered parts, from 0 or 1, of which no more than half are missing.

    The tars of ImageNet's classes, n01440764.tar, are not.
    """
    numbers = [re.search(r"(\d+)(-of-\d+)?\.t", file.name) for file in files]
    return all(number is not None and int(number[1]) <= 2 * len(files) for number in numbers)


def _arrays_below(folder: Path) -> list[Path]:
    """The files of arrays; torchvision keeps packed copies of them beside those of MNIST."""
    found = _files_below(folder, array_kind, depth=ARRAYS_DEPTH)
    there = {*found}
    return [file for file in found if file.suffix != ".gz" or file.with_suffix("") not in there]


def _archives_below(folder: Path) -> list[Path]:
    return _files_below(folder, archive_ending, depth=ARCHIVES_DEPTH)


def _files_below(folder: Path, kind: Callable[[str], str], *, depth: int) -> list[Path]:
    """The files of some kind in a folder and below, in order of their path; no hidden ones."""
    found = (file for above in range(depth) for file in folder.glob("[!.]*/" * above + "[!.]*"))
    return sorted(file for file in found if kind(file.name) and not file.is_dir())


def shards_of_pattern(pattern: str, reading: Reading) -> DataSource | None:
    """The shards named by a pattern such as `train-{000..099}.tar` or `*.tar`; None for other text.

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
            expected="all shards to be there",
            hint="correct the numbers, or download the missing ones",
        )
    paths = [Path(name).resolve() for name in found]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    files = {path.relative_to(root).as_posix(): path for path in paths}
    where = os.path.abspath(os.path.expanduser(pattern))
    return webdataset_source(files, reading, name=root.name, root=where)


def _expanded(pattern: str) -> Iterator[str]:
    """Names as a shell expands `{000..099}` and `{a,b}`."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", pattern)
    if not match:
        yield pattern
        return
    begin, end = pattern[: match.start()], pattern[match.end() :]
    if match[3] is not None:
        choices = iter(match[3].split(","))
    else:
        first, last, width = int(match[1]), int(match[2]), len(match[1])
        step = 1 if first <= last else -1
        choices = (f"{n:0{width}}" for n in range(first, last + step, step))
    for choice in choices:
        yield from _expanded(begin + choice + end)


def _refuse_pickles(files: list[Path]) -> None:
    """Refuses Python's own format, pickle, in which CIFAR is published too.

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
    """Whether a file begins with pickle protocol 2 to 5; older ones are text."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            begin = file.read(2)
    except OSError:
        return False
    return len(begin) == 2 and begin[0] == 0x80 and 2 <= begin[1] <= 5
