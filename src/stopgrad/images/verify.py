"""A packed store, compared with the folder it was made from and with its own digests.

Nothing is written. `changes_since_packing` looks at sizes and dates only, `verify_store`
reads every byte.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from stopgrad.errors import DataError, StopgradError
from stopgrad.images.sources.find import find_source
from stopgrad.images.store import (
    FILES,
    MANIFEST,
    SUMMARY,
    Shard,
    StoreManifest,
    read_columns,
    read_manifest,
    read_split,
    read_summaries,
    read_table,
)
from stopgrad.images.types import FileStamp, seal_fingerprint
from stopgrad.images.writing import take_in
from stopgrad.storage import Finding

NAMED = 3  # files that a message names


def changes_since_packing(path: Path) -> DataError | None:
    """The error for a store whose folder has changed since it was packed.

    None where nothing has, where that folder is gone, and where the store does not know of it.

    Raises:
        DataError: When the store is damaged.
    """
    manifest = read_manifest(path)
    if not manifest.origin or not (path / FILES).exists() or not Path(manifest.origin).exists():
        return None
    columns = read_columns(path, manifest, FILES)
    was = _by_path(map(FileStamp, columns["path"], columns["size"], columns["modified"]))
    try:
        now = _by_path(find_source(manifest.origin).stamps)
    except StopgradError:  # nothing of it can be read any more
        now = {}
    changed = {name for name in was.keys() & now.keys() if was[name] != now[name]}
    kinds = {"changed": changed, "new": now.keys() - was.keys(), "gone": was.keys() - now.keys()}
    parts = [f"{len(names)} {kind} ({_few(names)})" for kind, names in kinds.items() if names]
    if not parts:
        return None
    return DataError(
        f"the files that {str(path)!r} was packed from have changed: {', '.join(parts)}",
        expected=f"{manifest.origin} as it was packed",
        hint=f"pack it again into a new store, or remove {FILES} to use this one as it is",
    )


def _by_path(stamps: Iterable[FileStamp]) -> dict[str, FileStamp]:
    return {stamp.path: stamp for stamp in stamps}


def _few(names: Collection[str]) -> str:
    named = sorted(names)[:NAMED]
    return ", ".join(map(repr, named)) + (", ..." if len(names) > NAMED else "")


def verify_store(path: Path) -> Iterator[Finding]:
    """A finding for each file of a store: every byte is read.

    Raises:
        DataError: When the store is unfinished or its manifest is damaged.
    """
    manifest = read_manifest(path)
    yield Finding(MANIFEST, ok=True, note=f"{manifest.name}, {manifest.height} px")
    for name in manifest.tables:
        if name == FILES and not (path / name).exists():
            yield Finding(name, ok=True, note="removed: its folder is not compared")
        else:
            yield _checked(name, functools.partial(read_columns, path, manifest, name))
    if (path / SUMMARY).exists():
        yield _checked(SUMMARY, functools.partial(read_summaries, path, manifest))
    for split in manifest.splits:
        yield from _verify_split(path, manifest, split)
    known = {MANIFEST, SUMMARY, *manifest.tables}
    known |= {shard.file for split in manifest.splits.values() for shard in split.shards}
    for entry in sorted(path.iterdir()):
        if entry.name not in known:
            note = "no file of a store, not checked"
            yield Finding(repr(entry.name)[1:-1], ok=True, note=note)


def _verify_split(path: Path, manifest: StoreManifest, split: str) -> Iterator[Finding]:
    stored, digest, whole = manifest.splits[split], hashlib.sha256(), True
    for shard in stored.shards:
        if not whole:
            yield Finding(shard.file, ok=False, note="not checked: a shard before it is damaged")
            continue
        finding = _checked(shard.file, functools.partial(_verify_shard, path, shard, digest))
        whole = finding.ok
        yield finding
    if whole:
        yield _checked(f"fingerprint of {split}", lambda: _compare(path, manifest, split, digest))


def _verify_shard(path: Path, shard: Shard, digest: hashlib._Hash) -> None:
    take_in(path / shard.file, digest)
    if digest.hexdigest() != shard.sha256:
        raise ValueError("it is not what was written")


def _compare(path: Path, manifest: StoreManifest, split: str, digest: hashlib._Hash) -> None:
    """Pixels, labels and class names together give the fingerprint."""
    images = read_split(path, manifest, split, read_table(path, manifest))
    sealed = seal_fingerprint(
        digest, shape=images.pixels.shape, labels=images.labels, class_names=images.class_names
    )
    if sealed != images.fingerprint:
        raise ValueError("it is not what was written")


def _checked(name: str, check: Callable[[], object]) -> Finding:
    try:
        check()
    except DataError as error:
        return Finding(name, ok=False, note=error.found)
    except (OSError, ValueError) as error:
        return Finding(name, ok=False, note=getattr(error, "strerror", None) or str(error))
    return Finding(name, ok=True, note="")
