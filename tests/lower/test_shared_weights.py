"""Layers that share a weight or a bias: each is written by its own input, cure and form."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lowered_nets import forms_of, target_of
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.backends import get_backend
from edgekd.forms import Master, QuantForm
from edgekd.lower import check_lowering, cures, lower, overflow_rows
from edgekd.lower.graph import Graph
from edgekd.measure.proof import onnx_run
from edgekd.quantize import prepare, write_master

CPUS = ("onnxruntime", "openvino")


class Twice(nn.Module):
    """One convolution behind a ReLU and again behind a hardswish."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        once = F.hardswish(self.conv(torch.relu(self.first(x))))
        return self.head(torch.relu(self.conv(once)).mean((2, 3)))


class TwoHeads(nn.Module):
    """One linear layer on two vectors of other ranges, one of them ten times the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x)).mean((2, 3))
        return torch.cat([self.head(y), self.head(10 * torch.relu(self.hidden(y)))], 1)


class TokensAndVector(nn.Module):
    """One linear layer on four tokens and on the first of them alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.proj, self.head = nn.Conv2d(3, 16, 5, stride=5), nn.Linear(16, 24), nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).flatten(2).transpose(1, 2)
        return self.head(torch.relu(self.proj(y)).mean(1) + torch.relu(self.proj(y[:, 0])))


class TokensTwice(TokensAndVector):
    """One linear layer on tokens, and again on what an activation makes of them."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).flatten(2).transpose(1, 2)
        return self.head((torch.relu(self.proj(y)) + torch.relu(self.proj(F.hardswish(y)))).mean(1))


class Tied(TokensAndVector):
    """A weight that is also multiplied with as it is, without a quantizer."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.proj(self.first(x).flatten(2).transpose(1, 2)))
        return self.head(torch.relu(self.proj(y @ self.proj.weight)).mean(1))


@cache
def master(net: Callable[[], nn.Module]) -> Master:
    torch.manual_seed(0)
    made = prepare(net().eval(), samples()[:2])
    made.calibrate(samples().split(8))
    return write_master(made, samples()[:2], folder())


def samples(seed: int = 1) -> Tensor:
    return torch.randn(16, 3, 10, 10, generator=torch.Generator().manual_seed(seed))


def folder() -> Path:
    _kept.append(tempfile.TemporaryDirectory(prefix="edgekd-shared-"))
    return Path(_kept[-1].name)


_kept: list[tempfile.TemporaryDirectory] = []


def form_of(backend: str) -> QuantForm:
    return next(iter(forms_of(backend).values()))


@pytest.mark.parametrize("net", [Twice, TwoHeads, TokensAndVector, TokensTwice, Tied])
@pytest.mark.parametrize("backend", [*CPUS, "tensorrt"])
def test_integers_in_both(net: Callable[[], nn.Module], backend: str) -> None:
    one, form, path = master(net), form_of(backend), folder() / "model.onnx"
    model = lower(one, form)
    check_lowering(one, model, form)
    onnx.save(model, path)
    compiled = get_backend(backend).compile(path, target_of(backend), path.parent, form=form)
    x = samples(seed=2).numpy()
    wanted = onnx_run(one.path)(x)
    assert np.abs(onnx_run(path)(x) - wanted).max() < 0.02 * np.abs(wanted).max()
    if backend in CPUS:
        found = get_backend(backend).load(compiled, target_of(backend)).run({"input": x})["logits"]
        assert np.abs(found - wanted).max() < 0.04 * np.abs(wanted).max()


@pytest.mark.parametrize("net", [TokensAndVector, TokensTwice, Tied])
def test_tokens_share_one_weight_of_integers(net: Callable[[], nn.Module]) -> None:
    graph = Graph(lower(master(net), form_of("onnxruntime")))
    assert [name for name in graph.constants if name.startswith("proj.weight_int8")] == ["proj.weight_int8"]
    assert "proj.weight" not in graph.constants


@pytest.mark.parametrize("backend", CPUS)
@pytest.mark.parametrize("kept", ["conv2d_1", "conv2d_2"])
def test_one_in_float(kept: str, backend: str) -> None:
    one, form = master(Twice), replace(form_of(backend), float_layers=frozenset({kept}))
    model = lower(one, form)
    check_lowering(one, model, form)
    graph = Graph(model)
    weights = {name: graph.producer[name].input[1] for name in ("conv2d_1", "conv2d_2")}
    assert {name for name, weight in weights.items() if weight == "conv.weight"} == {kept}


def test_two_cures(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO: 127 codes behind the ReLU and full-range weights, tightened ones behind the hardswish."""
    monkeypatch.setattr(cures, "CREST", 1e-3)
    one, form = master(Twice), replace(form_of("openvino"), cure="cheaper")
    model = lower(one, form, vnni=False)
    check_lowering(one, model, form, vnni=False)
    rows = {row["layer"]: row["cure"] for row in overflow_rows(one, model, form, vnni=False)}
    assert (rows["conv2d_1"], rows["conv2d_2"]) == ("codes", "weights")
    graph = Graph(model)
    scales = [graph.array(graph.producer[graph.producer[n].input[1]].input[1]) for n in ("conv2d_1", "conv2d_2")]
    original = Graph(onnx.load(one.path))
    full = next(original.array(layer.quantize.input[1]) for layer in original.layers() if layer.weight == "conv.weight")
    assert np.array_equal(scales[0], full)
    assert (scales[1] >= full).all()
    assert (scales[1] > full).any()
