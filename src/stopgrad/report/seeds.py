"""Curves of a study's runs -> lines of the mean over seeds with a band of one deviation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stopgrad.evaluation import mean_and_spread
from stopgrad.report.curves import epoch_axis, told_apart
from stopgrad.report.style import (
    HALF,
    HEIGHT,
    SERIES,
    WIDTH,
    Role,
    drawn_from,
    layered,
    light,
    styled,
)
from stopgrad.storage import printable
from stopgrad.studies import CurvePoint

if TYPE_CHECKING:
    import altair as alt

TOGETHER = 3  # arms that share one panel; more have a panel each, with the others in grey
MOST_POINTS = 40  # of a line; between two drawn epochs others are left out
GROUPS: dict[str, Role] = {"baseline": "first", "other arms": "third", "collapsed arms": "wrong"}


def seeds_chart(
    points: Sequence[CurvePoint], *, title: str, percent: bool = False
) -> alt.LayerChart | alt.ConcatChart:
    """One number over the epochs: the mean over seeds, and a band of one standard deviation.

    Up to three arms share a panel. Of more, each has a panel of its own, with the means of all
    others in grey.

    Args:
        points: From `stopgrad.studies.results`.
        title: What is drawn.
        percent: Whether the numbers are fractions to be written in percent.
    """
    import altair as alt

    values = curve_rows(points, percent=percent)
    arms = list(dict.fromkeys(row["name"] for row in values))
    x, y = _x(values), _y(values)
    if len(arms) <= TOGETHER:
        marks = [
            mark
            for arm, role in zip(arms, SERIES, strict=False)
            for mark in _marks(values, arm, role)
        ]
        lines = drawn_from(values).mark_line(strokeWidth=2.4, aria=False)
        line = lines.encode(x=x, y=y, **told_apart(arms))
        drawn = [mark.encode(x=x, y=y) for mark in marks]
        return styled(layered(line, *drawn, title=title, width=WIDTH, height=HEIGHT))
    panels = [_panel(values, arm, x=x, y=y) for arm in arms]
    return styled(alt.concat(*panels, columns=2, spacing=16).properties(title=title))


def groups_chart(
    points: Sequence[CurvePoint],
    groups: Mapping[str, str],
    *,
    title: str,
) -> alt.LayerChart:
    """One measure over the epochs, a line per arm: the baseline, the others, the collapsed.

    Args:
        points: From `stopgrad.studies.results`.
        groups: A key of `GROUPS` for each arm.
        title: What is drawn.
    """
    import altair as alt

    values = [row | {"group": groups[row["arm"]]} for row in curve_rows(points)]
    names = [group for group in GROUPS if group in {row["group"] for row in values}]
    x, y = _x(values), _y(values, zero=True)
    data = drawn_from(values)
    legend = alt.Legend(symbolType="stroke") if len(names) > 1 else None
    colors, dashes = [light(GROUPS[name]) for name in names], {"collapsed arms": [6, 3]}
    lines = data.mark_line(strokeWidth=2.2, aria=False).encode(
        x=x,
        y=y,
        detail="name:N",
        color=alt.Color("group:N", legend=legend).scale(domain=names, range=colors),
        strokeDash=alt.StrokeDash("group:N", legend=legend).scale(
            domain=names, range=[dashes.get(name, [1, 0]) for name in names]
        ),
    )
    dots = [
        data.transform_filter(f"datum.group === {name!r}")
        .mark_point(filled=True, size=18, opacity=1, color=light(GROUPS[name]))
        .encode(x=x, y=y, description="text:N")
        for name in names
    ]
    return styled(layered(lines, *dots, title=title, width=WIDTH, height=HEIGHT))


def curve_rows(points: Sequence[CurvePoint], *, percent: bool = False) -> list[dict[str, Any]]:
    """Points as a chart takes them, at most so many of each arm, the last one always."""
    rows = []
    for arm in dict.fromkeys(point.arm for point in points):
        own = [point for point in points if point.arm == arm]
        every = -(-len(own) // MOST_POINTS)
        rows += [_row(point, percent=percent) for point in own[::-1][::every][::-1]]
    return rows


def _row(point: CurvePoint, *, percent: bool) -> dict[str, Any]:
    scale = 100.0 if percent else 1.0
    mean, std, n = point.summary
    mean, spread = scale * mean, None if std is None else scale * std
    written = mean_and_spread(mean, spread, percent=percent)
    name = printable(point.arm)
    return {
        "epoch": point.epoch,
        "value": mean,
        "low": mean - (spread or 0.0),
        "high": mean + (spread or 0.0),
        "arm": point.arm,
        "name": name,
        "text": f"{name}, epoch {point.epoch}: {written} (n = {n})",
    }


def _marks(values: Sequence[Mapping[str, Any]], arm: str, role: Role) -> list[alt.Chart]:
    """The band and the points of one arm."""
    own = drawn_from([row for row in values if row["name"] == arm])
    band = own.transform_calculate(value="datum.low").mark_area(
        color=light(role), opacity=0.18, aria=False
    )
    dots = own.mark_point(filled=True, size=16, opacity=1, color=light(role))
    return [band.encode(y2="high:Q"), dots.encode(description="text:N")]


def _panel(values: Sequence[Mapping[str, Any]], arm: str, *, x: alt.X, y: alt.Y) -> alt.LayerChart:
    import altair as alt

    data = drawn_from([{key: row[key] for key in ("epoch", "value", "name")} for row in values])
    behind = data.mark_line(strokeWidth=1, color=light("third"), opacity=0.35, aria=False)
    own = drawn_from([row for row in values if row["name"] == arm])
    line = own.mark_line(strokeWidth=2.4, color=light("first"), aria=False)
    marks = [behind.encode(x=x, y=y, detail="name:N"), line.encode(x=x, y=y)]
    marks += [mark.encode(x=x, y=y) for mark in _marks(values, arm, "first")]
    title = alt.Title(arm, fontSize=12, fontWeight="normal", limit=HALF)
    return layered(*marks, title=title, width=HALF, height=90)


def _x(values: Sequence[Mapping[str, Any]]) -> alt.X:
    """From the first epoch that was measured: none of these numbers begins at 0."""
    drawn = [row["epoch"] for row in values]
    return epoch_axis(max(drawn), first=min(drawn))


def _y(values: Sequence[Mapping[str, Any]], *, zero: bool = False) -> alt.Y:
    """One scale for all panels."""
    import altair as alt

    low, high = min(row["low"] for row in values), max(row["high"] for row in values)
    domain = [min(0.0, low) if zero else low, high if high > low else low + 1]
    return alt.Y("value:Q", title=None).scale(domain=domain, nice=True, zero=zero)
