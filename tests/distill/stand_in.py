"""A small synthetic data source and network that the tests of training share."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from edgekd.data.source import DataSource
from edgekd.distill import FitResult, OptimizerConfig, fit, predict
from edgekd.stage import NoProgress
from edgekd.tasks import get_task

TASK = get_task("classification")


def make_source(count: int = 97, classes: int = 3, *, in_memory: bool = True) -> DataSource:
    """Noise of a colour a class, as images of 2x6x6; 97 leaves a rest of one sample in batches of 32."""
    random = torch.Generator().manual_seed(0)
    centres = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.0]])[:classes, :, None, None]

    def split(size: int) -> TensorDataset:
        y = torch.arange(size) % classes
        return TensorDataset(centres[y] + torch.randn(size, 2, 6, 6, generator=random), y)

    source = DataSource(
        train=split(count),
        val=split(60),
        test=split(60),
        classes=[str(number) for number in range(classes)],
        preprocess={"layout": "none"},
        name="stand-in",
    )
    if not in_memory:
        source.tensors = lambda split: None  # type: ignore[method-assign]
    return source


class Net(nn.Module):
    """BatchNorm, dropout (random numbers) and a convolution."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(torch.relu(self.norm(self.conv(x))).mean((2, 3))))


def make_net(width: int = 8, seed: int = 1) -> Net:
    torch.manual_seed(seed)
    return Net(width)


def hard(outputs: Tensor, teacher: Tensor | None, y: Tensor, epoch: int) -> Tensor:
    return TASK.loss(outputs, y)


def run_fit(
    model: nn.Module, scratch: Path, *, source: DataSource | None = None, epochs: int = 4, **changed: object
) -> FitResult:
    """`fit` with the tests' settings."""
    source = source or make_source()

    def evaluate(module: nn.Module) -> float:
        return float(TASK.metric(*predict(module, source, "val"))["top1"])

    settings: dict[str, object] = {
        "loss": hard,
        "optimizer_config": OptimizerConfig(0.02, weight_decay=0.01, warmup_epochs=1),
        "epochs": epochs,
        "batch_size": 32,
        "seed": 3,
        "evaluate": evaluate,
        "augment": ("flip", "shift", "cutout"),
        "scratch": scratch,
        "progress": NoProgress(),
    }
    return fit(model, source, **(settings | changed))  # type: ignore[arg-type]


def same(one: nn.Module, other: nn.Module) -> bool:
    """Equal to the last bit."""
    state, reference = one.state_dict(), other.state_dict()
    return all(torch.equal(state[name], reference[name]) for name in reference)


def newest(module: nn.Module) -> float:
    """Metrics that make the last epoch the best, so that every step counts in a comparison of weights."""
    return 0.0
