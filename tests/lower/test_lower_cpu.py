"""On the CPU runtimes the lowered master is integer where it should be, and its numbers are the master's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from lowered_nets import compiled, forms_of, lowered, outputs, target_of
from strict_nets import master, prepared, rms, samples

from edgekd.backends import get_backend
from edgekd.lower import lower
from edgekd.lower.graph import Graph
from edgekd.measure.proof import onnx_run

SMALL = ["resnet-xs", "resnet-xs-relu6", "mobilenet-xs", "mobilenet-xs-relu6", "dscnn-spectrogram"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "mobilenet_v2", "efficientnet_b0")]
ALL = [*SMALL, "mobilenet_v3_small", *SLOW]
# Nothing but ReLU and ReLU6 between the weighted layers, and no gates.
PLAIN = ["resnet-xs", "resnet-xs-relu6", "dscnn-spectrogram", *SLOW[:2]]
CPU = ["onnxruntime", "openvino"]


def others(net: str, backend: str, form: str = "int8") -> Counter[str]:
    layers = get_backend(backend).other_layers(compiled(net, backend, form), target_of(backend))
    return Counter(layer.op for layer in layers)


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("net", ALL)
def test_every_weighted_layer_is_integer(net: str, backend: str) -> None:
    layers = get_backend(backend).coverage(compiled(net, backend, "int8"), target_of(backend))
    assert len(layers) == len(Graph(onnx.load(master(net).path)).layers())
    assert [layer for layer in layers if not layer.integer] == []


@pytest.mark.parametrize("net", PLAIN)
def test_onnxruntime_leaves_nothing_float_between(net: str) -> None:
    """Residual adds, pooling, ReLU and ReLU6 are integer or gone; the input is quantized once."""
    found = others(net, "onnxruntime")
    integer = {"QLinearAdd", "QLinearGlobalAveragePool", "MaxPool", "NhwcMaxPool", "Reshape", "Flatten", "Transpose"}
    # The one Pad widens the input's codes (test_wide_input.py).
    assert set(found) <= {*integer, "QuantizeLinear", "Pad"}
    assert found["Pad"] == target_of("onnxruntime").has_vnni()
    assert found["QuantizeLinear"] == 1
    adds = sum(node.op_type == "Add" for node in onnx.load(master(net).path).graph.node)
    assert found["QLinearAdd"] == adds


@pytest.mark.parametrize("net", PLAIN)
def test_openvino_leaves_nothing_float_between(net: str) -> None:
    """Adds and activations are inside the convolutions; one kernel quantizes the input."""
    backend = get_backend("openvino")
    layers = backend.other_layers(compiled(net, "openvino", "int8"), target_of("openvino"))
    found = Counter(layer.op for layer in layers)
    assert not {"FakeQuantize", "Eltwise", "Math"} & set(found)
    assert found["Subgraph"] <= 1
    assert {layer.precision for layer in layers if layer.op in ("Reduce", "Pooling")} <= {"u8", "i8"}


@pytest.mark.parametrize("net", ["mobilenet-xs", "mobilenet_v3_small"])
def test_squeeze_and_excite_and_hardswish(net: str) -> None:
    """ONNX Runtime has integers for all: a hardswish is an addition and a product, a gate's sigmoid an addition."""
    graph = onnx.load(master(net).path).graph
    count = Counter(node.op_type for node in graph.node)
    found = others(net, "onnxruntime")
    assert found["QLinearMul"] == count["Mul"] + count["HardSwish"]
    assert found["QLinearGlobalAveragePool"] == count["GlobalAveragePool"]
    assert found["QLinearAdd"] == count["Add"] + count["HardSwish"] + count["HardSigmoid"]
    assert not {
        "HardSigmoid",
        "Mul",
        "Add",
        "GlobalAveragePool",
        "Relu",
        "Clip",
        "ReorderInput",
        "ReorderOutput",
    } & set(found)
    # OpenVINO fuses hardswish into the convolution; one Math node a gate is left.
    assert others(net, "openvino")["Math"] == count["HardSigmoid"]
    assert "FakeQuantize" not in others(net, "openvino")


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("net", ["mobilenet-xs", "mobilenet_v3_small"])
def test_float_groups(net: str, backend: str) -> None:
    """Gates: the two convolutions of each branch are float, all others integer. Ends: the first and the last."""
    count = Counter(node.op_type for node in onnx.load(master(net).path).graph.node)
    whole = Graph(onnx.load(master(net).path)).layers()
    gates = get_backend(backend).coverage(compiled(net, backend, "int8-float-gates"), target_of(backend))
    assert sum(not layer.integer for layer in gates) == 2 * count["HardSigmoid"]
    ends = get_backend(backend).coverage(compiled(net, backend, "int8-float-ends"), target_of(backend))
    assert [layer.integer for layer in ends] == [False, *[True] * (len(whole) - 2), False]


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("net", ALL)
def test_numbers(net: str, backend: str) -> None:
    """Lowered and master differ by the finer steps, compiled and lowered by rounding; both small beside the signal."""
    reference, file, run = outputs(net, backend, "int8")
    loose = 1 if net in (*SMALL, "mobilenet_v3_small") else 3  # flips grow in a deep random network
    assert rms(run, file) < 0.025 * loose
    # Floors make some scales finer still, which is further from the master.
    relaxed = 0.035 if any(site.floor is not None for site in master(net).sites) else 0.03
    assert rms(file, reference) < relaxed * loose
    x = samples(net, len(file), seed=7).numpy()
    exact = prepared(net).run_float(x)
    # Relaxing can only come nearer to the float network (but for chance).
    assert rms(file, exact) < 1.3 * rms(reference, exact)
    assert rms(file, exact) > 1e-4, "not quantized at all"


