"""The interval of a drop in accuracy, by hand and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekd.measure.statistics import paired_drop_interval


def test_the_drop_interval_by_hand():
    """Agresti and Min's: 12 lost and 4 gained of 100; half a count more in each cell."""
    before = np.array([True] * 12 + [False] * 4 + [True] * 84)
    after = np.array([False] * 12 + [True] * 4 + [True] * 84)
    half = 1.959964 * math.sqrt(17 - 64 / 102) / 102
    low, high = paired_drop_interval(before, after)
    assert (low, high) == pytest.approx((100 * (8 / 102 - half), 100 * (8 / 102 + half)), abs=1e-4)
    assert paired_drop_interval(after, before) == pytest.approx((-high, -low))


def test_the_drop_interval_holds_the_truth():
    random = np.random.default_rng(3)
    missed = 0
    for _ in range(1000):
        u = random.random(400)
        low, high = paired_drop_interval(u < 0.95, (u < 0.92) | (u > 0.98))  # 3 points lost, 2 gained
        missed += not low <= 1.0 <= high
    assert missed <= 75  # of 50: more than 75 has a chance of 1 in 5000


def test_no_difference_gives_an_interval_around_zero():
    low, high = paired_drop_interval(np.ones(360, bool), np.ones(360, bool))
    assert low == -high
    assert 0 < high < 1
