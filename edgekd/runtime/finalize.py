"""On the device: build engines where needed, measure the candidates, keep the fastest whose golden outputs hold.

Writes device/choice.json, which `Model`, verify and bench then follow, and appends an entry to measurements.json.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .bench import bench
from .bundle_files import CHOICE, BundleError, check_file, unlisted, write_json
from .choosing import Candidate, choose
from .compare import Comparison, compare_all
from .engines import device_folder, ensure_engine
from .gpu import engine_binding, flavor_of
from .manifest import identity, is_integer, read_manifest
from .measurements import append_entry, locked, new_entry, now, read_measurements
from .model import selected_spec
from .process import WorkerFailed, start
from .scenario import Settings
from .selection import NeedsVnni, Selection, select
from .sessions import RuntimeMissing, SessionError
from .spec import ModelSpec
from .verify import check_runtime

Say = Callable[[str], object]


def finalize(
    root: Path, *, pairs: int = 8, seconds: float = 0.5, bench_seconds: float = 5.0, say: Say = lambda _: None
) -> dict[str, Any]:
    """Choose the candidate for this machine; the entry that was appended to the measurements.

    ``pairs`` of fresh processes, ``seconds`` of blocks in each for each candidate; ``bench_seconds`` of the chosen
    one alone; ``say`` gets a line for the person who waits.

    Raises:
        BundleError: the bundle does not hold, or no candidate gives its golden outputs here.
        RuntimeMissing: the runtime, or for TensorRT the GPU, is not here.
        WorkerFailed: a measuring process crashed or hung while it was timed.
        OSError: the bundle's folder cannot be written.
    """
    manifest = _whole(root)
    runtime = check_runtime(manifest)
    if not runtime.ok:
        raise RuntimeMissing(runtime.detail)
    binding = engine_binding(flavor_of(manifest)) if manifest["backend"] == "tensorrt" else None
    with locked(device_folder(root)), tempfile.TemporaryDirectory() as scratch:
        fit, faults = _trial(root, manifest, binding, Path(scratch), say)
        if not fit:
            told = "; ".join(f"{name}: {why}" for name, why in faults.items())
            raise BundleError(f"no candidate can be used on this machine: {told}", str(root))
        if len(fit) > 1:
            say(f"timing {len(fit)} candidates in {pairs} rounds of fresh processes")
        specs = [spec for _, spec in fit]
        timed = compare_all(specs[:-1], specs[-1], pairs=pairs, seconds=seconds)
        index, why = _choose(root, manifest, [one for one, _ in fit], timed)
        chosen = fit[index][0]
        say(f"{chosen.candidate['name']}: {why}")
        measured = bench(root, Settings(seconds=bench_seconds), selection=chosen)
        _write_choice(root, manifest, chosen, why)
        entry = _entry(root, manifest, chosen, why, [one for one, _ in fit], faults, timed, measured)
        append_entry(root, entry)
    return entry


def _whole(root: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files all hold."""
    manifest = read_manifest(root)
    for name, row in manifest["files"].items():
        check_file(root, name, row)
    others = unlisted(root, manifest["files"])
    if others:
        raise BundleError(f"files that the manifest does not list: {', '.join(others[:5])}", str(root))
    read_measurements(root)
    return manifest


def _trial(
    root: Path, manifest: dict[str, Any], binding: dict[str, str] | None, scratch: Path, say: Say
) -> tuple[list[tuple[Selection, ModelSpec]], dict[str, str]]:
    """Candidates whose golden outputs hold here, each tried in a process of its own, and why others are out.

    Last comes what the others are timed against: float32 where it holds.
    """
    fit, faults = [], {}
    for row in manifest["candidates"]:
        name = row["name"]
        if _built_row(root, name).get("accurate") is False:
            faults[name] = "not accurate enough, as the build measured"
            continue
        try:
            if binding is None:
                selection = select(root, manifest, name)
            else:
                selection = ensure_engine(root, manifest, row, binding, say)
            spec = selected_spec(root, manifest, selection, scratch)
            with start(spec) as worker:
                worker.load(spec)
        except RuntimeMissing:
            raise
        except (SessionError, WorkerFailed, NeedsVnni) as error:
            faults[name] = getattr(error, "what", str(error))
            say(f"{name} is out: {faults[name]}")
        else:
            fit.append((selection, spec))
    fit.sort(key=lambda one: _float32(one[0].candidate))
    return fit, faults


