"""Chapters -> a poster: one page of A1 or A0 as vector PDF, set by Typst from `poster.typ`.

What the poster says is chosen here and handed over as data, the figures as SVG; how it looks is the
template's. Needs the extra `pdf`.
"""

from __future__ import annotations

import base64
import importlib
import json
import re
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stopgrad.errors import ConfigError
from stopgrad.evaluation import tied
from stopgrad.images import Pixels
from stopgrad.report import accuracy, curves, facts, study_charts, study_scores
from stopgrad.report.commands import repeat_commands
from stopgrad.report.evidence import Evidence, StudyEvidence
from stopgrad.report.facts import Fact, finding
from stopgrad.report.gallery import data_uri
from stopgrad.report.panels import VIEWS, NeighborPanel, ViewPanel, name_of, queries
from stopgrad.report.study_page import study_command, study_facts
from stopgrad.report.study_tables import (
    finding_table,
    scale_text,
    score_tables,
    scored,
)
from stopgrad.report.style import PALETTE, Figure, plain_svg
from stopgrad.report.table import as_print
from stopgrad.storage import printable, write_atomically
from stopgrad.studies import sentence

Chapters = Sequence[Evidence | StudyEvidence]

INTRODUCTION = (
    "SimSiam learns image features without labels, negative pairs or a momentum encoder. One "
    "encoder sees two random views of each image; a predictor on one side has to match the other "
    "side, through which no gradient flows. Without the stop-gradient, training drives all outputs "
    "to be equal, where the loss is least: the network collapses."
)
REFERENCES = (
    "X. Chen and K. He, Exploring Simple Siamese Representation Learning, CVPR 2021, "
    "arxiv.org/abs/2011.10566 (method).",
    "A SimSiam study on CIFAR-10, github.com/tillaczel/simsiam (published numbers).",
    "Z. Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR "
    "2018 (kNN).",
)
LARGER = {"A1": 1.0, "A0": 2**0.5}
TAKEAWAYS = 3
LETTERS = 4  # px by which letters in the model's drawing are larger than on a page
COMMANDS = 4  # at the foot of the sheet
LONGEST_TITLE = 200  # characters
SMALL = (190, 130)  # px of the inside of each of two charts side by side
ORIGINALS, QUERIES, NEAREST = 4, 3, 6  # images that are shown
METRICS = 2  # in the table of a run; the page has them all
FONT = "Libertinus Serif"  # that Typst includes
ZERO = "\N{ZERO WIDTH SPACE}"
LONGEST = 24  # letters of a word that is never broken


class Heading(NamedTuple):
    """The text above a poster, and the size of its sheet; what is empty is left out."""

    title: str = ""  # in place of the question
    authors: str = ""
    affiliation: str = ""
    address: str = ""  # of the repository, for a QR code
    size: Literal["A1", "A0"] = "A1"


PLAIN = Heading()


class Takeaway(NamedTuple):
    """One finding."""

    says: str
    answer: str = ""  # whether a published finding shows
    tone: str = "muted"
    why: str = ""


class Part(NamedTuple):
    """A piece of a column as the template takes it; what is empty is left out."""

    chapter: str = ""  # the name of its chapter, where there are several
    title: str = ""
    rank: int = 5  # parts with the highest are left out first
    texts: Sequence[str] = ()
    figure: dict[str, Any] | None = None  # of `_chart`
    multiples: Sequence[dict[str, Any]] = ()  # smaller ones, two side by side
    table: dict[str, Any] | None = None  # of `as_print`
    findings: Sequence[Any] = ()  # rows of a table of findings
    images: dict[str, Any] | None = None
    facts: Sequence[Fact] = ()
    hero: bool = False  # placed above the columns where there is a single chapter


def write_poster(chapters: Chapters, *, out: Path, heading: Heading = PLAIN) -> Path:
    """Writes the poster of runs and studies as a PDF of one page.

    Raises:
        ConfigError: When Typst, or for a QR code segno, is not installed.
        StorageError: When the disk refuses; an older poster stays as it was.
    """
    write_atomically(out, poster_pdf(poster_data(chapters, heading)))
    return out


def poster_pdf(data: Mapping[str, Any]) -> bytes:
    """What `poster_data` chose as a PDF; Typst reads the template and one JSON text, no file.

    An SVG may name images below the root of Typst: a folder that holds the template alone.
    """
    typst = _installed("typst", "a poster")
    inputs = {"poster": json.dumps(data)}
    with tempfile.TemporaryDirectory() as root:
        sheet = Path(root, "poster.typ")
        sheet.write_bytes(files("stopgrad.report").joinpath(sheet.name).read_bytes())
        made: bytes = typst.compile(sheet, root=Path(root), format="pdf", sys_inputs=inputs)
        return made


