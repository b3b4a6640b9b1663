"""Signed values that are moved on integers: the compiled model computes what the lowered file says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lowered_nets import forms_of, target_of
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.backends import get_backend
from edgekd.lower import check_lowering, lower
from edgekd.lower.graph import Graph
from edgekd.measure.proof import onnx_run
from edgekd.quantize import prepare, write_master


class Net(nn.Module):
    """Two convolutions, what is done with their outputs ``one`` and ``other``, a convolution and a linear layer."""

    def __init__(self, move: Callable[[Net, Tensor, Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.one, self.other, self.deep = (nn.Conv2d(count, 16, 3, padding=1) for count in (3, 3, 16))
        self.move, self.behind, self.head = move, nn.Conv2d(channels, 16, 3, padding=1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.behind(self.move(self, self.one(x), self.other(x))).mean((2, 3)))


def joined(*values: Tensor) -> Tensor:
    return torch.cat(values, 1)


# What moves the values, channels behind it, and whether they pass a concatenation.
MOVES: dict[str, tuple[Callable[[Net, Tensor, Tensor], Tensor], int, bool]] = {
    "concatenation": (lambda net, x, y: joined(x, y), 32, True),
    "with what a layer read": (lambda net, x, y: joined(net.deep(x.relu()), x.relu()), 32, True),
    "concatenation and a pool": (lambda net, x, y: F.max_pool2d(joined(x, y), 2), 32, True),
    "pools and a concatenation": (lambda net, x, y: joined(F.max_pool2d(x, 2), F.max_pool2d(y, 2)), 32, True),
    "roll": (lambda net, x, y: torch.roll(x, 2, 2), 16, True),
    "pool": (lambda net, x, y: F.max_pool2d(x, 2), 16, False),
    "nearest": (lambda net, x, y: F.interpolate(x, scale_factor=2.0), 16, False),
    "part": (lambda net, x, y: x[:, :, 2:9], 16, False),
    "addition": (lambda net, x, y: x + y, 16, False),
}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", MOVES)
def test_compiled_models_compute_what_the_file_says(name: str, backend: str, tmp_path: Path) -> None:
    move, channels, passes = MOVES[name]
    torch.manual_seed(0)
    net, x = Net(move, channels).eval(), torch.randn(16, 3, 12, 12)
    made = prepare(net, x[:2])
    made.calibrate([x])
    master = write_master(made, x[:2], tmp_path)
    target, form, path = target_of(backend), next(iter(forms_of(backend).values())), tmp_path / "model.onnx"
    model = lower(master, form, vnni=target.has_vnni())
    check_lowering(master, model, form, vnni=target.has_vnni())
    onnx.save(model, path)
    wanted = onnx_run(path)(x.numpy())
    compiled = get_backend(backend).compile(path, target, tmp_path, form=form)
    found = get_backend(backend).load(compiled, target).run({"input": x.numpy()})["logits"]
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
    graph = Graph(model)
    types = {
        graph.array(site.quantize.input[2]).dtype.name for site in graph.sites() if site.tensor.startswith("conv2d")
    }
    if backend == "openvino":
        assert ("uint8" in types) == passes


class Tokens(nn.Module):
    """Linear layers on 12 tokens of 16 features, which ``move`` joins with others in between."""

    def __init__(self, move: Callable[[Tokens, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.other, self.up, self.head = (
            nn.Linear(*ends) for ends in ((16, 16), (16, 16), (16, 32), (32, 5))
        )
        self.move, self.token = move, nn.Parameter(torch.randn(1, 1, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.up(self.move(self, x))[:, 0])


TOKENS: dict[str, Callable[[Tokens, Tensor], Tensor]] = {
    "class token": lambda net, x: torch.cat([net.token.expand(x.shape[0], -1, -1), net.one(x)], 1),
    "concatenation": lambda net, x: torch.cat([net.one(x), net.other(x)], 1),
    "roll": lambda net, x: torch.roll(net.one(x), 2, 1),
}


@pytest.mark.parametrize("name", TOKENS)
def test_openvino_computes_linear_layers_on_joined_tokens_in_integers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Tokens(TOKENS[name]).eval(), torch.randn(8, 12, 16)
    made = prepare(net, x[:2])
    made.calibrate([x])
    master, form, path = write_master(made, x[:2], tmp_path), forms_of("openvino")["int8"], tmp_path / "model.onnx"
    backend, target = get_backend("openvino"), target_of("openvino")
    model = lower(master, form, vnni=target.has_vnni())
    check_lowering(master, model, form, vnni=target.has_vnni())
    onnx.save(model, path)
    compiled = backend.compile(path, target, tmp_path, form=form)
    found = backend.load(compiled, target).run({"input": x.numpy()})["logits"]
    wanted = onnx_run(path)(x.numpy())
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
    assert all(layer.integer for layer in backend.coverage(compiled, target))
