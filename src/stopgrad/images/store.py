"""A packed store on disk -> a `Dataset` whose pixels stay there.

    STORE/stopgrad-store.json   what it holds; sealed, written last: without it there is no store
          pictures.parquet      split, name and label of each picture; the reason of one left out
          files.parquet         path, size and date of each file that was packed
          train-00000.pixels    n x H x W x 3 bytes, then train-00001.pixels, ...; test-...

Opening compares sizes and the small files; `store_verify` reads every byte. The digest of a shard
is the sha256 of all pixels of its split up to its end, so one pass gives it and the fingerprint,
which is that of the same pictures decoded without a store. While a folder that was packed is still
there, it is compared too; without files.parquet a store does not know where it came from.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stopgrad.errors import DataError
from stopgrad.images.cache import Entry
from stopgrad.images.packed import Packed, map_file
from stopgrad.images.source import Contents, Encoded, Reader, Source, stamp
from stopgrad.images.types import Images, LeftOut
from stopgrad.storage import read_file, read_json

MANIFEST, PICTURES, FILES = "stopgrad-store.json", "pictures.parquet", "files.parquet"
PACKING = "stopgrad-packing.json"  # what an unfinished store will be
FORMAT = 1
LARGEST_TABLE = 1 << 32  # bytes of a Parquet file

log = logging.getLogger(__name__)


class Shard(NamedTuple):
    """A file of pixels."""

    file: str
    pictures: int
    sha256: str  # of all pixels of the split up to the end of this shard


class StoredSplit(NamedTuple):
    """What the manifest says of a split."""

    pictures: int
    class_names: tuple[str, ...]
    fingerprint: str
    shards: tuple[Shard, ...]


class Manifest(NamedTuple):
    """What a store holds."""

    name: str  # of the data set
    origin: str  # the folder or file that was packed, "" for a name such as cifar10
    key: str  # of the pictures and settings that were packed
    side: int  # px, as asked for; smaller pictures of one size keep theirs
    height: int  # px
    width: int  # px
    splits: dict[str, StoredSplit]
    tables: dict[str, str]  # sha256 of the Parquet files


class Table(NamedTuple):
    """The rows of pictures.parquet, in the order of the pictures."""

    split: list[str]
    name: list[str]
    label: list[int | None]
    reason: list[str | None]  # why a picture was left out


def is_store(path: Path) -> bool:
    """Whether a folder is a packed store, finished or not, whole or damaged."""
    return (path / MANIFEST).exists() or (path / PACKING).exists()


def store_source(path: Path) -> Source:
    """A store as a data set whose pictures can be looked at one by one.

    Raises:
        DataError: When it is unfinished or damaged.
    """
    manifest = read_manifest(path)
    now = (stamp(path / MANIFEST, name=MANIFEST),)  # the manifest seals all else
    return Source(manifest.name, str(path), now, functools.partial(_open, path), path)


def read_store(path: Path, *, side: int | None = None) -> Entry:
    """The pictures of a store, still on disk.

    Args:
        path: The store.
        side: px, at which whole pictures are looked at; None: as they are.

    Raises:
        DataError: When it is unfinished, a file of it is missing, cut or changed, as far as sizes
            and the sha256 of the small files tell.
    """
    manifest = read_manifest(path)
    if side is not None and manifest.side < side:
        log.warning(
            "the pictures of %s were packed with --side %d, this run would have %d px: views may "
            "be enlarged",
            *(path, manifest.side, side),
        )
    table = read_table(path, manifest)
    splits = {
        split: replace(read_split(path, manifest, split, table), whole_side=side or 0)
        for split in manifest.splits
    }
    left_out = tuple(
        LeftOut(split, name, reason)
        for split, name, _, reason in zip(*table, strict=True)
        if reason is not None
    )
    return Entry(splits["train"], splits.get("test"), left_out)


def read_manifest(path: Path) -> Manifest:
    """What a store holds, by its manifest.

    Raises:
        DataError: When it is unfinished, damaged or of another version.
    """
    if not (path / MANIFEST).exists():
        raise DataError(
            f"{str(path)!r} is a store that is not finished",
            expected=f"a store with its {MANIFEST}, which is written last",
            hint="give the same `stopgrad pack` command again; it goes on where it stopped",
        )
    with damage(path, MANIFEST):
        values = read_json(path / MANIFEST)
        seal = values.pop("seal")
        if seal != _seal(values):
            raise ValueError("its seal does not fit")
        if values.pop("format") != FORMAT:
            raise ValueError("it is of another version of stopgrad")
        splits = {name: _stored_split(split) for name, split in values.pop("splits").items()}
        return Manifest(**values, splits=splits)


def encode_manifest(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON, sealed."""
    splits = {
        name: {**split._asdict(), "shards": [shard._asdict() for shard in split.shards]}
        for name, split in manifest.splits.items()
    }
    values = json.loads(json.dumps({"format": FORMAT, **manifest._asdict(), "splits": splits}))
    return {**values, "seal": _seal(values)}


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _stored_split(values: dict[str, Any]) -> StoredSplit:
    shards = tuple(Shard(**shard) for shard in values["shards"])
    return StoredSplit(
        values["pictures"], tuple(values["class_names"]), values["fingerprint"], shards
    )


