"""Memory: what a process that only loads and runs the model needs beyond one that does not."""

from __future__ import annotations

from edgekd.measure.process import Worker
from edgekd.measure.spec import ModelSpec


def peak_memory(spec: ModelSpec) -> float:
    """Peak resident set of a fresh process after 20 runs, less an empty one's, in MB (10^6 bytes).

    Raises:
        WorkerFailed: the process crashed or hung.
    """
    with Worker(spec) as worker:
        worker.ask("warm", 2.0)
        loaded = worker.ask("memory")["peak_kb"]
    with Worker(None) as empty:
        base = empty.ask("memory")["peak_kb"]
    return (loaded - base) * 1024 / 1e6
