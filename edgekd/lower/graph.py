"""A master's graph as rules see it: who makes a value, who uses it, which sites and weighted layers there are."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import numpy_helper

WEIGHTED = ("Conv", "Gemm", "MatMul", "ConvTranspose")
ACTIVATIONS = ("HardSwish", "Sigmoid", "HardSigmoid", "Gelu", "LeakyRelu", "Elu", "Softplus", "Tanh")
GATES = ("Sigmoid", "HardSigmoid")
CLIPS = ("Relu", "Clip")
PASSING = (
    "MaxPool",
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Split",
    "Gather",
    "DepthToSpace",
    "Identity",
)
AVERAGES = ("AveragePool", "GlobalAveragePool", "ReduceMean")


@dataclass
class SiteNode:
    """A site in the graph: the Q, its DQ (the first, where a lowering wrote several), and the float value in front."""

    tensor: str
    quantize: onnx.NodeProto
    dequantize: onnx.NodeProto


@dataclass
class Layer:
    """A weighted node whose weight has Q/DQ: the float weight's name and its axis of output channels."""

    node: onnx.NodeProto
    weight: str
    quantize: onnx.NodeProto
    dequantize: onnx.NodeProto
    axis: int


class Graph:
    """A mutable view of a model; `refresh` after nodes are added or removed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.refresh()

    def refresh(self) -> None:
        """Read the graph anew."""
        graph = self.model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producer = {name: node for node in graph.node for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in graph.output}
        self.inputs = {value.name for value in graph.input} - self.constants.keys()

    @cached_property
    def shapes(self) -> dict[str, list[int]]:
        """`value_shapes` of the model as it was when they were first asked for."""
        return value_shapes(self.model)

    def array(self, name: str) -> np.ndarray:
        """A constant's value."""
        return numpy_helper.to_array(self.constants[name])

    def sites(self) -> list[SiteNode]:
        """All activation sites in topological order."""
        found = []
        for node in self.model.graph.node:
            if node.op_type == "QuantizeLinear" and node.input[0] not in self.constants:
                found.append(SiteNode(node.input[0], node, self.consumers[node.output[0]][0]))
        return found

    def layers(self) -> list[Layer]:
        """All weighted nodes whose weight is quantized, in topological order."""
        found = []
        for node in self.model.graph.node:
            if node.op_type not in WEIGHTED:
                continue
            dequantize = self.producer.get(node.input[1])
            quantize = self.producer.get(dequantize.input[0]) if dequantize is not None else None
            if dequantize is None or quantize is None or quantize.input[0] not in self.constants:
                continue
            axis = next((a.i for a in quantize.attribute if a.name == "axis"), 1)
            found.append(Layer(node, quantize.input[0], quantize, dequantize, axis))
        return found

    def source(self, name: str) -> onnx.NodeProto | None:
        """The node that computes a value, seen through sites."""
        node = self.producer.get(name)
        while node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node = self.producer.get(node.input[0])
        return node

    def is_first(self, node: onnx.NodeProto) -> bool:
        """Whether a node computes with the network's input, as it is or moved by operators that pass numbers on."""
        source = self.source(node.input[0])
        while source is not None and source.op_type in PASSING:
            source = self.source(source.input[0])
        return source is None

    def users(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that compute with a value, seen through sites."""
        found = []
        for node in self.consumers.get(name, []):
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                found += self.users(node.output[0])
            else:
                found.append(node)
        return found

    def is_site_output(self, name: str) -> bool:
        """Whether a value comes out of an activation site."""
        node = self.producer.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return False
        quantize = self.producer.get(node.input[0])
        return quantize is not None and quantize.input[0] not in self.constants

    def site_of(self, name: str) -> onnx.NodeProto | None:
        """The Q of the site that a value comes out of, directly or moved by operators that pass numbers on."""
        node = self.producer.get(name)
        while node is not None and node.op_type in PASSING:
            name = node.input[0]
            node = self.producer.get(name)
        return self.producer[node.input[0]] if node is not None and self.is_site_output(name) else None

    def is_quantized(self, name: str) -> bool:
        """Whether `site_of` finds a site."""
        return self.site_of(name) is not None

    def needless(self, site: SiteNode) -> bool:
        """Whether an engine that moves quantizers and fuses activations into kernels wants no such site.

        Behind operators that pass quantized numbers on, between a weighted layer and its activation, and inside an
        activation that is written as a product (SiLU).
        """
        producer = self.producer.get(site.tensor)
        if producer is None:
            return False
        if producer.op_type in PASSING:
            return self.is_quantized(producer.input[0])
        users = self.users(site.tensor)
        if producer.op_type in GATES and len(users) == 1 and self.is_gated(users[0], producer):
            return True
        return (
            self.without_bias(producer).op_type in WEIGHTED
            and bool(users)
            and all(user.op_type in ACTIVATIONS or self.is_gated(user) for user in users)
        )

    def without_bias(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """The product in front, where ``node`` adds a constant to it (a linear layer of more than two dimensions)."""
        if node.op_type != "Add" or not any(name in self.constants for name in node.input):
            return node
        others = [self.producer.get(name) for name in node.input if name not in self.constants]
        product = others[0] if len(others) == 1 else None
        return product if product is not None and product.op_type == "MatMul" else node

    def data_inputs(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of a node that are neither constants nor quantized weights."""
        found = []
        for name in node.input:
            source = self.source(name)
            quantized = source is None and name in self.producer and name not in self.inputs
            constant = name in self.constants or (quantized and not self.is_site_output(name))
            if name and not constant:
                found.append(name)
        return found

    def is_gated(self, node: onnx.NodeProto, gate: onnx.NodeProto | None = None) -> bool:
        """Whether a node is ``x * sigmoid(x)``, with this ``gate`` when one is given."""
        if node.op_type != "Mul" or len(node.input) != 2:
            return False
        for name, other in (node.input, node.input[::-1]):
            found = self.source(name)
            if found is not None and found.op_type in GATES and (gate is None or found.output[0] == gate.output[0]):
                return self._float_name(found.input[0]) == self._float_name(other)
        return False

    def _float_name(self, name: str) -> str:
        """A value's name in front of the site that it comes out of."""
        return self.producer[self.producer[name].input[0]].input[0] if self.is_site_output(name) else name

    def bypass(self, quantize: onnx.NodeProto, dequantize: onnx.NodeProto) -> None:
        """Take a Q/DQ pair out: its users read the float value."""
        source, result = quantize.input[0], dequantize.output[0]
        readers = self.consumers.pop(result, [])
        for node in readers:
            for index, name in enumerate(node.input):
                if name == result:
                    node.input[index] = source
        self.remove(dequantize)
        self.remove(quantize)
        self.consumers[source] = [*self.consumers.get(source, []), *readers]

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out, without reading the whole graph anew."""
        self.model.graph.node.remove(node)
        for name in node.output:
            del self.producer[name]
        for name in node.input:
            self.consumers[name] = [one for one in self.consumers.get(name, []) if one.output[0] != node.output[0]]
            if not self.consumers[name]:
                del self.consumers[name]

    def set_constant(self, name: str, value: np.ndarray) -> str:
        """Add or replace an initializer; returns its name."""
        tensor = numpy_helper.from_array(np.asarray(value), name)
        if name in self.constants:
            self.constants[name].CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
            self.constants[name] = self.model.graph.initializer[-1]
        return name

    def add_constant(self, name: str, value: np.ndarray, owner: str) -> str:
        """Add an initializer for ``owner``; one of its own where another value has the name. Returns its name."""
        if name in self.constants:
            found = self.array(name)
            if found.dtype == value.dtype and np.array_equal(found, value):
                return name
            name = f"{name}_of_{owner}"
        return self.set_constant(name, value)

    def untie_weights(self) -> None:
        """Layers that share a weight get a Q/DQ pair each, since each may be written with other numbers, or in float.

        The float constant stays one.
        """
        nodes, seen = self.model.graph.node, set[str]()
        for layer in self.layers():
            if layer.dequantize.output[0] in seen:
                pair = [copy.deepcopy(one) for one in (layer.quantize, layer.dequantize)]
                for one in pair:
                    one.output[0] = one.name = f"{one.output[0]}_of_{layer.node.output[0]}"
                pair[1].input[0], layer.node.input[1] = pair[0].output[0], pair[1].output[0]
                place = list(nodes).index(layer.node)
                for offset, one in enumerate(pair):
                    nodes.insert(place + offset, one)
            seen.add(layer.dequantize.output[0])
        self.refresh()

    def drop_unused(self) -> None:
        """Remove constants and nodes that nothing reads."""
        graph = self.model.graph
        while True:
            self.refresh()
            dead = [n for n in graph.node if not any(o in self.consumers or o in self.outputs for o in n.output)]
            if not dead:
                break
            for node in dead:
                graph.node.remove(node)
        for tensor in list(graph.initializer):
            if tensor.name not in self.consumers:
                graph.initializer.remove(tensor)
        self.refresh()


def value_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """The shape of every value, 0 where a size is not known."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
