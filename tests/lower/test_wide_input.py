"""ONNX Runtime's first convolution with four input channels: the same numbers by another kernel, checked both ways."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
from lowered_nets import target_of
from onnx import helper
from strict_nets import master, samples

from edgekd.backends import get_backend
from edgekd.backends.onnxruntime import ARM, X86
from edgekd.backends.openvino import X86 as OPENVINO
from edgekd.errors import ProofFailed
from edgekd.lower import check_lowering, lower
from edgekd.lower.graph import Graph
from edgekd.lower.wide_input import CHANNELS, narrowed, widen_input

# Images of three channels and of one, of 16x16 and 20x20.
NETS = ["mobilenet-xs-relu6", "resnet-xs"]


def pads(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Pad"]


@pytest.mark.parametrize("net", NETS)
def test_the_runtime_computes_the_same_numbers_on_the_wide_input(net: str, tmp_path) -> None:
    target, backend = target_of("onnxruntime"), get_backend("onnxruntime")
    if not target.has_vnni():
        pytest.skip("only files for CPUs with VNNI are widened")
    outputs, layers = [], []
    wide = lower(master(net), X86)
    check_lowering(master(net), wide, X86)
    for name, model in (("wide", wide), ("narrow", narrowed(wide))):
        (tmp_path / name).mkdir()
        onnx.save(model, tmp_path / name / "model.onnx")
        compiled = backend.compile(tmp_path / name / "model.onnx", target, tmp_path / name, form=X86)
        outputs.append(backend.load(compiled, target).run({"input": samples(net, 4).numpy()})["logits"])
        layers.append([layer.op for layer in backend.coverage(compiled, target)])
    assert len(pads(wide)) == 1
    assert not pads(narrowed(wide))
    assert np.array_equal(*outputs)
    assert layers[0] == layers[1]


def test_other_kernels_get_what_they_want() -> None:
    net = NETS[0]
    for form, vnni in ((X86, False), (ARM, True), (OPENVINO, True)):
        model = lower(master(net), form, vnni=vnni)
        check_lowering(master(net), model, form, vnni=vnni)
        assert not pads(model)


def test_small_images_and_inputs_of_several_layers_stay() -> None:
    plain = narrowed(lower(master(NETS[0]), X86))
    widened = copy.deepcopy(plain)
    widen_input(Graph(widened))
    assert len(pads(widened)) == 1
    small = copy.deepcopy(plain)
    for dim in small.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 15
    widen_input(Graph(small))
    assert not pads(small)
    shared = copy.deepcopy(plain)
    first = next(node for node in shared.graph.node if node.op_type == "Conv")
    shared.graph.node.append(helper.make_node("Relu", [first.input[0]], ["other"]))
    widen_input(Graph(shared))
    assert not pads(shared)


@pytest.mark.parametrize("what", ["weights", "place", "value"])
def test_a_padding_that_changes_numbers_is_refused(what: str) -> None:
    graph = Graph(lower(master(NETS[0]), X86))
    (pad,) = pads(graph.model)
    if what == "weights":
        name = next(name for name in graph.constants if name.endswith("_int8_wide"))
        codes = graph.array(name).copy()
        codes[0, CHANNELS - 1, 0, 0] = 1
        graph.set_constant(name, codes)
    elif what == "place":
        graph.set_constant(pad.input[1], np.array([0, 1, 0, 0, 0, 0, 0, 0]))
    else:
        pad.input[2] = graph.set_constant("other", np.array(0, np.uint8))
    with pytest.raises(ProofFailed, match="at input"):
        check_lowering(master(NETS[0]), graph.model, X86)
