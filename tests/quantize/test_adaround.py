"""AdaRound: layers come closer to what the float network gives, with weights that stay on their grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.measure.proof import onnx_run
from edgekd.quantize import adaround, prepare, write_master
from edgekd.quantize.adaround import columns, learn_rounding
from edgekd.quantize.post_training import calibrated
from edgekd.quantize.weighted import layers
from edgekd.target import CalibrationPolicy

POLICY = CalibrationPolicy(name="test", averaging=1.0, batch_size=32)


class Correlated(nn.Module):
    """Every kind of layer; inputs that share a part make rounding errors add up or cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(6, 12, 3, stride=2, padding=1)
        self.depth = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=12)
        self.grouped, self.head = nn.Conv2d(12, 8, 1, groups=2, bias=False), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depth(self.one(x).relu()).relu()
        return self.head(self.grouped(x).relu().mean((2, 3)))


def made(monkeypatch: pytest.MonkeyPatch, steps: int = 200):
    monkeypatch.setattr(adaround, "STEPS", steps)
    torch.manual_seed(0)
    net = Correlated().eval()
    x = torch.randn(96, 1, 10, 10) + 0.3 * torch.randn(96, 6, 10, 10)
    reference = prepare(net, x[:2], policy=POLICY)
    # Few codes, so that rounding is what counts.
    for layer in layers(reference.module):
        with torch.no_grad():
            layer.weight[:, 0].mul_(20)
    ground = reference.copy()
    ground.calibrate([x[:64]])
    return reference, ground, x


def test_outputs_come_closer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reference, ground, x = made(monkeypatch)
    rounded = ground.copy()
    assert learn_rounding(rounded, reference, x[:64].split(16)) > 10
    held_out = x[64:].numpy()
    want = reference.run_float(held_out)
    nearest, learned = (np.square(one.run_quantized(held_out) - want).mean() for one in (ground, rounded))
    assert learned < 0.75 * nearest
    for layer, before in zip(layers(rounded.module), layers(ground.module), strict=True):
        scale = layer.quantizer.scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
        assert torch.equal(layer.quantizer.scale, before.quantizer.scale)
        codes = layer.weight / scale
        assert (codes - codes.round()).abs().max() < 1e-4
        assert (codes - before.weight / scale).abs().max() < 1.001  # up or down, no further
        assert codes.abs().max() <= 127.001
    master = write_master(rounded, x[:2], tmp_path)
    got = rounded.run_quantized(held_out)
    assert np.abs(onnx_run(master.path)(held_out) - got).max() < 0.02 * np.abs(got).max()


def test_the_same_samples_give_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, ground, x = made(monkeypatch, steps=20)
    one, other = ground.copy(), ground.copy()
    learn_rounding(one, reference, x.split(16))
    learn_rounding(other, reference, x.split(16))
    for a, b in zip(layers(one.module), layers(other.module), strict=True):
        assert torch.equal(a.weight, b.weight)


def test_samples_are_bounded() -> None:
    parts = list(adaround._first(torch.zeros(96, 1).split(16), 40))
    assert [len(part) for part in parts] == [16, 16, 8]


@pytest.mark.parametrize("signal", [False, True])
def test_columns_are_what_the_layer_multiplies(signal: bool) -> None:
    torch.manual_seed(3)
    kind = nn.Conv1d if signal else nn.Conv2d
    net = nn.Sequential(
        kind(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)
    )
    x = torch.randn(5, 4, 9) if signal else torch.randn(5, 4, 9, 8)
    net(x)
    (conv, linear) = layers(prepare(net.eval(), x[:2]).module)
    for layer, module, value in ((conv, net[0], x), (linear, net[3], net[:3](x))):
        with torch.no_grad():
            want = module(value) - module.bias.reshape([-1, *[1] * (value.dim() - 2)])
            got = layer.weight.reshape(layer.groups, -1, columns(layer, value).shape[1]) @ columns(layer, value)
        assert torch.allclose(got.flatten(0, 1), want.movedim(1, 0).flatten(1), atol=1e-5)


def test_a_layer_behind_a_dead_relu_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaround, "STEPS", 20)
    torch.manual_seed(0)
    net, x = Correlated().eval(), torch.randn(32, 6, 10, 10)
    with torch.no_grad():
        net.one.bias.fill_(-100)
    made = calibrated(net, [x], POLICY, adaround=True, bias_correction=True)
    first, dead, *rest = layers(made.module)
    assert torch.equal(dead.weight, net.depth.weight)
    assert not torch.equal(first.weight, net.one.weight)
    for layer in (first, *rest):
        codes = layer.weight / layer.quantizer.scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
        assert (codes - codes.round()).abs().max() < 1e-4
    assert np.isfinite(made.run_quantized(x.numpy())).all()
