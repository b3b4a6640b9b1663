"""The sequential verdict: its errors by seeded simulation, what must not change it, and what a run would need."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from edgekd.runtime.need import MOST, aa_half_width, pairs_needed, standard_error
from edgekd.runtime.sequential import LOOKS, Plan, decide, plan_within, planned_looks

ORDER = {"pass": 0, "inconclusive": 1, "regression": 2}
values = st.lists(st.floats(-0.2, 0.2), min_size=0, max_size=60)
tolerances = st.sampled_from([0.0, 0.01, 0.05, -0.1])


def draws(shape: str, count: int, random: np.random.Generator) -> np.ndarray:
    """``count`` rows of 48 pairs' log ratios around 0, of 1 % spread."""
    size = (count, LOOKS[-1])
    return 0.01 * (random.normal(size=size) if shape == "normal" else random.standard_t(3, size=size))


@pytest.mark.parametrize("shape", ["normal", "t3"])
def test_each_error_is_at_most_the_nominal_one_over_all_looks(shape):
    plan = Plan(0.02)
    runs = 4000
    verdicts = [
        decide(plan.limit + row, plan, ended=True).verdict for row in draws(shape, runs, np.random.default_rng(3))
    ]
    most = binom.ppf(1 - 1 / 3000, runs, plan.error)
    assert verdicts.count("regression") <= most
    assert verdicts.count("pass") <= most


def test_looks_without_their_share_alarm_too_often():
    """What the sharing is for: the same simulation finds a plan that spends the whole error at every look."""
    plan, greedy = Plan(0.0), Plan(0.0, error=0.01 * len(LOOKS))
    rows = draws("normal", 2000, np.random.default_rng(4))
    told = [decide(row, greedy, ended=True).verdict for row in rows]
    assert told.count("regression") > binom.ppf(1 - 1 / 3000, len(rows), plan.error)


@pytest.mark.parametrize(("slowdown", "verdict"), [(0.05, "regression"), (0.0, "pass")])
def test_what_is_clear_is_found(slowdown, verdict):
    plan = Plan(0.02)
    rows = math.log1p(slowdown) + draws("normal", 400, np.random.default_rng(5))
    found = [decide(row, plan, ended=True) for row in rows]
    assert sum(one.verdict == verdict for one in found) >= 380
    assert np.median([one.looks[-1].pairs for one in found]) <= 16


@given(values, tolerances, st.floats(0, 0.3))
def test_a_slower_model_never_gets_a_better_verdict(logs, tolerance, shift):
    plan = Plan(tolerance)
    base = decide(logs, plan, ended=True).verdict
    slower = decide([log + shift for log in logs], plan, ended=True).verdict
    if base == "regression":
        # Sums round differently after the shift; a verdict by less than that is no verdict.
        nudged = decide([log + shift + 1e-12 for log in logs], plan, ended=True).verdict
        assert "regression" in (slower, nudged)
    elif base == "inconclusive":
        assert slower != "pass" or shift < 1e-12


@given(values, st.sampled_from([0.5, 2.0, 8.0]))
def test_at_tolerance_0_the_scale_of_the_noise_changes_nothing(logs, factor):
    one, other = (decide(row, Plan(0.0), ended=True) for row in (logs, [factor * log for log in logs]))
    assert one.verdict == other.verdict
    assert [look.pairs for look in one.looks] == [look.pairs for look in other.looks]
    assert [factor * look.low for look in one.looks] == pytest.approx([look.low for look in other.looks])


@given(values, tolerances, st.booleans())
def test_the_same_pairs_tell_the_same_fed_one_by_one(logs, tolerance, ended):
    plan = Plan(tolerance)
    whole = decide(logs, plan, ended=ended)
    assert decide(list(logs), plan, ended=ended) == whole
    fed = next(
        (found for end in range(len(logs)) if (found := decide(logs[:end], plan, ended=False)).verdict is not None),
        whole,
    )
    # What was decided on the way stays decided, whatever comes after it.
    assert fed == whole
    assert (whole.verdict is None) == (not ended and not any(look.verdict for look in whole.looks) and len(logs) < 48)


def test_looks_are_taken_as_planned_and_once_more_where_time_ends():
    logs = [0.05 * (-1) ** i for i in range(20)]
    plan = Plan(0.01)
    assert [look.pairs for look in decide(logs[:7], plan, ended=False).looks] == []
    assert [look.pairs for look in decide(logs, plan, ended=False).looks] == [8, 12, 16]
    ended = decide(logs, plan, ended=True)
    assert [look.pairs for look in ended.looks] == [8, 12, 16, 20]
    assert ended.verdict == "inconclusive"
    assert [look.pairs for look in decide(logs[:16], plan, ended=True).looks] == [8, 12, 16]
    assert [look.pairs for look in decide(logs * 3, plan, ended=False).looks] == list(LOOKS)
    assert decide(logs * 3, plan, ended=False).verdict == "inconclusive"


