"""The stage that makes the candidates of one target, times them, keeps the fastest honest one, and proves it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.backends import Backend, get_backend
from edgekd.errors import BadTarget
from edgekd.forms import CompiledModel, Master, QuantForm
from edgekd.measure import Candidate, Choice, ModelSpec, choose, compare_all, machine_key
from edgekd.measure.proof import Hop, onnx_inside, onnx_run, prove
from edgekd.pipeline.context import Context, versions
from edgekd.pipeline.quantize import allowed_drop
from edgekd.stage import Artifact, Progress, Stage, make_key
from edgekd.target import Target

# The packages of a backend that decide what it makes of a file and how fast.
RUNTIME_PACKAGES = {
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "tensorrt": ("onnx", "tensorrt", "tensorrt-rtx-cu13-bindings", "onnxruntime-ep-nv-tensorrt-rtx-cu13"),
}
# Validation samples that decide whether a candidate's accuracy stays in the budget.
CHOICE_SAMPLES = 2000
# A candidate is timed for this share of the recipe's seconds a pair: the one that ships is measured anew.
SHARE = 0.5


class CompileStage(Stage):
    """Candidates of one target: lowered, compiled, compared; ``choice.json`` tells which one ships and why."""

    name = "compile"
    version = 1
    code = ("lower", "backends", "measure", "runtime", "forms.py", "pipeline")

    def __init__(self, context: Context, target: Target) -> None:
        """``target``: its precision is already the one that this build makes."""
        self.context, self.target = context, target

    def key(self, inputs: dict[str, Artifact]) -> str:
        """Hash of the target, what the recipe prefers, the master's key, runtimes, and the machine when it is timed."""
        recipe = self.context.recipe
        part = {
            "target": self.target.model_dump(mode="json", exclude={"about", "aliases", "container", "device"}),
            "isa": self.target.resolved_isa(),
            "prefer": recipe.quantize.prefer,
            "allowed_drop": allowed_drop(recipe.budget.max_accuracy_drop),
            "measure": recipe.measure.model_dump() if self.target.is_here() else None,
            "machine": machine_key() if self.target.is_here() else None,
        }
        return make_key(self, part, inputs, versions(*RUNTIME_PACKAGES[self.target.backend]))

    def run(self, inputs: dict[str, Artifact], out: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Write candidates/NAME/…, choice.json and proof.json."""
        target, folder = self.target, inputs["quantize"].path
        backend = get_backend(target.backend)
        forms = backend.candidates(target)
        progress.task(f"{target.name}: compiling candidates", len(forms))
        rows: list[dict[str, Any]] = []
        compiled: list[CompiledModel] = []
        seen: set[bytes] = set()
        for form in forms:
            model = _lowered(folder, form, vnni=target.has_vnni())
            progress.advance(1)
            graph = model.graph.SerializeToString() + form.float_type.encode()
            if graph in seen:  # this network has none of the layers that the form leaves in float
                continue
            seen.add(graph)
            place = out / "candidates" / form.name
            place.mkdir(parents=True)
            (place / "model.onnx").write_bytes(model.SerializeToString())
            result = backend.compile(place / "model.onnx", target, place, form=form)
            compiled.append(result)
            rows.append(
                {
                    "name": form.name,
                    "integer": form.integer,
                    "form": form.to_json(),
                    "onnx": result.onnx.relative_to(out).as_posix(),
                    "path": result.path.relative_to(out).as_posix(),
                    "size_bytes": result.path.stat().st_size,
                    "meta": result.meta,
                }
            )
        choice = self._choose(rows, compiled, backend, folder, scratch, progress)
        for index, row in enumerate(rows):
            row["chosen"] = index == choice.index
        proof, spread = self._prove(folder, compiled[choice.index], backend)
        (out / "proof.json").write_text(json.dumps(proof, indent=1))
        (out / "choice.json").write_text(json.dumps({"candidates": rows, "why": choice.reason}, indent=1))
        return {"chosen": rows[choice.index]["name"], "why": choice.reason, "output_spread": spread}

    def _choose(
        self,
        rows: list[dict[str, Any]],
        compiled: list[CompiledModel],
        backend: Backend,
        folder: Path,
        scratch: Path,
        progress: Progress,
    ) -> Choice:
        """Time and score the candidates where the target is this machine; else the rules' first choice."""
        target, recipe = self.target, self.context.recipe
        for row in rows:
            row |= {"accuracy": None, "accurate": None, "ratio": None, "interval": None, "median_ms": None}
        if not target.is_here():
            return Choice(0, f"the rules' first choice: {target.name} is not this machine; finalize decides there")
        if len(rows) == 1:
            return Choice(0, f"the only form in {target.precision}")
        for row, model in zip(rows, compiled, strict=True):
            row["accuracy"] = self._accuracy(backend.load(model, target))
        progress.log(
            f"{target.name}: timing {len(rows)} candidates in {recipe.measure.pairs} rounds of fresh processes"
        )
        feeds = {"input": np.load(folder / "proof_samples.npz")["samples"][:1]}
        specs = [ModelSpec.of(backend, model, target, feeds, scratch) for model in compiled]
        seconds = SHARE * recipe.measure.seconds
        timed = compare_all(specs[:-1], specs[-1], pairs=recipe.measure.pairs, seconds=seconds, seed=recipe.seed)
        for row, one in zip(rows, timed, strict=False):
            row |= {"ratio": one.ratio, "interval": [one.low, one.high], "median_ms": one.median_ms}
        rows[-1] |= {"ratio": 1.0, "interval": [1.0, 1.0], "median_ms": timed[0].against_median_ms}
        # One sample of a small validation split may be more than the points allowed.
        samples = min(CHOICE_SAMPLES, len(self.context.source.val))  # type: ignore[arg-type]
        allowed = max(allowed_drop(recipe.budget.max_accuracy_drop) / 100, 1.5 / samples)
        for row in rows:
            row["accurate"] = row["accuracy"] >= rows[-1]["accuracy"] - allowed
        if target.precision != "int8":
            return Choice(0, f"{target.precision} is asked for")
        return choose([_candidate(row) for row in rows], prefer=recipe.quantize.prefer)

    def _accuracy(self, session: Any) -> float:
        """The task's metric on the validation split, or its first `CHOICE_SAMPLES`."""
        run = session_run(session)
        parts = [(run(x), y) for x, y in self.context.batches("val", limit=CHOICE_SAMPLES)]
        outputs, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        return self.context.score(outputs, labels)

    def _prove(
        self, folder: Path, compiled: CompiledModel, backend: Backend
    ) -> tuple[list[dict[str, Any]], float | None]:
        """The hops from the master on, and the largest difference between compiled and reference outputs."""
        stored = np.load(folder / "proof_samples.npz")
        start = _start(folder)
        hops = [
            Hop(start.stem, run=onnx_run(start), inside=partial(onnx_inside, start)),
            Hop("lowered", run=onnx_run(compiled.onnx), kind="changing", inside=partial(onnx_inside, compiled.onnx)),
        ]
        if self.target.is_here():
            hops.append(Hop("compiled", run=session_run(backend.load(compiled, self.target))))
        results = prove(hops, stored["samples"], stored["labels"])
        return [result.to_json() for result in results], results[-1].max_abs if self.target.is_here() else None


def build_precision(target: Target, wanted: str) -> Target:
    """The target in the precision that is built: the recipe's where it asks for floats, else the target's own.

    Raises:
        BadTarget: its backend has no such form.
    """
    if wanted == "int8" or wanted == target.precision:
        chosen = target
    else:
        chosen = target.model_copy(update={"precision": wanted})
    if not get_backend(target.backend).candidates(chosen):
        raise BadTarget(
            f"{target.backend} has no {chosen.precision} form",
            where=f"target {target.name}: precision",
            remedy="use int8 or fp32",
        )
    return chosen


def session_run(session: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A session of one input and one output as a function of arrays."""
    name, output = session.inputs[0].name, session.outputs[0].name
    return lambda x: session.run({name: x})[output]


def compiled_model(folder: Path, row: dict[str, Any], target: Target) -> CompiledModel:
    """The compiled candidate that a row of choice.json describes."""
    return CompiledModel(target.backend, folder / row["path"], folder / row["onnx"], row["meta"])


def _candidate(row: dict[str, Any]) -> Candidate:
    low, high = row["interval"]
    return Candidate(row["name"], row["integer"], row["ratio"], low, high, row["size_bytes"], row["accurate"])


def _start(folder: Path) -> Path:
    """What lowering begins with: the master, or the float student of a build without integers."""
    master = folder / "master.onnx"
    return master if master.exists() else folder / "float.onnx"


def _lowered(folder: Path, form: QuantForm, *, vnni: bool) -> Any:
    # Here, since it brings onnx, which `edgekd bench` does without.
    from edgekd.lower import check_lowering, lower

    start = _start(folder)
    if start.stem == "float":
        return lower(Master(start, ()), form)
    master = Master.load(folder)
    model = lower(master, form, vnni=vnni)
    check_lowering(master, model, form)
    return model
