"""TensorRT's form: what its parser and builder take, and NVIDIA's placement rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lowered_nets import compiled, forms_of, lowered
from onnx import TensorProto
from strict_nets import master, rms, samples
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.backends.tensorrt import FORM
from edgekd.lower import check_lowering, lower
from edgekd.lower.graph import ACTIVATIONS, Graph
from edgekd.measure.proof import onnx_run
from edgekd.quantize import prepare, write_master
from edgekd.runtime import tensorrt_api
from edgekd.runtime.sessions import RuntimeMissing

SMALL = ["resnet-xs", "resnet-xs-relu6", "mobilenet-xs", "mobilenet-xs-relu6", "dscnn-spectrogram"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "mobilenet_v2", "efficientnet_b0")]
ALL = [*SMALL, "mobilenet_v3_small", *SLOW]


@pytest.fixture
def rtx() -> None:
    try:
        tensorrt_api.load_tensorrt("tensorrt-rtx")
    except RuntimeMissing as error:
        pytest.skip(f"TensorRT-RTX is not installed: {error.what}")


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("net", ALL)
def test_the_real_builder_takes_every_candidate(net: str) -> None:
    for name in forms_of("tensorrt"):
        meta = compiled(net, "tensorrt", name).meta
        assert (meta["builder_check"], meta["typing"]) == ("ok", "strong"), name


@pytest.mark.parametrize("net", ALL)
def test_everything_around_integers_is_half(net: str) -> None:
    model = onnx.load(lowered(net, "tensorrt", "int8"))
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert TensorProto.FLOAT not in types
    assert TensorProto.UINT8 not in types
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [1, 1]
    graph = Graph(model)
    for site in graph.sites():
        assert graph.array(site.quantize.input[2]).dtype == np.int8
        assert not graph.array(site.quantize.input[2]).any()
        assert graph.array(site.quantize.input[1]) > 0
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    assert TensorProto.FLOAT not in kinds.values()


@pytest.mark.parametrize("net", ["resnet-xs", "resnet-xs-relu6", SLOW[0]])
def test_residual_adds_quantize_the_skip_branch_alone(net: str) -> None:
    """A site on both splits convolution and addition in two kernels; on neither, the convolution writes float."""
    graph = Graph(onnx.load(lowered(net, "tensorrt", "int8")))
    adds = [node for node in graph.model.graph.node if node.op_type == "Add"]
    assert len(adds) >= 3
    for add in adds:
        quantized = [name for name in add.input if graph.is_quantized(name)]
        (fused,) = set(add.input) - set(quantized)
        assert len(quantized) == 1
        assert graph.producer[fused].op_type == "Conv"


def lowered_graph(net: nn.Module, x: Tensor, folder: Path) -> Graph:
    """Calibrated on ``x``, lowered and checked."""
    made = prepare(net.eval(), x[:2])
    made.calibrate(x.split(8))
    written = write_master(made, x[:2], folder)
    model = lower(written, FORM)
    check_lowering(written, model, FORM)
    return Graph(model)


class Branches(nn.Module):
    """Two branches of one depth, each with a convolution at its end."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.first, self.branches, self.last = nn.Conv2d(3, 16, 3), nn.ModuleList(branches), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        one, other = (branch(x) for branch in self.branches)
        return self.last((one + other).relu().mean((2, 3)))


def dilated(dilation: int) -> nn.Module:
    return nn.Conv2d(16, 16, 3, padding=dilation, dilation=dilation)


BRANCHES = {
    "dilated": lambda: (dilated(1), dilated(2)),
    "dilated twice": lambda: (
        nn.Sequential(dilated(1), nn.ReLU(), dilated(1)),
        nn.Sequential(dilated(2), nn.ReLU(), dilated(2)),
    ),
    # TensorRT drops the sites behind pools, before or after it decides on the other branch.
    "pooled": lambda: (
        nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1), dilated(1)),
        nn.Sequential(dilated(2), nn.ReLU(), dilated(2)),
    ),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", BRANCHES)
