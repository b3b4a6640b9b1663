"""The stage that makes the candidates of one target, times them, and keeps the fastest honest one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.backends import Backend, get_backend
from edgekd.forms import CompiledModel
from edgekd.measure import Candidate, Choice, Comparison, ModelSpec, choose, compare, compare_all, machine_key
from edgekd.measure.proof import onnx_run
from edgekd.pipeline.alone import measuring_alone
from edgekd.pipeline.candidates import CandidateMaker, Made, make_candidates, session_run
from edgekd.pipeline.context import Context, versions
from edgekd.pipeline.mixed import mixed_candidates
from edgekd.pipeline.quantize import allowed_drop
from edgekd.runtime.choosing import as_fast
from edgekd.runtime.spec import load_arrays
from edgekd.stage import Artifact, Progress, Stage, make_key
from edgekd.target import Target

# The packages of a backend that decide what it makes of a file and how fast; ONNX Runtime proves every backend's.
RUNTIME_PACKAGES = {
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "onnxruntime", "openvino"),
    "tensorrt": (
        "onnx",
        "onnxruntime",
        "tensorrt",
        "tensorrt_rtx",
        "tensorrt-rtx-cu13-bindings",
        "onnxruntime-ep-nv-tensorrt-rtx-cu13",
    ),
}
# Validation samples that decide whether a candidate's accuracy stays in the budget: run by the target's own runtime,
# or where the target is elsewhere by the reference, which is slow.
CHOICE_SAMPLES, REFERENCE_SAMPLES = 2000, 512
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
        """Write candidates/NAME/… and choice.json."""
        target, folder = self.target, inputs["quantize"].path
        backend = get_backend(target.backend)
        maker = make_candidates(backend, target, folder, out, progress)
        self._score(maker.made, backend)
        search = self._mixed(maker, scratch)
        made = maker.made
        comparison: Comparison | None = None
        if target.is_here():
            with measuring_alone(progress):
                choice, comparison = self._race(made, backend, folder, scratch, progress)
        else:
            for one in made:
                one.row |= {"ratio": None, "interval": None, "median_ms": None}
            choice = self._choose(made)
        for index, one in enumerate(made):
            one.row["chosen"] = index == choice.index
        result = {
            "candidates": [one.row for one in made],
            "left_out": maker.left,
            "search": search,
            "why": choice.reason,
            "comparison": comparison.to_json() if comparison else None,
        }
        (out / "choice.json").write_text(json.dumps(result, indent=1))
        return {"chosen": made[choice.index].row["name"], "why": choice.reason}

    def _score(self, made: list[Made], backend: Backend) -> None:
        """``accuracy`` on the validation split, and whether it is near enough to the float student's."""
        for one in made:
            if "accuracy" not in one.row:
                one.row["accuracy"] = self._accuracy(one.compiled, backend)
        for one in made:
            one.row["accurate"] = self._near(one.row["accuracy"], made)

    def _accuracy(self, compiled: CompiledModel, backend: Backend) -> float:
        """The metric on the validation samples that decide."""
        here = self.target.is_here()
        run = session_run(backend.load(compiled, self.target)) if here else onnx_run(compiled.onnx)
        parts = [(run(x), y) for x, y in self.context.batches("val", limit=self._samples())]
        outputs, labels = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        return self.context.score(outputs, labels)

    def _samples(self) -> int:
        return len(self.context.picked("val", CHOICE_SAMPLES if self.target.is_here() else REFERENCE_SAMPLES))

    def _near(self, accuracy: float, made: list[Made]) -> bool:
        """Whether an accuracy is within the points allowed of the float candidate's, the last."""
        # One sample of a small validation split may be more than these.
        allowed = max(allowed_drop(self.context.recipe.budget.max_accuracy_drop) / 100, 1.5 / self._samples())
        return bool(accuracy >= made[-1].row["accuracy"] - allowed - 1e-9)

    def _mixed(self, maker: CandidateMaker, scratch: Path) -> dict[str, Any] | None:
        """Add candidates in mixed precision behind the other integer ones; what was searched."""
        known = list(maker.made)
        if self.target.precision != "int8" or not known[0].row["integer"]:
            return None
        backend = maker.backend
        told = mixed_candidates(
            maker,
            accurate=known[0].row["accurate"],
            keeps=lambda compiled: self._near(self._accuracy(compiled, backend), known),
            scratch=scratch / "mixed",
        )
        integers = sum(one.row["integer"] for one in known)
        maker.made[:] = [*known[:integers], *maker.made[len(known) :], *known[integers:]]
        self._score(maker.made, backend)
        return told

    def _race(
        self, made: list[Made], backend: Backend, folder: Path, scratch: Path, progress: Progress
    ) -> tuple[Choice, Comparison | None]:
        """Time all candidates, choose, and measure the chosen one against float anew; one not `as_fast` is not kept."""
        recipe, target = self.context.recipe, self.target
        pairs, seconds = recipe.measure.pairs, recipe.measure.seconds
        feeds = {"input": load_arrays(folder / "proof_samples.npz")["samples"][:1]}
        specs = [ModelSpec.of(backend, one.compiled, target, feeds, scratch) for one in made]
        made[-1].row |= {"ratio": 1.0, "interval": [1.0, 1.0], "median_ms": None}
        if len(made) > 1:
            progress.log(f"{target.name}: timing {len(made)} candidates in {pairs} rounds of fresh processes")
            timed = compare_all(specs[:-1], specs[-1], pairs=pairs, seconds=SHARE * seconds, seed=recipe.seed)
            for one, found in zip(made, timed, strict=False):
                one.row |= _times(found)
            made[-1].row["median_ms"] = timed[0].against_median_ms
        while True:
            choice = self._choose(made)
            if choice.index == len(made) - 1:
                return choice, None
            name = made[choice.index].row["name"]
            progress.log(f"{target.name}: {name} against float, in {pairs} pairs of fresh processes")
            found = compare(specs[choice.index], specs[-1], pairs=pairs, seconds=seconds, seed=recipe.seed + 1)
            fast = as_fast((found.ratio, found.low, found.high), (1.0, 1.0, 1.0))
            if fast or self._ships_at_any_speed(made[choice.index]):
                return choice, found
            # The winner of a race was partly lucky. The rule that chose it leaves it out with its new times, so that
            # each is met once.
            told = f"{found.ratio:.2f} of float's latency, {found.low:.2f} to {found.high:.2f}"
            progress.log(f"{target.name}: {name} is not shown to be as fast as float ({told}), and is not kept")
            made[choice.index].row |= _times(found)

    def _choose(self, made: list[Made]) -> Choice:
        rows, prefer = [one.row for one in made], self.context.recipe.quantize.prefer
        if self.target.precision != "int8":
            return _float_choice(rows, self.target, small=prefer == "size")
        return choose([_candidate(row) for row in rows], prefer=prefer)

    def _ships_at_any_speed(self, one: Made) -> bool:
        asked_for_size = self.context.recipe.quantize.prefer == "size" and one.row["integer"]
        return asked_for_size or self.target.precision != "int8"


