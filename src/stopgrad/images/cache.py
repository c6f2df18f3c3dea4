"""Decoded data sets on disk: written whole or not at all, verified when read, mapped into memory.

An entry is a folder: `contents` (a line with the sha256 of the JSON that follows) and, for each
split, `SPLIT.pixels` (N x H x W x 3 bytes) and `SPLIT.labels` (N little-endian int64). It is
written in a temporary folder beside it and renamed. A key holds all that could change a pixel.
With every new entry the longest unused ones go, until all together hold at most `MOST_KEPT` bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from stopgrad.images.decoding import DECODER
from stopgrad.images.gather import Gathered, GatheredSplits
from stopgrad.images.source import Source
from stopgrad.images.types import Images, Labels, LeftOut, Pixels
from stopgrad.storage import sync_directory

FORMAT = 2
BLOCK = 1 << 20  # bytes
MOST_CHECKED = 1 << 30  # bytes of pixels that are read again when an entry is verified
STALE = 24 * 3600  # s after which the temporary folder of a killed process is removed
MOST_KEPT = 20 * (1 << 30)  # bytes of all entries together; the newest one stays even if larger


class DamagedEntryError(Exception):
    """An entry that is not what was written."""


class Entry(NamedTuple):
    """A data set as the cache holds it."""

    train: Images
    test: Images | None
    left_out: tuple[LeftOut, ...]


def cache_folder() -> Path:
    """$STOPGRAD_CACHE, else $XDG_CACHE_HOME/stopgrad, else ~/.cache/stopgrad."""
    if own := os.environ.get("STOPGRAD_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "stopgrad"


def entry_folder(source: Source, *, side: int | None) -> Path:
    """Where the entry of this source belongs, whether or not it is there."""
    key = [FORMAT, DECODER, source.name, source.root, source.stamps, side]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return cache_folder() / "images" / digest[:32]


class FileSink:
    """Appends pictures to a file; with plain writes, so that a full disk is an error to catch."""

    def __init__(self, path: Path) -> None:
        self.file: BinaryIO = path.open("wb", buffering=BLOCK)

    def add(self, picture: Pixels) -> None:
        """Append one picture (H, W, 3)."""
        self.file.write(picture.data)

    def close(self) -> None:
        """Bring everything to the disk."""
        _sync(self.file)


class EntryWriter:
    """A temporary folder that becomes an entry at `commit`, and vanishes without it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sinks: dict[str, FileSink] = {}

    def __enter__(self) -> EntryWriter:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(self.folder.parent)
        self.temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder.parent))
        return self

    def __exit__(self, *_: object) -> None:
        for sink in self.sinks.values():
            sink.file.close()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def sink(self, split: str, count: int) -> FileSink:
        """An empty sink for the pixels of a split, in place of an earlier one."""
        if split in self.sinks:
            self.sinks[split].file.close()
        self.sinks[split] = FileSink(self.temporary / f"{split}.pixels")
        return self.sinks[split]

    def commit(self, splits: GatheredSplits) -> None:
        """Write what is not pixels, bring it to the disk, and rename it into place.

        Raises:
            OSError: When the disk refuses; nothing is left behind then.
        """
        for sink in self.sinks.values():
            sink.close()
        pairs = {"train": splits.train, "test": splits.test}
        contents = {name: self._write_split(name, split) for name, split in pairs.items() if split}
        _write(self.temporary / "contents", _seal(contents, splits.left_out))
        self.temporary.chmod(0o755)
        sync_directory(self.temporary)
        _replace(self.temporary, self.folder)
        prune(self.folder.parent, newest=self.folder)

    def _write_split(self, name: str, split: Gathered) -> dict[str, Any]:
        labels = b"" if split.labels is None else split.labels.astype("<i8").tobytes()
        _write(self.temporary / f"{name}.labels", labels)
        return {
            "shape": split.shape,
            "labelled": split.labels is not None,
            "labels_sha256": hashlib.sha256(labels).hexdigest(),
            "pixels_crc32": _checksum(self.temporary / f"{name}.pixels"),
            "class_names": split.class_names,
            "fingerprint": split.fingerprint,
            "sources": split.sources,
        }


