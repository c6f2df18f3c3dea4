"""Pictures out of a seeded generator, as arrays and as files in memory. NumPy and Pillow."""

from __future__ import annotations

import io

import numpy as np

from stopgrad.config import numpy_generator
from stopgrad.images import Encoded, Images, images_from_arrays


def random_images(count: int, *, side: int, classes: int = 10) -> Images:
    """So many pictures of side x side px with independent pixels and labels."""
    chance = numpy_generator(0, "speed", "pixels")
    return images_from_arrays(
        chance.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        labels=np.arange(count) % classes,
        class_names=[str(label) for label in range(classes)],
    )


def random_files(count: int, *, side: int, form: str) -> list[Encoded]:
    """So many encoded pictures of side x side px, form "PNG" or "JPEG".

    A few random colours scaled up smoothly: a file of pure noise is several times as large as
    one of a picture, and takes longer to decode.
    """
    from PIL import Image

    chance = numpy_generator(0, "speed", "files")
    files = []
    for number in range(count):
        colours = Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        colours.resize((side, side), Image.Resampling.BICUBIC).save(file, format=form)
        files.append(Encoded(f"{number}.{form.lower()}", file.getvalue()))
    return files
