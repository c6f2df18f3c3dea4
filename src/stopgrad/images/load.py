"""A spec such as `cifar10`, `hf:OWNER/NAME` or a path -> a `Dataset`, from the cache if possible.

A store packed by the user is used unchanged. Everything else is decoded once and kept as a store
under $STOPGRAD_CACHE, made in a temporary folder and renamed, so that it is there whole or not at
all. The name of its folder is a key of everything that decides a pixel. Opening it compares sizes,
the small files, and a checksum of at most `MOST_CHECKED` bytes of each split. Each new store evicts
the least recently used ones, until all together hold at most `MOST_KEPT` bytes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import numpy as np

from stopgrad.config import BY_RULE, BadImages, Reading
from stopgrad.errors import ConfigError, DataError, StorageError, UnreadableError
from stopgrad.images.decoding import DECODER, Decoded, Frame
from stopgrad.images.formats import readable_now
from stopgrad.images.gather import (
    NamedResult,
    Tally,
    all_damaged,
    decoded,
    in_one_frame,
    name_damaged,
    notes_of,
    refusal,
    refuse_unreadable,
)
from stopgrad.images.manifest import damage, read_manifest
from stopgrad.images.opening import Damaged
from stopgrad.images.packages import would_help
from stopgrad.images.pixels import Pixels
from stopgrad.images.sources.find import find_source
from stopgrad.images.store import cache_folder, checksum, read_images, read_store, read_summaries
from stopgrad.images.types import Contents, Dataset, DataSource, Images, Notes, Track, no_progress
from stopgrad.images.unread import unread_notes
from stopgrad.images.writing import Target, store_key, take_over, write_store
from stopgrad.storage import read_patiently, some, sync_directory

STALE = 24 * 3600  # s after which the temporary folder of a killed process is removed
MOST_KEPT = 20 * (1 << 30)  # bytes of all stores together; the newest one stays even if larger
MOST_UNUSED = 0.03  # of all images may stay unused without a warning

Changed = Literal["fail", "warn"]

log = logging.getLogger(__name__)


def load_dataset(
    spec: str | DataSource,
    *,
    side: int | None = None,
    reading: Reading = BY_RULE,
    bad_images: BadImages = "fail",
    changed: Changed = "fail",
    track: Track = no_progress,
) -> Dataset:
    """Load a data set by name or path.

    Args:
        spec: `mnist5k`, `cifar10`, `cifar100`, `hf:OWNER/NAME`, `hf:OWNER/NAME/CONFIG`, or the
            path of a packed store, of a folder of Parquet files or of images. A known name wins
            over a folder of the same name; `./cifar10` is the folder. Or a source itself.
        side: px. Images that all have one size, at most `side`, keep it; all others are
            resized by their short side and cropped at the centre to side x side. Images of a
            store stay as they were packed; this is the side at which they are seen whole.
        reading: The split that is scored, by rule the test split if its images have labels, else
            the first split that has; and the columns that hold images and labels.
        bad_images: What damaged images do: fail, or skip (left out, named in a warning and in
            `damaged`; above 5 % loading still fails). A store has already left them out.
        changed: What to do about a store whose folder has changed since it was packed.
        track: Shows progress.

    Raises:
        DataError: For what is missing or unfit, in one line.
        DamagedImagesError: For damaged images; it holds the list of all of them.
        UnreadableError: For files that cannot be read, which says nothing about their images.
        ConfigError: For a side below 1, and for a split that is not there.
    """
    if side is not None and side < 1:
        raise ConfigError(f"side {side}", expected="at least 1 px", hint="use for example 32")
    dataset, packed = read_patiently(
        Path(spec.root if isinstance(spec, DataSource) else spec),
        lambda: _load(spec, side=side, reading=reading, changed=changed, track=track),
    )
    if packed:
        return dataset
    damaged = dataset.damaged
    count = len(dataset.train) + len(dataset.test or ()) + len(damaged)
    if error := refusal(damaged, count=count, bad_images=bad_images):
        raise error
    if damaged:
        named = name_damaged(damaged)
        log.warning("%s: left out %d damaged: %s", dataset.name, len(damaged), named)
    return dataset


def _load(
    spec: str | DataSource, *, side: int | None, reading: Reading, changed: Changed, track: Track
) -> tuple[Dataset, bool]:
    """The images, and whether they come from a store that the user has packed."""
    source = spec if isinstance(spec, DataSource) else find_source(spec, reading=reading)
    source = source.read_by(reading)
    if source.store is not None:
        if reading.bands not in ((), source.notes.bands) or reading.white_level:
            log.warning(
                "%s: a store keeps the bands and white level it was packed with", source.name
            )
        return _load_store(source.store, side=side, changed=changed), True
    if not source.stamps:  # in memory, where nothing distinguishes it from other images
        return decode_again(source, source.open(), side=side, track=track), False
    folder = cached_store(source, side=side)
    if (dataset := _opened(folder, source.notes)) is not None:
        return dataset, False
    shared = _shared(spec, source, side) if isinstance(spec, str) and reading.split else None
    return decode_again(source, source.open(), side=side, track=track, shared=shared), False


def _load_store(path: Path, *, side: int | None, changed: Changed) -> Dataset:
    from stopgrad.images.packing import changes_since_packing

    if (error := changes_since_packing(path)) is not None:
        if changed == "fail":
            raise error
        log.warning("%s; using the store as it is", error.found)
    return read_store(path, side=side)


def _opened(folder: Path, notes: Notes) -> Dataset | None:
    """The images of a cached store; None when there is no usable one."""
    if os.path.exists(folder):  # unlike Path.exists, it never raises
        try:
            dataset = _open(folder, notes)
            left_out = any(would_help(group.reason) for group in dataset.notes.unused)
            if not left_out and not any(readable_now(image.reason) for image in dataset.damaged):
                return dataset
        except (DataError, UnreadableError) as error:
            log.warning("the cached images cannot be used (%s); decoding them again", error.found)
    return None


def _shared(spec: str, source: DataSource, side: int | None) -> Path:
    """The cached store of the data read by rule, whose training images are the same."""
    by_rule = find_source(spec, reading=source.reading._replace(split=""))
    return cached_store(by_rule, side=side)


def cached_store(source: DataSource, *, side: int | None) -> Path:
    """Where the store of this source belongs, whether or not it is there."""
    key = f"{store_key(source, side=side)} {DECODER}"
    return cache_folder() / "images" / hashlib.sha256(key.encode()).hexdigest()[:32]


def decode_again(
    source: DataSource,
    contents: Contents,
    *,
    side: int | None,
    track: Track,
    shared: Path | None = None,
) -> Dataset:
    """Decode every image, and replace the cached result for files; a store is only read.

    Args:
        source: The data set.
        contents: Its splits.
        side: px.
        track: Shows progress.
        shared: A cached store of the same training images, which are then not decoded again.

    Raises:
        DataError: When no image of a split can be read, and for images of several sizes without
            a side.
    """
    if source.store is not None:
        return read_store(source.store, side=side)
    if not source.stamps:
        return _load_uncached(source, contents, side=side, track=track)
    folder = cached_store(source, side=side)

    def write(frame: Frame) -> None:
        target = Target(temporary, frame, track, for_user=False)
        if shared is not None:
            take_over(shared, target)
        write_store(target, source, contents, side=side, refuse=refuse_unreadable)

    try:
        with _new_folder(folder) as temporary:
            in_one_frame(contents, write, side=side, reading=source.reading, track=track)
            _replace(temporary, folder)
        prune(folder.parent, newest=folder)
    except UnreadableError:
        raise
    except (OSError, StorageError) as error:
        reason = error.found if isinstance(error, StorageError) else str(error)
    else:
        try:
            return _open(folder, source.notes)
        except (DataError, UnreadableError) as error:  # another process may have removed it since
            reason = error.found
    log.warning("cannot cache the decoded images in %s (%s); going on without", folder, reason)
    return _load_uncached(source, contents, side=side, track=track)


def _load_uncached(
    source: DataSource, contents: Contents, *, side: int | None, track: Track
) -> Dataset:
    dataset = _decode_to_memory(source, contents, side=side, track=track)
    return dataset._replace(notes=source.notes.and_those(contents.notes, dataset.notes))


def _open(folder: Path, notes: Notes) -> Dataset:
    """The images of a cached store, with the notes taken from file names.

    Raises:
        DataError: When any part is not what was written.
    """
    with damage(folder, "its folder"):
        manifest = read_manifest(folder)
        dataset = read_images(folder, manifest)
        summaries = read_summaries(folder, manifest)
        for split, stored in manifest.splits.items():
            with damage(folder, f"pixels of {split}"):
                if checksum(folder, stored) != summaries[split].crc32:
                    raise ValueError("they are not what was written")
    with suppress(OSError):
        os.utime(folder)  # marks it as used: pruning starts with the least recent
    return dataset._replace(notes=notes.and_those(dataset.notes))


@contextmanager
def _new_folder(beside: Path) -> Iterator[Path]:
    """A temporary folder, removed at the end unless it was renamed."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(beside.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=beside.parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(new: Path, folder: Path) -> None:
    """Rename a new store into place, over a damaged one or one just made by another process."""
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
    """Hide a store from other processes, then remove it; those that mapped it keep its pixels."""
    old = Path(tempfile.mkdtemp(prefix=".old-", dir=folder.parent))
    folder.rename(old / "store")
    shutil.rmtree(old, ignore_errors=True)


