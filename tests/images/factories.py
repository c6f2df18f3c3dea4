"""Images as people keep them: digits in files, in folders and in columns of tables."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from sklearn.datasets import load_digits

DIGITS = (load_digits().images * 15).astype(np.uint8)  # (1797, 8, 8)
TARGETS = load_digits().target
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CLASSES = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    """A PNG file of these bytes, (H, W) or (H, W, 3)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def cells(rows: Iterable[int]) -> pa.Array:
    """These rows of the digits, as the Hub's Parquet files hold images."""
    return pa.array([{"bytes": png(DIGITS[row]), "path": None} for row in rows], STRUCT)


def put(root: Path, *names: str) -> None:
    """An image under each name; the n-th is of the gray n."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number % 256, np.uint8)).save(path)


def each(*folders: str, count: int = 2) -> list[str]:
    """So many names in each folder."""
    return [f"{folder}/{number}.png" for folder in folders for number in range(count)]


@contextlib.contextmanager
def nobodys_folder() -> Iterator[Path]:
    """A folder that anyone may enter, seen by a user without rights, also where root tests."""
    before = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        try:
            yield Path(folder)
        finally:
            os.seteuid(before)


def become_nobody() -> None:
    """Gives up the rights of root, if one has them."""
    if os.geteuid() == 0:
        os.seteuid(65534)
