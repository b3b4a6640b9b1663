"""Bundles' JSON as the pipeline writes it: one measured on its CPU target, one of TensorRT on a machine without GPU.

Made through the classes that make the real ones, so that a renamed key breaks these tests.
"""

from __future__ import annotations

import copy
import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from edgekd.forms import LayerInfo, QuantForm
from edgekd.measure import Candidate, Latency, Pair, choose, conclude, describe_machine
from edgekd.measure.drift import Drift, Form, FormDrift, own_parts
from edgekd.measure.inside import Value
from edgekd.measure.proof import HopResult
from edgekd.target import Target

SAMPLES = 360
TARGETS = {
    one.name: one
    for one in (
        Target(name="onnxruntime-cpu", about="ONNX Runtime on this machine's CPU", backend="onnxruntime", isa="host"),
        Target(name="jetson-orin", about="TensorRT on an NVIDIA Jetson Orin", backend="tensorrt", arch="aarch64"),
    )
}
MACHINE = "Intel(R) Xeon(R) CPU @ 2.20GHz, 2 cores, no VNNI"


def cpu_bundle() -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and measurements of an int8 bundle, measured on its own target."""
    manifest = _manifest("onnxruntime-cpu", "onnxruntime>=1.20")
    compared = _compare("int8", 0.61)
    found = [
        Candidate("int8", True, compared.ratio, compared.low, compared.high, 84_312, True),
        Candidate("int8-float-first", True, 0.74, 0.71, 0.77, 86_020, True),
        Candidate("int8-float-last", True, 1.09, 1.05, 1.13, 91_500, False),
        Candidate("float", False, 1.0, 1.0, 1.0, 301_220, True),
    ]
    choice = choose(found)
    entry = _entry("onnxruntime-cpu", choice.reason)
    entry |= {
        "on_target": True,
        "latency_ms": _latency().to_json(),
        "comparison": compared.to_json(),
        "speedup_over_float": 1 / compared.ratio,
        "layers": _layers(),
        "integer_coverage": {"integer": 19, "compute": 21},
        "peak_memory_mb": 61.2,
        "candidates": [
            {
                "name": one.name,
                "integer": one.integer,
                "chosen": index == choice.index,
                "accuracy": 0.9826 - 0.004 * index,
                "accurate": one.accurate,
                "ratio": one.ratio,
                "interval": [one.low, one.high],
                "median_ms": 0.212 * (one.ratio or 1),
                "size_bytes": one.size_bytes,
            }
            for index, one in enumerate(found)
        ],
    }
    entry["accuracy"] |= {
        "compiled": 0.9806,
        "drop_points": 0.55,
        "drop_interval": [-0.61, 1.7],
        "agreement": 0.9889,
        "worst_class": {"index": 8, "accuracy": 0.9429},
    }
    entry["proof"].append(_hop("compiled", "rounding", 0.212, 0.0079, 0.0021))
    entry["budget"] = {"met": True, "missed": [], "not_measured": []}
    entry["drift"] = drift()
    return json.loads(json.dumps(manifest)), json.loads(json.dumps({"schema": 1, "entries": [entry]}))


def jetson_bundle() -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and measurements of a TensorRT bundle built where there is no GPU: the target's figures are null."""
    manifest = _manifest("jetson-orin", "tensorrt>=10.3,<12")
    entry = _entry("jetson-orin", "the rules' first choice: jetson-orin is not this machine; finalize decides there")
    entry |= {
        "on_target": False,
        "not_measured": "jetson-orin is not this machine; its finalize step measures on the device",
        "checks": {"parity": "ok", "tensorrt_builder": "not installed"},
        "candidates": [
            {
                "name": name,
                "integer": name != "float",
                "chosen": name == "int8",
                "accuracy": None,
                "accurate": None,
                "ratio": None,
                "interval": None,
                "median_ms": None,
                "size_bytes": 301_220,
            }
            for name in ("int8", "int8-float-gates", "float")
        ],
    }
    entry["budget"] = {"met": None, "missed": [], "not_measured": ["max_accuracy_drop"]}
    manifest["choice"]["measured_here"] = False
    return json.loads(json.dumps(manifest)), json.loads(json.dumps({"schema": 1, "entries": [entry]}))