@contextlib.contextmanager
def damage(path: Path, name: str) -> Iterator[None]:
    """Whatever goes wrong with a file of a store means that it is damaged."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"the store {str(path)!r} is damaged: {name} ({reason})",
            expected="the files that `stopgrad pack` wrote",
            hint="see what else is wrong with `stopgrad verify`, then copy it or pack it anew",
        ) from error


def read_table(path: Path, manifest: Manifest) -> Table:
    """The pictures that were packed, and those that were left out."""
    columns = read_columns(path, PICTURES, digest=manifest.tables[PICTURES])
    return Table(*(columns[field] for field in Table._fields))


def read_columns(path: Path, name: str, *, digest: str) -> dict[str, list[Any]]:
    """A Parquet file of a store, which must have this sha256.

    Raises:
        DataError: When it is missing or changed.
    """
    import io

    import pyarrow.parquet as pq

    with damage(path, name):
        data = read_file(path / name, most=LARGEST_TABLE)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("it is not what was written")
        columns: dict[str, list[Any]] = pq.read_table(io.BytesIO(data)).to_pydict()
        return columns


def read_split(path: Path, manifest: Manifest, split: str, table: Table) -> Images:
    """One split, mapped into memory; its files have the sizes that were written."""
    stored = manifest.splits[split]
    kept = [
        (name, label)
        for of, name, label, reason in zip(*table, strict=True)
        if of == split and reason is None
    ]
    shape = (manifest.height, manifest.width, 3)
    shards = []
    for shard in stored.shards:
        with damage(path, shard.file):
            _check_size(path / shard.file, shard.pictures * shape[0] * shape[1] * 3)
            of_shard = (shard.pictures, *shape)
            shards.append(map_file(path / shard.file, of_shard))
    return Images(
        pixels=Packed(shards),
        labels=np.array([label for _, label in kept], np.int64) if stored.class_names else None,
        class_names=stored.class_names,
        fingerprint=stored.fingerprint,
        sources=tuple(name for name, _ in kept),
    )


def _check_size(path: Path, expected: int) -> None:
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError("no regular file")
    if state.st_size != expected:
        raise ValueError(f"{state.st_size:,} bytes, {expected:,} were written")


def _open(path: Path) -> Contents:
    entry = read_store(path)
    test = _reader(entry.test) if entry.test else None
    return Contents(entry.train.class_names, _reader(entry.train), test)


def _reader(images: Images) -> Reader:
    return Reader(len(images), images.labels, functools.partial(_items, images))


def _items(images: Images) -> Iterator[Encoded]:
    """Each picture as PPM, which is its pixels behind a line."""
    height, width = images.pixels.shape[1:3]
    header = f"P6 {width} {height} 255\n".encode()
    for row, name in enumerate(images.sources):
        yield Encoded(name, header + images.pixels[row].tobytes())
