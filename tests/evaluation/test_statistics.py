"""Claims about `statistics`; SciPy and tables worked out by hand are the references."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.errors import DataError
from stopgrad.evaluation import (
    Outcome,
    Summary,
    cell,
    confidence_interval,
    corrected,
    mark_best,
    paired,
    smallest_visible,
    spread_of_differences,
    summarize,
    welch,
)
from stopgrad.evaluation.statistics import bonferroni, holm

numbers = st.floats(0, 1, width=32)
samples = st.lists(numbers, min_size=2, max_size=8)


def test_mean_and_std_of_the_sample_by_hand() -> None:
    # 2, 4, 4, 4, 5, 5, 7, 9: mean 5, squared deviations 32 in all; 32 / 7.
    found = summarize([2, 4, 4, 4, 5, 5, 7, 9])
    assert found == Summary(5.0, pytest.approx(math.sqrt(32 / 7)), 8)


@given(samples)
def test_mean_and_std_agree_with_numpy(values: list[float]) -> None:
    found = summarize(values)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert found.std == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-15)


def test_one_value_has_a_mean_and_no_spread() -> None:
    one = summarize([0.9])
    assert one == Summary(0.9, None, 1)
    assert confidence_interval(one) is None
    assert welch(one, summarize([0.1, 0.2])) is None
    assert welch(summarize([0.1, 0.2]), one) is None


def test_equal_values_have_no_spread_at_all() -> None:
    assert summarize([0.1] * 3).std == 0.0  # 0.1 * 3 / 3 is not 0.1


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf], [0.1, -math.inf]])
def test_what_is_not_finite_is_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match="to take the mean of"):
        summarize(values)


def test_the_confidence_interval_by_a_printed_table() -> None:
    # t(0.975, 4 degrees of freedom) = 2.776; mean 10, std 1, n = 5.
    found = confidence_interval(Summary(10.0, 1.0, 5))
    assert found.high - 10 == pytest.approx(2.776 / math.sqrt(5), abs=5e-4)
    assert found.low == pytest.approx(20 - found.high)


@given(samples, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_confidence_interval_agrees_with_scipy(values: list[float], level: float) -> None:
    found = confidence_interval(summarize(values), level=level)
    if np.std(values) > 1e-6:
        spread = scipy.stats.sem(values)
        wanted = scipy.stats.t.interval(level, len(values) - 1, np.mean(values), spread)
        assert (found.low, found.high) == pytest.approx(wanted, rel=1e-9)


@given(samples, samples)
def test_welch_agrees_with_scipy(higher: list[float], lower: list[float]) -> None:
    if min(np.std(higher), np.std(lower)) < 1e-6:
        return  # SciPy warns that it cannot tell
    found = welch(summarize(higher), summarize(lower))
    wanted = scipy.stats.ttest_ind(higher, lower, equal_var=False, alternative="greater")
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
    assert found.t == pytest.approx(wanted.statistic, rel=1e-6, abs=1e-12)
    assert found.freedom == pytest.approx(wanted.df, rel=1e-6)


def test_welch_takes_the_reports_numbers_as_they_are_printed() -> None:
    # Linear, 1 % of the labels, 5 seeds each: 86.38 +- .23 against 85.38 +- .31.
    found = welch(Summary(86.38, 0.23, 5), Summary(85.38, 0.31, 5))
    wanted = scipy.stats.ttest_ind_from_stats(
        86.38, 0.23, 5, 85.38, 0.31, 5, equal_var=False, alternative="greater"
    )
    assert found.p == pytest.approx(wanted.pvalue)
    assert found.p < 0.001


def test_a_margin_asks_whether_one_is_not_much_lower() -> None:
    lower, higher = summarize([0.88, 0.885, 0.89]), summarize([0.895, 0.9, 0.905])
    shifted = summarize([0.895 - 0.02, 0.9 - 0.02, 0.905 - 0.02])
    within, plain = welch(lower, higher, margin=0.02), welch(lower, higher)
    wanted = welch(lower, shifted)
    assert within.p == pytest.approx(wanted.p)
    assert within.difference == plain.difference < 0


@pytest.mark.parametrize(
    ("higher", "lower", "p"), [([0.2] * 3, [0.1] * 3, 0.0), ([0.1] * 2, [0.2] * 3, 1.0)]
)
def test_without_any_spread_the_means_decide(
    higher: list[float], lower: list[float], p: float
) -> None:
    found = welch(summarize(higher), summarize(lower))
    assert found.p == p


def test_two_constant_cells_that_are_equal_are_not_separated() -> None:
    found = welch(summarize([0.1] * 3), summarize([0.1] * 5))
    assert (found.p, found.t) == (0.5, 0.0)


def test_spreads_too_small_to_square_keep_their_degrees_of_freedom() -> None:
    found = welch(Summary(0.5, 1e-100, 3), Summary(0.4, 1e-100, 3))
    assert found.freedom == pytest.approx(4)


def by_seed(values: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(values))


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8))
def test_the_paired_test_agrees_with_scipy(pairs: list[tuple[float, float]]) -> None:
    higher, lower = zip(*pairs, strict=True)
    if np.std(np.subtract(higher, lower)) < 1e-6:
        return  # SciPy warns that it cannot tell
    found = paired(by_seed(higher), by_seed(lower), margin=0.1)
    shifted = np.subtract(lower, 0.1)
    wanted = scipy.stats.ttest_rel(higher, shifted, alternative="greater")
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
    assert found.t == pytest.approx(wanted.statistic, rel=1e-6, abs=1e-12)
    assert found.two_sided == pytest.approx(
        scipy.stats.ttest_rel(higher, shifted).pvalue, rel=1e-6, abs=1e-12
    )


def test_pairs_tell_apart_what_differs_less_than_seeds_do() -> None:
    higher, lower = [0.52, 0.62, 0.73], [0.50, 0.60, 0.70]
    assert paired(by_seed(higher), by_seed(lower)).p < 0.05
    assert welch(summarize(higher), summarize(lower)).p > 0.05


def test_only_what_both_have_is_paired() -> None:
    found = paired({0: 0.5, 1: 0.7, 2: 0.9}, {1: 0.6, 2: 0.7, 3: 0.1})
    assert found.n == 2
    assert found.difference == pytest.approx(0.15)  # .1 and .2
    assert paired({0: 0.5, 1: 0.7}, {1: 0.6, 2: 0.7}) is None


@pytest.mark.parametrize(
    ("higher", "p"), [((0.2, 0.3, 0.4), 0.0), ((0.1, 0.2, 0.3), 0.5), ((0.0, 0.1, 0.2), 1.0)]
)
def test_equal_differences_have_no_spread_whatever_the_rounding(
    higher: tuple[float, ...], p: float
) -> None:
    found = paired(by_seed(higher), by_seed((0.1, 0.2, 0.3)))  # .3 - .2 is not .2 - .1
    assert (found.p, found.std) == (p, 0.0)


@pytest.mark.parametrize(("pairs", "sides"), [(2, 1), (3, 1), (3, 2), (5, 1), (12, 2)])
def test_the_smallest_visible_difference_is_found_in_four_of_five_studies(
    pairs: int, sides: Literal[1, 2]
) -> None:
    """Among studies drawn at random with just that difference."""
    rng = np.random.default_rng(pairs)
    drawn = rng.normal(smallest_visible(0.3, pairs, sides=sides), 0.3, (100_000, pairs))
    alternative = "greater" if sides == 1 else "two-sided"
    p = scipy.stats.ttest_1samp(drawn, 0, axis=1, alternative=alternative).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.005)


def test_the_pooled_spread_is_that_of_the_analysis_of_variance() -> None:
    table = np.random.default_rng(0).normal(0, 1, (4, 5)) + np.arange(5)  # arms x seeds
    table -= 0.5  # of an arm and a seed nothing may be left
    left = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    error = (left**2).sum() / (3 * 4)
    found = spread_of_differences([by_seed(row) for row in table.tolist()])
    assert found == pytest.approx(math.sqrt(2 * error))
    assert spread_of_differences([{0: 0.1}, {0: 0.2}]) is None


def test_the_best_is_marked_by_pairs_where_there_are_any() -> None:
    values = {"best": [0.52, 0.62, 0.73], "below": [0.50, 0.60, 0.70], "once": [0.3]}
    cells = {name: summarize(found) for name, found in values.items()}
    pairs = {name: by_seed(found) for name, found in values.items()}
    marks = mark_best(cells, pairs=pairs)
    assert marks == {"best": "best", "below": "below", "once": "untested"}
    assert mark_best(cells)["below"] == "level"


def test_corrections_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert bonferroni(p) == pytest.approx((0.04, 0.16, 0.12, 0.02))
    # Sorted: .005 x 4, .01 x 3, .03 x 2, .04 x 1 = .02, .03, .06, .04 -> never falling: .06.
    assert holm(p) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert corrected(p, "none") == tuple(p)
    assert bonferroni([0.6, 0.7]) == holm([0.6, 0.7]) == (1.0, 1.0)


@given(st.lists(numbers, min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p: list[float]) -> None:
    for plain, step, full in zip(p, holm(p), bonferroni(p), strict=True):
        assert plain <= step <= full


def test_the_best_cell_and_those_not_separated_from_it_are_marked() -> None:
    cells = {
        "far": summarize([0.50, 0.51, 0.52]),
        "near": summarize([0.79, 0.80, 0.82]),
        "best": summarize([0.80, 0.81, 0.82]),
        "once": summarize([0.6]),
    }
    assert mark_best(cells) == {
        "far": "below",
        "near": "level",
        "best": "best",
        "once": "untested",
    }
    assert mark_best({}) == {}


def test_the_correction_counts_the_tests_that_were_made() -> None:
    # One test at p = .0235 (t = 2.828, 4 degrees of freedom) is below 5 %; among four such
    # tests it is not, after either correction.
    best, other = Summary(0.8, 0.01, 3), Summary(0.8 - 0.0231, 0.01, 3)
    test = welch(best, other)
    assert 0.0125 < test.p < 0.05
    one, four = {"b": best, "0": other}, {"b": best} | {str(i): other for i in range(4)}
    assert mark_best(one)["0"] == "below"
    assert set(mark_best(four, correction="none").values()) == {"best", "below"}
    for correction in ("holm", "bonferroni"):
        assert set(mark_best(four, correction=correction).values()) == {"best", "level"}


def test_a_best_cell_of_one_run_separates_none() -> None:
    assert mark_best({"a": summarize([0.9]), "b": summarize([0.1, 0.2])}) == {
        "a": "best",
        "b": "untested",
    }


def test_no_run_of_a_cell_is_lost_in_silence() -> None:
    runs = [
        Outcome("ended", 0.8),
        Outcome("collapsed", 0.1),
        Outcome("dimensional", 0.3),
        Outcome("diverged"),
        Outcome("failed"),
        Outcome("missing"),
        Outcome("missing"),
    ]
    found = cell(runs)
    assert found.summary == summarize([0.8, 0.1, 0.3])
    assert found.values == (0.8, 0.1, 0.3, None, None, None, None)
    assert found[2:] == (1, 1, 1, 1, 2)
    assert cell(runs[3:]).summary is None
