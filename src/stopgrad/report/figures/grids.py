"""Panels of pictures -> one PIL image: originals with views, queries with neighbours."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.evaluation import count
from stopgrad.report.figures.panels import NeighborPanel, Pixels, Query, ViewPanel, queries
from stopgrad.report.figures.style import Role, light

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

CELL = 96  # px of the side of a picture in a grid
GAP = 6  # px between pictures that belong together
SPACE = 34  # px between groups, and around the whole
LINE = 20  # px of a line of text
TEXT = 14  # px


class Spot(NamedTuple):
    """A place in a grid, px from the top left."""

    x: int
    y: int


def view_grid(panel: ViewPanel, *, columns: int = 3) -> Image:
    """Originals, each followed by its two views; `columns` such groups side by side.

    Pictures are 96 px wide; smaller ones keep their pixels visible.
    """
    from PIL import ImageDraw

    columns = min(columns, len(panel.originals))
    rows = -(-len(panel.originals) // columns)
    group = 3 * CELL + 2 * GAP
    sheet = _sheet(columns * (group + SPACE) + SPACE, LINE + rows * (CELL + 2 * GAP) + 2 * SPACE)
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        for place, title in enumerate(("original", "view 1", "view 2")):
            left = SPACE + column * (group + SPACE) + place * (CELL + GAP)
            _write(draw, Spot(left + CELL // 2, SPACE), title, anchor="mt")
    for number, pictures in enumerate(zip(*panel, strict=True)):
        row, column = divmod(number, columns)
        top = SPACE + LINE + GAP + row * (CELL + 2 * GAP)
        for place, pixels in enumerate(pictures):
            left = SPACE + column * (group + SPACE) + place * (CELL + GAP)
            sheet.paste(enlarged(pixels, side=CELL), (left, top))
    return sheet


def neighbor_grid(panel: NeighborPanel) -> Image:
    """A row per query: the picture, what it is and was taken for, and its nearest pictures.

    Below each neighbour stand its class, or without one its file, and its cosine similarity. A
    neighbour of the query's class has a solid frame, one of another class a dashed frame and a
    cross.
    """
    from PIL import ImageDraw

    height = CELL + 2 * LINE + SPACE // 2
    words = 190
    width = 2 * SPACE + CELL + words + panel.index.shape[1] * (CELL + 2 * GAP)
    sheet = _sheet(width, 2 * SPACE + LINE + len(panel.queries) * height)
    draw = ImageDraw.Draw(sheet)
    left = SPACE + CELL + words
    _write(draw, Spot(SPACE, SPACE // 2 + 4), "query")
    title = (
        f"{panel.index.shape[1]} nearest of {count(len(panel.bank))} images by cosine similarity"
    )
    _write(draw, Spot(left, SPACE // 2 + 4), title)
    for row, query in enumerate(queries(panel)):
        top = SPACE + LINE + row * height
        sheet.paste(enlarged(query.pixels, side=CELL), (SPACE, top))
        _write_query(draw, Spot(SPACE + CELL + 14, top + 8), query)
        for place, neighbor in enumerate(query.neighbors):
            at = Spot(left + place * (CELL + 2 * GAP), top)
            sheet.paste(enlarged(neighbor.pixels, side=CELL), at)
            _frame(draw, at, agrees=neighbor.agrees)
            mark = "x " if neighbor.agrees is False else ""
            below = Spot(at.x + CELL // 2, at.y + CELL + 6)
            name = neighbor.class_name or _file_name(neighbor.source)
            _write(draw, below, _fitted(mark + name), anchor="mt")
            below = below._replace(y=below.y + LINE - 2 if name else below.y)
            _write(draw, below, f"{neighbor.similarity:.3f}", role="muted", anchor="mt")
    return sheet


def enlarged(pixels: Pixels, *, side: int) -> Image:
    """A picture within side x side px, centred on paper.

    Small pictures grow by a whole factor without smoothing, so that one sees what a network sees.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    if longest > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    else:
        factor = side // longest
        size = (picture.width * factor, picture.height * factor)
        picture = picture.resize(size, Image.Resampling.NEAREST)
    square = Image.new("RGB", (side, side), light("grid"))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    # A bright picture would have no edge on the paper.
    ImageDraw.Draw(square).rectangle((0, 0, side - 1, side - 1), outline=light("grid"))
    return square


def _write_query(draw: ImageDraw, at: Spot, query: Query) -> None:
    lines: list[tuple[str, Role]] = [(query.class_name or _file_name(query.source), "ink")]
    if query.correct is True:
        lines.append(("correct", "good"))
    elif query.correct is False:
        lines += [("wrong: taken for", "wrong"), (query.predicted, "wrong")]
    elif query.predicted:
        lines.append((f"taken for {query.predicted}", "muted"))
    for number, (text, role) in enumerate(lines):
        _write(draw, at._replace(y=at.y + number * LINE), _fitted(text, width=165), role=role)


def _file_name(source: str) -> str:
    """The last part of a path; `file:row` of a Parquet file stays."""
    return source.rsplit("/", 1)[-1]


def _frame(draw: ImageDraw, at: Spot, *, agrees: bool | None) -> None:
    if agrees is None:
        return
    box = (at.x - 3, at.y - 3, at.x + CELL + 2, at.y + CELL + 2)
    if agrees:
        draw.rectangle(box, outline=light("good"), width=3)
        return
    for start in range(0, CELL + 6, 12):
        end = min(start + 6, CELL + 5)
        for y in (box[1], box[3] - 2):
            draw.rectangle((box[0] + start, y, box[0] + end, y + 2), fill=light("wrong"))
        for x in (box[0], box[2] - 2):
            draw.rectangle((x, box[1] + start, x + 2, box[1] + end), fill=light("wrong"))


def _sheet(width: int, height: int) -> Image:
    from PIL import Image

    return Image.new("RGB", (width, height), light("paper"))


def _write(draw: ImageDraw, at: Spot, text: str, *, role: Role = "ink", anchor: str = "lt") -> None:
    draw.text(at, text, fill=light(role), font=_font(), anchor=anchor)


def _fitted(text: str, *, width: int = CELL + GAP) -> str:
    """Text on one line, cut to a width in px."""
    text = " ".join(text.split())
    if _font().getlength(text) <= width:
        return text
    while text and _font().getlength(text + "\N{HORIZONTAL ELLIPSIS}") > width:
        text = text[:-1]
    return text + "\N{HORIZONTAL ELLIPSIS}"


@functools.cache
def _font() -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(TEXT)
