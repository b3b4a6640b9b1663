"""Where a quantizer sits: the superset of what any backend needs, in the strictest form.

Every activation site is symmetric int8 with zero point 0, what TensorRT demands; every weight int8 per output channel
in ±127. A site stands at the output of each known operator, so that ONNX Runtime finds one wherever it fuses; backends
drop what they do not want (lowering). None stands between a convolution (or addition) and a ReLU or ReLU6 that
follows it alone, since every backend fuses those, nor at the network's output.
"""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from edgekd.quantize.observers import activation_spec, weight_spec

aten = torch.ops.aten
WEIGHTED = {aten.conv2d.default, aten.conv1d.default, aten.linear.default}
# Fused into what comes before them by every backend.
CLIPS = {aten.relu.default, aten.relu6.default, aten.hardtanh.default}
ACTIVATIONS = {
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.sigmoid.default,
    aten.silu.default,
    aten.gelu.default,
}
ELEMENTWISE = {aten.add.Tensor, aten.mul.Tensor, aten.cat.default}
AVERAGES = {aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.mean.dim}
# The numbers pass through, so the quantizer behind is the one in front.
PASSING = {
    aten.max_pool2d.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.dim,
    aten.unsqueeze.default,
}
DROPOUTS = {aten.dropout.default}
# They compute nothing.
COPIES = {aten.clone.default, aten.contiguous.default, aten.alias.default, aten.detach.default, aten.to.dtype}
KNOWN = WEIGHTED | CLIPS | ACTIVATIONS | ELEMENTWISE | AVERAGES


class StrictQuantizer(Quantizer):
    """Annotates every site of an exported evaluation-mode graph (torchao's pt2e)."""

    def __init__(self, averaging: float) -> None:
        super().__init__()
        self.activation: QuantizationSpec = activation_spec(averaging)
        self.weight: QuantizationSpec = weight_spec()
        # Operators without a rule, which stay float, and how many of each; filled by `annotate`.
        self.without_rule: dict[str, int] = {}

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Remove dropout, which does nothing in evaluation: a site on both sides would quantize twice."""
        for node in list(model.graph.nodes):
            if node.target in DROPOUTS:
                node.replace_all_uses_with(node.args[0])
                model.graph.erase_node(node)
        model.recompile()
        return model

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark weights and the outputs that carry a site."""
        ends = _output_chain(model)
        for node in model.graph.nodes:
            inputs = {}
            if node.target in WEIGHTED:
                inputs[node.args[1]] = self.weight
            spec = None if node in ends else self._output_spec(node)
            if inputs or spec is not None:
                node.meta["quantization_annotation"] = QuantizationAnnotation(
                    input_qspec_map=inputs, output_qspec=spec, _annotated=True
                )
        self.without_rule = _without_rule(model, ends)
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to refuse: an operator without a rule stays float."""

    def _output_spec(self, node: Node) -> QuantizationSpec | SharedQuantizationSpec | None:
        if not _is_float(node) or not node.users:
            return None
        if node.op == "placeholder":
            return self.activation
        if node.target in PASSING:
            source = node.all_input_nodes[0]
            annotated = source.meta.get("quantization_annotation")
            return SharedQuantizationSpec(source) if annotated and annotated.output_qspec else None
        if node.target not in KNOWN or _clipped_next(node):
            return None
        return self.activation


def _clipped_next(node: Node) -> bool:
    """Whether the only use is a ReLU or ReLU6 that will be fused into this operator."""
    fusing = node.target in WEIGHTED or node.target == aten.add.Tensor
    return fusing and len(node.users) == 1 and next(iter(node.users)).target in CLIPS


def _output_chain(model: GraphModule) -> set[Node]:
    """The operator that makes the network's output, and what merely passes its numbers on."""
    output = next(node for node in model.graph.nodes if node.op == "output")
    chain: set[Node] = set()
    pending = list(output.all_input_nodes)
    while pending:
        node = pending.pop()
        chain.add(node)
        if node.target in PASSING:
            pending += node.all_input_nodes
    return chain


def _without_rule(model: GraphModule, ends: set[Node]) -> dict[str, int]:
    """The operators that compute with the network's data and got no site, by name, with how many there are."""
    found: dict[str, int] = {}
    data: set[Node] = set()
    for node in model.graph.nodes:
        if node.op == "placeholder" or data & set(node.all_input_nodes):
            data.add(node)
        if node.op != "call_function" or node not in data or node in ends or not _is_float(node):
            continue
        ruled = node.target in KNOWN | PASSING | DROPOUTS or "quantization_annotation" in node.meta
        if not ruled and isinstance(node.target, torch._ops.OpOverload) and node.target not in COPIES:
            name = node.target._schema.name.removeprefix("aten::")
            found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()
