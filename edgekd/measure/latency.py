"""Latency of one model: a fresh process, warm-up, raw samples kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.measure.machine import machine_line
from edgekd.measure.process import Worker
from edgekd.measure.spec import ModelSpec
from edgekd.measure.statistics import percentile

WARM_SECONDS = 10.0
# Enough runs for p99 (see `percentile`), if they fit into the time.
WANTED_RUNS = 700


@dataclass(frozen=True)
class Latency:
    """Single-stream latency, batch as in the inputs; ``samples_ns`` are all runs in order."""

    samples_ns: tuple[int, ...]
    load_ms: float
    first_ms: float
    machine: str
    runtime: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Percentiles in ms (None: not enough runs), throughput in runs a second, and the raw samples."""
        samples = np.array(self.samples_ns) / 1e6
        runtime = self.runtime
        return {
            "p50": float(np.median(samples)),
            "p90": percentile(samples, 0.90),
            "p99": percentile(samples, 0.99),
            "runs": len(samples),
            "throughput": 1e3 / float(samples.mean()),
            "load_ms": self.load_ms,
            "first_ms": self.first_ms,
            "machine": self.machine,
            "runtime": f"{runtime['runtime']} {runtime['version']}",
            "inference_precision": runtime["inference_precision"],
            "threads": runtime["threads"],
            "samples_ns": list(self.samples_ns),
        }


def measure_latency(spec: ModelSpec, *, min_seconds: float = 2.0, max_seconds: float = 20.0) -> Latency:
    """Time ``spec`` for ``min_seconds``, and on to `WANTED_RUNS` runs within ``max_seconds``.

    Raises:
        WorkerFailed: the process crashed or hung.
    """
    with Worker(spec) as worker:
        worker.ask("warm", WARM_SECONDS)
        samples: list[int] = []
        while sum(samples) < min_seconds * 1e9 or (len(samples) < WANTED_RUNS and sum(samples) < max_seconds * 1e9):
            samples += worker.ask("block", 0.5)["ns"]
        told = worker.told
    return Latency(tuple(samples), told["load_ns"] / 1e6, told["first_ns"] / 1e6, machine_line(), told["runtime"])