def test_fewer_pairs_than_the_first_look_decide_nothing():
    few = decide([1.0, 1.0, 1.0, 1.0, 1.0], Plan(0.0), ended=True)
    assert few.verdict == "inconclusive"
    assert few.looks[-1].low > 0
    assert few.looks[-1].verdict is None
    assert decide([1.0] * 8, Plan(0.0), ended=False).verdict == "regression"
    assert decide([], Plan(0.0), ended=True) == decide([1.0], Plan(0.0), ended=True)


def test_a_ratio_of_exactly_the_tolerance_is_neither():
    assert decide([0.0] * 48, Plan(0.0), ended=True).verdict == "inconclusive"


@pytest.mark.parametrize(
    "wrong",
    [{"tolerance": -1.0}, {"tolerance": math.nan}, {"error": 0.0}, {"error": 0.5}, {"looks": ()}, {"looks": (8, 8)}],
)
def test_a_plan_that_cannot_be_kept_is_refused(wrong):
    with pytest.raises(ValueError, match=r"tolerance|error|looks"):
        replace(Plan(0.05), **wrong)


def test_a_longer_budget_plans_more_looks():
    assert planned_looks(0) == (8,)
    assert planned_looks(8) == (8,)
    assert planned_looks(20) == (8, 12, 16, 24)
    assert planned_looks(48) == LOOKS
    assert planned_looks(200) == (*LOOKS, 64, 96, 128, 192, 256)


def test_the_width_of_a_model_against_itself():
    random = np.random.default_rng(6)
    plan = Plan(0.01)
    logs = list(random.normal(0.3, 0.01, size=16))
    look = decide(logs, plan, ended=True).looks[0]
    assert aa_half_width(logs[:8], plan) == pytest.approx((look.high - look.low) / 2)
    assert aa_half_width([-x + 1 for x in logs], plan) == pytest.approx(aa_half_width(logs, plan))
    assert standard_error(logs) == pytest.approx(0.01 / 4, rel=0.5)


def test_looks_are_planned_by_what_pairs_take():
    assert plan_within([1.2] * 8, budget_s=60, tolerance=0.02) == Plan(0.02, looks=LOOKS)
    assert plan_within([1.2, 1.2, 30.0], budget_s=60, tolerance=0.02).looks == LOOKS
    assert plan_within([2.3] * 8, budget_s=60, tolerance=0.0, error=0.05) == Plan(0.0, 0.05, (8, 12, 16, 24))
    # What is within a tenth above a look does not wait for the next one.
    assert plan_within([1.0], budget_s=13, tolerance=0).looks == (8, 12)
    assert plan_within([1.0], budget_s=14, tolerance=0).looks == (8, 12, 16)
    assert plan_within([8.0], budget_s=60, tolerance=0).looks == plan_within([], budget_s=60, tolerance=0).looks == (8,)


@pytest.mark.parametrize("distance", [0.004, -0.02])
def test_a_run_as_long_as_needed_decides_nine_times_of_ten(distance):
    random = np.random.default_rng(7)
    seen = random.normal(size=48)
    seen = 0.01 * (seen - seen.mean()) / seen.std()
    need = pairs_needed(list(seen), 0.01, distance)
    assert need is not None
    plan = Plan(0.0, looks=planned_looks(need))
    rows = random.normal(distance, 0.01, size=(400, need))
    found = sum(decide(list(row), plan, ended=True).verdict != "inconclusive" for row in rows)
    assert found >= 340
    if need > 16:
        short = sum(decide(list(row[: need // 2]), plan, ended=True).verdict != "inconclusive" for row in rows)
        assert short < 340


@given(st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=48), st.floats(1e-4, 0.1), st.floats(0, 0.1))
def test_more_distance_never_needs_more_pairs(logs, distance, more):
    one, other = (pairs_needed(logs, 0.01, d) for d in (distance, distance + more))
    assert (one or MOST) >= (other or MOST) >= 8


def test_no_number_of_pairs_tells_what_is_on_the_limit():
    assert pairs_needed([0.01, 0.02, 0.03], 0.01, 0.0) is None
    assert pairs_needed([0.5, -0.5, 0.5], 0.01, 1e-5) is None
    assert pairs_needed([0.1, 0.1, 0.1], 0.01, 0.02) == 8