@pytest.mark.parametrize("net", ["resnet-xs", "mobilenet-xs-relu6"])
def test_unsigned_and_signed_bytes_are_the_same_numbers(net: str, tmp_path) -> None:
    """ARM's form is x86's, 128 lower: unoptimized they agree to the last bit."""
    from edgekd.backends.onnxruntime import ARM, X86

    runs = []
    for form in (X86, ARM):
        onnx.save(lower(master(net), form), tmp_path / "model.onnx")
        runs.append(onnx_run(tmp_path / "model.onnx")(samples(net, 8).numpy()))
    assert np.array_equal(*runs)
    kinds = {graph_zero.dtype for graph_zero in _zero_points(tmp_path / "model.onnx")}
    assert kinds == {np.dtype(np.int8)}


def _zero_points(path) -> list[np.ndarray]:
    graph = Graph(onnx.load(path))
    return [graph.array(site.quantize.input[2]) for site in graph.sites()]


@pytest.mark.parametrize("net", ["resnet-xs-relu6", "mobilenet-xs-relu6", "dscnn-spectrogram"])
def test_relu6_is_absorbed(net: str) -> None:
    """Its site's scale is at most 6 / 254.5, of rank 0, with zero point 0: then ONNX Runtime needs no Clip."""
    graph = Graph(onnx.load(lowered(net, "onnxruntime", "int8")))
    clipped = [site for site in graph.sites() if site.tensor in graph.producer]
    clipped = [site for site in clipped if graph.producer[site.tensor].op_type == "Clip"]
    assert len(clipped) > 3
    for site in clipped:
        scale, zero = (graph.array(name) for name in site.quantize.input[1:])
        assert scale.shape == zero.shape == ()
        assert 0 < scale <= 6 / 254.5
        assert (zero.dtype, int(zero)) == (np.uint8, 0)
    assert not {"Clip", "Relu"} & set(others(net, "onnxruntime"))


def test_head_has_an_int32_bias_with_the_exact_scale() -> None:
    graph = Graph(onnx.load(lowered("resnet-xs", "onnxruntime", "int8")))
    head = graph.producer["logits"]
    data, weight, bias = (graph.producer[name] for name in head.input)
    assert [node.op_type for node in (data, weight, bias)] == ["DequantizeLinear"] * 3
    codes, scale, zero = (graph.array(name) for name in bias.input)
    assert codes.dtype == zero.dtype == np.int32
    assert not zero.any()
    assert np.array_equal(scale, graph.array(data.input[1]) * graph.array(weight.input[1]))
    original = Graph(onnx.load(master("resnet-xs").path))
    floats = original.array(original.producer["logits"].input[2])
    assert np.abs(codes * scale - floats).max() <= scale.max()
    other = Graph(onnx.load(lowered("resnet-xs", "openvino", "int8")))
    assert other.producer["logits"].input[2] in other.constants, "OpenVINO's stays float"


@pytest.mark.parametrize("net", ["resnet-xs", "mobilenet-xs"])
def test_any_batch(net: str) -> None:
    x = samples(net, 5).numpy()
    for backend in CPU:
        session = get_backend(backend).load(compiled(net, backend, "int8"), target_of(backend))
        whole = session.run({"input": x})["logits"]
        one = np.concatenate([session.run({"input": x[i : i + 1]})["logits"] for i in range(5)])
        assert rms(one, whole) < 0.01


def test_what_a_file_says_of_itself() -> None:
    import json

    from edgekd.forms import FORM_KEY, QuantForm

    model = onnx.load(lowered("resnet-xs", "openvino", "int8"))
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["edgekd.role"] == "lowered"
    assert QuantForm.from_json(json.loads(metadata[FORM_KEY])) == forms_of("openvino")["int8"]
    again = lower(master("resnet-xs"), forms_of("openvino")["int8"], vnni=target_of("openvino").has_vnni())
    assert again.SerializeToString() == lowered("resnet-xs", "openvino", "int8").read_bytes()
    assert all(dim.dim_param == "batch" for dim in [model.graph.input[0].type.tensor_type.shape.dim[0]])


@pytest.mark.parametrize("backend", CPU)
def test_dead_channels_beside_large_biases(backend: str, tmp_path) -> None:
    """Pruned channels have next to no weight scale; a bias counted in it would leave int32, silently."""
    import torch
    from torch import nn

    from edgekd.lower import check_lowering
    from edgekd.quantize import prepare, write_master

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.two(torch.relu(self.one(x)))).mean((2, 3)))

    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        for layer in (net.one, net.two, net.head):
            layer.weight[3] *= 0
            layer.weight[4] *= 1e-7
            layer.bias[3], layer.bias[4] = 20.0, -300.0
    x = torch.randn(24, 3, 12, 12) / 10
    made = prepare(net, x[:2])
    made.calibrate(x.split(8))
    written = write_master(made, x[:2], tmp_path)
    form = replace(forms_of(backend)["int8"], cure="none")
    model = lower(written, form)
    check_lowering(written, model, form)
    onnx.save(model, tmp_path / "model.onnx")
    target = target_of(backend)
    session = get_backend(backend).load(
        get_backend(backend).compile(tmp_path / "model.onnx", target, tmp_path, form=form), target
    )
    want = onnx_run(written.path)(x.numpy())
    assert np.abs(onnx_run(tmp_path / "model.onnx")(x.numpy()) - want).max() < 0.1
    assert np.abs(session.run({"input": x.numpy()})["logits"] - want).max() < 0.1
