"""Timed runs of a session: blocks with every sample kept, and warming up until the speed is steady."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

# Warm-up: the medians of this many windows in a row lie within STEADY of each other.
WINDOWS, WINDOW_MS, STEADY = 4, 25.0, 1.03


class Warmed(NamedTuple):
    """How warming up ended: after ``runs``, ``steady`` or by its cap; ``run_ns`` is what a run takes by then."""

    runs: int
    steady: bool
    run_ns: float


def timed(run: Callable[[], Any], *, ms: float, min_runs: int = 1, max_runs: int = 100_000) -> list[int]:
    """Nanoseconds of each run of a block of ``ms`` milliseconds, at least ``min_runs`` and at most ``max_runs``."""
    clock = time.perf_counter_ns
    samples: list[int] = []
    end = clock() + int(ms * 1e6)
    while True:
        start = clock()
        run()
        stop = clock()
        samples.append(stop - start)
        if (stop >= end and len(samples) >= min_runs) or len(samples) >= max_runs:
            return samples


def overhead_ns() -> float:
    """What the loop adds to each run: the median of a callable that does nothing, in nanoseconds."""
    return float(statistics.median(timed(partial(_nothing, {}), ms=5.0)))


def warm_up(run: Callable[[], Any], cap_s: float) -> Warmed:
    """Run until the speed is steady or ``cap_s`` seconds are over."""
    begin, medians, runs = time.perf_counter(), [], 0
    while True:
        window = timed(run, ms=WINDOW_MS, min_runs=3)
        runs += len(window)
        medians.append(statistics.median(window))
        last = medians[-WINDOWS:]
        steady = len(last) == WINDOWS and max(last) <= STEADY * min(last)
        if steady or time.perf_counter() - begin >= cap_s:
            return Warmed(runs, steady, min(last))


def _nothing(_: dict[str, Any]) -> None:
    """A session that has no work, called as one is."""
