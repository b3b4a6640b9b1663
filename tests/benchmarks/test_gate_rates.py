"""The experiment on the gate: its replay is the gate's own procedure, its bounds are exact, its file goes on."""

from __future__ import annotations

import json
import math
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from gate_pairs import CONDITIONS, Collection, collect, collect_live, difference_ns, load, measure_overhead, models
from gate_rates import _state
from gate_replay import lower95, random_draws, replay, upper95, windows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from edgekd.runtime import gate
from edgekd.runtime.compare import Pair
from edgekd.runtime.sequential import plan_within

# Ratios and seconds.
rows = st.lists(st.tuples(st.floats(0.95, 1.05), st.floats(0.5, 3.0)), min_size=1, max_size=60)


@settings(deadline=None, max_examples=50)
@given(rows, st.floats(1, 120), st.sampled_from([0.0, 0.02]))
def test_a_replay_is_the_live_loop_on_kept_pairs(pool, budget, tolerance):
    pool = pool * (300 // len(pool))  # more than any budget takes
    clock, left = [0.0], iter(pool)

    def measured(*_, **__):
        ratio, seconds = next(left)
        clock[0] += seconds
        return [Pair(((ratio, 1.0),))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        patch.setattr(gate, "measure_pairs", measured)
        patch.setattr(gate, "equal_paths", lambda specs, folder: specs)
        plan = partial(plan_within, budget_s=budget, tolerance=tolerance)
        live = gate.compare_until_decided(None, None, plan, budget_s=budget)
    found = replay([(math.log(ratio), seconds) for ratio, seconds in pool], tolerance, budget)
    assert found.verdict == live.decision.verdict
    assert found.pairs == len(live.pairs)
    assert found.seconds == pytest.approx(clock[0])


@given(st.integers(1, 3000), st.data())
def test_bounds_are_clopper_and_pearsons(runs, data):
    hits = data.draw(st.integers(0, runs))
    two_sided = binomtest(hits, runs).proportion_ci(0.9, method="exact")
    assert upper95(hits, runs) == pytest.approx(two_sided.high)
    assert lower95(hits, runs) == pytest.approx(two_sided.low)


def test_draws_find_what_is_there_and_little_else():
    random = np.random.default_rng(0)
    noise = 0.01 * random.normal(size=300)
    slow = [(math.log(1.05) + x, 1.4) for x in noise]
    found = random_draws(slow, 0.02, 60.0, 100, random)
    assert sum(one.verdict == "regression" for one in found) >= 98
    assert all(one.seconds == pytest.approx(1.4 * one.pairs) for one in found)
    at = [(math.log(1.02) + x, 1.4) for x in noise - noise.mean()]
    assert sum(one.verdict == "regression" for one in random_draws(at, 0.02, 60.0, 200, random, replace=True)) <= 8
    assert len(windows(slow, 0.02, 60.0)) == 300 - 48 + 1
    assert windows(slow[:20], 0.02, 60.0) == []
    assert len(random_draws(slow[:10], 0.02, 60.0, 3, random)) == 3


def test_collecting_goes_on_where_it_stopped(tmp_path):
    conditions = CONDITIONS[:1]
    path = tmp_path / "pairs.json"
    collect(Collection(path), tmp_path, ["idle"], conditions, 1, say=lambda _: None)
    first = json.loads(path.read_text())["pairs"]["idle"]["aa_tolerance_0"]
    assert len(first) == 1
    log_ratio, seconds, new_ms, old_ms, *_ = first[0]
    assert abs(log_ratio) < 1
    assert 0.5 < seconds < 60
    assert new_ms > 0
    assert old_ms > 0
    again = Collection(path)
    collect(again, tmp_path, ["idle"], conditions, 2, deadline=time.monotonic() - 1, say=lambda _: None)
    assert again.rows("pairs", "idle", "aa_tolerance_0") == first
    collect(again, tmp_path, ["idle"], conditions, 2, say=lambda _: None)
    assert Collection(path).rows("pairs", "idle", "aa_tolerance_0")[:1] == first
    assert len(Collection(path).rows("pairs", "idle", "aa_tolerance_0")) == 2
    text = path.read_text()
    path.write_text(text.replace(again.value["machine_key"], "another"))
    with pytest.raises(SystemExit, match="machine_key was another"):
        Collection(path)
    # Files from before both sides spun do not say that they do.
    path.write_text(text.replace('"spin": 0.1, ', ""))
    with pytest.raises(SystemExit, match="spin was None"):
        Collection(path)
    assert Collection(path, adding=False).value["pairs"] == again.value["pairs"]


def test_the_result_has_the_promised_names(tmp_path):
    collection = Collection(tmp_path / "pairs.json")
    random = np.random.default_rng(1)
    for one in CONDITIONS:
        shift = {0.95: 0.05, 0.90: 0.03, None: 0.0}[one.wanted]
        pool = collection.rows("pairs", "idle", one.name)
        pool += [[shift + float(x), 1.4, 2.0, 2.0, 0.0, 0.0] for x in 0.01 * random.normal(size=60)]
    told = json.loads(json.dumps(_state(collection, "idle", list(CONDITIONS), 50)))
    assert told["aa_tolerance_0"].keys() >= {"alarms", "runs", "upper95"}
    assert told["at_tolerance"].keys() >= {"alarms", "runs", "upper95"}
    # The pool lies 2 % below the tolerance that it is held against; centred it lies upon it.
    assert told["at_tolerance"]["passed"] == 50
    assert told["at_tolerance"]["centred"]["passed"] <= 5
    for name in ("planted_5", "natural"):
        assert told[name]["centred"] is None
        assert told[name]["found"] >= 45
        assert told[name]["runs"] == 50
        assert told[name]["lower95"] == lower95(told[name]["found"], 50)
        assert told[name]["needs_seconds"] == 60.0
        assert told[name]["pool"]["measured_ratio"] == pytest.approx(1.051, abs=0.01)
    assert told["seconds_p50"] > 10


def test_pairs_of_live_comparisons_are_kept(tmp_path):
    collection = Collection(tmp_path / "pairs.json")
    collect_live(collection, tmp_path, ["idle"], CONDITIONS[:1], 1, budget_s=2.0, say=lambda _: None)
    kept = Collection(tmp_path / "pairs.json")
    [[verdict, pairs, seconds, _]] = kept.rows("live", "idle", "aa_tolerance_0")
    assert verdict == "inconclusive"
    rows = kept.rows("pairs", "idle", "aa_tolerance_0")
    assert len(rows) == pairs
    assert 0 < sum(row[1] for row in rows) <= seconds + 0.02  # rounded to 0.01 s


def test_a_difference_of_a_microsecond_is_found():
    def spin(until: int) -> None:
        end = time.perf_counter_ns() + until
        while time.perf_counter_ns() < end:
            pass

    assert difference_ns(partial(spin, 6_000), partial(spin, 4_000), 400) == pytest.approx(2_000, rel=0.3)


def test_the_load_is_there_and_goes(tmp_path):
    import psutil

    with load("loaded"):
        busy = [child for child in psutil.Process().children() if "sched_setaffinity" in " ".join(child.cmdline())]
        assert len(busy) == 1
        deadline = time.monotonic() + 10
        while len(busy[0].cpu_affinity()) != 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(busy[0].cpu_affinity()) == 1
    assert not busy[0].is_running()


def test_both_sides_spin_where_a_delay_is_planted(tmp_path):
    sides = models(tmp_path, CONDITIONS)
    assert len({len(str(side.path)) for pair in sides for side in pair}) == 1
    for one, (new, old) in zip(CONDITIONS, sides, strict=True):
        assert (1 + new.planted_delay) / (1 + old.planted_delay) == pytest.approx(1 + one.delay)
        assert (old.planted_delay > 0) == (one.delay > 0)
        assert (new.path.read_bytes() == old.path.read_bytes()) == (one.last_kernel is None)


def test_what_the_harness_adds_is_told(tmp_path):
    found = measure_overhead(tmp_path)
    assert found["share"] == pytest.approx((found["loop_ns"] + found["call_ns"]) / (1e6 * found["model_ms"]))
    assert 0 < found["loop_ns"] < 1e6
    assert found["model_ms"] > 0