def float_bundle() -> tuple[dict[str, Any], dict[str, Any]]:
    """A float build: no quantization, no master, one candidate, nothing to compare with."""
    manifest, measurements = cpu_bundle()
    manifest |= {"precision": "fp32", "chosen": "float", "quantization": None}
    manifest["candidates"] = [row for row in manifest["candidates"] if row["name"] == "float"]
    entry = measurements["entries"][0]
    entry["model"] |= {"candidate": "float", "path": "model/float/model.onnx"}
    entry["accuracy"]["master"] = None
    entry["candidates"] = [entry["candidates"][-1] | {"chosen": True}]
    entry |= {"comparison": None, "speedup_over_float": 1.0, "choice": {"why": "the only form in fp32"}}
    entry["integer_coverage"] = {"integer": 0, "compute": 21}
    return manifest, measurements


def drift(layers: int = 10, *, fault: int | None = None, lost: float = 16.0) -> dict[str, Any]:
    """What the measure stage tells of a network of so many layers; ``fault``: where the lowered file parts."""
    rng = np.random.default_rng(2)
    values: list[Value] = []
    for index in range(layers):
        names = (
            ("Conv", f"conv2d_{index}", f"blocks.{index}.0"),
            ("Relu", f"relu_{index}", f"Relu after blocks.{index}.0"),
        )
        for op, name, layer in names if index < layers - 1 else (("Gemm", "logits", "head.linear"),):
            values.append(Value(name, op, layer, (values[-1].name,) if values else ()))
    names = [value.name for value in values]
    steps = rng.normal(-12 / len(names), 0.8, len(names))
    steps[len(names) // 3] -= 5
    master = dict(zip(names, np.minimum(41 + np.cumsum(steps), 60).tolist(), strict=True))
    lowered = {name: db + 1.8 + float(rng.normal(0, 0.3)) for name, db in master.items()}
    if fault is not None:
        behind = names[names.index(f"conv2d_{fault}") :]
        lowered |= {name: lowered[name] - lost for name in behind}
    compiled = {"logits": lowered["logits"] - 0.1}
    forms: list[FormDrift] = []
    for form, db in (("master", master), ("lowered", lowered), ("compiled", compiled)):
        own = own_parts(values, forms[-1].db if forms else None, db)
        kind = {"master": "changing", "lowered": "relaxing", "compiled": "rounding"}[form]
        step = {name: value + 2 for name, value in db.items()}
        forms.append(FormDrift(Form(form, kind, dict), db, step, own, 0.9844))  # type: ignore[arg-type]
    told = Drift(64, tuple(values), "logits", tuple(forms), 131.0).to_json()
    worst = [
        {"index": index, "difference": 1.31 - 0.2 * row, "float": 3, "output": 3 if row else 8}
        for row, index in enumerate((311, 27, 148, 5))
    ]
    return told | {"candidate": "int8", "worst": {"form": "compiled", "samples": worst}}


def finalized(
    measurements: dict[str, Any], *, candidate: str = "int8", slower: float = 5.0, target: str = "jetson-orin"
) -> dict[str, Any]:
    """The measurements with the entry of a finalize on the device, as edgekd.runtime.finalize writes it."""
    longer = copy.deepcopy(measurements)
    latency = _latency(slower).to_json() | {"machine": "NVIDIA Jetson Orin Nano, 6 cores", "runtime": "tensorrt 10.3.0"}
    compared = _compare("int8", 0.47).to_json()
    ratios = {"int8": (compared["ratio"], compared["interval"]), "float": (1.0, [1.0, 1.0])}
    entry = {
        "source": "finalize",
        "date": "2026-12-02T09:30:00+00:00",
        "machine": describe_machine() | {"board": "NVIDIA Jetson Orin Nano", "usable_cores": 6, "isa": []},
        "target": target,
        "on_target": True,
        "not_measured": None,
        "model": {"candidate": candidate, "path": f"device/engines/{candidate}.engine", "sha256": "9" * 64},
        "latency_ms": latency,
        "peak_memory_mb": 210.5,
        "comparison": compared if candidate == "int8" else None,
        "speedup_over_float": 1 / compared["ratio"] if candidate == "int8" else None,
        "size_bytes": 140_120,
        "candidates": [
            {
                "name": name,
                "integer": name != "float",
                "chosen": name == candidate,
                "accuracy": None,
                "accurate": None,
                "ratio": ratio,
                "interval": bounds,
                "median_ms": 1.3 * ratio,
                "size_bytes": 140_120,
                "golden": True,
                "fault": "",
            }
            for name, (ratio, bounds) in ratios.items()
        ],
        "choice": {"why": "the fastest"},
        "checks": {"golden": "ok"},
    }
    longer["entries"].append(json.loads(json.dumps(entry)))
    return longer


def bundle_row(manifest: dict[str, Any], measurements: dict[str, Any]) -> dict[str, Any]:
    """What ``edgekd build --json`` lists of a bundle."""
    entry = measurements["entries"][0]
    latency = entry["latency_ms"]
    return {
        "target": manifest["target"]["name"],
        "path": f"dist/{manifest['name']}-{manifest['target']['name']}",
        "precision": manifest["precision"],
        "latency_ms": latency and {key: value for key, value in latency.items() if key != "samples_ns"},
    } | {
        key: entry[key]
        for key in (
            "accuracy",
            "speedup_over_float",
            "integer_coverage",
            "peak_memory_mb",
            "size_bytes",
            "budget",
            "checks",
        )
    }


def _manifest(target_name: str, requirement: str) -> dict[str, Any]:
    target = TARGETS[target_name]
    forms = [
        QuantForm("int8", target.backend),
        QuantForm("float", target.backend, float_groups=frozenset({"all"})),
    ]
    files = ["model/int8/model.onnx", "model/float/model.onnx", "golden/raw.npz", "golden/input.npy"]
    files += ["golden/logits.npy", "runtime/python/__main__.py"]
    files += [f"runtime/python/edgekd_runtime/{name}.py" for name in ("sessions", "preprocess", "manifest", "golden")]
    return {
        "schema": 1,
        "name": "digits",
        "task": "classification",
        "target": target.model_dump(mode="json"),
        "precision": "int8",
        "backend": target.backend,
        "chosen": "int8",
        "candidates": [
            {
                "name": form.name,
                "onnx": f"model/{form.name}/model.onnx",
                "path": f"model/{form.name}/model.onnx",
                "form": form.to_json(),
                "size_bytes": 84_312 if form.integer else 301_220,
                "inference_precision": "f32",
            }
            for form in forms
        ],
        "choice": {"why": "the fastest", "measured_here": True},
        "inputs": [
            {"name": "input", "dtype": "float32", "shape": [None, 1, 8, 8], "about": "digits after preprocessing"}
        ],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": [None, 10], "about": "one score a class"}],
        "labels": [str(digit) for digit in range(10)],
        "preprocess": {"layout": "chw", "scale": 1 / 16, "mean": [0.305], "std": [0.376]},
        "golden": {
            "samples": 8,
            "raw": "golden/raw.npz",
            "input": "golden/input.npy",
            "input_tolerance": 1e-4,
            "outputs": {"logits": {"file": "golden/logits.npy", "tolerance": {"kind": "max_abs", "value": 0.42}}},
        },
        "quantization": {
            "method": "ptq",
            "techniques": ["bias correction"],
            "learned_scales": False,
            "why": "PTQ with bias correction costs 0.00 points, 0.30 are allowed",
            "val_float": 0.9861,
            "val_ptq": 0.9861,
            "val_qat": None,
            "allowed_drop": 0.3,
            "rungs": [
                {"name": "PTQ", "val": 0.9722, "kept": False},
                {"name": "PTQ with bias correction", "val": 0.9861, "kept": True},
            ],
            "calibration": "default",
            "samples": 512,
        },
        "recipe": {
            "name": "digits",
            "quantize": {"prefer": "speed"},
            "budget": {"max_accuracy_drop": 1.0, "size_mb": 0.2},
        },
        "data_fingerprint": hashlib.sha256(b"digits").hexdigest(),
        "reproduce": f"edgekd build digits --target {target_name}",
        "versions": {
            "torch": "2.12.0",
            "torchao": "0.18.0",
            "onnx": "1.21.0",
            "onnxruntime": "1.32.0",
            "timm": "absent",
        },
        "runtime_requirement": requirement,
        "licences": {"edgekd runtime": "Apache-2.0", "model": "not stated"},
        "files": {
            name: {"sha256": hashlib.sha256(name.encode()).hexdigest(), "size": 1200 + 97 * len(name)} for name in files
        },
    }


def _entry(target: str, why: str) -> dict[str, Any]:
    """What every build's entry has, the target's own figures null."""
    epochs = np.arange(1, 13)
    return {
        "source": "build",
        "date": "2026-11-24T21:00:00+00:00",
        "machine": describe_machine(),
        "target": target,
        "on_target": None,
        "not_measured": None,
        "model": {"candidate": "int8", "path": "model/int8/model.onnx", "sha256": "1" * 64},
        "accuracy": {
            "teacher": 0.9861,
            "student": 0.9833,
            "master": 0.9806,
            "compiled": None,
            "drop_points": None,
            "metric": "top1",
            "samples": SAMPLES,
            "parameters": {"teacher": 272_474, "student": 71_330},
        },
        "latency_ms": None,
        "comparison": None,
        "speedup_over_float": None,
        "integer_coverage": None,
        "layers": [],
        "peak_memory_mb": None,
        "size_bytes": 84_312,
        "choice": {"why": why},
        "proof": [
            HopResult("float student", "start", None, None, None, None, 0.9833, "", True).to_json(),
            _hop("prepared, quantizers off", "equal", 1.9e-6, 1.1e-7, 2.3e-8),
            _hop("fake-quantized", "changing", 0.913, 0.0341, 0.0173),
            _hop("master", "rounding", 0.0412, 0.0015, 0.0004),
            _hop("lowered", "changing", 0.388, 0.0145, 0.0061),
        ],
        "checks": {"parity": "ok", "tensorrt_builder": None},
        "rung_seconds": [3.25, 4.5],
        "history": {
            stage: [
                {
                    "epoch": int(epoch),
                    "loss": 2.1 * float(np.exp(-epoch / 3)) + 0.05,
                    "metric": 0.985 - 0.6 * float(np.exp(-epoch / 1.7)),
                    "lr": 3e-3,
                }
                for epoch in epochs
            ]
            for stage in ("teacher", "distill")
        },
    }


def _hop(name: str, kind: str, largest: float, relative: float, rms: float) -> dict[str, Any]:
    tolerance = "shown only: the numbers are meant to change" if kind == "changing" else "within 5 %"
    return HopResult(name, kind, largest, relative, rms, 1.0, 0.9806, tolerance, True).to_json()


def _latency(slower: float = 1.0) -> Latency:
    rng = np.random.default_rng(0)
    runs = (
        np.concatenate([rng.lognormal(np.log(0.128e6), 0.05, 4000), rng.lognormal(np.log(0.16e6), 0.25, 400)]) * slower
    )
    opened = {
        "batch": 1,
        "load_ns": 5_300_000,
        "first_run_ns": 410_000,
        "runtime": "onnxruntime",
        "version": "1.32.0",
        "inference_precision": "f32",
        "threads": 2,
    }
    return Latency(tuple(int(slower * run) for run in rng.permutation(runs)), opened, True, MACHINE)


def _compare(name: str, ratio: float) -> Any:
    rng = np.random.default_rng(1)
    pairs = [Pair(tuple((212_000 * ratio * a, 212_000 * b) for a, b in rng.normal(1, 0.02, (20, 2)))) for _ in range(8)]
    return conclude(name, "float", pairs)


def _layers() -> list[dict[str, Any]]:
    names = [f"blocks.{index // 3}.conv{index % 3}" for index in range(19)]
    found = [LayerInfo(f"/{name}/Conv_quant", "QLinearConv", True, "int8") for name in names]
    found.insert(7, LayerInfo("/blocks.2/gate/HardSigmoid", "HardSigmoid", False, "f32"))
    found.append(LayerInfo("/head/linear/Gemm", "Gemm", False, "f32"))
    return [asdict(layer) for layer in found]
