"""A data set -> a packed store: decoded once, written shard by shard, committed last.

A kill at any moment loses at most the shard in work; the same command goes on behind the last one
that is whole. What is packed is what `load_dataset` gives at that side, to the bit, with its
fingerprint: a run cannot tell the two apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stopgrad.config import BadImages
from stopgrad.errors import ConfigError, DataError, LockedError, StorageError
from stopgrad.images.damage import refusal
from stopgrad.images.decoding import DECODER, Damaged, Frame, peek, strict_pillow
from stopgrad.images.load import KNOWN, find_source
from stopgrad.images.pack_shards import PackedSplit, Packing, SplitPacker
from stopgrad.images.parallel import on_all_cores
from stopgrad.images.source import Contents, FileStamp, Reader, Source
from stopgrad.images.store import (
    FILES,
    FORMAT,
    MANIFEST,
    PACKING,
    PICTURES,
    Manifest,
    Table,
    encode_manifest,
    read_manifest,
)
from stopgrad.images.types import Track, no_progress
from stopgrad.storage import read_json, storage_errors, write_atomically, write_json


def pack(
    spec: str,
    out: Path,
    *,
    side: int,
    bad_images: BadImages = "fail",
    track: Track = no_progress,
) -> Manifest:
    """Packs a data set, or goes on with what a kill has interrupted.

    Args:
        spec: As for `load_dataset`.
        out: The store: a new folder, an empty one, or an unfinished store of the same pictures. A
            finished one of the same is left as it is.
        side: px. As for `load_dataset`: pictures that all have one size, at most `side`, keep it;
            all others are resized by their short side and cropped at the centre.
        bad_images: As for `load_dataset`; the store knows the damaged pictures that it lacks.
        track: Shows progress.

    Raises:
        DataError: When the pictures are unfit, or `out` holds something else.
        ConfigError: For a side below 1.
        StorageError: When the disk refuses or has too little room.
        LockedError: When another process packs into the same folder.
    """
    if side < 1:
        raise ConfigError(f"--side {side}", expected="at least 1 px", hint="use for example 256")
    source = find_source(spec)
    key = _key(source, side=side)
    with _locked(out):
        if not (out / MANIFEST).exists():
            contents = source.open()
            with strict_pillow():
                packing = Packing(out, _begin(out, contents, key=key, side=side), track)
                splits = _pack_splits(packing, contents, bad_images=bad_images)
            size = {"side": side, "height": packing.frame.height, "width": packing.frame.width}
            manifest = Manifest(
                name=source.name,
                origin=_origin(spec),
                key=key,
                **size,
                splits={name: each.stored for name, each in splits.items()},
                tables=_write_tables(out, source, splits),
            )
            write_json(out / MANIFEST, encode_manifest(manifest))
        return _finished(out, key=key)


def _key(source: Source, *, side: int) -> str:
    """Of all that could change a byte of the store."""
    parts = [FORMAT, DECODER, source.name, source.root, source.stamps, side]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _origin(spec: str) -> str:
    """The path to compare with later; what has a name lies in no folder of the user's."""
    named = spec in KNOWN or spec.startswith("hf:")
    return "" if named else str(Path(spec).expanduser().resolve())


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """The folder, made where it is missing, for this process alone."""
    with storage_errors(out, needed=0):
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"{out} is being packed by another process",
                expected="one writer",
                hint="wait for it, or stop it",
            ) from error
        yield
    finally:
        os.close(descriptor)


def _begin(out: Path, contents: Contents, *, key: str, side: int) -> Frame:
    """The frame of a store, as it was begun or as it now begins, with room on the disk for it."""
    if (out / PACKING).exists():
        return _with_room(out, contents, _begun(out, key=key))
    if any(out.iterdir()):
        raise _something_else(out, "other files")
    # Where the disk is too small nothing is begun, so that a smaller side may be asked for next.
    frame = _with_room(out, contents, _frame(contents, side))
    write_json(out / PACKING, {"key": key, "side": side, "frame": frame})
    return frame


