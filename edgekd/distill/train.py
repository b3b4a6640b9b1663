"""The trainings of a build: what each one's loss is; the loop is `edgekd.distill.loop`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.data.source import DataSource
from edgekd.distill.loop import Fitted, Settings, fit
from edgekd.distill.losses import LOSSES
from edgekd.distill.predict import predict
from edgekd.distill.teacher_cache import TeacherCache
from edgekd.distill.temperature import temperature_at
from edgekd.recipe import DataConfig, DistillConfig, FinetuneConfig, QuantizeConfig, TeacherConfig
from edgekd.stage import Progress
from edgekd.tasks import Task


def train_teacher(
    teacher: nn.Module,
    source: DataSource,
    *,
    config: TeacherConfig,
    data: DataConfig,
    task: Task,
    seed: int,
    scratch: Path,
    progress: Progress,
) -> Fitted:
    """Train a teacher on the labels, in place."""
    settings = Settings(
        epochs=config.epochs,
        batch_size=data.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        warmup_epochs=config.warmup_epochs,
        seed=seed,
        augment=data.augment,
        label="teacher",
    )

    def loss(outputs: Tensor, _: Tensor | None, labels: Tensor, __: int) -> Tensor:
        return task.loss(outputs, labels, config.label_smoothing)

    return fit(
        teacher,
        source,
        loss=loss,
        settings=settings,
        evaluate=_evaluate(source, task),
        scratch=scratch,
        progress=progress,
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
) -> Fitted:
    """Train ``student`` in place: alpha x the soft loss against the teacher + (1 - alpha) x the hard loss.

    With ``train_teacher`` the teacher learns along from the labels, and the student from what it says meanwhile.
    """
    settings = Settings(
        epochs=config.epochs,
        batch_size=data.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        warmup_epochs=config.warmup_epochs,
        seed=seed,
        augment=data.augment,
        precision=config.precision,
        channels_last=config.channels_last,
        label="distill",
    )
    common: dict[str, Any] = {
        "settings": settings,
        "evaluate": _evaluate(source, task),
        "scratch": scratch,
        "progress": progress,
    }
    soft = _soft_loss(config, task)
    if config.train_teacher:
        pair = _Pair(student, teacher)

        def loss_along(outputs: Tensor, _: Tensor | None, labels: Tensor, epoch: int) -> Tensor:
            taught, told = outputs
            return soft(taught, told.detach(), labels, epoch) + task.loss(told, labels)

        return fit(pair, source, loss=loss_along, **common | {"evaluate": lambda p: _evaluate(source, task)(p.student)})
    cache = TeacherCache(
        teacher,
        source,
        names=data.augment,
        views=config.teacher_views,
        seed=seed,
        folder=scratch,
        progress=progress,
    )
    return fit(student, source, loss=soft, teacher=cache, **common)


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
) -> Fitted:
    """Train ``student`` on the labels alone, in place; it stays as it was when no epoch is better."""
    settings = Settings(
        epochs=config.epochs,
        batch_size=data.batch_size,
        lr=config.lr,
        seed=seed + 1,
        augment=data.augment,
        label="finetune",
    )

    def loss(outputs: Tensor, _: Tensor | None, labels: Tensor, __: int) -> Tensor:
        return task.loss(outputs, labels)

    return fit(
        student,
        source,
        loss=loss,
        settings=settings,
        evaluate=_evaluate(source, task),
        scratch=scratch,
        progress=progress,
    )


def quantization_aware(
    prepared: nn.Module,
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
    on_epoch_start: Callable[[int], None],
) -> Fitted:
    """Train a fake-quantized graph in place to imitate ``guide`` (the float student or the teacher)."""
    settings = Settings(
        epochs=config.epochs,
        batch_size=data.batch_size,
        lr=config.lr,
        seed=seed + 2,
        augment=data.augment,
        # Half precision would blur the very rounding that is to be learned.
        precision="32",
        channels_last=False,
        label="quantization-aware training",
    )
    cache = TeacherCache(
        guide,
        source,
        names=data.augment,
        views=min(distill.teacher_views, max(1, config.epochs)),
        seed=seed + 2,
        folder=scratch,
        progress=progress,
    )
    return fit(
        prepared,
        source,
        loss=_soft_loss(distill.model_copy(update={"temperature": 2.0}), task),
        settings=settings,
        evaluate=_evaluate(source, task),
        scratch=scratch,
        progress=progress,
        teacher=cache,
        on_epoch_start=on_epoch_start,
    )


def _soft_loss(config: DistillConfig, task: Task) -> Callable[[Tensor, Tensor | None, Tensor, int], Tensor]:
    imitate = LOSSES[config.loss]

    def loss(outputs: Tensor, wanted: Tensor | None, labels: Tensor, epoch: int) -> Tensor:
        assert wanted is not None
        temperature = temperature_at(config.temperature, epoch, config.epochs)
        soft = imitate(task.distill_outputs(outputs).float(), task.distill_outputs(wanted).float(), temperature)
        return config.alpha * soft + (1 - config.alpha) * task.loss(outputs, labels)

    return loss


def _evaluate(source: DataSource, task: Task) -> Callable[[nn.Module], float]:
    return lambda module: float(task.metric(*predict(module, source, "val"))[task.metric_name])


class _Pair(nn.Module):
    """Student and teacher on the same input, for training them together."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both outputs."""
        return self.student(x), torch.as_tensor(self.teacher(x))
