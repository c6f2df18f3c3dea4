"""Chapters -> a folder with each figure as SVG and PNG; panels of images -> one image each."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from stopgrad.evaluation import count
from stopgrad.images import Pixels, sign_figure
from stopgrad.report.evidence import Evidence, StudyEvidence
from stopgrad.report.panels import (
    VIEWS,
    NeighborPanel,
    Query,
    ViewPanel,
    how_shown,
    name_of,
    queries,
)
from stopgrad.report.style import Figure, Role, light, plain_svg
from stopgrad.storage import storage_errors, write_atomically

PNG_SCALE = 2.0
FONTS = "Arial, Liberation Sans, Arimo, Helvetica, sans-serif"  # all as wide as Vega's
WIDER = 0.07  # of a drawing's width, room on each side for fonts that are wider
HEAD = re.compile(
    r'(<svg [^>]*)width="(\d+)" height="(\d+)" viewBox="[^"]*">'
    r'<rect width="\d+" height="\d+"( fill="[^"]*"/>)'
)


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
        for name, content in _files_of(chapter):
            written.append(folder / f"{prefix}{name}")
            write_atomically(written[-1], content)
    return written


def _files_of(chapter: Evidence | StudyEvidence) -> Iterator[tuple[str, bytes]]:
    """Each chart as SVG and as PNG, then views and neighbours, which are images and not charts."""
    import vl_convert

    for figure in _figures_of(chapter):
        drawing, name = plain_svg(figure.chart), _file_name(figure.name)
        yield f"{name}.svg", _for_any_font(drawing).encode()
        yield f"{name}.png", sign_figure(vl_convert.svg_to_png(drawing, scale=PNG_SCALE))
    run = chapter.run
    if run is not None and run.views is not None:
        yield "views.png", figure_as_png(view_grid(run.views))
    if run is not None and run.neighbors is not None:
        yield "neighbors.png", figure_as_png(neighbor_grid(run.neighbors))


def _for_any_font(svg: str) -> str:
    """A drawing with fonts as wide as Vega takes them to be, and room at the sides for wider ones.

    What lies outside of an image is cut off, and not every machine has such a font.
    """
    svg = svg.replace('font-family="sans-serif"', f'font-family="{FONTS}"')
    if (head := HEAD.match(svg)) is None:
        return svg
    start, width, height, fill = head.groups()
    room = round(WIDER * int(width))
    size = f'width="{int(width) + 2 * room}" height="{height}"'
    box = f'viewBox="{-room} 0 {int(width) + 2 * room} {height}"'
    return f'{start}{size} {box}><rect x="{-room}" {size}{fill}{svg[head.end() :]}'


def _figures_of(chapter: Evidence | StudyEvidence) -> list[Figure]:
    """The charts in page order; their modules are imported here, as grids of images need none."""
    from stopgrad.report import accuracy, curves

    if isinstance(chapter, StudyEvidence):
        from stopgrad.report import study_charts, study_scores

        figures = [study_scores.key_figures(chapter), study_scores.score_figures(chapter)]
        figures += [study_charts.curve_figures(chapter), study_charts.collapse_figures(chapter)]
    else:
        figures = [accuracy.accuracy_figures(chapter), accuracy.class_figures(chapter)]
        figures += [curves.curve_figures(chapter), curves.measure_figures(chapter)]
        figures += [curves.spectrum_figures(chapter.metrics)]
    return [
        figure for part in [accuracy.architecture_figures(chapter), *figures] for figure in part
    ]


def figure_as_png(image: Image.Image) -> bytes:
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


def view_grid(panel: ViewPanel, *, columns: int = 3) -> Image.Image:
    """Originals, each followed by its two views; `columns` such groups side by side.

    Images are 96 px wide; smaller ones keep their pixels visible.
    """
    columns = min(columns, len(panel.originals))
    rows = -(-len(panel.originals) // columns)
    group = 3 * CELL + 2 * GAP
    size = columns * (group + SPACE) + SPACE, LINE + rows * (CELL + 2 * GAP) + 2 * SPACE
    sheet = Image.new("RGB", size, light("paper"))
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        for place, title in enumerate(VIEWS):
            left = SPACE + column * (group + SPACE) + place * (CELL + GAP)
            _put(draw, (left + CELL // 2, SPACE), title, anchor="mt")
    for number, images in enumerate(zip(*panel, strict=True)):
        row, column = divmod(number, columns)
        top = SPACE + LINE + GAP + row * (CELL + 2 * GAP)
        for place, pixels in enumerate(images):
            left = SPACE + column * (group + SPACE) + place * (CELL + GAP)
            sheet.paste(enlarged(pixels, side=CELL), (left, top))
    return sheet


def neighbor_grid(panel: NeighborPanel) -> Image.Image:
    """A row per query: the image, what it is and was taken for, and its nearest images.

    Below each neighbour are its class, or its file if it has none, and its cosine similarity. A
    neighbour of the query's class has a solid frame, one of another class a dashed frame and a
    cross.
    """
    height = CELL + 2 * LINE + SPACE // 2
    width = 2 * SPACE + CELL + NAMES + panel.index.shape[1] * (CELL + 2 * GAP)
    size = width, 2 * SPACE + LINE + len(panel.queries) * height
    sheet = Image.new("RGB", size, light("paper"))
    draw = ImageDraw.Draw(sheet)
    left = SPACE + CELL + NAMES
    _put(draw, (SPACE, SPACE // 2 + 4), "query")
    title = (
        f"{panel.index.shape[1]} nearest of {count(len(panel.bank))} images by cosine similarity"
    )
    if how := how_shown(panel.bank.channels):
        title += f". {how}"
    _put(draw, (left, SPACE // 2 + 4), title)
    for row, query in enumerate(queries(panel)):
        top = SPACE + LINE + row * height
        sheet.paste(enlarged(query.pixels, side=CELL), (SPACE, top))
        _put_query(draw, (SPACE + CELL + 14, top + 8), query)
        for place, neighbor in enumerate(query.neighbors):
            x, y = left + place * (CELL + 2 * GAP), top + CELL + 6
            sheet.paste(enlarged(neighbor.pixels, side=CELL), (x, top))
            _frame(draw, x, top, agrees=neighbor.agrees)
            mark, name = "x " if neighbor.agrees is False else "", name_of(neighbor)
            _put(draw, (x + CELL // 2, y), _cut(mark + name), anchor="mt")
            y += LINE - 2 if name else 0
            text = f"{neighbor.similarity:.3f}"
            _put(draw, (x + CELL // 2, y), text, role="muted", anchor="mt")
    return sheet


def enlarged(pixels: Pixels, *, side: int) -> Image.Image:
    """An image within side x side px, centred on paper.

    A small one grows by a whole factor without smoothing, so that one sees what a network sees.
    """
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


def _put_query(draw: ImageDraw.ImageDraw, at: tuple[int, int], query: Query) -> None:
    lines: list[tuple[str, Role]] = [(name_of(query), "ink")]
    if query.correct is True:
        lines.append(("correct", "good"))
    elif query.correct is False:
        lines += [("wrong: taken for", "wrong"), (query.predicted, "wrong")]
    elif query.predicted:
        lines.append((f"taken for {query.predicted}", "muted"))
    for number, (text, role) in enumerate(lines):
        _put(draw, (at[0], at[1] + number * LINE), _cut(text, width=165), role=role)


def _frame(draw: ImageDraw.ImageDraw, left: int, top: int, *, agrees: bool | None) -> None:
    if agrees is None:
        return
    box = (left - 3, top - 3, left + CELL + 2, top + CELL + 2)
    if agrees:
        draw.rectangle(box, outline=light("good"), width=3)
        return
    for start in range(0, CELL + 6, 12):
        end = min(start + 6, CELL + 5)
        for y in (box[1], box[3] - 2):
            draw.rectangle((box[0] + start, y, box[0] + end, y + 2), fill=light("wrong"))
        for x in (box[0], box[2] - 2):
            draw.rectangle((x, box[1] + start, x + 2, box[1] + end), fill=light("wrong"))


def _put(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    *,
    role: Role = "ink",
    anchor: str = "lt",
) -> None:
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
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(TEXT)
