"""The stores that decoded data sets are kept in for their next use, under $STOPGRAD_CACHE.

A store is made in a temporary folder and renamed, so that it is there whole or not at all. The name
of its folder is a key of everything that decides a pixel. Opening it compares sizes, the small
files, and a checksum of at most `MOST_CHECKED` bytes of each split. With every new store the
longest unused ones go, until all together hold at most `MOST_KEPT` bytes.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from stopgrad.errors import DataError, StorageError
from stopgrad.images.decoding import Damaged, Frame
from stopgrad.images.gather import (
    NamedResult,
    Tally,
    all_damaged,
    decoded,
    in_one_frame,
    refuse_unreadable,
)
from stopgrad.images.packed import Pixels
from stopgrad.images.store import (
    DamagedStoreError,
    checksum,
    damage,
    read_images,
    read_manifest,
    read_store,
    read_summaries,
)
from stopgrad.images.types import Contents, Dataset, DataSource, Track
from stopgrad.images.writing import (
    Target,
    store_key,
    write_store,
)
from stopgrad.storage import sync_directory

STALE = 24 * 3600  # s after which the temporary folder of a killed process is removed
MOST_KEPT = 20 * (1 << 30)  # bytes of all stores together; the newest one stays even if larger

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """$STOPGRAD_CACHE, else $XDG_CACHE_HOME/stopgrad, else ~/.cache/stopgrad."""
    if own := os.environ.get("STOPGRAD_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "stopgrad"


def cached_store(source: DataSource, *, side: int | None) -> Path:
    """Where the store of this source belongs, whether or not it is there."""
    return cache_folder() / "images" / store_key(source, side=side)[:32]


def load_cached(source: DataSource, *, side: int | None, track: Track) -> Dataset:
    """The images of a source, from the cache if it holds them, else decoded.

    Raises:
        DataError: When no image of a split can be read, and for images of several sizes without
            a side.
    """
    folder = cached_store(source, side=side)
    if os.path.exists(folder):  # unlike Path.exists, it knows no error
        try:
            return _open(folder)
        except DataError as error:
            log.warning("the cached images are damaged (%s); decoding them again", error.found)
    return decode_again(source, source.open(), side=side, track=track)


def decode_again(
    source: DataSource, contents: Contents, *, side: int | None, track: Track
) -> Dataset:
    """Decode every image, and replace what the cache holds of them.

    The images of a store are decoded already.

    Raises:
        DataError: When no image of a split can be read, and for images of several sizes without
            a side.
    """
    if source.store is not None:
        return read_store(source.store, side=side)
    folder = cached_store(source, side=side)

    def write(frame: Frame) -> None:
        target = Target(temporary, frame, track, for_user=False)
        write_store(target, source, contents, side=side, refuse=refuse_unreadable)

    try:
        with _new_folder(folder) as temporary:
            in_one_frame(contents, write, side=side)
            _replace(temporary, folder)
        prune(folder.parent, newest=folder)
        return _open(folder)
    except (OSError, StorageError, DamagedStoreError) as error:
        reason = error.found if isinstance(error, StorageError | DamagedStoreError) else error
        log.warning("cannot cache the decoded images in %s (%s); going on without", folder, reason)
    return _decode_to_memory(source.name, contents, side=side, track=track)


def _open(folder: Path) -> Dataset:
    """The images of a cached store, compared with its checksums.

    Raises:
        DataError: When any part is not what was written.
    """
    manifest = read_manifest(folder)
    dataset = read_images(folder, manifest)
    summaries = read_summaries(folder, manifest)
    for split, stored in manifest.splits.items():
        with damage(folder, f"pixels of {split}"):
            if checksum(folder, stored) != summaries[split].crc32:
                raise ValueError("they are not what was written")
    with suppress(OSError):
        os.utime(folder)  # used: pruning takes the longest unused first
    return dataset


@contextmanager
def _new_folder(beside: Path) -> Iterator[Path]:
    """A temporary folder, which is gone at the end unless it was renamed."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(beside.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=beside.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(new: Path, folder: Path) -> None:
    """Rename a new store into place; a damaged one, or one just made by another process, goes."""
    new.chmod(0o755)
    sync_directory(new)
    if folder.exists():
        _discard(folder)
    try:
        new.rename(folder)
    except OSError:
        if not folder.exists():  # else another process was faster, and its store is as good
            raise
    sync_directory(folder.parent)


def _discard(folder: Path) -> None:
    """Remove a store at once for other processes; those that have it mapped keep its pixels."""
    old = Path(tempfile.mkdtemp(prefix=".old-", dir=folder.parent))
    folder.rename(old / "store")
    shutil.rmtree(old, ignore_errors=True)


def prune(parent: Path, *, newest: Path) -> None:
    """Remove stores, the longest unused first, while all hold more than `MOST_KEPT` bytes."""
    others = [folder for folder in parent.glob("[!.]*") if folder != newest]
    sizes = {folder: _bytes_in(folder) for folder in others}
    excess = sum(sizes.values()) + _bytes_in(newest) - MOST_KEPT
    for folder in sorted(others, key=_last_use):
        if excess <= 0:
            return
        with suppress(OSError):  # another process was faster
            _discard(folder)
        excess -= sizes[folder]


def _bytes_in(folder: Path) -> int:
    with suppress(OSError):
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0


def _last_use(folder: Path) -> float:
    with suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def _remove_stale(parent: Path) -> None:
    for folder in parent.glob(".*-*"):
        if time.time() - _last_use(folder) > STALE:
            shutil.rmtree(folder, ignore_errors=True)


def _decode_to_memory(name: str, contents: Contents, *, side: int | None, track: Track) -> Dataset:
    def decode(frame: Frame) -> Dataset:
        pixels: dict[Tally, Pixels] = {}
        for split, reader in contents.readers.items():
            tally = Tally(split, reader, contents.class_names)
            attempts = decoded(reader, frame, shown_as=f"decoding {split}", track=track)
            pixels[tally] = _collect(attempts, tally, frame)
        refuse_unreadable([*pixels])
        splits = {tally.split: tally.images(array) for tally, array in pixels.items()}
        return Dataset(name, splits["train"], splits.get("test"), all_damaged(pixels))

    return in_one_frame(contents, decode, side=side)


def _collect(
    attempts: Iterator[NamedResult[Pixels | Damaged]], tally: Tally, frame: Frame
) -> Pixels:
    array = _allocate((tally.reader.length, frame.height, frame.width, 3))
    for attempt in attempts:
        if (pixels := tally.add(attempt)) is not None:
            array[len(tally.names) - 1] = pixels
    return array[: len(tally.names)]


def _allocate(shape: tuple[int, ...]) -> Pixels:
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: more than addresses can count
        raise DataError(
            f"no memory for {shape[0]:,} images of {shape[2]} x {shape[1]} px",
            expected="memory for all pixels, or room on the disk of the cache",
            hint=f"make room in {cache_folder()}, set STOPGRAD_CACHE or use smaller images",
        ) from error
