"""Calibration, switches, and networks that cannot be prepared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strict_nets import make_net, samples
from torch import nn

from edgekd.errors import BadData, BadModel
from edgekd.quantize import prepare
from edgekd.target import CalibrationPolicy


def scales(made) -> dict[str, torch.Tensor]:
    return {name: quantizer.scale.clone() for name, quantizer in made.quantizers()}


def test_evaluation_does_not_move_ranges() -> None:
    x = samples("resnet-xs")
    made = prepare(make_net("resnet-xs"), x[:2])
    made.calibrate(x.split(16))
    before = scales(made)
    made.run_quantized(100 * x.numpy())
    made.run_float(100 * x.numpy())
    assert all(torch.equal(value, before[name]) for name, value in scales(made).items())
    made.observe(True)
    with made.frozen():
        made.module(100 * x)
    assert all(torch.equal(value, before[name]) for name, value in scales(made).items())
    made.module(100 * x)
    moved = [name for name, value in scales(made).items() if not torch.equal(value, before[name])]
    # Frozen gives back the state that it found; weights keep theirs, whatever flows.
    assert 0 < len(moved) < len(before)


def test_the_first_range_is_the_data() -> None:
    """Scale of the input's site: its largest magnitude in 127 steps."""
    x = samples("resnet-xs")
    made = prepare(make_net("resnet-xs"), x[:2], policy=CalibrationPolicy(estimator="min-max"))
    made.calibrate([x])
    first = next(node for node in made.module.graph.nodes if node.target == "activation_post_process_0")
    assert made.module.get_submodule(first.target).scale.item() == pytest.approx(x.abs().max().item() / 127)


def test_small_ranges_keep_their_scale() -> None:
    """The library's own floor of 2**-12 would wipe these out."""
    x = 1e-4 * samples("resnet-xs")
    made = prepare(make_net("resnet-xs"), x[:2])
    made.calibrate([x])
    assert 0 < min(float(quantizer.scale.min()) for _, quantizer in made.quantizers()) < 1e-5


def test_every_parameter_trains() -> None:
    x = samples("mobilenet-xs")
    made = prepare(make_net("mobilenet-xs"), x[:2])
    made.calibrate(x.split(16))
    made.observe(True)
    made.module(x).square().mean().backward()
    parameters = dict(made.module.named_parameters())
    assert len(parameters) > 10
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in parameters.values())


ESTIMATORS = ["min-max", "moving-average", "percentile", "mse", "entropy"]


@pytest.mark.parametrize("estimator", ["moving-average", "mse"])
def test_how_samples_are_batched_does_not_count(estimator: str) -> None:
    x = samples("resnet-xs")[:24]
    made = prepare(make_net("resnet-xs"), x[:2], policy=CalibrationPolicy(estimator=estimator, batch_size=10))
    found = []
    for size in (24, 1):
        made.calibrate(x.split(size))
        found.append(scales(made))
    # Kernels round differently for another number of samples, which may move a value into the next bin.
    assert all(torch.allclose(value, found[1][name], rtol=0.02) for name, value in found[0].items())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_no_range_goes_beyond_the_bound_of_an_activation(estimator: str) -> None:
    x = 5 * samples("mobilenet-xs-relu6")
    made = prepare(make_net("mobilenet-xs-relu6"), x[:2], policy=CalibrationPolicy(estimator=estimator, batch_size=8))
    made.calibrate(x.split(16))
    bound = [
        made.module.get_submodule(node.target)
        for node in made.module.graph.nodes
        if node.op == "call_module" and "hardtanh" in node.args[0].name
    ]
    assert len(bound) > 5
    highest = torch.tensor(6 / 127)
    assert all(quantizer.scale <= highest for quantizer in bound)
    assert any(quantizer.scale > 0.9 * highest for quantizer in bound)
    made.observe(True)
    with torch.no_grad():
        for _ in range(3):
            made.module(100 * x)
    assert all(quantizer.scale <= highest for quantizer in bound)


