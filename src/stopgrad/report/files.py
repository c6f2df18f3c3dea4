"""Chapters -> a folder with each figure as SVG and PNG; panels of images -> one image each."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.evaluation import count
from stopgrad.images import sign_figure
from stopgrad.report import charts
from stopgrad.report.charts import Figure
from stopgrad.report.evidence import Evidence, StudyEvidence
from stopgrad.report.panels import VIEWS, NeighborPanel, Pixels, Query, ViewPanel, queries
from stopgrad.report.style import Role, light, plain_svg
from stopgrad.storage import storage_errors, write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

PNG_SCALE = 2.0


def write_figures(chapters: Sequence[Evidence | StudyEvidence], *, folder: Path) -> list[Path]:
    """Writes every figure of runs and studies as NAME.svg and NAME.png.

    With several chapters each name begins with that of its run or study.

    Returns:
        The files written, in the order of the page.

    Raises:
        StorageError: When the disk refuses.
    """
    with storage_errors(folder, needed=0):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, chapter in enumerate(chapters, start=1):
        prefix = f"{number}-{_file_name(chapter.name)}-" if len(chapters) > 1 else ""
        for figure in figures_of(chapter):
            written += _write(figure, folder / f"{prefix}{_file_name(figure.name)}")
        written += _images(_run(chapter), folder, prefix)
    return written


def figures_of(chapter: Evidence | StudyEvidence) -> list[Figure]:
    """The charts of a run or a study, in the order of the page."""
    if isinstance(chapter, StudyEvidence):
        from stopgrad.report import study_charts

        return [
            *study_charts.architecture_figures(chapter),
            *study_charts.score_figures(chapter),
            *study_charts.curve_figures(chapter),
            *study_charts.collapse_figures(chapter),
        ]
    return [
        *charts.architecture_figures(chapter),
        *charts.accuracy_figures(chapter),
        *charts.class_figures(chapter),
        *charts.curve_figures(chapter),
        *charts.measure_figures(chapter),
        *charts.spectrum_figures(chapter.metrics),
    ]


def _write(figure: Figure, path: Path) -> list[Path]:
    import vl_convert

    drawing = plain_svg(figure.chart)
    svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
    write_atomically(svg, drawing.encode())
    write_atomically(png, sign_figure(vl_convert.svg_to_png(drawing, scale=PNG_SCALE)))
    return [svg, png]


def _run(chapter: Evidence | StudyEvidence) -> Evidence | None:
    """The run whose images a chapter shows."""
    if isinstance(chapter, Evidence):
        return chapter
    return None if chapter.shown is None else chapter.shown.run


def _images(run: Evidence | None, folder: Path, prefix: str) -> list[Path]:
    """Views and neighbours, which are images and not charts."""
    if run is None:
        return []
    written = []
    for name, image in (
        ("views", None if run.views is None else view_grid(run.views)),
        ("neighbors", None if run.neighbors is None else neighbor_grid(run.neighbors)),
    ):
        if image is not None:
            write_atomically(folder / f"{prefix}{name}.png", figure_as_png(image))
            written.append(folder / f"{prefix}{name}.png")
    return written


def figure_as_png(image: Image) -> bytes:
    """A PNG file that names stopgrad as its writer."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return sign_figure(file.getvalue())


