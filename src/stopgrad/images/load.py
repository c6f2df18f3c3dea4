"""A spec such as `cifar10`, `hf:OWNER/NAME` or a path -> a `Dataset`, from the cache if it can.

A packed store is taken as it is: nothing of it is decoded, cached or held in memory.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Literal

import numpy as np

from stopgrad.config import BadImages
from stopgrad.errors import ConfigError, DataError, did_you_mean
from stopgrad.images.cache import (
    DamagedEntryError,
    Entry,
    EntryWriter,
    cache_folder,
    entry_folder,
    read_entry,
)
from stopgrad.images.damage import in_words, refusal
from stopgrad.images.gather import Gathered, Order, gather
from stopgrad.images.source import Contents, Source
from stopgrad.images.store import is_store, read_store, store_source
from stopgrad.images.types import Dataset, Images, Pixels, Track, no_progress

ON_THE_HUB = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
KNOWN = ("mnist5k", *ON_THE_HUB)

Changed = Literal["fail", "tell"]

log = logging.getLogger(__name__)


def load_dataset(
    spec: str,
    *,
    side: int | None = None,
    bad_images: BadImages = "fail",
    changed: Changed = "fail",
    track: Track = no_progress,
) -> Dataset:
    """Load a data set by name or path.

    Args:
        spec: `mnist5k`, `cifar10`, `cifar100`, `hf:OWNER/NAME`, `hf:OWNER/NAME/CONFIG`, or the
            path of a packed store, of a folder of Parquet files or of pictures. A known name wins
            over a folder of the same name; `./cifar10` is the folder.
        side: px. Pictures that all have one size, at most `side`, keep it; all others are
            resized by their short side and cropped at the centre to side x side. Those of a
            store stay as they were packed; this is the side at which they are looked at whole.
        bad_images: What damaged pictures do: fail, or skip (left out, named in a warning and in
            `left_out`; more than 5 % of them fail even so). A store has left them out already.
        changed: What a store does whose folder has changed since it was packed: fail, or tell.
        track: Shows progress.

    Raises:
        DataError: For what is missing or unfit, in one line.
        DamagedImagesError: For damaged pictures; it holds the list of all of them.
        ConfigError: For a side below 1.
    """
    if side is not None and side < 1:
        raise ConfigError(f"side {side}", expected="at least 1 px", hint="use for example 32")
    source = find_source(spec)
    if source.store is not None:
        return _load_store(source, source.store, side=side, changed=changed)
    entry = _load(source, Order(side, track))
    dataset = Dataset(source.name, entry.train, entry.test, entry.left_out)
    if error := refusal(entry.left_out, count=dataset.pictures, bad_images=bad_images):
        raise error
    if entry.left_out:
        words = in_words(entry.left_out)
        log.warning("%s: left out %d damaged: %s", source.name, len(entry.left_out), words)
    return dataset


def _load_store(source: Source, path: Path, *, side: int | None, changed: Changed) -> Dataset:
    from stopgrad.images.store_verify import changes_since_packing

    if (error := changes_since_packing(path)) is not None:
        if changed == "fail":
            raise error
        log.warning("%s; going on with the store as it is", error.found)
    entry = read_store(path, side=side)
    return Dataset(source.name, entry.train, entry.test, entry.left_out)


def find_source(spec: str) -> Source:
    """The data set behind a spec, found but not read.

    Raises:
        DataError: For an unknown name (with the nearest known one) or a missing path.
    """
    if spec == "mnist5k":
        from stopgrad.images.embedded import mnist5k

        return mnist5k()
    if spec in ON_THE_HUB or spec.startswith("hf:"):
        from stopgrad.images.hub import hub_source

        return hub_source(spec, repository=ON_THE_HUB.get(spec, spec.removeprefix("hf:")))
    path = os.path.expanduser(spec)
    if not os.path.exists(path):  # unlike Path.exists, it knows no error for odd text
        raise _unknown(spec)
    return _local(Path(path).resolve())


def _local(path: Path) -> Source:
    from stopgrad.images.folder import folder_source
    from stopgrad.images.parquet import is_parquet, parquet_source

    if is_store(path):
        return store_source(path)
    return parquet_source(path) if is_parquet(path) else folder_source(path)


def _unknown(spec: str) -> DataError:
    if os.sep in spec or re.match(r"[.~]|[A-Za-z]:\\", spec):
        return DataError(
            f"no folder {spec[:200]!r}",
            expected="the path of a folder of pictures or of Parquet files, or of a store",
            hint="check the path",
        )
    return DataError(
        f"unknown data set {spec[:80]!r}{did_you_mean(spec.lower(), KNOWN)}",
        expected=f"{', '.join(KNOWN)}, hf:OWNER/NAME or the path of a folder",
        hint="check the name or the path",
    )


def _load(source: Source, order: Order) -> Entry:
    folder = entry_folder(source, side=order.side)
    try:
        entry = read_entry(folder)
    except DamagedEntryError as error:
        log.warning("the cached images in %s are damaged (%s); decoding them anew", folder, error)
        entry = None
    return entry or decode_all(source, source.open(), order)


def decode_all(source: Source, contents: Contents, order: Order) -> Entry:
    """Decode every picture, and put the result into the cache in place of what is there.

    The pictures of a store are decoded already.

    Raises:
        DataError: When no picture of a split can be read, and for pictures of several sizes
            without a side.
    """
    if source.store is not None:
        return read_store(source.store, side=order.side)
    folder = entry_folder(source, side=order.side)
    try:
        with EntryWriter(folder) as writer:
            writer.commit(gather(contents, order, sink=writer.sink))
        entry = read_entry(folder)
    except (OSError, DamagedEntryError) as error:
        log.warning("cannot cache the decoded images in %s (%s); going on without", folder, error)
        entry = None
    return entry or _decode_to_memory(contents, order)


class MemorySink:
    """Pictures in one array, which is as large as needed from the start."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.filled = 0
        self.pixels: Pixels | None = None

    def add(self, picture: Pixels) -> None:
        """Append one picture (H, W, 3)."""
        if self.pixels is None:
            self.pixels = _allocate((self.count, *picture.shape))
        self.pixels[self.filled] = picture
        self.filled += 1


def _allocate(shape: tuple[int, ...]) -> Pixels:
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: more than addresses can count
        raise DataError(
            f"no memory for {shape[0]:,} pictures of {shape[2]} x {shape[1]} px",
            expected="memory for all pixels, or room on the disk of the cache",
            hint=f"make room in {cache_folder()}, set STOPGRAD_CACHE or use smaller pictures",
        ) from error


def _decode_to_memory(contents: Contents, order: Order) -> Entry:
    sinks: dict[str, MemorySink] = {}

    def sink(split: str, count: int) -> MemorySink:
        sinks[split] = MemorySink(count)
        return sinks[split]

    splits = gather(contents, order, sink=sink)
    test = _images(sinks["test"], splits.test) if splits.test else None
    return Entry(_images(sinks["train"], splits.train), test, splits.left_out)


def _images(sink: MemorySink, split: Gathered) -> Images:
    assert sink.pixels is not None
    pixels = sink.pixels[: sink.filled]
    return Images(pixels, split.labels, split.class_names, split.fingerprint, split.sources)
