"""How metrics are named and numbers written; the one place where they are rounded.

In: names and numbers of records and of their statistics. Out: text for tables, figures, pages and
sentences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from stopgrad.evaluation.records import ACCURACIES, Balance, Subject
from stopgrad.storage import printable

if TYPE_CHECKING:
    from stopgrad.evaluation.statistics import Correction, Summary
    from stopgrad.method import Extent

MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
ABSENT = "\N{EN DASH}"

SUBJECTS: dict[Subject, str] = {
    "encoder": "pretrained",
    "untrained": "untrained",
    "pixels": "raw pixels",
    "supervised": "supervised",
}
METRICS = {
    "knn_accuracy": "kNN",
    "linear_accuracy": "linear probe",
    "linear_published_accuracy": "linear probe (as published)",
    "linear_lars_accuracy": "linear probe (LARS)",
    "finetune_accuracy": "fine-tuning",
    "supervised_accuracy": "supervised from scratch",
}
LAYERS = {"z": "z", "before_bn": "before its BN", "features": "features"}


class Measure(NamedTuple):
    """A measure of collapse, described for a reader."""

    title: str
    healthy: str
    collapsed: str
    meaning: str


# docs/reference.md, section 5.
MEASURE_NAMES: dict[str, Measure] = {
    "participation_ratio": Measure(
        "participation ratio", "high", "1", "directions that carry the variance"
    ),
    "effective_rank": Measure(
        "effective rank", "high", "1", "directions in use, including small ones"
    ),
    "correlation_strength": Measure(
        "correlation strength",
        "low (published: 0.05)",
        "near 1 if z lies on one line (published: 0.89 and 1.00), but 0 if z is constant",
        "how much channels repeat each other",
    ),
    "positive_minus_random": Measure(
        "positive minus random cosine",
        "high",
        "0",
        "how much more alike two views of one image are than two images (difference of cosines)",
    ),
    "top_share": Measure("top share", "low", "1", "share of the variance on one direction"),
    "output_std": Measure(
        "output std \N{MULTIPLICATION SIGN} \N{SQUARE ROOT}D",
        "1",
        "0",
        "a low value is an alarm; a high one proves nothing",
    ),
    "centre_norm": Measure("centre norm", "0", "1", "how much all outputs point one way"),
}
CHARTED = tuple(MEASURE_NAMES)[:4]

_TIED = re.compile(
    r"(?<=\d) (?=%)|(?<=\d) (?=± \d)|(?<=±) (?=\d)|(?<=\b[knpT]) (?=[=<] )|(?<=[=<]) (?=\d)"
)


def metric_text(metric: str) -> str:
    """`kNN` for knn_accuracy, `effective rank`; an unknown metric by its own name."""
    return METRICS.get(metric, printable(metric.removesuffix("_accuracy").replace("_", " ")))


def unit_text(metric: str) -> str:
    """`kNN, %` for an accuracy; a measure has no unit."""
    return f"{metric_text(metric)}, %" if metric in ACCURACIES else metric_text(metric)


def labels_text(fraction: float) -> str:
    """`all labels`, `10 % of the labels`."""
    return "all labels" if fraction == 1 else f"{100 * fraction:g} % of the labels"


def class_name(names: Sequence[str], index: int) -> str:
    """The name of a class, or its number where it has none."""
    return printable(names[index]) if index < len(names) else f"class {index}"


def percent(share: float | None, *, images: int) -> str:
    """A share of that many images in percent, as precise as they allow: 10,000 -> 2 decimals."""
    return ABSENT if share is None else f"{100 * share:.{_decimals(images)}f}{SPACE}%"


def balance_text(balance: Balance) -> str:
    """The note after an accuracy where the classes are uneven; "" where they are not."""
    balanced, majority = balance
    if balanced is None or majority is None:
        return ""
    return f" (balanced {balanced:.2%}, largest class {majority:.2%})"


def points(difference: float, *, images: int) -> str:
    """A difference of two shares, without its sign, in percentage points."""
    return f"{100 * abs(difference):.{_decimals(images)}f}{SPACE}points"


def count(number: int) -> str:
    """A whole number with a separator for thousands: 50,000."""
    return f"{number:,}"


def folds_text(folds: float) -> str:
    """N of a run, `11.6` or `0.94`; a dash where it has none."""
    if not math.isfinite(folds):
        return ABSENT
    return f"{folds:.1f}" if folds >= 1 else f"{folds:.2g}"


def extent_text(extent: Extent) -> str:
    """`N = 11.6, 77,600 steps, 795 passes over each image`."""
    passes = f"{extent.passes:.0f}" if extent.passes >= 10 else f"{extent.passes:.2g}"
    what = f"{count(extent.steps)} steps, {passes} passes over each image"
    return f"N = {folds_text(extent.folds)}, {what}"


def extent_values(extent: Extent) -> dict[str, float | None]:
    """An extent for JSON, in which a run by LARS has no N."""
    folds = extent.folds if math.isfinite(extent.folds) else None
    return {"steps": extent.steps, "passes": extent.passes, "decay_folds": folds}


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


def decimals(mean: float) -> int:
    """Decimals of a measure and of its spread, from its mean."""
    return 2 if mean == 0 else min(4, max(0, 2 - math.floor(math.log10(abs(mean)))))


def mean_and_spread(mean: float, std: float | None, *, percent: bool) -> str:
    """`61.75 ± 0.20 %` of numbers in percent; `20.2 ± 0.5`, as tables have it."""
    places = 2 if percent else decimals(mean)
    spread = "" if std is None else f" ± {std:.{places}f}"
    return f"{mean:z.{places}f}{spread}{f'{SPACE}%' if percent else ''}".replace("-", MINUS)


def mean_text(mean: float, std: float | None, metric: str) -> str:
    """`61.75 ± 0.20`: an accuracy in percent with two decimals.

    `20.2 ± 0.5`: a measure with three digits, but four decimals at most; its spread has as many.
    """
    scale, places = (100, 2) if metric in ACCURACIES else (1, decimals(mean))
    return f"{scale * mean:z.{places}f}" + ("" if std is None else f" ± {scale * std:.{places}f}")


def accuracy_text(summary: Summary) -> str:
    """`61.75 ± 0.20 %, n = 3`."""
    spread = "" if summary.std is None else f" ± {100 * summary.std:.2f}"
    return f"{100 * summary.mean:.2f}{spread} %, n = {summary.n}"


def difference_text(difference: float, metric: str) -> str:
    """`+1.20 points`."""
    if metric in ACCURACIES:
        return f"{100 * difference:+.2f} points"
    return f"{difference:+.3g}"


def distance_text(difference: float, metric: str) -> str:
    """A difference without its sign: `1.20 points`."""
    return difference_text(abs(difference), metric).removeprefix("+")


def p_text(p: float) -> str:
    """`p = 0.03`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def arms_text(arms: Sequence[str]) -> str:
    """`'a', 'b' and 'c'`."""
    named = [repr(arm) for arm in arms]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def correction_text(correction: Correction) -> str:
    """Which tests were made, and how they were corrected."""
    after = {"none": "uncorrected", "bonferroni": "Bonferroni", "holm": "Holm"}[correction]
    return f"one-sided t-test at 5 %, paired by seed, {after}"


def duration(seconds: float) -> str:
    """A time in its two largest units: `8 min 3 s`."""
    left, parts = round(seconds), list[str]()
    for size, unit in ((3600, "h"), (60, "min"), (1, "s")):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{SPACE}{unit}")
            left %= size
    return " ".join(parts[:2])


def tied(value: object) -> object:
    """Text that breaks no line between a number and its sign or unit; other values unchanged.

    `47.35 ± 1.09 %`, `n = 3`, `p < 0.001`.
    """
    return _TIED.sub(SPACE, value) if type(value) is str else value


def _decimals(images: int) -> int:
    """Decimals with which a percentage of this many images shows a single one; 2 at most."""
    return min(2, max(0, math.ceil(math.log10(max(images, 1))) - 2))