def poster_data(chapters: Chapters, heading: Heading = PLAIN) -> dict[str, Any]:
    """All that the template shows: texts, tables, charts as SVG, images as the bytes of files."""
    title, lead = _heading(chapters)
    title = heading.title or title
    poster = {
        "title": textwrap.shorten(title, LONGEST_TITLE, placeholder="\N{HORIZONTAL ELLIPSIS}"),
        "people": [line for line in (heading.authors, heading.affiliation) if line],
        "lead": lead,
        "code": _code(heading.address) if heading.address else None,
        "enlarged": LARGER[heading.size],
        "foot": [_command(chapter) for chapter in chapters[:COMMANDS]],
        "tones": {role: tone.light for role, tone in PALETTE.items()},
        "hero": _hero(chapters[0]) if len(chapters) == 1 else None,
        "parts": [part._asdict() for part in _parts(chapters)],
    }
    return {key: printed(value) for key, value in poster.items()}


def _code(address: str) -> dict[str, str]:
    """A QR code that leads to an address."""
    segno = _installed("segno", "a QR code")
    drawing = segno.make(address, error="m").svg_inline(border=0, dark="#000", light="#fff")
    return {"svg": drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)} | {
        "text": address
    }


def _installed(name: str, needed: str) -> Any:
    """A package of the extra `pdf`."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"the package {name} is not installed",
            expected=f"it for {needed}",
            hint="pip install 'stopgrad[pdf]'",
        ) from None


def _hero(chapter: Evidence | StudyEvidence) -> dict[str, Any] | None:
    """The figure that answers the question, and three takeaways; None without such a figure."""
    if isinstance(chapter, StudyEvidence):
        figures, takeaways = study_scores.key_figures(chapter), _of_findings(chapter)
    else:
        figures, takeaways = accuracy.accuracy_figures(chapter), _of_numbers(chapter)
    if not figures:
        return None
    found = [takeaway._asdict() for takeaway in takeaways[:TAKEAWAYS]]
    return {"figure": _chart(figures[0]), "takeaways": found}


def _of_findings(study: StudyEvidence) -> list[Takeaway]:
    """The findings, decided ones first, then the sentence on what is best."""
    found = [
        Takeaway(says.text, answer.text, answer.emphasis or "muted", why.text)
        for says, answer, why in finding_table(study.results).rows
    ]
    ordered = sorted(found, key=lambda takeaway: takeaway.tone == "muted")
    return [*ordered, Takeaway(sentence(study.results))]


def _of_numbers(run: Evidence) -> list[Takeaway]:
    """What pretraining gained by each metric, and whether the run is collapsing."""
    metrics = facts.metrics_of(run.scored)
    gains = [finding([r for r in run.scored if r.metric == metric]) for metric in metrics]
    found, verdict = [Takeaway(gain) for gain in gains if gain], run.judgement
    if verdict is not None:
        found.insert(1, Takeaway(verdict.reason, verdict.state, verdict.tone or "muted"))
    return found


def _heading(chapters: Chapters) -> tuple[str, str]:
    """The title and the line under it."""
    first = chapters[0]
    if len(chapters) > 1:
        return f"SimSiam on {first.data_name}", _counted(chapters)
    if isinstance(first, StudyEvidence):
        return _question(first), f"{first.data_name}, {scored(first.results)}"
    return f"SimSiam: {first.name}", facts.run_lead(first)


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
    return " && ".join(repeat_commands(chapter))


def _question(chapter: Evidence | StudyEvidence) -> str:
    """The question of a study, or the finding of a run."""
    if isinstance(chapter, StudyEvidence):
        return chapter.results.stored.study.question
    return finding(chapter.scored)


def _parts(chapters: Chapters) -> Iterator[Part]:
    """All that a poster may show, in reading order."""
    first = chapters[0]
    yield Part(title="Introduction", texts=[INTRODUCTION], rank=0)
    for figure in accuracy.architecture_figures(first, letters=LETTERS):
        yield Part(title="Model", figure=_chart(figure), rank=0)
    if first.run is not None and first.run.views is not None:
        text, images = "Two random views of each image.", _views(first.run.views)
        yield Part(title="Augmentation", texts=[text], images=images, rank=1)
    alone = len(chapters) == 1  # its key figure and its findings are above the columns
    for chapter in chapters:
        parts = _of_study(chapter) if isinstance(chapter, StudyEvidence) else _of_run(chapter)
        if alone:
            yield from (part for part in parts if not part.hero)
        else:
            yield from _named(parts, chapter)
    yield Part(title="References", texts=REFERENCES, rank=0)


def _named(parts: Iterator[Part], chapter: Evidence | StudyEvidence) -> Iterator[Part]:
    """The parts of one chapter of several: the first has its question as a title."""
    for place, part in enumerate(parts):
        if place == 0:
            yield part._replace(title=_question(chapter), chapter=chapter.name)
        elif not part.facts:
            name = f"{chapter.name}: {part.title}" if part.title else chapter.name
            yield part._replace(title="", chapter=name)


def _of_study(study: StudyEvidence) -> Iterator[Part]:
    results = study.results
    figures = [_chart(figure) for figure in study_scores.key_figures(study)]
    yield Part(
        title="Results",
        texts=[sentence(results)],
        figure=figures[0] if figures else None,
        rank=1,
        hero=True,
    )
    findings = as_print(finding_table(results))["rows"]
    if findings:
        yield Part(title="Takeaways", findings=findings, rank=2, hero=True)
    yield from (Part(title="Published", figure=figure, rank=3) for figure in figures[1:])
    for table in score_tables(results)[:1]:
        yield Part(title="Results", texts=[table.caption], table=as_print(table), rank=1)
    if study.shown is not None and study.shown.run.neighbors is not None:
        text, images = study.shown.text, _neighbors(study.shown.run.neighbors)
        text = f"By the encoder of {text}."
        yield Part(title="Nearest neighbours", texts=[text], images=images, rank=1)
    for figure in study_charts.curve_figures(study)[:1]:
        yield Part(title="Training", figure=_chart(figure), rank=6)
    yield from (Part(figure=_chart(f), rank=6) for f in study_scores.score_figures(study)[:1])
    measured = _multiples(study_charts.collapse_figures(study))
    if measured:
        yield Part(title="Is it collapsing?", multiples=measured, rank=7)
    discussion = [text for text in (scale_text(results), sentence(results)) if text]
    if discussion:
        yield Part(title="Discussion", texts=discussion, rank=1)
    yield Part(title="What was done", facts=study_facts(study), rank=4)


def _of_run(run: Evidence) -> Iterator[Part]:
    verdict, figures = run.judgement, accuracy.accuracy_figures(run)
    for place, figure in enumerate(figures[:2]):
        title = "" if place else "Results"
        yield Part(title=title, figure=_chart(figure), rank=1 + 4 * place, hero=place == 0)
    if run.scored:
        first = facts.metrics_of(run.scored)[:METRICS]
        table = facts.score_table([r for r in run.scored if r.metric in first])
        yield Part(title="Results", texts=[table.caption], table=as_print(table), rank=1)
    if run.neighbors is not None:
        yield Part(title="Nearest neighbours", images=_neighbors(run.neighbors), rank=1)
    for place, figure in enumerate(curves.curve_figures(run)[::-1]):
        yield Part(title="" if place else "Training", figure=_chart(figure), rank=4 + place)
    measured = _multiples(curves.measure_figures(run))
    if verdict is not None and measured:
        says = f"{verdict.state}: {verdict.reason}"
        yield Part(title="Is it collapsing?", texts=[says], multiples=measured, rank=3)
    if run.epochs:
        tile = facts.decay_tile([run.info.extent(run.epochs[-1]["step"])])
        yield Part(title="Discussion", texts=[f"N = {tile.value}: {tile.note}."], rank=2)
    yield Part(title="What was done", facts=facts.facts(run), rank=5)


def _chart(figure: Figure) -> dict[str, Any]:
    svg = plain_svg(figure.chart).replace("<svg ", f'<svg font-family="{FONT}" ', 1)
    svg = re.sub(r' font-family="sans-serif"', "", svg)
    width, height = (float(n) for n in re.findall(r' (?:width|height)="([\d.]+)', svg)[:2])
    return {"svg": svg, "aspect": width / height, "caption": figure.caption}


def _multiples(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """The charts at a smaller size, with letters as large as before."""
    made = []
    for figure in figures:
        assert not isinstance(figure.chart, str)
        chart = figure.chart | {"width": SMALL[0], "height": SMALL[1]}
        made.append(_chart(figure._replace(chart=chart)))
    return made


def _views(panel: ViewPanel) -> dict[str, Any]:
    """Rows of two originals, each with its two views."""
    cells = [
        _image(pixels, text=name if place < 2 else "")
        for place, images in enumerate(list(zip(*panel, strict=True))[:ORIGINALS])
        for pixels, name in zip(images, VIEWS, strict=True)
    ]
    return {"columns": 6, "cells": cells}


def _neighbors(panel: NeighborPanel) -> dict[str, Any]:
    """A row for each query, what it is and was taken for, and its nearest images."""
    found = queries(panel)
    every = max(1, len(found) // QUERIES)
    near = min(NEAREST, panel.index.shape[1])
    cells = []
    for query in found[::every][:QUERIES]:
        wrong = f"taken for {query.predicted}" if query.correct is False else ""
        cells.append(_image(query.pixels, text=name_of(query), note=wrong))
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