def build_precision(target: Target, wanted: str) -> Target:
    """The target in the precision that is built: the recipe's where it asks for floats, else the target's own.

    Raises:
        BadTarget: its backend has no such form.
    """
    chosen = target if wanted in ("int8", target.precision) else target.model_copy(update={"precision": wanted})
    get_backend(target.backend).candidates(chosen)
    return chosen


def _float_choice(rows: list[dict[str, Any]], target: Target, *, small: bool) -> Choice:
    """What ships where a float precision is asked for; ``small``: weights in int8, where they keep the accuracy."""
    for index, row in enumerate(rows):
        if small and row["form"]["weights"] == "int8" and row["accurate"]:
            return Choice(index, f"{target.precision} is asked for, and the recipe prefers size: int8 weights alone")
    rtx = "; TensorRT for RTX documents int8 for weights only" if target.runtime.flavour == "rtx" else ""
    return Choice(0, f"{target.precision} is asked for{rtx}")


def _times(found: Comparison) -> dict[str, Any]:
    return {"ratio": found.ratio, "interval": [found.low, found.high], "median_ms": found.median_ms}


def _candidate(row: dict[str, Any]) -> Candidate:
    low, high = row["interval"] or (None, None)
    return Candidate(row["name"], row["integer"], row["ratio"], low, high, row["size_bytes"], row["accurate"])
