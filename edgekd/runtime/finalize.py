"""On the device: build engines where needed, measure the candidates, keep the fastest whose golden outputs hold.

Writes device/choice.json, which `Model`, verify and bench then follow, and appends an entry to measurements.json.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .bundle_files import CHOICE, BundleError, check_file, unlisted, write_json
from .choosing import Timed, pick
from .engines import device_folder, ensure_engine
from .gpu import engine_binding, flavor_of
from .manifest import identity, is_integer, read_manifest
from .measurements import append_entry, locked, new_entry, now, read_measurements
from .process import LOAD_LIMIT_S, WorkerFailed, WorkerProcess
from .race import Lap, load_arguments, race
from .selection import Selection, select
from .sessions import RuntimeMissing, SessionError
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
    with locked(device_folder(root)):
        fit, faults = _trial(root, manifest, binding, say)
        if not fit:
            told = "; ".join(f"{name}: {why}" for name, why in faults.items())
            raise BundleError(f"no candidate can be used on this machine: {told}", str(root))
        baseline = max(range(len(fit)), key=lambda i: (_float32(fit[i].candidate), i))
        others = [one for i, one in enumerate(fit) if i != baseline]
        if others:
            say(f"timing {len(fit)} candidates in {pairs} rounds of fresh processes")
        laps = dict(
            zip(
                [one.candidate["name"] for one in others],
                race(root, others, fit[baseline], pairs=pairs, seconds=seconds),
                strict=True,
            )
        )
        name, why = _choose(root, manifest, fit, fit[baseline].candidate["name"], laps)
        chosen = next(one for one in fit if one.candidate["name"] == name)
        say(f"{name}: {why}")
        with WorkerProcess() as worker:
            limit = LOAD_LIMIT_S + 2 * bench_seconds
            measured = worker.ask("bench", limit_s=limit, seconds=bench_seconds, **load_arguments(root, chosen))
        _write_choice(root, manifest, chosen, why)
        entry = _entry(root, manifest, chosen, why, fit, faults, laps, measured)
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
    root: Path, manifest: dict[str, Any], binding: dict[str, str] | None, say: Say
) -> tuple[list[Selection], dict[str, str]]:
    """Candidates whose golden outputs hold here, each tried in a process of its own, and why others are out."""
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
            with WorkerProcess() as worker:
                worker.ask("load", limit_s=LOAD_LIMIT_S, **load_arguments(root, selection))
        except RuntimeMissing:
            raise
        except (SessionError, WorkerFailed) as error:
            if getattr(error, "kind", "") == "RuntimeMissing":
                raise RuntimeMissing(str(error)) from error
            faults[name] = str(error)
            say(f"{name} is out: {error}")
        else:
            fit.append(selection)
    return fit, faults


def _choose(
    root: Path, manifest: dict[str, Any], fit: list[Selection], baseline: str, laps: dict[str, Lap]
) -> tuple[str, str]:
    names = [one.candidate["name"] for one in fit]
    # What was asked for; the manifest's own precision is that of the build's choice, which may be float for int8.
    asked = manifest["target"].get("precision", manifest["precision"])
    if asked != "int8" and manifest["chosen"] in names:
        return manifest["chosen"], f"{asked} is asked for"
    timed = []
    for one in fit:
        name = one.candidate["name"]
        ratio, (low, high) = (laps[name].ratio, laps[name].interval) if name in laps else (1.0, (1.0, 1.0))
        size = (root / one.path).stat().st_size
        row = one.candidate
        timed.append(Timed(name, is_integer(row), _float32(row), ratio, low, high, size, baseline))
    quantize = manifest["recipe"].get("quantize")
    return pick(timed, prefer=quantize.get("prefer", "speed") if isinstance(quantize, dict) else "speed")


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
    laps: dict[str, Lap],
    measured: dict[str, Any],
) -> dict[str, Any]:
    """What goes into measurements.json."""
    name, files = chosen.candidate["name"], {one.candidate["name"]: one.path for one in fit}
    baseline = next(one for one in files if one not in laps)
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
                "ratio": lap.ratio if lap else 1.0 if own == baseline else None,
                "interval": list(lap.interval) if lap else [1.0, 1.0] if own == baseline else None,
                "median_ms": lap.median_ms if lap else None,
                "size_bytes": (root / files[own]).stat().st_size if own in files else row["size_bytes"],
                "golden": own in files,
                "fault": faults.get(own, ""),
            }
        )
    if laps:
        next(row for row in rows if row["name"] == baseline)["median_ms"] = next(iter(laps.values())).against_median_ms
    lap = laps.get(name)
    against_float = lap is not None and _float32(next(r for r in manifest["candidates"] if r["name"] == baseline))
    return {
        **new_entry(manifest, "finalize"),
        **measured,
        "comparison": _comparison(name, baseline, lap) if lap else None,
        "speedup_over_float": 1 / lap.ratio if lap and against_float else None,
        "size_bytes": (root / chosen.path).stat().st_size,
        "candidates": rows,
        "choice": {"why": why},
        "engine": chosen.engine,
        "checks": {"golden": "ok"},
    }


def _comparison(label: str, against: str, lap: Lap) -> dict[str, Any]:
    return {
        "label": label,
        "against": against,
        "ratio": lap.ratio,
        "interval": list(lap.interval),
        "confidence": lap.confidence,
        "pairs": len(lap.log_ratios),
        "log_ratios": lap.log_ratios,
        "median_ms": lap.median_ms,
        "against_median_ms": lap.against_median_ms,
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
