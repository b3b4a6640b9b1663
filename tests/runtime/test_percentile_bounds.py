import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from edgekd.runtime.percentile import binomial_quantile, percentile


@given(st.integers(0, 5000), st.sampled_from([0.5, 0.1, 0.01]), st.sampled_from([0.5, 0.01, 0.005]))
def test_the_quantile_is_scipys(count, chance, bound):
    t = binomial_quantile(count, chance, bound)
    if t >= 0:
        assert binom.cdf(t, count, chance) <= bound * (1 + 1e-9)
    assert binom.cdf(t + 1, count, chance) > bound * (1 - 1e-9)


def test_large_counts_stay_finite():
    samples = np.random.default_rng(1).exponential(size=200_000)
    assert np.quantile(samples, 0.99) < percentile(samples, 0.99) < np.quantile(samples, 0.992)
