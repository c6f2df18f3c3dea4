"""Numbers over seeds: mean and spread, confidence, tests, corrections, the best cell.

In: one number per run, accuracies as fractions. Out: `Summary`, `Paired`, `Welch`, marks. Arms of a
study share seeds and data: `paired` tests them, `welch` what shares nothing. A number that
is not finite is refused, never dropped: `Cell` counts the runs that gave none. No torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import Literal, NamedTuple, get_args

import scipy

from stopgrad.errors import DataError

Correction = Literal["none", "bonferroni", "holm"]
Mark = Literal["best", "level", "below", "untested"]
Ending = Literal["ended", "dimensional", "collapsed", "diverged", "failed", "missing"]

Pairs = Mapping[Hashable, float]  # by what two numbers of a pair share, such as the seed

SIGNIFICANCE = 0.05  # report: Welch's one-sided t-test at 5 %
POWER = 0.8  # of the smallest difference that a test could see
ROUNDING = 1e-12  # relative spread of differences that is no more than rounding


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


class Paired(NamedTuple):
    """The one-sided t-test of numbers in pairs: whether the first of each lies above the other."""

    difference: float  # in the mean
    std: float  # of the differences, n - 1 below the fraction
    n: int  # pairs
    t: float
    p: float

    @property
    def two_sided(self) -> float:
        """p where no direction was expected."""
        return min(1.0, 2 * min(self.p, 1 - self.p))


class Kendall(NamedTuple):
    """How far two orders of the same things agree."""

    tau: float  # tau-b: 1 the same order, -1 the reverse, about 0 none
    p: float  # two-sided, of no agreement
    n: int

    @property
    def smallest_p(self) -> float:
        """The p of n things in exactly the same order."""
        return 2 / math.factorial(self.n)


class Outcome(NamedTuple):
    """How one run of a cell ended; a value only where it was scored."""

    ending: Ending
    value: float | None = None


class Cell(NamedTuple):
    """The runs of one arm under one protocol: their scores, and how the others ended.

    Runs with a complete or a dimensional collapse count as scored, because a collapse is a result;
    their number is given with every mean.
    """

    summary: Summary | None  # of all values
    values: tuple[float | None, ...]  # one per run
    dimensional: int
    collapsed: int
    diverged: int
    failed: int
    missing: int

    @property
    def collapsed_in_all(self) -> int:
        """Runs with a complete or a dimensional collapse."""
        return self.collapsed + self.dimensional


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
    """The cell of these runs, none of which is left out silently."""
    endings = [outcome.ending for outcome in outcomes]
    values = tuple(outcome.value for outcome in outcomes)
    scored = [value for value in values if value is not None]
    counts = {ending: endings.count(ending) for ending in get_args(Ending) if ending != "ended"}
    return Cell(summary=summarize(scored) if scored else None, values=values, **counts)


def confidence_interval(summary: Summary, *, level: float = 0.95) -> Interval | None:
    """The two-sided interval of a mean by Student's t; None for a single value."""
    if summary.std is None:
        return None
    half = (
        float(scipy.special.stdtrit(summary.n - 1, (1 + level) / 2))
        * summary.std
        / math.sqrt(summary.n)
    )
    return Interval(summary.mean - half, summary.mean + half, level)


def welch(higher: Summary, lower: Summary, *, margin: float = 0.0) -> Welch | None:
    """Welch's test that one mean lies above another, less a margin; None where an n is 1.

    With a margin it asks whether `higher` is at most that much below `lower` (non-inferiority).
    Without any spread the means decide alone: p is 0, 1, or 0.5 where they are equal.

    Source: Welch 1947; the report compares its means in this way.
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
    # Shares of the error instead of its squares, which would underflow for tiny spreads.
    freedom = 1 / (
        (error_higher / error) ** 2 / (higher.n - 1) + (error_lower / error) ** 2 / (lower.n - 1)
    )
    return Welch(difference, t, freedom, float(scipy.special.stdtr(freedom, -t)))


def paired(higher: Pairs, lower: Pairs, *, margin: float = 0.0) -> Paired | None:
    """Student's paired test that the first numbers lie above the others, less a margin.

    Only what both have in common is compared; None for fewer than two pairs. Without any spread the
    mean decides alone, as in `welch`.

    Source: Student 1908.
    """
    shared = [key for key in higher if key in lower]
    if len(shared) < 2:
        return None
    difference, std, n = summarize([higher[key] - lower[key] for key in shared])
    assert std is not None
    largest = max(abs(value) for key in shared for value in (higher[key], lower[key]))
    above = difference + margin
    if std <= ROUNDING * largest:
        t = math.copysign(math.inf, above) if abs(above) > ROUNDING * largest else 0.0
        return Paired(difference, 0.0, n, t, {-math.inf: 1.0, 0.0: 0.5}.get(t, 0.0))
    t = above / (std / math.sqrt(n))
    return Paired(difference, std, n, t, float(scipy.special.stdtr(n - 1, -t)))


def smallest_visible(std: float, n: int, *, sides: Literal[1, 2] = 1) -> float:
    """The true difference that a paired test finds at 5 % in 80 % of all studies of n pairs.

    delta x std / sqrt(n), where the noncentral t of n - 1 degrees of freedom and noncentrality
    delta lies above the critical value in 80 % (Cohen 1988, Sec. 2.5).
    """
    critical = scipy.special.stdtrit(n - 1, 1 - SIGNIFICANCE / sides)
    return float(scipy.special.nctdtrinc(n - 1, 1 - POWER, critical)) * std / math.sqrt(n)


def spread_of_differences(arms: Sequence[Pairs]) -> float | None:
    """The standard deviation of paired differences, pooled over all pairs of arms; None without.

    It equals sqrt(2 x the mean square error) of the analysis of variance by arm and seed.
    """
    tests = [paired(one, other) for one, other in itertools.combinations(arms, 2)]
    known = [(test.n - 1, test.std**2) for test in tests if test is not None]
    freedom = sum(weight for weight, _ in known)
    return math.sqrt(sum(w * square for w, square in known) / freedom) if known else None


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


def mark_best(
    cells: Mapping[str, Summary],
    *,
    correction: Correction = "holm",
    pairs: Mapping[str, Pairs] | None = None,
) -> dict[str, Mark]:
    """The best cell by its mean, and how every other one compares with it.

    "level" is a cell that a one-sided test does not separate from the best, "below" one that it
    does, "untested" one that cannot be tested: one run, or fewer than two pairs. Of equal means the
    first is best.

    Args:
        cells: Cells by name, of one metric and one label fraction.
        correction: For the tests of the best against each other cell.
        pairs: The numbers behind each cell, for `paired`; None: `welch` decides.
    """
    if not cells:
        return {}
    best = max(cells, key=lambda name: cells[name].mean)
    others = [name for name in cells if name != best]
    tests: dict[str, Paired | Welch | None] = {
        name: welch(cells[best], cells[name]) if pairs is None else paired(pairs[best], pairs[name])
        for name in others
    }
    p = {name: test.p for name, test in tests.items() if test is not None}
    adjusted = dict(zip(p, corrected(list(p.values()), correction), strict=True))
    marks: dict[str, Mark] = dict.fromkeys(cells, "untested")
    for name, value in adjusted.items():
        marks[name] = "below" if value < SIGNIFICANCE else "level"
    return marks | {best: "best"}
