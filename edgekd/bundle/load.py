"""Reading bundles: load, verify, run, and add evidence. Needs numpy and the bundle's runtime; no torch, no onnx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.bundle.failure import bundle_errors
from edgekd.runtime.manifest import identity, read_manifest
from edgekd.runtime.measurements import append_entry, read_measurements
from edgekd.runtime.model import Model
from edgekd.runtime.verify import Check, verify

# Figures that belong together: all from one machine and one model file.
_FIGURES = ("speedup_over_float", "integer_coverage", "peak_memory_mb")


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder, its checked ``manifest`` and its ``measurements``; ``identity`` is the manifest's SHA-256."""

    path: Path
    manifest: dict[str, Any]
    measurements: dict[str, Any]
    identity: str

    def summary(self) -> dict[str, Any]:
        """The bundle's row of the terminal table and of ``build --json``; what was not measured is null.

        Latency is the newest on the target, without raw samples; what stands beside it comes from the same machine
        and the same model file.
        """
        entries = self.measurements["entries"][::-1]
        measured = [one for one in entries if one.get("latency_ms") and one.get("on_target") is True]
        timed: dict[str, Any] = measured[0] if measured else {}
        kin = [one for one in entries if _kin(one) == _kin(timed)] if timed else entries
        latency = timed.get("latency_ms") or {}
        packed = next(row for row in self.manifest["candidates"] if row["name"] == self.manifest["chosen"])
        return {
            "target": self.manifest["target"]["name"],
            "path": str(self.path),
            "precision": self.manifest["precision"],
            "quantization": _kept_rung(self.manifest),
            "accuracy": _without(_newest(entries, "accuracy"), "correct"),
            "latency_ms": _without(latency, "samples_ns"),
            **{key: _newest(kin, key) for key in _FIGURES},
            "drift": _drift(_newest(entries, "drift")),
            "size_bytes": _newest(kin, "size_bytes") or packed["size_bytes"],
            "budget": _newest(entries, "budget"),
            "checks": {name: state for one in entries[::-1] for name, state in (one.get("checks") or {}).items()}
            or None,
        }


def _kept_rung(manifest: dict[str, Any]) -> str | None:
    """How the shipped integers came about, such as "PTQ with bias correction"; None for a float model."""
    rungs = (manifest.get("quantization") or {}).get("rungs") or []
    return next((one["name"] for one in rungs if one["kept"]), None) if manifest["precision"] == "int8" else None


def load_bundle(path: Path | str) -> Bundle:
    """Read a bundle's manifest and measurements; `verify_bundle` checks the files.

    Raises:
        BadBundle: there is no bundle, or its two JSON files do not hold.
    """
    path = Path(path)
    with bundle_errors(path):
        return Bundle(path, read_manifest(path), read_measurements(path), identity(path))


def load_model(path: Path) -> Model:
    """The model of a bundle, ready to run; the hash of what is loaded is checked.

    Raises:
        BadBundle: the bundle does not hold.
        Missing: its runtime or its CPU is not here, or it needs its finalize step first.
    """
    with bundle_errors(path):
        return Model.load(path)


def verify_bundle(path: Path, *, run: bool = True) -> list[Check]:
    """Every check of a bundle on this machine, by edgekd's own runtime: no code of the bundle is executed.

    ``run=False`` leaves the golden outputs to a measuring process (`edgekd.runtime.verify.verify`).

    Raises:
        BadBundle: there is no bundle at all.
    """
    with bundle_errors(path):
        return verify(path, run=run)


def append_measurement(path: Path, entry: Mapping[str, Any]) -> None:
    """Add an entry to a bundle's measurements, atomically.

    Raises:
        BadBundle: the measurements that are there cannot be read.
        StoreFailed: they cannot be written.
    """
    with bundle_errors(path):
        read_manifest(path)
        append_entry(path, dict(entry))


def _drift(drift: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The last form that ships (a tapped model does not), its outputs' dB against float, and the layer at fault."""
    forms = [form for form in (drift or {}).get("forms", ()) if form.get("form") != "tapped"]
    if not drift or not forms:
        return None
    layers = {row["value"]: row["layer"] for row in drift["rows"]}
    fault = next((layers.get(form["fault"]) for form in drift["forms"] if form.get("fault")), None)
    return {"form": forms[-1]["form"], "db": forms[-1].get("db"), "fault": fault}


def _kin(entry: Mapping[str, Any]) -> tuple[Any, Any]:
    return entry.get("machine"), (entry.get("model") or {}).get("sha256")


def _without(row: Mapping[str, Any] | None, raw: str) -> dict[str, Any] | None:
    """A row of figures without its raw values; None for none."""
    return {key: value for key, value in (row or {}).items() if key != raw} or None


def _newest(entries: list[dict[str, Any]], key: str) -> Any:
    return next((entry[key] for entry in entries if entry.get(key) is not None), None)
