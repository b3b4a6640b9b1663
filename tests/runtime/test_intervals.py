"""Percentiles and the interval of pairs: known values, hand computation, scipy, coverage by seeded simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t, ttest_ind

from edgekd.runtime.interval import TRIM, t_quantile, trimmed_interval, two_sided_tail
from edgekd.runtime.percentile import percentile


@pytest.mark.parametrize(("share", "runs"), [(0.90, 64), (0.99, 662), (0.95, 130)])
def test_a_percentile_needs_as_many_runs_as_mlperf_says(share, runs):
    """64 and 662: MLPerf inference rules, "Early stopping": the fewest queries with one of them over."""
    samples = np.random.default_rng(0).permutation(runs).astype(float)
    assert percentile(samples, share) == runs - 1  # the one that is over tells the estimate, as in LoadGen
    assert percentile(samples[: runs - 1], share) is None
    assert percentile(samples[:1], share) is None
    assert percentile(samples[:0], share) is None


@given(st.integers(1, 3000), st.sampled_from([0.9, 0.95, 0.99]))
def test_as_many_runs_are_discarded_as_the_binomial_bound_allows(count, share):
    def chance(most: int) -> float:
        """Of at most that many runs over, were one in 1 / (1 - share) over."""
        total, term = 0.0, share**count
        for over in range(most + 1):
            total += term
            term *= (count - over) / (over + 1) * (1 - share) / share
        return total

    found = percentile(np.arange(count, dtype=float), share)
    if found is None:
        assert chance(1) > 0.01 - 1e-12
    else:
        over = count - int(found)  # the estimate itself counts as over
        assert over >= 1
        assert chance(over) <= 0.01 + 1e-12
        assert chance(over + 1) > 0.01 - 1e-12


def test_a_percentile_is_hardly_ever_too_low():
    random = np.random.default_rng(1)
    true = -math.log(0.1)
    low = sum(percentile(random.exponential(size=200), 0.90) < true for _ in range(2000))  # type: ignore[operator]
    assert low <= 37  # of 20 that 1 % allows; more than 37 has a chance of 1 in 6000


def test_yuens_interval_by_hand():
    values = [100, 3, 5, 1, 9, 4, 2, 8, 6, 7]
    # Kept 2 ... 9, mean 5.5; winsorized 2 2 3 4 5 6 7 8 9 9: squares 66.5; t(0.995, 7) = 3.4995.
    half = 3.4995 * math.sqrt(66.5 / (8 * 7))
    mean, low, high = trimmed_interval(values, error=0.01)
    assert mean == 5.5
    assert (low, high) == pytest.approx((5.5 - half, 5.5 + half), abs=1e-3)


@pytest.mark.parametrize("count", [2, 8, 9, 10, 12, 24, 48])
def test_yuens_interval_against_scipy(count):
    values = np.random.default_rng(count).standard_t(3, size=count)
    trim = ttest_ind(values, np.zeros(1000), equal_var=False, trim=TRIM)  # zeros have no spread: one sample's test
    want = trim.confidence_interval(0.99)
    _, low, high = trimmed_interval(values, error=0.01)
    assert (low, high) == pytest.approx((want.low, want.high), rel=1e-9)


@given(st.floats(1e-9, 0.999), st.integers(1, 2000))
def test_students_quantile_is_scipys(error, freedom):
    found = t_quantile(error, freedom)
    assert found == pytest.approx(t.isf(error / 2, freedom), rel=1e-9)
    assert two_sided_tail(found, freedom) == pytest.approx(error, rel=1e-9)


def test_students_quantile_at_its_ends():
    assert t_quantile(0.05, 1) == pytest.approx(12.7062047364)  # a table's
    assert t_quantile(1e-100, 1) == pytest.approx(2 / math.pi * 1e100)
    for error, freedom in ((0, 5), (1, 5), (0.1, 0), (math.nan, 5)):
        with pytest.raises(ValueError, match="no quantile"):
            t_quantile(error, freedom)


@pytest.mark.parametrize("count", [8, 12, 24])
@pytest.mark.parametrize("shape", ["normal", "outliers"])
def test_yuens_interval_holds_the_truth_as_often_as_it_says(count, shape):
    random = np.random.default_rng(2)
    missed = 0
    for _ in range(1500):
        values = random.normal(size=count)
        if shape == "outliers":  # a pair in ten met something else on the machine
            values *= np.where(random.random(count) < 0.1, 5, 1)
        _, low, high = trimmed_interval(values, error=0.05)
        missed += not low <= 0 <= high
    assert missed <= 105  # of 75: more than 105 has a chance of 1 in 3000
    if shape == "normal":
        assert missed >= 45  # and is not wider than it needs to be


def test_an_interval_of_nothing_is_refused():
    for values in ([], [1.0]):
        with pytest.raises(ValueError, match="at least two"):
            trimmed_interval(values, error=0.01)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            trimmed_interval([1.0, 2.0, value], error=0.01)
    assert trimmed_interval([3.0, 3.0], error=0.01) == (3.0, 3.0, 3.0)