def prune(parent: Path, *, newest: Path) -> None:
    """Remove the least recently used stores while all together exceed `MOST_KEPT` bytes."""
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


def _decode_to_memory(
    source: DataSource, contents: Contents, *, side: int | None, track: Track
) -> Dataset:
    def decode(frame: Frame) -> Dataset:
        pixels: dict[Tally, Pixels] = {}
        for split, reader in contents.readers.items():
            tally = Tally(split, reader, contents.class_names)
            attempts = decoded(reader, frame, shown_as=f"decoding {split}", track=track)
            pixels[tally] = _collect(attempts, tally, frame)
        refuse_unreadable([*pixels])
        splits = {tally.split: tally.images(array) for tally, array in pixels.items()}
        notes = notes_of(frame, source.reading).and_those(unread_notes(pixels))
        return Dataset(source.name, splits["train"], splits.get("test"), all_damaged(pixels), notes)

    return in_one_frame(contents, decode, side=side, reading=source.reading, track=track)


def _collect(
    attempts: Iterator[NamedResult[Decoded | Damaged]], tally: Tally, frame: Frame
) -> Pixels:
    array = _allocate((tally.reader.length, frame.height, frame.width, frame.channels))
    for attempt in attempts:
        if (pixels := tally.add(attempt)) is not None:
            array[len(tally.names) - 1] = pixels
    return array[: len(tally.names)]


