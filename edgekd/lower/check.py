"""The static proof of a lowering: the same operators on the same values, every number a function of the master's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from edgekd.errors import ProofFailed
from edgekd.forms import Master, QuantForm, Site
from edgekd.lower.apply import cures_of, may_saturate, written_weight
from edgekd.lower.cures import Cures, saturating_products
from edgekd.lower.graph import Graph, Layer
from edgekd.lower.int32_bias import is_int32_bias
from edgekd.lower.joined import form_at, joined_sites
from edgekd.lower.numbers import clip_at, site_parameters
from edgekd.lower.permutations import with_gathers
from edgekd.lower.spelling import unspelled
from edgekd.lower.stored import is_reading, is_stored, reads_stored
from edgekd.lower.tokens import with_products
from edgekd.lower.wide_input import narrowed

# What a lowering may add or take away.
TRANSPARENT = ("QuantizeLinear", "DequantizeLinear", "Cast")


def check_lowering(master: Master, lowered: onnx.ModelProto, form: QuantForm, *, vnni: bool = True) -> None:
    """That ``lowered`` only relaxes ``master``, but for the form's cures, which ``vnni`` False asks for.

    Raises:
        ProofFailed: an operator, a site, a scale, a weight or a bias is not the master's; its place is named.
    """
    strict = onnx.load(master.path)
    original, graph = Graph(strict), Graph(_as_master(lowered, strict, form))
    cures = _cures(master, original, graph, form, vnni)
    _check_sites(master, graph, form, cures)
    sites = {site.tensor: site for site in master.sites}
    for name in saturating_products(graph, sites, form) if may_saturate(form, vnni=vnni) else ():
        raise _failed(f"an integer product at {name}, which could saturate without VNNI")
    nodes, others = (
        [node for node in one.model.graph.node if node.op_type not in TRANSPARENT and not is_reading(one, node)]
        for one in (original, graph)
    )
    layers = {layer.node.output[0]: layer for layer in original.layers()}
    for node, other in zip(nodes, others, strict=False):
        name = node.output[0]
        if name in cures.few_codes:
            if not _is_clip(original, graph, node, other):
                raise _failed(f"codes beyond 127 at {name}, which could saturate without VNNI")
            continue
        if not _same_operator(node, other):
            raise _failed(f"another operator at {name} than the master's")
        for index, (ours, theirs) in enumerate(zip(node.input, other.input, strict=True)):
            source, twin = _origin(original, ours), _origin(graph, theirs)
            if source not in original.constants:
                if twin.removesuffix("_fp16") != source:
                    raise _failed(f"another input of {name} than the master's")
            elif name in layers and index == 1:
                _check_weight(original, graph, layers[name], theirs, sites, form, cures)
            elif form.weights == "int8" and index == 1 and is_stored(original, node):
                if not reads_stored(graph, node, theirs, original.array(source), form):
                    raise _failed(f"other weights at {name} than the master's")
            elif not _is_constant(graph, other, theirs, original.array(source)):
                raise _failed(f"another constant at {name} than the master's {source}")
    if len(nodes) != len(others):
        raise _failed(f"{len(others)} operators, the master has {len(nodes)}")


def _as_master(lowered: onnx.ModelProto, master: onnx.ModelProto, form: QuantForm) -> onnx.ModelProto:
    """With the master's operators in place of those that a backend's spelling has for them."""
    lowered = narrowed(lowered)
    if form.bias == "int32":
        lowered = with_products(lowered, master)
    return with_gathers(unspelled(lowered, master, form), master)


def overflow_rows(
    master: Master, lowered: onnx.ModelProto, form: QuantForm, *, vnni: bool = True
) -> list[dict[str, Any]]:
    """The integer layers of a lowered file as rows of `edgekd.lower.cures.LayerBound`; none where none saturates."""
    cures = _cures(master, Graph(onnx.load(master.path)), Graph(lowered), form, vnni)
    return [row.to_json() for row in cures.rows]


def _cures(master: Master, original: Graph, graph: Graph, form: QuantForm, vnni: bool) -> Cures:
    """Chosen anew: by the master's numbers, for the layers and sites that are integer in the lowered file."""
    if not may_saturate(form, vnni=vnni):
        return Cures()
    reads = {}
    for layer in original.layers():
        name = layer.node.output[0]
        node = graph.producer.get(name)
        weight = graph.producer.get(node.input[1]) if node is not None else None
        if node is not None and weight is not None and weight.op_type == "DequantizeLinear":
            site = graph.site_of(node.input[0])
            if site is None:
                raise _failed(f"an integer weight at {name} and no site in front")
            reads[name] = site.input[0]
    sites = {site.tensor: site for site in master.sites}
    return cures_of(original, reads, {site.tensor for site in graph.sites()}, sites, form)


