"""Numbers over seeds: mean and spread, confidence, Welch's test, corrections, the best cell.

In: one number per run, accuracies as fractions. Out: `Summary`, `Welch` and marks. A number that
is not finite is refused, never dropped: `Cell` counts the runs that gave none. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple, get_args

from scipy.special import stdtr, stdtrit

from stopgrad.errors import DataError

Correction = Literal["none", "bonferroni", "holm"]
Mark = Literal["best", "level", "below", "untested"]
Ending = Literal["ended", "dimensional", "collapsed", "diverged", "failed", "missing"]

SIGNIFICANCE = 0.05  # report: Welch's one-sided t-test at 5 %


class Summary(NamedTuple):
    """A mean with its spread."""

    mean: float
    std: float | None  # of the sample, n - 1 below the fraction; None where n = 1
    n: int


class Interval(NamedTuple):
    """A confidence interval of a mean."""

    low: float
    high: float
    level: float


class Welch(NamedTuple):
    """Welch's one-sided test of one mean above another."""

    difference: float  # of the means
    t: float
    freedom: float  # degrees of freedom, Welch-Satterthwaite
    p: float


class Kendall(NamedTuple):
    """How far two orders of the same things agree."""

    tau: float  # tau-b: 1 the same order, -1 the reverse, about 0 none
    p: float  # two-sided, of no agreement
    n: int

    @property
    def smallest_p(self) -> float:
        """The p that n things in just the same order would have."""
        return 2 / math.factorial(self.n)


class Outcome(NamedTuple):
    """What one run of a cell came to; a value only where it was scored."""

    ending: Ending
    value: float | None = None


class Cell(NamedTuple):
    """The runs of one arm under one protocol: what they scored, and what became of the others.

    Runs of a complete or a dimensional collapse are among the scored ones, because a collapse is
    a result; their count stands beside every mean.
    """

    summary: Summary | None  # of all values
    values: tuple[float | None, ...]  # a run each
    dimensional: int
    collapsed: int
    diverged: int
    failed: int
    missing: int


def summarize(values: Sequence[float]) -> Summary:
    """Mean and standard deviation (n - 1); a DataError for no value or one that is not finite."""
    if not values or not all(math.isfinite(value) for value in values):
        raise DataError(
            f"{list(values)} to take the mean of",
            expected="at least one number, all of them finite",
            hint="count the runs without a number instead of averaging them",
        )
    n = len(values)
    # In fractions, so that the mean of equal values is that value, without any spread.
    mean = float(sum(map(Fraction, values)) / n)
    if n == 1:
        return Summary(mean, None, 1)
    squares = [(value - mean) ** 2 for value in values]
    return Summary(mean, math.sqrt(math.fsum(squares) / (n - 1)), n)


def cell(outcomes: Sequence[Outcome]) -> Cell:
    """The runs of a cell, none of them left out in silence."""
    endings = [outcome.ending for outcome in outcomes]
    values = tuple(outcome.value for outcome in outcomes)
    scored = [value for value in values if value is not None]
    counts = {ending: endings.count(ending) for ending in get_args(Ending) if ending != "ended"}
    return Cell(summary=summarize(scored) if scored else None, values=values, **counts)


def confidence_interval(summary: Summary, *, level: float = 0.95) -> Interval | None:
    """The two-sided interval of a mean by Student's t; None where one value has no spread."""
    if summary.std is None:
        return None
    half = float(stdtrit(summary.n - 1, (1 + level) / 2)) * summary.std / math.sqrt(summary.n)
    return Interval(summary.mean - half, summary.mean + half, level)


def welch(higher: Summary, lower: Summary, *, margin: float = 0.0) -> Welch | None:
    """Welch's test that one mean lies above another, less a margin; None where an n is 1.

    With a margin it asks whether `higher` is at most that much below `lower` (non-inferiority).
    Without any spread the means decide alone: p is 0, 1, or 0.5 where they are equal.

    Source: Welch 1947; the report compares its means so.
    """
    if higher.std is None or lower.std is None:
        return None
    difference = higher.mean - lower.mean
    above = difference + margin
    error_higher, error_lower = higher.std**2 / higher.n, lower.std**2 / lower.n
    error = error_higher + error_lower
    if error == 0:
        t = math.copysign(math.inf, above) if above else 0.0
        return Welch(difference, t, math.inf, {-math.inf: 1.0, 0.0: 0.5}.get(t, 0.0))
    t = above / math.sqrt(error)
    # Shares of the error instead of its squares: those of tiny spreads would underflow.
    freedom = 1 / (
        (error_higher / error) ** 2 / (higher.n - 1) + (error_lower / error) ** 2 / (lower.n - 1)
    )
    return Welch(difference, t, freedom, float(stdtr(freedom, -t)))


def kendall(one: Sequence[float], other: Sequence[float]) -> Kendall | None:
    """Kendall's tau-b of two lists of numbers of the same things, in the same order.

    None where a list has fewer than two numbers, or all of them equal: then there is no order.

    Source: Kendall 1945, by SciPy; p exact where there are no ties, for n <= 33.
    """
    from scipy.stats import kendalltau  # takes half a second to import

    assert len(one) == len(other), (len(one), len(other))
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    found = kendalltau(one, other)
    return Kendall(float(found.statistic), float(found.pvalue), len(one))


def bonferroni(p: Sequence[float]) -> tuple[float, ...]:
    """p values times their number, at most 1."""
    return tuple(min(1.0, len(p) * value) for value in p)


def holm(p: Sequence[float]) -> tuple[float, ...]:
    """Holm's p values (1979): the smallest times n, the next times n - 1, ..., never falling."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def corrected(p: Sequence[float], correction: Correction) -> tuple[float, ...]:
    """p values under a correction for the number of tests that were made."""
    match correction:
        case "none":
            return tuple(p)
        case "bonferroni":
            return bonferroni(p)
        case "holm":
            return holm(p)


def mark_best(cells: Mapping[str, Summary], *, correction: Correction = "holm") -> dict[str, Mark]:
    """The best cell by its mean, and how each other one stands to it.

    "level" is a cell that Welch's one-sided test does not separate from the best, "below" one
    that it does, "untested" one whose n, or the best's, is 1. Of equal means the first is best.

    Args:
        cells: Cells by name, of one metric and one label fraction.
        correction: For the tests of the best against each other cell.
    """
    if not cells:
        return {}
    best = max(cells, key=lambda name: cells[name].mean)
    tests = {name: welch(cells[best], other) for name, other in cells.items() if name != best}
    p = {name: test.p for name, test in tests.items() if test is not None}
    adjusted = dict(zip(p, corrected(list(p.values()), correction), strict=True))
    marks: dict[str, Mark] = dict.fromkeys(cells, "untested")
    for name, value in adjusted.items():
        marks[name] = "below" if value < SIGNIFICANCE else "level"
    return marks | {best: "best"}
