"""What a scenario accepts: options that belong together, batch sizes of the model, cores that are there."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.runtime.machine import allowed_cores, usable_cpus
from edgekd.runtime.scenario import BATCHES, Settings, batches_of, check_cores, parse_cores, threads_here
from edgekd.runtime.sessions import SessionError

ABSENT = max(os.cpu_count() or 1, max(allowed_cores()) + 1) + 7


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings("server"), "unknown scenario 'server': known are single-stream, offline, multi-stream"),
        (Settings(batch_sizes=(4,)), "batch sizes belong to the scenario offline"),
        (Settings("multi-stream", batch_sizes=(4,)), "batch sizes belong to the scenario offline"),
        (Settings("offline", streams=2), "streams belong to the scenario multi-stream"),
        (Settings("offline", batch_sizes=(4, 0)), "a batch size of 0 is not between 1 and 4096"),
        (Settings("multi-stream", streams=5000), "a number of streams of 5000 is not between"),
        (Settings(threads=0), "threads is 0"),
        (Settings(cores=(ABSENT,)), f"there is no core {ABSENT} to run on; this process may use "),
        (Settings(cores=()), "no core is named"),
    ],
)
def test_what_does_not_fit_is_refused(settings, words):
    with pytest.raises(SessionError, match=words):
        settings.check()


def test_what_fits_is_not():
    Settings().check()
    Settings("offline", batch_sizes=(1, 4096)).check()
    Settings("multi-stream", streams=4, threads=99, cores=tuple(allowed_cores())).check()


def test_cores_outside_of_the_affinity_are_refused():
    everywhere = allowed_cores()
    os.sched_setaffinity(0, {everywhere[0]})
    try:
        check_cores(everywhere[:1])
        if len(everywhere) > 1:
            with pytest.raises(SessionError, match=f"no core {everywhere[1]} to run on; .* may use {everywhere[0]}$"):
                check_cores(everywhere[:2])
    finally:
        os.sched_setaffinity(0, everywhere)


@given(st.integers(1, 300), st.none() | st.lists(st.integers(0, 64), min_size=1))
def test_threads_are_at_most_the_machines_and_one_a_core(wanted, cores):
    got = threads_here(wanted, cores)
    assert 1 <= got <= min(wanted, usable_cpus())
    assert cores is None or got <= len(set(cores))
    assert got == wanted or got in (usable_cpus(), len(set(cores or ())))


def test_batch_sizes_are_the_models():
    dynamic = {"inputs": [{"shape": [None, 3, 8, 8]}]}
    fixed = {"inputs": [{"shape": [4, 3, 8, 8]}]}
    assert batches_of(dynamic, ()) == BATCHES
    assert batches_of(dynamic, (16, 2, 16)) == (16, 2)
    assert batches_of(fixed, ()) == batches_of(fixed, (4,)) == (4,)
    with pytest.raises(SessionError, match=r"a batch of 8 cannot run: the model's batch is fixed at 4; .* dynamic"):
        batches_of(fixed, (4, 8))


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_lists_of_cores_are_read_as_written(cores):
    assert parse_cores(",".join(map(str, cores))) == tuple(dict.fromkeys(cores))


@pytest.mark.parametrize(("text", "cores"), [("0-3", (0, 1, 2, 3)), ("2, 0-1,2", (2, 0, 1)), ("7-7", (7,))])
def test_ranges_of_cores(text, cores):
    assert parse_cores(text) == cores


@pytest.mark.parametrize("text", ["", "a", "1,", "3-1", "-1", "1-", "1-2-3", "0.5", "²"])
def test_other_texts_are_no_cores(text):
    with pytest.raises(SessionError, match="is no list of cores"):
        parse_cores(text)
