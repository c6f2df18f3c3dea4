"""Some picture files -> `Images` of the size of others, decoded by the rules of every data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stopgrad.errors import DataError
from stopgrad.images.damage import DamagedImagesError, in_words
from stopgrad.images.decoding import Damaged, Frame, OtherSize, decode, strict_pillow
from stopgrad.images.source import Encoded
from stopgrad.images.types import Images, LeftOut, Pixels, images_from_arrays


def load_pictures(files: Sequence[Path], *, like: Images) -> Images:
    """Pictures without labels, in the order of the files, as if they belonged to a data set.

    Where its images are square, others are resized by their short side and cropped at the centre.

    Args:
        files: At least one.
        like: Images of the size that these are to have.

    Raises:
        DamagedImagesError: Naming all that cannot be read.
        DataError: For a picture of another size, where the images are not square.
    """
    height, width = like.pixels.shape[1:3]
    frame = Frame(height, width, fit=height == width)
    with strict_pillow():
        decoded = [decode(Encoded(str(file), file), frame) for file in files]
    damaged = [LeftOut("train", d.name, d.reason) for d in decoded if isinstance(d, Damaged)]
    if damaged:
        noun = "picture" if len(damaged) == 1 else "pictures"
        raise DamagedImagesError(
            damaged,
            found=f"{len(damaged)} {noun} of {len(files)} that cannot be read: {in_words(damaged)}",
            expected="picture files that can be read to their end",
            hint="check the paths, or repair the files",
        )
    pixels = [_of_this_size(d, file, frame) for d, file in zip(decoded, files, strict=True)]
    found = images_from_arrays(np.stack(pixels), sources=[str(file) for file in files])
    return replace(found, whole_side=like.whole_side)  # seen whole at the same size


def _of_this_size(decoded: Pixels | OtherSize | Damaged, file: Path, frame: Frame) -> Pixels:
    assert not isinstance(decoded, Damaged)
    if isinstance(decoded, OtherSize):
        raise DataError(
            f"{str(file)!r} of {decoded.width} x {decoded.height} px",
            expected=f"{frame.width} x {frame.height} px, the size of the run's images",
            hint="resize it; only square images are fitted by themselves",
        )
    return decoded
