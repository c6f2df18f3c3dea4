"""Runs and studies -> one HTML page that loads nothing: strict content policy, all text escaped.

`RunPage` is what `run.html` shows of a run; `study_page.py` has its counterpart for a study, and is
loaded only when a study is reported.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, ClassVar

from stopgrad.evaluation import (
    SPACE,
    Record,
    count,
    duration,
    labels_text,
    metric_text,
    percent,
    tied,
)
from stopgrad.report import charts
from stopgrad.report.charts import Figure
from stopgrad.report.evidence import Evidence, Judgement, StudyEvidence
from stopgrad.report.facts import (
    Fact,
    Link,
    Tile,
    broken,
    epoch_table,
    facts,
    finding,
    knob_table,
    measure_table,
    metrics_of,
    protocol_lines,
    repeat_commands,
    score_table,
    training_seconds,
)
from stopgrad.report.gallery import ImageSections, image_sections
from stopgrad.report.style import css_variables
from stopgrad.report.table import Table, as_csv, as_html
from stopgrad.storage import printable, write_atomically

if TYPE_CHECKING:
    from jinja2 import Environment

    from stopgrad.report.study_page import StudyPage

# Class names of the page, so that no text of a run becomes one.
TONES = {"healthy": "good", "dimensional collapse": "wrong", "complete collapse": "wrong"}


@dataclass(frozen=True)
class RunPage:
    """A run as a chapter of a page; what has no data is empty, and its section is left out."""

    template: ClassVar[str] = "run.html"
    noun: ClassVar[tuple[str, str]] = ("run", "runs")

    title: str
    lead: str
    missing: Sequence[str]
    tiles: Sequence[Tile]
    scores: Table | None
    finding: str
    protocols: Sequence[str]
    score_figures: Sequence[Figure]
    curve_figures: Sequence[Figure]
    epochs: Table
    judgement: Judgement | None
    tone: str
    collapse_figures: Sequence[Figure]
    collapse_finding: str
    measures: Table | None
    images: ImageSections
    architecture: Sequence[Figure]
    facts: Sequence[Fact]
    commands: Sequence[str]
    knobs: Table
    changed: int  # knobs that are not at their default
    kind: str = "run"

    @property
    def links(self) -> list[Link]:
        """Links to the sections that exist."""
        sections = (
            (self.scores, Link("results", "Results")),
            (self.curve_figures, Link("curves", "Curves")),
            (self.measures or self.judgement, Link("collapse", "Collapse")),
        )
        first = [link for there, link in sections if there]
        last = [Link("done", "What was done"), Link("knobs", "All knobs")]
        return [*first, *self.images.links, *last]


def run_page(evidence: Evidence) -> RunPage:
    """A run as a chapter of a page."""
    records, knobs = evidence.scored, knob_table(evidence.info.config)
    measured = charts.measure_figures(evidence)
    return RunPage(
        title=evidence.name,
        lead=_lead(evidence),
        missing=missing_lines(evidence),
        tiles=_tiles(evidence, records),
        scores=score_table(records) if records else None,
        finding=finding(records),
        protocols=protocol_lines(records),
        score_figures=charts.accuracy_figures(evidence) + charts.class_figures(evidence),
        curve_figures=charts.curve_figures(evidence),
        epochs=epoch_table(evidence),
        judgement=evidence.judgement,
        tone=_tone(evidence),
        collapse_figures=measured + charts.spectrum_figures(evidence.metrics) if measured else (),
        collapse_finding=charts.collapse_finding(evidence),
        measures=measure_table(evidence),
        images=image_sections(evidence),
        architecture=charts.architecture_figures(evidence),
        facts=facts(evidence),
        commands=repeat_commands(evidence),
        knobs=knobs,
        changed=sum(bool(row[0].emphasis) for row in knobs.rows),
    )


def missing_lines(evidence: Evidence) -> list[str]:
    """What is not there yet, and how to get it."""
    lines, done, path = [], len(evidence.epochs), quote(str(evidence.path))
    if evidence.state != "finished":
        state, epochs = evidence.state or "state unknown", evidence.info.config.epochs
        lines.append(
            f"This run is not finished ({state}, {done} of {epochs} epochs). "
            f"Continue with: stopgrad resume {path}"
        )
    if not evidence.records:
        lines.append(f"Not evaluated yet. Score it with: stopgrad evaluate {path}")
    return lines


def _lead(evidence: Evidence) -> str:
    config, data = evidence.info.config, evidence.info.data
    return (
        f"SimSiam pretraining of {config.encoder.name} on {count(data.get('images', 0))} images of "
        f"{data.get('name')}, without labels."
    )


def _tiles(evidence: Evidence, records: Sequence[Record]) -> list[Tile]:
    tiles = [_score_tile(records, metric) for metric in metrics_of(records)[:2]]
    judgement, seconds = evidence.judgement, training_seconds(evidence)
    if judgement is not None:
        tiles.append(Tile("Verdict", judgement.state, judgement.reason, _tone(evidence)))
    if seconds:
        device = evidence.info.environment.get("device", "unknown")
        tiles.append(Tile("Training", duration(seconds), f"on {device}"))
    return tiles


def _score_tile(records: Sequence[Record], metric: str) -> Tile:
    """The score with the most labels, and the baselines under it."""
    labels = max(record.labels for record in records if record.metric == metric)
    found = {r.of: r for r in records if r.metric == metric and r.labels == labels}
    first = found.get("encoder") or next(iter(found.values()))
    written = {of: percent(r.value, images=r.images_scored) for of, r in found.items()}
    notes = [
        f"{name}{SPACE}{written[of]}"
        for of, name in (("untrained", "untrained"), ("pixels", f"raw{SPACE}pixels"))
        if of in written
    ]
    name = f"{metric_text(metric)}, {labels_text(labels)}"
    return Tile(name, written[first.of], " \N{MIDDLE DOT} ".join(notes))


def _tone(evidence: Evidence) -> str:
    judgement = evidence.judgement
    return "" if judgement is None else TONES.get(judgement.state, "wrong")


def write_page(chapters: Sequence[Evidence | StudyEvidence], *, out: Path) -> Path:
    """Writes one page about runs and studies that were read already.

    Raises:
        StorageError: When the disk refuses; an older report stays as it was.
    """
    write_atomically(out, render(*chapters).encode())
    return out


def render(*evidence: Evidence | StudyEvidence) -> str:
    """The page of runs and studies as text; a single one has the page to itself."""
    from markupsafe import Markup

    chapters = [_chapter(each) for each in evidence]
    style = css_variables() + _asset("page.css")
    script = _asset("page.js") + _asset("picker.js")
    page = (
        _environment()
        .get_template("page.html")
        .render(
            chapters=chapters,
            title=_title(chapters),
            policy=_policy(style=style, script=script),
            style=Markup(style),
            script=Markup(script),
        )
    )
    return printable(page)


def _chapter(evidence: Evidence | StudyEvidence) -> RunPage | StudyPage:
    if isinstance(evidence, Evidence):
        return run_page(evidence)
    from stopgrad.report.study_page import study_page

    return study_page(evidence)


def _title(chapters: Sequence[RunPage | StudyPage]) -> str:
    """That of the only chapter, or how many there are: `2 studies and 1 run`."""
    if len(chapters) == 1:
        return chapters[0].title
    nouns = [chapter.noun for chapter in chapters]
    counts = {noun: nouns.count(noun) for noun in nouns}
    return " and ".join(f"{n} {one if n == 1 else several}" for (one, several), n in counts.items())


def _environment() -> Environment:
    """Jinja with every text escaped, and an error for a name that a template misspells."""
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
    environment.filters |= {
        "broken": broken,
        "csv_file": _csv_file,
        "html": as_html,
        "markup": Markup,  # of charts, which are escaped by the XML writer that makes them
    }
    environment.globals["as_csv"] = as_csv
    return environment


def _csv_file(text: str) -> str:
    """Comma-separated text as a data URI, for a link that saves it."""
    return f"data:text/csv;base64,{base64.b64encode(text.encode(errors='replace')).decode()}"


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
