"""How numbers are written, in figures and on pages; the one place where they are rounded."""

from __future__ import annotations

import math
import re

MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
ABSENT = "\N{EN DASH}"

_TIED = re.compile(
    r"(?<=\d) (?=%)|(?<=\d) (?=± \d)|(?<=±) (?=\d)|(?<=\b[knpT]) (?=[=<] )|(?<=[=<]) (?=\d)"
)


def percent(share: float | None, *, images: int) -> str:
    """A share of that many images, in percent, as fine as they can tell: 10,000 -> 2 decimals."""
    return ABSENT if share is None else f"{100 * share:.{_decimals(images)}f}{SPACE}%"


def points(difference: float, *, images: int) -> str:
    """A difference of two shares, without its sign, in percentage points."""
    return f"{100 * abs(difference):.{_decimals(images)}f}{SPACE}points"


def label_share(share: float) -> str:
    """A share of the labels: `all labels`, `10 % of the labels`."""
    return "all labels" if share == 1 else f"{100 * share:g}{SPACE}% of the labels"


def count(number: int) -> str:
    """A whole number with thousands apart: 50,000."""
    return f"{number:,}"


def number(value: float | None, *, digits: int = 3) -> str:
    """A number to some significant digits, never in powers of ten between 0.001 and a million."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        places = 0 if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{places}f}"
    else:
        text = f"{value:.{digits - 1}e}"
    return text.replace("-", MINUS)


def mean_and_spread(mean: float, std: float | None, *, percent: bool) -> str:
    """`61.75 ± 0.20 %` of numbers in percent; `20.2 ± 0.5`, as tables have it."""
    places = 2 if percent else decimals(mean)
    spread = "" if std is None else f" ± {std:.{places}f}"
    return f"{mean:z.{places}f}{spread}{f'{SPACE}%' if percent else ''}".replace("-", MINUS)


def decimals(mean: float) -> int:
    """Decimals of a measure and of its spread, from its mean."""
    return 2 if mean == 0 else min(4, max(0, 2 - math.floor(math.log10(abs(mean)))))


def duration(seconds: float) -> str:
    """A time in its two largest units: `8 min 3 s`."""
    left, parts = round(seconds), list[str]()
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{SPACE}{unit}")
            left %= size
    return " ".join(parts[:2])


def tied(value: object) -> object:
    """Text whose numbers stay with their signs and units at the end of a line; all else as it is.

    `47.35 ± 1.09 %`, `n = 3`, `p < 0.001`.
    """
    return _TIED.sub(SPACE, value) if type(value) is str else value


def _decimals(images: int) -> int:
    """Decimals of a percentage: the last one is not finer than one image in this many."""
    return min(2, max(0, math.ceil(math.log10(max(images, 1))) - 2))
