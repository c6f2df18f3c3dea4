"""Contents (streams of encoded images) -> the files of a store, decoded on the way.

There is one shard per split, or several with a note for each finished one. A note says which images
its shard covers, and the digest up to its end: a kill loses only the shard being written, and a
shard that does not match its note is written again, with all after it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.config import BY_RULE, Reading
from stopgrad.errors import DataError, StopgradError
from stopgrad.images.decoding import Decoded, Frame, Unread
from stopgrad.images.gather import NamedResult, Tally, decoded, notes_of
from stopgrad.images.manifest import (
    FORMAT,
    Shard,
    StoredSplit,
    StoreManifest,
    read_manifest,
    write_manifest,
)
from stopgrad.images.opening import Damaged
from stopgrad.images.pixels import map_file
from stopgrad.images.splits import normalization_of
from stopgrad.images.store import (
    FILES,
    PICTURES,
    PICTURES_JSON,
    ImageTable,
    SplitSummary,
    checksum,
    read_notes,
    read_table,
    write_notes,
    write_summaries,
)
from stopgrad.images.types import Contents, DamagedImage, DataSource, FileStamp, Track
from stopgrad.images.unread import unread_in, unread_notes
from stopgrad.storage import (
    open_regular,
    read_json,
    read_patiently,
    storage_errors,
    sync_directory,
    write_atomically,
)

SHARD_BYTES = 1 << 27  # of pixels: what a kill can cost
SHARD_IMAGES = 1 << 14  # so that the note of a shard of small images stays small
BUFFER = 1 << 20  # bytes
READING = "reading"  # next to the stamps of files: how they were read, if not by rule
KEYED = 2  # the decoder version in keys; it stays, so that old stores are recognised


class Target(NamedTuple):
    """Where and how images are written."""

    path: Path
    frame: Frame
    track: Track
    for_user: bool  # in shards with notes, so that a later call resumes where this one stops

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.frame.height * self.frame.width * self.frame.channels


class Note(NamedTuple):
    """The note kept with a finished shard."""

    stop: int  # images of the split up to its end, damaged ones included
    names: list[str]  # of the readable images in it
    left_out: list[list[str]]  # name and reason of each damaged one
    places: list[int]  # their positions, counted over the split
    sha256: str  # as `Shard.sha256`
    # As `Tally.unread`; an older note has none, or none of bands.
    pages: dict[str, list[int]] = {}  # noqa: RUF012
    bands: dict[str, list[int]] = {}  # noqa: RUF012

    @property
    def unread(self) -> dict[str, Unread]:
        """Pages and bands, by file."""
        files = self.pages | self.bands
        return {of: Unread(self.pages.get(of, ()), self.bands.get(of, ())) for of in files}


def _plain(reading: Reading) -> Sequence[object]:
    """A reading as keys hold it: without `square` if that is not set, as in older stores."""
    return reading if reading.square else reading[:-1]


def store_key(source: DataSource, *, side: int | None) -> str:
    """sha256 in hex of everything under a user's control that decides the bytes of a store."""
    parts: list[object] = [FORMAT, KEYED, source.name, source.root, source.stamps, side]
    if source.reading != BY_RULE:
        parts.append(_plain(source.reading))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class SplitWriter:
    """Writes one split to disk, after the whole shards that are already there."""

    def __init__(self, target: Target, tally: Tally) -> None:
        self.target = target
        self.tally = tally
        self.shards: list[Shard] = []

    def run(self) -> None:
        """Decodes and writes what is missing.

        Raises:
            DataError: When the images change meanwhile.
            StorageError: When the disk refuses; finished shards stay.
        """
        self._keep_whole_shards()  # of a store for the user, or taken over from another
        tally, reader = self.tally, self.tally.reader
        if tally.done == reader.length:
            return
        shown = f"{'packing' if self.target.for_user else 'decoding'} {tally.split}"
        attempts = decoded(
            reader, self.target.frame, shown_as=shown, track=self.target.track, start=tally.done
        )
        with contextlib.closing(attempts):
            while tally.done < reader.length:
                before = tally.done
                self._write_shard(attempts)
                if tally.done == before:
                    raise DataError(
                        f"the {tally.split} split ended at image {before}",
                        expected="images that do not change while they are read",
                        hint="try again when nothing changes them",
                    )

    def _path(self, suffix: str) -> Path:
        return self.target.path / f"{self.tally.split}-{len(self.shards):05d}.{suffix}"

    def _keep_whole_shards(self) -> None:
        tally = self.tally
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            while True:
                note, digest = Note(**read_json(self._path("json"))), tally.digest.copy()
                take_in(self._path("pixels"), digest)
                damaged = {
                    place: DamagedImage(tally.split, *left_out)
                    for place, left_out in zip(note.places, note.left_out, strict=True)
                }
                stop = tally.done + len(note.names) + len(damaged)
                if (digest.hexdigest(), stop) != (note.sha256, note.stop):
                    return
                tally.digest = digest
                tally.names += note.names
                tally.damaged |= damaged
                tally.unread |= note.unread
                self.shards.append(Shard(self._path("pixels").name, len(note.names), note.sha256))

    def _write_shard(self, attempts: Iterator[NamedResult[Decoded | Damaged]]) -> None:
        """Writes the next shard, then the note that makes it count."""
        tally, most = self.tally, self._most_images()
        names, damaged = len(tally.names), len(tally.damaged)
        with storage_errors(self._path("pixels"), needed=most * self.target.image_bytes):
            self._path("json").unlink(missing_ok=True)
            self._path("pixels").unlink(missing_ok=True)  # maybe a link or a pipe
            with self._path("pixels").open("xb", buffering=BUFFER) as file:
                for attempt in itertools.islice(attempts, most):
                    if (pixels := tally.add(attempt)) is not None:
                        file.write(pixels.data)
                file.flush()
                os.fsync(file.fileno())
            sync_directory(self.target.path)
        shard = Shard(self._path("pixels").name, len(tally.names) - names, tally.digest.hexdigest())
        if self.target.for_user:
            new = dict(itertools.islice(tally.damaged.items(), damaged, None))
            left_out = [[image.name, image.reason] for image in new.values()]
            added = tally.names[names:]
            unread = {name: tally.unread[name] for name in added if name in tally.unread}
            note = Note(tally.done, added, left_out, [*new], shard.sha256, *_by_kind(unread))
            write_atomically(self._path("json"), json.dumps(note._asdict()).encode())
        self.shards.append(shard)

    def _most_images(self) -> int:
        """How many images the next shard may hold."""
        if not self.target.for_user:
            return self.tally.reader.length
        return max(1, min(SHARD_IMAGES, SHARD_BYTES // self.target.image_bytes))

    def stored(self) -> StoredSplit:
        """The entry of the split in the manifest."""
        tally, frame = self.tally, self.target.frame
        return StoredSplit(
            pictures=len(tally.names),
            class_names=tally.class_names,
            fingerprint=tally.fingerprint(frame.height, frame.width, frame.channels),
            shards=tuple(shard for shard in self.shards if shard.pictures),
        )

    def table(self) -> ImageTable:
        """A row for each image, damaged ones included."""
        tally, names = self.tally, iter(self.tally.names)
        places = range(tally.reader.length)
        damaged = [tally.damaged.get(place) for place in places]
        labels = tally.reader.labels
        return ImageTable(
            split=[tally.split] * len(places),
            name=[image.name if image else next(names) for image in damaged],
            label=[None] * len(places) if labels is None else labels.tolist(),
            reason=[image.reason if image else None for image in damaged],
        )


def _by_kind(unread: dict[str, Unread]) -> Iterator[dict[str, list[int]]]:
    for kind in range(len(Unread._fields)):
        yield {name: [*of[kind]] for name, of in unread.items() if of[kind]}


def take_over(path: Path, target: Target) -> None:
    """Begins a new store with the training images of a cached one of them, if frames agree.

    The pixels are linked, so that they lie on the disk once.
    """
    note, frame = target.path / "train-00000.json", target.frame
    for file in target.path.glob("train-*"):
        file.unlink()  # of another frame
    # If anything is wrong with it, its images are decoded.
    with contextlib.suppress(StopgradError, OSError, LookupError, ValueError):
        manifest, notes = read_manifest(path), read_notes(path)
        (shard,), table = manifest.splits["train"].shards, read_table(path, manifest)
        size = (manifest.height, manifest.width, manifest.channels)
        if (*size, notes.levels) != (frame.height, frame.width, frame.channels, frame.levels or ()):
            return
        rows = [
            (name, reason)
            for of, name, reason in zip(table.split, table.name, table.reason, strict=True)
            if of == "train"
        ]
        names = [name for name, reason in rows if reason is None]
        places = [place for place, (_, reason) in enumerate(rows) if reason is not None]
        left_out = [[str(part) for part in rows[place]] for place in places]
        os.link(path / shard.file, target.path / shard.file)
        unread = _by_kind(unread_in(notes, "train"))
        content = Note(len(rows), names, left_out, places, shard.sha256, *unread)
        write_atomically(note, json.dumps(content._asdict()).encode())


def write_store(
    target: Target,
    source: DataSource,
    contents: Contents,
    *,
    side: int | None,
    origin: str = "",
    refuse: Callable[[Sequence[Tally]], None],
) -> None:
    """Decodes all images into a store, within `in_one_frame`.

    Args:
        target: Where and how.
        source: The data set.
        contents: Its splits.
        side: px; as asked for.
        origin: The folder or file to compare the store with when it is opened.
        refuse: Raises an error for splits that are not fit to be kept.

    Raises:
        DataError: When the images change meanwhile.
        StorageError: When the disk refuses.
    """
    writers = [
        SplitWriter(target, Tally(split, reader, contents.class_names))
        for split, reader in contents.readers.items()
    ]
    for writer in writers:
        writer.run()
        if not target.for_user:
            (target.path / f"{writer.tally.split}-00000.json").unlink(missing_ok=True)
    refuse([writer.tally for writer in writers])
    manifest = StoreManifest(
        name=source.name,
        origin=origin,
        key=store_key(source, side=side),
        side=side or 0,
        height=target.frame.height,
        width=target.frame.width,
        channels=target.frame.channels,
        splits={writer.tally.split: writer.stored() for writer in writers},
        tables=_write_tables(target, source, writers),
    )
    with storage_errors(target.path, needed=0):
        summaries = {split: _summary(target, stored) for split, stored in manifest.splits.items()}
    write_summaries(target.path, summaries)
    # The cache takes notes on names anew each time, and stores only those from reading.
    found = contents.notes.and_those(notes_of(target.frame, source.reading))
    found = found.and_those(unread_notes(writer.tally for writer in writers))
    write_notes(target.path, source.notes.and_those(found) if target.for_user else found)
    write_manifest(target.path, manifest)


def _summary(target: Target, stored: StoredSplit) -> SplitSummary:
    shape = (target.frame.height, target.frame.width, target.frame.channels)
    counted = normalization_of(
        map_file(target.path / shard.file, (shard.pictures, *shape)).pixels
        for shard in stored.shards
    )
    return SplitSummary(stored.fingerprint, checksum(target.path, stored), *counted)


def _write_tables(target: Target, source: DataSource, writers: list[SplitWriter]) -> dict[str, str]:
    """The tables of a store; returns their sha256 by file name."""
    fields: Any = zip(*(writer.table() for writer in writers), strict=True)
    names = ImageTable._fields
    images = {name: list(itertools.chain(*of)) for name, of in zip(names, fields, strict=True)}
    if target.for_user:
        stamps = {field: [getattr(s, field) for s in source.stamps] for field in FileStamp._fields}
        files = {PICTURES: _as_parquet(images), FILES: _as_parquet(stamps, source.reading)}
    else:
        files = {PICTURES_JSON: json.dumps(images).encode()}
    for name, data in files.items():
        write_atomically(target.path / name, data)
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def _as_parquet(columns: dict[str, list[Any]], reading: Reading = BY_RULE) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"label": pa.int64(), "size": pa.int64(), "modified": pa.int64()}
    arrays = {name: pa.array(v, kinds.get(name, pa.string())) for name, v in columns.items()}
    data, table = pa.BufferOutputStream(), pa.table(arrays)
    if reading != BY_RULE:
        table = table.replace_schema_metadata({READING: json.dumps(_plain(reading))})
    pq.write_table(table, data)
    content: bytes = data.getvalue().to_pybytes()
    return content


def take_in(path: Path, digest: hashlib._Hash) -> None:
    """Feeds a file to a digest; no link is followed, no pipe is waited for.

    Raises:
        OSError: When it is not there, or is not a regular file.
        UnreadableError: When it cannot be read.
    """
    with open(read_patiently(path, lambda: open_regular(path)), "rb", buffering=0) as file:
        while block := read_patiently(path, lambda: file.read(BUFFER)):
            digest.update(block)
