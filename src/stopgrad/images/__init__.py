"""Sources of pictures -> `Images`: uint8 pixels, labels or none, class names, a fingerprint.

In: a spec (a known name, `hf:OWNER/NAME`, a path) or arrays. Out: `Dataset`, `Images`
(N, H, W, 3), in memory or packed on disk, splits, label subsets, and the training set's mean and
std; `check_images` says what the pictures are like. Importing this takes NumPy alone; pyarrow,
Pillow and the Hub's client are imported when a data set needs them.
"""

from stopgrad.images.check import Findings, Place, check_images
from stopgrad.images.damage import DamagedImagesError
from stopgrad.images.load import Changed, load_dataset
from stopgrad.images.packed import Packed
from stopgrad.images.pictures import load_pictures
from stopgrad.images.reading import how_it_was_read
from stopgrad.images.splits import label_subset, normalization, split_validation
from stopgrad.images.types import (
    BadImages,
    Dataset,
    Images,
    LeftOut,
    Normalization,
    Rows,
    Split,
    Track,
    images_from_arrays,
    no_progress,
)

__all__ = [
    "BadImages",
    "Changed",
    "DamagedImagesError",
    "Dataset",
    "Findings",
    "Images",
    "LeftOut",
    "Normalization",
    "Packed",
    "Place",
    "Rows",
    "Split",
    "Track",
    "check_images",
    "how_it_was_read",
    "images_from_arrays",
    "label_subset",
    "load_dataset",
    "load_pictures",
    "no_progress",
    "normalization",
    "split_validation",
]
