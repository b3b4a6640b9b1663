import numpy as np
import pytest
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


@pytest.mark.parametrize(
    ("runs", "share", "discarded"),
    # Published logs of LoadGen: "Would discard 172 highest latency queries", and the least number of queries.
    [(64, 0.9, 0), (2048, 0.9, 172), (2116, 0.9, 178), (2145, 0.9, 181), (662, 0.99, 0)],
)
def test_as_many_samples_are_discarded_as_mlperf_discards(runs, share, discarded):
    samples = np.random.default_rng(0).permutation(runs)
    assert percentile(samples, share) == runs - 1 - discarded


@given(st.integers(64, 3000), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_estimate_lies_over_the_percentile_with_confidence(runs, share):
    value = percentile(np.arange(runs), share)
    if value is not None:
        # The order statistic of rank r is below the percentile when at least r samples are.
        assert binom.sf(value, runs, share) <= 0.01
