"""What the quantize stage leaves of a small network, and a runtime that computes one layer wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from edgekd.quantize import export_float, write_float_weights, write_master
from edgekd.quantize.post_training import PostTraining, Techniques, prepared_student
from edgekd.target import load_calibration


class Tokens(nn.Module):
    """A patch embedding, a square and two oblong linear layers on its tokens, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.square = nn.Conv2d(1, 16, 2, stride=2), nn.Linear(16, 16)
        self.wide, self.narrow, self.head = nn.Linear(16, 24), nn.Linear(24, 16, bias=False), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.square(self.embed(x).flatten(2).transpose(1, 2)).relu()
        return self.head(self.narrow(self.wide(x).relu()).relu().mean(1))


def chain(*, shared: bool = False) -> nn.Module:
    """Three convolutions and a head; ``shared``: the last convolution is the one before it again."""
    body = [
        nn.Conv2d(1, 16, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
    ]
    if shared:
        body[4] = body[2]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(64, 5))


def write(
    folder: Path,
    techniques: Techniques = Techniques(),  # noqa: B008 (frozen)
    *,
    net: Callable[[], nn.Module] = chain,
) -> nn.Module:
    """The master of a network for (1, 8, 8), samples and the float student's outputs; returns the student."""
    torch.manual_seed(0)
    student = net().eval()
    samples = torch.randn(64, 1, 8, 8)
    export_float(student, samples[:2], folder / "float.onnx")
    post_training = PostTraining(prepared_student(student, [samples], load_calibration("default")), [samples])
    prepared = post_training.build(techniques)
    master = write_master(prepared, samples[:2], folder)
    write_float_weights(master.path, prepared, post_training.floating(techniques), folder / "float_weights.npz")
    with torch.no_grad():
        outputs = student(samples).numpy()
    np.savez(folder / "proof_samples.npz", samples=samples.numpy(), labels=outputs.argmax(1), outputs=outputs)
    return student


def spoil(path: Path, weight: str, factor: float, to: Path) -> None:
    """A lowered file with all scales of one weight ``factor`` times as large."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == f"{weight}_scale":
            scale = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(scale, tensor.name))
            break
    else:
        raise KeyError(weight)
    onnx.save(model, to)


@dataclass
class WrongRuntime:
    """A real backend that multiplies one layer's weights, which no file shows."""

    real: Any
    weight: str
    factor: float

    def compile(self, path: Path, target: Any, out: Path, *, form: Any = None) -> Any:
        """A file that is spoilt in secret."""
        (out / "inner").mkdir(exist_ok=True)
        spoil(path, self.weight, self.factor, out / "inner" / "model.onnx")
        made = self.real.compile(out / "inner" / "model.onnx", target, out / "inner", form=form)
        return type(made)(made.backend, made.path, path, made.meta)

    def load(self, compiled: Any, target: Any) -> Any:
        """See `Backend.load`."""
        return self.real.load(compiled, target)

    def coverage(self, compiled: Any, target: Any) -> Any:
        """See `Backend.coverage`."""
        return self.real.coverage(compiled, target)