def _allocate(shape: tuple[int, ...]) -> Pixels:
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: beyond the address space
        raise DataError(
            f"no memory for {shape[0]:,} images of {shape[2]} x {shape[1]} px",
            expected="memory for all pixels, or room on the disk of the cache",
            hint=f"make room in {cache_folder()}, set STOPGRAD_CACHE or use smaller images",
        ) from error


def how_it_was_read(dataset: Dataset) -> str:
    """How the data were read, in one clause, so that no folder becomes a class unnoticed."""
    train, test = dataset.train, dataset.test
    height, width = train.pixels.shape[1:3]
    counts = f"{len(train):,} images to train on"
    if test is not None:
        counts += f", {len(test):,} to test on"
    bands = "" if train.channels == 3 else f" of {train.channels} bands"
    return f"read {dataset.name}: {counts}, {width} x {height} px{bands}; {_labels(train)}"


def what_to_know(dataset: Dataset) -> list[str]:
    """Lines about a data set that was read: how it was understood, and what is not used."""
    lines = [how_it_was_read(dataset), *dataset.notes.remarks]
    for what, reason, names in dataset.notes.unused:
        noun = what if len(names) == 1 else f"{what}s"
        lines.append(f"not used: {len(names):,} {noun} ({some(names)}): {reason}")
    return lines


def warn_of_unused(dataset: Dataset) -> None:
    """Warns when more than `MOST_UNUSED` of the images found are not used."""
    unused = dataset.notes.count("image")
    used = len(dataset.train) + len(dataset.test or ()) + len(dataset.damaged)
    if unused > MOST_UNUSED * (used + unused):
        log.warning(
            "%s: %s of %s images are not used: see the lines above",
            *(dataset.name, f"{unused:,}", f"{used + unused:,}"),
        )


def _labels(train: Images) -> str:
    if train.labels is None:
        folders = {name.rpartition("/")[0] for name in train.sources}
        nested = len(folders) > 1
        return f"no labels ({len(folders):,} folders are not classes)" if nested else "no labels"
    return (
        f"{len(train.class_names):,} classes ({some(train.class_names)}), used only to measure: "
        "pretraining sees no label"
    )
