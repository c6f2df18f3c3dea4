"""The one style of all charts: colours by role, each light and dark, and the SVG that a page takes.

Series differ by more than colour (dash or shape). Every colour that is drawn with has a contrast of
at least 4.5 to its paper, so that it can carry text too. Charts are drawn in the light tones; in an
SVG for the inside of a page each tone is a CSS variable of the same role, each mark's description
becomes `data-tip`, which the page's script shows on pointing, and the whole is one image with one
alternative text.
"""

from __future__ import annotations

import functools
import hashlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    import altair as alt

    Chart = TypeVar("Chart", bound=alt.TopLevelMixin)
    Drawing = alt.TopLevelMixin | str  # a chart, or an SVG in the light tones

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
HALF = (WIDTH - 26) // 2  # of two plots side by side
FONT_SIZE = 12
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
_NAMESPACE = "{http://www.w3.org/2000/svg}"
_COLORED = ("fill", "stroke")
# Of no use on a page: roles and labels of its parts, names of Vega's, the font (the page's).
_DROPPED = ("role", "aria-label", "aria-roledescription", "aria-hidden", "class", "font-family")


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


def inline_svg(chart: Drawing, *, label: str) -> str:
    """A chart as an <svg> element.

    Args:
        chart: A chart of this package.
        label: What one sees on it, in a sentence, for those who do not see it.
    """
    return themed(plain_svg(chart), label=label)


def plain_svg(chart: Drawing) -> str:
    """A chart as Vega draws it; page, poster and files that show the same one share the work."""
    if isinstance(chart, str):
        return chart
    # Validating takes half of the time, and the charts are ours.
    return _by_vega(json.dumps(chart.to_dict(validate=False)))


@functools.lru_cache(maxsize=128)
def _by_vega(specification: str) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(specification))


def themed(svg: str, *, label: str) -> str:
    """An SVG with variables for colours and one label for the whole."""
    root = ET.fromstring(svg)
    _drop_empty(root)
    _separate_names(root, prefix=hashlib.sha256(svg.encode()).hexdigest()[:8])
    for element in root.iter():
        element.tag = element.tag.removeprefix(_NAMESPACE)
        _adapt(element)
    width, height = root.attrib.pop("width"), root.attrib["height"]
    root.attrib = {
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "role": "img",
        "aria-label": label,
    }
    return ET.tostring(root, encoding="unicode")


def _adapt(element: ET.Element) -> None:
    tip = element.attrib.get("aria-label")
    is_mark = element.attrib.get("role") == "graphics-symbol" and len(element) == 0
    for name in _DROPPED:
        element.attrib.pop(name, None)
    if tip is not None and is_mark:
        element.attrib["data-tip"] = tip
    for name in _COLORED:
        role = _roles().get(element.attrib.get(name, ""))
        if role is not None:
            element.attrib[name] = f"var(--{role})"


def _separate_names(root: ET.Element, *, prefix: str) -> None:
    """Gives clip paths names of their own: Vega counts from clip0 in every chart of a page."""
    for element in root.iter():
        if "id" in element.attrib:
            element.attrib["id"] = f"{prefix}-{element.attrib['id']}"
        if "clip-path" in element.attrib:
            element.attrib["clip-path"] = element.attrib["clip-path"].replace("#", f"#{prefix}-")


def _drop_empty(root: ET.Element) -> None:
    """Removes paths that draw nothing: Vega puts two into every group."""
    for parent in root.iter():
        if parent.tag == f"{_NAMESPACE}clipPath":
            continue
        for child in list(parent):
            paints = child.get("stroke") or child.get("fill")
            if child.tag == f"{_NAMESPACE}path" and not paints and not child.get("aria-label"):
                parent.remove(child)


@functools.cache
def _roles() -> dict[str, str]:
    roles = {tone.light: role for role, tone in PALETTE.items()}
    assert len(roles) == len(PALETTE), "two roles share a colour"
    return {**roles, "white": "paper"}
