"""Several arms or runs over the epochs, each by its name, in one chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from stopgrad.report.curves import epoch_axis
from stopgrad.report.style import (
    CROSS,
    SERIES,
    ChartRows,
    Role,
    Spec,
    dots,
    encoded,
    light,
    line,
    mark,
    nominal,
    numeric,
    plot,
    told_apart,
)
from stopgrad.storage import printable

T = TypeVar("T")

TOGETHER = 3  # arms that share one chart with the bands of their spread
MOST_ARMS = len(SERIES)  # with a name in the legend; the others are grey
MOST_POINTS = 40  # of a line; between two drawn epochs others are left out


def arms_over_time(
    values: ChartRows, *, first: str, collapsed: Sequence[str] = (), title: str, zero: bool = False
) -> Spec:
    """A line for each arm: rows of `epoch`, `value`, `low`, `high`, `arm` and `text`.

    Each arm has a colour and a dash; the legend says which collapsed, and a cross ends their lines.
    Up to three arms have a band from low to high. Of more than ten, the first and those that end
    highest and lowest are named, and the others grey.
    """
    arms = _named(values, first=first)
    labels = {arm: f"{printable(arm)}{' (collapsed)' * (arm in collapsed)}" for arm in arms}
    own = [{**row, "name": labels[row["arm"]]} for row in values if row["arm"] in arms]
    others = [row for row in values if row["arm"] not in arms]
    marks = [encoded(line(own, width=2.2), **told_apart(list(labels.values())))]
    if others:
        grey = line(others, role="third", width=1, opacity=0.35)
        marks.insert(0, encoded(grey, detail=nominal("arm")))
    for arm, role in zip(arms, SERIES, strict=False):
        rows = [row for row in own if row["arm"] == arm]
        marks += _band(rows, role) if len(arms) <= TOGETHER else [dots(rows, size=14, role=role)]
        marks += [_cross(rows[-1], role)] if arm in collapsed else []
    x, y = _axes(values, zero=zero)
    return plot(*marks, x=x, y=y, title=title)


def thinned(points: Sequence[T]) -> list[T]:
    """At most `MOST_POINTS` points of a line, evenly spaced, the last one always included."""
    every = max(1, -(-len(points) // MOST_POINTS))
    return list(points[::-1][::every][::-1])


def _named(values: ChartRows, *, first: str) -> list[str]:
    """The arms that have a name in the legend, in their order."""
    last = {row["arm"]: row["value"] for row in values}
    if len(last) <= MOST_ARMS:
        return list(last)
    order = sorted((arm for arm in last if arm != first), key=lambda arm: last[arm])
    half = (MOST_ARMS - 1) // 2
    kept = {first, *order[:half], *order[half - MOST_ARMS + 1 :]}
    return [arm for arm in last if arm in kept]


def _band(rows: ChartRows, role: Role) -> list[Spec]:
    """The band and the points of one arm."""
    low = [{**row, "value": row["low"]} for row in rows]
    area = mark("area", low, color=light(role), opacity=0.18, aria=False)
    return [encoded(area, y2={"field": "high"}), dots(rows, size=16, role=role)]


def _cross(row: Mapping[str, Any], role: Role) -> Spec:
    """The end of an arm that collapsed."""
    return dots([row], size=90, role=role, filled=False, shape=CROSS, strokeWidth=2.5)


def _axes(values: ChartRows, *, zero: bool = False) -> tuple[Spec, Spec]:
    """One scale for all arms, from the first epoch measured: none of the numbers begins at 0."""
    epochs = [row["epoch"] for row in values]
    low, high = min(row["low"] for row in values), max(row["high"] for row in values)
    domain = [min(0.0, low) if zero else low, high if high > low else low + 1]
    y = numeric("value", title=None, scale={"domain": domain, "nice": True, "zero": zero})
    return epoch_axis(max(epochs), first=min(epochs)), y
