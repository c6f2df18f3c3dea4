"""A spec -> findings on its images: damaged, tiny, equal, odd; formats, sizes and classes.

Damaged images are found by loading the data set; then each image is decoded once more at full size.
The cache is not read but replaced, so that a later load finds the result there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from stopgrad.config import BY_RULE, BadImages, Bands, Reading, are_colours
from stopgrad.errors import DataError
from stopgrad.images.decoding import to_layers, turn_of
from stopgrad.images.depth import RawImage, raw_of
from stopgrad.images.gather import DamagedImagesError, on_all_cores, refusal
from stopgrad.images.load import decode_again
from stopgrad.images.opening import Damaged, Source, guarded, opened, strict_pillow
from stopgrad.images.sources.find import find_source
from stopgrad.images.types import (
    UNLABELLED,
    Contents,
    DamagedImage,
    Dataset,
    DataSource,
    Encoded,
    Levels,
    Notes,
    Track,
    no_progress,
)
from stopgrad.storage import read_patiently

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

Trait = Literal[
    "animated",
    "sixteen_bit",
    "cmyk",
    "palette",
    "alpha",
    "rotated",
    "elongated",
    "few_colours",
    "constant",
]
TRAITS: tuple[Trait, ...] = get_args(Trait)
LONGEST = 3  # times the short side; a square holds less than a third of a longer image
FEW = 4  # distinct colours that are very few
AT_A_TIME = 16  # images in a task; each is decoded at full size


class ImagePlace(NamedTuple):
    """The location of an image: its split ("train", "test") and its name there."""

    split: str
    name: str


class ImageSize(NamedTuple):
    """The size of an upright image, px."""

    width: int
    height: int


class ClassCount(NamedTuple):
    """How many images a class has, damaged ones included."""

    name: str
    train: int
    test: int


class Findings(NamedTuple):
    """The findings on a data set. Lists are in the order of the images."""

    name: str
    packed: bool  # whether it is a store
    pictures: dict[str, int]  # how many images each split has, damaged ones included
    damaged: tuple[DamagedImage, ...]
    tiny: tuple[ImagePlace, ...]
    duplicates: tuple[tuple[ImagePlace, ...], ...]  # groups of images that are equal in every pixel
    odd: dict[Trait, tuple[ImagePlace, ...]]
    formats: dict[str, int]  # most frequent first, like the sizes
    sizes: dict[ImageSize, int]
    classes: tuple[ClassCount, ...]  # () without labels
    notes: Notes
    dataset: Dataset | None  # the readable images as training sees them; None: a split has none
    refusal: DataError | None  # why pretraining would not start on them

    @property
    def copies(self) -> tuple[ImagePlace, ...]:
        """Training images that are equal to an earlier one."""
        train = [[place for place in group if place.split == "train"] for group in self.duplicates]
        return tuple(place for group in train for place in group[1:])

    @property
    def leaked(self) -> tuple[tuple[ImagePlace, ImagePlace], ...]:
        """Images of the test split, each with the first training image that is equal to it."""
        return tuple(
            (place, group[0])
            for group in self.duplicates
            if group[0].split == "train"
            for place in group
            if place.split == "test"
        )


def check_images(
    spec: str | DataSource,
    *,
    side: int,
    tiny_below: float,
    reading: Reading = BY_RULE,
    bad_images: BadImages = "fail",
    track: Track = no_progress,
) -> Findings:
    """Decode everything, strictly, and describe it. A store is already decoded.

    Args:
        spec: As for `load_dataset`; so are `side`, `reading` and `bad_images`.
        side: px.
        tiny_below: px; of the short side.
        reading: The columns that are read.
        bad_images: The policy that decides whether damaged images are refused.
        track: Shows progress.

    Raises:
        DataError: When there is no data set of images and labels to check.
    """
    where = Path(spec if isinstance(spec, str) else spec.root)
    read = functools.partial(_read, spec, reading=reading, side=side, track=track)
    source, contents, loaded = read_patiently(where, read)
    dataset = loaded if isinstance(loaded, Dataset) else None
    tally = _Traits(tiny_below=tiny_below, damaged=loaded.damaged)
    levels = dataset.notes.levels if dataset else ()
    packed = source.store is not None  # its damaged images were left out by choice, and are gone
    look = functools.partial(inspect_image, levels=levels, bands=source.reading.bands)
    _look_at_all(contents, look, tally, track)
    damaged = tuple(tally.damaged.values())
    counts = _counts(contents, left_out=loaded.damaged if packed else ())
    refused = () if packed else damaged
    too_many = refusal(refused, count=sum(counts.values()), bad_images=bad_images)
    return Findings(
        name=source.name,
        packed=packed,
        pictures=counts,
        damaged=damaged,
        tiny=tuple(tally.tiny),
        duplicates=tally.duplicates(),
        odd={trait: tuple(places) for trait, places in tally.odd.items()},
        formats={"packed": tally.formats.total()} if packed else dict(tally.formats.most_common()),
        sizes=dict(tally.sizes.most_common()),
        classes=_class_counts(contents),
        notes=dataset.notes if dataset else source.notes.and_those(contents.notes),
        dataset=dataset,
        refusal=too_many if isinstance(loaded, Dataset) else loaded,
    )


def _read(
    spec: str | DataSource, *, reading: Reading, side: int, track: Track
) -> tuple[DataSource, Contents, Dataset | DamagedImagesError]:
    source = find_source(spec, reading=reading) if isinstance(spec, str) else spec
    source = source.read_by(reading)
    contents = source.open()
    return source, contents, _loaded(source, contents, side=side, track=track)


def _loaded(
    source: DataSource, contents: Contents, *, side: int, track: Track
) -> Dataset | DamagedImagesError:
    """The images as training sees them, or why it sees none; both list the damaged ones."""
    try:
        return decode_again(source, contents, side=side, track=track)
    except DamagedImagesError as error:
        return error


def _look_at_all(
    contents: Contents,
    look: Callable[[Encoded], Inspected | Damaged],
    tally: _Traits,
    track: Track,
) -> None:
    with strict_pillow():
        for split, reader in contents.readers.items():
            attempts = on_all_cores(reader.items(), look, at_a_time=AT_A_TIME)
            with contextlib.closing(attempts):
                for name, result in track(attempts, f"looking at {split}", reader.length):
                    tally.add(ImagePlace(split, name), result)


def _counts(contents: Contents, *, left_out: Sequence[DamagedImage]) -> dict[str, int]:
    """How many images each split has, including those that a store has left out."""
    gone = Counter(image.split for image in left_out)
    return {split: reader.length + gone[split] for split, reader in contents.readers.items()}


class _Traits:
    """The traits of the images seen so far."""

    def __init__(self, *, tiny_below: float, damaged: tuple[DamagedImage, ...]) -> None:
        self.tiny_below = tiny_below
        self.damaged = {ImagePlace(image.split, image.name): image for image in damaged}
        self.tiny: list[ImagePlace] = []
        self.odd: dict[Trait, list[ImagePlace]] = {trait: [] for trait in TRAITS}
        self.formats: Counter[str] = Counter()
        self.sizes: Counter[ImageSize] = Counter()
        self._equal: dict[bytes, list[ImagePlace]] = {}

    def add(self, place: ImagePlace, seen: Inspected | Damaged) -> None:
        """Record one more image."""
        if isinstance(seen, Damaged):
            # New only if the file has changed since it was loaded a moment ago.
            self.damaged.setdefault(place, DamagedImage(*place, seen.reason))
            return
        self.formats[seen.format] += 1
        self.sizes[seen.size] += 1
        if min(seen.size) < self.tiny_below:
            self.tiny.append(place)
        for trait in seen.traits:
            self.odd[trait].append(place)
        self._equal.setdefault(seen.digest, []).append(place)

    def duplicates(self) -> tuple[tuple[ImagePlace, ...], ...]:
        """Groups of at least two equal images, in order of their first."""
        return tuple(tuple(places) for places in self._equal.values() if len(places) > 1)


def _class_counts(contents: Contents) -> tuple[ClassCount, ...]:
    names = contents.class_names
    counts = [
        np.zeros(len(names), np.int64)
        if reader is None or reader.labels is None
        else np.bincount(reader.labels[reader.labels != UNLABELLED], minlength=len(names))
        for reader in (contents.train, contents.test)
    ]
    return tuple(
        ClassCount(name, int(train), int(test))
        for name, train, test in zip(names, *counts, strict=True)
    )


class Inspected(NamedTuple):
    """A readable image described, upright and at full size."""

    format: str  # by Pillow's name: PNG, JPEG, ...
    size: ImageSize
    traits: tuple[Trait, ...]
    digest: bytes  # of size and pixels: equal for equal images in any lossless format


def inspect_image(
    encoded: Encoded, *, levels: Sequence[Levels] = (), bands: Bands = ()
) -> Inspected | Damaged:
    """Decode one image at full size, as strictly as for training, and describe it."""
    chosen = encoded.bands(bands)
    return guarded(encoded, functools.partial(_inspect, levels=levels, bands=chosen))


def _inspect(file: Source, *, levels: Sequence[Levels], bands: Bands) -> Inspected:
    with opened(file, bands=bands) as image:
        raw = raw_of(image)  # before anything loads the pixels
        header = _traits_of_header(image, deep=raw is not None and raw.depth is not None)
        kind = image.format or "unknown"
        turn = turn_of(image)
        layers = to_layers(raw or image, levels, bands)
        alpha = image.has_transparency_data and are_colours(bands)
        upright = layers if turn is None else [layer.transpose(turn) for layer in layers]
        size = ImageSize(*upright[0].size)
        traits: dict[Trait, bool] = {
            **header,
            "alpha": alpha,
            "rotated": turn is not None,
            "elongated": max(size) > LONGEST * min(size),
            **_traits_of_colours(upright),
            "animated": _is_animated(image),
        }
    digest = hashlib.blake2b(repr(upright[0].size).encode(), digest_size=16)
    for layer in upright:
        digest.update(layer.tobytes())
    found = tuple(trait for trait, holds in traits.items() if holds)
    return Inspected(kind, size, found, digest.digest())


def _traits_of_header(image: ImageFile | RawImage, *, deep: bool) -> dict[Trait, bool]:
    """The traits that only the header shows; decoding converts or drops them."""
    return {
        "sixteen_bit": deep or _is_deep(image),
        "cmyk": image.mode == "CMYK",
        "palette": image.mode in ("P", "PA"),
    }


def _is_deep(image: ImageFile | RawImage) -> bool:
    """Whether the channels of a colour image have 16 bits, of which Pillow keeps 8.

    Its names of raw layouts end in ;16, ;16B, ...; PPM gives the largest value instead.
    """
    arguments = [tile.args for tile in getattr(image, "tile", [])]
    parts = [part for each in arguments for part in (each if isinstance(each, tuple) else (each,))]
    if image.format == "PPM":
        return any(isinstance(part, int) and part > 255 for part in parts)
    return any(";16" in part for part in parts if isinstance(part, str))


def _traits_of_colours(layers: Sequence[Image]) -> dict[Trait, bool]:
    colours = [len(layer.getcolors(FEW) or range(FEW + 1)) for layer in layers]  # or more than few
    return {"few_colours": 1 < max(colours) <= FEW, "constant": max(colours) == 1}


def _is_animated(image: ImageFile | RawImage) -> bool:
    """Whether there are more frames or pages; an unreadable second one does not count."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:
        return False
