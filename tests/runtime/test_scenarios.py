"""Offline, multi-stream, cold and after-idle figures of real models, and the queries of several lanes."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from conv_chains import feeds, save_nan
from hypothesis import given
from hypothesis import strategies as st

from edgekd.runtime.lanes import Lanes
from edgekd.runtime.machine import allowed_cores, usable_cpus
from edgekd.runtime.percentile import percentile
from edgekd.runtime.process import WorkerFailed, start
from edgekd.runtime.sensors import ina_rails, rapl_counters, thermal_zones
from edgekd.runtime.sessions import SessionError, open_session
from edgekd.runtime.spec import ModelSpec, save_arrays
from edgekd.runtime.throughput import measure_offline, measure_streams
from edgekd.runtime.wake import after_idle, cold_starts

CPU = ["onnxruntime", "openvino"]


@pytest.fixture
def golden(spec, tmp_path) -> ModelSpec:
    """The short chain with three golden samples, checked one at a time."""
    every = feeds(3)
    outputs = open_session(spec.path, "onnxruntime", threads=1).run(every)
    spec = replace(spec, feeds=save_arrays(every, tmp_path), singly=True)
    return spec.with_golden(outputs, tmp_path, {"kind": "relative", "value": 1e-3})


@pytest.mark.parametrize("runtime", CPU)
def test_offline_counts_samples_of_timed_batches(golden, runtime):
    rows = measure_offline(replace(golden, runtime=runtime), (1, 7), seconds=0.6)
    assert [row["batch"] for row in rows] == [1, 7]
    for row in rows:
        assert row["runs"] == len(row["samples_ns"])
        assert row["samples"] == row["batch"] * row["runs"]
        assert row["throughput"] == pytest.approx(row["samples"] / row["seconds"])
        assert sum(row["samples_ns"]) / 1e9 <= row["seconds"]
        assert row["p50"] == pytest.approx(np.median(row["samples_ns"]) / 1e6)
        assert row["runtime"].startswith(f"{runtime} ")
        assert (row["energy"] is not None) == bool(rapl_counters() or ina_rails() or shutil.which("tegrastats"))
        assert (row["celsius"] is not None) or not thermal_zones()


def test_a_batch_that_answers_wrongly_is_not_timed(golden, tmp_path):
    """Right one at a time, wrong together: the golden rows are another sample's in the batch of two."""
    import onnx
    from onnx import helper

    model = onnx.load(golden.path)
    final = model.graph.node[-1]
    final.output[0] = "rows"
    # The mean over the batch, which one sample alone does not see.
    model.graph.node.append(helper.make_node("ReduceMean", ["rows"], ["mean"], keepdims=1, axes=None))
    model.graph.node[-1].ClearField("attribute")
    model.graph.node[-1].input.append("zero")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zero"))
    model.graph.node.append(helper.make_node("Add", ["rows", "mean"], ["logits"]))
    onnx.save(model, tmp_path / "mixes.onnx")
    spec = replace(golden, path=tmp_path / "mixes.onnx", golden=None)
    session = open_session(spec.path, "onnxruntime", threads=1)
    every = feeds(3)["input"]
    alone = np.concatenate([session.run({"input": one[None]})["logits"] for one in every])
    spec = spec.with_golden({"logits": alone}, tmp_path, {"kind": "relative", "value": 1e-3})
    assert measure_offline(spec, (1,), seconds=0.1)[0]["samples"] > 0
    with pytest.raises(SessionError, match=r"in a batch of 2: output logits differs by at most"):
        measure_offline(spec, (2,), seconds=0.1)


def test_a_batch_that_the_model_does_not_take_is_refused(tmp_path, golden):
    spec = replace(golden, path=save_nan(tmp_path / "other.onnx"), golden=None)
    with pytest.raises(SessionError, match=r"other\.onnx: other\.onnx: in a batch of 4: input 'input' has shape"):
        measure_offline(spec, (4,), seconds=0.1)