def _begun(out: Path, *, key: str) -> Frame:
    """The frame of an unfinished store, which must be of the same pictures and side."""
    try:
        begun = read_json(out / PACKING)
        if begun["key"] == key:
            return Frame(*begun["frame"])
        what = f"an unfinished store with --side {begun['side']}"
    except (OSError, ValueError, KeyError, TypeError):
        what = f"an unfinished store with a damaged {PACKING}"
    raise _something_else(out, what)


def _something_else(out: Path, what: str) -> DataError:
    return DataError(
        f"{str(out)!r} holds {what}",
        expected="a new folder, or the store of the same pictures, as they are now, at this side",
        hint="choose another --out, or remove it",
    )


def _frame(contents: Contents, side: int) -> Frame:
    """The one size of all pictures if they have one and it is small enough, else a square.

    Headers are read only until two differ, so of most data sets one or two.
    """
    sizes: set[tuple[int, int]] = set()
    for reader in _readers(contents).values():
        with contextlib.closing(on_all_cores(reader.items(), peek)) as attempts:
            for _, size in attempts:
                if isinstance(size, Damaged):
                    continue
                sizes.add(size)
                if len(sizes) > 1 or max(size) > side:
                    return Frame(side, side, fit=True)
    return Frame(*sizes.pop(), fit=False) if sizes else Frame(side, side, fit=True)


def _readers(contents: Contents) -> dict[str, Reader]:
    readers = {"train": contents.train, "test": contents.test}
    return {split: reader for split, reader in readers.items() if reader is not None}


def _pack_splits(
    packing: Packing, contents: Contents, *, bad_images: BadImages
) -> dict[str, PackedSplit]:
    readers = _readers(contents)
    count = sum(reader.length for reader in readers.values())
    names = contents.class_names
    splits = {
        split: SplitPacker(packing, split, reader=reader, class_names=names).run()
        for split, reader in readers.items()
    }
    left_out = [left for split in splits.values() for left in split.left_out]
    if error := refusal(left_out, count=count, bad_images=bad_images):
        raise error
    return splits


def _with_room(out: Path, contents: Contents, frame: Frame) -> Frame:
    """Refuses before hours of work what the disk cannot hold; the frame that it can."""
    count = sum(reader.length for reader in _readers(contents).values())
    there = sum(file.stat().st_size for file in out.glob("*.pixels"))
    needed = count * frame.height * frame.width * 3 - there
    free = shutil.disk_usage(out).free
    if needed > free:
        raise StorageError(
            f"{needed:,} bytes needed in {out}, {free:,} bytes free",
            expected="room for all pictures",
            hint="make room, choose another --out or a smaller --side",
        )
    return frame


def _write_tables(out: Path, source: Source, splits: dict[str, PackedSplit]) -> dict[str, str]:
    """The Parquet files of a store; returns their sha256."""
    tables = [split.table for split in splits.values()]
    pictures = {
        field: list(itertools.chain.from_iterable(getattr(table, field) for table in tables))
        for field in Table._fields
    }
    stamps = {field: [getattr(s, field) for s in source.stamps] for field in FileStamp._fields}
    content = {PICTURES: pictures, FILES: stamps}
    return {name: _write_table(out / name, columns) for name, columns in content.items()}


def _write_table(path: Path, columns: dict[str, list[Any]]) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"label": pa.int64(), "size": pa.int64(), "modified": pa.int64()}
    arrays = {name: pa.array(v, kinds.get(name, pa.string())) for name, v in columns.items()}
    data = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), data)
    content: bytes = data.getvalue().to_pybytes()
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def _finished(out: Path, *, key: str) -> Manifest:
    """The manifest of a finished store, once all is removed that only an unfinished one needs."""
    manifest = read_manifest(out)
    if manifest.key != key:
        raise _something_else(out, f"a store of {manifest.name} with --side {manifest.side}")
    known = {shard.file for split in manifest.splits.values() for shard in split.shards}
    for split in manifest.splits:
        for file in out.glob(f"{split}-[0-9]*.*"):
            if file.name not in known:  # a note, or a shard of damaged pictures alone
                file.unlink()
    (out / PACKING).unlink(missing_ok=True)
    return manifest
