"""Chapters -> the cards of a poster, the most telling first: figures, tables, what was done."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.report import charts, facts, study_charts
from stopgrad.report.charts import Figure
from stopgrad.report.evidence import Evidence, StudyEvidence
from stopgrad.report.facts import Fact
from stopgrad.report.figures.grids import neighbor_grid, view_grid
from stopgrad.report.figures.palette import PALETTE, light
from stopgrad.report.poster_tables import findings_svg, table_svg
from stopgrad.report.poster_text import FAMILY, element, length, paragraph, words
from stopgrad.report.run_tables import finding
from stopgrad.report.study_page import study_command, study_facts
from stopgrad.report.study_tables import finding_table, score_tables
from stopgrad.report.study_text import scored
from stopgrad.report.table import Table
from stopgrad.studies import sentence

if TYPE_CHECKING:
    from PIL.Image import Image

INSET = 24.0  # pt between the frame of a card and what is in it
MOST_SCALE = 2.2  # of a chart
CAPTION = 0.86  # of the letters of a card


class Card(NamedTuple):
    """A part of a poster, drawn from its top left."""

    svg: str
    height: float


class Picture(NamedTuple):
    """A picture ready to be drawn at any size."""

    source: str  # a data URI
    width: int  # px
    height: int  # px


class Writer:
    """Puts things under each other on a card."""

    def __init__(self, width: float, size: float) -> None:
        self.width, self.inside, self.size = width, width - 2 * INSET, size
        self.parts, self.y = list[str](), INSET

    def text(self, text: str, *, times: float = 1.0, bold: bool = False, role: str = "ink") -> None:
        """A paragraph."""
        size = self.size * times
        made = paragraph(text, x=INSET, y=self.y + size, width=self.inside, size=size, bold=bold)
        self.parts.append(f'<g fill="{light(role)}">{made.svg}</g>')  # type: ignore[arg-type]
        self.y = made.bottom + size * 0.75

    def chart(self, figure: Figure) -> None:
        """A chart at the width of the card, with its caption."""
        self.y = self._chart(figure, x=INSET, width=self.inside, size=self.size * CAPTION)

    def charts(self, figures: Sequence[Figure]) -> None:
        """Charts in two columns, each with its caption."""
        width = (self.inside - INSET) / 2
        for first in range(0, len(figures), 2):
            self.y = max(
                self._chart(
                    figure, x=INSET + place * (width + INSET), width=width, size=self.size * 0.75
                )
                for place, figure in enumerate(figures[first : first + 2])
            )

    def _chart(self, figure: Figure, *, x: float, width: float, size: float) -> float:
        """A chart with its caption; where the next thing may begin."""
        found = re.match(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)" width="([\d.]+)"', figure.svg)
        assert found is not None, figure.svg[:200]
        scale = min(width / float(found[1]), MOST_SCALE)
        height = float(found[2]) * scale
        measures = f'width="{float(found[1]) * scale:.1f}" height="{height:.1f}"'
        place = f'x="{x:.1f}" y="{self.y:.1f}" {measures} font-family="{FAMILY}"'
        inner = figure.svg.replace(f'width="{found[3]}"', place, 1)
        self.parts.append(re.sub(r"var\(--(\w+)\)", _tone, inner))
        under = self.y + height + 8 + size
        made = paragraph(figure.caption, x=x, y=under, width=width, size=size)
        self.parts.append(f'<g fill="{light("muted")}">{made.svg}</g>')
        return made.bottom + size

    def picture(self, picture: Picture) -> None:
        """A picture at the width of the card."""
        height = self.inside * picture.height / picture.width
        self.parts.append(
            element(
                "image", x=INSET, y=self.y, width=self.inside, height=height, href=picture.source
            )
        )
        self.y += height + 8

    def table(self, table: Table) -> None:
        """A table of numbers, or of findings."""
        draw = findings_svg if table.name == "findings" else table_svg
        made = draw(table, width=self.inside, size=self.size)
        self.parts.append(f'<g transform="translate({INSET} {self.y:.1f})">{made.svg}</g>')
        self.y += made.height

    def facts(self, facts: Sequence[Fact]) -> None:
        """Names and what is to be said to them."""
        size = self.size * 0.9
        left = max((length(fact.name, size=size) for fact in facts), default=0.0) + size
        for fact in facts:
            top = self.y + size
            name = words(fact.name, x=INSET, y=top, size=size)
            said = paragraph(fact.value, x=INSET + left, y=top, width=self.inside - left, size=size)
            self.parts.append(f'<g fill="{light("muted")}">{name}</g>')
            self.parts.append(f'<g fill="{light("ink")}">{said.svg}</g>')
            self.y = said.bottom + size * 0.6


def heading(chapters: Sequence[Evidence | StudyEvidence]) -> tuple[str, str, str]:
    """Title, what stands under it, and the last lines of the sheet."""
    first = chapters[0]
    if isinstance(first, StudyEvidence):
        own = [c for c in chapters if isinstance(c, StudyEvidence)]
        one = len(own) == 1
        data = first.results.stored.data["name"]
        title = first.results.stored.study.question if one else f"SimSiam on {data}"
        lead = f"{data}, {scored(first.results)}" if one else f"{len(own)} studies, {_seeds(own)}"
        return title, lead, "   ·   ".join(map(study_command, own))
    commands = " && ".join(facts.repeat_commands(first))
    return f"SimSiam: {first.name}", finding(first.scored), commands


class Piece(NamedTuple):
    """What a card will hold, before its width is known."""

    title: str = ""
    text: str = ""
    figure: Figure | None = None
    several: tuple[Figure, ...] = ()  # smaller, in two columns
    table: Table | None = None
    picture: Picture | None = None
    facts: tuple[Fact, ...] = ()


def pieces_of(chapters: Sequence[Evidence | StudyEvidence]) -> list[Piece]:
    """All that a poster may hold; what tells most of each chapter comes first."""
    alone = len(chapters) == 1
    made = [_study(c, alone=alone) if isinstance(c, StudyEvidence) else _run(c) for c in chapters]
    if not alone:
        made = [_named(pieces, c.name) for pieces, c in zip(made, chapters, strict=True)]
    turns = itertools.zip_longest(*made)
    rest = [piece for turn in turns for piece in turn if piece is not None]
    return [*_architecture(chapters[0]), *rest]


def _named(pieces: Iterable[Piece], name: str) -> Iterator[Piece]:
    """The cards of a chapter that lie among those of others, each with the chapter's name."""
    for piece in pieces:
        yield piece._replace(text=f"{name}. {piece.text}" if piece.text else name)


