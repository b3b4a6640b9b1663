"""How fast a bundle's model is here: golden outputs first, warm-up, raw samples, percentiles where they hold."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from .bundle_files import BundleError
from .golden import load_array, match_outputs
from .machine import machine_name
from .manifest import read_manifest
from .model import open_selected
from .percentile import percentile
from .selection import Selection, select
from .timing import no_collections, timed, warm_up

WARM_CAP_S = 10.0
BLOCK_MS = 100.0
# Runs kept of one block, so that the kept ones spread over the whole time.
BLOCK_RUNS = 500


def bench(root: Path, *, seconds: float = 5.0, selection: Selection | None = None) -> dict[str, Any]:
    """Time single samples for ``seconds``: ``model`` (what ran, with its hash), ``latency_ms``, ``peak_memory_mb``.

    ``latency_ms``: percentiles in ms (p90, p99 null: not enough runs), ``throughput`` in samples a second, raw
    ``samples_ns``. ``peak_memory_mb`` (10^6 bytes): the growth of this process' peak resident set, so it is the
    model's and its runtime's only in a fresh process; null where the kernel does not tell.

    Raises:
        BundleError: the bundle does not hold, or the model does not give its golden outputs.
        RuntimeMissing, SessionError: the runtime is not here or refuses the model.
    """
    manifest = read_manifest(root)
    chosen = selection or select(root, manifest)
    feeds = {manifest["inputs"][0]["name"]: load_array(root, manifest, manifest["golden"]["input"])[:1]}
    before = _peak_bytes()
    clock = time.perf_counter_ns
    begin = clock()
    session = open_selected(root, manifest, chosen)
    loaded = clock()
    session.run(feeds)
    first = clock()
    for match in match_outputs(root, manifest, chosen.candidate, session):
        if not match.ok:
            raise BundleError(f"output {match.output} {match.detail}", f"{root}: {chosen.path}")

    def run() -> Any:
        return session.run(feeds)

    with no_collections():
        warmed = warm_up(run, WARM_CAP_S)
        lead_ms = max(2.0, BLOCK_MS - BLOCK_RUNS * warmed.run_ns / 1e6)
        samples: list[int] = []
        end = time.monotonic() + seconds
        while not samples or time.monotonic() < end:
            timed(run, ms=lead_ms)  # untimed, so that the model stays hot
            samples += timed(run, ms=BLOCK_MS, max_runs=BLOCK_RUNS)
    after, described = _peak_bytes(), session.describe()
    in_ms = np.array(samples) / 1e6
    return {
        "model": {"candidate": chosen.candidate["name"], "path": chosen.path, "sha256": chosen.sha256},
        "latency_ms": {
            "p50": float(np.median(in_ms)),
            "p90": percentile(in_ms, 0.90),
            "p99": percentile(in_ms, 0.99),
            "runs": len(samples),
            "batch": 1,
            "throughput": 1e3 / float(in_ms.mean()),
            "load_ms": (loaded - begin) / 1e6,
            "first_ms": (first - loaded) / 1e6,
            "steady": warmed.steady,
            "machine": machine_name(),
            "runtime": f"{described['runtime']} {described['version']}",
            "inference_precision": described["inference_precision"],
            "threads": described["threads"],
            "samples_ns": samples,
        },
        "peak_memory_mb": (after - before) / 1e6 if before and after else None,
    }


def _peak_bytes() -> int:
    """Peak resident set; from /proc, since ru_maxrss keeps the peak of the process that this one was forked from."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return 1024 * int(rows["VmHWM"].split()[0])
    except (OSError, KeyError, ValueError):
        return 0
