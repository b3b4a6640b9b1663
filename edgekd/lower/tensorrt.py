"""TensorRT, explicit quantization: which sites stay.

NVIDIA's placement rules ("Explicit Quantization" in the TensorRT documentation): quantize the inputs of weighted
layers, not their outputs; in a residual addition quantize the skip branch, not the convolution that is fused with the
addition; sites commute through pooling by maximum and data movement. Convolutions with few channels and matrix-vector
products stay float, and so does attention with a mask, as ModelOpt leaves them (modelopt/onnx/quantization).
"""

from __future__ import annotations

import onnx

from edgekd.lower.graph import PASSING, Graph, SiteNode

NEEDS_OUTPUT_SITE = False
INTEGER_BIAS = False
QUANTIZES_WEIGHTS = False
# A GPU sums in 32 bits, whatever CPU is beside it.
SATURATES = False
SPELLS_HARDSWISH = False
SPELLS_PERMUTATIONS = False
WIDENS_INPUT = False
# What a convolution hands to a resize is quantized (ModelOpt).
RESIZES_INTEGERS = ("nearest", "linear", "cubic")
# A residual addition is part of the convolution on its main path: its skip branch alone is quantized.
FUSES_ADD = True
FUSES_CLIPS = True
FEWEST_CHANNELS = 16


def drops(graph: Graph, site: SiteNode) -> bool:
    """Whether this backend wants no site here."""
    if graph.needless(site):
        return True
    producer, users = graph.producer.get(site.tensor), graph.users(site.tensor)
    return (
        producer is not None
        and producer.op_type == "Conv"
        and len(users) == 1
        and users[0].op_type == "Add"
        and _is_fused(graph, producer, users[0])
    )


def keeps_float(graph: Graph, node: onnx.NodeProto, weight_shape: tuple[int, ...]) -> bool:
    """Whether a weighted node is better left in float: matrix-vector products and thin convolutions."""
    if node.op_type != "Conv":
        # One row a sample is a matrix-vector product; a MatMul has more than two dimensions.
        return node.op_type == "Gemm"
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    out, inside = weight_shape[0], weight_shape[1] * group
    if group > 1:
        return not (out % 8 == 0 and min(weight_shape[2:]) >= 3)
    first = graph.is_first(node)
    square = len(set(weight_shape[2:])) == 1
    aligned = out % 8 == 0 or inside % 8 == 0
    return min(out, inside) < FEWEST_CHANNELS and not (
        square and aligned and (first or max(out, inside) >= FEWEST_CHANNELS)
    )


def masked_attention(graph: Graph) -> set[str]:
    """Outputs of the products of attention with a mask, and of what computes its scores between them."""
    found: set[str] = set()
    for node in graph.model.graph.node:
        # Scores with a mask are the ones without a site.
        if node.op_type != "Softmax" or graph.is_quantized(node.input[0]):
            continue
        scores = _scores(graph, node.input[0])
        if scores:
            found |= {*scores, *_weighted_values(graph, node.output[0])}
    return found


def _scores(graph: Graph, name: str) -> set[str]:
    """From a product of two activations to ``name``; empty where none is behind it."""
    node = graph.source(name)
    if node is None:
        return set()
    if node.op_type == "MatMul" and len(graph.data_inputs(node)) == 2:
        return {node.output[0]}
    inner = set()
    if node.op_type in ("Add", "Mul", "Div", "Where", *PASSING):
        inner = set().union(*(_scores(graph, one) for one in node.input))
    return {node.output[0], *inner} if inner else inner


def _weighted_values(graph: Graph, name: str) -> set[str]:
    """The products of two activations that take ``name``, as it is or moved."""
    found = set()
    for user in graph.users(name):
        if user.op_type in PASSING:
            found |= _weighted_values(graph, user.output[0])
        elif user.op_type == "MatMul":
            found.add(user.output[0])
    return found


def _is_fused(graph: Graph, conv: onnx.NodeProto, add: onnx.NodeProto) -> bool:
    """Whether the addition is fused into this convolution: the other branch is no convolution, or a shallower one."""
    sources = [graph.source(name) for name in add.input]
    other = next((s for s in sources if s is not None and s.output[0] != conv.output[0]), None)
    if other is None or other.op_type != "Conv":
        return True
    # Two convolutions meet: the one on the main path is fused, the projection of the skip branch is quantized. Of
    # branches of one depth the first of the sum is fused: with a site on neither, it would write float.
    ours, theirs = _depth(graph, conv), _depth(graph, other)
    return ours > theirs or (ours == theirs and sources[0] is conv)


def _depth(graph: Graph, node: onnx.NodeProto) -> int:
    """Longest way from the network's input, in operators: sites do not count, some of them are gone already."""
    depths: dict[str, int] = {}
    for one in graph.model.graph.node:
        operator = one.op_type not in ("QuantizeLinear", "DequantizeLinear")
        depth = operator + max((depths.get(name, 0) for name in one.input), default=0)
        depths.update(dict.fromkeys(one.output, depth))
        if one.output[0] == node.output[0]:
            break
    return depths[node.output[0]]
