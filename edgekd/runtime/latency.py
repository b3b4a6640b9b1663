"""Latency of one model alone: a fresh process, golden outputs first, warm-up, raw samples kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .machine import machine_name
from .percentile import percentile
from .process import start
from .runs import timed_runs
from .spec import ModelSpec

WARM_CAP_S = 10.0


@dataclass(frozen=True)
class Latency:
    """Single-stream latency of a batch as large as the spec's feeds'.

    ``samples_ns`` are the timed runs in order; ``opened`` is what the process opened, with the threads and the
    precision that it really uses; ``steady`` tells whether warming up ended before its cap; ``energy`` and ``celsius``
    are `energy.Meter`'s.
    """

    samples_ns: tuple[int, ...]
    opened: dict[str, Any]
    steady: bool
    machine: str
    energy: dict[str, Any] | None = None
    celsius: dict[str, dict[str, float]] | None = None

    def to_json(self) -> dict[str, Any]:
        """Percentiles and times in ms (p90, p99 null: not enough runs), throughput in samples a second, raw samples."""
        samples, opened = np.array(self.samples_ns) / 1e6, self.opened
        return {
            "p50": float(np.median(samples)),
            "p90": percentile(samples, 0.90),
            "p99": percentile(samples, 0.99),
            "runs": len(samples),
            "batch": opened["batch"],
            "throughput": 1e3 * opened["batch"] / float(samples.mean()),
            "load_ms": opened["load_ns"] / 1e6,
            "first_ms": opened["first_run_ns"] / 1e6,
            "steady": self.steady,
            "machine": self.machine,
            "runtime": f"{opened['runtime']} {opened['version']}",
            "inference_precision": opened["inference_precision"],
            "threads": opened["threads"],
            "samples_ns": list(self.samples_ns),
        }


def measure_latency(spec: ModelSpec, *, min_seconds: float = 2.0, max_seconds: float = 20.0) -> Latency:
    """Time ``spec`` for ``min_seconds``, and on to `runs.WANTED_RUNS` runs within ``max_seconds``.

    Raises:
        RuntimeMissing: the runtime is not here.
        WorkerFailed: the process crashed or hung, or the model does not load or gives wrong outputs.
    """
    with start(spec) as worker:
        opened = worker.load(spec)
        warmed = worker.warm(WARM_CAP_S, run_s=opened["first_run_ns"] / 1e9)
        runs = timed_runs(
            worker, warmed, min_seconds=min_seconds, max_seconds=max_seconds, samples_a_run=opened["batch"]
        )
    return Latency(runs.samples_ns, opened, warmed["steady"], machine_name(), runs.energy, runs.celsius)
