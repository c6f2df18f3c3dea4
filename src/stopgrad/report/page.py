"""Runs and studies -> one HTML page that loads nothing: strict content policy, all text escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from stopgrad.evaluation import tied
from stopgrad.report.evidence import Evidence, StudyEvidence
from stopgrad.report.facts import broken
from stopgrad.report.figures.style import css_variables
from stopgrad.report.run_page import RunPage, run_page
from stopgrad.report.study_page import StudyPage, study_page
from stopgrad.report.table import as_csv, as_html
from stopgrad.storage import printable, write_atomically

if TYPE_CHECKING:
    from jinja2 import Environment

Chapter = RunPage | StudyPage


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

    chapters = [study_page(e) if isinstance(e, StudyEvidence) else run_page(e) for e in evidence]
    style = css_variables() + _asset("page.css") + _asset("explore.css")
    script = _asset("page.js") + _asset("explore.js")
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


def _title(chapters: Sequence[Chapter]) -> str:
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
