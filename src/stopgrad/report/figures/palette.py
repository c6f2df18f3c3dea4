"""Colours by role, each light and dark, and the one style of all charts.

Series differ by more than colour (dash or shape). Every colour that is drawn with has a contrast
of at least 4.5 to its paper, so that it can carry text too. Charts are drawn in the light tones;
on a page each tone becomes a CSS variable of the same role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    import altair as alt

    Chart = TypeVar("Chart", bound=alt.TopLevelMixin)

Role = Literal[
    "paper",
    "ink",
    "muted",
    "grid",
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "good",
    "wrong",
]

WIDTH = 330  # px of a plot's inside; readable at full size on a phone
HEIGHT = 210
FONT_SIZE = 12


class Tone(NamedTuple):
    """One colour on light and on dark paper."""

    light: str
    dark: str


PALETTE: dict[Role, Tone] = {
    "paper": Tone("#ffffff", "#171b22"),
    "ink": Tone("#1b2330", "#e9edf3"),
    "muted": Tone("#566070", "#a4aebc"),
    "grid": Tone("#e2e6ec", "#2d3542"),
    "first": Tone("#0067b1", "#62b4f5"),
    "second": Tone("#bd4b08", "#f5935c"),
    "third": Tone("#5f6b7a", "#9aa6b6"),
    "fourth": Tone("#7d479b", "#cf9fe8"),
    "fifth": Tone("#00727d", "#4fc3cf"),
    "sixth": Tone("#ad2a73", "#f58fc4"),
    "seventh": Tone("#6b6300", "#cfc34a"),
    "eighth": Tone("#7a4b2a", "#d3a07c"),
    "good": Tone("#0a7a55", "#3fcb9c"),
    "wrong": Tone("#b3261e", "#ff8a80"),
}
SERIES: tuple[Role, ...] = (
    *("first", "second", "third", "fourth"),
    *("fifth", "sixth", "seventh", "eighth"),
)
DASHES: tuple[list[int], ...] = (
    *([1, 0], [6, 3], [2, 3], [9, 3, 2, 3]),
    *([12, 4], [4, 2], [1, 2], [14, 3, 3, 3]),
)
SHAPES = (
    *("circle", "square", "diamond", "triangle-up"),
    *("triangle-down", "cross", "triangle-right", "triangle-left"),
)


def light(role: Role) -> str:
    """The colour of a role on light paper."""
    return PALETTE[role].light


def css_variables() -> str:
    """The palette as CSS: `--ink` and so on, light, and dark where the reader prefers it."""
    tones = {
        name: ";".join(f"--{role}:{getattr(tone, name)}" for role, tone in PALETTE.items())
        for name in Tone._fields
    }
    return (
        f":root{{{tones['light']}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{tones['dark']}}}}}"
    )


def styled(chart: Chart) -> Chart:
    """The chart in the style of the house."""
    return chart.configure(**_style())  # type: ignore[no-any-return]


def drawn_from(values: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """A chart of these rows."""
    import altair as alt

    return alt.Chart(alt.InlineData(values=list(values)))


def layered(*charts: alt.Chart, **properties: Any) -> alt.LayerChart:
    """Charts on top of each other; `alt.layer` may return other types."""
    import altair as alt

    return alt.LayerChart(layer=list(charts), **properties)


def _style() -> dict[str, Any]:
    text = {"labelFontSize": FONT_SIZE, "titleFontSize": FONT_SIZE, "titleFontWeight": "normal"}
    colors = {"labelColor": light("muted"), "titleColor": light("muted")}
    axis = {
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "titlePadding": 8,
        "labelFlush": False,
    }
    title = {
        "color": light("ink"),
        "subtitleColor": light("muted"),
        "fontSize": 14,
        "fontWeight": 600,
        "anchor": "start",
        "offset": 10,
    }
    return {
        "background": light("paper"),
        "font": "sans-serif",
        "padding": 6,
        "view": {"stroke": None, "continuousWidth": WIDTH, "continuousHeight": HEIGHT},
        "axis": {**text, **colors, **axis, "gridColor": light("grid")},
        "header": {**text, "labelColor": light("ink"), "labelFontWeight": 600, "title": None},
        "legend": {**text, **_legend()},
        "title": title,
    }


def _legend() -> dict[str, Any]:
    return {
        "labelColor": light("ink"),
        "orient": "top",
        "title": None,
        "symbolSize": 320,
        "symbolStrokeWidth": 2.5,
        "labelLimit": 0,
        "columnPadding": 14,
        "offset": 8,
    }
