"""The stage that quantizes once for all targets: calibrate, train when asked, write the master, prove the hops."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.pipeline.context import Context, versions
from edgekd.pipeline.judged import ALL_STEPS, MASTER_STEPS
from edgekd.pipeline.train import TRAINING_CODE, WEIGHTS
from edgekd.stage import Artifact, Progress, Stage, make_key
from edgekd.target import load_calibration

if TYPE_CHECKING:
    from torch import nn

    from edgekd.quantize import Outcome, Prepared

# The samples on which every hop of the proof is compared; accuracy comes from the whole test set.
PROOF_SAMPLES = 256
# A layer's sensitivity is measured on at most so many samples, and all layers' in about this time: an order of layers
# needs no more, and a network of 50 layers at 224 x 224 still gets four samples on two cores.
SENSITIVITY_SAMPLES, SENSITIVITY_SECONDS = 256, 20.0
SHAPING_PACKAGES = ("torch", "torchao", "lightning-fabric", "onnx", "onnxscript", "onnxruntime")
# Points of accuracy that quantization alone may cost, where the whole budget is not smaller.
ALLOWED_DROP = 0.3


class QuantizeStage(Stage):
    """The strict master and the float student as ONNX; everything after it works on these files alone."""

    name = "quantize"
    version = 1
    code = (
        *TRAINING_CODE,
        "quantize",
        "forms.py",
        "lower/numbers.py",
        "measure/proof.py",
        "measure/inside.py",
        "runtime/session_onnxruntime.py",
        "pipeline/quantize.py",
        "pipeline/judged.py",
    )

    def __init__(self, context: Context) -> None:
        self.context = context

    def key(self, inputs: dict[str, Artifact]) -> str:
        """Hash of the quantization's part of the recipe, the calibration policy and the student's key."""
        recipe = self.context.recipe
        part: dict[str, Any] = {"integer": self.context.integer}
        if self.context.integer:
            part |= {
                # Speed or size is a choice among candidates, and the precision one of the target: the master is one.
                "quantize": recipe.quantize.model_dump(mode="json", exclude={"prefer", "precision"}),
                "distill": recipe.distill.model_dump(mode="json"),
                "allowed_drop": allowed_drop(recipe.budget.max_accuracy_drop),
                "judged": self.context.judged.to_json() if self.context.judged else None,
                "calibration": load_calibration(recipe.quantize.calibration).model_dump(mode="json"),
            }
        return make_key(self, part, inputs, versions(*SHAPING_PACKAGES))

    def run(self, inputs: dict[str, Artifact], out: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Write float.onnx, proof_samples.npz (the student's outputs too); of integers master.onnx and its tables."""
        import torch

        from edgekd.quantize import export_float, write_float_weights, write_master

        context = self.context
        student = context.model(context.recipe.student, inputs["student"].path / WEIGHTS)
        parts = list(context.batches("test", limit=PROOF_SAMPLES))
        samples, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        outputs = np.concatenate([_torch_run(student)(part) for part, _ in parts])
        np.savez(out / "proof_samples.npz", samples=samples, labels=labels, outputs=outputs)
        # Two, since torch.export takes a batch of one for a constant.
        example = torch.from_numpy(samples[[0, -1]])
        export_float(student, example, out / "float.onnx")
        float_proof = _prove_float(student, out, samples, labels)
        if not context.integer:
            return {
                "quantization": None,
                "rung_seconds": [],
                "accuracy": None,
                "float_proof": float_proof,
                "proof": None,
            }

        proof: list[dict[str, Any]] = []
        outcome, report = self._quantize(
            student,
            inputs,
            scratch,
            progress,
            lambda untouched: proof.extend(_prove_untouched(student, untouched, samples, labels)),
        )
        master = write_master(outcome.prepared, example, out)
        if outcome.floating is not None:
            write_float_weights(master.path, outcome.prepared, outcome.floating, out / "float_weights.npz")
        self._sensitivity(outcome.prepared, out, progress)
        proof += _prove_master(student, outcome.prepared, out, samples, labels)
        accuracy = self._master_accuracy(out / "master.onnx")
        return {
            "quantization": report,
            "rung_seconds": outcome.seconds,
            "accuracy": accuracy,
            "float_proof": float_proof,
            "proof": proof,
        }

    def _quantize(
        self,
        student: nn.Module,
        inputs: dict[str, Artifact],
        scratch: Path,
        progress: Progress,
        on_prepared: Callable[[Prepared], None],
    ) -> tuple[Outcome, dict[str, Any]]:
        from edgekd.data.calibration import calibration_samples
        from edgekd.distill import predict, quantization_aware
        from edgekd.lower.numbers import site_parameters
        from edgekd.quantize import quantize

        context, recipe = self.context, self.context.recipe
        policy = load_calibration(recipe.quantize.calibration)
        samples = calibration_samples(context.source, policy)
        guide = student
        if recipe.quantize.distill_from == "teacher":
            guide = context.model(recipe.teacher, inputs["teacher"].path / WEIGHTS)

        def fit(
            module: nn.Module, *, evaluate: Callable[[nn.Module], float], on_epoch_start: Callable[[int], None]
        ) -> Any:
            return quantization_aware(
                module,
                guide,
                context.source,
                config=recipe.quantize,
                distill=recipe.distill,
                scratch=scratch,
                progress=progress,
                **context.training(),
                evaluate=evaluate,
                on_epoch_start=on_epoch_start,
            )

        outcome = quantize(
            student,
            samples,
            config=recipe.quantize,
            policy=policy,
            allowed_drop=allowed_drop(recipe.budget.max_accuracy_drop),
            fit=fit,
            evaluate=lambda module: context.score(*predict(module, context.source, "val")),
            progress=progress,
            numbers=partial(site_parameters, form=context.judged) if context.judged else None,
            on_prepared=on_prepared,
        )
        unruled = outcome.prepared.without_rule
        if unruled:
            told = ", ".join(f"{name} ({count})" for name, count in unruled.items())
            progress.log(f"  no rule knows these operators, so they stay float: {told}")
        steps = ALL_STEPS if context.judged else MASTER_STEPS
        facts = {"calibration": policy.name, "samples": len(samples), "without_rule": unruled, "judged_steps": steps}
        return outcome, outcome.report | facts | {"notes": list(outcome.prepared.notes)}

    def _sensitivity(self, prepared: Prepared, out: Path, progress: Progress) -> None:
        """What each layer alone costs, on validation samples: candidates in mixed precision start from it."""
        import torch

        from edgekd.quantize import measure_sensitivity

        samples = np.concatenate([x for x, _ in self.context.batches("val", limit=SENSITIVITY_SAMPLES)])
        found = measure_sensitivity(prepared, torch.from_numpy(samples), seconds=SENSITIVITY_SECONDS)
        found.save(out / "sensitivity.json")
        progress.log(
            f"  sensitivity of {len(found.layers)} layers on {found.samples} samples, {found.seconds:.1f} seconds"
        )

    def _master_accuracy(self, path: Path) -> float:
        """The master's metric on the whole test set."""
        from edgekd.measure.proof import onnx_run

        run = onnx_run(path)
        parts = [(run(x), y) for x, y in self.context.batches("test")]
        outputs, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        return self.context.score(outputs, labels)


