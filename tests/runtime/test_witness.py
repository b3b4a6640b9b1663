"""Counters beside a timed block: what they add up to, and that they count."""

from __future__ import annotations

import os
import time

import pytest

from edgekd.runtime import witness
from edgekd.runtime.witness import Watch, Witnesses, difference, open_counter, read_counter

BLOCK = {
    "process_ns": 40_000_000, "cpu_ns": 30_000_000, "switches": 2, "instructions": 9_000,
    "machine_ns": 50_000_000, "steal_ticks": 1, "ticks": 10, "pressure_us": 5_000, "throttles": 3,
    "khz": 2_000_000, "runs": 3, "blocks": 1,
}  # fmt: skip


def test_blocks_add_up():
    found = Witnesses.of([BLOCK, {**BLOCK, "cpu_ns": 50_000_000, "khz": 4_000_000, "runs": 6}])
    assert found.to_json() == {
        "cpu_share": 1.0, "involuntary_switches": 50.0, "steal_share": 0.1, "pressure_share": 0.1, "mhz": 3000.0,
        "throttled": 6, "instructions": 2000.0,
    }  # fmt: skip


def test_what_one_block_does_not_tell_is_not_told():
    found = Witnesses.of([BLOCK, {**BLOCK, "steal_ticks": None, "khz": None}])
    assert (found.steal_share, found.mhz) == (None, None)
    assert found.pressure_share == 0.1
    assert Witnesses.of([]) == Witnesses()


def test_this_process_is_counted():
    watch = Watch()
    machine = watch.machine()
    process = watch.process()
    end = time.process_time() + 0.03
    while time.process_time() < end:
        pass
    counted = difference(process, watch.process())
    counted |= difference(machine, watch.machine())
    # Threads of libraries that other tests loaded may run besides this one.
    assert os.cpu_count() * counted["process_ns"] >= counted["cpu_ns"] >= 30_000_000
    assert counted["machine_ns"] >= counted["process_ns"]
    assert all(value is None or value >= 0 for value in counted.values())
    assert counted["ticks"] is not None


def test_a_counter_counts():
    """A software event, which needs no hardware counters: the same call as for instructions."""
    descriptor = open_counter(1, 1)  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK: nanoseconds on a CPU
    if descriptor is None:
        pytest.skip("this kernel refuses counters")
    try:
        before = read_counter(descriptor) or 0
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass
        assert 15_000_000 < read_counter(descriptor) - before < 10_000_000_000
    finally:
        os.close(descriptor)
    assert read_counter(descriptor) is None
    assert open_counter(10**6, 0) is None


def test_the_kernels_texts():
    assert witness._steal("cpu  100 1 20 300 5 6 7 61 9 9\ncpu0 1 2\n") == (61, 500)
    assert witness._pressure("some avg10=0.1 avg60=0.2 avg300=0.0 total=1234\nfull avg10=0 total=9\n") == 1234
    for text in (None, "", "nothing of the kind"):
        assert witness._steal(text) == (None, None)
        assert witness._pressure(text) is None


def test_files_of_one_number_are_added(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_text("21\n")
    assert witness._sum(paths) == 42
    assert witness._sum([]) is None
    assert witness._sum([*paths, tmp_path / "none"]) is None


def test_the_frequency_is_that_of_the_cpu_it_ran_on(tmp_path, monkeypatch):
    cpu = max(os.sched_getaffinity(0))
    place = tmp_path / f"cpu{cpu}" / "cpufreq"
    place.mkdir(parents=True)
    (place / "scaling_cur_freq").write_text("2400000\n")
    monkeypatch.setattr(witness, "_CPUS", tmp_path)
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
        assert witness.own_khz() == 2_400_000
    finally:
        os.sched_setaffinity(0, before)
    monkeypatch.setattr(witness, "_CPUS", tmp_path / "none")
    assert witness.own_khz() is None
