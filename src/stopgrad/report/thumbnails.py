"""Arrays of uint8 -> images as data URIs, small enough to stand in a page: one, or a sheet of many.

No torch.
"""

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

LOSSLESS = 48  # px; single images up to this side are embedded as they are
LARGEST = 112  # px of the longer side of all others, as JPEG

TILE = 48  # px of the longer side of a tile; larger images are reduced
SMALLER = (32, 24, 16)  # px of that side, where the sheet would be too large
BLOCK = 16  # px; WebP compresses in such blocks, and no tile shares one with its neighbour
MOST_BYTES = 1_000_000  # of a sheet, before base64 adds a third
QUALITIES = (75, 50, 30)  # of lossy WebP, tried in turn


class Thumbnail(NamedTuple):
    """An image for a page."""

    source: str  # a data URI
    text: str  # what it shows


class Sheet(NamedTuple):
    """Tiles side by side, row by row: tile n stands in column n % columns, row n // columns."""

    source: str  # a data URI, WebP
    width: int  # px of a tile
    height: int  # px of a tile
    cell: int  # px from one tile to the next, both ways
    columns: int
    lossless: bool


def data_uri(pixels: Pixels) -> str:
    """An image (H, W, 3) as a data URI: PNG when small, else a reduced JPEG."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if max(image.size) <= LOSSLESS:
        return _encoded(image, "PNG", optimize=True)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return _encoded(image, "JPEG", quality=85)


def sheet(images: Sequence[Pixels], *, most_bytes: int = MOST_BYTES) -> Sheet:
    """One sheet of images (H, W, 3) of one size, as they are if that is small enough.

    Else at the best quality that is small enough, in the end with smaller tiles.

    Args:
        images: At least one.
        most_bytes: Of the encoded sheet.
    """
    for made in _attempts(images):
        if len(made.source) <= 4 * most_bytes / 3:
            return made
    return made


def _attempts(images: Sequence[Pixels]) -> Iterator[Sheet]:
    """Sheets that become smaller and smaller."""
    whole = max(images[0].shape[:2])
    longest = min(whole, TILE)
    for side in [longest, *(side for side in SMALLER if side < longest)]:
        canvas, layout = _laid_out([_reduced(pixels, side) for pixels in images])
        if side == whole:
            source = _encoded(canvas, "WEBP", method=2, lossless=True)
            yield layout._replace(source=source, lossless=True)
        for quality in QUALITIES:
            yield layout._replace(source=_encoded(canvas, "WEBP", method=2, quality=quality))


def _reduced(pixels: Pixels, side: int) -> Pixels:
    from PIL import Image

    if max(pixels.shape[:2]) <= side:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image)


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


def _encoded(image: Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
