"""Accuracy sample by sample, Holm's correction, and the checks that only hold a figure against a tolerance."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from edgekd.measure.gate_checks import accuracy_check, accuracy_p_value, coverage_check, memory_check, size_check
from edgekd.measure.holm import accuracy_level, latency_level
from edgekd.measure.mcnemar import worse_p_value
from edgekd.measure.predictions import correct_row, read_correct, right, same_samples
from edgekd.measure.statistics import paired_drop_interval
from edgekd.pipeline.gate import DEFAULTS

bits = arrays(bool, st.integers(1, 300))


def row(correct: np.ndarray, data: str = "d") -> dict:
    return json.loads(json.dumps(correct_row(correct, np.arange(len(correct)), data)))


def pair(lost: int, gained: int, both: int = 900) -> tuple[np.ndarray, np.ndarray]:
    """(before, after) with as many samples lost and gained."""
    before = np.array([True] * both + [True] * lost + [False] * gained)
    return before, np.array([True] * both + [False] * lost + [True] * gained)


@given(bits)
def test_right_and_wrong_survive_the_file(correct):
    told = row(correct)
    np.testing.assert_array_equal(read_correct(told), correct)
    assert len(told["bits"]) < 4 * (len(correct) / 8 + 16) / 3 + 8


def test_ten_thousand_samples_take_little_room():
    correct = np.random.default_rng(0).random(10_000) < 0.95
    assert len(json.dumps(row(correct))) < 1000


def test_rows_of_other_samples_are_not_the_same():
    one = row(np.ones(9, bool))
    assert same_samples(one, row(np.zeros(9, bool)))
    assert not same_samples(one, row(np.ones(8, bool)))
    assert not same_samples(one, row(np.ones(9, bool), "other"))
    assert not same_samples(one, correct_row(np.ones(9, bool), np.zeros(9, int), "d"))


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 0},
        {"samples": True},
        {"samples": 10**12},
        {"samples": 800},
        {"bits": "!"},
        {"bits": "AAAA"},
        {"bits": 3},
    ],
)
def test_a_broken_row_is_refused_and_never_compared(change):
    broken = {**row(np.ones(9, bool)), **change}
    with pytest.raises(ValueError, match=r"samples|bits|row"):
        read_correct(broken)
    assert accuracy_p_value(broken, broken, DEFAULTS) is None
    assert accuracy_check(broken, broken, 0.01, DEFAULTS).verdict == "not comparable"


BROKEN = ["x", 3, [1], True, {}, {"samples": 9}, {"samples": "9", "data": "d", "labels": "l", "bits": "AAAA"}]


@pytest.mark.parametrize("broken", BROKEN, ids=repr)
def test_what_is_no_row_at_all_is_not_comparable_and_told(broken):
    good = row(np.ones(9, bool))
    for new, old, side in ((broken, good, "new"), (good, broken, "old")):
        assert accuracy_p_value(new, old, DEFAULTS) is None
        check = accuracy_check(new, old, 0.01, DEFAULTS)
        assert (check.verdict, check.change) == ("not comparable", None)
        assert check.detail.startswith(f"which samples the {side} model gets right cannot be read: ")


@pytest.mark.parametrize(
    "broken",
    [
        {"compute": 41},
        {"integer": 40, "compute": "41"},
        {"integer": "40", "compute": 41},
        {"integer": None, "compute": 41},
        {"integer": True, "compute": True},
        {"integer": 0.5, "compute": 1.0},
        {"integer": 42, "compute": 41},
        {"integer": -1, "compute": 41},
        {"integer": 0, "compute": 0},
        {"integer": 0, "compute": -3},
        [40, 41],
        "40 of 41",
        41,
    ],
    ids=repr,
)
def test_broken_coverage_is_not_comparable_and_told(broken):
    good = {"integer": 40, "compute": 41}
    for new, old, side in ((broken, good, "new"), (good, broken, "old")):
        check = coverage_check(new, old, DEFAULTS)
        assert (check.verdict, check.change, check.new, check.old) == ("not comparable", None, None, None)
        assert check.detail.startswith(f"the {side} bundle's ")
    assert coverage_check(good, good, DEFAULTS).verdict == "pass"


def test_a_row_that_unpacks_to_more_than_it_says_is_refused():
    big = row(np.ones(10_000_000, bool))
    with pytest.raises(ValueError, match="as many"):
        read_correct({**big, "samples": 9})


def test_right_is_the_largest_output_and_never_nan():
    outputs = np.array([[1.0, 2.0], [2.0, 1.0], [np.nan, 1.0], [np.inf, 0.0]])
    assert right(outputs, np.array([1, 1, 1, 0])).tolist() == [True, False, False, False]


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_a_coins_test_of_what_differs(lost, gained):
    want = binomtest(lost, lost + gained, 0.5, "greater").pvalue if lost + gained else 1.0
    assert worse_p_value(*pair(lost, gained)) == pytest.approx(want, rel=1e-9)


def test_mcnemar_of_other_samples_is_refused():
    with pytest.raises(ValueError, match="paired"):
        worse_p_value(np.ones(3, bool), np.ones(4, bool))


@pytest.mark.parametrize(
    ("lost", "gained", "allowed", "verdict"),
    [
        (20, 2, 0, "regression"),
        # Larger than allowed, and so by more than chance than 0 is, but not than what is allowed.
        (20, 2, 1, "pass"),
        (40, 2, 1, "regression"),
        (20, 2, 2.5, "pass"),
        (4, 2, 0, "pass"),
        (2, 20, 0, "pass"),
    ],
)
def test_accuracy_falls_where_the_drop_is_large_and_no_accident(lost, gained, allowed, verdict):
    before, after = pair(lost, gained)
    settings = DEFAULTS.model_copy(update={"max_accuracy_drop": allowed})
    check = accuracy_check(row(after), row(before), 0.005, settings)
    assert check.verdict == verdict
    assert check.p_value == worse_p_value(before, after, allowed=allowed / 100)
    assert check.p_value == accuracy_p_value(row(after), row(before), settings)
    assert check.change == pytest.approx(-100 * (lost - gained) / len(before))
    assert f"{lost} samples lost and {gained} gained of {len(before)}" in check.detail
    low, high = paired_drop_interval(before, after)
    assert check.interval == (-high, -low)
    assert check.interval[0] <= check.change <= check.interval[1]


@pytest.mark.parametrize(("allowed", "gains"), [(0.01, 0.02), (0.03, 0.01), (0.005, 0.0)])
def test_a_drop_of_just_what_is_allowed_alarms_at_the_level(allowed, gains):
    """2000 test sets of 1000 samples: at a level of 5 % at most 120 may alarm (all but one in 10 000 times)."""
    random = np.random.default_rng(7)
    alarms = 0
    for _ in range(2000):
        lost, gained, same = random.multinomial(1000, [gains + allowed, gains, 1 - allowed - 2 * gains])
        before = np.repeat([True, False, True], [lost, gained, same])
        after = np.repeat([False, True, True], [lost, gained, same])
        alarms += worse_p_value(before, after, allowed=allowed) <= 0.05
    assert 0 < alarms <= 140


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0, 0.2))
def test_what_is_allowed_only_makes_it_harder_to_be_worse(lost, gained, allowed):
    before, after = pair(lost, gained)
    assert 0 <= worse_p_value(before, after) <= worse_p_value(before, after, allowed=allowed) <= 1


def test_accuracy_without_paired_predictions_is_not_comparable():
    one = row(np.ones(9, bool))
    assert "the new bundle does not tell" in accuracy_check(None, one, 0.01, DEFAULTS).detail
    assert "different test samples" in accuracy_check(one, row(np.ones(9, bool), "x"), 0.01, DEFAULTS).detail
    for check in (
        accuracy_check(None, None, 0.01, DEFAULTS),
        accuracy_check(one, row(np.ones(8, bool)), 0.01, DEFAULTS),
    ):
        assert (check.verdict, check.p_value, check.change) == ("not comparable", None, None)
        assert check.interval is None


@given(st.floats(0, 1), st.floats(0, 1))
def test_two_levels_reject_what_holms_procedure_rejects(p_latency, p_accuracy):
    error = 0.01
    latency = p_latency <= latency_level(error, p_accuracy)
    accuracy = p_accuracy <= accuracy_level(error, latency)
    small, large = sorted([p_latency, p_accuracy])
    first = small <= error / 2
    holm = {p for p, rejected in ((small, first), (large, first and large <= error)) if rejected}
    assert (latency, accuracy) == (p_latency in holm, p_accuracy in holm)
    assert latency_level(error, None) == accuracy_level(error, None) == error


def test_figures_are_held_against_their_tolerances():
    assert memory_check(11.0, 10.0, "", DEFAULTS).verdict == "pass"
    assert memory_check(11.2, 10.0, "", DEFAULTS).verdict == "regression"
    assert memory_check(None, 10.0, "", DEFAULTS).verdict == "not comparable"
    assert size_check(105, 100, DEFAULTS).verdict == "pass"
    assert size_check(106, 100, DEFAULTS).verdict == "regression"
    found = coverage_check({"integer": 19, "compute": 20}, {"integer": 10, "compute": 10}, DEFAULTS)
    assert (found.verdict, found.change) == ("pass", pytest.approx(-5))
    assert found.detail == "19 of 20 layers before 10 of 10 layers"
    assert (
        coverage_check({"integer": 9, "compute": 10}, {"integer": 10, "compute": 10}, DEFAULTS).verdict == "regression"
    )
    assert coverage_check(None, {"integer": 10, "compute": 10}, DEFAULTS).verdict == "not comparable"
    shown = DEFAULTS.model_copy(update={"gates": ["latency"]})
    assert not size_check(106, 100, shown).gates
