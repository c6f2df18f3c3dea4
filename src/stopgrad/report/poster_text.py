"""Words -> lines of SVG text that fit a width; every name is escaped here."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from stopgrad.evaluation import tied
from stopgrad.storage import printable

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

FAMILY = "Liberation Sans, Arial, Helvetica, sans-serif"
LINE = 1.34  # of the size, from one line to the next
WIDER = {False: 1.02, True: 1.12}  # than the font that is measured with, by boldness
MEASURED = 20  # px


class Written(NamedTuple):
    """Text with the place where it ends."""

    svg: str
    bottom: float  # the base line of the last line


def paragraph(
    text: str, *, x: float, y: float, width: float, size: float, bold: bool = False
) -> Written:
    """Text broken into lines of a width; y is the base line of the first."""
    lines = wrapped(text, width=width, size=size, bold=bold)
    step = size * LINE
    parts = [
        words(line, x=x, y=y + number * step, size=size, bold=bold)
        for number, line in enumerate(lines)
    ]
    return Written("".join(parts), y + (len(lines) - 1) * step)


def words(
    text: str, *, x: float, y: float, size: float, bold: bool = False, end: bool = False
) -> str:
    """One line of text, at its start or, with `end`, at its end."""
    weight = "bold" if bold else "normal"
    anchor = "end" if end else "start"
    return element(
        "text",
        escape(printable(text)),
        x=x,
        y=y,
        font_family=FAMILY,
        font_size=size,
        font_weight=weight,
        text_anchor=anchor,
    )


def wrapped(text: str, *, width: float, size: float, bold: bool = False) -> list[str]:
    """Lines of at most a width; only a word that is longer is broken."""
    lines, line = [], ""
    for word in str(tied(text)).split(" "):
        longer = f"{line} {word}".strip()
        if length(longer, size=size, bold=bold) <= width or not line:
            line = longer
        else:
            lines.append(line)
            line = word
        while length(line, size=size, bold=bold) > width and len(line) > 1:
            end = _fitting(line, width=width, size=size, bold=bold)
            lines.append(line[:end])
            line = line[end:]
    return [each for each in [*lines, line] if each]


def _fitting(text: str, *, width: float, size: float, bold: bool) -> int:
    """How many letters fit, ending after a dot, a slash or an underscore where there is one."""
    sizes = (length(text[:end], size=size, bold=bold) for end in range(1, len(text) + 1))
    most = max(1, sum(1 for _ in itertools.takewhile(lambda taken: taken <= width, sizes)))
    return max(text.rfind(mark, 0, most) for mark in "./_-") + 1 or most


def fitted(text: str, *, width: float, size: float, bold: bool = False) -> str:
    """Text cut to a width."""
    if length(text, size=size, bold=bold) <= width:
        return text
    while text and length(text + "\N{HORIZONTAL ELLIPSIS}", size=size, bold=bold) > width:
        text = text[:-1]
    return text + "\N{HORIZONTAL ELLIPSIS}"


def length(text: str, *, size: float, bold: bool = False) -> float:
    """About how long a line is, never too short by much."""
    return _font().getlength(printable(text)) * size / MEASURED * WIDER[bold]


def element(tag: str, inside: str = "", **attributes: object) -> str:
    """An element; the inside is markup already, attributes are escaped."""
    pairs = (f"{name.replace('_', '-')}={quoteattr(str(v))}" for name, v in attributes.items())
    return f"<{tag} {' '.join(pairs)}>{inside}</{tag}>"


@functools.cache
def _font() -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(MEASURED)
