"""Layers with weights in a prepared graph: where their weight, its quantizer and their bias are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import FakeQuantizeBase

from edgekd.quantize.attributes import add_parameter
from edgekd.quantize.operators import WEIGHTED, aten


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer; its weight is (out, in / groups, ...), its output has ``axis`` for channels."""

    module: GraphModule
    node: Node

    @property
    def weight(self) -> nn.Parameter:
        """The float weight."""
        return self.module.get_parameter(str(self._weight_node().target))

    @property
    def quantizer(self) -> FakeQuantizeBase | None:
        """The fake-quantize module of the weight; None where it stays float."""
        return quantizer_at(self.module, self.node.args[1])

    @property
    def groups(self) -> int:
        """Of a convolution; 1 for a linear layer."""
        if self.node.target == aten.linear.default or len(self.node.args) < 7:
            return 1
        return int(self.node.args[6])  # type: ignore[arg-type]

    @property
    def axis(self) -> int:
        """Of the channels, in input and output."""
        return -1 if self.node.target == aten.linear.default else 1

    @property
    def bias(self) -> Tensor | None:
        """(out,), or None."""
        node = self._bias_node()
        return None if node is None else self.module.get_parameter(str(node.target)).detach()

    @property
    def bias_name(self) -> str | None:
        """The parameter that holds it, or None."""
        node = self._bias_node()
        return None if node is None else str(node.target)

    def set_bias(self, value: Tensor) -> None:
        """Give it this bias, (out,), and no other layer that had the same one."""
        node = self._bias_node()
        if node is not None and len(node.users) == 1 and not _read_elsewhere(node):
            self.module.get_parameter(str(node.target)).data.copy_(value)
            return
        with self.module.graph.inserting_before(self.node):
            new = add_parameter(self.module, f"{self.node.name}_bias", value)
        args = [*self.node.args, *[None] * (3 - len(self.node.args))]
        args[2] = new
        self.node.args = tuple(args)
        self.module.recompile()

    @property
    def shared(self) -> bool:
        """Whether its weight or bias is also another layer's."""
        nodes = [self._weight_node(), self._bias_node()]
        return any(node is not None and (len(node.users) > 1 or _read_elsewhere(node)) for node in nodes)

    def _weight_node(self) -> Node:
        node = self.node.args[1]
        assert isinstance(node, Node)
        return node if node.op == "get_attr" else node.all_input_nodes[0]

    def _bias_node(self) -> Node | None:
        node = self.node.args[2] if len(self.node.args) > 2 else self.node.kwargs.get("bias")
        return node if isinstance(node, Node) else None


def layers(module: GraphModule) -> Iterator[Layer]:
    """Its layers with a weight of their own, in the order of computing; not those whose weight is computed."""
    for node in module.graph.nodes:
        if node.target in WEIGHTED and isinstance(node.args[1], Node):
            source = node.args[1]
            if quantizer_at(module, source) is not None:
                source = source.all_input_nodes[0]
            if source.op == "get_attr":
                yield Layer(module, node)


def quantizer_at(module: GraphModule, node: object) -> FakeQuantizeBase | None:
    """The fake-quantize module that ``node`` calls; None where it does something else."""
    if not isinstance(node, Node) or node.op != "call_module":
        return None
    called = module.get_submodule(str(node.target))
    return called if isinstance(called, FakeQuantizeBase) else None


def channel_shape(value: Tensor, axis: int) -> list[int]:
    """The shape in which a vector of channels broadcasts against ``value``."""
    shape = [1] * value.dim()
    shape[axis] = -1
    return shape


def over_channels(value: Tensor, axis: int) -> Tensor:
    """``value`` as (channels, everything else)."""
    return value.movedim(axis, 0).flatten(1)


def _read_elsewhere(node: Node) -> bool:
    """Whether another node reads the same parameter."""
    return any(one is not node and one.op == "get_attr" and one.target == node.target for one in node.graph.nodes)
