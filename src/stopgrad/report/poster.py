"""Chapters -> a poster: one page of A1 as vector PDF, by the writer of SVG that draws the charts.

Laid out here, in points: cards are put one by one under the shortest column, in as few columns as
take them all; what does not fit in the most columns is left out, from the last to the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from stopgrad.figures.palette import light
from stopgrad.report.evidence import Evidence
from stopgrad.report.poster_cards import Card, drawn_card, heading, pieces_of
from stopgrad.report.poster_text import element, paragraph
from stopgrad.report.study import StudyEvidence

WIDTH, HEIGHT = 1684.0, 2384.0  # A1, pt
MARGIN, GUTTER, GAP = 64.0, 44.0, 30.0
COLUMNS = (2, 3, 4)


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

    from stopgrad.files import write_atomically

    write_atomically(out, vl_convert.svg_to_pdf(poster_svg(chapters)))
    return out


def poster_svg(chapters: Sequence[Evidence | StudyEvidence]) -> str:
    """The poster as SVG, A1 upright, one unit a point."""
    title, lead, foot = heading(chapters)
    head = paragraph(title, x=MARGIN, y=112, width=WIDTH - 2 * MARGIN, size=62, bold=True)
    under = paragraph(lead, x=MARGIN, y=head.bottom + 40, width=WIDTH - 2 * MARGIN, size=26)
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
    layout, pieces = Layout((), 0.0), pieces_of(chapters)
    for count in COLUMNS:
        width = (WIDTH - 2 * MARGIN - (count - 1) * GUTTER) / count
        cards = [drawn_card(piece, width) for piece in pieces]
        layout = _in_columns(cards, count, width, top=top, bottom=bottom)
        if len(layout.placed) == len(cards):
            break
    return layout


def _in_columns(
    cards: Sequence[Card], count: int, width: float, *, top: float, bottom: float
) -> Layout:
    """Each card under the shortest column; one that fits nowhere is left out."""
    ends, placed = [top] * count, list[Placed]()
    for card in cards:
        column = min(range(count), key=lambda place: (round(ends[place]), place))
        if ends[column] + card.height > bottom:
            continue
        placed.append(Placed(card, MARGIN + column * (width + GUTTER), ends[column]))
        ends[column] += card.height + GAP
    return Layout(_spread(placed, ends, bottom=bottom), width)


def _spread(placed: list[Placed], ends: list[float], *, bottom: float) -> tuple[Placed, ...]:
    """Columns that end near the bottom are stretched to end on it."""
    moved = list[Placed]()
    for x in sorted({place.x for place in placed}):
        column = [place for place in placed if place.x == x]
        left = bottom - max(place.y + place.card.height for place in column)
        step = min(left / max(1, len(column) - 1), GAP)
        moved += [place._replace(y=place.y + n * step) for n, place in enumerate(column)]
    return tuple(moved)


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
