"""The one training loop: teachers, distillation, fine-tuning and quantization-aware training go through it.

Resuming is exact: all random numbers of an epoch come from generators seeded by (seed, epoch), and a checkpoint of the
last whole epoch lies in the stage's scratch folder, so a training that was killed ends with the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgekd.data.augment import augment
from edgekd.data.source import DataSource
from edgekd.distill.checkpoint import load_checkpoint, save_checkpoint
from edgekd.distill.predict import evaluation_mode
from edgekd.distill.teacher_cache import TeacherCache
from edgekd.errors import TrainingDiverged
from edgekd.stage import Progress

# loss(outputs, teacher's outputs or None, labels, epoch) -> scalar
Loss = Callable[[Tensor, Tensor | None, Tensor, int], Tensor]


@dataclass(frozen=True)
class Settings:
    """How a training runs; ``lr`` warms up linearly for ``warmup_epochs``, then falls to zero along a cosine."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0
    seed: int = 0
    augment: tuple[str, ...] = ()
    precision: str = "auto"
    channels_last: bool | str = "auto"
    label: str = "training"


@dataclass(frozen=True)
class Fitted:
    """What `fit` did: a row an epoch (loss, val), and which epoch's weights the model holds now."""

    history: list[dict[str, Any]]
    best_epoch: int
    best_metric: float


def fit(
    module: nn.Module,
    source: DataSource,
    *,
    loss: Loss,
    settings: Settings,
    evaluate: Callable[[nn.Module], float],
    scratch: Path,
    progress: Progress,
    teacher: TeacherCache | None = None,
    along: nn.Module | None = None,
    on_epoch_start: Callable[[int], None] | None = None,
) -> Fitted:
    """Train ``module`` in place and leave in it the weights of the epoch that was best by ``evaluate``.

    ``teacher`` gives outputs to imitate; ``along`` is a module trained together (its gradients come through the loss).
    Raises:
        TrainingDiverged: the loss is NaN or infinite, or evaluation is NaN; the last checkpoint is kept.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator="auto", devices=1, precision=_precision(settings.precision))
    fabric.launch()
    device = fabric.device
    layout = _channels_last(settings.channels_last, source)
    modules = nn.ModuleList([module] if along is None else [module, along])
    modules.to(device=device)
    if layout:
        for one in modules:
            _to_channels_last(one)
    parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    optimizer = fabric.setup_optimizers(optimizer)

    path = scratch / "training.pt"
    state = load_checkpoint(path)
    history: list[dict[str, Any]] = []
    best: dict[str, Any] = {"metric": -math.inf, "epoch": -1, "state": _state(modules)}
    if state is not None:
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        history, best = state["history"], state["best"]
        progress.log(f"{settings.label}: resumed after epoch {len(history)} of {settings.epochs}")
    steps = math.ceil(len(source.train) / settings.batch_size)  # type: ignore[arg-type]
    progress.task(settings.label, settings.epochs * steps)
    progress.advance(len(history) * steps)

    for epoch in range(len(history), settings.epochs):
        if on_epoch_start is not None:
            on_epoch_start(epoch)
        for one in modules:
            evaluation_mode(one, training=True)
        torch.manual_seed(_seed(settings.seed, epoch))
        total, count = torch.zeros((), device=device), 0
        for step, (x, y, wanted) in enumerate(_batches(source, settings, epoch, device, teacher)):
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * _schedule(epoch * steps + step, steps, settings)
            if layout:
                x = x.contiguous(memory_format=torch.channels_last)
            with fabric.autocast():
                value = loss(module(x), wanted, y, epoch)
            if not torch.isfinite(value):
                raise _diverged(
                    f"the loss is {value.item()} in epoch {epoch + 1}, step {step + 1}", settings, path, history
                )
            fabric.backward(value)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += value.detach() * len(y)
            count += len(y)
            progress.advance(1)
        metric = evaluate(module)
        if math.isnan(metric):
            raise _diverged(f"the validation metric is NaN after epoch {epoch + 1}", settings, path, history)
        modules.to(device)
        history.append({"epoch": epoch + 1, "loss": float(total) / max(count, 1), "val": metric})
        if metric >= best["metric"]:
            best = {"metric": metric, "epoch": epoch + 1, "state": _state(modules)}
        save_checkpoint(
            path, {"modules": _state(modules), "optimizer": optimizer.state_dict(), "history": history, "best": best}
        )
        progress.log(
            f"  {settings.label}: epoch {epoch + 1}/{settings.epochs}, loss {history[-1]['loss']:.4f}, val {metric:.4f}"
        )
    modules.load_state_dict(best["state"])
    modules.to("cpu")
    for one in modules:
        evaluation_mode(one)
    return Fitted(history, best["epoch"], best["metric"])


def _batches(
    source: DataSource, settings: Settings, epoch: int, device: torch.device, teacher: TeacherCache | None
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Augmented batches of one epoch with the teacher's outputs for the very same samples."""
    generator = torch.Generator().manual_seed(_seed(settings.seed, epoch))
    held = source.tensors("train")
    if held is None:
        for x, y in source.loader("train", settings.batch_size, shuffle=True, generator=generator):
            x = augment(x, settings.augment, generator).to(device)
            yield x, y.to(device), teacher.outputs(x) if teacher else None
        return
    labels = held[1].to(device)
    view = teacher.view(epoch) if teacher else None
    x = view.samples if view else held[0].to(device)
    for picked in torch.randperm(len(labels), generator=generator).split(settings.batch_size):
        if len(picked) == 1 and len(labels) > 1:
            continue  # BatchNorm has no variance over one sample
        where = picked.to(device)
        batch = x[where] if view else augment(x[where], settings.augment, generator)
        yield batch, labels[where], view.outputs[where] if view else None


def _schedule(step: int, steps: int, settings: Settings) -> float:
    warm = settings.warmup_epochs * steps
    if step < warm:
        return (step + 1) / warm
    share = (step - warm) / max(1.0, settings.epochs * steps - warm)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def _seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch


def _precision(name: str) -> Any:
    if name == "bf16":
        return "bf16-mixed"
    # On CPUs bf16 pays only with AMX and then changes results between machines: it must be asked for.
    return "bf16-mixed" if name == "auto" and torch.cuda.is_available() else "32-true"


def _channels_last(wanted: bool | str, source: DataSource) -> bool:
    # Measured with oneDNN: depthwise training is two to three times faster so, dense convolutions a third.
    return len(source.input_shape) == 3 and (True if wanted == "auto" else bool(wanted))


def _to_channels_last(module: nn.Module) -> None:
    """Only where it holds 4-d weights; values do not change."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}


def _diverged(what: str, settings: Settings, path: Path, history: list[dict[str, Any]]) -> TrainingDiverged:
    kept = f"the checkpoint after epoch {len(history)} is kept in {path}" if history else "no epoch was finished"
    return TrainingDiverged(
        f"{what}; {kept}",
        where=settings.label,
        remedy=f"lower its learning rate (now {settings.lr:g}), or check the data",
    )