def drawn_card(piece: Piece, width: float, *, size: float) -> Card:
    """A piece drawn at a width, in letters of a size."""
    writer = Writer(width, size)
    if piece.title:
        writer.text(piece.title, times=1.4, bold=True)
    if piece.text:
        writer.text(piece.text)
    if piece.figure is not None:
        writer.chart(piece.figure)
    writer.charts(piece.several)
    if piece.table is not None:
        writer.table(piece.table)
    if piece.picture is not None:
        writer.picture(piece.picture)
    writer.facts(piece.facts)
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
    findings = finding_table(study.results)
    if findings.rows:
        asked = "Do the published findings show?"
        named = "" if alone else f"{study.name}. {asked}"
        yield Piece(asked if alone else "", named, table=findings)
    for table in score_tables(study.results):
        if table.name == "final" or table.heads[0].endswith("%"):
            yield Piece(text=table.caption, table=table)
    if alone:
        yield Piece("What was done", facts=tuple(study_facts(study)))
    if study.shown is not None:
        yield from _pictures(study.shown.run, text=f"By the encoder of {study.shown.text}.")
    for figure in study_charts.curve_figures(study)[:1] + figures[1:]:
        yield Piece(figure=figure)
    measured = study_charts.collapse_figures(study)
    if measured:
        yield Piece("Is it collapsing?" if alone else "", several=tuple(measured))


def _run(run: Evidence) -> Iterator[Piece]:
    verdict = run.judgement
    for figure in charts.accuracy_figures(run)[:2]:
        yield Piece(figure=figure)
    yield from _pictures(run)
    for figure in charts.curve_figures(run)[::-1]:
        yield Piece(figure=figure)
    measured = charts.measure_figures(run)
    if verdict is not None and measured:
        says = f"{verdict.state}: {verdict.reason}"
        yield Piece("Is it collapsing?", says, several=tuple(measured))
    spectra = charts.spectrum_figures(run.metrics)
    if spectra:
        yield Piece(several=tuple(spectra))
    yield Piece("What was done", facts=tuple(facts.facts(run)))


def _pictures(run: Evidence, *, text: str = "") -> Iterator[Piece]:
    if run.views is not None:
        picture = _picture(view_grid(run.views, columns=2))
        yield Piece("What it learns from: two views of each image", picture=picture)
    if run.neighbors is not None:
        yield Piece("Nearest neighbours", text, picture=_picture(neighbor_grid(run.neighbors)))


def _picture(image: Image) -> Picture:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(source, image.width, image.height)


def _seeds(own: Sequence[StudyEvidence]) -> str:
    runs = {run for study in own for run in study.results.runs}
    return f"{len(runs)} runs, mean and standard deviation over seeds"


def _tone(found: re.Match[str]) -> str:
    """The colour on paper of a role."""
    return PALETTE[found[1]].light  # type: ignore[index]
