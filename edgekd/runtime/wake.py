"""Latency of a model that is not warm: in a fresh process, and after a pause."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from .latency import WARM_CAP_S
from .process import start
from .spec import ModelSpec

# Seconds of sleep before a run, and runs looked at after each.
PAUSES, RUNS_AFTER = (0.2, 2.0), 3
MOST_PAUSES, MOST_STARTS = 10, 5


def cold_starts(spec: ModelSpec, *, seconds: float) -> dict[str, Any]:
    """Fresh processes that load the model and run it once: one, and up to `MOST_STARTS` that fit into ``seconds``.

    ``load_ms`` (importing the runtime and opening the model) and ``first_ms`` (the first run) of each, and the medians
    ``load_p50``, ``first_p50`` and ``p50`` of both together. The files are in the page cache: the first start after
    the machine's own takes longer.
    """
    alone = replace(spec, golden=None)
    loads: list[float] = []
    firsts: list[float] = []
    end = time.monotonic() + seconds
    while not loads or (len(loads) < MOST_STARTS and time.monotonic() < end):
        with start(alone) as worker:
            opened = worker.load(alone)
        loads.append(opened["load_ns"] / 1e6)
        firsts.append(opened["first_run_ns"] / 1e6)
    return {
        "p50": float(np.median(np.add(loads, firsts))),
        "load_p50": float(np.median(loads)),
        "first_p50": float(np.median(firsts)),
        "load_ms": loads,
        "first_ms": firsts,
    }


def after_idle(spec: ModelSpec, *, seconds: float) -> list[dict[str, Any]]:
    """The first runs after sleeping, in one warm process; a row for each of `PAUSES` that fits into ``seconds``.

    ``pause_s``, ``pauses`` (as many as fit, at most `MOST_PAUSES`), medians in ms: ``warm`` (of the runs right before
    a pause), ``first``, ``second`` and ``third`` run after it; ``samples_ns``: these three runs of each pause.
    """
    counts = {pause: min(MOST_PAUSES, int(seconds / pause)) for pause in PAUSES}
    if not any(counts.values()):
        return []
    rows = []
    with start(spec) as worker:
        opened = worker.load(spec)
        warmed = worker.warm(WARM_CAP_S, run_s=opened["first_run_ns"] / 1e9)
        run_s = warmed["run_ns"] / 1e9
        for pause, count in counts.items():
            warm, after = [], []
            for _ in range(count):
                warm.append(float(np.median(worker.block(20, min_runs=RUNS_AFTER, run_s=run_s))))
                after.append(worker.idle(pause, RUNS_AFTER, run_s=run_s))
            if count:
                first, second, third = (float(x) for x in np.median(after, axis=0) / 1e6)
                rows.append(
                    {
                        "pause_s": pause,
                        "pauses": count,
                        "warm": float(np.median(warm)) / 1e6,
                        "first": first,
                        "second": second,
                        "third": third,
                        "samples_ns": after,
                    }
                )
    return rows
