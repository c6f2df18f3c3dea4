"""A spec -> what its pictures are like: damaged, tiny, equal, odd; formats, sizes and classes.

The damaged pictures are those that loading finds, by loading; then each picture is decoded once
more at full size. Everything is decoded anew, and loading finds the result in the cache. NumPy
alone, besides what decoding takes.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, get_args

import numpy as np

from stopgrad.config import BadImages
from stopgrad.errors import DataError
from stopgrad.images.damage import DamagedImagesError, refusal
from stopgrad.images.decoding import Damaged, strict_pillow
from stopgrad.images.gather import Order
from stopgrad.images.load import decode_all, find_source
from stopgrad.images.look import Look, Trait, look
from stopgrad.images.parallel import Attempt, on_all_cores
from stopgrad.images.source import Contents, Reader, Source
from stopgrad.images.types import Dataset, LeftOut, Track, no_progress

TRAITS: tuple[Trait, ...] = get_args(Trait)
LOOKED_AT = 16  # pictures in a task; each is decoded at full size


class Place(NamedTuple):
    """Which picture: its split ("train", "test") and its name there."""

    split: str
    name: str


class Size(NamedTuple):
    """Of an upright picture, px."""

    width: int
    height: int


class ClassCount(NamedTuple):
    """How many pictures a class has, damaged ones included."""

    name: str
    train: int
    test: int


class Findings(NamedTuple):
    """What was found in a data set. Lists are in the order of the pictures."""

    name: str
    packed: bool  # whether it is a store
    pictures: dict[str, int]  # of each split, damaged ones included
    damaged: tuple[LeftOut, ...]
    tiny: tuple[Place, ...]
    duplicates: tuple[tuple[Place, ...], ...]  # groups of pictures that are equal in every pixel
    odd: dict[Trait, tuple[Place, ...]]
    formats: dict[str, int]  # the most frequent first, as the sizes
    sizes: dict[Size, int]
    classes: tuple[ClassCount, ...]  # () without labels
    dataset: Dataset | None  # the readable pictures as training sees them; None: a split has none
    refusal: DataError | None  # why pretraining would not start on them

    @property
    def copies(self) -> tuple[Place, ...]:
        """Training pictures that are equal to an earlier one."""
        train = [[place for place in group if place.split == "train"] for group in self.duplicates]
        return tuple(place for group in train for place in group[1:])

    @property
    def leaked(self) -> tuple[tuple[Place, Place], ...]:
        """Pictures of the test split, each with the first training picture that is equal to it."""
        return tuple(
            (place, group[0])
            for group in self.duplicates
            if group[0].split == "train"
            for place in group
            if place.split == "test"
        )


def check_images(
    spec: str,
    *,
    side: int,
    tiny_below: float,
    bad_images: BadImages = "fail",
    track: Track = no_progress,
) -> Findings:
    """Decode everything, strictly, and say what is there. A store is decoded already.

    Args:
        spec: As for `load_dataset`; so are `side` and `bad_images`.
        side: px.
        tiny_below: px. A picture is tiny when its short side is below.
        bad_images: The policy by which damaged pictures are a refusal.
        track: Shows progress.

    Raises:
        DataError: When there is no data set of pictures and labels to look at.
    """
    source = find_source(spec)
    contents = source.open()
    loaded = _load(source, contents, Order(side, track))
    tally = _Tally(tiny_below=tiny_below, damaged=loaded.damaged)
    with strict_pillow():
        for split, reader in _readers(contents).items():
            for attempt in track(_looks(reader), f"looking at {split}", reader.length):
                tally.add(Place(split, attempt.name), attempt.result)
    damaged = tuple(tally.damaged.values())
    packed = source.store is not None  # its damaged pictures were left out by choice, and are gone
    pictures = {
        split: reader.length + packed * sum(left.split == split for left in loaded.damaged)
        for split, reader in _readers(contents).items()
    }
    too_many = refusal(
        () if packed else damaged, count=sum(pictures.values()), bad_images=bad_images
    )
    return Findings(
        name=source.name,
        packed=packed,
        pictures=pictures,
        damaged=damaged,
        tiny=tuple(tally.tiny),
        duplicates=tally.duplicates(),
        odd={trait: tuple(places) for trait, places in tally.odd.items()},
        formats={"packed": tally.formats.total()} if packed else dict(tally.formats.most_common()),
        sizes=dict(tally.sizes.most_common()),
        classes=_class_counts(contents),
        dataset=loaded.dataset,
        refusal=loaded.error or too_many,
    )


class _Loaded(NamedTuple):
    dataset: Dataset | None
    damaged: tuple[LeftOut, ...]
    error: DamagedImagesError | None  # instead of a data set


def _load(source: Source, contents: Contents, order: Order) -> _Loaded:
    """Decode as for training, whatever the cache holds."""
    try:
        entry = decode_all(source, contents, order)
    except DamagedImagesError as error:
        return _Loaded(None, error.damaged, error)
    dataset = Dataset(source.name, entry.train, entry.test, entry.left_out)
    return _Loaded(dataset, entry.left_out, None)


def _readers(contents: Contents) -> dict[str, Reader]:
    readers = {"train": contents.train, "test": contents.test}
    return {split: reader for split, reader in readers.items() if reader is not None}


def _looks(reader: Reader) -> Iterator[Attempt[Look | Damaged]]:
    with contextlib.closing(on_all_cores(reader.items(), look, at_a_time=LOOKED_AT)) as attempts:
        yield from attempts


class _Tally:
    """What has been seen so far."""

    def __init__(self, *, tiny_below: float, damaged: tuple[LeftOut, ...]) -> None:
        self.tiny_below = tiny_below
        self.damaged = {
            Place(split, name): LeftOut(split, name, why) for split, name, why in damaged
        }
        self.tiny: list[Place] = []
        self.odd: dict[Trait, list[Place]] = {trait: [] for trait in TRAITS}
        self.formats: Counter[str] = Counter()
        self.sizes: Counter[Size] = Counter()
        self._equal: dict[bytes, list[Place]] = {}

    def add(self, place: Place, seen: Look | Damaged) -> None:
        """Take in one more picture."""
        if isinstance(seen, Damaged):
            # New only if the file has changed since it was loaded a moment ago.
            self.damaged.setdefault(place, LeftOut(place.split, place.name, seen.reason))
            return
        self.formats[seen.format] += 1
        self.sizes[Size(seen.width, seen.height)] += 1
        if min(seen.width, seen.height) < self.tiny_below:
            self.tiny.append(place)
        for trait in seen.traits:
            self.odd[trait].append(place)
        self._equal.setdefault(seen.digest, []).append(place)

    def duplicates(self) -> tuple[tuple[Place, ...], ...]:
        """Groups of at least two equal pictures, in order of their first."""
        return tuple(tuple(places) for places in self._equal.values() if len(places) > 1)


def _class_counts(contents: Contents) -> tuple[ClassCount, ...]:
    names = contents.class_names
    counts = [_counts(reader, len(names)) for reader in (contents.train, contents.test)]
    return tuple(
        ClassCount(name, train, test) for name, train, test in zip(names, *counts, strict=True)
    )


def _counts(reader: Reader | None, classes: int) -> list[int]:
    if reader is None or reader.labels is None:
        return [0] * classes
    return [int(count) for count in np.bincount(reader.labels, minlength=classes)]
