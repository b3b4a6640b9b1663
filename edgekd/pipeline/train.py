"""The stages that train: teacher, distillation, fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.pipeline.context import Context, versions
from edgekd.pipeline.preflight import check_training
from edgekd.stage import Artifact, Progress, Stage, make_key

if TYPE_CHECKING:
    from torch import nn

TRAINING_PACKAGES = ("torch", "torchvision", "lightning-fabric", "timm")
TRAINING_CODE = (
    "data",
    "models",
    "tasks",
    "distill",
    "runtime/preprocess.py",
    "pipeline/context.py",
    "pipeline/train.py",
)
# The weights of every trained artifact.
WEIGHTS = "model.safetensors"


class TeacherStage(Stage):
    """The teacher: given weights are used as they are, none means that it is trained first."""

    name = "teacher"
    version = 1
    code = TRAINING_CODE

    def __init__(self, context: Context) -> None:
        self.context = context

    def key(self, inputs: dict[str, Artifact]) -> str:
        """Hash of the teacher's part of the recipe, the data and the weights file."""
        recipe = self.context.recipe
        part: dict[str, Any] = {"teacher": self.context.model_part(recipe.teacher), "data": self.context.data_part()}
        part |= {"task": recipe.task, "seed": recipe.seed}
        if not recipe.teacher.weights:
            part["training"] = recipe.teacher.model_dump(mode="json", exclude={"model", "args", "weights"})
        return make_key(self, part, inputs, versions(*TRAINING_PACKAGES))

    def run(self, inputs: dict[str, Artifact], out: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Write the weights, the test set's labels and logits, and the training's history."""
        from edgekd.distill import train_teacher

        check_training(self.context)
        context, config = self.context, self.context.recipe.teacher
        module = context.model(config, Path(config.weights) if config.weights else None)
        history: list[dict[str, Any]] = []
        if not config.weights:
            progress.log(f"teacher {config.model}: no weights are given, so it is trained for {config.epochs} epochs")
            history = train_teacher(
                module,
                context.source,
                config=config,
                scratch=scratch,
                progress=progress,
                **context.training(),
            ).history
        return _write_outcome(context, module, out, history)


class DistillStage(Stage):
    """The student, trained to imitate the teacher."""

    name = "distill"
    version = 1
    code = TRAINING_CODE

    def __init__(self, context: Context) -> None:
        self.context = context

    def key(self, inputs: dict[str, Artifact]) -> str:
        """Hash of the student's and the distillation's part of the recipe, and the teacher's key."""
        recipe = self.context.recipe
        part = {
            "student": self.context.model_part(recipe.student),
            "distill": recipe.distill.model_dump(mode="json"),
            "data": self.context.data_part(),
        }
        return make_key(self, part, inputs, versions(*TRAINING_PACKAGES))

    def run(self, inputs: dict[str, Artifact], out: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Write the student's weights, the test set's labels and logits, and the training's history."""
        from edgekd.distill import distill

        check_training(self.context)
        context, recipe = self.context, self.context.recipe
        teacher = context.model(recipe.teacher, inputs["teacher"].path / WEIGHTS)
        student = context.model(recipe.student, Path(recipe.student.weights) if recipe.student.weights else None)
        history: list[dict[str, Any]] = []
        if recipe.distill.epochs:
            history = distill(
                student,
                teacher,
                context.source,
                config=recipe.distill,
                scratch=scratch,
                progress=progress,
                **context.training(),
            ).history
        return _write_outcome(context, student, out, history)


class FinetuneStage(Stage):
    """The student, trained on with the labels alone."""

    name = "finetune"
    version = 1
    code = TRAINING_CODE

    def __init__(self, context: Context) -> None:
        self.context = context

    def key(self, inputs: dict[str, Artifact]) -> str:
        """Hash of the fine-tuning's part of the recipe and the distilled student's key."""
        part = {"finetune": self.context.recipe.finetune.model_dump(mode="json")}
        return make_key(self, part, inputs, versions(*TRAINING_PACKAGES))

    def run(self, inputs: dict[str, Artifact], out: Path, scratch: Path, progress: Progress) -> dict[str, Any]:
        """Write what `DistillStage` writes."""
        from edgekd.distill import finetune

        context, recipe = self.context, self.context.recipe
        student = context.model(recipe.student, inputs["distill"].path / WEIGHTS)
        history = finetune(
            student,
            context.source,
            config=recipe.finetune,
            scratch=scratch,
            progress=progress,
            **context.training(),
        ).history
        return _write_outcome(context, student, out, history)


def _write_outcome(context: Context, module: nn.Module, out: Path, history: list[dict[str, Any]]) -> dict[str, Any]:
    """Weights, outputs on the whole test set, the training's history; returns the artifact's meta."""
    from edgekd.distill import predict
    from edgekd.models import save_weights

    save_weights(module, out / WEIGHTS)
    outputs, labels = predict(module, context.source, "test")
    np.save(out / "test_outputs.npy", outputs)
    np.save(out / "test_labels.npy", labels)
    (out / "history.json").write_text(json.dumps(history))
    return {
        "accuracy": context.score(outputs, labels),
        "metric": context.task.metric_name,
        "samples": len(labels),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
    }
