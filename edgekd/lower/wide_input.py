"""The first convolution with four input channels where images have fewer, for ONNX Runtime on x86.

Its kernel for symmetric weights (MLAS ConvSym) reads channels in fours. With three it gathers patches first, and the
first layer takes a fifth of a mobile network's time. A channel of zero points with weights of zero changes no number.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.lower.graph import Graph

CHANNELS = 4
# With fewer values a channel the padding takes longer than it saves.
LEAST_SIZE = 256
_WIDE = "_wide"


def widen_input(graph: Graph) -> None:
    """In place: images whose site one integer convolution alone reads get channels up to `CHANNELS`."""
    for value in graph.model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        sites = [node for node in graph.consumers.get(value.name, []) if node.op_type == "QuantizeLinear"]
        if len(shape) != 4 or not 0 < shape[1] < CHANNELS or shape[2] * shape[3] < LEAST_SIZE or len(sites) != 1:
            continue
        found = _reader(graph, sites[0].output[0])
        # In a convolution of groups weights have fewer channels than the image.
        if found is None or graph.array(found[1].input[0]).shape[1] != shape[1]:
            continue
        dequantize, weight = found
        missing = CHANNELS - shape[1]
        codes = np.pad(graph.array(weight.input[0]), ((0, 0), (0, missing), (0, 0), (0, 0)))
        weight.input[0] = graph.set_constant(f"{weight.input[0]}{_WIDE}", codes)
        pads = graph.set_constant(f"{value.name}{_WIDE}_pads", _pads(missing))
        name = f"{value.name}{_WIDE}"
        pad = helper.make_node("Pad", [sites[0].output[0], pads, sites[0].input[2]], [name], name=name)
        graph.model.graph.node.insert(list(graph.model.graph.node).index(dequantize), pad)
        dequantize.input[0] = name
        graph.refresh()


def narrowed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a lowered file without exactly what `widen_input` puts in.

    What differs from that in any node or number stays, for whoever compares the file with the master.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    graph = Graph(plain)
    for pad in [one for one in plain.graph.node if one.op_type == "Pad" and one.output[0].endswith(_WIDE)]:
        quantize, found = graph.producer.get(pad.input[0]), _reader(graph, pad.output[0])
        if quantize is None or quantize.op_type != "QuantizeLinear" or found is None or pad.attribute:
            continue
        dequantize, weight = found
        codes, pads = graph.array(weight.input[0]), graph.array(pad.input[1])
        missing = int(pads[5]) if pads.shape == (8,) else 0
        if not 0 < missing < CHANNELS or codes.shape[1] != CHANNELS or not np.array_equal(pads, _pads(missing)):
            continue
        # Zeros of the site, on weights of zero.
        if pad.input[2] != quantize.input[2] or codes[:, -missing:].any():
            continue
        weight.input[0] = graph.set_constant(f"{weight.input[0]}_narrow", codes[:, :-missing])
        dequantize.input[0] = quantize.output[0]
        plain.graph.node.remove(pad)
        graph.refresh()
    return plain


def _reader(graph: Graph, codes: str) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """The DequantizeLinear of these codes and that of the weight, where one integer convolution alone reads them."""
    users = graph.consumers.get(codes, [])
    if len(users) != 1 or users[0].op_type != "DequantizeLinear":
        return None
    readers = graph.consumers.get(users[0].output[0], [])
    if len(readers) != 1 or readers[0].op_type != "Conv" or users[0].output[0] in graph.outputs:
        return None
    weight = graph.producer.get(readers[0].input[1])
    if weight is None or weight.op_type != "DequantizeLinear" or weight.input[0] not in graph.constants:
        return None
    return users[0], weight


def _pads(missing: int) -> np.ndarray:
    """For Pad: so many channels more behind (N, C, H, W)."""
    return np.array([0, 0, 0, 0, 0, missing, 0, 0], np.int64)
