"""Packing: a bundle's folder from its parts. The same parts give the same bytes, measurements apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.bundle.failure import bundle_errors
from edgekd.bundle.golden import Golden, GoldenOutput
from edgekd.bundle.load import Bundle, load_bundle
from edgekd.errors import BadInput
from edgekd.runtime import bundle_files
from edgekd.runtime.bundle_files import MANIFEST, MEASUREMENTS, NO_CACHE, digest, write_json
from edgekd.runtime.manifest import SCHEMA, check_manifest

DEVICE, PACKAGE = "runtime/python", "edgekd_runtime"
MAIN = '''\
"""``python BUNDLE/runtime/python verify|bench|run FILE.npy|finalize [--json]``; needs numpy and the runtime."""

import sys
from pathlib import Path

try:
    from edgekd_runtime.command import main
except ModuleNotFoundError as error:
    if error.name != "numpy":
        raise
    print("edgekd: numpy is not installed\\n  install it with: pip install numpy", file=sys.stderr)
    sys.exit(5)

sys.exit(main(Path(__file__).resolve().parents[2]))
'''


@dataclass(frozen=True)
class PackedCandidate:
    """One form of the model: its lowered ``onnx``, the ``path`` that is loaded (the same file, or an engine of it).

    ``form`` is `QuantForm.to_json()`. ``golden`` are the outputs of this very candidate for the golden inputs, with
    its own tolerances; a device compares with them, so that one form is not judged by another's rounding. Without,
    the bundle's own are taken, which are the chosen candidate's. ``needs_vnni``: x86 CPUs without VNNI saturate.
    """

    name: str
    onnx: Path
    path: Path
    form: Mapping[str, Any]
    inference_precision: str = "f32"
    golden: Mapping[str, GoldenOutput] | None = None
    needs_vnni: bool = False


@dataclass(frozen=True)
class Contents:
    """Everything that a manifest tells; mappings are JSON-ready, and nothing in them names this machine's paths.

    ``inputs`` and ``outputs`` are rows of ``name``, ``dtype``, ``shape`` (null where dynamic) and ``about``;
    ``golden`` holds the chosen candidate's outputs; ``runtime_requirement`` is such as "onnxruntime>=1.20". ``drift``
    is a folder of ``.npy`` files, the inputs on which the chosen candidate is furthest from float; None without any.
    """

    name: str
    task: str
    target: Mapping[str, Any]
    precision: str
    backend: str
    candidates: Sequence[PackedCandidate]
    chosen: str
    choice: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    labels: Sequence[str]
    preprocess: Mapping[str, Any]
    golden: Golden
    quantization: Mapping[str, Any] | None
    recipe: Mapping[str, Any]
    data_fingerprint: str
    reproduce: str
    versions: Mapping[str, str]
    runtime_requirement: str
    licences: Mapping[str, str]
    drift: Path | None = None


def pack(out: Path, contents: Contents, *, entry: Mapping[str, Any] | None = None) -> Bundle:
    """Write the bundle into the folder ``out``, which is made or must be empty.

    ``entry`` is the build's entry of measurements.json; its ``model`` (candidate, path, hash) is filled in here.

    Raises:
        BadInput: ``out`` is not empty, or the contents do not make a valid manifest.
        StoreFailed: it cannot be written.
    """
    with bundle_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise BadInput("a bundle is packed into an empty folder", where=str(out))
        parts = _Parts(out)
        candidates = [_candidate(parts, one, one.name == contents.chosen) for one in contents.candidates]
        golden = _golden(parts, contents.golden)
        _runtime(parts)
        manifest = {
            "schema": SCHEMA,
            "name": contents.name,
            "task": contents.task,
            "target": contents.target,
            "precision": contents.precision,
            "backend": contents.backend,
            "chosen": contents.chosen,
            "candidates": candidates,
            "choice": contents.choice,
            "inputs": contents.inputs,
            "outputs": contents.outputs,
            "labels": contents.labels,
            "preprocess": contents.preprocess,
            "golden": golden,
            "quantization": contents.quantization,
            "recipe": contents.recipe,
            "data_fingerprint": contents.data_fingerprint,
            "reproduce": contents.reproduce,
            "versions": contents.versions,
            "runtime_requirement": contents.runtime_requirement,
            "licences": contents.licences,
            "files": parts.files,
        }
        if contents.drift is not None:
            manifest["drift"] = _drift(parts, contents.drift)
        # What is read back is what readers get: tuples have become lists, and NaN is refused.
        try:
            manifest = json.loads(json.dumps(manifest, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise BadInput(f"the manifest is not JSON: {error}", where=str(out)) from error
        check_manifest(manifest, str(out / MANIFEST))
        write_json(out / MANIFEST, manifest)
        row = next(row for row in candidates if row["name"] == contents.chosen)
        model = {"candidate": row["name"], "path": row["path"], "sha256": parts.files[row["path"]]["sha256"]}
        entries = [{**entry, "model": model}] if entry is not None else []
        write_json(out / MEASUREMENTS, {"schema": 1, "entries": entries})
        return load_bundle(out)


class _Parts:
    """Files written into the folder, with the rows that the manifest lists them by."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.files: dict[str, dict[str, Any]] = {}

    def write(self, name: str, data: bytes) -> str:
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.files[name] = {"sha256": digest(path), "size": len(data)}
        return name

    def copy(self, name: str, source: Path) -> str:
        return self.write(name, source.read_bytes())

    def array(self, name: str, array: np.ndarray) -> str:
        data = BytesIO()
        np.save(data, np.ascontiguousarray(array), allow_pickle=False)
        return self.write(name, data.getvalue())


