"""The one home of decoded pixels: a folder on disk <-> a `Dataset` whose pixels stay there.

    STORE/stopgrad-store.json    the manifest; sealed, written last: without it there is no store
          stopgrad-summary.json  checksum and normalization of each split; older stores have none
          stopgrad-notes.json    notes on the data, such as what is not used; only if there are any
          pictures.parquet       split, name and label of each image; why a damaged one is left out
          files.parquet          path, size and date of each file that was packed
          train-00000.pixels     n x H x W x C bytes, then train-00001.pixels, ...; test-...

`packing` makes stores for the user. `load` makes its own, with pictures.json in place of the
Parquet files, so that opening one imports NumPy alone. Opening compares sizes and the small files;
`verify_store` reads every byte. The digest of a shard is the sha256 of all pixels of its split up
to its end, so that one pass gives it and the fingerprint, which equals that of the same images
decoded without a store.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import logging
import math
import os
import stat
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stopgrad.images.manifest import (
    MANIFEST,
    Shard,
    StoredSplit,
    StoreManifest,
    damage,
    read_manifest,
    read_sealed,
    write_sealed,
)
from stopgrad.images.pixels import Packed, PixelFile, map_file
from stopgrad.images.sources.limits import refuse_bomb
from stopgrad.images.sources.pages import groups_of, unpacked_bytes
from stopgrad.images.types import (
    Contents,
    DamagedImage,
    Dataset,
    DataSource,
    Encoded,
    Images,
    Normalization,
    Notes,
    Rows,
    SplitReader,
    stamp,
)
from stopgrad.storage import (
    is_there,
    open_regular,
    read_file,
    read_patiently,
    strict_json,
    typed,
    user_path,
)

SUMMARY = "stopgrad-summary.json"
NOTES = "stopgrad-notes.json"
PICTURES, PICTURES_JSON, FILES = "pictures.parquet", "pictures.json", "files.parquet"
PACKING = "stopgrad-packing.json"  # what an unfinished store will be
LARGEST_TABLE = 1 << 32  # bytes
BLOCK = 1 << 20  # bytes
MOST_CHECKED = 1 << 30  # bytes of a split that its checksum covers

log = logging.getLogger(__name__)


class ImageTable(NamedTuple):
    """The columns of pictures.parquet, in the order of the images."""

    split: list[str]
    name: list[str]
    label: list[int | None]
    reason: list[str | None]  # why the image is left out


class SplitSummary(NamedTuple):
    """Facts about a split that take reading its pixels."""

    fingerprint: str
    crc32: int  # of the blocks that `checksum` takes
    mean: tuple[float, ...]  # as in `Normalization`
    std: tuple[float, ...]

    @property
    def normalization(self) -> Normalization:
        """Mean and std as tuples; the file holds lists."""
        return Normalization(tuple(self.mean), tuple(self.std))


def cache_folder() -> Path:
    """$STOPGRAD_CACHE, else $XDG_CACHE_HOME/stopgrad, else ~/.cache/stopgrad.

    Without a home directory it is a path that cannot be written, not a folder named `~`.
    """
    shared = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = user_path(os.environ.get("STOPGRAD_CACHE") or f"{shared}/stopgrad")
    return folder if not str(folder).startswith("~") else Path(os.devnull, "stopgrad")


def is_store(path: Path) -> bool:
    """Whether a folder is a packed store, finished or not, whole or damaged."""
    return (path / MANIFEST).exists() or (path / PACKING).exists()


def store_source(path: Path) -> DataSource:
    """A store as a data set whose images can be read one by one."""
    manifest = read_manifest(path)
    now = (stamp(path / MANIFEST, name=MANIFEST),)  # the manifest seals all else
    return DataSource(
        manifest.name, str(path), now, lambda: _contents(read_store(path)), store=path
    )


def dataset_source(dataset: Dataset) -> DataSource:
    """Images in memory as a data set whose images can be read one by one."""
    contents = functools.partial(_contents, dataset)
    return DataSource(dataset.name, "", (), contents, notes=dataset.notes)


def read_store(path: Path, *, side: int | None = None) -> Dataset:
    """The images of a store, still on disk; whole ones are seen at `side`, px, if given.

    Raises:
        DataError: When it is unfinished, or a file of it is missing, cut or changed, as far as
            sizes and the sha256 of the small files tell.
    """
    manifest = read_manifest(path)
    if side is not None and manifest.side < side:
        log.warning(
            "the images of %s were packed with --side %d, this run asks for %d px: views may be "
            "enlarged",
            *(path, manifest.side, side),
        )
    return read_images(path, manifest, whole_side=side or 0)


def read_images(path: Path, manifest: StoreManifest, *, whole_side: int = 0) -> Dataset:
    """The data set of a manifest, checked by sizes and the sha256 of the small files.

    Raises:
        DataError: When a file is missing, cut or changed.
    """
    table, summaries = read_table(path, manifest), read_summaries(path, manifest)
    splits = {
        split: replace(
            read_split(path, manifest, split, table),
            whole_side=whole_side,
            known=summaries[split].normalization if summaries else None,
        )
        for split in manifest.splits
    }
    damaged = tuple(
        DamagedImage(split, name, reason)
        for split, name, _, reason in zip(*table, strict=True)
        if reason is not None
    )
    notes = read_notes(path)
    return Dataset(manifest.name, splits["train"], splits.get("test"), damaged, notes)


def read_table(path: Path, manifest: StoreManifest) -> ImageTable:
    """The images that were packed, and those that were left out.

    Raises:
        DataError: When it is missing or changed.
    """
    name = PICTURES_JSON if PICTURES_JSON in manifest.tables else PICTURES
    columns = read_columns(path, manifest, name)
    with damage(path, name):
        table = typed(ImageTable, columns)
        kept = Counter(
            of for of, reason in zip(table.split, table.reason, strict=True) if not reason
        )
        counts = {name: split.pictures for name, split in manifest.splits.items()}
        if (
            kept != counts
            or len(table.name) != len(table.label)
            or len(table.name) != len(table.split)
        ):
            raise ValueError(f"it lists other images than {MANIFEST}")
        for split, stored in manifest.splits.items():
            _check_labels(table, split, len(stored.class_names))
        return table


def _check_labels(table: ImageTable, split: str, classes: int) -> None:
    """Raises a ValueError for a label that is not a class."""
    rows = zip(table.split, table.label, table.reason, strict=True)
    labels = [label for of, label, reason in rows if of == split and reason is None]
    if classes and not all(label is not None and -1 <= label < classes for label in labels):
        raise ValueError(f"labels that are none of {classes} classes")


def read_columns(path: Path, manifest: StoreManifest, name: str) -> dict[str, list[Any]]:
    """A table of a store, which must match the manifest.

    Raises:
        DataError: When it is missing or changed.
    """
    with damage(path, name):
        data = read_file(path / name, most=LARGEST_TABLE)
        if hashlib.sha256(data).hexdigest() != manifest.tables[name]:
            raise ValueError("it is not what was written")
        columns: dict[str, list[Any]] = (
            strict_json(data) if name == PICTURES_JSON else _from_parquet(data)
        )
        return columns


def _from_parquet(data: bytes) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = io.BytesIO(data)
    unpacked = sum(unpacked_bytes(raw, group) for group in groups_of(raw))
    refuse_bomb(unpacked, len(data), where="its pages")
    # In this thread: an Arrow thread that still holds our bytes when the process ends aborts it.
    table = pq.read_table(pa.BufferReader(data), use_threads=False, pre_buffer=False)
    return table.to_pydict()


def read_summaries(path: Path, manifest: StoreManifest) -> dict[str, SplitSummary]:
    """The summaries of all splits; {} for a store that was packed before there were any.

    Raises:
        DataError: When they are changed, or of other images.
    """
    if not is_there(path / SUMMARY):
        return {}
    with damage(path, SUMMARY):
        values = read_sealed(path / SUMMARY)
        summaries = {name: typed(SplitSummary, split) for name, split in values.items()}
        marks = {split: stored.fingerprint for split, stored in manifest.splits.items()}
        if {split: summary.fingerprint for split, summary in summaries.items()} != marks:
            raise ValueError("it is of other images")
        return summaries


def write_summaries(path: Path, summaries: dict[str, SplitSummary]) -> None:
    """Saves what need not be computed again when the store is opened."""
    values = {split: summary._asdict() for split, summary in summaries.items()}
    write_sealed(path / SUMMARY, values)


def read_notes(path: Path) -> Notes:
    """The notes taken when the data were decoded.

    Raises:
        DataError: When it is changed.
    """
    if not is_there(path / NOTES):
        return Notes()
    with damage(path, NOTES):
        return Notes.from_json(read_sealed(path / NOTES))


def write_notes(path: Path, notes: Notes) -> None:
    """Saves notes, if there are any."""
    if notes != Notes():
        write_sealed(path / NOTES, notes._asdict())


def read_split(path: Path, manifest: StoreManifest, split: str, table: ImageTable) -> Images:
    """One split, its file sizes checked: a single file is mapped now, several when read.

    Raises:
        DataError: When a size is wrong.
    """
    stored = manifest.splits[split]
    rows = zip(table.split, table.reason, strict=True)
    kept = [of == split and reason is None for of, reason in rows]
    shape = (manifest.height, manifest.width, manifest.channels)
    files = [_pixel_file(path, shard, shape) for shard in stored.shards]
    pixels: Rows = Packed(files)
    if len(files) == 1:
        alone = files[0].path
        map_it = functools.partial(map_file, alone, files[0].shape, writable=True)
        with damage(path, alone.name):
            pixels = read_patiently(alone, map_it).pixels
    with damage(path, MANIFEST):
        return Images(
            pixels=pixels,
            labels=np.array(list(itertools.compress(table.label, kept)), np.int64)
            if stored.class_names
            else None,
            class_names=stored.class_names,
            fingerprint=stored.fingerprint,
            sources=tuple(itertools.compress(table.name, kept)),
        )


def _pixel_file(path: Path, shard: Shard, shape: tuple[int, ...]) -> PixelFile:
    """A shard with images of this shape, its size checked; it is not opened yet."""
    file, shape = path / shard.file, (shard.pictures, *shape)
    with damage(path, shard.file):
        state, expected = read_patiently(file, file.lstat), math.prod(shape)
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("not a regular file")
        if state.st_size != expected:
            raise ValueError(f"{state.st_size:,} bytes, {expected:,} were written")
    return PixelFile(file, shape, state.st_mtime_ns)


def checksum(path: Path, stored: StoredSplit) -> int:
    """CRC-32 of the pixels of a split, or of evenly spaced blocks, `MOST_CHECKED` bytes at most.

    Raises:
        OSError: When a shard is not there, or is not a regular file.
        UnreadableError: When it cannot be read.
    """
    files = [path / shard.file for shard in stored.shards]
    sizes = (read_patiently(file, file.lstat).st_size for file in files)
    every = -(-sum(sizes) // MOST_CHECKED)
    crc = 0
    for file in files:
        for block in _blocks(file, every):
            crc = zlib.crc32(block, crc)
    return crc


def _blocks(path: Path, every: int) -> Iterator[bytes]:
    """One in `every` blocks of a file, the first included."""
    with open(read_patiently(path, lambda: open_regular(path)), "rb", buffering=0) as file:
        for start in itertools.count(0, every * BLOCK):
            file.seek(start)
            block = read_patiently(path, lambda: file.read(BLOCK))
            if not block:
                return
            yield block


def _contents(dataset: Dataset) -> Contents:
    test = _reader(dataset.test) if dataset.test else None
    return Contents(dataset.train.class_names, _reader(dataset.train), test)


def _reader(images: Images) -> SplitReader:
    return SplitReader(len(images), images.labels, functools.partial(_items, images))


def _items(images: Images) -> Iterator[Encoded]:
    for row in range(len(images)):
        name = images.sources[row] if images.sources else str(row)
        yield Encoded(name, images.pixels[row], stored=True)
