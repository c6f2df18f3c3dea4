"""A chart -> SVG for the inside of a page: no script, no address, colours that turn dark.

Colours of the palette become CSS variables, each mark's description becomes `data-tip`, which the
page's script shows on pointing, and the whole is one picture with one alternative text.
"""

from __future__ import annotations

import functools
import hashlib
import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from stopgrad.report.figures.palette import PALETTE

if TYPE_CHECKING:
    import altair as alt

_NAMESPACE = "{http://www.w3.org/2000/svg}"
_COLORED = ("fill", "stroke")
# Of no use in a picture: roles and labels of its parts, names of Vega's, the font (the page's).
_DROPPED = ("role", "aria-label", "aria-roledescription", "aria-hidden", "class", "font-family")


def inline_svg(chart: alt.TopLevelMixin, *, label: str) -> str:
    """A chart as an <svg> element.

    Args:
        chart: A chart of this package.
        label: What one sees on it, in a sentence, for those who do not see it.
    """
    return themed(plain_svg(chart), label=label)


def plain_svg(chart: alt.TopLevelMixin) -> str:
    """A chart as Vega draws it; page, poster and files that show the same one share the work."""
    # Validating takes half of the time, and the charts are ours.
    return _by_vega(json.dumps(chart.to_dict(validate=False)))


@functools.lru_cache(maxsize=128)
def _by_vega(specification: str) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(specification))


def themed(svg: str, *, label: str) -> str:
    """An SVG of Vega's with variables for colours and one label for the whole."""
    root = ET.fromstring(svg)
    _drop_empty(root)
    _separate_names(root, prefix=hashlib.sha256(svg.encode()).hexdigest()[:8])
    for element in root.iter():
        element.tag = element.tag.removeprefix(_NAMESPACE)
        _mend(element)
    width, height = root.attrib.pop("width"), root.attrib["height"]
    root.attrib = {
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "role": "img",
        "aria-label": label,
    }
    return ET.tostring(root, encoding="unicode")


def _mend(element: ET.Element) -> None:
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
    assert len(roles) == len(PALETTE), "two roles of one colour cannot be told apart"
    return {**roles, "white": "paper"}
