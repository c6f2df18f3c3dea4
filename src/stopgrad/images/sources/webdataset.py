"""WebDataset shards (tar files of KEY.jpg with KEY.cls, KEY.json or KEY.txt) -> a `DataSource`.

Nothing is unpacked: shards are read from first to last, in the order of their names, once for
names and labels and once for the images. A shard belongs to the split that its name mentions.
The label of an image is what KEY.cls or the like says (`PLAIN`, also with .txt behind), else what
KEY.json says under a name that columns of labels have too, else KEY.txt, where its texts are
classes and no captions: each stands in several samples. A column of labels that the user names is
the member KEY.NAME, or NAME in KEY.json; one of images is the member KEY.NAME.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from stopgrad.config import BY_RULE, Reading
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
        reading: The split that is scored, by rule the first with labels; and what is read as image
            and as label of each sample.
        name: Of the data set.
        root: The path or pattern that the user has named.
    """
    stamps = tuple(stamp(file, name=name) for name, file in files.items())
    return DataSource(name, root, stamps, lambda: _open(files, root, reading))


def is_shard(path: Path, reading: Reading = BY_RULE) -> bool:
    """Whether a tar file begins as a shard does: with a label beside an image of the same key."""
    plain = (*PLAIN, reading.label_column) if reading.label_column else PLAIN
    images, labels = set[str](), set[str]()
    for member in itertools.islice(tar_members(path), LOOKED_AT):
        key, ending = _key(member.name)
        if _is_image(ending, reading):
            images.add(key)
        # A folder of images may have JSON files beside them, below folders that are classes.
        elif _sidecar(ending, reading) in plain or (ending == "json" and key.startswith("/")):
            labels.add(key)
    return bool(images & labels)


def _open(files: Mapping[str, Path], where: str, reading: Reading) -> Contents:
    by_word: dict[str, list[_Shard]] = {}
    for name, path in files.items():
        by_word.setdefault(split_in(name), []).append(_read(path, name, reading))
    splits = [_split(word, shards, reading.label_column) for word, shards in by_word.items()]
    if reading.label_column and not any(split.has_labels for split in splits):
        raise _no_labels(by_word, reading.label_column)
    notes = Notes(tuple(_gaps([*files])), tuple(_unused(by_word)))
    contents = contents_of([split for split in splits if split.names], reading.split, notes=notes)
    if contents is None:
        raise _no_images(where, reading.image_column)
    return contents


def _key(name: str) -> tuple[str, str]:
    """The key of a sample, up to the first dot of its own name, and the ending after it."""
    folder, _, last = name.removeprefix("./").rpartition("/")
    key, _, ending = last.partition(".")
    return f"{folder}/{key}", ending.lower()


def _is_image(ending: str, reading: Reading) -> bool:
    """Whether a member is an image by its last ending, or has the name that the user gives."""
    return _is_named(ending, reading.image_column) or (
        PurePosixPath(f"x.{ending}").suffix in SUFFIXES
    )


def _is_named(ending: str, name: str) -> bool:
    return bool(name) and ending == name.lower()


def _sidecar(ending: str, reading: Reading) -> str:
    """Which of the sidecars a member is, "" for others: `cls.txt` is cls."""
    sidecar = ending.removesuffix(".txt")
    if any(_is_named(each, reading.label_column) for each in (ending, sidecar)):
        return reading.label_column
    return sidecar if sidecar in SIDECARS else ""


