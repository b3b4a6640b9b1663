"""How to use a bundle on its device, and how to make it again."""

from __future__ import annotations

import json

from edgekd.report.evidence import Evidence
from edgekd.report.reading import mapping, number, rows, text


def commands(evidence: Evidence) -> list[tuple[str, str]]:
    """Shell commands to run inside the bundle's folder, each with what it does."""
    found = [
        ("python runtime/python verify", "hashes and golden outputs hold on this machine"),
        ("python runtime/python bench", "latency and memory on this machine, added to measurements.json"),
        ("python runtime/python run SAMPLE.npy", "one raw sample through preprocessing and the model"),
    ]
    final = ("python runtime/python finalize", "builds and times the candidates on this device and keeps the best")
    return [final, *found] if evidence.measured is None else [*found, final]


def example(evidence: Evidence) -> str:
    """Python that runs one raw sample, from inside the bundle's folder; empty where finalize has to build first."""
    manifest = evidence.manifest
    names = [text(row.get("name")) for key in ("inputs", "outputs") for row in rows(manifest.get(key))[:1]]
    path = next(
        (
            text(row.get("path"))
            for row in rows(manifest.get("candidates"))
            if row.get("name") == manifest.get("chosen")
        ),
        "",
    )
    # A TensorRT engine belongs to the device that built it: the ONNX file alone does not load.
    if evidence.backend not in ("onnxruntime", "openvino") or len(names) != 2 or not all(names) or not path:
        return ""
    runtime = mapping(evidence.target.get("runtime"))
    threads = number(runtime.get("threads")) or 1
    precision = text(runtime.get("inference_precision")) or "f32"
    model = f"{_quoted(path)}, {_quoted(evidence.backend)}, threads={threads:.0f}, precision={_quoted(precision)}"
    return "\n".join(
        (
            'import json, sys; sys.path.insert(0, "runtime/python")',
            "import numpy as np; from edgekd_runtime import preprocess, sessions",
            f"session = sessions.open_session({model})",
            'x = preprocess.apply(json.load(open("manifest.json"))["preprocess"], np.load("SAMPLE.npy"))',
            f"print(session.run({{{_quoted(names[0])}: x[None]}})[{_quoted(names[1])}])",
        )
    )


def _quoted(value: str) -> str:
    """A Python string literal."""
    return json.dumps(value, ensure_ascii=False)