def allowed_drop(budget: float | None) -> float:
    """Points of accuracy that quantization alone may cost: `ALLOWED_DROP`, or less when the whole budget is smaller."""
    return ALLOWED_DROP if budget is None else min(ALLOWED_DROP, budget)


def _prove_float(student: nn.Module, out: Path, samples: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    from edgekd.measure.proof import Hop, onnx_run, prove

    hops = [
        Hop("float student", run=_torch_run(student)),
        Hop("float", run=onnx_run(out / "float.onnx"), kind="kernels"),
    ]
    return [result.to_json() for result in prove(hops, samples, labels)]


def _prove_untouched(
    student: nn.Module, prepared: Prepared, samples: np.ndarray, labels: np.ndarray
) -> list[dict[str, Any]]:
    """That conversion changed nothing, before quantization-aware training changes weights."""
    from edgekd.measure.proof import Hop, prove

    hops = [
        Hop("float student", run=_torch_run(student)),
        Hop("prepared, quantizers off", run=prepared.run_float, kind="equal"),
    ]
    return [result.to_json() for result in prove(hops, samples, labels)]


def _prove_master(
    student: nn.Module, prepared: Prepared, out: Path, samples: np.ndarray, labels: np.ndarray
) -> list[dict[str, Any]]:
    from edgekd.measure.proof import Hop, onnx_inside, onnx_run, prove

    master = out / "master.onnx"
    hops = [
        Hop("float student", run=_torch_run(student)),
        Hop("fake-quantized", run=prepared.run_quantized, kind="changing", inside=prepared.intermediates),
        Hop("master", run=onnx_run(master), inside=partial(onnx_inside, master)),
    ]
    floating = _torch_run(student)(samples)
    return [result.to_json() for result in prove(hops, samples, labels, floating=floating)[1:]]


def _torch_run(module: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    import torch

    def run(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs: np.ndarray = module(torch.from_numpy(x)).numpy()
        return outputs

    return run
