"""BatchNorms as quantization wants them: folded into a layer of their own, or written as one, exactly."""

from __future__ import annotations

from collections import Counter

from torch.fx import GraphModule, Node

from edgekd.quantize.attributes import add_parameter, attribute
from edgekd.quantize.branch import folds_into_its_source, norm_branch, write_branch
from edgekd.quantize.operators import WEIGHTED, aten


def part_shared_layers(model: GraphModule) -> None:
    """Layers that a BatchNorm is folded into get parameters of their own where others read them too.

    Where others use the layer's output, the BatchNorm gets a layer of its own.
    """
    readers = Counter(node.target for node in model.graph.nodes if node.op == "get_attr" for _ in node.users)
    for norm in [node for node in model.graph.nodes if node.target == aten.batch_norm.default]:
        source: Node = norm.args[0]
        if source.target not in WEIGHTED:
            continue
        if len(source.users) > 1:
            if source.target == aten.conv2d.default:
                continue  # such a BatchNorm becomes a convolution by itself
            with model.graph.inserting_before(norm):
                own_layer = model.graph.node_copy(source)
            norm.replace_input_with(source, own_layer)
            source = own_layer
            readers.update(one.target for one in source.all_input_nodes[1:])
        for place, kind in ((1, "weight"), (2, "bias")):
            one = source.args[place] if len(source.args) > place else None
            if not isinstance(one, Node) or one.op != "get_attr" or readers[one.target] == 1:
                continue
            with model.graph.inserting_before(source):
                own = add_parameter(model, f"{source.name}_{kind}", attribute(model, one))
            own.meta = dict(one.meta)
            source.update_arg(place, own)
            readers[one.target] -= 1


def lone_norms_as_convolutions(model: GraphModule) -> None:
    """A BatchNorm over images that no convolution takes in becomes a depthwise 1x1 convolution (DenseNet)."""
    for node in list(model.graph.nodes):
        if node.target == aten.batch_norm.default and not folds_into_its_source(node):
            branch = norm_branch(model, node)
            if branch is not None:
                node.replace_all_uses_with(write_branch(model, branch, node))
                model.graph.erase_node(node)
