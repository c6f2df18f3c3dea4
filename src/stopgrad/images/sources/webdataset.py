"""WebDataset shards (tar files of KEY.jpg with KEY.cls, KEY.json or KEY.txt) -> a `DataSource`.

Nothing is unpacked: shards are read from first to last, in the order of their names, once for
names and labels and once for the images. A shard belongs to the split that its name mentions.
The label of an image is that in KEY.cls or the like (`PLAIN`, also followed by .txt), else the one
in KEY.json under a name for labels, else KEY.txt, if its texts are classes and not captions: each
occurs in several samples.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from stopgrad.config import Reading
from stopgrad.errors import DataError
from stopgrad.images.sources.endings import SUFFIXES
from stopgrad.images.sources.labels import Label, fraction_among, labels_of_texts
from stopgrad.images.sources.named_splits import NamedSplit, contents_of
from stopgrad.images.sources.names import called_as_labels, split_in
from stopgrad.images.sources.tars import TarMember, tar_members
from stopgrad.images.types import (
    Contents,
    DataSource,
    Encoded,
    Notes,
    Unused,
    UnusedKind,
    stamp,
)

PLAIN = ("cls", "class", "label", "target")  # members that are a label
SIDECARS = (*PLAIN, "json", "txt")  # where a label may be; the first one that has any counts
MOST_TEXT = 1 << 16  # bytes of a label
MOST_BYTES = 1 << 30  # of an image
LOOKED_AT = 100  # members that tell whether a tar is a shard
PER_CLASS = 2  # samples at least, on average, for texts to be classes


class _Sample(NamedTuple):
    """An image in a shard, and the texts of its sidecars."""

    name: str  # of the shard and of the member
    place: int  # index of the member in its shard
    texts: dict[str, str]  # by sidecar


class _Shard(NamedTuple):
    path: Path
    name: str  # below the data
    samples: tuple[_Sample, ...]
    unused: Mapping[tuple[UnusedKind, str], list[str]]  # by what and why


def webdataset_source(
    files: Mapping[str, Path], reading: Reading, *, name: str, root: str
) -> DataSource:
    """Shards as a data set.

    Args:
        files: The shards by their names below the data.
        reading: The split that is scored, by rule the first with labels.
        name: Of the data set.
        root: The path or pattern that the user has named.
    """
    stamps = tuple(stamp(file, name=name) for name, file in files.items())
    return DataSource(name, root, stamps, lambda: _open(files, root, reading.split))


def is_shard(path: Path) -> bool:
    """Whether a tar file begins like a shard: with an image and a label of the same key."""
    images, labels = set[str](), set[str]()
    for member in itertools.islice(tar_members(path), LOOKED_AT):
        key, ending = _key(member.name)
        if f".{ending}" in SUFFIXES:
            images.add(key)
        # Below class folders, JSON files next to images do not make a shard.
        elif _sidecar(ending) in PLAIN or (ending == "json" and key.startswith("/")):
            labels.add(key)
    return bool(images & labels)


def _open(files: Mapping[str, Path], where: str, asked: str) -> Contents:
    by_word: dict[str, list[_Shard]] = {}
    for name, path in files.items():
        by_word.setdefault(split_in(name), []).append(_read(path, name))
    splits = [_split(word, shards) for word, shards in by_word.items()]
    notes = Notes(tuple(_gaps([*files])), tuple(_unused(by_word)))
    contents = contents_of([split for split in splits if split.names], asked, notes=notes)
    if contents is None:
        raise DataError(
            f"no images to train on in {where!r}",
            expected="tar files with members that end in .jpg, .png or the like",
            hint="name the shards that hold the images to train on",
        )
    return contents


def _key(name: str) -> tuple[str, str]:
    """The key of a sample, up to the first dot of its own name, and the ending after it."""
    folder, _, last = name.removeprefix("./").rpartition("/")
    key, _, ending = last.partition(".")
    return f"{folder}/{key}", ending.lower()


def _sidecar(ending: str) -> str:
    """Which of the sidecars a member is, "" for others: `cls.txt` is cls."""
    sidecar = ending.removesuffix(".txt")
    return sidecar if sidecar in SIDECARS else ""


def _read(path: Path, name: str) -> _Shard:
    """The samples of a shard in the order of their images."""
    samples: dict[str, _Sample] = {}
    texts: dict[str, dict[str, str]] = {}
    unused: dict[tuple[UnusedKind, str], list[str]] = {}
    for place, member in enumerate(tar_members(path)):
        full = f"{name}/{member.name}"
        key, ending = _key(member.name)
        if not member.is_file:
            unused.setdefault(("file", "links and the like in an archive"), []).append(full)
        elif PurePosixPath(f"x.{ending}").suffix in SUFFIXES:
            sample = _Sample(full, place, texts.setdefault(key, {}))
            if key in samples:
                # KEY.jpg before KEY.depth.png, whichever comes first
                plain = "." not in ending and "." in _key(samples[key].name)[1]
                sample, samples[key] = (samples[key], sample) if plain else (sample, samples[key])
                unused.setdefault(("image", "further images of a sample"), []).append(sample.name)
            samples.setdefault(key, sample)
        elif (sidecar := _sidecar(ending)) and member.size <= MOST_TEXT:
            text = member.read().decode("utf-8", "replace")
            if texts.setdefault(key, {}).setdefault(sidecar, text) != text:
                unused.setdefault(("label", "second labels of a sample"), []).append(full)
        else:
            reason = f".{ending} members of an archive are not read" if ending else "no image"
            unused.setdefault(("file", reason), []).append(full)
    for key in (key for key in texts if key not in samples):
        without = unused.setdefault(("label", "without an image"), [])
        without += (f"{name}/{key.lstrip('/')}.{sidecar}" for sidecar in texts[key])
    in_order = sorted(samples.values(), key=lambda sample: sample.place)
    return _Shard(path, name, tuple(in_order), unused)


def _split(word: str, shards: Sequence[_Shard]) -> NamedSplit:
    samples = [sample for shard in shards for sample in shard.samples]
    names = tuple(sample.name for sample in samples)
    labels: list[Label] | None = None
    remarks = []
    for sidecar in SIDECARS:
        if not any(sidecar in sample.texts for sample in samples):
            continue
        values = _labels(sidecar, [sample.texts.get(sidecar) for sample in samples])
        known = [value for value in values if value is not None]
        if labels is not None:
            if known and sidecar != "txt":
                remarks.append(f".{sidecar} members hold labels too, which are not used")
        elif sidecar == "txt" and PER_CLASS * len(set(known)) > len(known):
            remarks.append(
                f"the {len(set(known)):,} texts of .txt members are captions, not classes"
            )
        elif known:
            labels = values
        else:
            called = ", called label, class or the like" if sidecar == "json" else ""
            remarks.append(f"no .{sidecar} member holds a single label{called}")
    items = functools.partial(_items, shards)
    return NamedSplit(word, names, items, labels, tuple(remarks))


def _labels(sidecar: str, texts: Sequence[str | None]) -> list[Label]:
    """The labels in the sidecars of one kind: whole numbers, texts, or None."""
    found = labels_of_texts([_in_json(text) if sidecar == "json" else text for text in texts])
    return [None] * len(found) if fraction_among(found) else found


def _in_json(text: str | None) -> str | None:
    """The label in a JSON object, or in its list of one."""
    try:
        values = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    values = values if isinstance(values, dict) else {}
    names = called_as_labels(tuple(values))
    value: Any = next((values[name] for name in names if values[name] is not None), None)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return str(value) if isinstance(value, int | float | str) else None


def _gaps(names: Sequence[str]) -> list[str]:
    """Remarks on missing ones of numbered shards, by the start of their names."""
    numbers: dict[str, set[int]] = {}
    for name in names:
        if match := re.search(r"(.*?)(\d+)(?=\.tar)", name):
            numbers.setdefault(match[1], set()).add(int(match[2]))
    return [
        f"{max(found) - min(found) + 1 - len(found):,} shards of {begin!r} are not there"
        for begin, found in numbers.items()
        if max(found) - min(found) + 1 > len(found) > 1
    ]


def _unused(by_word: Mapping[str, Sequence[_Shard]]) -> Iterator[Unused]:
    together: dict[tuple[UnusedKind, str], list[str]] = {}
    for shard in (shard for shards in by_word.values() for shard in shards):
        for kind, names in shard.unused.items():
            together.setdefault(kind, []).extend(names)
    for (what, reason), names in together.items():
        yield Unused(what, reason, tuple(names))


def _items(shards: Sequence[_Shard]) -> Iterator[Encoded]:
    for shard in shards:
        wanted = {sample.place: sample.name for sample in shard.samples}
        for place, member in enumerate(tar_members(shard.path)):
            if place in wanted:
                yield Encoded(wanted[place], _content(member))


def _content(member: TarMember) -> bytes | Exception:
    if member.size > MOST_BYTES:
        return ValueError(f"{member.size:,} bytes, more than {MOST_BYTES:,}")
    return member.read()