def _read(path: Path, name: str, reading: Reading) -> _Shard:
    """The samples of a shard in the order of their images."""
    samples: dict[str, _Sample] = {}
    texts: dict[str, dict[str, str]] = {}
    unused: dict[tuple[UnusedKind, str], list[str]] = {}
    for place, member in enumerate(tar_members(path)):
        full = f"{name}/{member.name}"
        key, ending = _key(member.name)
        if not member.is_file:
            unused.setdefault(("file", "links and special files in an archive"), []).append(full)
        elif _is_image(ending, reading):
            sample = _Sample(full, place, texts.setdefault(key, {}))
            other: _Sample | None = sample
            if _is_named(ending, reading.image_column) or not reading.image_column:
                samples[key], other = _first_image(samples.get(key), sample)
            if other is not None:
                unused.setdefault(("image", "further images of a sample"), []).append(other.name)
        elif (sidecar := _sidecar(ending, reading)) and member.size <= MOST_TEXT:
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


def _first_image(before: _Sample | None, found: _Sample) -> tuple[_Sample, _Sample | None]:
    """The image of a sample, and the other: KEY.jpg before KEY.depth.png, in whatever order."""
    if before is None:
        return found, None
    later, earlier = ("." in _key(sample.name)[1] for sample in (before, found))
    return (found, before) if later and not earlier else (before, found)


def _split(word: str, shards: Sequence[_Shard], wanted: str) -> NamedSplit:
    samples = [sample for shard in shards for sample in shard.samples]
    names = tuple(sample.name for sample in samples)
    labels, remarks = _named_labels(samples, wanted) if wanted else _labels_by_rule(samples)
    return NamedSplit(word, names, functools.partial(_items, shards), labels, tuple(remarks))


def _named_labels(
    samples: Sequence[_Sample], wanted: str
) -> tuple[list[Label] | None, Sequence[str]]:
    """The labels that the user names: members of that ending, or else values in KEY.json."""
    if any(wanted in sample.texts for sample in samples):
        labels = _labels(wanted, [sample.texts.get(wanted) for sample in samples])
    else:
        labels = _labels("json", [sample.texts.get("json") for sample in samples], wanted)
    return (labels if any(label is not None for label in labels) else None), ()


def _labels_by_rule(samples: Sequence[_Sample]) -> tuple[list[Label] | None, Sequence[str]]:
    """The labels of the first of the sidecars that has some, and remarks on the others."""
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
    return labels, remarks


def _no_images(where: str, wanted: str) -> DataError:
    hint = "name the shards that hold the images to train on"
    return DataError(
        f"no images to train on in {where!r}",
        expected=f"tar files with members that end in .{wanted or 'jpg, .png or the like'}",
        hint=f"correct --image-column, or {hint}" if wanted else hint,
    )


def _no_labels(by_word: Mapping[str, Sequence[_Shard]], wanted: str) -> DataError:
    """The error for a name under which no sample has a label, with the names that there are."""
    samples = (s for shards in by_word.values() for shard in shards for s in shard.samples)
    names = dict[str, None]()
    for sample in itertools.islice(samples, LOOKED_AT):
        names |= dict.fromkeys(f".{sidecar}" for sidecar in sample.texts)
        names |= dict.fromkeys(_object(sample.texts.get("json")))
    known = ", ".join(names)[:200] or "KEY.json or KEY.cls"
    return DataError(
        f"no labels called {wanted!r} beside the images",
        expected=f"whole numbers or texts, in one of {known}",
        hint="correct --label-column",
    )


def _labels(sidecar: str, texts: Sequence[str | None], wanted: str = "") -> list[Label]:
    """What members beside images say: whole numbers, texts, or nothing."""
    is_json = sidecar == "json"
    found = labels_of_texts([_in_json(text, wanted) if is_json else text for text in texts])
    return [None] * len(found) if fraction_among(found) else found


def _in_json(text: str | None, wanted: str) -> str | None:
    """The label in an object, by rule or of this name; a list of one as its value."""
    values = _object(text)
    names = [wanted] if wanted else called_as_labels(tuple(values))
    value: Any = next((values[name] for name in names if values.get(name) is not None), None)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return str(value) if isinstance(value, int | float | str) else None


def _object(text: str | None) -> dict[str, Any]:
    """The object that a text of JSON holds; {} for others."""
    try:
        values = json.loads(text or "null")
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


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
