"""The trainings of a build: teacher, distillation, fine-tuning and quantization-aware training, all through `fit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from edgekd.distill.loop import FitResult, fit
from edgekd.distill.objective import Objective
from edgekd.distill.optimizer import OptimizerConfig
from edgekd.distill.predict import predict
from edgekd.recipe import DataConfig, DistillConfig, FinetuneConfig, QuantizeConfig, TeacherConfig, Temperature
from edgekd.stage import Progress
from edgekd.tasks import Task

if TYPE_CHECKING:
    from edgekd.data.source import DataSource

# A trained network starts anew with a small rate: a fifth of an epoch lets the optimizer find its scales.
SHORT_WARMUP = 0.2


def train_teacher(
    model: nn.Module,
    source: DataSource,
    *,
    config: TeacherConfig,
    data: DataConfig,
    task: Task,
    seed: int,
    scratch: Path,
    progress: Progress,
) -> FitResult:
    """Train ``model`` on the labels of ``source``, in place; see `fit` for what is kept and raised."""
    return fit(
        model,
        source,
        loss=lambda outputs, _, y, epoch: task.loss(outputs, y, config.label_smoothing),
        optimizer_config=OptimizerConfig(config.lr, config.weight_decay, config.warmup_epochs),
        epochs=config.epochs,
        evaluate=_on_validation(source, task),
        label="teacher",
        **_shared(data, seed, scratch, progress),
    )


def distill(
    student: nn.Module,
    teacher: nn.Module,
    source: DataSource,
    *,
    config: DistillConfig,
    data: DataConfig,
    task: Task,
    seed: int,
    scratch: Path,
    progress: Progress,
) -> FitResult:
    """Train ``student`` in place to imitate ``teacher``, which is fixed, or trained along on the labels."""
    objective = Objective(task, config.loss, config.temperature, config.alpha, config.epochs)
    optimizer_config = OptimizerConfig(config.lr, config.weight_decay, config.warmup_epochs)
    more: dict[str, Any] = {
        "optimizer_config": optimizer_config,
        "epochs": config.epochs,
        "precision": config.precision,
        "channels_last": config.channels_last,
        "label": "distillation",
        **_shared(data, seed, scratch, progress),
    }
    evaluate = _on_validation(source, task)
    if not config.train_teacher:
        guide = _Imitated(teacher, task)
        return fit(
            student,
            source,
            loss=objective,
            teacher=guide,
            teacher_views=config.teacher_views,
            evaluate=evaluate,
            **more,
        )

    def together(outputs: tuple[Tensor, Tensor], _: Tensor | None, y: Tensor, epoch: int) -> Tensor:
        ours, theirs = outputs
        # The teacher learns from the labels alone: it is not pulled towards its student.
        imitated = task.distill_outputs(theirs).detach()
        return objective(ours, imitated, y, epoch) + task.loss(theirs, y)

    pair = _Pair(student, teacher)
    return fit(pair, source, loss=together, evaluate=lambda both: evaluate(pair.student), **more)


def finetune(
    student: nn.Module,
    source: DataSource,
    *,
    config: FinetuneConfig,
    data: DataConfig,
    task: Task,
    seed: int,
    scratch: Path,
    progress: Progress,
) -> FitResult:
    """Train ``student`` in place on the labels alone; it stays as it was where that does not help on validation."""
    return fit(
        student,
        source,
        loss=lambda outputs, _, y, epoch: task.loss(outputs, y),
        optimizer_config=OptimizerConfig(config.lr, warmup_epochs=SHORT_WARMUP),
        epochs=config.epochs,
        evaluate=_on_validation(source, task),
        keep_start=True,
        label="fine-tuning",
        **_shared(data, seed, scratch, progress),
    )


def quantization_aware(
    module: nn.Module,
    guide: nn.Module,
    source: DataSource,
    *,
    config: QuantizeConfig,
    distill: DistillConfig,
    data: DataConfig,
    task: Task,
    seed: int,
    scratch: Path,
    progress: Progress,
    evaluate: Callable[[nn.Module], float] | None = None,
    on_epoch_start: Callable[[int], None] | None = None,
) -> FitResult:
    """Train ``module``, prepared with fake-quantize modules, to imitate ``guide``; calibrated alone it may stay best.

    ``evaluate`` should hold the ranges still (None: the metric on validation, ranges as they are switched).
    Always in float32: bfloat16 cannot hold what a fake-quantize module gives.
    """
    last = distill.temperature.end if isinstance(distill.temperature, Temperature) else distill.temperature
    return fit(
        module,
        source,
        loss=Objective(task, distill.loss, last, distill.alpha, config.epochs),
        optimizer_config=OptimizerConfig(config.lr, warmup_epochs=SHORT_WARMUP),
        epochs=config.epochs,
        teacher=_Imitated(guide, task),
        teacher_views=distill.teacher_views,
        evaluate=evaluate or _on_validation(source, task),
        on_epoch_start=on_epoch_start,
        precision="32",
        keep_start=True,
        label="quantization-aware training",
        **_shared(data, seed, scratch, progress),
    )


class _Imitated(nn.Module):
    """A fixed teacher, giving what its student imitates."""

    def __init__(self, teacher: nn.Module, task: Task) -> None:
        super().__init__()
        self.teacher, self.task = teacher, task

    def forward(self, x: Tensor) -> Tensor:
        return self.task.distill_outputs(self.teacher(x))


class _Pair(nn.Module):
    """Student and teacher, trained in one loop by one optimizer."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.student(x), self.teacher(x)


def _on_validation(source: DataSource, task: Task) -> Callable[[nn.Module], float]:
    def evaluate(module: nn.Module) -> float:
        return float(task.metric(*predict(module, source, "val"))[task.metric_name])

    return evaluate


def _shared(data: DataConfig, seed: int, scratch: Path, progress: Progress) -> dict[str, Any]:
    return {
        "batch_size": data.batch_size,
        "augment": data.augment,
        "seed": seed,
        "scratch": scratch,
        "progress": progress,
    }
