"""Comparisons of real models in real processes; what pairs tell, on pairs made by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from left_workers import workers_of

from edgekd.errors import Missing, WorkerFailed
from edgekd.measure import Pair, compare, compare_all, conclude
from edgekd.runtime.compare import BLOCK_MS, MIN_ROUNDS, MIN_RUNS, PADDING, measure_pairs
from edgekd.runtime.process import WorkerProcess


@pytest.fixture
def slow(spec, chains):
    return replace(spec, path=chains / "ten.onnx", label="slow")


@pytest.fixture
def events(monkeypatch):
    """What each worker does, in order, with the states of all the others while it runs a block."""
    alive: list[WorkerProcess] = []
    told: list[tuple] = []
    make, block = WorkerProcess.__init__, WorkerProcess.block

    def started(self, label, *, padding=0, where=""):
        make(self, label, padding=padding, where=where)
        alive.append(self)
        told.append(("start", label, padding))

    def blocked(self, ms, **more):
        others = [psutil.Process(one.pid) for one in alive if one is not self and one._process.poll() is None]
        states = [state(thread.id) for one in others for thread in one.threads()]
        samples = block(self, ms, **more)
        told.append(("block", self.label, ms, len(samples), set(states)))
        return samples

    monkeypatch.setattr(WorkerProcess, "__init__", started)
    monkeypatch.setattr(WorkerProcess, "block", blocked)
    return told


def state(thread: int) -> str:
    return Path(f"/proc/{thread}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_model_against_itself(spec):
    found = compare(replace(spec, label="a"), replace(spec, label="b"), pairs=2, seconds=0.2)
    assert (found.label, found.against) == ("a", "b")
    assert len(found.log_ratios) == 2
    assert found.low <= found.ratio <= found.high
    assert found.confidence == 0.99
    assert 0 < found.median_ms < 1e3
    told = found.to_json()
    assert json.loads(json.dumps(told)) == told
    assert set(told) == {
        "label", "against", "ratio", "interval", "confidence", "pairs", "log_ratios", "median_ms", "against_median_ms",
    }  # fmt: skip
    assert told["interval"] == [found.low, found.high]
    assert told["pairs"] == 2


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_model_with_ten_times_the_work_is_slower(spec, slow, runtime):
    one, against = replace(slow, runtime=runtime), replace(spec, runtime=runtime)
    found = compare(one, against, pairs=6, seconds=0.2)
    assert found.ratio > 1.5
    assert found.low > 1
    assert found.median_ms > found.against_median_ms


def test_blocks_alternate_in_random_order_while_the_others_are_stopped(spec, slow, events):
    specs = [slow, replace(spec, label="same")]
    pairs = measure_pairs(specs, replace(spec, label="base"), seconds=0.6, rng=np.random.default_rng(5))
    starts = [event for event in events if event[0] == "start"]
    assert {event[1] for event in starts} == {"slow", "same", "base"}
    assert len({event[2] for event in starts}) == 3
    assert all(0 <= event[2] < PADDING for event in starts)
    blocks = [event for event in events if event[0] == "block"]
    assert all(event[4] == {"T"} for event in blocks)
    assert all(event[3] >= MIN_RUNS for event in blocks)
    assert len(blocks) == 2 * sum(len(pair.blocks_ns) for pair in pairs)
    orders, lengths = set(), set()
    for one, other in zip(blocks[::2], blocks[1::2], strict=True):
        assert {one[1], other[1]} in ({"slow", "base"}, {"same", "base"})
        assert one[2] == other[2]
        assert BLOCK_MS[0] <= one[2] <= BLOCK_MS[1]
        orders.add((one[1], other[1]))
        lengths.add(one[2])
    assert len(orders) == 4
    assert len(lengths) == len(blocks) // 2
    assert all(len(pair.blocks_ns) >= MIN_ROUNDS for pair in pairs)
    assert pairs[0].log_ratio > math.log(1.5)
    assert pairs[0].log_ratio > pairs[1].log_ratio


def test_every_pair_has_fresh_processes_started_in_both_orders(spec, events):
    done = []
    compare_all(
        [replace(spec, label="a")],
        replace(spec, label="b"),
        pairs=3,
        seconds=0,
        after_pair=lambda: done.append(len([event for event in events if event[0] == "start"])),
    )
    labels = [event[1] for event in events if event[0] == "start"]
    assert done == [2, 4, 6]
    assert {tuple(labels[i : i + 2]) for i in range(0, 6, 2)} == {("a", "b"), ("b", "a")}


@pytest.mark.parametrize("side", [0, 1])
def test_a_side_that_fails_is_named_and_nothing_stays(spec, slow, tmp_path, side):
    """conftest asserts after each test that no worker is left."""
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    broken = replace(spec, path=tmp_path / "broken.onnx", label="broken one")
    sides = [slow, slow]
    sides[side] = broken
    with pytest.raises(WorkerFailed, match=r"broken\.onnx: broken one: .*cannot load"):
        compare(*sides, pairs=2, seconds=0)


def test_a_side_that_dies_in_the_middle_is_named(spec, slow, monkeypatch):
    block = WorkerProcess.block
    calls = []

    def dies(self, ms, **more):
        calls.append(self.label)
        if len(calls) == 7:
            psutil.Process(self.pid).kill()
        return block(self, ms, **more)

    monkeypatch.setattr(WorkerProcess, "block", dies)
    with pytest.raises(WorkerFailed) as error:
        compare(slow, replace(spec, label="base"), pairs=2, seconds=0)
    assert f"{calls[6]}: the measuring process was killed by SIGKILL" in str(error.value)
    assert len(calls) == 7


def test_a_missing_runtime_of_one_side(spec, slow, tmp_path, monkeypatch):
    (tmp_path / "openvino.py").write_text("raise ImportError('no module here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Missing, match="OpenVINO is not installed"):
        compare(slow, replace(spec, runtime="openvino"), pairs=2, seconds=0)


def test_nothing_stays_when_the_measuring_program_is_killed(spec, slow):
    script = f"""
