"""Tables -> SVG for a poster: all columns, the published number in grey under ours."""

from __future__ import annotations

from typing import NamedTuple

from stopgrad.report.figures.palette import Role, light
from stopgrad.report.poster_text import element, fitted, length, paragraph, words
from stopgrad.report.table import Table
from stopgrad.report.table import TableCell as Cell

NAMES = 0.34  # of the width for the names of rows, where the numbers leave no more
ANSWERS = 0.27  # of the width, for the answers to findings
SMALL = 0.8  # of the size, for what stands under a number


class Drawing(NamedTuple):
    """A table drawn from its top left."""

    svg: str
    height: float


class Number(NamedTuple):
    """A cell of ours with what was published for it."""

    ours: Cell
    published: str = ""

    @property
    def lines(self) -> list[tuple[str, Role]]:
        """What stands under our number, with its colour."""
        notes: list[tuple[str, Role]] = [(self.ours.note, "wrong"), (self.published, "muted")]
        return [(text, role) for text, role in notes if text]


class Row(NamedTuple):
    """A row of a table of numbers."""

    name: str
    numbers: tuple[Number, ...]


class Grid(NamedTuple):
    """A table ready to be drawn: names up to `left`, then columns of numbers, `step` wide."""

    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    left: float = 0.0
    step: float = 0.0
    size: float = 0.0


def table_svg(table: Table, *, width: float, size: float) -> Drawing:
    """A table of numbers with all its columns; letters shrink where they would not fit."""
    grid = _sized(_stacked(table), width=width, size=size)
    parts, y = [_head(grid)], grid.size * 1.5
    for row in grid.rows:
        parts.append(element("rect", width=width, height=1, y=y, fill=light("grid")))
        parts.append(_row(row, grid, y=y + grid.size * 1.35))
        y += grid.size * (1.9 + 1.1 * max(len(number.lines) for number in row.numbers))
    return Drawing("".join(parts), y)


def findings_svg(table: Table, *, width: float, size: float) -> Drawing:
    """Findings with their answers: the answer on the left, the finding and why on the right."""
    parts, y, inside = list[str](), 0.0, width * (1 - ANSWERS)
    for says, answer, why in table.rows:
        top, tone = y + size, light(_tone(answer))
        said = paragraph(answer.text, x=0, y=top, width=width * ANSWERS, size=size, bold=True)
        text = paragraph(says.text, x=width * ANSWERS, y=top, width=inside, size=size)
        small = size * SMALL
        reason = paragraph(
            why.text, x=width * ANSWERS, y=text.bottom + small * 1.35, width=inside, size=small
        )
        parts += [_in(said.svg, tone), _in(text.svg, light("ink"))]
        parts.append(_in(reason.svg, light("muted")))
        y = max(said.bottom, reason.bottom) + size
    return Drawing("".join(parts), y)


def _stacked(table: Table) -> Grid:
    """Each published column put under the one on its left; a count that all share in the head."""
    beside = [*(column.published for column in table.columns), False]
    places = [place for place in range(1, len(table.columns)) if not beside[place]]
    cells = [row[place] for row in table.rows for place in places]
    counts = {cell.runs for cell in cells if cell.runs is not None}
    shared = f", n = {min(counts)}" if len(counts) == 1 else ""
    ours = _without_count if shared else _as_it_is
    rows = [
        Row(
            row[0].text,
            tuple(Number(ours(row[p]), row[p + 1].text if beside[p + 1] else "") for p in places),
        )
        for row in table.rows
    ]
    heads = (f"{table.heads[0]}{shared}", *(table.heads[place] for place in places))
    return Grid(heads, tuple(rows))


def _as_it_is(cell: Cell) -> Cell:
    return cell._replace(text=cell.counted)


def _without_count(cell: Cell) -> Cell:
    return cell


def _sized(grid: Grid, *, width: float, size: float) -> Grid:
    """The width of the names, and the size at which the widest number fits its column."""
    names = [length(row.name, size=size) for row in grid.rows]
    names.append(length(grid.heads[0], size=size * SMALL))
    numbers = [number for row in grid.rows for number in row.numbers]
    under = [text for number in numbers for text, _ in number.lines]
    small = [*grid.heads[1:], *(under if len(grid.heads) > 2 else [])]  # else room is on the left
    widest = max(
        *(
            length(number.ours.text, size=size, bold=bool(number.ours.emphasis))
            for number in numbers
        ),
        *(length(text, size=size * SMALL) for text in small),
    )
    columns, room = len(grid.heads) - 1, size * 0.6
    left = min(max(names) + room, max(width * NAMES, width - columns * (widest + room)))
    step = (width - left) / columns
    smaller = min(1.0, (step - size * 0.4) / widest)
    return grid._replace(left=left, step=step, size=size * smaller)


def _head(grid: Grid) -> str:
    first, *rest = grid.heads
    y, small = grid.size, grid.size * SMALL
    parts = [words(fitted(first, width=grid.left, size=small), x=0, y=y, size=small)]
    for place, text in enumerate(rest, start=1):
        parts.append(words(text, x=grid.left + place * grid.step, y=y, size=small, end=True))
    return _in("".join(parts), light("muted"))


def _row(row: Row, grid: Grid, *, y: float) -> str:
    size = grid.size
    name = fitted(row.name, width=grid.left - size * 0.4, size=size)
    parts = [_in(words(name, x=0, y=y, size=size), light("ink"))]
    for place, number in enumerate(row.numbers, start=1):
        x, bold = grid.left + place * grid.step, bool(number.ours.emphasis)
        ours = words(number.ours.text, x=x, y=y, size=size, end=True, bold=bold)
        parts.append(_in(ours, light("ink")))
        for under, (text, role) in enumerate(number.lines, start=1):
            line = words(text, x=x, y=y + under * size * 1.1, size=size * SMALL, end=True)
            parts.append(_in(line, light(role)))
    return "".join(parts)


def _tone(answer: Cell) -> Role:
    return {"good": "good", "wrong": "wrong"}.get(answer.emphasis, "muted")  # type: ignore[return-value]


def _in(svg: str, color: str) -> str:
    return f'<g fill="{color}">{svg}</g>'
