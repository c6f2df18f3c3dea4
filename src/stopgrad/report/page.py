"""Evidence -> one HTML page that loads nothing: strict content policy, every name escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from stopgrad.evaluation import (
    LAYERS,
    SPACE,
    Record,
    count,
    duration,
    label_share,
    metric_name,
    percent,
    printable,
    tied,
)
from stopgrad.report import charts, facts
from stopgrad.report.evidence import Evidence, epochs, judgement, read_evidence, scored_records
from stopgrad.report.figures.panels import Exploration, NeighborPanel, ViewPanel
from stopgrad.report.figures.style import css_variables
from stopgrad.report.results import metrics_of, results
from stopgrad.report.shell import Chapter, Link, assemble
from stopgrad.report.shown import PICTURE_LINKS, shown_pictures
from stopgrad.report.study import StudyEvidence
from stopgrad.report.study_page import study_chapter
from stopgrad.report.tiles import Tile

# Sections of a run in their order: what each needs, its anchor and its name.
LINKS = (
    ("results", "results", "Results"),
    ("curve_figures", "curves", "Curves"),
    ("collapse", "collapse", "Collapse"),
    *PICTURE_LINKS,
    ("facts", "done", "What was done"),
    ("knobs", "knobs", "All knobs"),
)

# Class names of the page, so that no text of a run becomes one.
TONES = {"healthy": "good", "dimensional collapse": "wrong", "complete collapse": "wrong"}


def write_report(
    run: Path,
    *,
    out: Path,
    neighbors: NeighborPanel | None = None,
    views: ViewPanel | None = None,
    exploration: Exploration | None = None,
) -> Path:
    """Writes the report of a run, finished or not, as one self-contained HTML file.

    Args:
        run: A run directory.
        out: The file to write.
        neighbors: Test images with their nearest training images, or None to leave them out.
        views: Images with two views each, or None to leave them out.
        exploration: What a visitor can explore, or None; `neighbors` are its examples then.

    Returns:
        The file written.

    Raises:
        CheckpointError: When the directory is no run.
        DataError: When its records are damaged.
        StorageError: When the disk refuses; an older report stays as it was.
    """
    evidence = read_evidence(run, neighbors=neighbors, views=views, exploration=exploration)
    return write_page([evidence], out=out)


def write_page(chapters: Sequence[Evidence | StudyEvidence], *, out: Path) -> Path:
    """Writes one page about runs and studies that were read already.

    Raises:
        StorageError: When the disk refuses; an older report stays as it was.
    """
    from stopgrad.storage import write_atomically

    write_atomically(out, render(*chapters).encode())
    return out


def render(*chapters: Evidence | StudyEvidence) -> str:
    """The page of runs and studies as text; a single one has the page to itself."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("stopgrad.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=tied,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Charts are escaped by the XML writer that makes them.
    environment.globals["svg"] = Markup
    environment.filters["broken"] = facts.broken
    style = css_variables() + _asset("page.css") + _asset("explore.css")
    script = _asset("page.js") + _asset("explore.js")
    page = environment.get_template("page.html").render(
        assemble([_chapter(chapter) for chapter in chapters], environment),
        policy=_policy(style=style, script=script),
        style=Markup(style),
        script=Markup(script),
    )
    return printable(page)


def _chapter(evidence: Evidence | StudyEvidence) -> Chapter:
    if isinstance(evidence, StudyEvidence):
        return study_chapter(evidence)
    content = _content(evidence)
    there = content | {"collapse": content["measure_rows"] or content["verdict"]}
    links = tuple(Link(anchor, text) for key, anchor, text in LINKS if there[key])
    return Chapter("run.html", "run", evidence.name, content["lead"], links, content)


def _content(evidence: Evidence) -> dict[str, Any]:
    """All that the template shows; a section without data is empty and left out."""
    records, config = scored_records(evidence), evidence.info.config
    return {
        "lead": _lead(evidence),
        "missing": _missing(evidence),
        "tiles": _tiles(evidence, records),
        "verdict": judgement(evidence),
        "tone": _tone(evidence),
        "results": results(records) if records else None,
        "accuracy_figures": charts.accuracy_figures(evidence),
        "class_figures": charts.class_figures(evidence),
        "curve_figures": charts.curve_figures(evidence),
        "epoch_table": charts.epoch_table(evidence),
        "measure_figures": charts.measure_figures(evidence),
        "spectrum_figures": charts.spectrum_figures(evidence.metrics),
        "architecture": charts.architecture_figures(evidence),
        "measure_rows": charts.measure_rows(evidence),
        "collapse_finding": charts.collapse_finding(evidence),
        "layers": list(LAYERS.values()),
        "facts": facts.facts(evidence),
        "commands": facts.repeat_commands(evidence),
        "knobs": facts.knob_rows(config),
        **shown_pictures(evidence),
    }


def _lead(evidence: Evidence) -> str:
    config, data = evidence.info.config, evidence.info.data
    return (
        f"SimSiam pretraining of {config.encoder.name} on {count(data.get('images', 0))} images of "
        f"{data.get('name')}, without labels."
    )


def _missing(evidence: Evidence) -> list[str]:
    """What is not there yet, and how to get it."""
    lines = []
    state, done = evidence.status.get("state"), len(epochs(evidence))
    if state != "finished":
        total = evidence.info.config.epochs
        lines.append(
            f"This run is not finished ({state or 'state unknown'}, {done} of {total} epochs). "
            f"Continue with: stopgrad resume {evidence.path}"
        )
    if not evidence.records:
        lines.append(f"Not evaluated yet. Score it with: stopgrad evaluate {evidence.path}")
    return lines


def _tiles(evidence: Evidence, records: Sequence[Record]) -> list[Tile]:
    tiles = [_score_tile(records, metric) for metric in metrics_of(records)[:2]]
    verdict, seconds = judgement(evidence), facts.training_seconds(evidence)
    if verdict is not None:
        tiles.append(Tile("Verdict", verdict.state, verdict.reason, _tone(evidence)))
    if seconds:
        machine = evidence.info.environment
        tiles.append(Tile("Training", duration(seconds), f"on {machine.get('device', 'unknown')}"))
    return tiles


def _score_tile(records: Sequence[Record], metric: str) -> Tile:
    share = max(record.labels for record in records if record.metric == metric)
    found = {r.of: r for r in records if r.metric == metric and r.labels == share}
    first = found.get("encoder") or next(iter(found.values()))
    written = {of: percent(r.value, images=r.images_scored) for of, r in found.items()}
    notes = [
        f"{name}{SPACE}{written[of]}"
        for of, name in (("untrained", "untrained"), ("pixels", f"raw{SPACE}pixels"))
        if of in written
    ]
    name = f"{metric_name(metric)}, {label_share(share)}"
    return Tile(name, written[first.of], " \N{MIDDLE DOT} ".join(notes))


def _tone(evidence: Evidence) -> str:
    verdict = judgement(evidence)
    return "" if verdict is None else TONES.get(verdict.state, "wrong")


def _policy(*, style: str, script: str) -> str:
    """Nothing may be loaded; only this style and this script count (CSP level 2, hashes)."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _asset(name: str) -> str:
    return files("stopgrad.report").joinpath(name).read_text(encoding="utf-8")