def read_entry(folder: Path) -> Entry | None:
    """The entry in a folder, verified; None when there is none.

    Raises:
        DamagedEntryError: When any part is not what was written (of more than 1 GiB of pixels,
            blocks of 1 MiB at even distances are compared).
    """
    if not folder.exists():
        return None
    try:
        contents = _unseal((folder / "contents").read_bytes())
        splits = {name: _read_split(folder, name, c) for name, c in contents["splits"].items()}
        left_out = tuple(LeftOut(*values) for values in contents["left_out"])
        with suppress(OSError):
            os.utime(folder)  # used: pruning takes the longest unused first
        return Entry(splits["train"], splits.get("test"), left_out)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedEntryError(str(error)) from error


def _read_split(folder: Path, name: str, contents: dict[str, Any]) -> Images:
    path = folder / f"{name}.pixels"
    shape = tuple(contents["shape"])
    if path.stat().st_size != np.prod(shape) or _checksum(path) != contents["pixels_crc32"]:
        raise ValueError(f"{path.name} is not what was written")
    # Copy-on-write: PyTorch takes it without complaint, and the file cannot be changed by it.
    pixels = np.asarray(np.memmap(path, np.uint8, mode="c", shape=shape))
    return Images(
        pixels=pixels,
        labels=_read_labels(folder / f"{name}.labels", contents),
        class_names=tuple(contents["class_names"]),
        fingerprint=contents["fingerprint"],
        sources=tuple(contents["sources"]),
    )


def _read_labels(path: Path, contents: dict[str, Any]) -> Labels | None:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != contents["labels_sha256"]:
        raise ValueError(f"{path.name} is not what was written")
    return np.frombuffer(data, "<i8").astype(np.int64) if contents["labelled"] else None


def _seal(splits: dict[str, Any], left_out: tuple[LeftOut, ...]) -> bytes:
    body = json.dumps({"splits": splits, "left_out": left_out}).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _unseal(data: bytes) -> dict[str, Any]:
    seal, _, body = data.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != seal:
        raise ValueError("contents are not what was written")
    contents: dict[str, Any] = json.loads(body)
    return contents


def _checksum(path: Path) -> int:
    """CRC-32 of the file, or of evenly spaced blocks that make up MOST_CHECKED bytes."""
    crc = 0
    for block in _blocks(path):
        crc = zlib.crc32(block, crc)
    return crc


def _blocks(path: Path) -> Iterator[bytes]:
    step = BLOCK * -(-path.stat().st_size // MOST_CHECKED)
    with path.open("rb", buffering=0) as file:
        for start in itertools.count(0, step):
            file.seek(start)
            block = file.read(BLOCK)
            if not block:
                return
            yield block


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        _sync(file)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _replace(new: Path, folder: Path) -> None:
    """Rename a new entry into place; a damaged one, or one just made by a neighbour, gives way."""
    if folder.exists():
        _discard(folder)
    try:
        new.rename(folder)
    except OSError:
        if not folder.exists():  # else a neighbour was faster, and its entry is as good
            raise
    sync_directory(folder.parent)


def _discard(folder: Path) -> None:
    """Remove an entry so that nobody meets half of it; who has it mapped keeps its pixels."""
    old = Path(tempfile.mkdtemp(prefix=".old-", dir=folder.parent))
    folder.rename(old / "entry")
    shutil.rmtree(old, ignore_errors=True)


def prune(parent: Path, *, newest: Path) -> None:
    """Remove entries, the longest unused first, while all hold more than `MOST_KEPT` bytes."""
    others = [folder for folder in parent.glob("[!.]*") if folder != newest]
    sizes = {folder: _bytes_in(folder) for folder in others}
    excess = sum(sizes.values()) + _bytes_in(newest) - MOST_KEPT
    for folder in sorted(others, key=_last_use):
        if excess <= 0:
            return
        with suppress(OSError):  # a neighbour was faster
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
        if time.time() - folder.stat().st_mtime > STALE:
            shutil.rmtree(folder, ignore_errors=True)
