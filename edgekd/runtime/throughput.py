"""Offline and multi-stream: how many samples a second, and how long a query of several samples takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .latency import WARM_CAP_S
from .machine import machine_name
from .percentile import percentile
from .process import REFUSED, WorkerFailed, start
from .runs import timed_runs
from .scenario import threads_here
from .sessions import SessionError
from .spec import ModelSpec


def measure_offline(spec: ModelSpec, batches: Sequence[int], *, seconds: float) -> list[dict[str, Any]]:
    """Throughput at each batch size, a fresh process each, ``seconds`` of runs in all; golden outputs hold in batches.

    A row has ``batch``, ``throughput`` (samples a second, from ``samples`` in ``seconds`` of timed blocks, copying
    inputs and outputs included), ``p50`` of a batch in ms, ``runs``, ``steady``, ``samples_ns``, what was opened, and
    ``energy`` and ``celsius`` (`energy.Meter`).

    Raises:
        RuntimeMissing: the runtime is not here.
        SessionError: the model does not take the batch, or answers wrongly in it.
        WorkerFailed: a process crashed or hung.
    """
    rows = []
    for batch in batches:
        try:
            with start(spec) as worker:
                opened = worker.load(replace(spec, batch=batch))
                warmed = worker.warm(WARM_CAP_S, run_s=opened["first_run_ns"] / 1e9)
                share = seconds / len(batches)
                runs = timed_runs(worker, warmed, min_seconds=share, max_seconds=share, wanted=1, samples_a_run=batch)
        except WorkerFailed as error:
            if error.kind in REFUSED:
                raise SessionError(f"{error.where}: {error.label}: in a batch of {batch}: {error.what}") from error
            raise
        rows.append(
            {
                "batch": batch,
                **runs.throughput(batch),
                "p50": float(np.median(runs.samples_ns)) / 1e6,
                "runs": len(runs.samples_ns),
                "steady": warmed["steady"],
                **told(opened),
                "energy": runs.energy,
                "celsius": runs.celsius,
                "samples_ns": list(runs.samples_ns),
            }
        )
    return rows


def measure_streams(spec: ModelSpec, streams: int, *, seconds: float, max_seconds: float) -> dict[str, Any]:
    """Queries of ``streams`` samples in one process, and on to enough of them for p99 within ``max_seconds``.

    The process' threads are shared out: as many lanes as it has threads (all streams on a GPU), at most one a stream,
    each a session of its own with an equal part of the threads. ``p50``, ``p90``, ``p99`` of a query in ms (null: not
    enough runs), ``throughput`` in samples a second, from ``samples`` in ``seconds`` of timed blocks.

    Raises:
        RuntimeMissing: the runtime is not here.
        WorkerFailed: the process crashed or hung, or a session does not load or gives wrong outputs.
    """
    total = threads_here(spec.threads, spec.cores)
    lanes = streams if spec.runtime == "tensorrt" else min(streams, total)
    own = replace(spec, threads=max(1, total // lanes), shared=lanes > 1)
    with start(spec) as worker:
        opened = worker.load(own)
        worker.lanes(own, lanes, streams)
        warmed = worker.warm(WARM_CAP_S, run_s=streams * opened["first_run_ns"] / 1e9)
        runs = timed_runs(worker, warmed, min_seconds=seconds, max_seconds=max_seconds, samples_a_run=streams)
    queries = np.array(runs.samples_ns) / 1e6
    return {
        "streams": streams,
        "lanes": lanes,
        "threads_a_lane": opened["threads"],
        "p50": float(np.median(queries)),
        "p90": percentile(queries, 0.90),
        "p99": percentile(queries, 0.99),
        **runs.throughput(streams),
        "runs": len(queries),
        "steady": warmed["steady"],
        **told(opened),
        "energy": runs.energy,
        "celsius": runs.celsius,
        "samples_ns": list(runs.samples_ns),
    }


def told(opened: dict[str, Any]) -> dict[str, Any]:
    """What a process opened, and where, as figures name it."""
    return {
        "machine": machine_name(),
        "runtime": f"{opened['runtime']} {opened['version']}",
        "inference_precision": opened["inference_precision"],
        "threads": opened["threads"],
    }
