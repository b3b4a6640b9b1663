"""The parameters and buffers of an exported network, by the nodes that read them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.fx import GraphModule, Node


def attribute(model: GraphModule, node: Node) -> Tensor:
    """The tensor that a ``get_attr`` node reads."""
    owner, _, name = str(node.target).rpartition(".")
    value: Tensor = getattr(model.get_submodule(owner), name)
    return value


def set_attribute(model: GraphModule, node: Node, value: Tensor) -> None:
    """Put another parameter where a ``get_attr`` node reads."""
    owner, _, name = str(node.target).rpartition(".")
    setattr(model.get_submodule(owner), name, nn.Parameter(value.detach().clone()))
    if isinstance(node.meta.get("val"), Tensor):
        node.meta["val"] = node.meta["val"].new_empty(value.shape)


def add_parameter(model: GraphModule, wanted: str, value: Tensor) -> Node:
    """A new parameter and the node that reads it, at the graph's insertion point; ``wanted`` is its name if free."""
    name = free_name(model, wanted)
    model.register_parameter(name, nn.Parameter(value.detach().clone()))
    return model.graph.get_attr(name)


def add_buffer(model: GraphModule, wanted: str, value: Tensor) -> Node:
    """The same for a tensor that is not trained; ``value`` is copied."""
    name = free_name(model, wanted)
    model.register_buffer(name, value.detach().clone())
    return model.graph.get_attr(name)


def free_name(model: GraphModule, wanted: str) -> str:
    """``wanted``, or with as many underscores behind as it takes: the network has names of its own."""
    while hasattr(model, wanted):
        wanted += "_"
    return wanted
