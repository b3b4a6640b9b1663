"""Networks whose layers are rewritten before quantization, all the way to the compiled file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lowered_nets import forms_of, target_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from edgekd.backends import get_backend
from edgekd.forms import Master
from edgekd.lower import check_lowering, lower
from edgekd.measure.proof import onnx_run
from edgekd.quantize import calibrated, export_float, write_master
from edgekd.target import CalibrationPolicy

CPUS = ("onnxruntime", "openvino")


class Standardized(nn.Conv2d):
    """Weight standardization: more weights than the exporter folds by itself."""

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / (deviation + 1e-5), self.bias)


class Blurred(nn.Module):
    """A fixed kernel, kept as a buffer (antialiasing)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.tensor([1.0, 2, 1]).outer(torch.tensor([1.0, 2, 1])) / 16)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel.expand(64, 1, 3, 3), stride=2, padding=1, groups=64)


class Cosine(nn.Module):
    """Logits are cosines, times a temperature that is learned."""

    def __init__(self, inside: int, classes: int) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(classes, inside)), nn.Parameter(torch.tensor(16.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(x), F.normalize(self.weight))


def around(*middle: nn.Module, head: nn.Module | None = None) -> nn.Sequential:
    first = nn.Conv2d(3, 64, 3, padding=1)
    return nn.Sequential(
        first, nn.ReLU(), *middle, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head or nn.Linear(64, 10)
    )


def statistics() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(64)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


NETS: dict[str, Callable[[], nn.Module]] = {
    "standardized": lambda: around(Standardized(64, 64, 3, padding=1)),
    "standardized with a norm": lambda: around(Standardized(64, 64, 3, padding=1, bias=False), statistics()),
    "weight norm": lambda: around(weight_norm(nn.Conv2d(64, 64, 3, padding=1))),
    "blurred": lambda: around(nn.Conv2d(64, 64, 1), nn.ReLU(), Blurred()),
    "cosine": lambda: around(nn.Conv2d(64, 64, 1), head=Cosine(64, 1000)),
    "same padding": lambda: around(
        nn.Conv2d(64, 64, 3, padding="same"), nn.ReLU(), nn.Conv2d(64, 64, 4, padding="same"), statistics()
    ),
}
# Convolutions and linear layers in integers.
INTEGER = {"blurred": 4, "same padding": 4}


def samples(seed: int) -> Tensor:
    return torch.randn(16, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


@cache
def masters(name: str) -> tuple[Master, Master, np.ndarray]:
    """Strict and float, and what the network answers to the samples of seed 2."""
    torch.manual_seed(0)
    net = NETS[name]().eval()
    made = calibrated(net, samples(1).split(8), CalibrationPolicy(), bias_correction=True, equalization=True)
    folder = Path(_folder.name) / name
    folder.mkdir()
    export_float(net, samples(1)[:2], folder / "float.onnx")
    with torch.no_grad():
        wanted = net(samples(2)).numpy()
    return write_master(made, samples(1)[:2], folder), Master(folder / "float.onnx", ()), wanted


_folder = tempfile.TemporaryDirectory(prefix="edgekd-rewritten-")


@pytest.mark.parametrize("backend", [*CPUS, "tensorrt"])
@pytest.mark.parametrize("name", NETS)
def test_from_the_network_to_the_compiled_file(name: str, backend: str, tmp_path: Path) -> None:
    strict, floating, wanted = masters(name)
    x, forms = samples(2).numpy(), list(forms_of(backend).values())
    for form, tolerance in ((forms[0], 0.1), (forms[-1], 1e-3)):
        master = strict if form.integer else floating
        model, path = lower(master, form), tmp_path / f"{form.name}.onnx"
        check_lowering(master, model, form)
        onnx.save(model, path)
        assert np.abs(onnx_run(path)(x) - wanted).max() < tolerance * np.abs(wanted).max()
        compiled = get_backend(backend).compile(path, target_of(backend), tmp_path, form=form)
        if backend not in CPUS:
            continue
        found = get_backend(backend).load(compiled, target_of(backend)).run({"input": x})["logits"]
        assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()
        layers = get_backend(backend).coverage(compiled, target_of(backend))
        assert sum(layer.integer for layer in layers) == (INTEGER.get(name, 3) if form.integer else 0)
