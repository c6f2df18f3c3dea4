"""A few image files that are not a data set -> pixels, as if they belonged to one.

In: files, or images of which only the encoded bytes are known. Out: pixels of one size; images of
more than 8 bits share the levels of the data set, or else those of all images given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stopgrad.config import ALL_BANDS, BY_RULE, Reading
from stopgrad.errors import DataError
from stopgrad.images.decoding import Frame, OtherDepth, OtherSize, channels_in, decode
from stopgrad.images.depth import levels_asked
from stopgrad.images.gather import DamagedImagesError, name_damaged, with_levels
from stopgrad.images.opening import Damaged, strict_pillow
from stopgrad.images.pixels import Pixels
from stopgrad.images.sources.arrays import images_from_arrays
from stopgrad.images.types import (
    DamagedImage,
    Encoded,
    Images,
    Levels,
    Notes,
    SplitReader,
    no_progress,
)


def load_image_files(
    files: Sequence[Path], *, like: Images, reading: Reading = BY_RULE, notes: Notes = Notes()
) -> Images:
    """Single image files without labels, in order, as if they belonged to a data set.

    If its images are square, others are resized by their short side and cropped at the centre.

    Args:
        files: At least one.
        like: Images of the size wanted.
        reading: How those images were read.
        notes: Notes of their data set, whose levels apply here too.

    Raises:
        DamagedImagesError: Naming all that cannot be read.
        DataError: For an image of another size, when those of the data set are not square.
    """
    height, width = like.pixels.shape[1:3]
    levels = levels_asked(reading.white_level) or notes.levels
    bands = reading.bands or (() if like.channels == 3 else ALL_BANDS)
    frame = Frame(height, width, height == width, bands, levels, like.channels)
    decoded = decode_together([Encoded(str(file), file) for file in files], frame).images
    damaged = [DamagedImage("train", d.name, d.reason) for d in decoded if isinstance(d, Damaged)]
    if damaged:
        raise DamagedImagesError(
            damaged,
            found=f"{len(damaged)} of {len(files)} images cannot be read: {name_damaged(damaged)}",
            expected="image files that can be read to their end",
            hint="check the paths, or repair the files",
        )
    pixels = [_of_this_size(d, file, frame) for d, file in zip(decoded, files, strict=True)]
    names = [str(file) for file in files]
    found = images_from_arrays(np.stack(pixels), sources=names, channels=like.channels)
    return replace(found, whole_side=like.whole_side)  # seen whole at the same size


def _of_this_size(decoded: Pixels | OtherSize | Damaged, file: Path, frame: Frame) -> Pixels:
    assert not isinstance(decoded, Damaged)
    if isinstance(decoded, OtherSize):
        raise DataError(
            f"{str(file)!r} is {decoded.width} x {decoded.height} px",
            expected=f"{frame.width} x {frame.height} px, the size of the run's images",
            hint="resize it; only square images are resized automatically",
        )
    return decoded


class DecodedTogether(NamedTuple):
    """A few images, and the levels that they share."""

    images: list[Pixels | OtherSize | Damaged]
    levels: tuple[Levels, ...]


def decode_together(images: Sequence[Encoded], frame: Frame) -> DecodedTogether:
    """A few images as one set: those of a depth that the frame does not know share its levels.

    If the frame has 0 channels, the first image decides how many all must have.
    """
    readers = {"images": SplitReader(len(images), None, lambda: iter(images))}
    with strict_pillow():
        channels = frame.channels or channels_in(images, frame.bands)
        frame = frame._replace(levels=frame.levels or (), channels=channels)
        while True:
            found: list[Pixels | OtherSize | Damaged] = []
            for image in images:
                result = decode(image, frame)
                if isinstance(result, OtherDepth):
                    frame = with_levels(frame, result.depth, readers, no_progress)
                    break
                found.append(result)
            else:
                return DecodedTogether(found, frame.levels or ())
