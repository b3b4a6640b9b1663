"""Latency and memory of a bundle's model in fresh processes, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekd.bundle import verify_bundle
from edgekd.bundle.failure import bundle_errors
from edgekd.errors import BadBundle, ExitCode, Missing
from edgekd.measure.fresh import worker_errors
from edgekd.runtime.bench import bench
from edgekd.runtime.verify import exit_code


def bench_bundle(path: Path, *, seconds: float = 5.0) -> dict[str, Any]:
    """``latency_ms`` with raw samples, ``peak_memory_mb`` and the ``model`` timed; the bundle is verified first.

    Raises:
        BadBundle: it does not hold.
        Missing: its runtime is not here, or it needs its finalize step first.
        WorkerFailed: it crashed, hung or does not give its golden outputs.
    """
    checks = verify_bundle(path)
    code = exit_code(checks)
    for check in checks:
        if code == ExitCode.BAD_INPUT and check.ok is False:
            raise BadBundle(f"{check.name}: {check.detail}", where=str(path), remedy="see: edgekd verify")
    for check in checks:
        if not check.ok:
            raise Missing(f"{check.name} could not be checked: {check.detail}", where=str(path))
    with bundle_errors(path), worker_errors():
        return {"bundle": str(path), **bench(path, seconds=seconds)}
