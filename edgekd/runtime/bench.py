"""How fast a bundle's model is here, in fresh processes: golden outputs first, raw samples kept."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from .latency import measure_latency
from .manifest import read_manifest
from .memory import peak_memory
from .model import selected_spec
from .scenario import STREAMS, Settings, batches_of
from .selection import Selection, select
from .spec import ModelSpec
from .throughput import measure_offline, measure_streams
from .wake import after_idle, cold_starts


def bench(root: Path, settings: Settings | None = None, *, selection: Selection | None = None) -> dict[str, Any]:
    """Measure the scenario of ``settings``.

    ``scenario``, ``model`` (what ran, with its hash), ``wanted`` (threads and cores asked for); then for

    - single-stream: ``latency_ms`` (`latency.Latency.to_json`; for ``seconds``, and on to enough samples for p99 within
      four times that), ``energy`` and ``celsius`` (`energy.Meter`), ``cold_ms`` and ``after_idle_ms`` (`wake`), and
      ``peak_memory_mb`` (`memory.peak_memory`);
    - offline: ``offline``, a row a batch size (`throughput.measure_offline`);
    - multi-stream: ``multi_stream`` (`throughput.measure_streams`).

    Raises:
        BundleError: the bundle does not hold.
        SessionError: the settings do not fit the model or the machine.
        RuntimeMissing: the runtime is not here.
        WorkerFailed: the model does not load, crashes, hangs or does not give its golden outputs.
    """
    wanted = settings or Settings()
    wanted.check()
    manifest = read_manifest(root)
    batches = batches_of(manifest, wanted.batch_sizes)
    chosen = selection or select(root, manifest)
    with tempfile.TemporaryDirectory() as scratch:
        spec = wanted_spec(root, manifest, chosen, wanted, Path(scratch))
        result: dict[str, Any] = {
            "scenario": wanted.scenario,
            "model": {"candidate": chosen.candidate["name"], "path": chosen.path, "sha256": chosen.sha256},
            "wanted": {"threads": spec.threads, "cores": list(spec.cores) if spec.cores else None},
        }
        seconds = wanted.seconds
        if wanted.scenario == "offline":
            result["offline"] = measure_offline(spec, batches, seconds=seconds)
        elif wanted.scenario == "multi-stream":
            result["multi_stream"] = measure_streams(
                spec, wanted.streams or STREAMS, seconds=seconds, max_seconds=4 * seconds
            )
        else:
            latency = measure_latency(spec, min_seconds=seconds, max_seconds=4 * seconds)
            result["latency_ms"] = latency.to_json()
            result |= {"energy": latency.energy, "celsius": latency.celsius}
            result["cold_ms"] = cold_starts(spec, seconds=seconds)
            result["after_idle_ms"] = after_idle(spec, seconds=seconds)
            result["peak_memory_mb"] = peak_memory(spec)
    return result


def wanted_spec(
    root: Path, manifest: dict[str, Any], selection: Selection, wanted: Settings, scratch: Path
) -> ModelSpec:
    """`model.selected_spec` on the threads and cores that are asked for, else the target's."""
    spec = selected_spec(root, manifest, selection, scratch)
    return replace(spec, threads=wanted.threads or spec.threads, cores=wanted.cores or spec.cores)
