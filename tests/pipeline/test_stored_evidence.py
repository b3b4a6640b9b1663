"""What a gate takes from measurements.json, which anybody may have written, and what it does not."""

from __future__ import annotations

import pytest

from edgekd.measure.gate_checks import coverage_check
from edgekd.pipeline.evidence import Figure, is_samples, newest, stored_memory, told_of_machines
from edgekd.pipeline.gate import DEFAULTS
from edgekd.runtime.machine import describe_machine

HERE = describe_machine()
ELSEWHERE = HERE | {"isa": ["avx2"], "cpu": "another"}
MINE, OTHERS = {"sha256": "a"}, {"sha256": "b"}


def test_the_newest_entry_about_the_file_itself_is_taken():
    entries = [
        {"model": MINE, "value": 1, "machine": ELSEWHERE},
        {"model": MINE, "value": 2, "machine": HERE},
        {"model": MINE, "value": None},
        {"model": MINE},
        {"model": OTHERS, "value": 3},
        {"model": "a", "value": 4},
        {"value": 5},
    ]
    assert newest(entries, "a", lambda one: one["value"]) == Figure(2, HERE)
    assert newest(entries, "c", lambda one: one["value"]) == Figure(None, None)
    assert newest([{"model": MINE, "value": "text"}], "a", lambda one: one["value"]["deeper"]) == Figure()


@pytest.mark.parametrize("value", [[2_000_000], [1, 2.5, 1e15]])
def test_samples_are_times(value):
    assert is_samples(value)


@pytest.mark.parametrize(
    "value",
    [
        [],
        [0],
        [-5],
        [2_000_000, 0],
        ["2"],
        [None],
        [True],
        [float("nan")],
        [float("inf")],
        [10**400],
        {"0": 1},
        "12",
        7,
    ],
    ids=repr,
)
def test_what_is_no_time_is_no_sample(value):
    assert not is_samples(value)


def test_stored_memory_is_compared_on_one_machine():
    one, other = {"machine": HERE, "peak_memory_mb": 5}, {"machine": dict(HERE), "peak_memory_mb": 4.5}
    assert stored_memory(one, other) == ([5, 4.5], "as stored")
    for machine in (ELSEWHERE, None, {}, "this one"):
        for pair in ((one, other | {"machine": machine}), (other | {"machine": machine}, one)):
            assert stored_memory(*pair) == ([None, None], "stored figures of different machines")
    for unknown in (None, {}):
        assert stored_memory(*[{"machine": unknown, "peak_memory_mb": 5.0}] * 2)[0] == [None, None]


@pytest.mark.parametrize("value", ["5", None, 0, -1.0, True, [5], float("nan"), 10**400], ids=repr)
def test_stored_memory_that_is_none_is_not_compared(value):
    one = {"machine": HERE, "peak_memory_mb": 5.0}
    for pair in ((one, one | {"peak_memory_mb": value}), (one | {"peak_memory_mb": value}, one)):
        assert stored_memory(*pair) == ([None, None], "a bundle does not carry its peak memory in MB")


def test_figures_of_different_machines_say_so():
    row = {"integer": 9, "compute": 10}
    check = coverage_check(row, row, DEFAULTS)
    same = told_of_machines(check, Figure(row, HERE), Figure(row, dict(HERE)))
    assert same == check
    for machine in (ELSEWHERE, None):
        told = told_of_machines(check, Figure(row, HERE), Figure(row, machine))
        assert told.detail == f"{check.detail}; measured on different machines"
        assert told.verdict == check.verdict
    unknown = coverage_check(None, row, DEFAULTS)
    assert told_of_machines(unknown, Figure(), Figure(row, HERE)) == unknown