@pytest.mark.parametrize("runtime", CPU)
@pytest.mark.parametrize(("streams", "threads"), [(1, 2), (3, 2), (4, 1)])
def test_queries_of_several_samples(golden, runtime, streams, threads):
    spec = replace(golden, runtime=runtime, threads=threads)
    row = measure_streams(spec, streams, seconds=0.3, max_seconds=0.3)
    assert row["streams"] == streams
    assert row["lanes"] == min(streams, threads, usable_cpus())
    assert row["lanes"] * row["threads_a_lane"] <= usable_cpus()
    queries = np.array(row["samples_ns"]) / 1e6
    assert row["runs"] == len(queries)
    assert row["samples"] == streams * len(queries)
    assert row["throughput"] == pytest.approx(row["samples"] / row["seconds"])
    assert (row["p90"], row["p99"]) == (percentile(queries, 0.9), percentile(queries, 0.99))


def test_a_wrong_answer_ends_a_stream_before_it_is_timed(golden, tmp_path):
    wrong = golden.with_golden({"logits": np.ones((3, 16), np.float32)}, tmp_path, 0.01)
    with pytest.raises(WorkerFailed, match="output logits differs"):
        measure_streams(wrong, 2, seconds=0.1, max_seconds=0.1)


@given(st.integers(1, 4), st.integers(1, 9))
def test_every_sample_of_a_query_runs_once_and_on_its_own_lane(lanes, streams):
    lanes = min(lanes, streams)
    ran: list[list[int]] = [[] for _ in range(lanes)]
    query = Lanes([lambda lane=lane: ran[lane].append(threading.get_ident()) for lane in range(lanes)], streams)
    for _ in range(2):
        query()
    counts = [len(row) for row in ran]
    assert sum(counts) == 2 * streams
    assert max(counts) - min(counts) <= 2
    assert all(len(set(row)) == 1 for row in ran)
    assert len({row[0] for row in ran}) == lanes
    assert ran[0][0] == threading.get_ident()


def test_lanes_run_at_once_and_their_failure_is_the_querys():
    both = threading.Barrier(2, timeout=30)
    Lanes([both.wait, both.wait], 2)()  # one lane alone would wait for ever

    def fail() -> None:
        raise SessionError("broken")

    for runs in ([fail, int], [int, fail]):
        query = Lanes(runs, 4)
        for _ in range(2):
            with pytest.raises(SessionError, match="broken"):
                query()


@pytest.mark.skipif(len(allowed_cores()) < 2, reason="one core")
def test_several_lanes_of_openvino_are_not_pinned_to_the_same_cores(spec):
    spec = replace(spec, runtime="openvino", threads=2, shared=True)
    with start(spec) as worker:
        worker.load(spec)
        worker.block(20)
        threads = [int(one) for one in os.listdir(f"/proc/{worker.pid}/task")]
        assert all(os.sched_getaffinity(one) == set(allowed_cores()) for one in threads)


def test_a_run_after_a_pause_comes_after_the_pause(spec):
    with start(spec) as worker:
        worker.load(spec)
        before = time.monotonic()
        samples = worker.idle(0.3, 4)
        assert time.monotonic() - before >= 0.3
        assert len(samples) == 4
        assert sum(samples) < 0.3e9


def test_as_many_pauses_as_fit(spec):
    assert after_idle(spec, seconds=0.1) == []
    (row,) = after_idle(spec, seconds=0.5)
    assert (row["pause_s"], row["pauses"]) == (0.2, 2)
    assert np.shape(row["samples_ns"]) == (2, 3)
    assert row["first"] == pytest.approx(np.median([one[0] for one in row["samples_ns"]]) / 1e6)
    assert row["third"] == pytest.approx(np.median([one[2] for one in row["samples_ns"]]) / 1e6)
    assert row["warm"] > 0


def test_cold_starts_are_fresh_processes(golden):
    once = cold_starts(golden, seconds=0)
    assert len(once["load_ms"]) == len(once["first_ms"]) == 1
    assert once["p50"] == pytest.approx(once["load_ms"][0] + once["first_ms"][0])
    many = cold_starts(golden, seconds=60)
    assert len(many["load_ms"]) == 5
    assert many["load_p50"] == pytest.approx(np.median(many["load_ms"]))
    assert min(many["load_ms"]) > 1  # the runtime is imported anew
