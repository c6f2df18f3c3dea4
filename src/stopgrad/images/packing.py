"""Stores that the user asks for: packed, compared with the folder they came from, and verified.

A kill at any moment loses at most the shard being written; the same command resumes after the last
whole one. The store holds what `load_dataset` gives at that side, to the bit, with its
fingerprint: a run cannot tell the two apart. `changes_since_packing` looks at sizes and dates only;
`verify_store` reads every byte.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from stopgrad.config import BY_RULE, BadImages, Reading
from stopgrad.errors import ConfigError, DataError, LockedError, StopgradError, StorageError
from stopgrad.images.decoding import Frame
from stopgrad.images.gather import Tally, all_damaged, in_one_frame, refusal, refuse_unreadable
from stopgrad.images.manifest import MANIFEST, Shard, StoreManifest, damage, read_manifest
from stopgrad.images.sources.find import find_source, is_name
from stopgrad.images.sources.several import spec_of_several, specs_of
from stopgrad.images.store import (
    FILES,
    LARGEST_TABLE,
    NOTES,
    PACKING,
    SUMMARY,
    read_columns,
    read_notes,
    read_split,
    read_summaries,
    read_table,
)
from stopgrad.images.types import (
    Contents,
    DataSource,
    FileStamp,
    Track,
    no_progress,
    seal_fingerprint,
)
from stopgrad.images.writing import READING, Target, store_key, take_in, write_store
from stopgrad.storage import (
    Finding,
    lock_file,
    open_folder,
    read_file,
    read_json,
    read_patiently,
    some,
    storage_errors,
    user_path,
    write_json,
)


def pack(
    spec: str,
    out: Path,
    *,
    side: int,
    reading: Reading = BY_RULE,
    bad_images: BadImages = "fail",
    track: Track = no_progress,
) -> StoreManifest:
    """Packs a data set, or resumes where a kill has stopped it.

    Args:
        spec: As for `load_dataset`; so are `side`, `reading` and `bad_images`.
        out: The store: a new folder, an empty one, or an unfinished store of the same images. A
            finished store of them is left unchanged.
        side: px.
        reading: The columns that are read.
        bad_images: The policy; the store lists the damaged images it lacks.
        track: Shows progress.

    Raises:
        DataError: When the images are unfit, or `out` holds something else.
        ConfigError: For a side below 1.
        StorageError: When the disk refuses or has too little room.
        LockedError: When another process packs into the same folder.
    """
    if side < 1:
        raise ConfigError(f"--side {side}", expected="at least 1 px", hint="use for example 256")
    return read_patiently(
        Path(spec),
        lambda: _pack(
            find_source(spec, reading=reading), out, spec, side, bad_images=bad_images, track=track
        ),
    )


def _pack(
    source: DataSource, out: Path, spec: str, side: int, *, bad_images: BadImages, track: Track
) -> StoreManifest:
    key = store_key(source, side=side)
    with _locked(out):
        if not (out / MANIFEST).exists():
            contents = source.open()

            def write(frame: Frame) -> None:
                _begin(out, contents, frame, key=key, side=side)
                target = Target(out, frame, track, for_user=True)
                refuse = functools.partial(_refuse_damaged, bad_images=bad_images)
                write_store(
                    target,
                    source,
                    contents,
                    side=side,
                    origin=_origin(spec),
                    refuse=refuse,
                )

            begun = _begun(out, key=key)
            in_one_frame(
                contents, write, side=side, reading=source.reading, frame=begun, track=track
            )
        return _finished(out, key=key)


def _refuse_damaged(tallies: Sequence[Tally], *, bad_images: BadImages) -> None:
    refuse_unreadable(tallies)
    count = sum(tally.done for tally in tallies)
    if error := refusal(all_damaged(tallies), count=count, bad_images=bad_images):
        raise error


def _origin(spec: str) -> str:
    """The path to compare the store with later; "" when every spec is a name, not a path."""
    if all(map(is_name, specs_of(spec))):
        return ""
    paths = (s if is_name(s) else str(user_path(s).resolve()) for s in specs_of(spec))
    return spec_of_several([*paths])


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Locks the folder, made if it is missing, for this process alone."""
    with contextlib.ExitStack() as stack:
        with storage_errors(out, needed=0):
            out.mkdir(parents=True, exist_ok=True)
            descriptor = open_folder(out)
            stack.callback(os.close, descriptor)
            try:
                lock_file(descriptor)
            except BlockingIOError as error:
                raise LockedError(
                    f"{out} is being packed by another process",
                    expected="one writer",
                    hint="wait for it, or stop it",
                ) from error
        yield


def _begun(out: Path, *, key: str) -> Frame | None:
    """The frame of an unfinished store of the same images and side; None for an empty folder."""
    if not (out / PACKING).exists():
        if any(out.iterdir()):
            raise _something_else(out, "other files")
        return None
    try:
        begun = read_json(out / PACKING)
        if begun["key"] == key:
            return Frame.from_json(begun["frame"])
        what = f"an unfinished store with --side {begun['side']}"
    except (OSError, ValueError, KeyError, TypeError):
        what = f"an unfinished store with a damaged {PACKING}"
    raise _something_else(out, what)


def _something_else(out: Path, what: str) -> DataError:
    return DataError(
        f"{str(out)!r} holds {what}",
        expected="a new folder, or a store of the same, unchanged images with this --side",
        hint="choose another --out, or remove it",
    )


def _begin(out: Path, contents: Contents, frame: Frame, *, key: str, side: int) -> None:
    """Records what the store will be, if the disk has room for it.

    Otherwise nothing is begun, so that a smaller side may be asked for next.
    """
    if (out / PACKING).exists() and _begun(out, key=key) != frame:
        for file in (*out.glob("*-[0-9]*.json"), *out.glob("*-[0-9]*.pixels")):
            file.unlink()  # of the size that not all images had
    _check_room(out, contents, frame)
    write_json(out / PACKING, {"key": key, "side": side, "frame": frame})


