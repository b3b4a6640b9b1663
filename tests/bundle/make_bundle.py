"""Bundles of tiny real networks, packed the way the pipeline packs them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekd.bundle import (
    Contents,
    Golden,
    GoldenOutput,
    PackedCandidate,
    Tolerance,
    golden_outputs,
    make_golden,
)
from edgekd.forms import QuantForm
from edgekd.runtime.sessions import open_session

sys.path.insert(0, str(Path(__file__).parent.parent / "backends"))
from tiny_networks import Builder

SPEC = {"layout": "hwc", "resize": {"mode": "bilinear", "size": [12, 12]}, "scale": 1 / 64, "mean": [2.0], "std": [1.0]}
FORMS = {"onnxruntime": "u8", "openvino": "openvino", "tensorrt": "master"}
REQUIRES = {"onnxruntime": "onnxruntime>=1.20", "openvino": "openvino>=2025.0", "tensorrt": "tensorrt>=10.3,<12"}


def raw_samples(count: int = 3) -> list[np.ndarray]:
    """8-bit images of different sizes."""
    rng = np.random.default_rng(7)
    return [rng.integers(0, 256, (12 + i, 14 + i, 3), dtype=np.uint8) for i in range(count)]


def contents(folder: Path, backend: str = "onnxruntime", *, channels: int = 16, **changes) -> Contents:
    """An int8 candidate and the float one; the int8 one is chosen."""
    folder.mkdir(parents=True, exist_ok=True)
    rules = backend
    int8 = Builder(FORMS[backend], channels=channels).save(folder / "int8.onnx")
    floats = Builder("float", channels=channels).save(folder / "float.onnx")
    ends = (("int8", int8, frozenset()), ("float", floats, frozenset({"all"})))
    candidates, golden = [], None
    for name, onnx, groups in ends:
        plain = open_session(onnx, "onnxruntime", threads=1, optimize=False)
        # Tolerances as the pipeline takes them: what two executions differ by, plus one output step.
        batch = make_golden(raw_samples(), SPEC, plain, {"logits": Tolerance("exact")})
        other = open_session(onnx, "openvino" if backend == "openvino" else "onnxruntime", threads=1)
        compiled = golden_outputs(other, batch.input, {"logits": Tolerance("exact")})["logits"].values
        spread = float(np.abs(compiled - batch.outputs["logits"].values).max())
        outputs = {"logits": GoldenOutput(compiled, Tolerance("max_abs", spread + 0.02))}
        if golden is None:
            golden = Golden(batch.raw, batch.input, outputs, batch.input_tolerance)
        form = QuantForm(name=name, rules=rules, float_groups=groups).to_json()
        candidates.append(PackedCandidate(name, onnx, onnx, form, golden=outputs))
    made = Contents(
        name="tiny",
        task="classification",
        target={"name": f"{backend}-cpu", "backend": backend, "arch": "host", "runtime": {"threads": 1}},
        precision="int8",
        backend=backend,
        candidates=candidates,
        chosen="int8",
        choice={"why": "a test", "measured_here": False},
        inputs=[{"name": "input", "dtype": "float32", "shape": [None, 3, 12, 12], "about": "noise"}],
        outputs=[{"name": "logits", "dtype": "float32", "shape": [None, 10], "about": "logits"}],
        labels=[f"class {i}" for i in range(10)],
        preprocess=SPEC,
        golden=golden,
        quantization=None,
        recipe={"name": "tiny", "quantize": {"prefer": "speed"}},
        data_fingerprint="0",
        reproduce="edgekd build tiny",
        versions={},
        runtime_requirement=REQUIRES[backend],
        licences={"edgekd runtime": "Apache-2.0"},
    )
    return replace(made, **changes)


def edit_manifest(root: Path, change) -> None:
    """Write the manifest anew after ``change(manifest)``."""
    path = root / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def relist(root: Path, name: str) -> None:
    """List the file ``name`` as it is now, as one would who tampers with both."""
    from edgekd.runtime.bundle_files import digest

    edit_manifest(
        root,
        lambda m: m["files"].__setitem__(name, {"sha256": digest(root / name), "size": (root / name).stat().st_size}),
    )


def tree(root: Path) -> dict[str, bytes]:
    """Every file by its name."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
