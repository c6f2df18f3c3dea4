"""Runs and studies -> one HTML page that loads nothing: strict content policy, all text escaped.

What a template shows of a run is collected here; `study_page` does so for a study and `overview`
for several chapters, and each is loaded only then.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from stopgrad.evaluation import (
    SPACE,
    Record,
    duration,
    labels_text,
    metric_text,
    percent,
    tied,
)
from stopgrad.report import accuracy, curves
from stopgrad.report.commands import broken, repeat_commands
from stopgrad.report.evidence import Evidence, StudyEvidence
from stopgrad.report.facts import (
    Tile,
    decay_tile,
    epoch_table,
    facts,
    finding,
    knob_table,
    measure_table,
    metrics_of,
    protocol_lines,
    run_lead,
    score_table,
    training_seconds,
)
from stopgrad.report.gallery import data_uri, image_sections
from stopgrad.report.panels import VIEWS
from stopgrad.report.style import css_variables
from stopgrad.report.table import as_csv, as_html
from stopgrad.storage import printable, write_atomically

if TYPE_CHECKING:
    from stopgrad.report.overview import Glance

Chapter = Mapping[str, Any]
"""What a template shows, by the names that it has there; a name that is missing is an error."""


def write_page(chapters: Sequence[Evidence | StudyEvidence], *, out: Path) -> Path:
    """Writes one page about runs and studies that were read already.

    Raises:
        StorageError: When the disk refuses; an older report stays as it was.
    """
    write_atomically(out, render(*chapters).encode())
    return out


def render(*evidence: Evidence | StudyEvidence) -> str:
    """The page of runs and studies as text; a single one has the page to itself."""
    style = css_variables() + _asset("page.css")
    script = _asset("page.js") + _asset("picker.js")
    chapters = [_chapter(each) for each in evidence]
    page = _environment().get_template("page.html")
    return printable(
        page.render(
            chapters=chapters,
            overviews=_overviews(evidence),
            title=chapters[0]["title"] if len(chapters) == 1 else _counted(evidence),
            nav=[],  # the sections, as they are rendered
            policy=_policy(style=style, script=script),
            style=Markup(style),
            script=Markup(script),
        )
    )


def _chapter(evidence: Evidence | StudyEvidence) -> Chapter:
    if isinstance(evidence, Evidence):
        return run_chapter(evidence)
    from stopgrad.report.study_page import study_chapter

    return study_chapter(evidence)


def _overviews(chapters: Sequence[Evidence | StudyEvidence]) -> list[Glance]:
    """The overviews before several chapters; none for a single one."""
    if len(chapters) == 1:
        return []
    from stopgrad.report.overview import overviews

    return overviews(chapters)


def _counted(chapters: Sequence[Evidence | StudyEvidence]) -> str:
    """How many chapters there are: `2 studies and 1 run`."""
    nouns = [("run", "runs") if isinstance(c, Evidence) else ("study", "studies") for c in chapters]
    counts = {noun: nouns.count(noun) for noun in nouns}
    return " and ".join(f"{n} {one if n == 1 else several}" for (one, several), n in counts.items())


def run_chapter(evidence: Evidence) -> Chapter:
    """The values for `run.html`; what has no data is empty, and its section is left out."""
    records, knobs = evidence.scored, knob_table(evidence.info.config)
    judgement, measured = evidence.judgement, curves.measure_figures(evidence)
    return {
        "template": "run.html",
        "kind": "run",
        "title": evidence.name,
        "lead": run_lead(evidence),
        "missing": missing_lines(evidence),
        "tiles": _tiles(evidence, records),
        "scores": score_table(records) if records else None,
        "finding": finding(records),
        "protocols": protocol_lines(records),
        "score_figures": accuracy.accuracy_figures(evidence) + accuracy.class_figures(evidence),
        "curve_figures": curves.curve_figures(evidence),
        "epochs": epoch_table(evidence),
        "judgement": judgement,
        "collapse_figures": measured and measured + curves.spectrum_figures(evidence.metrics),
        "collapse_finding": curves.collapse_finding(evidence),
        "measures": measure_table(evidence),
        "images": image_sections(evidence),
        "architecture": accuracy.architecture_figures(evidence),
        "facts": facts(evidence),
        "commands": repeat_commands(evidence),
        "knobs": knobs,
        "changed": sum(bool(row[0].emphasis) for row in knobs.rows),  # from their defaults
    }


def missing_lines(evidence: Evidence) -> list[str]:
    """What the run still lacks, and how to get it."""
    lines, done, path = [], len(evidence.epochs), quote(str(evidence.path))
    state, epochs = evidence.state or "state unknown", evidence.info.config.epochs
    if state == "diverged":
        lines.append(
            f"This run diverged ({done} of {epochs} epochs), and would again. Begin a new one with "
            "a lower optimizer.base_lr, or with optimizer.warmup_epochs."
        )
    elif state != "finished":
        lines.append(
            f"This run is not finished ({state}, {done} of {epochs} epochs). "
            f"Continue with: stopgrad resume {path}"
        )
    if not evidence.records:
        labelled = evidence.info.data.get("class_names")
        hint = f"Not evaluated yet. Score it with: stopgrad evaluate {path}"
        other = f"Its images have no labels. Score it on others with: stopgrad evaluate {path} "
        lines.append(hint if labelled else f"{other}--data LABELLED")
    return lines


def _tiles(evidence: Evidence, records: Sequence[Record]) -> list[Tile]:
    tiles = [_score_tile(records, metric) for metric in metrics_of(records)[:2]]
    judgement, seconds = evidence.judgement, training_seconds(evidence)
    if judgement is not None:
        tiles.append(Tile("Verdict", judgement.state, judgement.reason, judgement.tone))
    if evidence.epochs:
        tiles.append(decay_tile([evidence.info.extent(evidence.epochs[-1]["step"])]))
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


def _environment() -> jinja2.Environment:
    """Jinja with every text escaped, and an error for a name that a template misspells."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stopgrad.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=tied,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "broken": broken,
        "csv_file": _csv_file,
        "data_uri": data_uri,
        "html": as_html,
        "markup": Markup,  # of charts, which are escaped by the XML writer that makes them
    }
    environment.globals |= {"as_csv": as_csv, "view_names": VIEWS}
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
