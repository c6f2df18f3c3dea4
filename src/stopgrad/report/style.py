"""The one style of all charts: colours by role, each light and dark, marks, and SVG for a page.

A chart is a specification of Vega-Lite as plain data: a library of chart objects took longer to
build them than Vega takes to draw.

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
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from stopgrad.errors import NoMemoryError

Spec = dict[str, Any]  # a chart, one of its layers or a channel, as Vega-Lite has it
Drawing = Spec | str  # a chart, or an SVG in the light tones
_FirstFive = Literal["first", "second", "third", "fourth", "fifth"]
_LastFive = Literal["sixth", "seventh", "eighth", "ninth", "tenth"]
Role = Literal["paper", "ink", "muted", "grid", _FirstFive, _LastFive, "good", "wrong"]
ChartRows = Sequence[Mapping[str, Any]]  # the rows that a mark is drawn from

WIDTH = 330  # px of a plot's inside; readable at full size on a phone
HEIGHT = 210
HALF = (WIDTH - 26) // 2  # of two plots side by side
FONT_SIZE = 12
LETTER, SYMBOL = 7, 40  # px of a letter of a legend, and of a symbol with its space
SERIES: tuple[Role, ...] = (*get_args(_FirstFive), *get_args(_LastFive))
DASHES: tuple[list[int], ...] = (
    *([1, 0], [6, 3], [2, 3], [9, 3, 2, 3]),
    *([12, 4], [4, 2], [1, 2], [14, 3, 3, 3]),
    *([8, 2], [3, 1, 1, 1]),
)
SHAPES = (
    *("circle", "square", "diamond", "triangle-up"),
    *("triangle-down", "cross", "triangle-right", "triangle-left"),
    *("circle", "square"),
)
CROSS = "M-1,-1L1,1M1,-1L-1,1"  # collapsed; the cross of Vega itself is a plus
_NAMESPACE = "{http://www.w3.org/2000/svg}"
_CONVERT = "import sys, vl_convert; print(vl_convert.vegalite_to_svg(sys.stdin.read()), end='')"
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
    "eighth": Tone("#5e3212", "#d3a07c"),
    "ninth": Tone("#2f7d0a", "#93d65f"),
    "tenth": Tone("#232a96", "#a9b0ff"),
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


def numeric(field: str, **more: Any) -> Spec:
    """A channel of numbers."""
    return {"field": field, "type": "quantitative", **more}


def nominal(field: str, **more: Any) -> Spec:
    """A channel of names."""
    return {"field": field, "type": "nominal", **more}


def mark(kind: str, values: ChartRows | None = None, **look: Any) -> Spec:
    """A mark for each of these rows; None: of the rows given for the whole chart."""
    data = {} if values is None else {"data": {"values": list(values)}}
    return {**data, "mark": {"type": kind, **look}, "encoding": {}}


def encoded(spec: Spec, **channels: Spec) -> Spec:
    """A chart with more channels."""
    return spec | {"encoding": spec["encoding"] | channels}


def line(values: ChartRows, *, role: Role | None = None, width: float = 2.5, **more: Any) -> Spec:
    """A line through these rows, without tooltips, which the dots on it have."""
    more |= {} if role is None else {"color": light(role)}
    return mark("line", values, strokeWidth=width, aria=False, **more)


def dots(
    values: ChartRows, *, size: float, role: Role = "first", filled: bool = True, **more: Any
) -> Spec:
    """A point for each row, with the row's `text` as its tooltip."""
    look = {"filled": filled, "size": size, "opacity": 1, "color": light(role), **more}
    return encoded(mark("point", values, **look), description=nominal("text"))


def layered(*marks: Spec, **properties: Any) -> Spec:
    """Marks on top of each other; `x` and `y` are encodings that all of them share."""
    shared = {axis: properties.pop(axis) for axis in ("x", "y") if axis in properties}
    return {"width": WIDTH, "height": HEIGHT, **properties, "layer": marks, "encoding": shared}


def plot(*marks: Spec, **properties: Any) -> Spec:
    """`layered`, as a whole chart in the style of the house."""
    return styled(layered(*marks, **properties))


