"""Chapters -> a folder with each figure as SVG and PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

from stopgrad.report import charts, study_charts
from stopgrad.report.charts import Figure
from stopgrad.report.evidence import Evidence, StudyEvidence
from stopgrad.report.figures.grids import neighbor_grid, view_grid
from stopgrad.report.figures.style import plain_svg
from stopgrad.storage import storage_errors, write_atomically

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
    write_atomically(png, vl_convert.svg_to_png(drawing, scale=PNG_SCALE))
    return [svg, png]


def _run(chapter: Evidence | StudyEvidence) -> Evidence | None:
    """The run whose images a chapter shows."""
    if isinstance(chapter, Evidence):
        return chapter
    return None if chapter.shown is None else chapter.shown.run


def _images(run: Evidence | None, folder: Path, prefix: str) -> list[Path]:
    """Views and neighbours, which are images and no charts."""
    if run is None:
        return []
    written = []
    for name, image in (
        ("views", None if run.views is None else view_grid(run.views)),
        ("neighbors", None if run.neighbors is None else neighbor_grid(run.neighbors)),
    ):
        if image is not None:
            file = io.BytesIO()
            image.save(file, "PNG")
            write_atomically(folder / f"{prefix}{name}.png", file.getvalue())
            written.append(folder / f"{prefix}{name}.png")
    return written


def _file_name(text: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:60] or "figure"
