"""Spectra of a run -> how the directions of z fill over training, and what the predictor does."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stopgrad.evaluation import number
from stopgrad.report.figures.curves import Rows, epoch_rows
from stopgrad.report.figures.style import HEIGHT, WIDTH, drawn_from, layered, light, styled

if TYPE_CHECKING:
    import altair as alt

FLAT = 1e-6  # range of numbers that do not vary
MOST_LINES = 5  # moments of the training that are drawn


def spectra_of(metrics: Rows) -> list[Mapping[str, Any]]:
    """The epochs that have spectra of at least three directions."""
    rows = [row for row in epoch_rows(metrics) if row.get("spectra")]
    return [row for row in rows if len(row["spectra"]["ranks"]) >= 3]


def spectrum_chart(metrics: Rows, *, width: int = WIDTH, height: int = HEIGHT) -> alt.LayerChart:
    """Eigenvalues of E[z z^T] by their rank, both logarithmic, at moments of the training.

    Args:
        metrics: Rows of metrics.jsonl that have spectra; see `spectra_of`.
        width: px of the inside.
        height: px of the inside.
    """
    import altair as alt

    found = spectra_of(metrics)
    chosen = _spread(found)
    names = [f"epoch {row['epoch']}" for row in chosen]
    values = [
        {
            "rank": rank,
            "value": value,
            "name": name,
            "text": f"{name}, rank {rank}: {number(value)}",
        }
        for row, name in zip(chosen, names, strict=True)
        for rank, value in zip(
            row["spectra"]["ranks"], row["spectra"]["representation"], strict=True
        )
        if value > 0
    ]
    shades = [0.25 + 0.75 * place / max(1, len(names) - 1) for place in range(len(names))]
    opacity = alt.Opacity("name:N", legend=alt.Legend(symbolType="stroke", columns=3))
    opacity = opacity.scale(domain=names, range=shades)
    x = alt.X("rank:Q", title="direction, by its weight").scale(type="log", nice=False)
    x = x.axis(grid=False, tickCount=4, format="~s")
    y = alt.Y("value:Q", title=None).scale(type="log").axis(tickCount=4, format=".0e")
    line = drawn_from(values).mark_line(strokeWidth=2.2, color=light("first"), aria=False)
    last = drawn_from([row for row in values if row["name"] == names[-1]])
    dots = last.mark_point(filled=True, size=24, opacity=1, color=light("first"))
    return styled(
        layered(
            line.encode(x=x, y=y, opacity=opacity),
            dots.encode(x=x, y=y, description="text:N"),
            title="spectrum of z",
            width=width,
            height=height,
        )
    )


def predictor_chart(metrics: Rows, *, width: int = WIDTH, height: int = HEIGHT) -> alt.LayerChart:
    """Predictor against the root of the eigenvalue of z, a point per direction, last epoch.

    The line is the proportion that fits best (least squares).
    """
    import altair as alt

    points = predictor_points(metrics)
    slope = sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    edge = max(x for x, _ in points)
    values = [
        {"root": x, "value": y, "text": f"root {number(x)}: predictor {number(y)}"}
        for x, y in points
    ]
    line = [{"root": 0.0, "value": 0.0}, {"root": edge, "value": slope * edge}]
    x = alt.X("root:Q", title="root of the eigenvalue of z").scale(zero=True).axis(grid=False)
    y = alt.Y("value:Q", title=None).scale(zero=True)
    fit = drawn_from(line).mark_line(color=light("third"), strokeDash=[5, 3], aria=False)
    dots = drawn_from(values).mark_point(filled=True, size=50, color=light("first"), opacity=1)
    return styled(
        layered(
            fit.encode(x=x, y=y),
            dots.encode(x=x, y=y, description="text:N"),
            title="predictor along each direction",
            width=width,
            height=height,
        )
    )


def predictor_points(metrics: Rows) -> list[tuple[float, float]]:
    """(root of the eigenvalue, predictor) of the last spectra."""
    spectra = spectra_of(metrics)[-1]["spectra"]
    pairs = zip(spectra["representation"], spectra["predictor"], strict=True)
    return [(math.sqrt(value), predicted) for value, predicted in pairs]


def agreement(points: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's correlation of the points; None where one of both does not vary."""
    roots, predicted = zip(*points, strict=True)
    if any(max(values) - min(values) < FLAT for values in (roots, predicted)):
        return None
    return statistics.correlation(roots, predicted)


def _spread(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first, the last and some between them."""
    count = min(MOST_LINES, len(rows))
    if count < 2:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (count - 1))] for place in range(count)]
