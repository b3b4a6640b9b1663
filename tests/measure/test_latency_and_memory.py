"""Latency and memory of one real model alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conv_chains import feeds, save_chain

from edgekd.errors import WorkerFailed
from edgekd.measure import Latency, machine_name, measure_latency, peak_memory, usable_cpus
from edgekd.measure.spec import save_arrays
from edgekd.runtime.sessions import open_session

OPENED = {
    "load_ns": 5_000_000, "first_run_ns": 2_000_000, "batch": 4, "checked": True,
    "runtime": "onnxruntime", "version": "1.2", "inference_precision": "f32", "threads": 2,
}  # fmt: skip


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_latency_of_a_real_model(spec, runtime):
    spec = replace(spec, runtime=runtime, threads=usable_cpus() + 3)
    found = measure_latency(spec, min_seconds=0.3, max_seconds=10)
    told = found.to_json()
    assert json.loads(json.dumps(told)) == told
    assert set(told) == {
        "p50", "p90", "p99", "runs", "batch", "throughput", "load_ms", "first_ms", "steady", "machine", "runtime",
        "inference_precision", "threads", "samples_ns",
    }  # fmt: skip
    assert told["runs"] == len(told["samples_ns"]) >= 700
    assert min(told["samples_ns"]) / 1e6 <= told["p50"] <= told["p90"] <= told["p99"] <= max(told["samples_ns"]) / 1e6
    assert told["threads"] == usable_cpus()
    assert told["runtime"].startswith(f"{runtime} ")
    assert told["machine"] == machine_name()
    assert told["load_ms"] > 0
    assert told["first_ms"] > 0


def test_too_few_runs_have_no_percentiles(spec, tmp_path):
    path = save_chain(tmp_path / "long.onnx", 60, channels=32, side=48)
    spec = replace(spec, path=path, feeds=save_arrays(feeds(2, 32, 48), tmp_path))
    told = measure_latency(spec, min_seconds=0, max_seconds=0).to_json()
    assert 1 <= told["runs"] < 64
    assert told["p50"] > 0
    assert told["p90"] is None
    assert told["p99"] is None
    assert told["batch"] == 2


def test_wrong_outputs_are_never_timed(spec, tmp_path):
    outputs = open_session(spec.path, "onnxruntime", threads=1).run(feeds())
    wrong = spec.with_golden({"logits": outputs["logits"] + 1}, tmp_path, 0.1)
    with pytest.raises(WorkerFailed, match=r"differs by at most 1, allowed 0\.1\n  the runtime opens .* report this"):
        measure_latency(wrong)


def test_figures_of_known_samples():
    samples = np.full(100, 2_000_000)
    samples[:2] = 4_000_000, 3_000_000
    told = Latency(tuple(samples.tolist()), OPENED, True, "a machine").to_json()
    assert told["p50"] == 2.0
    assert told["p90"] == 2.0  # more than two of a hundred may lie over it
    assert told["p99"] is None
    assert told["throughput"] == pytest.approx(4 * 100 / (0.2 + 0.003))
    assert (told["load_ms"], told["first_ms"], told["threads"]) == (5.0, 2.0, 2)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_memory_grows_with_the_model(spec, tmp_path, runtime):
    small = replace(spec, runtime=runtime)
    large = replace(small, path=save_chain(tmp_path / "large.onnx", 1, extra_mb=60))
    little, much = peak_memory(small), peak_memory(large)
    assert 1 < little < 500
    assert much > little + 50