def test_no_samples() -> None:
    made = prepare(make_net("resnet-xs"), samples("resnet-xs")[:2])
    with pytest.raises(BadData, match="calibration: there are no samples"):
        made.calibrate([])


class Dead(nn.Module):
    """A branch that is always zero, and a gate that is always open."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.dead, self.gate = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.dead.bias.fill_(-100)
            self.gate.bias.fill_(100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.dead(x)) + self.conv(x) * nn.functional.hardsigmoid(self.gate(x))
        return self.head(y.mean((2, 3)))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_constant_activations_are_told_and_harmless(estimator: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 3, 8, 8)
    made = prepare(Dead().eval(), x[:2], policy=CalibrationPolicy(estimator=estimator))
    made.calibrate(x.split(8))
    (note,) = made.notes
    assert note == "calibration saw one value only at relu, hardsigmoid: what else may flow there is not known"
    constant = {
        node.args[0].name: made.module.get_submodule(node.target).scale.item()
        for node in made.module.graph.nodes
        if node.op == "call_module" and node.args[0].name in ("relu", "hardsigmoid")
    }
    assert constant["relu"] == 1
    assert constant["hardsigmoid"] == pytest.approx(1 / 127, rel=0.02)
    assert np.abs(made.run_quantized(x.numpy()) - made.run_float(x.numpy())).max() < 0.05
    made.calibrate([x[:16]])
    assert len(made.notes) == 1, "those of the last calibration"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_no_numbers(value: float) -> None:
    x = samples("resnet-xs")
    made = prepare(make_net("resnet-xs"), x[:2])
    spoilt = x.clone()
    spoilt[20, 0, 3, 3] = value
    with pytest.raises(BadData, match=r"calibration, the network's input: NaN or infinity"):
        made.calibrate(spoilt.split(16))


def test_weights_that_are_no_numbers() -> None:
    net = make_net("resnet-xs")
    net.blocks[1].first[0].weight.data[3] = float("nan")
    x = samples("resnet-xs")
    made = prepare(net, x[:2])
    with pytest.raises(BadData, match=r"calibration, blocks\.1\.first\.0\.weight: NaN or infinity") as caught:
        made.calibrate(x.split(16))
    assert "samples or in the weights" in str(caught.value)


class IntoView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x.flatten(2).relu_()
        return self.head(x.mean((2, 3)))


def test_writing_into_a_view_is_refused_by_its_line() -> None:
    """Quantizers would hide what is written, and the numbers would be silently wrong."""
    with pytest.raises(BadModel, match="out of place") as caught:
        prepare(IntoView().eval(), torch.ones(2, 3, 6, 6))
    assert "test_prepared.py" in caught.value.where


class InPlace(nn.Module):
    """Later users of a value see what was written into it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x)
        torch.relu_(y)
        z = y + 0.0
        z += self.two(y)
        z.relu_()
        return self.head((z * y).mean((2, 3)))


def test_in_place_operators(tmp_path) -> None:
    from edgekd.measure.proof import first_difference, onnx_inside, onnx_run
    from edgekd.quantize import write_master

    torch.manual_seed(0)
    net, x = InPlace().eval(), torch.randn(24, 3, 8, 8)
    made = prepare(net, x[:2])
    with torch.no_grad():
        assert np.abs(made.run_float(x.numpy()) - net(x).numpy()).max() < 1e-6
    made.calibrate(x.split(8))
    master = write_master(made, x[:2], tmp_path)
    want = made.run_quantized(x.numpy())
    assert np.abs(onnx_run(master.path)(x.numpy()) - want).max() < 0.01 * np.abs(want).max()
    inside = made.intermediates(x.numpy())
    assert first_difference(inside, onnx_inside(master.path, x.numpy())) is None
    assert inside["relu_"].min() == 0 > inside["conv2d"].min()