from edgekd.measure import ModelSpec, compare
one, against = (ModelSpec.from_json(row) for row in {[slow.to_json(), spec.to_json()]!r})
compare(one, against, pairs=50, seconds=5)
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = workers_of(parent.pid)
        if len(found) == 2 and any(one.status() == psutil.STATUS_STOPPED for one in found):
            break
        time.sleep(0.01)
    assert len(found) == 2
    parent.kill()
    parent.wait()
    _, left = psutil.wait_procs(found, timeout=10)
    assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []


def test_too_few_pairs_are_refused_before_anything_runs(spec):
    with pytest.raises(ValueError, match="at least 2"):
        compare(spec, spec, pairs=1)


def test_no_models_are_no_work(spec):
    assert compare_all([], spec) == []


def test_a_pairs_value_is_the_median_of_adjacent_log_ratios():
    # The machine slows down to a third on the way; adjacent blocks do not see it. One round met something else.
    speeds = [1, 1, 1.5, 2, 3]
    blocks = [(1.1e6 * s, 1e6 * s) for s in speeds] + [(9e6, 1e6)]
    pair = Pair(tuple(blocks))
    assert pair.log_ratio == pytest.approx(math.log(1.1))
    assert pair.median_ms == pytest.approx((1.925, 1.25))


def pairs_of(logs: list[float]) -> list[Pair]:
    return [Pair(((1e6 * math.exp(log), 1e6),)) for log in logs]


def test_the_same_pairs_tell_the_same():
    logs = [0.09, 0.1, 0.11, 0.1, 0.12, 0.08, 0.1, 0.1, 2.0, -1.0]
    found = conclude("new", "old", pairs_of(logs))
    assert found == conclude("new", "old", pairs_of(logs))
    assert found.log_ratios == pytest.approx(logs)
    # The farthest pair at each end is trimmed.
    assert found.ratio == pytest.approx(math.exp(0.1))
    assert 1 < found.low < found.ratio < found.high
    turned = conclude("old", "new", pairs_of([-log for log in logs]))
    assert (1 / turned.low, 1 / turned.high) == pytest.approx((found.high, found.low))
    narrow = conclude("new", "old", pairs_of(logs), error=0.1)
    assert found.low < narrow.low < narrow.high < found.high
    assert narrow.confidence == 0.9
