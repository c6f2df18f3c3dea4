"""A run -> the sections of a page that show pictures: neighbours, a map, mistakes, views."""

from __future__ import annotations

from typing import Any

from stopgrad.report import pictures
from stopgrad.report.evidence import Evidence
from stopgrad.report.explore import explorer

# Sections in their order: what each needs, its anchor and its name.
PICTURE_LINKS = (
    ("query_groups", "neighbors", "Neighbours"),
    ("map", "map", "Map"),
    ("confusion", "confusion", "Mistakes"),
    ("view_rows", "views", "Views"),
)


def shown_pictures(evidence: Evidence | None, *, run: str = "") -> dict[str, Any]:
    """All that `pictures.html` shows; a section without data is empty and left out.

    Args:
        evidence: The run, or None to show none.
        run: Which run of a study it is, in words; nothing where the run has the page to itself.
    """
    neighbors = None if evidence is None else evidence.neighbors
    views = None if evidence is None else evidence.views
    groups = pictures.query_groups(neighbors) if neighbors else []
    return {
        "shown_run": f"By the encoder of {run}. " if run else "",
        "query_groups": groups,
        "neighbors_caption": pictures.neighbors_caption(neighbors) if neighbors else "",
        "agreement": pictures.agreement(groups),
        "view_rows": pictures.view_rows(views) if views else [],
        **explorer(None if evidence is None else evidence.exploration),
    }