def _choose(root: Path, manifest: dict[str, Any], fit: list[Selection], timed: list[Comparison]) -> tuple[int, str]:
    names = [one.candidate["name"] for one in fit]
    # What was asked for; the manifest's own precision is that of the build's choice, which may be float for int8.
    asked = manifest["target"].get("precision", manifest["precision"])
    if asked != "int8" and manifest["chosen"] in names:
        return names.index(manifest["chosen"]), f"{asked} is asked for"
    rows = [
        # What is here gives its golden outputs, and the build did not find it inaccurate.
        Candidate(name, is_integer(one.candidate), *times, (root / one.path).stat().st_size, True)
        for name, one, times in zip(
            names, fit, [*((lap.ratio, lap.low, lap.high) for lap in timed), (1.0, 1.0, 1.0)], strict=True
        )
    ]
    quantize = manifest["recipe"].get("quantize")
    small = isinstance(quantize, dict) and quantize.get("prefer") == "size"
    choice = choose(rows, prefer="size" if small else "speed", with_float=_float32(fit[-1].candidate))
    return choice.index, choice.reason


def _write_choice(root: Path, manifest: dict[str, Any], chosen: Selection, why: str) -> None:
    value = {
        "schema": 1,
        "bundle": identity(root),
        "candidate": chosen.candidate["name"],
        "onnx_sha256": manifest["files"][chosen.candidate["onnx"]]["sha256"],
        "path": chosen.path,
        "sha256": chosen.sha256,
        "engine": chosen.engine,
        "why": why,
        "date": now(),
    }
    write_json(root / CHOICE, value)


def _entry(
    root: Path,
    manifest: dict[str, Any],
    chosen: Selection,
    why: str,
    fit: list[Selection],
    faults: dict[str, str],
    timed: list[Comparison],
    measured: dict[str, Any],
) -> dict[str, Any]:
    """What goes into measurements.json."""
    name, files = chosen.candidate["name"], {one.candidate["name"]: one.path for one in fit}
    laps = {lap.label: lap for lap in timed}
    baseline = fit[-1].candidate
    rows = []
    for row in manifest["candidates"]:
        own, lap, built = row["name"], laps.get(row["name"]), _built_row(root, row["name"])
        rows.append(
            {
                "name": own,
                "integer": is_integer(row),
                "chosen": own == name,
                "accuracy": built.get("accuracy"),
                "accurate": built.get("accurate"),
                "ratio": lap.ratio if lap else 1.0 if own == baseline["name"] else None,
                "interval": [lap.low, lap.high] if lap else [1.0, 1.0] if own == baseline["name"] else None,
                "median_ms": lap.median_ms if lap else None,
                "size_bytes": (root / files[own]).stat().st_size if own in files else row["size_bytes"],
                "golden": own in files,
                "fault": faults.get(own, ""),
            }
        )
    if timed:
        next(row for row in rows if row["name"] == baseline["name"])["median_ms"] = timed[0].against_median_ms
    lap = laps.get(name)
    return {
        **new_entry(manifest, "finalize"),
        **measured,
        "comparison": lap.to_json() if lap else None,
        "speedup_over_float": 1 / lap.ratio if lap and _float32(baseline) else None,
        "size_bytes": (root / chosen.path).stat().st_size,
        "candidates": rows,
        "choice": {"why": why},
        "engine": chosen.engine,
        "checks": {"golden": "ok"},
    }


def _built_row(root: Path, name: str) -> dict[str, Any]:
    """What the build measured of a candidate; empty where it is not told."""
    for entry in read_measurements(root)["entries"]:
        if entry.get("source") == "build":
            rows = entry.get("candidates") or []
            return next((row for row in rows if isinstance(row, dict) and row.get("name") == name), {})
    return {}


def _float32(candidate: dict[str, Any]) -> bool:
    form = candidate.get("form") or {}
    return not is_integer(candidate) and form.get("float_type", "fp32") == "fp32"
