"""The one style of all charts: colours by role, each light and dark, marks, and SVG for a page.

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
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, get_args

from stopgrad.errors import NoMemoryError

if TYPE_CHECKING:
    import altair as alt

    Chart = TypeVar("Chart", bound=alt.TopLevelMixin)
    Drawing = alt.TopLevelMixin | str  # a chart, or an SVG in the light tones

Series = Literal["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]
Role = Literal["paper", "ink", "muted", "grid", Series, "good", "wrong"]
Values = Sequence[Mapping[str, Any]]  # the rows that a mark is drawn from

WIDTH = 330  # px of a plot's inside; readable at full size on a phone
HEIGHT = 210
HALF = (WIDTH - 26) // 2  # of two plots side by side
FONT_SIZE = 12
ONE_ROW = 36  # letters of all names of a legend; more are set in two columns
SERIES: tuple[Role, ...] = get_args(Series)
DASHES: tuple[list[int], ...] = (
    *([1, 0], [6, 3], [2, 3], [9, 3, 2, 3]),
    *([12, 4], [4, 2], [1, 2], [14, 3, 3, 3]),
)
SHAPES = (
    *("circle", "square", "diamond", "triangle-up"),
    *("triangle-down", "cross", "triangle-right", "triangle-left"),
)
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


def drawn_from(values: Values) -> alt.Chart:
    """A chart of these rows."""
    import altair as alt

    return alt.Chart(alt.InlineData(values=list(values)))


def line(values: Values, *, role: Role | None = None, width: float = 2.5, **more: Any) -> alt.Chart:
    """A line through these rows, without words: the dots on it have them."""
    more |= {} if role is None else {"color": light(role)}
    made: alt.Chart = drawn_from(values).mark_line(strokeWidth=width, aria=False, **more)
    return made


def dots(
    values: Values, *, size: float, role: Role = "first", filled: bool = True, **more: Any
) -> alt.Chart:
    """A point for each row, with the row's `text` under the pointer."""
    points = drawn_from(values).mark_point(
        filled=filled, size=size, opacity=1, color=light(role), **more
    )
    made: alt.Chart = points.encode(description="text:N")
    return made


def layered(*marks: alt.Chart, **properties: Any) -> alt.LayerChart:
    """Marks on top of each other; `x` and `y` are encodings that all of them share."""
    import altair as alt

    shared = {axis: properties.pop(axis) for axis in ("x", "y") if axis in properties}
    properties = {"width": WIDTH, "height": HEIGHT} | properties
    made: alt.LayerChart = alt.LayerChart(layer=list(marks), **properties).encode(**shared)
    return made


def plot(*marks: alt.Chart, **properties: Any) -> alt.LayerChart:
    """`layered`, as a whole chart in the style of the house."""
    return styled(layered(*marks, **properties))


def styled(chart: Chart) -> Chart:
    """The chart in the style of the house."""
    muted, ink = light("muted"), light("ink")
    text = {"labelFontSize": FONT_SIZE, "titleFontSize": FONT_SIZE, "titleFontWeight": "normal"}
    axis = {"labelColor": muted, "titleColor": muted, "gridColor": light("grid")}
    space = {"labelPadding": 6, "titlePadding": 8, "labelFlush": False}
    symbols = {"symbolSize": 320, "symbolStrokeWidth": 2.5, "columnPadding": 14, "offset": 8}
    legend = {"labelColor": ink, "labelLimit": 0, "orient": "top", "title": None}
    title = {"color": ink, "subtitleColor": muted, "fontSize": 14, "fontWeight": 600}
    return chart.configure(  # type: ignore[no-any-return]
        background=light("paper"),
        font="sans-serif",
        padding=6,
        view={"stroke": None},
        axis={**text, **axis, **space, "domain": False, "ticks": False},
        header={**text, "labelColor": ink, "labelFontWeight": 600, "title": None},
        legend={**text, **symbols, **legend},
        title={**title, "anchor": "start", "offset": 10},
    )


def told_apart(names: Sequence[str]) -> dict[str, Any]:
    """Series by colour and by dash, with one legend for both; none for a single series."""
    import altair as alt

    columns = 2 if sum(map(len, names)) > ONE_ROW else 0
    legend = alt.Legend(symbolType="stroke", columns=columns) if len(names) > 1 else None
    colors, dashes = [light(role) for role in SERIES], list(DASHES)
    dash = alt.StrokeDash("name:N", legend=legend).scale(domain=names, range=dashes)
    color = alt.Color("name:N", legend=legend).scale(domain=names, range=colors)
    return {"color": color, "strokeDash": dash}


class Figure(NamedTuple):
    """A chart on a page."""

    svg: str  # escaped by its maker
    caption: str
    name: str  # of its file
    chart: Drawing
    finding: str = ""  # where it stands above the figure and not in the caption


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
    # Validating takes half of the time, and the charts are ours.
    return _by_vega(json.dumps(chart.to_dict(validate=False)))


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
    # V8, which it holds, reserves tens of GB of address space, and aborts a process that may not.
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
    """Tips and colours for the page, and clip paths by names of their own.

    Vega counts them from clip0 in every chart of a page.
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
