"""Timed runs of one warm measuring process, spread over a time; how many ran in how much time is counted exactly."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from .energy import Meter
from .process import WorkerProcess

BLOCK_MS = 100.0
# Runs kept of one block: those of a model of a few microseconds would fill a report with millions.
BLOCK_RUNS = 500
# Enough runs for p99 (see `percentile`), if they fit into the time.
WANTED_RUNS = 700


class Runs(NamedTuple):
    """``samples_ns`` of the timed runs in order; ``wall_ns`` from the first to the last of each block, added up.

    ``energy`` of all runs meanwhile, those between the timed blocks too, and ``celsius``: see `energy.Meter`.
    """

    samples_ns: tuple[int, ...]
    wall_ns: int
    energy: dict[str, Any] | None
    celsius: dict[str, dict[str, float]] | None

    def throughput(self, samples_a_run: int) -> dict[str, Any]:
        """Samples a second, and the ``samples`` and ``seconds`` that it was counted from: timed blocks only."""
        samples, seconds = samples_a_run * len(self.samples_ns), self.wall_ns / 1e9
        return {"throughput": samples / seconds, "samples": samples, "seconds": seconds}


def timed_runs(
    worker: WorkerProcess,
    warmed: Mapping[str, Any],
    *,
    min_seconds: float,
    max_seconds: float,
    wanted: int = WANTED_RUNS,
    samples_a_run: int = 1,
) -> Runs:
    """Blocks for ``min_seconds``, and on to ``wanted`` runs within ``max_seconds``; ``warmed`` is `warm`'s answer.

    Energy is told for each of ``samples_a_run``.
    """
    run_ms = warmed["run_ns"] / 1e6
    # The rest of a block runs untimed, so that the kept runs spread over the whole time and the model stays hot.
    lead_ms = max(2.0, BLOCK_MS - BLOCK_RUNS * run_ms)
    samples: list[int] = []
    first, begin = len(worker.counted), time.monotonic()
    with Meter() as meter:
        while True:
            samples += worker.block(BLOCK_MS, max_runs=BLOCK_RUNS, lead_ms=lead_ms, run_s=run_ms / 1e3)
            seconds = time.monotonic() - begin
            if seconds >= max_seconds or (seconds >= min_seconds and len(samples) >= wanted):
                break
    blocks = worker.counted[first:]
    every = sum(block["runs"] + block["lead_runs"] for block in blocks)
    return Runs(
        tuple(samples),
        sum(block["process_ns"] for block in blocks),
        meter.energy(samples_a_run * every),
        meter.celsius(),
    )
