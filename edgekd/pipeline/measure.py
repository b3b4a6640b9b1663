"""The stage that measures what a target's bundle will ship: accuracy, latency, memory, integer coverage."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.backends import Backend, get_backend
from edgekd.forms import CompiledModel, QuantForm
from edgekd.measure import (
    ModelSpec,
    describe_machine,
    machine_key,
    measure_accuracy,
    measure_latency,
    peak_memory,
)
from edgekd.measure.predictions import correct_row, right
from edgekd.measure.proof import onnx_run
from edgekd.measure.worst import worst_inputs
from edgekd.pipeline.alone import measuring_alone
from edgekd.pipeline.candidates import IN_FLOAT, compiled_model, session_run
from edgekd.pipeline.compile import RUNTIME_PACKAGES
from edgekd.pipeline.context import Context, versions
from edgekd.pipeline.drift import drift_of, save_worst
from edgekd.pipeline.quantize import PROOF_SAMPLES
from edgekd.runtime.spec import load_arrays
from edgekd.stage import Artifact, Progress, Stage, make_key
from edgekd.target import Target

# Two runs of one model on one machine may sum in another order: a share of the largest output.
SAME = 1e-3
BATCH = 64


class MeasureStage(Stage):
    """Figures of the chosen candidate, taken on this machine when it is the target; null and why when it is not."""

    name = "measure"
    version = 1
    code = ("backends", "measure", "runtime", "forms.py", "pipeline")

    def __init__(self, context: Context, target: Target) -> None:
        self.context, self.target = context, target

    def key(self, inputs: dict[str, Artifact]) -> str:
        """Hash of the compiled artifact's key and the machine."""
        machine = machine_key() if self.target.is_here() else None
        return make_key(self, {"machine": machine}, inputs, versions(*RUNTIME_PACKAGES[self.target.backend]))

    def run(self, inputs: dict[str, Artifact], out: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Write entry.json, the build's entry of a bundle's measurements, and drift/, the worst inputs."""
        target, folder = self.target, inputs["compile"].path
        choice = json.loads((folder / "choice.json").read_text())
        chosen = next(row for row in choice["candidates"] if row["chosen"])
        entry: dict[str, Any] = {
            "source": "build",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine(),
            "target": target.name,
            "on_target": target.is_here(),
            "not_measured": None,
            "accuracy": self._accuracies(inputs),
            "latency_ms": None,
            "comparison": None,
            "speedup_over_float": None,
            "integer_coverage": None,
            "layers": [],
            "peak_memory_mb": None,
            "size_bytes": chosen["size_bytes"],
            "candidates": [{key: row[key] for key in CANDIDATE_KEYS if key in row} for row in choice["candidates"]],
            "choice": {"why": choice["why"]},
            "left_out": choice["left_out"],
            "search": choice["search"],
            "proof": inputs["quantize"].meta["proof" if chosen["integer"] else "float_proof"]
            + _own_hops(chosen["proof"]),
            "checks": {"parity": _parity(chosen["proof"]), "tensorrt_builder": chosen["meta"].get("builder_check")},
            "history": self._histories(inputs),
            "drift": self._drift(inputs, chosen, out, scratch, progress),
            "rung_seconds": inputs["quantize"].meta["rung_seconds"],
        }
        if target.is_here():
            with measuring_alone(progress):
                self._measure(entry, inputs, chosen, scratch, progress)
            entry["comparison"] = choice["comparison"]
            entry["speedup_over_float"] = 1 / choice["comparison"]["ratio"] if choice["comparison"] else 1.0
        else:
            entry["not_measured"] = f"{target.name} is not this machine; its finalize step measures on the device"
        (out / "entry.json").write_text(json.dumps(entry))
        return {}

    def _measure(
        self,
        entry: dict[str, Any],
        inputs: dict[str, Artifact],
        chosen: dict[str, Any],
        scratch: Path,
        progress: Progress,
    ) -> None:
        """Fill in what only the target's own machine can tell."""
        target, folder = self.target, inputs["compile"].path
        backend = get_backend(target.backend)
        model = compiled_model(folder, chosen, target)
        progress.log(f"{target.name}: accuracy of {chosen['name']} on the whole test set")
        entry["accuracy"] |= self._compiled_accuracy(backend, model, inputs)
        layers = backend.coverage(model, target)
        entry["layers"] = [asdict(layer) for layer in layers]
        entry["integer_coverage"] = {"integer": sum(layer.integer for layer in layers), "compute": len(layers)}

        samples = load_arrays(inputs["quantize"].path / "proof_samples.npz")["samples"]
        feeds = {"input": samples[:1]}
        run = session_run(backend.load(model, target))
        spec = ModelSpec.of(backend, model, target, feeds, scratch)
        # What is timed must be what was proven: the same outputs again, in the process that is measured.
        spec = spec.with_golden({"logits": run(samples[:1])}, scratch, {"kind": "relative", "value": SAME})
        progress.log(f"{target.name}: latency and memory of {chosen['name']}")
        entry["latency_ms"] = measure_latency(spec).to_json()
        entry["peak_memory_mb"] = peak_memory(spec)

    def _drift(
        self, inputs: dict[str, Artifact], chosen: dict[str, Any], out: Path, scratch: Path, progress: Progress
    ) -> dict[str, Any]:
        """Where the forms of the chosen candidate part, layer by layer, and the samples on which it shows most."""
        target, folder = self.target, inputs["quantize"].path
        progress.log(f"{target.name}: drift of {chosen['name']}, layer by layer")
        backend, model = get_backend(target.backend), compiled_model(inputs["compile"].path, chosen, target)
        drift = drift_of(backend, target, folder, QuantForm.from_json(chosen["form"]), model, scratch)
        stored = load_arrays(folder / "proof_samples.npz")
        here = target.is_here()
        run = session_run(backend.load(model, target)) if here else onnx_run(model.onnx)
        samples = stored["samples"]
        outputs = np.concatenate([run(samples[i : i + BATCH]) for i in range(0, len(samples), BATCH)])
        worst = worst_inputs(samples, stored["outputs"], outputs)
        indices = np.asarray(self.context.picked("test", PROOF_SAMPLES))[worst.positions]
        rows = save_worst(worst, indices, "compiled" if here else "lowered", out / "drift")
        return drift.to_json() | {"candidate": chosen["name"], "worst": rows}

    def _accuracies(self, inputs: dict[str, Artifact]) -> dict[str, Any]:
        """The metric of every form before the compiled one, on the whole test set."""
        return {
            "teacher": inputs["teacher"].meta["accuracy"],
            "student": inputs["student"].meta["accuracy"],
            "master": inputs["quantize"].meta["accuracy"],
            "compiled": None,
            "drop_points": None,
            "metric": inputs["teacher"].meta["metric"],
            "samples": inputs["teacher"].meta["samples"],
            "parameters": {name: inputs[name].meta["parameters"] for name in ("teacher", "student")},
        }

    def _compiled_accuracy(self, backend: Backend, model: CompiledModel, inputs: dict[str, Artifact]) -> dict[str, Any]:
        teacher = np.load(inputs["teacher"].path / "test_outputs.npy")
        labels = np.load(inputs["teacher"].path / "test_labels.npy")
        run = session_run(backend.load(model, self.target))
        outputs = np.concatenate([run(x) for x, _ in self.context.batches("test")])
        correct = correct_row(right(outputs, labels), labels, self.context.fingerprint)
        return {**measure_accuracy(outputs, teacher, labels), "correct": correct}

    @staticmethod
    def _histories(inputs: dict[str, Artifact]) -> dict[str, Any]:
        """What each training went through, by stage."""
        found: dict[str, Any] = {}
        for name in ("teacher", "distill", "finetune"):
            if name in inputs:
                found[name] = json.loads((inputs[name].path / "history.json").read_text())
        return found


def _own_hops(proof: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A candidate's hops behind those of the quantize stage, whose last is the first here, but for mixed precision."""
    return proof if proof[0]["hop"] == IN_FLOAT else proof[1:]


def _parity(proof: list[dict[str, Any]]) -> str:
    """How far the proof came: a compiled model that cannot run here is proven by its device's finalize."""
    return "ok" if proof[-1]["hop"] == "compiled" else "ok up to the lowered file"


# What the report shows of a candidate.
CANDIDATE_KEYS = (
    "name",
    "integer",
    "chosen",
    "accuracy",
    "accurate",
    "ratio",
    "interval",
    "median_ms",
    "size_bytes",
)