def _check_room(out: Path, contents: Contents, frame: Frame) -> None:
    """Refuses a store that the disk cannot hold, before hours of work."""
    count = sum(reader.length for reader in contents.readers.values())
    there = sum(file.stat().st_size for file in out.glob("*.pixels"))
    needed = count * frame.height * frame.width * frame.channels - there
    free = shutil.disk_usage(out).free
    if needed > free:
        raise StorageError(
            f"{needed:,} bytes needed in {out}, {free:,} bytes free",
            expected="room for all images",
            hint="make room, choose another --out or a smaller --side",
        )


def _finished(out: Path, *, key: str) -> StoreManifest:
    """The manifest of a finished store; removes what only an unfinished one needs."""
    manifest = read_manifest(out)
    if manifest.key != key:
        raise _something_else(out, f"a store of {manifest.name} with --side {manifest.side}")
    known = {shard.file for split in manifest.splits.values() for shard in split.shards}
    for split in manifest.splits:
        for file in out.glob(f"{split}-[0-9]*.*"):
            if file.name not in known:  # a note, or a shard of damaged images alone
                file.unlink()
    if (out / PACKING).exists():  # else a finished store may be read-only
        (out / PACKING).unlink()
    return manifest


def changes_since_packing(path: Path) -> DataError | None:
    """The error for a store whose folder has changed since it was packed.

    None when nothing has changed, the folder is gone, or the store does not know it.

    Raises:
        DataError: When the store is damaged.
    """
    manifest = read_manifest(path)
    there = all(is_name(spec) or Path(spec).exists() for spec in specs_of(manifest.origin))
    if not manifest.origin or not (path / FILES).exists() or not there:
        return None
    columns = read_columns(path, manifest, FILES)
    was = _by_path(map(FileStamp, columns["path"], columns["size"], columns["modified"]))
    reading = _reading(path)
    try:
        now = _by_path(find_source(manifest.origin, reading=reading).stamps)
    except StopgradError:  # none of it can be read any more
        now = {}
    changed = {name for name in was.keys() & now.keys() if was[name] != now[name]}
    kinds = {"changed": changed, "new": now.keys() - was.keys(), "gone": was.keys() - now.keys()}
    parts = [
        f"{len(names)} {kind} ({some(sorted(names))})" for kind, names in kinds.items() if names
    ]
    if not parts:
        return None
    return DataError(
        f"the files that {str(path)!r} was packed from have changed: {', '.join(parts)}",
        expected=f"{manifest.origin} as it was packed",
        hint=f"pack it again into a new store, or remove {FILES} to use this one as it is",
    )


def _reading(path: Path) -> Reading:
    """How the files of a store were read when it was packed."""
    import pyarrow.parquet as pq

    with damage(path, FILES):
        data = read_file(path / FILES, most=LARGEST_TABLE)
        known = pq.read_schema(io.BytesIO(data)).metadata or {}
        reading = Reading(*json.loads(known.get(READING.encode(), b"[]")))
        levels = tuple((depth, black, white) for depth, black, white in reading.levels)
        return reading._replace(bands=tuple(reading.bands), levels=levels)


def _by_path(stamps: Iterable[FileStamp]) -> dict[str, FileStamp]:
    return {stamp.path: stamp for stamp in stamps}


def verify_store(path: Path) -> Iterator[Finding]:
    """A finding for each file of a store: every byte is read.

    Raises:
        DataError: When the store is unfinished or its manifest is damaged.
    """
    manifest = read_manifest(path)
    yield Finding(MANIFEST, ok=True, note=f"{manifest.name}, {manifest.height} px")
    for name in manifest.tables:
        if name == FILES and not (path / name).exists():
            yield Finding(name, ok=True, note="removed: changes in its folder are not checked")
        else:
            yield _checked(name, functools.partial(read_columns, path, manifest, name))
    if (path / SUMMARY).exists():
        yield _checked(SUMMARY, functools.partial(read_summaries, path, manifest))
    for split in manifest.splits:
        yield from _verify_split(path, manifest, split)
    if (path / NOTES).exists():
        yield _checked(NOTES, functools.partial(read_notes, path))
    known = {MANIFEST, SUMMARY, NOTES, *manifest.tables}
    known |= {shard.file for split in manifest.splits.values() for shard in split.shards}
    for entry in sorted(path.iterdir()):
        if entry.name not in known:
            note = "not a file of the store, not checked"
            yield Finding(repr(entry.name)[1:-1], ok=True, note=note)


def _verify_split(path: Path, manifest: StoreManifest, split: str) -> Iterator[Finding]:
    stored, digest, whole = manifest.splits[split], hashlib.sha256(), True
    for shard in stored.shards:
        if not whole:
            yield Finding(shard.file, ok=False, note="not checked: a shard before it is damaged")
            continue
        finding = _checked(shard.file, functools.partial(_compare_shard, path, shard, digest))
        whole = finding.ok
        yield finding
    if whole:
        yield _checked(f"fingerprint of {split}", lambda: _compare(path, manifest, split, digest))


def _compare_shard(path: Path, shard: Shard, digest: hashlib._Hash) -> None:
    take_in(path / shard.file, digest)
    if digest.hexdigest() != shard.sha256:
        raise ValueError("it is not what was written")


def _compare(path: Path, manifest: StoreManifest, split: str, digest: hashlib._Hash) -> None:
    """Checks that pixels, labels and class names together give the fingerprint."""
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
