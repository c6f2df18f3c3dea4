"""A spec such as `cifar10`, `hf:OWNER/NAME` or a path -> a `Dataset`, from the cache if it can.

A packed store is taken as it is: nothing of it is decoded, cached or held in memory.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from stopgrad.config import BadImages
from stopgrad.errors import ConfigError, DataError
from stopgrad.images.cache import load_cached
from stopgrad.images.damage import DamagedImagesError, name_damaged, refusal
from stopgrad.images.decoding import Damaged, Frame, OtherSize, decode, strict_pillow
from stopgrad.images.packed import Pixels
from stopgrad.images.sources.arrays import images_from_arrays
from stopgrad.images.sources.find import find_source
from stopgrad.images.store import read_store
from stopgrad.images.types import DamagedImage, Dataset, Encoded, Images, Track, no_progress
from stopgrad.images.verify import changes_since_packing

NAMED = 3  # classes that `how_it_was_read` names

Changed = Literal["fail", "tell"]

log = logging.getLogger(__name__)


def load_dataset(
    spec: str,
    *,
    side: int | None = None,
    bad_images: BadImages = "fail",
    changed: Changed = "fail",
    track: Track = no_progress,
) -> Dataset:
    """Load a data set by name or path.

    Args:
        spec: `mnist5k`, `cifar10`, `cifar100`, `hf:OWNER/NAME`, `hf:OWNER/NAME/CONFIG`, or the
            path of a packed store, of a folder of Parquet files or of images. A known name wins
            over a folder of the same name; `./cifar10` is the folder.
        side: px. Images that all have one size, at most `side`, keep it; all others are
            resized by their short side and cropped at the centre to side x side. Those of a
            store stay as they were packed; this is the side at which they are looked at whole.
        bad_images: What damaged images do: fail, or skip (left out, named in a warning and in
            `damaged`; more than 5 % of them fail even so). A store has left them out already.
        changed: What a store does whose folder has changed since it was packed: fail, or tell.
        track: Shows progress.

    Raises:
        DataError: For what is missing or unfit, in one line.
        DamagedImagesError: For damaged images; it holds the list of all of them.
        ConfigError: For a side below 1.
    """
    if side is not None and side < 1:
        raise ConfigError(f"side {side}", expected="at least 1 px", hint="use for example 32")
    source = find_source(spec)
    if source.store is not None:
        return _load_store(source.store, side=side, changed=changed)
    dataset = load_cached(source, side=side, track=track)
    damaged = dataset.damaged
    count = len(dataset.train) + len(dataset.test or ()) + len(damaged)
    if error := refusal(damaged, count=count, bad_images=bad_images):
        raise error
    if damaged:
        named = name_damaged(damaged)
        log.warning("%s: left out %d damaged: %s", source.name, len(damaged), named)
    return dataset


def _load_store(path: Path, *, side: int | None, changed: Changed) -> Dataset:
    if (error := changes_since_packing(path)) is not None:
        if changed == "fail":
            raise error
        log.warning("%s; going on with the store as it is", error.found)
    return read_store(path, side=side)


def load_image_files(files: Sequence[Path], *, like: Images) -> Images:
    """Single image files without labels, in order, as if they belonged to a data set.

    Where its images are square, others are resized by their short side and cropped at the centre.

    Args:
        files: At least one.
        like: Images of the size that these are to have.

    Raises:
        DamagedImagesError: Naming all that cannot be read.
        DataError: For an image of another size, where those of the data set are not square.
    """
    height, width = like.pixels.shape[1:3]
    frame = Frame(height, width, fit=height == width)
    with strict_pillow():
        decoded = [decode(Encoded(str(file), file), frame) for file in files]
    damaged = [DamagedImage("train", d.name, d.reason) for d in decoded if isinstance(d, Damaged)]
    if damaged:
        raise DamagedImagesError(
            damaged,
            found=f"{len(damaged)} of {len(files)} images cannot be read: {name_damaged(damaged)}",
            expected="image files that can be read to their end",
            hint="check the paths, or repair the files",
        )
    pixels = [_of_this_size(d, file, frame) for d, file in zip(decoded, files, strict=True)]
    found = images_from_arrays(np.stack(pixels), sources=[str(file) for file in files])
    return replace(found, whole_side=like.whole_side)  # seen whole at the same size


def _of_this_size(decoded: Pixels | OtherSize | Damaged, file: Path, frame: Frame) -> Pixels:
    assert not isinstance(decoded, Damaged)
    if isinstance(decoded, OtherSize):
        raise DataError(
            f"{str(file)!r} is {decoded.width} x {decoded.height} px",
            expected=f"{frame.width} x {frame.height} px, the size of the run's images",
            hint="resize it; only square images are resized by themselves",
        )
    return decoded


def how_it_was_read(dataset: Dataset) -> str:
    """One sentence without a full stop, so that no folder becomes a class unnoticed."""
    train, test = dataset.train, dataset.test
    height, width = train.pixels.shape[1:3]
    counts = f"{len(train):,} images to train on"
    if test is not None:
        counts += f", {len(test):,} to test on"
    return f"read {dataset.name}: {counts}, {width} x {height} px; {_labels(train)}"


def _labels(train: Images) -> str:
    if train.labels is None:
        folders = {name.rpartition("/")[0] for name in train.sources}
        nested = len(folders) > 1
        return f"no labels ({len(folders):,} folders are no classes)" if nested else "no labels"
    names = ", ".join(map(repr, train.class_names[:NAMED]))
    more = ", ..." if len(train.class_names) > NAMED else ""
    return (
        f"{len(train.class_names):,} classes ({names}{more}), used only to measure: pretraining "
        "sees no label"
    )
