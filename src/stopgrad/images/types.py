"""The types of this room: images in memory or on disk, and data sets before they are decoded.

`Images` holds (N, H, W, C) uint8 with labels (N,) int64 or none; C is 3, or the number of bands
that are not colours. A `DataSource` is made by looking at names, sizes and dates only; its `open`
reads labels and schemas, and the items of a `SplitReader` stream the encoded images in a fixed
order. NumPy only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from stopgrad.config import ALL_BANDS, BY_RULE, Bands, Reading
from stopgrad.images.pixels import Indices, Packed, Pixels

T = TypeVar("T")
Labels = npt.NDArray[np.int64]
GRAY = tuple(weight / 0.9999 for weight in (0.2989, 0.587, 0.114))
"""Weights of red, green and blue in gray: ITU-R BT.601 as torchvision rounds it, with sum 1."""
UNLABELLED = -1  # the label of an image without one, if others have labels
Rows = Pixels | Packed  # (N, H, W, C) uint8, read by row


class Track(Protocol):
    """How a caller shows progress: the same items come back, one by one."""

    def __call__(self, items: Iterable[T], description: str, total: int, /) -> Iterable[T]:
        """Pass through `total` items under a description."""
        ...


def no_progress(items: Iterable[T], description: str, total: int, /) -> Iterable[T]:
    """Show nothing."""
    return items


class Normalization(NamedTuple):
    """Mean and standard deviation of pixels / 255, by channel (R, G, B), or of gray alone."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Images:
    """Images of one size, with their labels if there are any.

    Attributes:
        pixels: (N, H, W, C) uint8: a C-contiguous array, which may be a memory map, or `Packed`.
            C is 3 for colours and gray, else the number of bands.
        labels: (N,) int64 in 0..C-1, `UNLABELLED` for an image without one; or None.
        class_names: C names, () when there are no labels.
        fingerprint: sha256 in hex of pixels, labels and class names, in order.
        sources: Where each image came from (a path relative to the data, `file:row` in
            Parquet), or ().
        whole_side: px. A whole image goes through an encoder with its short side reduced to
            this; views are cut from the unreduced pixels. 0: never reduced.
        known: The normalization of exactly these pixels, if a store has kept it.
    """

    pixels: Rows
    labels: Labels | None
    class_names: tuple[str, ...]
    fingerprint: str
    sources: tuple[str, ...] = ()
    whole_side: int = 0
    known: Normalization | None = None

    def __post_init__(self) -> None:
        assert len(self.pixels.shape) == 4, self.pixels.shape
        assert self.pixels.shape[3] > 1, self.pixels.shape
        assert self.pixels.dtype == np.uint8, self.pixels.dtype
        assert isinstance(self.pixels, Packed) or self.pixels.flags.c_contiguous
        assert self.labels is None or self.labels.shape == (len(self.pixels),)
        assert not self.sources or len(self.sources) == len(self.pixels)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def channels(self) -> int:
        """C of its pixels."""
        return self.pixels.shape[3]

    @property
    def whole_size(self) -> tuple[int, int]:
        """Height and width, px, of an image that goes through an encoder whole."""
        height, width = self.pixels.shape[1:3]
        short = min(height, width)
        if not 0 < self.whole_side < short:
            return height, width
        return round(height * self.whole_side / short), round(width * self.whole_side / short)

    def take(self, indices: Indices) -> Images:
        """The images at these indices (M,), in their order: copied, or still on disk.

        The fingerprint is derived from the parent's and the indices, so it needs no second pass.
        """
        indices = np.asarray(indices, dtype=np.int64)
        derived = hashlib.sha256(self.fingerprint.encode() + indices.astype("<i8").tobytes())
        return Images(
            pixels=_rows_at(self.pixels, indices),
            labels=None if self.labels is None else self.labels[indices],
            class_names=self.class_names,
            fingerprint=derived.hexdigest(),
            sources=tuple(self.sources[i] for i in indices) if self.sources else (),
            whole_side=self.whole_side,
        )

    def labelled(self) -> Images:
        """The images that have a label, still on disk; all of them if there are no labels."""
        if self.labels is None or self.labels.min() > UNLABELLED:
            return self
        return self.take(np.flatnonzero(self.labels != UNLABELLED))

    def with_pixels(self, pixels: Rows) -> Images:
        """Other pixels (M, H, W, C), to be seen whole at the same size, under this fingerprint.

        Labels, class names, sources and normalization belong to the old pixels and are dropped.
        """
        return replace(self, pixels=pixels, labels=None, class_names=(), sources=(), known=None)


def _rows_at(pixels: Rows, indices: Indices) -> Rows:
    return pixels.take(indices) if isinstance(pixels, Packed) else pixels[indices]


class DamagedImage(NamedTuple):
    """An image that cannot be read: its split ("train", "test"), its name there, and why."""

    split: str
    name: str
    reason: str


UnusedKind = Literal["file", "image", "label", "band"]  # file: clearly not an image


