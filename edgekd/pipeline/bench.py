"""Latency and memory of a bundle's model in fresh processes, on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.bundle import load_bundle, verify_bundle
from edgekd.errors import BadBundle, Missing
from edgekd.measure import ModelSpec, measure_latency, peak_memory
from edgekd.measure.spec import save_arrays
from edgekd.runtime.selection import check_selected, select


def bench_bundle(path: Path, *, seconds: float = 5.0) -> dict[str, Any]:
    """``latency_ms`` with raw samples, ``peak_memory_mb`` and the ``model`` timed; the bundle is verified first.

    Raises:
        BadBundle: it does not hold.
        Missing: its runtime is not here, or it needs its finalize step first.
        WorkerFailed: it crashed or hung.
    """
    checks = verify_bundle(path)
    for check in checks:
        if check.ok is False:
            raise BadBundle(f"{check.name}: {check.detail}", where=str(path), remedy="see: edgekd verify")
    for check in checks:
        if check.ok is None:
            raise Missing(f"{check.name} could not be checked: {check.detail}", where=str(path))
    manifest = load_bundle(path).manifest
    selection = select(path, manifest)
    with tempfile.TemporaryDirectory() as folder:
        feeds = {"input": np.load(path / manifest["golden"]["input"], allow_pickle=False)[:1]}
        spec = ModelSpec(
            path=check_selected(path, manifest, selection),
            runtime=manifest["backend"],
            feeds=save_arrays(feeds, Path(folder)),
            threads=manifest["target"]["runtime"]["threads"],
            precision=selection.candidate["inference_precision"],
            label=manifest["name"],
        )
        latency = measure_latency(spec, min_seconds=seconds, max_seconds=4 * seconds)
        memory = peak_memory(spec)
    return {
        "bundle": str(path),
        "model": {"candidate": selection.candidate["name"], "path": selection.path, "sha256": selection.sha256},
        "latency_ms": latency.to_json(),
        "peak_memory_mb": memory,
    }
