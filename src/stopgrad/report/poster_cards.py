"""Chapters -> the cards of a poster, the most telling first: figures, tables, what was done."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.figures.grids import neighbor_grid, view_grid
from stopgrad.figures.palette import PALETTE, light
from stopgrad.report import charts, facts, study_charts, tables
from stopgrad.report.charts import Figure
from stopgrad.report.evidence import Evidence, judgement, scored_records
from stopgrad.report.poster_text import FAMILY, element, fitted, paragraph, words
from stopgrad.report.results import finding
from stopgrad.report.study import StudyEvidence
from stopgrad.report.study_page import study_command
from stopgrad.study.findings import sentence
from stopgrad.study.markdown import conditions, cost

if TYPE_CHECKING:
    from PIL.Image import Image

INSET = 24.0  # pt between the frame of a card and what is in it
MOST_ROWS = 12  # of a table
MOST_SCALE = 2.2  # of a chart


class Card(NamedTuple):
    """A part of a poster, drawn from its top left."""

    svg: str
    height: float


class Writer:
    """Puts things under each other on a card."""

    def __init__(self, width: float) -> None:
        self.width, self.inside = width, width - 2 * INSET
        self.size = max(14.0, min(21.0, width / 36))
        self.parts, self.y = list[str](), INSET

    def text(self, text: str, *, times: float = 1.0, bold: bool = False, role: str = "ink") -> None:
        """A paragraph."""
        size = self.size * times
        made = paragraph(text, x=INSET, y=self.y + size, width=self.inside, size=size, bold=bold)
        self.parts.append(f'<g fill="{light(role)}">{made.svg}</g>')  # type: ignore[arg-type]
        self.y = made.bottom + size * 0.75

    def chart(self, figure: Figure) -> None:
        """A chart at the width of the card, with its caption."""
        found = re.match(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)" width="([\d.]+)"', figure.svg)
        assert found is not None, figure.svg[:200]
        width, height = float(found[1]), float(found[2])
        scale = min(self.inside / width, MOST_SCALE)
        size = f'width="{width * scale:.1f}" height="{height * scale:.1f}"'
        place = f'x="{INSET}" y="{self.y:.1f}" {size} font-family="{FAMILY}"'
        inner = figure.svg.replace(f'width="{found[3]}"', place, 1)
        self.parts.append(re.sub(r"var\(--(\w+)\)", _tone, inner))
        self.y += height * scale + 8
        self.text(figure.caption, times=0.86, role="muted")

    def picture(self, image: Image) -> None:
        """A picture at the width of the card."""
        file = io.BytesIO()
        image.save(file, "PNG", optimize=True)
        source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        height = self.inside * image.height / image.width
        self.parts.append(
            element("image", x=INSET, y=self.y, width=self.inside, height=height, href=source)
        )
        self.y += height + 8

    def table(self, table: tables.Table) -> None:
        """The names and the last two columns of a table."""
        size, step = self.size * 0.92, self.size * 1.75
        right, middle = INSET + self.inside, INSET + self.inside * 0.74
        head = tuple(map(tables.Cell, table.columns))
        rows = [(head, "muted"), *((row, "ink") for row in table.rows[:MOST_ROWS])]
        for row, role in rows:
            cells = (row[0], *row[-2:])
            name, first, last = (_with_note(cell) for cell in cells)
            bold = any(cell.mark for cell in cells)
            y = self.y + size
            line = words(fitted(name, width=self.inside * 0.4, size=size), x=INSET, y=y, size=size)
            line += words(first, x=middle, y=y, size=size, end=True, bold=bold)
            line += words(last, x=right, y=y, size=size, end=True)
            rule = element("rect", x=INSET, y=y + size * 0.5, width=self.inside, height=1)
            self.parts.append(f'<g fill="{light(role)}">{line}</g>')  # type: ignore[arg-type]
            self.parts.append(f'<g fill="{light("grid")}">{rule}</g>')
            self.y += step


def _with_note(cell: tables.Cell) -> str:
    return f"{cell.text}, {cell.note}" if cell.note else cell.text


def heading(chapters: Sequence[Evidence | StudyEvidence]) -> tuple[str, str, str]:
    """Title, what stands under it, and the last lines of the sheet."""
    first = chapters[0]
    if isinstance(first, StudyEvidence):
        own = [c for c in chapters if isinstance(c, StudyEvidence)]
        one = len(own) == 1
        data = first.results.stored.data["name"]
        title = first.results.stored.study.question if one else f"SimSiam on {data}"
        lead = conditions(first.results) if one else f"{len(own)} studies, {_seeds(own)}"
        ends = [*(cost(c.results) for c in own[:1] if one), *map(study_command, own)]
        return title, lead, "   ·   ".join(ends)
    commands = " && ".join(facts.repeat_commands(first))
    return f"SimSiam: {first.name}", finding(scored_records(first)), commands


class Piece(NamedTuple):
    """What a card will hold, before its width is known."""

    title: str = ""
    text: str = ""
    figure: Figure | None = None
    table: tables.Table | None = None
    picture: Image | None = None


def pieces_of(chapters: Sequence[Evidence | StudyEvidence]) -> list[Piece]:
    """All that a poster may hold; what tells most of each chapter comes first."""
    alone = len(chapters) == 1
    made = [_study(c, alone=alone) if isinstance(c, StudyEvidence) else _run(c) for c in chapters]
    turns = itertools.zip_longest(*made)
    rest = [piece for turn in turns for piece in turn if piece is not None]
    return [*_architecture(chapters[0]), *rest]


def drawn_card(piece: Piece, width: float) -> Card:
    """A piece drawn at a width."""
    writer = Writer(width)
    if piece.title:
        writer.text(piece.title, times=1.4, bold=True)
    if piece.text:
        writer.text(piece.text)
    if piece.figure is not None:
        writer.chart(piece.figure)
    if piece.table is not None:
        writer.table(piece.table)
    if piece.picture is not None:
        writer.picture(piece.picture)
    return Card("".join(writer.parts), writer.y + INSET * 0.5)


def _architecture(chapter: Evidence | StudyEvidence) -> list[Piece]:
    if isinstance(chapter, StudyEvidence):
        figures = study_charts.architecture_figures(chapter)
    else:
        figures = charts.architecture_figures(chapter)
    return [Piece("How it learns without labels", figure=figure) for figure in figures]


def _study(study: StudyEvidence, *, alone: bool) -> Iterator[Piece]:
    figures = study_charts.score_figures(study)
    title = "What was found" if alone else study.results.stored.study.question
    yield Piece(title, sentence(study.results), figures[0] if figures else None)
    found = tables.score_tables(study)[0]
    if study.results.stored.study.published is not None and len(found.columns) > 2:
        yield Piece(text=f"{study.name}. {found.caption}", table=found)
    for figure in study_charts.curve_figures(study)[:1] + figures[1:]:
        yield Piece(figure=figure)
    for figure in study_charts.collapse_figures(study):
        yield Piece(figure=figure)


def _run(run: Evidence) -> Iterator[Piece]:
    verdict = judgement(run)
    for figure in charts.accuracy_figures(run)[:2]:
        yield Piece(figure=figure)
    if run.views is not None:
        picture = view_grid(run.views, columns=2)
        yield Piece("What it learns from: two views of each image", picture=picture)
    if run.neighbors is not None:
        yield Piece("Nearest neighbours", picture=neighbor_grid(run.neighbors))
    for figure in charts.curve_figures(run)[::-1]:
        yield Piece(figure=figure)
    measured = charts.measure_figures(run)
    if verdict is not None and measured:
        says = f"{verdict.state}: {verdict.reason}"
        yield Piece("Is it collapsing?", says, measured[0])
    for figure in measured[1:] + charts.spectrum_figures(run.metrics):
        yield Piece(figure=figure)


def _seeds(own: Sequence[StudyEvidence]) -> str:
    runs = {run for study in own for run in study.results.runs}
    return f"{len(runs)} runs, mean and standard deviation over seeds"


def _tone(found: re.Match[str]) -> str:
    """The colour on paper of a role."""
    return PALETTE[found[1]].light  # type: ignore[index]
