"""Peak memory of a model in a fresh process."""

from __future__ import annotations

from dataclasses import replace

from .process import start
from .spec import ModelSpec

# Runs after the first one: arenas of runtimes grow during the first few.
RUN_MS, MIN_RUNS = 100.0, 5


def peak_memory(spec: ModelSpec) -> float | None:
    """Peak resident set, in MB (10^6 bytes), of a process that only loads and runs the model, less the same without it.

    What is subtracted is the peak of a process that starts the same Python, imports numpy and reads the same inputs,
    and neither imports the inference runtime nor opens the model. So the figure is what the model *and its runtime*
    take on a device, whichever program hosts them there; pages of the runtime's libraries count as far as they were
    touched. Host memory only: what an engine takes on a GPU of its own is not in it. None where the kernel does not
    tell.

    Raises:
        RuntimeMissing: the runtime is not here.
        WorkerFailed: the process crashed or hung.
    """
    alone = replace(spec, golden=None)
    with start(spec) as worker:
        first = worker.load(alone)["first_run_ns"]
        worker.block(RUN_MS, min_runs=MIN_RUNS, run_s=first / 1e9)
        peak = worker.peak_memory()
    bare = bare_memory(spec)
    return (peak - bare) / 1e6 if peak and bare else None


def bare_memory(spec: ModelSpec) -> int | None:
    """Peak resident bytes of a process that reads the spec's feeds and no model; None where the kernel does not tell.

    Raises:
        WorkerFailed: the process crashed or hung.
    """
    with start(spec) as worker:
        worker.bare(replace(spec, golden=None))
        return worker.peak_memory()
