"""The master: its form, its table, its numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from strict_nets import make_net, master, prepared, rms, samples

from edgekd.forms import Master
from edgekd.lower.graph import Graph
from edgekd.measure.proof import first_difference, onnx_inside, onnx_run
from edgekd.quantize import export_float

SMALL = ["resnet-xs", "resnet-xs-relu6", "mobilenet-xs", "mobilenet-xs-relu6", "dscnn-spectrogram"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "mobilenet_v2", "efficientnet_b0")]
ALL = [*SMALL, "mobilenet_v3_small", *SLOW]


@pytest.mark.parametrize("name", ALL)
def test_form(name: str) -> None:
    model = onnx.load(master(name).path)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata == {"edgekd.role": "master", "edgekd.input": "input", "edgekd.output": "logits"}
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {"input": ["batch", *samples(name).shape[1:]], "logits": ["batch", 10]}
    assert all(not node.metadata_props and not node.doc_string for node in model.graph.node)
    operators = {node.op_type for node in model.graph.node}
    assert "ReduceMean" not in operators
    assert "BatchNormalization" not in operators
    assert "Dropout" not in operators


@pytest.mark.parametrize("name", ALL)
def test_table_of_sites_is_the_graph(name: str) -> None:
    made = master(name)
    assert Master.load(made.path.parent) == made
    graph = Graph(onnx.load(made.path))
    found = {site.tensor: site for site in graph.sites()}
    assert [site.tensor for site in made.sites] == list(found)
    for site in made.sites:
        node = found[site.tensor]
        for one in (node.quantize, node.dequantize):
            scale, zero_point = graph.array(one.input[1]), graph.array(one.input[2])
            assert (scale.shape, zero_point.shape) == ((), ())
            assert scale == np.float32(site.scale)
            assert (zero_point.dtype, int(zero_point), site.zero_point) == (np.int8, 0, 0)
    assert graph.is_site_output(graph.layers()[0].node.input[0]), "the network's input"


@pytest.mark.parametrize("name", ALL)
def test_signs_are_those_of_the_values(name: str) -> None:
    made, values = master(name), onnx_inside(master(name).path, samples(name, seed=11).numpy())
    values["input"] = samples(name).numpy()
    signs = {site.tensor: site.sign for site in made.sites}
    assert all(values[tensor].min() >= 0 for tensor, sign in signs.items() if sign == "nonnegative")
    signed = [tensor for tensor, sign in signs.items() if sign == "signed"]
    # "Signed" may be cautious (a mean of a signed tensor can be positive), but not idle.
    assert sum(values[tensor].min() < 0 for tensor in signed) > len(signed) / 2


@pytest.mark.parametrize("name", ALL)
def test_weights_stay_float_with_channel_scales_in_127_codes(name: str) -> None:
    graph = Graph(onnx.load(master(name).path))
    weighted = [node for node in graph.model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(graph.layers()) == len(weighted) > 3
    for layer in graph.layers():
        weight, scale = graph.array(layer.weight), graph.array(layer.quantize.input[1])
        assert weight.dtype == np.float32
        rows = np.moveaxis(weight, layer.axis, 0).reshape(len(scale), -1)
        assert np.allclose(scale, np.abs(rows).max(1) / 127, rtol=1e-5)
        assert not graph.array(layer.quantize.input[2]).any()
        assert np.abs(np.rint(rows / scale[:, None])).max() == 127


@pytest.mark.parametrize("name", ALL)
def test_sites_stand_where_every_backend_needs_them(name: str) -> None:
    """After each weighted layer or its activation; never between it and a ReLU or ReLU6; none at the output."""
    graph = Graph(onnx.load(master(name).path))
    assert graph.producer["logits"].op_type in ("Gemm", "Add")
    for layer in graph.layers():
        assert graph.is_quantized(layer.node.input[0]), layer.weight
        if layer.node.output[0] == "logits":
            continue
        (user,) = graph.consumers[layer.node.output[0]]
        if user.op_type in ("Relu", "Clip"):
            (user,) = graph.consumers[user.output[0]]
        assert user.op_type == "QuantizeLinear", layer.weight
    for node in graph.model.graph.node:
        # SiLU is written as Sigmoid and Mul: no site inside.
        if node.op_type in ("Add", "Mul") and "logits" not in node.output and "silu" not in node.output[0]:
            assert all(graph.is_quantized(one) for one in node.input), node.name


@pytest.mark.parametrize("name", ["resnet-xs-relu6", "mobilenet-xs-relu6"])
def test_relu6_sites_are_capped(name: str) -> None:
    """QDQ form r/255 with r <= 6: what ONNX Runtime needs to absorb the Clip is 6 / 254.5."""
    graph = Graph(onnx.load(master(name).path))
    computed = [site for site in graph.sites() if site.tensor in graph.producer]
    clipped = [site for site in computed if graph.producer[site.tensor].op_type == "Clip"]
    assert len(clipped) > 3
    assert all(graph.array(site.quantize.input[1]) * 127 / 255 <= 6 / 254.5 for site in clipped)


@pytest.mark.parametrize("name", ALL)
def test_numbers_are_the_fake_quantized_networks(name: str) -> None:
    """But for values between two codes, which two engines may round apart; those grow in a random deep network."""
    x, run = samples(name, seed=7).numpy(), onnx_run(master(name).path)
    want = prepared(name).run_quantized(x)
    assert rms(run(x), want) < (0.01 if name in SMALL else 0.04)
    assert rms(prepared(name).run_float(x), want) > 1e-4, "nothing was quantized"


@pytest.mark.parametrize("name", ALL)
def test_values_inside_have_the_same_names(name: str) -> None:
    x = samples(name, 16, seed=7).numpy()
    ours, theirs = prepared(name).intermediates(x), onnx_inside(master(name).path, x)
    ours = {key: value for key, value in ours.items() if "quantize_" not in key}
    # Several operators may stand for one: those before the last have names of the exporter.
    assert [key for key in theirs if not key.startswith("val_")] == list(ours)
    for key, value in ours.items():
        assert theirs[key].shape == value.shape
        # Two different values of random networks are worlds apart.
        assert rms(theirs[key], value) < 0.05, key
    assert first_difference(ours, theirs) is None


def test_a_batch_of_any_size() -> None:
    x, run = samples("mobilenet-xs").numpy(), onnx_run(master("mobilenet-xs").path)
    whole = run(x)
    for size in (1, 2, 5):
        assert np.abs(run(x[:size]) - whole[:size]).max() < 1e-5


def test_the_same_inputs_give_the_same_file(tmp_path) -> None:
    from edgekd.quantize import write_master

    again = write_master(prepared("resnet-xs"), samples("resnet-xs")[:2], tmp_path)
    assert again.path.read_bytes() == master("resnet-xs").path.read_bytes()


def test_float_export_equals_the_network(tmp_path) -> None:
    import torch

    net, x = make_net("mobilenet-xs"), samples("mobilenet-xs")
    export_float(net, x[:2], tmp_path / "float.onnx")
    model = onnx.load(tmp_path / "float.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props}["edgekd.role"] == "float"
    assert not any(node.op_type.endswith("QuantizeLinear") for node in model.graph.node)
    session = onnxruntime.InferenceSession(tmp_path / "float.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        want = net(x).numpy()
    assert np.abs(session.run(["logits"], {"input": x.numpy()})[0] - want).max() < 1e-5 * np.abs(want).max()
    assert all(np.isfinite(numpy_helper.to_array(tensor)).all() for tensor in model.graph.initializer)


@pytest.mark.parametrize("merge", [True, False])
def test_branches_of_the_float_file(merge: bool, tmp_path) -> None:
    """One kernel, the identity too: nothing is rounded. Sums are spelled as MobileOne has them."""
    import torch

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.three, self.norm = torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.BatchNorm2d(64)
            self.ones = torch.nn.ModuleList(torch.nn.Conv2d(64, 64, 1) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = 0 + self.norm(x)
            for one in self.ones:
                total += one(x)
            total += self.three(x)
            return total.relu().mean((2, 3))

    torch.manual_seed(0)
    net, x = Block().eval(), torch.randn(3, 64, 6, 6)
    export_float(net, x[:2], tmp_path / "float.onnx", merge=merge)
    operators = [node.op_type for node in onnx.load(tmp_path / "float.onnx").graph.node]
    assert (operators.count("Conv"), operators.count("Add")) == ((1, 0) if merge else (3, 3))
    with torch.no_grad():
        want = net(x).numpy()
    assert np.abs(onnx_run(tmp_path / "float.onnx")(x.numpy()) - want).max() < 1e-5 * np.abs(want).max()


def test_weights_beyond_a_frozen_range(tmp_path) -> None:
    """Trained on after the ranges were frozen, weights are clipped alike in training and in the master."""
    import torch

    from edgekd.quantize import prepare, write_master

    x = samples("resnet-xs")
    made = prepare(make_net("resnet-xs"), x[:2])
    made.calibrate(x.split(16))
    with torch.no_grad():
        for parameter in made.module.parameters():
            parameter.mul_(1.5)
    graph = Graph(onnx.load(write_master(made, x[:2], tmp_path).path))
    for layer in graph.layers():
        weight, scale = graph.array(layer.weight), graph.array(layer.quantize.input[1])
        assert np.abs(np.rint(np.moveaxis(weight, layer.axis, -1) / scale)).max() == 127
    got, want = onnx_run(tmp_path / "master.onnx")(x.numpy()), made.run_quantized(x.numpy())
    assert rms(got, want) < 0.01


def test_activations_beyond_their_range_saturate_alike() -> None:
    """Down to code -128, as engines do."""
    x = 4 * samples("resnet-xs", 16, seed=3).numpy()
    ours, theirs = prepared("resnet-xs").intermediates(x), onnx_inside(master("resnet-xs").path, x)
    assert first_difference(ours, theirs) is None
    assert rms(theirs["conv2d"], ours["conv2d"]) < 1e-5
