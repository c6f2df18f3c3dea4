"""Lines with points and error bars, as all charts of a study share them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stopgrad.report.figures.curves import told_apart
from stopgrad.report.figures.palette import SERIES, SHAPES, drawn_from, light

if TYPE_CHECKING:
    import altair as alt

HOLLOW = "hollow marks: published"

Values = Sequence[dict[str, Any]]


def series_marks(values: Values, names: list[str], *, x: Any, y: Any) -> list[alt.Chart]:
    """A line per name with points and error bars; published ones hollow, collapsed ones crossed.

    Args:
        values: Rows with `name`, `value`, `low`, `high`, `text`, `published` and `collapsed`.
        names: The series in the order of their colours.
        x: Encoding of the place.
        y: Encoding of `value`.
    """
    data = drawn_from(values)
    lines = data.transform_filter("!datum.published").mark_line(strokeWidth=2.2, aria=False)
    return [
        lines.encode(x=x, y=y, **told_apart(names)),
        *(mark for place, name in enumerate(names) for mark in _points(data, name, place, x, y)),
        crosses(data, x=x, y=y),
    ]


def crosses(data: alt.Chart, *, x: Any, y: Any) -> alt.Chart:
    """A red cross in the place of every mean that holds collapsed runs."""
    chosen = data.transform_filter("datum.collapsed > 0")
    shape = "M-1,-1L1,1M1,-1L-1,1"
    marks: alt.Chart = chosen.mark_point(
        shape=shape, size=190, stroke=light("wrong"), strokeWidth=2.6, filled=False
    )
    return marks.encode(x=x, y=y, description="text:N")


def level(value: float, *, role: Any = "wrong") -> alt.Chart:
    """A dashed horizontal line."""
    import altair as alt

    line = alt.Chart(alt.InlineData(values=[{}])).mark_rule(
        color=light(role), strokeDash=[5, 3], strokeWidth=1.6, aria=False
    )
    rule: alt.Chart = line.encode(y=alt.datum(value))
    return rule


def _points(data: alt.Chart, name: str, place: int, x: Any, y: Any) -> list[alt.Chart]:
    role, shape = SERIES[place % len(SERIES)], SHAPES[place % len(SHAPES)]
    own = data.transform_filter(f"datum.name === {json.dumps(name)}")
    ours = own.transform_filter("!datum.published")
    theirs = own.transform_filter("datum.published")
    bars = ours.mark_rule(color=light(role), strokeWidth=1.4, aria=False)
    sound = ours.transform_filter("!(datum.collapsed > 0)")
    solid = sound.mark_point(filled=True, size=50, opacity=1, color=light(role), shape=shape)
    hollow = theirs.mark_point(filled=False, size=80, opacity=1, color=light(role), shape=shape)
    return [
        bars.transform_calculate(value="datum.low").encode(x=x, y=y, y2="high:Q"),
        hollow.encode(x=x, y=y, description="text:N"),
        solid.encode(x=x, y=y, description="text:N"),
    ]
