"""The order of the stages: from a recipe to one bundle for each target."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.pipeline.bundle import BundleStage, publish_and_verify
from edgekd.pipeline.compile import CompileStage, build_precision
from edgekd.pipeline.context import Context
from edgekd.pipeline.judged import judged_beside, judged_form, recipes_targets
from edgekd.pipeline.measure import MeasureStage
from edgekd.pipeline.preflight import check_request
from edgekd.pipeline.quantize import QuantizeStage
from edgekd.pipeline.train import DistillStage, FinetuneStage, TeacherStage
from edgekd.recipe import Recipe
from edgekd.stage import Artifact, NoProgress, Progress, Stage, StageRun, run_stage
from edgekd.store import Store
from edgekd.target import Target, load_target

__all__ = ["BuildResult", "build"]


@dataclass(frozen=True)
class BuildResult:
    """What a build made: a row a bundle and a row a stage, as ``edgekd build --json`` prints them."""

    bundles: list[dict[str, Any]]
    seconds: float
    stages: list[dict[str, Any]]

    @property
    def missed(self) -> list[str]:
        """The figures of the budget that are not met, with their target."""
        return [f"{row['target']}: {line}" for row in self.bundles for line in row["budget"]["missed"]]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return {"bundles": self.bundles, "seconds": round(self.seconds, 3), "stages": self.stages}


def build(
    recipe: Recipe,
    targets: Sequence[str | Target] | None = None,
    *,
    out: Path = Path("dist"),
    progress: Progress | None = None,
    jobs: int | None = None,
    reproduce: str = "",
    store: Store | None = None,
) -> BuildResult:
    """Run every stage that the store does not have yet, and write ``out/NAME-TARGET`` for each of ``targets``.

    ``targets`` are names, files or `Target` values (None: the recipe's); ``jobs`` the threads of training;
    ``reproduce`` the command that the bundle names.

    Raises:
        EdgekdError: whatever is wrong, with its exit code.
    """
    begin = time.perf_counter()
    progress = progress or NoProgress()
    named = [one if isinstance(one, Target) else load_target(one) for one in targets or recipe.targets]
    check_request(recipe, named, out)
    plan = [build_precision(target, recipe.quantize.precision) for target in named]
    runs = _Runs(store or Store(), progress)
    with runs.store.session():
        integer = any(target.precision == "int8" for target in plan)
        own = recipes_targets(recipe, progress) if integer else []
        context = Context(recipe, jobs, integer=integer, judged=judged_form([*plan, *own]))
        shared = _shared_stages(context, runs)
        bundles = []
        for target in plan:
            inputs = dict(shared)
            inputs["compile"] = runs.run(CompileStage(context, target), inputs, target.name)
            inputs["measure"] = runs.run(MeasureStage(context, target), inputs, target.name)
            beside = judged_beside(target, own, plan) if integer else ()
            packed = runs.run(BundleStage(context, target, reproduce, beside), inputs, target.name)
            bundles.append(publish_and_verify(packed.path, out / f"{recipe.name}-{target.name}"))
    return BuildResult(bundles, time.perf_counter() - begin, runs.rows)


class _Runs:
    """Runs stages and keeps a row of each."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self.store, self.progress = store, progress
        self.rows: list[dict[str, Any]] = []

    def run(self, stage: Stage, inputs: dict[str, Artifact], target: str | None = None) -> Artifact:
        done: StageRun = run_stage(self.store, stage, inputs, self.progress)
        self.rows.append(
            {"name": stage.name, "target": target, "cached": done.cached, "seconds": round(done.seconds, 3)}
        )
        return done.artifact


def _shared_stages(context: Context, runs: _Runs) -> dict[str, Artifact]:
    """Everything that all targets share: up to the master."""
    inputs: dict[str, Artifact] = {}
    inputs["teacher"] = runs.run(TeacherStage(context), inputs)
    inputs["distill"] = inputs["student"] = runs.run(DistillStage(context), inputs)
    if context.recipe.finetune.epochs:
        inputs["finetune"] = inputs["student"] = runs.run(FinetuneStage(context), inputs)
    inputs["quantize"] = runs.run(QuantizeStage(context), inputs)
    return inputs
