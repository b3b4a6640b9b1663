"""Where a quantizer sits: the superset of what any backend needs, in the strictest form.

Every activation site is symmetric int8 with zero point 0, what TensorRT demands; every weight int8 per output channel
in ±127. A site stands at the output of each known operator, so that ONNX Runtime finds one wherever it fuses, and at
whatever a weighted layer or a product reads, since without it that would be float; backends drop what they do not want
(lowering). None stands between a convolution (or addition) and a ReLU or ReLU6 that follows it alone, since every
backend fuses those, nor at the network's output, nor at scores with a mask.

Values that only move share one quantizer, and so do all inputs and the output of a concatenation: with one scale it
moves codes too (TensorRT asks for it, OpenVINO and ONNX Runtime are spared a rescaling).
"""

from __future__ import annotations

import math

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from edgekd.quantize.attention import masked_scores
from edgekd.quantize.observers import activation_spec, weight_spec
from edgekd.quantize.operators import (
    CLIPS,
    COPIES,
    PASSING,
    PRODUCTS,
    WEIGHTED,
    aten,
    has_rule,
    is_float,
    passed_from,
    varying_nodes,
)


class StrictQuantizer(Quantizer):
    """Annotates every site of an exported evaluation-mode graph (torchao's pt2e)."""

    def __init__(self, averaging: float) -> None:
        super().__init__()
        self.activation: QuantizationSpec = activation_spec(averaging)
        self.weight: QuantizationSpec = weight_spec()
        # Operators without a rule, which stay float, and how many of each; filled by `annotate`.
        self.without_rule: dict[str, int] = {}

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark weights and the outputs that carry a site."""
        sited = _sited(model)
        leaders = _leaders(model, sited)
        for node in model.graph.nodes:
            inputs = {}
            if node.target in WEIGHTED and has_rule(node):
                inputs[node.args[1]] = self.weight
            leader = leaders.get(node)
            spec = None
            if leader is node:
                spec = self.activation
            elif leader is not None:
                spec = SharedQuantizationSpec(leader)
            if inputs or spec is not None:
                node.meta["quantization_annotation"] = QuantizationAnnotation(
                    input_qspec_map=inputs, output_qspec=spec, _annotated=True
                )
        self.without_rule = _without_rule(model)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to refuse: an operator without a rule stays float."""


def _sited(model: GraphModule) -> set[Node]:
    """The nodes whose output carries a site of their own or one that came through."""
    ends, varying = _output_chain(model) | masked_scores(model), varying_nodes(model.graph)
    read = _read_by_layers(model)
    found: set[Node] = set()
    for node in model.graph.nodes:
        if node in ends or node not in varying or not node.users or not is_float(node):
            continue
        known = node.op == "placeholder" or (has_rule(node) and not _clipped_next(node))
        if known or passed_from(node) in found or (node in read and not _pads_with_infinity(node)):
            found.add(node)
    return found


def _read_by_layers(model: GraphModule) -> set[Node]:
    """What weighted layers and products compute with, also as it was before it was only moved."""
    found: set[Node] = set()
    for node in model.graph.nodes:
        weighted = node.target in WEIGHTED and has_rule(node)
        # Attention's fourth input is its mask.
        count = 1 if weighted else 3 if node.target in PRODUCTS else 0
        for value in node.args[:count]:
            while isinstance(value, Node) and value not in found:
                found.add(value)
                value = passed_from(value)
    return found


def _pads_with_infinity(node: Node) -> bool:
    """Whether no range holds a node's values: in front of a maximum, behind which they are gone."""
    return node.target == aten.pad.default and len(node.args) > 3 and abs(node.args[3] or 0) == math.inf  # type: ignore[arg-type]


def _leaders(model: GraphModule, sited: set[Node]) -> dict[Node, Node]:
    """For each sited node the first one, in the graph's order, that it shares its quantizer with (maybe itself)."""
    parent = {node: node for node in sited}

    def root(node: Node) -> Node:
        while parent[node] is not node:
            node = parent[node]
        return node

    order = {node: place for place, node in enumerate(model.graph.nodes)}
    for node in model.graph.nodes:
        if node not in sited:
            continue
        source = passed_from(node)
        partners = [source] if source is not None else []
        if node.target == aten.cat.default:
            partners = list(node.all_input_nodes)
        for partner in partners:
            if partner in sited:
                first, second = sorted((root(node), root(partner)), key=order.__getitem__)
                parent[second] = first
    return {node: root(node) for node in sited}


def _clipped_next(node: Node) -> bool:
    """Whether the only use is a ReLU or ReLU6 that will be fused into this operator."""
    fusing = node.target in WEIGHTED or node.target == aten.add.Tensor
    return fusing and len(node.users) == 1 and next(iter(node.users)).target in CLIPS


def _output_chain(model: GraphModule) -> set[Node]:
    """The operator that makes the network's output, and what merely passes its numbers on."""
    chain: set[Node] = set()
    pending = list(model.graph.output_node().all_input_nodes)
    while pending:
        node = pending.pop()
        chain.add(node)
        if node.target in PASSING:
            pending += node.all_input_nodes
    return chain


def _without_rule(model: GraphModule) -> dict[str, int]:
    """The operators that compute with the network's data by no rule, by name, with how many there are."""
    found: dict[str, int] = {}
    ends, varying = _output_chain(model), varying_nodes(model.graph)
    for node in model.graph.nodes:
        value = node.meta.get("val")
        computes = is_float(node) or (isinstance(value, torch.Tensor) and value.is_complex())
        if node.op != "call_function" or node not in varying or node in ends or not computes:
            continue
        ruled = has_rule(node) or passed_from(node) is not None
        if not ruled and isinstance(node.target, torch._ops.OpOverload) and node.target not in COPIES:
            name = node.target._schema.name.removeprefix("aten::")
            if node.target in WEIGHTED:
                name += " with a weight computed from the input"
            found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))