def _file_name(text: str) -> str:
    """A name that every file system accepts."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:60] or "figure"


CELL = 96  # px of the side of an image in a grid
GAP = 6  # px between images that belong together
SPACE = 34  # px between groups, and around the whole
LINE = 20  # px of a line of text
TEXT = 14  # px
NAMES = 190  # px beside a query


class Spot(NamedTuple):
    """A place in a grid, px from the top left."""

    x: int
    y: int


def view_grid(panel: ViewPanel, *, columns: int = 3) -> Image:
    """Originals, each followed by its two views; `columns` such groups side by side.

    Images are 96 px wide; smaller ones keep their pixels visible.
    """
    from PIL import ImageDraw

    columns = min(columns, len(panel.originals))
    rows = -(-len(panel.originals) // columns)
    group = 3 * CELL + 2 * GAP
    sheet = _sheet(columns * (group + SPACE) + SPACE, LINE + rows * (CELL + 2 * GAP) + 2 * SPACE)
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        for place, title in enumerate(VIEWS):
            left = SPACE + column * (group + SPACE) + place * (CELL + GAP)
            _put(draw, Spot(left + CELL // 2, SPACE), title, anchor="mt")
    for number, images in enumerate(zip(*panel, strict=True)):
        row, column = divmod(number, columns)
        top = SPACE + LINE + GAP + row * (CELL + 2 * GAP)
        for place, pixels in enumerate(images):
            left = SPACE + column * (group + SPACE) + place * (CELL + GAP)
            sheet.paste(enlarged(pixels, side=CELL), (left, top))
    return sheet


def neighbor_grid(panel: NeighborPanel) -> Image:
    """A row per query: the image, what it is and was taken for, and its nearest images.

    Below each neighbour stand its class, or without one its file, and its cosine similarity. A
    neighbour of the query's class has a solid frame, one of another class a dashed frame and a
    cross.
    """
    from PIL import ImageDraw

    height = CELL + 2 * LINE + SPACE // 2
    width = 2 * SPACE + CELL + NAMES + panel.index.shape[1] * (CELL + 2 * GAP)
    sheet = _sheet(width, 2 * SPACE + LINE + len(panel.queries) * height)
    draw = ImageDraw.Draw(sheet)
    left = SPACE + CELL + NAMES
    _put(draw, Spot(SPACE, SPACE // 2 + 4), "query")
    title = (
        f"{panel.index.shape[1]} nearest of {count(len(panel.bank))} images by cosine similarity"
    )
    _put(draw, Spot(left, SPACE // 2 + 4), title)
    for row, query in enumerate(queries(panel)):
        top = SPACE + LINE + row * height
        sheet.paste(enlarged(query.pixels, side=CELL), (SPACE, top))
        _put_query(draw, Spot(SPACE + CELL + 14, top + 8), query)
        for place, neighbor in enumerate(query.neighbors):
            at = Spot(left + place * (CELL + 2 * GAP), top)
            sheet.paste(enlarged(neighbor.pixels, side=CELL), at)
            _frame(draw, at, agrees=neighbor.agrees)
            mark = "x " if neighbor.agrees is False else ""
            below = Spot(at.x + CELL // 2, at.y + CELL + 6)
            name = neighbor.class_name or _base_name(neighbor.source)
            _put(draw, below, _cut(mark + name), anchor="mt")
            below = below._replace(y=below.y + LINE - 2 if name else below.y)
            _put(draw, below, f"{neighbor.similarity:.3f}", role="muted", anchor="mt")
    return sheet


def enlarged(pixels: Pixels, *, side: int) -> Image:
    """An image within side x side px, centred on paper.

    A small one grows by a whole factor without smoothing, so that one sees what a network sees.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(pixels)
    longest = max(image.size)
    if longest > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    else:
        factor = side // longest
        size = (image.width * factor, image.height * factor)
        image = image.resize(size, Image.Resampling.NEAREST)
    square = Image.new("RGB", (side, side), light("grid"))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    # A bright image would have no edge on the paper.
    ImageDraw.Draw(square).rectangle((0, 0, side - 1, side - 1), outline=light("grid"))
    return square


def _put_query(draw: ImageDraw, at: Spot, query: Query) -> None:
    lines: list[tuple[str, Role]] = [(query.class_name or _base_name(query.source), "ink")]
    if query.correct is True:
        lines.append(("correct", "good"))
    elif query.correct is False:
        lines += [("wrong: taken for", "wrong"), (query.predicted, "wrong")]
    elif query.predicted:
        lines.append((f"taken for {query.predicted}", "muted"))
    for number, (text, role) in enumerate(lines):
        _put(draw, at._replace(y=at.y + number * LINE), _cut(text, width=165), role=role)


def _base_name(source: str) -> str:
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


def _put(draw: ImageDraw, at: Spot, text: str, *, role: Role = "ink", anchor: str = "lt") -> None:
    draw.text(at, text, fill=light(role), font=_font(), anchor=anchor)


def _cut(text: str, *, width: int = CELL + GAP) -> str:
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
