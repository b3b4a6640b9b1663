"""The live gate on real models in real processes; conftest asserts after each test that no worker is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import psutil
import pytest
from conv_chains import feeds

from edgekd.runtime import process
from edgekd.runtime.compare import MIN_ROUNDS
from edgekd.runtime.gate import compare_until_decided
from edgekd.runtime.planted import BusyDelay
from edgekd.runtime.process import WorkerFailed, WorkerProcess
from edgekd.runtime.sequential import Plan, decide
from edgekd.runtime.sessions import RuntimeMissing, open_session
from edgekd.runtime.spec import save_arrays
from edgekd.runtime.staging import equal_paths


@pytest.fixture
def slow(spec, chains):
    return replace(spec, path=chains / "ten.onnx", label="slow")


def test_ten_times_the_work_is_a_regression_and_its_reverse_passes(spec, slow):
    plan = Plan(0.05, looks=(2, 3, 4), error=0.2)
    told = []
    found = compare_until_decided(slow, spec, plan, seconds=0, after_pair=told.append)
    assert found.decision.verdict == "regression"
    assert found.decision == decide(found.log_ratios, plan, ended=False)
    assert told == list(range(1, len(found.pairs) + 1))
    assert len(found.seconds) == len(found.pairs) == found.decision.looks[-1].pairs
    assert found.failure is None
    for side in found.pairs[0].sides:
        assert side.witnesses.cpu_share > 0
        assert side.peak_bytes > 1e7
        assert 0 < side.overhead_ns < 1e5
        assert side.steady in (True, False)
    assert compare_until_decided(spec, slow, plan, seconds=0).decision.verdict == "pass"


def test_the_time_budget_ends_it(spec):
    found = compare_until_decided(spec, spec, Plan(0.05), budget_s=0.1, seconds=0)
    assert len(found.pairs) == 1
    assert found.decision.verdict == "inconclusive"


def test_a_model_that_dies_in_the_middle_leaves_what_was_measured(spec, slow, monkeypatch):
    load, loads = WorkerProcess.load, []

    def dies(self, model):
        answer = load(self, model)
        loads.append(model.path)
        if len(loads) == 4:
            psutil.Process(self.pid).kill()
        return answer

    monkeypatch.setattr(WorkerProcess, "load", dies)
    found = compare_until_decided(slow, replace(spec, label="base"), Plan(0.0), seconds=0)
    assert len(found.pairs) == len(found.seconds) == 1
    assert found.pairs[0].blocks_ns
    assert found.decision.verdict is None
    victim = slow if loads[3].name == slow.path.name else replace(spec, label="base")
    assert (found.failure.label, found.failure.where) == (victim.label, str(victim.path))
    assert "killed by SIGKILL" in found.failure.what


def test_a_model_that_hangs_is_killed_at_its_time_limit(spec, monkeypatch):
    monkeypatch.setattr(process, "BLOCK_LIMIT", 0.3)
    hanging = replace(spec, label="hanging", planted_delay=1e9)
    found = compare_until_decided(hanging, spec, Plan(0.0), seconds=0)
    assert found.pairs == ()
    assert found.failure.label == "hanging"
    assert "gave no answer to 'block' within" in found.failure.what


def test_blocks_of_the_pair_in_which_a_model_fails_are_kept(spec, slow, monkeypatch):
    block, blocks = WorkerProcess.block, []

    def dies(self, *arguments, **more):
        blocks.append(1)
        if len(blocks) == 9:
            psutil.Process(self.pid).kill()
        return block(self, *arguments, **more)

    monkeypatch.setattr(WorkerProcess, "block", dies)
    found = compare_until_decided(slow, spec, Plan(0.0), seconds=0)
    assert found.pairs == ()
    assert len(found.failure.blocks_ns) == 4
    assert all(new > old > 0 for new, old in found.failure.blocks_ns)


def test_blocks_of_a_pair_are_kept_where_a_process_dies_after_the_last_one(spec, monkeypatch):
    memory = WorkerProcess.peak_memory

    def dies(self):
        psutil.Process(self.pid).kill()
        return memory(self)

    monkeypatch.setattr(WorkerProcess, "peak_memory", dies)
    found = compare_until_decided(spec, spec, Plan(0.0), seconds=0)
    assert found.pairs == ()
    assert len(found.failure.blocks_ns) == MIN_ROUNDS


def test_a_run_that_fails_after_the_model_was_opened_is_a_failure_and_no_refusal(spec, monkeypatch):
    """Runtimes call both a SessionError in the measuring process."""
    refused = {"kind": "SessionError", "what": "ran out of something", "install": ""}
    read = WorkerProcess._read

    def fails(self, limit, doing):
        return {"error": refused} if doing == "block" else read(self, limit, doing)

    monkeypatch.setattr(WorkerProcess, "_read", fails)
    found = compare_until_decided(spec, spec, Plan(0.0), seconds=0)
    assert found.failure.what == "ran out of something"


def test_a_runtime_that_is_lost_in_the_middle_leaves_what_was_measured(spec, slow, monkeypatch):
    gone = {"kind": "RuntimeMissing", "what": "there is no GPU", "install": ""}
    read, loads = WorkerProcess._read, []

    def lost(self, limit, doing):
        answer = read(self, limit, doing)
        loads.extend([doing] if doing == "load" else [])
        return {"error": gone} if doing == "load" and len(loads) > wanted[0] else answer

    monkeypatch.setattr(WorkerProcess, "_read", lost)
    wanted = [2]
    found = compare_until_decided(slow, spec, Plan(0.0), seconds=0)
    assert len(found.pairs) == 1
    assert found.failure.what == "there is no GPU"
    wanted = [0]
    with pytest.raises(RuntimeMissing):
        compare_until_decided(slow, spec, Plan(0.0), seconds=0)


@pytest.mark.parametrize("side", [0, 1])
def test_wrong_answers_are_refused_before_anything_is_timed(spec, slow, tmp_path, monkeypatch, side):
    monkeypatch.setattr(WorkerProcess, "block", lambda *_, **__: pytest.fail("timed"))
    outputs = open_session(spec.path, "onnxruntime", threads=1).run(feeds())
    wrong = replace(spec, label="liar").with_golden({"logits": outputs["logits"] + 1}, tmp_path, 0.1)
    sides = [slow, slow]
    sides[side] = wrong
    with pytest.raises(WorkerFailed, match=r"one\.onnx: liar: output logits differs") as error:
        compare_until_decided(*sides, Plan(0.0))
    assert error.value.kind == "WrongOutputs"


def test_paths_are_equally_long_and_lead_to_the_same_files(spec, tmp_path):
    long = tmp_path / "a folder of some length"
    long.mkdir()
    (long / "model-of-a-long-name.onnx").write_bytes(spec.path.read_bytes())
    (long / "weights.bin").write_bytes(b"beside it")
    other = replace(spec, path=long / "model-of-a-long-name.onnx", feeds=save_arrays(feeds(2), long))
    other = other.with_golden({"logits": np.zeros(3)}, long, 0.5)
    (tmp_path / "staged").mkdir()
    one, two = equal_paths([spec, other], tmp_path / "staged")
    assert len(str(one.path)) == len(str(two.path)) == len(str(one.feeds)) == len(str(two.feeds))
    assert one.path.samefile(spec.path)
    assert two.path.samefile(other.path)
    assert two.path.with_name("weights.bin").read_bytes() == b"beside it"
    assert two.golden.samefile(other.golden)
    assert one.golden is None
    assert len(one.label) == len(two.label)
    assert replace(two, path=other.path, feeds=other.feeds, golden=other.golden, label=other.label) == other


def test_a_planted_delay_makes_runs_longer_by_its_share(monkeypatch):
    now, cost = [0], [10_000]

    def clock():
        now[0] += 1
        return now[0]

    def run():
        now[0] += cost[0]

    monkeypatch.setattr("time.perf_counter_ns", clock)
    delayed = BusyDelay(run, 0.05)

    def took() -> int:
        start = now[0]
        delayed()
        return now[0] - start

    delayed.renew()
    assert took() == pytest.approx(10_000, abs=10)
    delayed.renew()
    assert took() == pytest.approx(10_500, abs=10)
    # The machine becomes half as fast; the delay is constant until it is taken anew.
    cost[0] = 20_000
    assert took() == pytest.approx(20_500, abs=10)
    delayed.renew()
    took()
    delayed.renew()
    assert took() == pytest.approx(21_000, abs=20)


def test_a_planted_delay_is_found(spec):
    plan = Plan(0.1, looks=(2, 3), error=0.3)
    found = compare_until_decided(replace(spec, planted_delay=1.0), spec, plan, seconds=0)
    assert found.decision.verdict == "regression"
