"""Whatever is changed in a lowered file, the static check finds and names it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strict_nets import master

from edgekd.backends.onnxruntime import ARM, X86
from edgekd.backends.openvino import X86 as OPENVINO
from edgekd.backends.tensorrt import FORM as TENSORRT
from edgekd.errors import ProofFailed
from edgekd.forms import QuantForm
from edgekd.lower import check_lowering, lower, overflow_rows
from edgekd.lower.graph import Graph

NET = "mobilenet-xs-relu6"
FORMS = {"onnxruntime": X86, "arm": ARM, "openvino": OPENVINO, "tensorrt": TENSORRT}


def change(graph: Graph, name: str, function: Callable[[np.ndarray], np.ndarray]) -> None:
    value = graph.array(name)
    graph.set_constant(name, function(value.copy()).astype(value.dtype))


def refuse(graph: Graph, form: QuantForm, match: str) -> None:
    with pytest.raises(ProofFailed, match=match) as caught:
        check_lowering(master(NET), graph.model, form)
    assert caught.value.where == "hop master -> lowered"


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> QuantForm:
    return FORMS[request.param]


@pytest.fixture
def graph(form: QuantForm) -> Graph:
    model = lower(master(NET), form)
    check_lowering(master(NET), model, form)
    return Graph(model)


def middle(graph: Graph):
    """A site that no spelled hardsigmoid ends at: those are refused by the site in front (test_spelling.py)."""
    sites = [site for site in graph.sites() if site.tensor in graph.producer]
    sites = [site for site in sites if not any("_half_" in name for name in graph.producer[site.tensor].input)]
    return sites[len(sites) // 2]


def first_codes(graph: Graph) -> str:
    return next(name for name in graph.constants if name.endswith("_int8"))


def test_engines_of_a_gpu_saturate_nowhere() -> None:
    model = lower(master(NET), TENSORRT, vnni=False)
    assert model == lower(master(NET), TENSORRT)
    check_lowering(master(NET), model, TENSORRT, vnni=False)
    assert overflow_rows(master(NET), model, TENSORRT, vnni=False) == []


def test_a_scale(graph: Graph, form: QuantForm) -> None:
    site = middle(graph)
    change(graph, site.quantize.input[1], lambda scale: scale * 1.01)
    refuse(graph, form, f"another scale or zero point at {site.tensor}")


def test_a_scale_of_dequantize_alone(graph: Graph, form: QuantForm) -> None:
    site = middle(graph)
    value = graph.array(site.dequantize.input[1])
    site.dequantize.input[1] = graph.set_constant("other_scale", (value * np.float32(1.01)).astype(value.dtype))
    refuse(graph, form, f"another scale or zero point at {site.tensor}")


def test_a_zero_point(graph: Graph, form: QuantForm) -> None:
    site = middle(graph)
    change(graph, site.quantize.input[2], lambda zero: zero + 1)
    refuse(graph, form, f"another scale or zero point at {site.tensor}")


def test_a_type(graph: Graph, form: QuantForm) -> None:
    site = middle(graph)
    zero = graph.array(site.quantize.input[2])
    other = np.int8 if zero.dtype == np.uint8 else np.uint8
    graph.set_constant(site.quantize.input[2], zero.astype(np.int64).clip(0, 127).astype(other))
    refuse(graph, form, f"another scale or zero point at {site.tensor}")


def test_a_weight_code(graph: Graph, form: QuantForm) -> None:
    name = first_codes(graph)

    def nudge(codes: np.ndarray) -> np.ndarray:
        codes.flat[len(codes.flat) // 2] -= 1 if codes.flat[len(codes.flat) // 2] > 0 else -1
        return codes

    change(graph, name, nudge)
    refuse(graph, form, f"other weights in {name.removesuffix('_int8')}")


def test_a_weight_scale(graph: Graph, form: QuantForm) -> None:
    name = first_codes(graph).removesuffix("_int8")

    def nudge(scale: np.ndarray) -> np.ndarray:
        scale[0] *= 1.01
        return scale

    change(graph, f"{name}_scale", nudge)
    refuse(graph, form, f"other weights in {name}")


def test_a_bias(graph: Graph, form: QuantForm) -> None:
    head = next(node for node in graph.model.graph.node if node.op_type == "Gemm")
    conv = [node for node in graph.model.graph.node if node.op_type == "Conv"][5]
    for node in (conv, head):
        name = node.input[2]
        constant = name if name in graph.constants else graph.producer[name].input[0]
        kept = graph.array(constant).copy()
        change(graph, constant, lambda bias: bias + np.array([7 if bias.dtype == np.int32 else 0.07] + [0] * 9)[:1])
        refuse(graph, form, "another constant at")
        graph.set_constant(constant, kept)
    check_lowering(master(NET), graph.model, form)


def test_the_axis_of_a_weight(graph: Graph, form: QuantForm) -> None:
    """The numbers are the master's, but engines would scale input channels with them."""
    dequantize = next(graph.consumers[name][0] for name in graph.constants if name.endswith("_int8"))
    dequantize.attribute[0].i = 1 - dequantize.attribute[0].i
    refuse(graph, form, "other weights")


def test_the_scale_of_an_int32_bias() -> None:
    """The wrong numbers that ONNX Runtime computes without a word."""
    graph = Graph(lower(master(NET), X86))
    bias = graph.producer[graph.producer["logits"].input[2]]
    change(graph, bias.input[1], lambda scale: scale * 2)
    change(graph, bias.input[0], lambda codes: np.rint(codes / 2))
    refuse(graph, X86, "another constant at logits")


def test_a_site_that_was_made_up(graph: Graph, form: QuantForm) -> None:
    site = middle(graph)
    site.quantize.input[0] = graph.producer[site.tensor].input[0]
    refuse(graph, form, r"a site at .* that the master does not have|another (scale|input|operator)")


def test_an_operator(graph: Graph, form: QuantForm) -> None:
    clip = next(node for node in graph.model.graph.node if node.op_type == "Clip")
    clip.op_type = "Relu"
    del clip.input[1:]
    refuse(graph, form, "another operator at hardtanh")


def test_another_wiring(graph: Graph, form: QuantForm) -> None:
    add = next(node for node in graph.model.graph.node if node.op_type == "Add" and "add" in node.output[0])
    add.input[0] = add.input[1]
    refuse(graph, form, f"another input of {add.output[0]}")


def test_an_operator_too_many(graph: Graph, form: QuantForm) -> None:
    graph.model.graph.node.append(onnx.helper.make_node("Relu", ["logits"], ["more"]))
    refuse(graph, form, "operators, the master has")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_constant(data: st.DataObject) -> None:
    """Every number in the file is checked: a change of any one of them is found."""
    form = FORMS[data.draw(st.sampled_from(sorted(FORMS)))]
    graph = Graph(lower(master(NET), form))
    floats = sorted(name for name in graph.constants if graph.array(name).dtype != np.int64)
    name = data.draw(st.sampled_from(floats))
    place = data.draw(st.integers(0, graph.array(name).size - 1))

    def spoil(value: np.ndarray) -> np.ndarray:
        # At least a step: an int32 bias may be one code from its float.
        value.reshape(-1)[place] = value.reshape(-1)[place] * 0.5 + (3 if value.dtype.kind in "iu" else 1)
        return value

    before = graph.array(name).copy()
    change(graph, name, spoil)
    if np.array_equal(before, graph.array(name)):
        return
    with pytest.raises(ProofFailed):
        check_lowering(master(NET), graph.model, form)
