"""Change points: how rarely they are found where there is none, and that real ones are."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.report.history.change_points import LEAST, _ranks, change_points

NOISES = {
    "normal": lambda rng, n: rng.normal(0, 0.01, n),
    "heavy tails": lambda rng, n: 0.01 * rng.standard_t(1.5, n),
    "skewed": lambda rng, n: rng.lognormal(0, 1, n),
    "rounded": lambda rng, n: np.round(rng.normal(0, 1, n)),
    "constant": lambda rng, n: np.zeros(n),
}


def at_most(chance: float, trials: int, doubt: float = 1e-4) -> int:
    """So many successes are not exceeded with more than ``doubt`` where each has ``chance``: the exact binomial."""
    left, count = 1.0, 0
    while True:
        left -= math.comb(trials, count) * chance**count * (1 - chance) ** (trials - count)
        if left <= doubt:
            return count
        count += 1


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_series_without_a_change_show_one_no_more_often_than_bounded(noise) -> None:
    """400 series; at 5 %, so that a test that were wrong by half would be seen."""
    rng = np.random.default_rng(3)
    found = sum(bool(change_points(noise(rng, int(rng.integers(10, 60))), error=0.05, seed=i)) for i in range(400))
    assert found <= at_most(0.05, 400)


def test_the_bound_is_used_and_not_only_kept() -> None:
    """A test that never alarms would pass the one above."""
    rng = np.random.default_rng(4)
    found = sum(bool(change_points(rng.normal(size=40), error=0.2, seed=i)) for i in range(200))
    assert 200 - at_most(0.8, 200) <= found


@pytest.mark.parametrize("place", [6, 20, 34])
@pytest.mark.parametrize("size", [0.05, -0.05])
def test_a_change_of_five_percent_is_found_in_noise_of_two(place: int, size: float) -> None:
    found = []
    for seed in range(40):
        values = np.random.default_rng(seed).normal(0, 0.02, 40)
        values[place:] += size
        found.append([one.index for one in change_points(values, seed=seed)])
    # Six runs of forty on one side are near the least that can be told at 1 %: of 100 series 89 to 95 were found.
    assert sum(bool(one) for one in found) >= (40 if place == 20 else 34)
    assert np.median([abs(one[0] - place) for one in found if one]) <= 1


def test_several_changes_are_found_each() -> None:
    values = np.random.default_rng(1).normal(0, 0.01, 90)
    values[30:] += 0.05
    values[60:] -= 0.03
    found = change_points(values)
    assert [round(one.index, -1) for one in found] == [30, 60]
    assert all(0 < one.p_value <= 0.01 for one in found)


def test_single_outliers_are_no_change() -> None:
    values = np.random.default_rng(2).normal(0, 0.01, 40)
    values[[3, 17, 18, 33]] += 5.0
    assert change_points(values) == []


def test_values_are_compared_by_rank_alone() -> None:
    values = np.random.default_rng(5).normal(1, 0.02, 50)
    values[25:] += 0.05
    assert change_points(values) == change_points(np.exp(7 * values))
    assert _ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300) | st.sampled_from([0.0, 1.0]), max_size=40), st.integers(1, 6))
def test_changes_are_ordered_and_leave_room_on_either_side(values: list[float], least: int) -> None:
    found = change_points(values, least=least)
    ends = [0, *(one.index for one in found), len(values)]
    assert all(second - first >= least for first, second in pairwise(ends)) or not found
    assert found == change_points(values, least=least)


def test_too_few_values_and_values_that_are_none() -> None:
    assert change_points([0.0] * (LEAST - 1) + [9.0] * LEAST) == []
    assert change_points([]) == []
    with pytest.raises(ValueError, match="finite"):
        change_points([1.0, math.nan])
