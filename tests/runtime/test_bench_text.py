"""What a person reads of a measured bundle, from results of every shape."""

from __future__ import annotations

from typing import Any

from edgekd.runtime.bench_text import tell_bench

OPENED = {"machine": "a board, 4 cores", "runtime": "onnxruntime 1.2", "inference_precision": "f32", "threads": 2}
MODEL = {"model": {"candidate": "int8"}, "wanted": {"threads": 2, "cores": None}}
ENERGY = {"source": "rapl", "seconds": 2.0, "joules": 8.0, "joules_per_inference": 0.004, "joules_by_rail": {"x": 8.0}}
HEAT = {"cool": {"start": 30.0, "end": 31.0, "highest": 31.0}, "hot": {"start": 50.0, "end": 61.5, "highest": 62.0}}
HEAD = "int8 on a board, 4 cores, onnxruntime 1.2, float layers in f32"


def single(**changes: Any) -> dict[str, Any]:
    latency = {**OPENED, "runs": 70, "p50": 1.0, "p90": 2.5, "p99": None}
    return {**MODEL, "scenario": "single-stream", "latency_ms": latency, "peak_memory_mb": 12.34, **changes}


def test_percentiles_without_enough_runs_are_told_as_such():
    assert tell_bench(single()) == [
        f"{HEAD}, 70 runs", "p50: 1.000 ms", "p90: 2.500 ms", "p99: not enough runs", "memory: 12.3 MB",
    ]  # fmt: skip
    assert tell_bench(single(peak_memory_mb=None))[-1] == "memory: not told by this kernel"


def test_cold_idle_energy_and_temperature():
    cold = {"p50": 30.0, "load_p50": 28.0, "first_p50": 2.0, "load_ms": [28.0, 28.0]}
    idle = [{"pause_s": 0.2, "first": 3.0, "second": 1.5, "warm": 1.0, "pauses": 10}]
    assert tell_bench(single(cold_ms=cold, after_idle_ms=idle, energy=ENERGY, celsius=HEAT))[4:-1] == [
        "cold: 30.000 ms (load 28.000 ms, first run 2.000 ms; 2 fresh processes)",
        "after 0.2 s idle: 3.000 ms, then 1.500 ms (before: 1.000 ms; 10 pauses)",
        "energy: 4.000 mJ a sample, idle power included (rapl)",
        "temperature: hot 50.0 to 61.5 °C",
    ]


def test_rails_of_which_none_feeds_all_are_told_singly():
    rails = {**ENERGY, "source": "ina3221", "joules": None, "joules_per_inference": None}
    assert "power: x 4.00 W (ina3221; no rail feeds all of it)" in tell_bench(single(energy=rails))


def test_threads_that_were_not_to_be_had_and_cores():
    wanted = {"threads": 8, "cores": [0, 2]}
    assert tell_bench(single(wanted=wanted))[-2:] == [
        "on cores 0, 2", "threads: 2 of 8 wanted; this process may use no more",
    ]  # fmt: skip


def test_throughput():
    row = {**OPENED, "batch": 8, "throughput": 1234.56, "samples": 800, "seconds": 0.648, "p50": 6.5, "energy": ENERGY}
    assert tell_bench({**MODEL, "scenario": "offline", "offline": [row]}) == [
        HEAD,
        "batch 8: 1234.6 samples/s (800 in 0.65 s; a batch takes 6.500 ms)",
        "  energy: 4.000 mJ a sample, idle power included (rapl)",
    ]


def test_queries():
    row = {
        **OPENED, "streams": 8, "lanes": 2, "threads_a_lane": 1, "runs": 900, "p50": 4.0, "p90": 5.0, "p99": 6.0,
        "throughput": 2000.0, "samples": 7200, "seconds": 3.6, "threads": 1,
    }  # fmt: skip
    assert tell_bench({**MODEL, "scenario": "multi-stream", "multi_stream": row}) == [
        f"{HEAD}, 900 queries of 8 samples", "p50: 4.000 ms", "p90: 5.000 ms", "p99: 6.000 ms",
        "2000.0 samples/s (7200 in 3.60 s)", "2 at once, of 1 thread each",
    ]  # fmt: skip