class Unused(NamedTuple):
    """Files, images or labels that are not used for one reason."""

    what: UnusedKind
    reason: str
    names: tuple[str, ...]  # below the root of the data, in order


class Levels(NamedTuple):
    """The values that became 0 and 255 in all images of one depth of a set; see `depth`."""

    depth: str
    black: float
    white: float


class Notes(NamedTuple):
    """Notes for a reader of the data: how they were understood, and what is not used."""

    remarks: tuple[str, ...] = ()  # each one clause without a full stop
    unused: tuple[Unused, ...] = ()
    scored: str = ""  # the data's name for the split that is scored, if not "test"
    levels: tuple[Levels, ...] = ()  # of images of more than 8 bits
    bands: Bands = ()  # that were asked for when the images were decoded

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Notes:
        """Notes from their JSON form."""
        unused = (Unused(what, reason, tuple(names)) for what, reason, names in values["unused"])
        levels = (Levels(*of) for of in values.get("levels", []))
        said, bands = tuple(values["remarks"]), tuple(values.get("bands", []))
        return cls(said, tuple(unused), values["scored"], tuple(levels), bands)

    def and_those(self, *others: Notes) -> Notes:
        """These and others, in order; the first to name the split that is scored counts."""
        remarks, unused, scored, levels, bands = zip(self, *others, strict=True)
        named, asked = next(filter(None, scored), ""), next(filter(None, bands), ())
        return Notes(sum(remarks, ()), sum(unused, ()), named, sum(levels, ()), asked)

    def count(self, what: str) -> int:
        """How many files, images or labels are not used."""
        return sum(len(group.names) for group in self.unused if group.what == what)


class Dataset(NamedTuple):
    """A named data set; `test` is the split that is scored, if it has one."""

    name: str
    train: Images
    test: Images | None
    damaged: tuple[DamagedImage, ...] = ()  # in neither split
    notes: Notes = Notes()


class Encoded(NamedTuple):
    """One image before decoding: a name for messages, and its file, its content or its values.

    Values are (H, W, C). None: it has no bytes; an error: why it cannot be read.
    """

    name: str
    data: bytes | Path | npt.NDArray[Any] | Exception | None
    stored: bool = False  # whether its values are pixels of a store

    def bands(self, asked: Bands) -> Bands:
        """The bands to read: of files those asked for, of a store its channels unchanged."""
        if not self.stored:
            return asked
        assert isinstance(self.data, np.ndarray)
        return () if self.data.shape[2] == 3 else ALL_BANDS


class SplitReader(NamedTuple):
    """One split: how many images, their labels (N,) or None, and a stream of them."""

    length: int
    labels: Labels | None
    items: Callable[[], Iterator[Encoded]]


class Contents(NamedTuple):
    """The splits of a data set and the C names of its classes, () without labels."""

    class_names: tuple[str, ...]
    train: SplitReader
    test: SplitReader | None
    notes: Notes = Notes()  # known only after reading

    @property
    def readers(self) -> dict[str, SplitReader]:
        """The splits that exist, by name."""
        return {"train": self.train} | ({"test": self.test} if self.test else {})


class FileStamp(NamedTuple):
    """Path, bytes and date (ns) of a file, which show whether it has changed."""

    path: str
    size: int
    modified: int


class DataSource(NamedTuple):
    """A data set that was found but not yet read; `root` and `stamps` are part of its key."""

    name: str
    root: str
    stamps: tuple[FileStamp, ...]
    open: Callable[[], Contents]
    store: Path | None = None  # where its decoded pixels lie, if it is a store
    notes: Notes = Notes()  # known from the names alone
    reading: Reading = BY_RULE
    again: Callable[[Reading], DataSource] | None = None  # of rows in memory, by other columns

    def read_by(self, reading: Reading) -> DataSource:
        """The same images, read in this way."""
        own = self.reading.image_column, self.reading.label_column
        if self.again is None or own == (reading.image_column, reading.label_column):
            return self._replace(reading=reading)
        return self.again(reading)._replace(reading=reading)


def stamp(path: Path | str, *, name: str) -> FileStamp:
    """The stamp of a file (or of what it links to), under a name, as text in any locale."""
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    try:
        found = os.stat(path)
    except OSError:  # a broken link: decoding will name it
        return FileStamp(name, -1, -1)
    return FileStamp(name, found.st_size, found.st_mtime_ns)


def seal_fingerprint(
    digest: hashlib._Hash,
    *,
    shape: tuple[int, ...],
    labels: Labels | None,
    class_names: Sequence[str],
) -> str:
    """The fingerprint of images: sha256 in hex of what is seen; no paths, no dates, no formats.

    Args:
        digest: A sha256 that has already taken in the pixels, in order. It is not changed.
        shape: (N, H, W, C) of all of them.
        labels: (N,) or None.
        class_names: C names.
    """
    digest = digest.copy()
    digest.update(json.dumps([list(shape), labels is not None, list(class_names)]).encode())
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()
