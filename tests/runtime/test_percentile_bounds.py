import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from edgekd.runtime.percentile import binomial_quantile, median_interval, percentile


@given(st.integers(0, 5000), st.sampled_from([0.5, 0.1, 0.01]), st.sampled_from([0.5, 0.01, 0.005]))
def test_the_quantile_is_scipys(count, chance, bound):
    t = binomial_quantile(count, chance, bound)
    if t >= 0:
        assert binom.cdf(t, count, chance) <= bound * (1 + 1e-9)
    assert binom.cdf(t + 1, count, chance) > bound * (1 - 1e-9)


def test_large_counts_stay_finite():
    samples = np.random.default_rng(1).exponential(size=200_000)
    assert np.quantile(samples, 0.99) < percentile(samples, 0.99) < np.quantile(samples, 0.992)


def test_the_median_lies_in_its_interval_as_often_as_it_says():
    rng = np.random.default_rng(2)
    for count in (2, 5, 8, 20):
        draws = rng.lognormal(size=(4000, count))
        found = [median_interval(row, 0.05) for row in draws]
        confidence = found[0][2]
        assert confidence == pytest.approx(1 - 0.5 ** (count - 1) if count < 9 else 0.95, abs=0.05)
        covered = np.mean([low <= 1.0 <= high for low, high, _ in found])
        assert abs(covered - confidence) < 0.02