def _check_sites(master: Master, graph: Graph, form: QuantForm, cures: Cures) -> None:
    sites, joined = {site.tensor: site for site in master.sites}, joined_sites(graph, form)
    for node in graph.sites():
        site = sites.get(node.tensor.removesuffix("_fp16"))
        if site is None:
            raise _failed(f"a site at {node.tensor} that the master does not have")
        few_codes = node.tensor in cures.few_codes
        scale, zero_point = site_parameters(site, form_at(form, node.tensor, joined), few_codes=few_codes)
        for one in (node.quantize, *graph.consumers[node.quantize.output[0]]):
            found, zero = graph.array(one.input[1]), graph.array(one.input[2])
            # The same number for every channel is the same number.
            shape = found.shape if one.op_type == "DequantizeLinear" else ()
            same = _equal(found, np.broadcast_to(scale, shape)) and zero.dtype == zero_point.dtype
            if not same or not np.array_equal(zero, np.broadcast_to(zero_point, shape)):
                raise _failed(f"another scale or zero point at {node.tensor} than the master's")


def _check_weight(
    original: Graph, graph: Graph, layer: Layer, theirs: str, sites: dict[str, Site], form: QuantForm, cures: Cures
) -> None:
    dequantize = graph.producer.get(theirs)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        if not _is_constant(graph, layer.node, theirs, original.array(layer.weight)):
            raise _failed(f"other weights in {layer.weight} than the master's")
        return
    if layer.node.output[0] in form.float_layers:
        raise _failed(f"integers in {layer.node.output[0]}, which its form keeps in float")
    codes, written, zero = (graph.array(name) for name in dequantize.input)
    data = original.site_of(layer.node.input[0])
    assert data is not None, "the master has a site in front of every layer"
    tighten = cures.tightens(layer.node.output[0])
    wanted, scales = written_weight(original, layer, sites[data.input[0]], form, tighten=tighten)
    attributes = {attribute.name: attribute.i for attribute in dequantize.attribute}
    if (
        not np.array_equal(codes, wanted)
        or not _equal(written, scales)
        or zero.any()
        or attributes != {"axis": layer.axis}
    ):
        raise _failed(f"other weights in {layer.weight} than the master's")


def _is_clip(original: Graph, graph: Graph, node: onnx.NodeProto, other: onnx.NodeProto) -> bool:
    """Whether ``other`` is the master's Relu or Clip, ended where the master's rounding behind it clips."""
    if other.op_type != "Clip" or _origin(graph, other.input[0]) != _origin(original, node.input[0]):
        return False
    (quantize,) = (user for user in original.consumers[node.output[0]] if user.op_type == "QuantizeLinear")
    low, high = (graph.array(name) for name in other.input[1:])
    lowest = original.array(node.input[1]) if node.op_type == "Clip" else np.array(np.float32(0))
    return _equal(low, lowest) and _equal(high, clip_at(original.array(quantize.input[1])))


def _same_operator(node: onnx.NodeProto, other: onnx.NodeProto) -> bool:
    def told(one: onnx.NodeProto) -> tuple[str, int, list[bytes]]:
        attributes = sorted(attribute.SerializeToString() for attribute in one.attribute)
        return one.op_type, len(one.input), attributes

    return told(node) == told(other)


def _origin(graph: Graph, name: str) -> str:
    """A value's name in front of all sites and casts."""
    node = graph.producer.get(name)
    while node is not None and node.op_type in TRANSPARENT:
        name = node.input[0]
        node = graph.producer.get(name)
    return name


def _is_constant(graph: Graph, user: onnx.NodeProto, name: str, wanted: np.ndarray) -> bool:
    """Whether a value is a float constant of the master: itself, in float16 and cast, or as an int32 bias."""
    node = graph.producer.get(name)
    if node is None:
        return _equal(graph.array(name), wanted)
    if node.op_type == "Cast":
        return _equal(graph.array(node.input[0]), wanted)
    return len(user.input) > 2 and user.input[2] == name and is_int32_bias(graph, user, wanted)


def _equal(found: np.ndarray, wanted: np.ndarray) -> bool:
    """The same numbers, in the precision that they were written in."""
    if found.shape != wanted.shape:
        return False
    if found.dtype == np.float16:
        return np.array_equal(found, wanted.astype(np.float16))
    return np.array_equal(found, wanted)


def _failed(what: str) -> ProofFailed:
    return ProofFailed(
        f"the lowered graph has {what}", where="hop master -> lowered", remedy="report this: a lowering rule is wrong"
    )
