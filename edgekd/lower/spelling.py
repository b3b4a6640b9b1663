"""HardSwish and HardSigmoid written so that ONNX Runtime computes them on integers.

It has no integer kernel for either and would leave DequantizeLinear, three float operators and QuantizeLinear. But
``hardsigmoid(x) = clip(x / 6 + 1/2, 0, 1)`` is an addition whose clipping a QuantizeLinear does by itself: the codes of
x, read with a sixth of their scale, plus a constant, quantized to [0, 1]. So a HardSigmoid becomes one QLinearAdd, and
a HardSwish ``x * hardsigmoid(x)`` a QLinearAdd and a QLinearMul. The gate's scale, 1/255, follows from its range.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from edgekd.forms import QuantForm, Site
from edgekd.lower.graph import Graph
from edgekd.lower.numbers import site_parameters

SPELLED = ("HardSwish", "HardSigmoid")


@dataclass(frozen=True)
class _Spelling:
    """The nodes and constants that stand for one operator."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, np.ndarray]


def spell(graph: Graph, form: QuantForm, in_float: set[str]) -> None:
    """In place: every HardSwish and HardSigmoid between two sites that is not to stay ``in_float``."""
    for node in [one for one in graph.model.graph.node if one.op_type in SPELLED]:
        if node.output[0] in in_float or not (_between_sites(graph, node) and _clips_by_itself(graph, node)):
            continue
        spelling = _spelling(graph, node, form)
        place = list(graph.model.graph.node).index(node)
        graph.model.graph.node.remove(node)
        for offset, new in enumerate(spelling.nodes):
            graph.model.graph.node.insert(place + offset, new)
        for name, value in spelling.constants.items():
            graph.set_constant(name, value)
        graph.refresh()


def unspelled(model: onnx.ModelProto, master: onnx.ModelProto, form: QuantForm) -> onnx.ModelProto:
    """A copy of a lowered file with the ``master``'s operators in place of exactly what `spell` makes of them.

    What differs from that in any node or number stays, for whoever compares the two.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    original = Graph(master)
    for node in [one for one in master.graph.node if one.op_type in SPELLED]:
        graph = Graph(plain)
        last = graph.producer.get(node.output[0])
        if last is None or last.op_type == node.op_type:
            continue
        if not _between_sites(original, node) or not _clips_by_itself(graph, node):
            continue
        if node.input[0] not in graph.producer and not _put_back(graph, original.producer.get(node.input[0])):
            continue
        spelling = _spelling(graph, node, form)
        found = [graph.producer.get(new.output[0]) for new in spelling.nodes]
        same = all(one == new for one, new in zip(found, spelling.nodes, strict=True))
        if same and all(_equal(graph, name, value) for name, value in spelling.constants.items()):
            place = list(plain.graph.node).index(last)
            for one in found:
                plain.graph.node.remove(one)
            # The nodes in front of the last one are gone too.
            plain.graph.node.insert(place + 1 - len(found), node)
    return plain


def _put_back(graph: Graph, dequantize: onnx.NodeProto | None) -> bool:
    """The site's DequantizeLinear, which nothing reads any more where only a spelled operator did."""
    quantize = graph.producer.get(dequantize.input[0]) if dequantize is not None else None
    if dequantize is None or quantize is None:
        return False
    again = helper.make_node("DequantizeLinear", [quantize.output[0], *quantize.input[1:]], dequantize.output)
    graph.model.graph.node.insert(list(graph.model.graph.node).index(quantize) + 1, again)
    graph.refresh()
    return True


def _between_sites(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether sites around ``node`` let it be spelled; the same of the master's graph and of a lowered one."""
    users = graph.consumers.get(node.output[0], [])
    if not graph.is_site_output(node.input[0]) or not users:
        return False
    if any(user.op_type != "QuantizeLinear" for user in users):
        return False
    if node.op_type == "HardSwish":
        return True
    third = {attribute.name: attribute.f for attribute in node.attribute}
    return abs(third.get("alpha", 0.2) - 1 / 6) < 1e-6 and abs(third.get("beta", 0.5) - 0.5) < 1e-6


def _clips_by_itself(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether the rounding behind a HardSigmoid ends at 0 and at no more than 1; a HardSwish brings its own.

    It does not where the value is concatenated with signed ones, or where a learned scale reaches beyond 1.
    """
    if node.op_type == "HardSwish":
        return True
    for user in graph.consumers.get(node.output[0], []):
        if user.op_type != "QuantizeLinear":
            return False
        scale, zero_point = (graph.array(name) for name in user.input[1:3])
        ends = np.iinfo(zero_point.dtype)
        if zero_point != ends.min or (ends.max - ends.min) * scale > 1.001:
            return False
    return True


def _spelling(graph: Graph, node: onnx.NodeProto, form: QuantForm) -> _Spelling:
    """What stands for ``node``, whose input comes out of a site."""
    source, out = graph.producer[node.input[0]], node.output[0]
    scale, zero_point = graph.array(source.input[1]), graph.array(source.input[2])
    # The whole range of codes for [0, 1], and one half in the same type.
    unit, lowest = site_parameters(Site(node.output[0], "nonnegative", 1 / 127), form)
    half_scale = np.array(unit / 2, np.float32)
    constants = {
        f"{out}_sixth_scale": (scale / np.float32(6)).astype(np.float32),
        f"{out}_half": np.array(int(lowest) + 255).astype(zero_point.dtype),
        f"{out}_half_scale": half_scale,
        f"{out}_half_zero_point": lowest,
    }

    def make(kind: str, inputs: Iterable[str], output: str) -> onnx.NodeProto:
        return helper.make_node(kind, list(inputs), [output], name=output)

    third = make("DequantizeLinear", [source.input[0], f"{out}_sixth_scale", source.input[2]], f"{out}_sixth")
    half = make(
        "DequantizeLinear", [f"{out}_half", f"{out}_half_scale", f"{out}_half_zero_point"], f"{out}_half_dequantized"
    )
    gate = out if node.op_type == "HardSigmoid" else f"{out}_gate"
    nodes = [third, half, make("Add", [third.output[0], half.output[0]], gate)]
    if node.op_type == "HardSwish":
        constants |= {f"{gate}_scale": unit, f"{gate}_zero_point": lowest}
        parameters = [f"{gate}_scale", f"{gate}_zero_point"]
        nodes += [
            make("QuantizeLinear", [gate, *parameters], f"{gate}_codes"),
            make("DequantizeLinear", [f"{gate}_codes", *parameters], f"{gate}_dequantized"),
            make("Mul", [node.input[0], f"{gate}_dequantized"], out),
        ]
    return _Spelling(nodes, constants)


def _equal(graph: Graph, name: str, wanted: np.ndarray) -> bool:
    if name not in graph.constants:
        return False
    found = graph.array(name)
    return found.dtype == wanted.dtype and found.shape == wanted.shape and bool((found == wanted).all())
