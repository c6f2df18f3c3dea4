"""One split -> shards of a store, each finished one with a note beside it.

A note says which pictures a shard covers, and the digest up to its end: a kill loses only the shard
in work, and a shard that is not as its note says is written anew, with all behind it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stopgrad.errors import DataError
from stopgrad.images.damage import unreadable_split
from stopgrad.images.decoding import Damaged, Frame, OtherSize, decode
from stopgrad.images.gather import pictures_in_a_task
from stopgrad.images.parallel import Attempt, on_all_cores
from stopgrad.images.source import Reader
from stopgrad.images.store import Shard, StoredSplit, Table
from stopgrad.images.store_verify import take_in
from stopgrad.images.types import LeftOut, Pixels, Track, seal_fingerprint
from stopgrad.storage import read_json, storage_errors, sync_directory, write_atomically

SHARD_BYTES = 1 << 27  # of pixels: what a kill can cost
SHARD_PICTURES = 1 << 14  # so that the note of a shard of small pictures stays small
BUFFER = 1 << 20  # bytes

Attempts = Iterator[Attempt[Pixels | OtherSize | Damaged]]


class Packing(NamedTuple):
    """Where and how pictures are packed."""

    path: Path
    frame: Frame
    track: Track

    @property
    def picture_bytes(self) -> int:
        """Of one stored picture."""
        return self.frame.height * self.frame.width * 3


class Note(NamedTuple):
    """What stands beside a finished shard."""

    stop: int  # pictures of the split up to its end, those left out included
    names: list[str]  # of those in it
    left_out: list[list[str]]  # name and reason of each one left out
    places: list[int]  # of those, counted over the split
    sha256: str  # as `Shard.sha256`


class PackedSplit(NamedTuple):
    """A split whose shards are all on disk."""

    stored: StoredSplit
    table: Table
    left_out: tuple[LeftOut, ...]


class SplitPacker:
    """Brings one split to disk, from behind the shards that are there and whole.

    Args:
        packing: Where and how.
        split: "train" or "test".
        reader: Its pictures.
        class_names: C names.
    """

    def __init__(
        self, packing: Packing, split: str, *, reader: Reader, class_names: tuple[str, ...]
    ) -> None:
        self.packing = packing
        self.split = split
        self.reader = reader
        self.class_names = () if reader.labels is None else class_names
        self.notes: list[Note] = []
        self.digest = hashlib.sha256()

    def run(self) -> PackedSplit:
        """Decodes and writes what is missing.

        Raises:
            DataError: When no picture can be read, or the pictures change meanwhile.
            StorageError: When the disk refuses; finished shards stay.
        """
        self._keep_whole_shards()
        left = self.reader.length - self.done
        if left:
            items = itertools.islice(self.reader.items(), self.done, None)
            work = functools.partial(decode, frame=self.packing.frame)
            size = pictures_in_a_task(self.packing.frame)
            with contextlib.closing(on_all_cores(items, work, at_a_time=size)) as attempts:
                self._write(iter(self.packing.track(attempts, f"packing {self.split}", left)))
        return self._summary()

    @property
    def done(self) -> int:
        """Pictures of the split that need no more work."""
        return self.notes[-1].stop if self.notes else 0

    def _path(self, suffix: str, number: int | None = None) -> Path:
        number = len(self.notes) if number is None else number
        return self.packing.path / f"{self.split}-{number:05d}.{suffix}"

    def _keep_whole_shards(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            while True:
                note, digest = Note(**read_json(self._path("json"))), self.digest.copy()
                take_in(self._path("pixels"), digest)
                if digest.hexdigest() != note.sha256:
                    return
                self.digest = digest
                self.notes.append(note)

    def _write(self, attempts: Attempts) -> None:
        while self.done < self.reader.length:
            before, note = self.done, self._write_shard(attempts)
            if note.stop == before:
                raise _changing(f"the {self.split} split ended at picture {before}")
            self.notes.append(note)

    def _write_shard(self, attempts: Attempts) -> Note:
        """Writes the next shard, then the note that makes it count."""
        most = max(1, min(SHARD_PICTURES, SHARD_BYTES // self.packing.picture_bytes))
        names: list[str] = []
        left_out: dict[int, list[str]] = {}
        with storage_errors(self._path("pixels"), needed=most * self.packing.picture_bytes):
            self._path("json").unlink(missing_ok=True)
            with self._path("pixels").open("wb", buffering=BUFFER) as file:
                for place, (name, result) in enumerate(itertools.islice(attempts, most), self.done):
                    if isinstance(result, Damaged):
                        left_out[place] = [name, result.reason]
                        continue
                    self._add(file, name, result)
                    names.append(name)
                file.flush()
                os.fsync(file.fileno())
            sync_directory(self.packing.path)
        stop = self.done + len(names) + len(left_out)
        note = Note(stop, names, [*left_out.values()], [*left_out], self.digest.hexdigest())
        write_atomically(self._path("json"), json.dumps(note._asdict()).encode())
        return note

    def _add(self, file: BinaryIO, name: str, picture: Pixels | OtherSize) -> None:
        if isinstance(picture, OtherSize):  # the frame was settled by all headers
            raise _changing(f"{name!r} has another size than before")
        self.digest.update(picture.data)
        file.write(picture.data)

    def _summary(self) -> PackedSplit:
        left_out = {
            place: LeftOut(self.split, *of)
            for note in self.notes
            for place, of in zip(note.places, note.left_out, strict=True)
        }
        places = range(self.reader.length)
        kept = [place for place in places if place not in left_out]
        if not kept:
            raise unreadable_split(self.split, tuple(left_out.values()))
        names = itertools.chain.from_iterable(note.names for note in self.notes)
        labels = self.reader.labels
        table = Table(
            split=[self.split] * len(places),
            name=[left_out[p].name if p in left_out else next(names) for p in places],
            label=[None] * len(places) if labels is None else labels.tolist(),
            reason=[left_out[p].reason if p in left_out else None for p in places],
        )
        return PackedSplit(self._stored(kept), table, tuple(left_out.values()))

    def _stored(self, kept: list[int]) -> StoredSplit:
        labels = self.reader.labels
        fingerprint = seal_fingerprint(
            self.digest,
            shape=(len(kept), self.packing.frame.height, self.packing.frame.width, 3),
            labels=None if labels is None else labels[kept],
            class_names=self.class_names,
        )
        shards = tuple(
            Shard(self._path("pixels", number).name, len(note.names), note.sha256)
            for number, note in enumerate(self.notes)
            if note.names
        )
        return StoredSplit(len(kept), self.class_names, fingerprint, shards)


def _changing(found: str) -> DataError:
    return DataError(
        found,
        expected="pictures that nobody changes while they are packed",
        hint="pack them again when nothing changes them any more",
    )
