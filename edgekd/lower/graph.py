"""A master's graph as rules see it: who makes a value, who uses it, which sites and weighted layers there are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

WEIGHTED = ("Conv", "Gemm", "MatMul", "ConvTranspose")
ACTIVATIONS = ("HardSwish", "Sigmoid", "HardSigmoid", "Gelu", "LeakyRelu", "Elu", "Softplus", "Tanh")
CLIPS = ("Relu", "Clip")
PASSING = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Identity")
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
    attributes: dict[str, int] = field(default_factory=dict)


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

        Behind operators that pass quantized numbers on, and between a weighted layer and its activation.
        """
        producer = self.producer.get(site.tensor)
        if producer is None:
            return False
        if producer.op_type in PASSING:
            return self.is_quantized(producer.input[0])
        users = self.users(site.tensor)
        return producer.op_type in WEIGHTED and bool(users) and all(user.op_type in ACTIVATIONS for user in users)

    def bypass(self, quantize: onnx.NodeProto, dequantize: onnx.NodeProto) -> None:
        """Take a Q/DQ pair out: its users read the float value."""
        for node in self.consumers.get(dequantize.output[0], []):
            for index, name in enumerate(node.input):
                if name == dequantize.output[0]:
                    node.input[index] = quantize.input[0]
        self.model.graph.node.remove(dequantize)
        self.model.graph.node.remove(quantize)
        self.refresh()

    def set_constant(self, name: str, value: np.ndarray) -> str:
        """Add or replace an initializer; returns its name."""
        tensor = numpy_helper.from_array(np.asarray(value), name)
        if name in self.constants:
            self.constants[name].CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
            self.constants[name] = self.model.graph.initializer[-1]
        return name

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
