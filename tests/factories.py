"""What tests of several rooms start from: real digits, as data and as files."""

from pathlib import Path

import numpy as np
from PIL import Image

from stopgrad.images import Dataset, load_dataset


def digits(train: int = 400, test: int = 100) -> Dataset:
    """So many real digits to learn from and to score, of all classes."""
    whole = load_dataset("mnist5k")
    assert whole.test is not None
    parts = (
        part.take(np.arange(count) * (len(part) // count))
        for part, count in ((whole.train, train), (whole.test, test))
    )
    return Dataset("digits", *parts)


def write_digits(folder: Path, *, train: int, test: int) -> Path:
    """PNG files of so many real digits, as train/CLASS/*.png and test/CLASS/*.png; the folder."""
    whole = load_dataset("mnist5k")
    for split, images, count in (("train", whole.train, train), ("test", whole.test, test)):
        assert images is not None
        assert images.labels is not None
        for number in np.linspace(0, len(images) - 1, count).astype(int):
            place = folder / split / f"digit {images.labels[number]}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.pixels[number]).save(place / f"{number}.png")
    return folder