def test_branches_of_one_depth_have_one_site(name: str, turned: bool, tmp_path) -> None:
    torch.manual_seed(0)
    net, x = Branches(*BRANCHES[name]()[:: -1 if turned else 1]), torch.randn(16, 3, 12, 12)
    graph = lowered_graph(net, x, tmp_path)
    (add,) = (node for node in graph.model.graph.node if node.op_type == "Add")
    assert [graph.is_quantized(name) for name in add.input].count(True) == 1


@pytest.mark.parametrize("net", ["mobilenet-xs", "mobilenet_v3_small"])
def test_no_site_between_a_convolution_and_its_activation(net: str) -> None:
    graph = Graph(onnx.load(lowered(net, "tensorrt", "int8")))
    activations = [node for node in graph.model.graph.node if node.op_type in ACTIVATIONS]
    assert len(activations) > 5
    assert not any(graph.is_site_output(node.input[0]) for node in activations)


def test_matrix_vector_products_and_thin_convolutions_stay_float() -> None:
    graph = Graph(onnx.load(lowered("mobilenet-xs", "tensorrt", "int8")))
    for node in graph.model.graph.node:
        if node.op_type == "Gemm":
            assert node.input[1] in graph.constants
    # Squeeze-and-excite's convolutions see 1x1 maps, yet by ModelOpt's channel rule they may be integer.
    integer = [name for name in graph.constants if name.endswith("_int8")]
    assert len(integer) >= 10


@pytest.mark.parametrize("net", ALL)
def test_numbers_are_the_masters(net: str, tmp_path) -> None:
    """In float32 the form only drops sites: every scale that is left is the master's."""
    form = replace(FORM, float_type="fp32")
    model = lower(master(net), form)
    check_lowering(master(net), model, form)
    onnx.save(model, tmp_path / "model.onnx")
    scales = {site.tensor: np.float32(site.scale) for site in master(net).sites}
    graph = Graph(model)
    assert all(graph.array(site.quantize.input[1]) == scales[site.tensor] for site in graph.sites())
    x = samples(net, 16, seed=7).numpy()
    want, half = onnx_run(master(net).path)(x), onnx_run(lowered(net, "tensorrt", "int8"))(x)
    loose = 1 if net in (*SMALL, "mobilenet_v3_small") else 3
    assert rms(onnx_run(tmp_path / "model.onnx")(x), want) < 0.03 * loose
    assert rms(half, want) < 0.03 * loose


class Attention(nn.Module):
    """One head over 16 vectors of 32, between linear layers."""

    def __init__(self, mask: Tensor | None) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))
        self.head = nn.Linear(32, 5)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x), self.mask)
        return self.head(self.out(y).relu().mean(1))


@pytest.mark.parametrize("mask", [None, torch.zeros(16, 16).fill_diagonal_(1.0), torch.ones(16, 16).tril().log()])
def test_attention_is_float_with_a_mask(mask: Tensor | None, tmp_path) -> None:
    """A bias that hides nothing is no mask."""
    torch.manual_seed(0)
    x = torch.randn(16, 16, 32)
    graph = lowered_graph(Attention(mask), x, tmp_path)
    products = [one for one in graph.model.graph.node if one.op_type == "MatMul" and len(graph.data_inputs(one)) == 2]
    hidden = mask is not None and not mask.isfinite().all()
    assert [[graph.is_quantized(name) for name in one.input] for one in products] == [[not hidden] * 2] * 2
    behind = {site.tensor for site in graph.sites()}
    if hidden:
        # The inputs of the linear layers and of the mean, and nothing between the products.
        assert behind == {"input_fp16", products[1].output[0], "relu"}
    assert sum(name.endswith("_int8") for name in graph.constants) == 4


def test_tiny_scales_survive_float16(tmp_path) -> None:
    """Channels of weights below float16's smallest step keep a scale that is not zero, and codes made for it."""
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
    net = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64, 5))
    with torch.no_grad():
        net[2].weight[3] *= 1e-6
        net[2].weight[4] *= 1e-3
    x = torch.randn(24, 16, 6, 6)
    graph = lowered_graph(net, x, tmp_path)
    scale = graph.array("2.weight_scale")
    assert scale.dtype == np.float16
    assert (scale > 0).all()
    weight = graph.array("2.weight_int8")[4] * scale[4].astype(np.float32)
    assert np.abs(weight - net[2].weight[4].detach().numpy()).max() <= 0.51 * scale[4]
