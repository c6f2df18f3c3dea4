"""Chapters -> a poster: one page of A1 as vector PDF, by the writer of SVG that draws the charts.

Laid out here, in points: cards fill column after column in the order in which one reads them, in as
few columns and as large letters as take all of them or nearly all; what does not fit is left out,
from the last to the first.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stopgrad.report.evidence import Evidence, StudyEvidence
from stopgrad.report.figures.palette import light
from stopgrad.report.poster_cards import Card, drawn_card, heading, pieces_of
from stopgrad.report.poster_text import element, paragraph

WIDTH, HEIGHT = 1684.0, 2384.0  # A1, pt
MARGIN, GUTTER, GAP = 64.0, 44.0, 30.0
COLUMNS = {2: 27.0, 3: 20.0, 4: 15.5}  # letters of each, pt
SIZES = (1.3, 1.2, 1.1, 1.0, 0.9)  # of those letters: the largest with which all cards fit
SPARED = 2  # cards, the last ones, that are left out before there is one more column
MOST_STRETCH = 2 * GAP  # more between two cards than the gap, where a column is short
ROUNDING = 1e-6  # pt, of sums of heights


class Placed(NamedTuple):
    """A card and where it stands."""

    card: Card
    x: float
    y: float


class Layout(NamedTuple):
    """All cards of a poster that fit, and the width of a column."""

    placed: tuple[Placed, ...]
    width: float


def write_poster(chapters: Sequence[Evidence | StudyEvidence], *, out: Path) -> Path:
    """Writes the poster of runs and studies as a PDF of one page.

    Raises:
        StorageError: When the disk refuses; an older poster stays as it was.
    """
    import vl_convert

    from stopgrad.storage import write_atomically

    write_atomically(out, vl_convert.svg_to_pdf(poster_svg(chapters)))
    return out


def poster_svg(chapters: Sequence[Evidence | StudyEvidence]) -> str:
    """The poster as SVG, A1 upright, one unit a point."""
    title, lead, foot = heading(chapters)
    head = paragraph(title, x=MARGIN, y=112, width=WIDTH - 2 * MARGIN, size=62, bold=True)
    under = paragraph(lead, x=MARGIN, y=head.bottom + 52, width=WIDTH - 2 * MARGIN, size=26)
    band = under.bottom + 34
    below = paragraph(foot, x=MARGIN, y=0, width=WIDTH - 2 * MARGIN, size=17)
    end = HEIGHT - MARGIN - below.bottom + 10
    layout = _laid_out(chapters, top=band + 44, bottom=end - 36)
    parts = [
        element("rect", width=WIDTH, height=HEIGHT, fill=light("paper")),
        element("rect", width=WIDTH, height=band, fill=light("first")),
        _colored(head.svg + under.svg, light("paper")),
        *(_drawn(placed, layout.width) for placed in layout.placed),
        f'<g transform="translate(0 {end:.1f})">{_colored(below.svg, light("muted"))}</g>',
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:g}" height="{HEIGHT:g}" '
        f'viewBox="0 0 {WIDTH:g} {HEIGHT:g}">{"".join(parts)}</svg>'
    )


def _laid_out(chapters: Sequence[Evidence | StudyEvidence], *, top: float, bottom: float) -> Layout:
    """The fewest columns and the largest letters with which all cards fit, or nearly all."""
    layout, pieces = Layout((), 0.0), pieces_of(chapters)
    for (count, letters), times in itertools.product(COLUMNS.items(), SIZES):
        width = (WIDTH - 2 * MARGIN - (count - 1) * GUTTER) / count
        cards = [drawn_card(piece, width, size=letters * times) for piece in pieces]
        layout = _in_columns(cards, count, width, top=top, bottom=bottom)
        left_out = len(cards) - len(layout.placed)
        if left_out == 0 or (times == SIZES[-1] and left_out <= SPARED):
            break
    return layout


def _in_columns(
    cards: Sequence[Card], count: int, width: float, *, top: float, bottom: float
) -> Layout:
    """Cards in reading order, column after column.

    A card that is higher than the page is left out, then what does not fit at the end.
    """
    room = bottom - top
    cards = [card for card in cards if card.height <= room] or cards[:1]
    fitting = [card for column in _filled(cards, room)[:count] for card in column]
    columns = _balanced(fitting, count)
    placed = list[Placed]()
    for number, column in enumerate(columns):
        left = room - _height(column)
        gap, y = GAP + min(left / max(1, len(column) - 1), MOST_STRETCH), top
        for card in column:
            placed.append(Placed(card, MARGIN + number * (width + GUTTER), y))
            y += card.height + gap
    return Layout(tuple(placed), width)


def _balanced(cards: Sequence[Card], count: int) -> list[Sequence[Card]]:
    """Cards in order in so many columns, of which the longest is as short as it can be."""
    ends = range(1, len(cards) + 1)
    heights = sorted({_height(cards[start:end]) for end in ends for start in range(end)})
    place = bisect.bisect_left(
        heights, True, key=lambda height: len(_filled(cards, height)) <= count
    )
    return _filled(cards, heights[place])


def _filled(cards: Sequence[Card], height: float) -> list[Sequence[Card]]:
    """Cards in order in columns, each filled up to a height before the next is begun."""
    columns = list[Sequence[Card]]()
    start = 0
    for end in range(1, len(cards) + 1):
        if end == len(cards) or _height(cards[start : end + 1]) > height + ROUNDING:
            columns.append(cards[start:end])
            start = end
    return columns


def _height(column: Sequence[Card]) -> float:
    return sum(card.height + GAP for card in column) - GAP


def _drawn(placed: Placed, width: float) -> str:
    frame = element(
        "rect",
        width=width,
        height=placed.card.height,
        rx=12,
        fill=light("paper"),
        stroke=light("grid"),
        stroke_width=2,
    )
    return f'<g transform="translate({placed.x:.1f} {placed.y:.1f})">{frame}{placed.card.svg}</g>'


def _colored(svg: str, color: str) -> str:
    return f'<g fill="{color}">{svg}</g>'
