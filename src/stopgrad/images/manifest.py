"""The manifest of a store, perhaps somebody else's -> its contents, each value checked.

It names the shards of pixels and seals all other files; a name that `writing` would not give is
refused, so that no store leads to another file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.errors import DataError
from stopgrad.storage import few, is_there, read_json, typed, write_json

MANIFEST = "stopgrad-store.json"
FORMAT, FORMAT_OF_BANDS = 1, 2  # the second where channels are not three
SHARD = re.compile(r"(train|test)-[0-9]{5,}\.pixels", re.ASCII)  # as `writing` names them
MOST_SIDE, MOST_CHANNELS = 65_535, 1024  # px; bands


class Shard(NamedTuple):
    """A file of pixels."""

    file: str
    pictures: int
    sha256: str  # of all pixels of the split up to the end of this shard


class StoredSplit(NamedTuple):
    """The entry of a split in the manifest."""

    pictures: int
    class_names: tuple[str, ...]
    fingerprint: str
    shards: tuple[Shard, ...]


class StoreManifest(NamedTuple):
    """The contents of a store."""

    name: str  # of the data set
    origin: str  # the folder or file that was packed, "" for a name such as cifar10
    key: str  # of the images and settings that were packed
    side: int  # px, as asked for, 0 for none; smaller images of one size keep theirs
    height: int  # px
    width: int  # px
    splits: dict[str, StoredSplit]
    tables: dict[str, str]  # sha256 of the files that hold them
    channels: int = 3  # format 1 does not state it


def read_manifest(path: Path) -> StoreManifest:
    """The contents of a store, from its manifest.

    Raises:
        DataError: When it is unfinished, damaged or of another version.
        UnreadableError: When it cannot be read.
    """
    if not is_there(path / MANIFEST):
        raise DataError(
            f"the store {str(path)!r} is not finished",
            expected=f"a store with its {MANIFEST}, which is written last",
            hint="repeat the `stopgrad pack` command; it continues where it stopped",
        )
    with damage(path, MANIFEST):
        values = read_sealed(path / MANIFEST)
        if values.pop("format") != (FORMAT_OF_BANDS if "channels" in values else FORMAT):
            raise ValueError("it is of another version of stopgrad")
        splits = {name: _stored_split(split) for name, split in values.pop("splits").items()}
        if not {"train"} <= splits.keys() <= {"train", "test"}:
            raise ValueError(f"it has the splits {few(sorted(splits))}")
        manifest = typed(StoreManifest, {"channels": 3, **values, "splits": {}})._replace(
            splits=splits
        )
        if not (0 < manifest.height <= MOST_SIDE and 0 < manifest.width <= MOST_SIDE):
            raise ValueError(f"images of {manifest.width} x {manifest.height} px")
        if not 0 < manifest.channels <= MOST_CHANNELS:
            raise ValueError(f"images of {manifest.channels} channels")
        return manifest


def write_manifest(path: Path, manifest: StoreManifest) -> None:
    """Writes the manifest, which finishes a store."""
    splits = {
        name: {**split._asdict(), "shards": [shard._asdict() for shard in split.shards]}
        for name, split in manifest.splits.items()
    }
    known = {k: v for k, v in manifest._asdict().items() if (k, v) != ("channels", 3)}
    number = FORMAT_OF_BANDS if "channels" in known else FORMAT
    write_sealed(path / MANIFEST, {"format": number, **known, "splits": splits})


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Writes values with the sha256 of all of them."""
    values = json.loads(json.dumps(values))
    write_json(path, {**values, "seal": _seal(values)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Values that match their sha256; a ValueError or KeyError when they do not."""
    values: dict[str, Any] = read_json(path)
    if values.pop("seal") != _seal(values):
        raise ValueError("its seal does not match")
    return values


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _stored_split(values: dict[str, Any]) -> StoredSplit:
    """The entry of a split in a manifest, perhaps somebody else's; it may name only our shards.

    A ValueError or TypeError refuses it.
    """
    shards = tuple(typed(Shard, shard) for shard in values["shards"])
    names = [shard.file for shard in shards]
    if not all(SHARD.fullmatch(name) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"it names the shards {few(names)}")
    split = typed(StoredSplit, {**values, "shards": []})
    count = sum(shard.pictures for shard in shards)
    if not shards or min(shard.pictures for shard in shards) < 1 or count != split.pictures:
        raise ValueError(f"{count:,} images in shards, {split.pictures:,} in all")
    return split._replace(shards=shards, class_names=tuple(split.class_names))


@contextlib.contextmanager
def damage(path: Path, name: str) -> Iterator[None]:
    """Turns whatever goes wrong with a file of a store into the error for a damaged one.

    A file that cannot be read is not damaged: reads in here go through `read_patiently`, whose
    `UnreadableError` passes.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"the store {str(path)!r} is damaged: {name} ({reason})",
            expected="the files that `stopgrad pack` wrote",
            hint="see what else is wrong with `stopgrad verify`, then copy it or pack it again",
        ) from error
