"""Layers behind operators that no rule knows: integer in the compiled file, while those operators stay float."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lowered_nets import forms_of, target_of
from test_rewritten import CPUS, around, samples
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.backends import get_backend
from edgekd.lower import check_lowering, lower
from edgekd.lower.graph import Graph
from edgekd.measure.proof import onnx_run
from edgekd.quantize import calibrated, write_master
from edgekd.target import CalibrationPolicy


class Do(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Normalized(nn.Module):
    """The network's input, as it is before the usual preprocessing."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)


class Likeness(nn.Module):
    """Cosines between places of the image, as numbers of each place."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.normalize(x.flatten(2), dim=1)
        return x + (y @ (y.transpose(1, 2) @ y)).view_as(x)


def conv() -> nn.Conv2d:
    return nn.Conv2d(64, 64, 3, padding=1)


def padded_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2)


# The network, how many of its layers and products are there, and which values in front of them have a site.
NETS: dict[str, tuple[Callable[[], nn.Module], int, set[str]]] = {
    "prelu": (lambda: around(nn.PReLU(64), conv()), 3, {"prelu"}),
    "prelu and a pool": (lambda: around(nn.PReLU(), nn.MaxPool2d(2), conv()), 3, {"prelu", "max_pool2d"}),
    "clamp": (lambda: around(Do(lambda x: x.clamp(0, 4)), conv()), 3, {"clamp"}),
    "bilinear": (lambda: around(nn.Upsample(scale_factor=2, mode="bilinear"), conv()), 3, {"upsample_bilinear2d"}),
    "group norm": (lambda: around(conv(), nn.GroupNorm(4, 64), conv()), 4, {"group_norm"}),
    "in front": (lambda: nn.Sequential(Normalized(), around()), 2, {"div"}),
    # No range holds what a pool pads with: the site is behind the pool.
    "infinite padding": (lambda: around(Do(padded_pool), conv()), 3, {"max_pool2d"}),
    "products": (lambda: around(conv(), Likeness(), nn.ReLU(), conv()), 6, {"div"}),
}


@pytest.mark.parametrize("name", NETS)
def test_layers_behind_operators_without_a_rule_are_integer(name: str, tmp_path: Path) -> None:
    make, count, behind = NETS[name]
    torch.manual_seed(0)
    net = make().eval()
    made = calibrated(net, samples(1).split(8), CalibrationPolicy(), bias_correction=True, equalization=True)
    assert made.without_rule
    master = write_master(made, samples(1)[:2], tmp_path)
    tensors = {site.tensor for site in master.sites}
    assert behind <= tensors
    assert "pad" not in tensors
    assert len(tensors) == len(master.sites)
    x = samples(2).numpy()
    with torch.no_grad():
        wanted = net(samples(2)).numpy()
    for backend in (*CPUS, "tensorrt"):
        form, path = next(iter(forms_of(backend).values())), tmp_path / f"{backend}.onnx"
        model = lower(master, form)
        check_lowering(master, model, form)
        onnx.save(model, path)
        assert np.abs(onnx_run(path)(x) - wanted).max() < 0.05 * np.abs(wanted).max()
        compiled = get_backend(backend).compile(path, target_of(backend), tmp_path, form=form)
        if backend not in CPUS:
            convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
            assert all(Graph(model).is_quantized(node.input[0]) for node in convolutions)
            continue
        found = get_backend(backend).load(compiled, target_of(backend)).run({"input": x})["logits"]
        assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
        layers = get_backend(backend).coverage(compiled, target_of(backend))
        assert [layer.integer for layer in layers] == [True] * count, backend