def _candidate(parts: _Parts, one: PackedCandidate, chosen: bool) -> dict[str, Any]:
    folder = f"model/{one.name}"
    onnx = parts.copy(f"{folder}/model.onnx", one.onnx)
    path = onnx if one.path == one.onnx else parts.copy(f"{folder}/model{one.path.suffix}", one.path)
    row = {
        "name": one.name,
        "onnx": onnx,
        "path": path,
        "form": one.form,
        "size_bytes": parts.files[path]["size"],
        "inference_precision": one.inference_precision,
        "needs_vnni": one.needs_vnni,
    }
    if one.golden is not None and not chosen:  # the chosen one's are the bundle's own
        row["golden"] = _outputs(parts, f"golden/{one.name}", one.golden)
    return row


def _golden(parts: _Parts, golden: Golden) -> dict[str, Any]:
    raw = BytesIO()
    np.savez(raw, **{str(index): array for index, array in enumerate(golden.raw)})  # type: ignore[arg-type]
    return {
        "samples": len(golden.raw),
        "raw": parts.write("golden/raw.npz", raw.getvalue()),
        "input": parts.array("golden/input.npy", golden.input),
        "input_tolerance": golden.input_tolerance,
        "outputs": _outputs(parts, "golden", golden.outputs),
    }


def _drift(parts: _Parts, folder: Path) -> dict[str, str]:
    """The files by what they hold: index, input, float, output."""
    return {path.stem: parts.copy(f"drift/{path.name}", path) for path in sorted(folder.glob("*.npy"))}


def _outputs(parts: _Parts, folder: str, outputs: Mapping[str, GoldenOutput]) -> dict[str, Any]:
    return {
        # Numbered where a graph's output has a name that is no file's name.
        name: {
            "file": parts.array(f"{folder}/{name if name.isidentifier() else f'output{index}'}.npy", output.values),
            "tolerance": output.tolerance.to_json(),
        }
        for index, (name, output) in enumerate(outputs.items())
    }


def _runtime(parts: _Parts) -> None:
    """The folder that travels: edgekd.runtime under the name edgekd_runtime, and its command."""
    source = Path(bundle_files.__file__).parent
    parts.write(f"{DEVICE}/__main__.py", MAIN.encode())
    for path in sorted(source.glob("*.py")):
        parts.copy(f"{DEVICE}/{PACKAGE}/{path.name}", path)
    for folder in (DEVICE, f"{DEVICE}/{PACKAGE}"):
        # Not listed, since tools that leave out caches would take it away; see NO_CACHE.
        (parts.out / folder / NO_CACHE).touch()
