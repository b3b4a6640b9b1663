"""How fast a bundle's model is here, in fresh processes: golden outputs first, raw samples kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from .latency import measure_latency
from .manifest import read_manifest
from .memory import peak_memory
from .model import selected_spec
from .selection import Selection, select


def bench(root: Path, *, seconds: float = 5.0, selection: Selection | None = None) -> dict[str, Any]:
    """Time single samples for ``seconds``, and on to enough of them for p99 within four times that.

    ``model`` (what ran, with its hash), ``latency_ms`` (`latency.Latency.to_json`), ``peak_memory_mb``
    (`memory.peak_memory`).

    Raises:
        BundleError: the bundle does not hold.
        RuntimeMissing: the runtime is not here.
        WorkerFailed: the model does not load, crashes, hangs or does not give its golden outputs.
    """
    manifest = read_manifest(root)
    chosen = selection or select(root, manifest)
    with tempfile.TemporaryDirectory() as scratch:
        spec = selected_spec(root, manifest, chosen, Path(scratch))
        latency = measure_latency(spec, min_seconds=seconds, max_seconds=4 * seconds)
        memory = peak_memory(spec)
    return {
        "model": {"candidate": chosen.candidate["name"], "path": chosen.path, "sha256": chosen.sha256},
        "latency_ms": latency.to_json(),
        "peak_memory_mb": memory,
    }
