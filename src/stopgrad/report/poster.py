"""Chapters -> a poster: one page of A1 as vector PDF, set by Typst from `poster.typ`.

What the poster says is chosen here and handed over as data, the figures as SVG; how it looks is the
template's. Needs the extra `pdf`.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from stopgrad.errors import ConfigError
from stopgrad.evaluation import tied
from stopgrad.report import accuracy, curves, facts, study_charts
from stopgrad.report.evidence import (
    VIEWS,
    Evidence,
    NeighborPanel,
    Pixels,
    StudyEvidence,
    ViewPanel,
    queries,
)
from stopgrad.report.facts import Fact, finding
from stopgrad.report.gallery import data_uri
from stopgrad.report.study_page import study_command, study_facts
from stopgrad.report.study_tables import finding_table, score_tables, scored
from stopgrad.report.style import PALETTE, Figure, plain_svg
from stopgrad.report.table import Table, as_print
from stopgrad.storage import printable, write_atomically
from stopgrad.studies import sentence

Chapters = Sequence[Evidence | StudyEvidence]

INTRODUCTION = (
    "SimSiam learns image features without labels, negative pairs or a momentum encoder. One "
    "encoder sees two random views of each image; on one side a predictor has to match the other "
    "side, through which no gradient flows. Without the stop-gradient the loss is least when all "
    "outputs are equal: the network collapses."
)
REFERENCES = (
    "X. Chen and K. He, Exploring Simple Siamese Representation Learning, CVPR 2021 (method). "
    "Z. Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR "
    "2018 (kNN)."
)
COMMANDS = 4  # at the foot of the sheet
LONGEST_TITLE = 200  # characters
SMALL = (190, 130)  # px of the inside of a chart of which two stand side by side
ORIGINALS, QUERIES, NEAREST = 4, 5, 6  # images that are shown
FONT = "Libertinus Serif"  # that Typst includes
ZERO = "\N{ZERO WIDTH SPACE}"
LONGEST = 24  # letters of a word that is never broken


class Part(NamedTuple):
    """A piece of a column under one heading; what is empty is left out."""

    title: str = ""
    texts: tuple[str, ...] = ()
    figure: Figure | None = None
    multiples: tuple[Figure, ...] = ()  # smaller, two side by side
    table: Table | None = None
    findings: Table | None = None
    views: ViewPanel | None = None
    neighbors: NeighborPanel | None = None
    facts: tuple[Fact, ...] = ()
    rank: int = 5  # parts with the highest are left out first


def write_poster(chapters: Chapters, *, out: Path) -> Path:
    """Writes the poster of runs and studies as a PDF of one page.

    Raises:
        ConfigError: When Typst is not installed.
        StorageError: When the disk refuses; an older poster stays as it was.
    """
    write_atomically(out, poster_pdf(poster_data(chapters)))
    return out


def poster_pdf(data: Mapping[str, Any]) -> bytes:
    """What `poster_data` chose as a PDF; Typst reads the template and one JSON text, no file.

    An SVG may name images below the root of Typst: a folder that holds the template alone.
    """
    try:
        import typst
    except ImportError:
        raise ConfigError(
            "the package typst is not installed",
            expected="it for a poster",
            hint="pip install 'stopgrad[pdf]'",
        ) from None
    inputs = {"poster": json.dumps(data)}
    with tempfile.TemporaryDirectory() as root:
        sheet = Path(root, "poster.typ")
        sheet.write_bytes(files("stopgrad.report").joinpath(sheet.name).read_bytes())
        return typst.compile(sheet, root=Path(root), format="pdf", sys_inputs=inputs)


def poster_data(chapters: Chapters) -> dict[str, Any]:
    """All that the template shows: texts, tables, charts as SVG, images as the bytes of files."""
    title, lead = _heading(chapters)
    poster = {
        "title": textwrap.shorten(title, LONGEST_TITLE, placeholder="\N{HORIZONTAL ELLIPSIS}"),
        "lead": lead,
        "foot": [_command(chapter) for chapter in chapters[:COMMANDS]],
        "tones": {role: tone.light for role, tone in PALETTE.items()},
        "parts": [_content(part, chapter) for part, chapter in _parts(chapters)],
    }
    return {key: printed(value) for key, value in poster.items()}


def _heading(chapters: Chapters) -> tuple[str, str]:
    """The title and what stands under it."""
    first = chapters[0]
    if len(chapters) > 1:
        return f"SimSiam on {_data(first)}", _counted(chapters)
    if isinstance(first, StudyEvidence):
        return _question(first), f"{_data(first)}, {scored(first.results)}"
    return f"SimSiam: {first.name}", _question(first)


def _counted(chapters: Chapters) -> str:
    """`2 studies, 36 runs, mean and standard deviation over seeds`."""
    studies = [chapter for chapter in chapters if isinstance(chapter, StudyEvidence)]
    if not studies:
        return f"{len(chapters)} runs"
    runs = {run for study in studies for run in study.results.runs}
    single = len(chapters) - len(studies)
    return (
        f"{len(studies)} {'study' if len(studies) == 1 else 'studies'}, {len(runs)} runs, mean and "
        f"standard deviation over seeds{f'; {single} more' if single else ''}"
    )


def _command(chapter: Evidence | StudyEvidence) -> str:
    if isinstance(chapter, StudyEvidence):
        return study_command(chapter)
    return " && ".join(facts.repeat_commands(chapter))


def _data(chapter: Evidence | StudyEvidence) -> str:
    if isinstance(chapter, StudyEvidence):
        return chapter.results.stored.data.name
    return str(chapter.info.data.get("name"))


def _question(chapter: Evidence | StudyEvidence) -> str:
    """What a study asks, or what a run came to."""
    if isinstance(chapter, StudyEvidence):
        return chapter.results.stored.study.question
    return finding(chapter.scored)


def _parts(chapters: Chapters) -> Iterator[tuple[Part, str]]:
    """All that a poster may show, in reading order, each with the name of its chapter.

    The name is empty where the poster has one chapter only, and for what all chapters share.
    """
    yield Part("Introduction", (INTRODUCTION,), rank=0), ""
    yield from ((part, "") for part in _method(chapters[0]))
    for chapter in chapters:
        parts = _of_study(chapter) if isinstance(chapter, StudyEvidence) else _of_run(chapter)
        if len(chapters) == 1:
            yield from ((part, "") for part in parts)
        else:
            yield from _named(parts, chapter)
    yield Part("References", (REFERENCES,), rank=0), ""


def _method(chapter: Evidence | StudyEvidence) -> Iterator[Part]:
    """The network, and what it learns from."""
    if isinstance(chapter, StudyEvidence):
        drawings = study_charts.architecture_figures(chapter)
        run = chapter.shown and chapter.shown.run
    else:
        drawings, run = accuracy.architecture_figures(chapter), chapter
    for figure in drawings:
        yield Part("Model", figure=figure, rank=0)
    if run is not None and run.views is not None:
        yield Part("Augmentation", ("Two random views of each image.",), views=run.views, rank=3)


def _named(parts: Iterator[Part], chapter: Evidence | StudyEvidence) -> Iterator[tuple[Part, str]]:
    """The parts of one chapter of several: the first has its question as a title."""
    for place, part in enumerate(parts):
        if place == 0:
            yield part._replace(title=_question(chapter)), chapter.name
        elif not part.facts:
            name = f"{chapter.name}: {part.title}" if part.title else chapter.name
            yield part._replace(title=""), name


def _of_study(study: StudyEvidence) -> Iterator[Part]:
    figures = study_charts.score_figures(study)
    yield Part("Results", (sentence(study.results),), figures[0] if figures else None, rank=1)
    findings = finding_table(study.results)
    if findings.rows:
        yield Part("Takeaways", findings=findings, rank=2)
    for table in score_tables(study.results):
        if table.name == "final" or table.heads[0].endswith("%"):
            yield Part("", (table.caption,), table=table, rank=2)
    if study.shown is not None and study.shown.run.neighbors is not None:
        text = f"By the encoder of {study.shown.text}."
        yield Part("Nearest neighbours", (text,), neighbors=study.shown.run.neighbors, rank=4)
    for figure in study_charts.curve_figures(study)[:1] + figures[1:]:
        yield Part(figure=figure, rank=6)
    measured = study_charts.collapse_figures(study)
    if measured:
        yield Part("Is it collapsing?", multiples=tuple(measured), rank=7)
    yield Part("What was done", facts=tuple(study_facts(study)), rank=5)


def _of_run(run: Evidence) -> Iterator[Part]:
    verdict = run.judgement
    for place, figure in enumerate(accuracy.accuracy_figures(run)[:2]):
        yield Part("" if place else "Results", figure=figure, rank=1 + 2 * place)
    if run.neighbors is not None:
        yield Part("Nearest neighbours", neighbors=run.neighbors, rank=4)
    for place, figure in enumerate(curves.curve_figures(run)[::-1]):
        yield Part("" if place else "Training", figure=figure, rank=4)
    measured = curves.measure_figures(run)
    if verdict is not None and measured:
        says = f"{verdict.state}: {verdict.reason}"
        yield Part("Is it collapsing?", (says,), multiples=tuple(measured), rank=3)
    spectra = curves.spectrum_figures(run.metrics)
    if spectra:
        yield Part(multiples=tuple(spectra), rank=7)
    yield Part("What was done", facts=tuple(facts.facts(run)), rank=5)


def _content(part: Part, chapter: str) -> dict[str, Any]:
    """A part as the template takes it."""
    return {
        "chapter": chapter,
        "title": part.title,
        "rank": part.rank,
        "texts": part.texts,
        "figure": None if part.figure is None else _chart(part.figure),
        "multiples": [_chart(_smaller(figure)) for figure in part.multiples],
        "table": None if part.table is None else as_print(part.table),
        "findings": [] if part.findings is None else as_print(part.findings)["rows"],
        "images": _views(part.views) or _neighbors(part.neighbors),
        "facts": part.facts,
    }


def _chart(figure: Figure) -> dict[str, Any]:
    svg = plain_svg(figure.chart).replace("<svg ", f'<svg font-family="{FONT}" ', 1)
    svg = re.sub(r' font-family="sans-serif"', "", svg)
    width, height = (float(n) for n in re.findall(r' (?:width|height)="([\d.]+)', svg)[:2])
    return {"svg": svg, "aspect": width / height, "caption": figure.caption}


def _smaller(figure: Figure) -> Figure:
    """A chart with less room inside and letters as large as before."""
    if isinstance(figure.chart, str):
        return figure
    return figure._replace(chart=figure.chart.properties(width=SMALL[0], height=SMALL[1]))


def _views(panel: ViewPanel | None) -> dict[str, Any] | None:
    """Rows of two originals, each with its two views."""
    if panel is None:
        return None
    cells = [
        _image(pixels, text=name if place < 2 else "")
        for place, images in enumerate(list(zip(*panel, strict=True))[:ORIGINALS])
        for pixels, name in zip(images, VIEWS, strict=True)
    ]
    return {"columns": 6, "cells": cells}


def _neighbors(panel: NeighborPanel | None) -> dict[str, Any] | None:
    """A row for each query, what it is and was taken for, and its nearest images."""
    if panel is None:
        return None
    found = queries(panel)
    every = max(1, len(found) // QUERIES)
    near = min(NEAREST, panel.index.shape[1])
    cells = []
    for query in found[::every][:QUERIES]:
        wrong = f"taken for {query.predicted}" if query.correct is False else ""
        name = query.class_name or query.source.rsplit("/", 1)[-1]
        cells.append(_image(query.pixels, text=name, note=wrong))
        for n in query.neighbors[:near]:
            other = n.class_name if n.agrees is False else ""
            cells.append(_image(n.pixels, text=f"{n.similarity:.2f}", note=other, agrees=n.agrees))
    return {"columns": 1 + near, "cells": cells}


def _image(
    pixels: Pixels, *, text: str, note: str = "", agrees: bool | None = None
) -> dict[str, Any]:
    content = base64.b64decode(data_uri(pixels).partition(",")[2])
    return {"bytes": list(content), "text": text, "note": note, "agrees": agrees}


def printed(value: Any) -> Any:
    """All texts as Typst can set them: no control characters, and long words may be broken."""
    match value:
        case str():
            return " ".join(_breakable(word) for word in str(tied(printable(value))).split(" "))
        case dict():
            kept = ("svg", "bytes")
            return {k: inner if k in kept else printed(inner) for k, inner in value.items()}
        case list() | tuple():
            return [printed(inner) for inner in value]
    return value


def _breakable(word: str) -> str:
    """A long word that may be broken after a dot, slash, underscore or hyphen, or else anywhere."""
    if len(word) <= LONGEST:
        return word
    return re.sub(rf"[./_-](?=.)|[^./_-]{{{LONGEST // 2}}}(?=.)", rf"\g<0>{ZERO}", word)