def styled(chart: Spec) -> Spec:
    """The chart in the style of the house."""
    muted, ink = light("muted"), light("ink")
    text = {"labelFontSize": FONT_SIZE, "titleFontSize": FONT_SIZE, "titleFontWeight": "normal"}
    axis = {"labelColor": muted, "titleColor": muted, "gridColor": light("grid")}
    space = {"labelPadding": 6, "titlePadding": 8, "labelFlush": False}
    symbols = {"symbolSize": 320, "symbolStrokeWidth": 2.5, "columnPadding": 14, "offset": 8}
    legend = {"labelColor": ink, "labelLimit": 0, "orient": "top", "title": None}
    title = {"color": ink, "subtitleColor": muted, "fontSize": 14, "fontWeight": 600}
    config = {
        "font": "sans-serif",
        "view": {"stroke": None},
        "axis": {**text, **axis, **space, "domain": False, "ticks": False},
        "header": {**text, "labelColor": ink, "labelFontWeight": 600, "title": None},
        "legend": {**text, **symbols, **legend},
        "title": {**title, "anchor": "start", "offset": 10},
    }
    return {**chart, "background": light("paper"), "padding": 6, "config": config}


def told_apart(names: Sequence[str], roles: Sequence[Role] = SERIES) -> dict[str, Spec]:
    """Series by colour and by dash, with one legend for both; none for a single series."""
    columns = WIDTH // (LETTER * max(map(len, names), default=0) + SYMBOL)
    legend = {"symbolType": "stroke", "columns": max(1, columns)} if len(names) > 1 else None
    ranges = {"color": [light(role) for role in roles], "strokeDash": list(DASHES)}
    return {
        channel: nominal("name", legend=legend, scale={"domain": list(names), "range": found})
        for channel, found in ranges.items()
    }


class Figure(NamedTuple):
    """A chart on a page."""

    svg: str  # escaped by its maker
    caption: str
    name: str  # of its file
    chart: Drawing
    finding: str = ""  # if it is shown above the figure and not in the caption


def drawn(name: str, chart: Drawing, *, label: str, caption: str, finding: str = "") -> Figure:
    """A chart made ready for a page; `label` describes it to those who cannot see it."""
    return Figure(inline_svg(chart, label=label), caption, name, chart, finding)


def inline_svg(chart: Drawing, *, label: str) -> str:
    """A chart as an <svg> element with variables for colours and one label for the whole."""
    svg = plain_svg(chart)
    root = ET.fromstring(svg)
    _drop_empty(root)
    prefix = hashlib.sha256(svg.encode()).hexdigest()[:8]
    for element in root.iter():
        _adapt(element, prefix=prefix)
    width, height = root.attrib.pop("width"), root.attrib["height"]
    size = {"viewBox": f"0 0 {width} {height}", "width": width}
    root.attrib = {**size, "role": "img", "aria-label": label}
    return ET.tostring(root, encoding="unicode")


def plain_svg(chart: Drawing) -> str:
    """A chart as Vega draws it; page, poster and files that show the same one share the work."""
    if isinstance(chart, str):
        return chart
    return _by_vega(json.dumps(chart))


def _address_space() -> int | None:
    """Bytes that this process may reserve; None: without limit, as always on Windows."""
    try:
        import resource
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


@functools.lru_cache(maxsize=128)
def _by_vega(specification: str) -> str:
    limit = _address_space()
    if limit is None:
        import vl_convert

        return str(vl_convert.vegalite_to_svg(specification))
    # Its V8 reserves tens of GB of address space, and aborts a process that is not allowed to.
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CONVERT], input=specification.encode(), capture_output=True
    )
    if done.returncode != 0:
        raise NoMemoryError(
            f"no chart can be drawn within {limit:,} bytes of address space (ulimit -v)",
            expected="some 64 GB, which vl-convert reserves and does not use",
            hint="raise the limit, or limit the memory that is used instead",
        )
    return done.stdout.decode()


def _adapt(element: ET.Element, *, prefix: str) -> None:
    """Sets tooltips and colours for the page, and gives clip paths unique names.

    Vega counts clip paths from clip0 in every chart of a page.
    """
    attributes = element.attrib
    element.tag = element.tag.removeprefix(_NAMESPACE)
    if "id" in attributes:
        attributes["id"] = f"{prefix}-{attributes['id']}"
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("#", f"#{prefix}-")
    tip = attributes.get("aria-label")
    is_mark = attributes.get("role") == "graphics-symbol" and len(element) == 0
    for name in _DROPPED:
        attributes.pop(name, None)
    if tip is not None and is_mark:
        attributes["data-tip"] = tip
    for name in ("fill", "stroke"):
        role = _roles().get(attributes.get(name, ""))
        if role is not None:
            attributes[name] = f"var(--{role})"


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
