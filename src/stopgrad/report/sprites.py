"""Many pictures -> one sheet of tiles as a data URI, small enough to stand in a page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stopgrad.report.figures.panels import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 48  # px of the longer side of a tile; larger pictures are reduced
BLOCK = 16  # px; WebP compresses in such blocks, and no tile shares one with its neighbour
MOST_BYTES = 1_000_000  # of a sheet, before base64 adds a third
QUALITIES = (75, 50, 30)  # of lossy WebP, tried in turn


class Sheet(NamedTuple):
    """Tiles side by side, row by row: tile n stands in column n % columns, row n // columns."""

    source: str  # a data URI, WebP
    width: int  # px of a tile
    height: int  # px of a tile
    cell: int  # px from one tile to the next, both ways
    columns: int
    lossless: bool


def sheet(pictures: Sequence[Pixels], *, most_bytes: int = MOST_BYTES) -> Sheet:
    """One sheet of pictures (H, W, 3) of one size, as they are if that is small enough.

    Else at the best quality that is small enough, in the end with smaller tiles.

    Args:
        pictures: At least one.
        most_bytes: Of the encoded sheet.
    """
    for made in _attempts(pictures):
        if len(made.source) <= 4 * most_bytes / 3:
            return made
    return made


def _attempts(pictures: Sequence[Pixels]) -> Iterator[Sheet]:
    """Sheets that become smaller and smaller."""
    whole = max(pictures[0].shape[:2])
    longest = min(whole, LARGEST)
    for side in [longest, *(side for side in (32, 24, 16) if side < longest)]:
        canvas, layout = _laid_out([_reduced(pixels, side) for pixels in pictures])
        if side == whole:
            yield layout._replace(source=_encoded(canvas, lossless=True), lossless=True)
        for quality in QUALITIES:
            yield layout._replace(source=_encoded(canvas, quality=quality))


def _reduced(pixels: Pixels, side: int) -> Pixels:
    from PIL import Image

    if max(pixels.shape[:2]) <= side:
        return pixels
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _laid_out(tiles: Sequence[Pixels]) -> tuple[Image, Sheet]:
    """The tiles on one canvas; the room between them continues their edges."""
    from PIL import Image

    height, width = tiles[0].shape[:2]
    cell = BLOCK * math.ceil(max(height, width) / BLOCK)
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    canvas = np.zeros((rows * cell, columns * cell, 3), dtype=np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (cell * place for place in divmod(number, columns))
        padded = np.pad(tile, ((0, cell - height), (0, cell - width), (0, 0)), mode="edge")
        canvas[top : top + cell, left : left + cell] = padded
    return Image.fromarray(canvas), Sheet("", width, height, cell, columns, lossless=False)


def _encoded(canvas: Image, **options: Any) -> str:
    file = io.BytesIO()
    canvas.save(file, "WEBP", method=2, **options)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
