"""How a study's published numbers are written."""

from __future__ import annotations

from stopgrad.studies.definition import Value


def value_text(value: Value | None) -> str:
    """A published number as it was printed."""
    if value is None:
        return ""
    places = 2 if value.mean >= 1 else 3
    spread = "" if value.std is None else f" ± {value.std:.{places}f}"
    return f"{value.mean:.{places}f}{spread}"
